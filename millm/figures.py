"""What passed through, in numbers: requests, tokens, times. Values that know neither clock nor thread."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

# Upper bounds of what is counted together, in seconds.
FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
NEXT_TOKEN = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.5)
WHOLE = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Outcome(StrEnum):
    """How a request ended. REFUSED: it never began, because too many were waiting."""

    OK = "ok"
    ERROR = "error"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class Histogram:
    """How many times lie up to which bound. total: their sum, in seconds."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """bounds: seconds, ascending; longer times are counted behind the last one."""
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, seconds: float, times: int = 1) -> None:
        """Counts a time, `times` times."""
        self._counts[bisect_left(self.bounds, seconds)] += times
        self.total += seconds * times

    def add(self, other: "Histogram") -> None:
        """Takes in what another one with the same bounds counted."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self.total += other.total

    def cumulated(self) -> Iterator[tuple[float, int]]:
        """Yields each bound with the number of times that do not exceed it; the last bound is infinite."""
        below = 0
        for bound, count in zip((*self.bounds, float("inf")), self._counts, strict=True):
            below += count
            yield bound, below


@dataclass(slots=True)
class Figures:
    """Sums over requests.

    prompt_tokens: of requests that were answered. cached_tokens: those of them that an earlier turn had read already.
    generated_tokens: also of answers that were broken off. first_token: from a request to its first token, waiting
    included. next_token: from each token of an answer to the next. whole: from a request to its end, whatever it was.
    """

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    first_token: Histogram = field(default_factory=lambda: Histogram(FIRST_TOKEN))
    next_token: Histogram = field(default_factory=lambda: Histogram(NEXT_TOKEN))
    whole: Histogram = field(default_factory=lambda: Histogram(WHOLE))

    def add(self, other: "Figures") -> None:
        """Takes in the sums over other requests."""
        self.outcomes.update(other.outcomes)
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.generated_tokens += other.generated_tokens
        self.first_token.add(other.first_token)
        self.next_token.add(other.next_token)
        self.whole.add(other.whole)
