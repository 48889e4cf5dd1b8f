"""Counting what passes: each request keeps its own tally; the traffic is the sum of those that ended and that run.

A tally is written by the one thread that answers its request, so the decode loop needs no lock for it. Every token is
its own event there, so the time between two tokens is measured for each of them, and a stutter is seen that a mean
over the request would hide. Whoever reads a tally meanwhile may miss the newest token.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic

from millm.errors import Cancelled, QueueFull
from millm.events import Event
from millm.figures import Figures, Outcome

TICK_S = 0.25  # what the pace is counted by
WINDOW = 20  # ticks that a speed is the mean of
SHORTEST_S = 1.0  # that a speed is the mean of, so that the first tokens do not look like a storm


class Tally:
    """What one request brought about so far. outcome: None while it runs. pace: tokens of the last ticks."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.figures = Figures()
        self.outcome: Outcome | None = None
        self.pace: dict[int, int] = {}
        self._clock = clock
        self._asked_at = clock()
        self._told: dict[int, tuple[int, float]] = {}  # each answer's tokens, and when the last one came

    @property
    def generating(self) -> bool:
        """Whether the first token has come, and the last one has not."""
        return bool(self._told) and self.outcome is None

    def hear(self, event: Event) -> None:
        """Counts the tokens that an event tells of."""
        known, before = self._told.get(event.index, (0, 0.0))
        fresh = event.tokens - known
        if fresh <= 0:
            return
        now = self._clock()
        if known:
            self.figures.next_token.observe((now - before) / fresh, fresh)
        elif not self._told:
            self.figures.first_token.observe(now - self._asked_at)
        self._told[event.index] = (event.tokens, now)
        self.figures.generated_tokens += fresh
        _count(self.pace, int(now / TICK_S), fresh)

    def answered(self, prompt_tokens: int, cached_tokens: int, generated_tokens: int) -> None:
        """Takes over what the whole answer says. An engine that reports pieces may have generated more tokens."""
        self.figures.prompt_tokens, self.figures.cached_tokens = prompt_tokens, cached_tokens
        self.figures.generated_tokens = max(self.figures.generated_tokens, generated_tokens)

    def add_to(self, sums: Figures) -> None:
        """Adds what was counted."""
        sums.add(self.figures)
        if self.outcome:
            sums.outcomes[self.outcome] += 1

    def end(self, error: BaseException | None) -> None:
        """Counts the end; `error` is None for an answer. What was refused took no time."""
        outcome = _outcome(error)
        if outcome is not Outcome.REFUSED:
            self.figures.whole.observe(self._clock() - self._asked_at)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class _Known:
    """All requests at one moment. past, pace: sums over those that were put aside; tallies: the others."""

    past: Figures = field(default_factory=Figures)
    pace: Mapping[int, int] = field(default_factory=dict)
    tallies: tuple[Tally, ...] = ()

    def tidied(self) -> "_Known":
        """The same with the requests that have ended put aside."""
        past, pace = Figures(), dict(self.pace)
        past.add(self.past)
        over = [tally for tally in self.tallies if tally.outcome]
        for tally in over:
            tally.add_to(past)
            for tick, tokens in tally.pace.copy().items():  # one that was broken off may say one word more
                _count(pace, tick, tokens)
        return _Known(past, pace, tuple(tally for tally in self.tallies if tally not in over))


class Traffic:
    """All requests of this process. `begin` is called on one thread at a time, everything else from anywhere."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._known = _Known()  # never changed, only replaced: whoever reads it sees one moment

    def begin(self) -> Tally:
        """Starts counting for a request."""
        tally, known = Tally(self._clock), self._known.tidied()
        self._known = replace(known, tallies=(*known.tallies, tally))
        return tally

    def figures(self) -> Figures:
        """The sums over all requests so far."""
        known, sums = self._known, Figures()
        sums.add(known.past)
        for tally in known.tallies:
            tally.add_to(sums)
        return sums

    def speed(self) -> float:
        """Tokens a second of all requests together over the last seconds; 0 while none is being generated."""
        known = self._known
        if not any(tally.generating for tally in known.tallies):
            return 0.0
        now = self._clock()
        newest, paces = int(now / TICK_S), [known.pace, *(tally.pace for tally in known.tallies)]
        counts = {tick: sum(pace.get(tick, 0) for pace in paces) for tick in range(newest - WINDOW + 1, newest + 1)}
        first = next((tick for tick, count in counts.items() if count), newest)
        return sum(counts.values()) / max(now - first * TICK_S, SHORTEST_S)


def _count(pace: dict[int, int], tick: int, tokens: int) -> None:
    """Adds tokens to a tick; one that has left the window makes way."""
    pace[tick] = pace.get(tick, 0) + tokens
    if len(pace) > WINDOW:
        del pace[min(pace)]


def _outcome(error: BaseException | None) -> Outcome:
    if error is None:
        return Outcome.OK
    if isinstance(error, Cancelled):
        return Outcome.CANCELLED
    return Outcome.REFUSED if isinstance(error, QueueFull) else Outcome.ERROR
