"""Requests on their way to replicas and back: told whose replica died, begun again where nothing was said yet."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from millm.engines.plain import plain_error
from millm.errors import RemoteUnavailable
from millm.ray_status import first_line
from millm.replica import ENDS, SAYS

TRIES = 3  # of a request that has produced nothing yet
DIED = "The replica that was answering has died or does not answer any more. Ask again."
AWAY = "Ray's head does not answer, and no replica either. If that stays so, load the model again."

Say = Callable[[dict[str, Any]], None]


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


class Requests:
    """The requests to one application. handle: of Ray Serve. say: hears what is answered to each.

    away: whether Ray's head does not answer just now; whoever watches it sets that.
    """

    def __init__(self, handle: Any, say: Say, patience: Patience = Patience()) -> None:
        self.away = False
        self._handle = handle
        self._say = say
        self._patience = patience
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._places: dict[int, str] = {}

    def hear(self, told: dict[str, Any]) -> None:
        """Begins a request, or cancels one."""
        if "cancel" in told:
            if task := self._tasks.get(told["cancel"]):
                task.cancel()
            return
        number = told["id"]
        task = asyncio.create_task(self._answer(number, told["ask"], json.dumps(told["request"])))
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._forget(number))

    def running(self) -> Counter[str]:
        """How many requests each replica answers."""
        return Counter(self._places.values())

    async def _answer(self, number: int, ask: str, request: str) -> None:
        """Passes on what a replica answers; asks another one if it dies before it has produced anything."""
        failed = DIED
        for _ in range(TRIES):
            begun = False
            stream = self._handle.options(stream=True, method_name=ask).remote(request)
            try:
                async for said in self._heard(stream):
                    if "at" in (first := json.loads(said[1:]) or [{}])[0]:
                        self._places[number] = first[0]["at"]
                    begun = begun or said[0] == SAYS
                    self._say({"id": number, "said": said[1:]})
                    if said[0] == ENDS:
                        return
            except asyncio.CancelledError:
                stream.cancel()
                return
            except RemoteUnavailable as error:
                stream.cancel()
                failed = error.message
                break
            except Exception as error:  # noqa: BLE001  (whatever Ray makes of a death; its text goes to the log)
                sys.stderr.write(f"a replica failed: {first_line(error)}\n")
            if begun:
                break
            self._places.pop(number, None)
            await asyncio.sleep(self._patience.pause)
        self._say({"id": number, "said": json.dumps([{"error": plain_error(RemoteUnavailable(failed))}])})

    async def _heard(self, stream: Any) -> AsyncIterator[str]:
        """What a replica says. Raises `RemoteUnavailable` if none takes the request, or one is silent too long."""
        loop, most = asyncio.get_running_loop(), self._patience
        patience, failed = most.wait, f"No replica took the request in {most.wait:.0f} s."
        while True:
            coming, asked_at = asyncio.ensure_future(anext(stream, None)), loop.time()
            try:
                while not (await asyncio.wait({coming}, timeout=most.look))[0]:
                    silent_s = loop.time() - asked_at
                    if self.away and silent_s > most.away:
                        raise RemoteUnavailable(AWAY)
                    if silent_s > patience:
                        raise RemoteUnavailable(failed)
            finally:
                coming.cancel()
            if (said := coming.result()) is None:
                return
            yield said
            patience, failed = most.silence, DIED

    def _forget(self, number: int) -> None:
        del self._tasks[number]
        self._places.pop(number, None)
