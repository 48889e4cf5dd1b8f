"""What replicas say of all their requests: one stream for each replica, listened to from its first request on."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from millm.errors import RemoteUnavailable
from millm.ray_status import first_line
from millm.replica import AGAIN

DIED = "The replica that was answering has died or does not answer any more. Ask again."
AWAY = "Ray's head does not answer, and no replica either. If that stays so, load the model again."

Said = list[tuple[int, str, dict[str, Any]]]
"""What requests are told, in this order: the key of each, what kind it is (`replica.SAYS`...), the thing itself."""


class ReplicaDied(Exception):
    """Ray says so, or a stream just ends, which is how most of them die. The text says why."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds. wait: for a replica to take a request. silence: without a sign of life from one that has taken it.

    away: for both while Ray's head does not answer, since then nobody tells that a replica has died. pause: before
    another replica is tried. look: between two looks at whether that time is over.
    """

    wait: float = 120.0
    silence: float = 60.0  # a replica gives a sign of life every second
    away: float = 10.0
    pause: float = 0.5
    look: float = 1.0


PATIENT = Patience()


class Lines:
    """Listens to replicas. handle: of Ray Serve. hear: is told what they say.

    gone: is told the name of a replica that says nothing any more, and why: `ReplicaDied` or `RemoteUnavailable`.
    away: whether Ray's head does not answer just now; whoever watches it sets that.
    """

    def __init__(
        self, handle: Any, patience: Patience, hear: Callable[[Said], None], gone: Callable[[str, Exception], None]
    ) -> None:
        self.away = False
        self._handle = handle
        self._patience = patience
        self._hear = hear
        self._gone = gone
        self._listening: dict[str, asyncio.Task[None]] = {}

    def listen(self, replica: str) -> None:
        """Listens to a replica unless it does already."""
        if replica not in self._listening:
            self._listening[replica] = asyncio.create_task(self._listen(replica))

    async def _listen(self, replica: str) -> None:
        why: Exception = ReplicaDied("its line ended")
        try:
            again = True
            while again:
                again = False
                stream = self._handle.options(stream=True, method_name="listen").remote(replica)
                async for said in self._words(stream):
                    if again := said == AGAIN:
                        break
                    self._hear(json.loads(said))
        except RemoteUnavailable as error:
            stream.cancel()
            why = error
        except Exception as error:  # noqa: BLE001  (whatever Ray makes of a death; its text goes to the log)
            why = ReplicaDied(first_line(error))
        sys.stderr.write(f"replica {replica} says nothing any more: {why}\n")
        del self._listening[replica]
        self._gone(replica, why)

    async def _words(self, stream: Any) -> AsyncIterator[str]:
        """What a replica says. Raises `RemoteUnavailable` if it is silent too long."""
        loop = asyncio.get_running_loop()
        while True:
            coming, asked_at = asyncio.ensure_future(anext(stream, None)), loop.time()
            try:
                while not (await asyncio.wait({coming}, timeout=self._patience.look))[0]:
                    silent_s = loop.time() - asked_at
                    if self.away and silent_s > self._patience.away:
                        raise RemoteUnavailable(AWAY)
                    if silent_s > self._patience.silence:
                        raise RemoteUnavailable(DIED)
            finally:
                coming.cancel()
            if (said := coming.result()) is None:
                return
            yield said
