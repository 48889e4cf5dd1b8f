"""How far a download is and how fast it goes."""

import time
from collections import deque

from millm.events import Event, Stage

SPEED_WINDOW_S = 5


class Meter:
    """Turns bytes received into events: never backwards, speed over the last seconds.

    already: bytes that came in other ways; they count as done, and not for the speed.
    """

    def __init__(self, total: int, already: int = 0) -> None:
        self.total = total + already
        self._already = already
        self._done = 0
        self._past: deque[tuple[float, int]] = deque()

    def event(self, received: int, kept: int) -> Event:
        """The event for `received` bytes now, `kept` of which no network brought."""
        now = time.monotonic()
        self._done = done = max(received + self._already, self._done)
        brought = max(done - self._already - kept, self._past[-1][1]) if self._past else 0
        self._past.append((now, brought))
        while self._past[0][0] < now - SPEED_WINDOW_S:
            self._past.popleft()
        since, before = self._past[0]
        speed = (brought - before) / (now - since) if now > since else 0.0
        return Event(
            Stage.DOWNLOADING,
            progress=100 * done / self.total if self.total else 100.0,
            bytes_done=done,
            bytes_total=self.total,
            speed=speed,
            eta=(self.total - done) / speed if speed else None,
        )
