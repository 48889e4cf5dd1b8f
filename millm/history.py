"""How this process did over the last minutes: a sample for every few seconds, of what is measured anyway."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from time import monotonic

KEPT_S = 600.0
STEP_S = 5.0  # measurements within one step become one sample


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.

    at: seconds on the clock. tokens: generated since the start. ended: requests that ended since the start.
    requests: how many ran at the same time, at most. process_bytes: RAM of this process. device_bytes: memory in use
    on all GPUs, or of the RAM where there is none.
    """

    at: float
    tokens: int
    ended: int
    requests: int
    process_bytes: int
    device_bytes: int


@dataclass(frozen=True, slots=True)
class Point:
    """What was between two measurements. ago: seconds before now; the other values are as in `Sample`."""

    ago: float
    tokens_per_s: float
    requests: int
    process_bytes: int
    device_bytes: int


class History:
    """The samples of the last ten minutes. `add` and `points` may be called from anywhere."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._samples: tuple[Sample, ...] = ()  # never changed, only replaced: whoever reads it sees one moment

    def add(self, tokens: int, ended: int, requests: int, process_bytes: int, device_bytes: int) -> None:
        """Keeps a measurement of now; see `Sample`."""
        fresh = Sample(self._clock(), tokens, ended, requests, process_bytes, device_bytes)
        before = [each for each in self._samples if fresh.at - each.at <= KEPT_S]
        if before and before[-1].at // STEP_S == fresh.at // STEP_S:
            fresh = replace(fresh, requests=max(before.pop().requests, fresh.requests))
        self._samples = (*before, fresh)

    def points(self) -> tuple[Point, ...]:
        """What is known of the last ten minutes, oldest first.

        A request that began and ended between two measurements is counted as one that ran.
        """
        now, samples = self._clock(), self._samples
        return tuple(
            Point(
                now - new.at,
                (new.tokens - old.tokens) / (new.at - old.at),
                max(new.requests, int(new.ended > old.ended)),
                new.process_bytes,
                new.device_bytes,
            )
            for old, new in pairwise(samples)
            if now - new.at <= KEPT_S
        )
