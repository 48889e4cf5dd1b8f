"""How a server is that runs a model elsewhere: asked now and then, by nobody who waits."""

import time
from collections.abc import Callable
from contextlib import suppress

from millm.engines.base import WELL, Health
from millm.errors import QueueFull, explain
from millm.jobs import Job, Lane

EVERY_S = 3.0


class Pulse:
    """What is known of a server. `ask` asks it, and raises what is wrong with it; it is given a job's check.

    every_s: seconds from one answer to the next question, which is put only when somebody reads.
    """

    def __init__(self, ask: Callable[[Callable[[], None]], None], every_s: float = EVERY_S) -> None:
        self._ask = ask
        self._every_s = every_s
        self._lane = Lane("health", limit=1)
        self._health = WELL
        self._due = time.monotonic() + every_s
        self._closed = False

    def read(self) -> Health:
        """What is known now; never waits. Asks anew, where the last answer is old."""
        if time.monotonic() >= self._due and not self._closed:
            with suppress(QueueFull):  # it is being asked
                self._lane.submit(self._look)
        return self._health

    def beat(self) -> None:
        """The server has just said something: it is well."""
        self._health = WELL
        self._due = time.monotonic() + self._every_s

    def doubt(self) -> None:
        """Something went wrong with the server: the next reader asks at once."""
        self._due = 0.0

    def close(self) -> None:
        """Asks no more."""
        self._closed = True
        self._lane.close(timeout=1.0)

    def _look(self, job: Job[None]) -> None:
        try:
            self._ask(job.check)
        except Exception as error:  # noqa: BLE001  (nobody waits for this job: what it meets is told by `read`)
            self._health = Health(problem=explain(error).message)
            self._due = time.monotonic() + self._every_s
        else:
            self.beat()
