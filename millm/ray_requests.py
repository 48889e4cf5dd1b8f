"""Requests on their way to replicas and back: told whose replica died, begun again where nothing was said yet."""

import asyncio
import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from millm.engines.plain import plain_error
from millm.errors import RemoteUnavailable
from millm.ray_lines import AWAY, DIED, PATIENT, Lines, Patience, ReplicaDied, Said
from millm.ray_status import first_line
from millm.replica import ENDS, SAYS

TRIES = 3  # of a request that has produced nothing yet

Say = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Attempt:
    """A request at one replica. over: done once it is answered, and fails with its replica.

    replica: its name; "" until one has taken it. begun: whether a piece of the answer was said.
    """

    number: int
    over: asyncio.Future[None]
    replica: str = ""
    begun: bool = False

    def fail(self, why: Exception) -> None:
        """Ends it, unless it is over."""
        if not self.over.done():
            self.over.set_exception(why)


class Requests:
    """The requests to one application. handle: of Ray Serve. say: hears what is answered to each.

    lines: on which the replicas answer.
    """

    def __init__(self, handle: Any, say: Say, patience: Patience = PATIENT) -> None:
        self._handle = handle
        self._say = say
        self._patience = patience
        self.lines = Lines(handle, patience, self._pass_on, self._lose)
        self._keys = itertools.count(1)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._attempts: dict[int, Attempt] = {}

    def hear(self, told: dict[str, Any]) -> None:
        """Begins a request, or cancels one."""
        if "cancel" in told:
            if task := self._tasks.get(told["cancel"]):
                task.cancel()
            return
        number = told["id"]
        task = asyncio.create_task(self._answer(number, told["ask"], told["request"]))
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._tasks.pop(number))

    def running(self) -> Counter[str]:
        """How many requests each replica answers."""
        return Counter(each.replica for each in self._attempts.values() if each.replica)

    async def _answer(self, number: int, ask: str, request: Any) -> None:
        """Has a replica answer; asks another one if it dies before it has produced anything."""
        failed = DIED
        for _ in range(TRIES):
            attempt = Attempt(number, asyncio.get_running_loop().create_future())
            try:
                await self._try(attempt, ask, request)
                return
            except RemoteUnavailable as error:
                failed = error.message
                break
            except ReplicaDied as error:
                sys.stderr.write(f"a replica failed: {error}\n")
            if attempt.begun:
                break
            await asyncio.sleep(self._patience.pause)
        self._say({"said": [(number, {"error": plain_error(RemoteUnavailable(failed))})]})

    async def _try(self, attempt: Attempt, ask: str, request: Any) -> None:
        """Returns once a replica has answered. Raises `ReplicaDied`, and `RemoteUnavailable` if none takes it."""
        key = next(self._keys)
        self._attempts[key] = attempt
        told = json.dumps({"key": key, "request": request})
        stream = self._handle.options(stream=True, method_name=ask).remote(told)
        following = asyncio.create_task(self._follow(stream, attempt))
        try:
            await self._until_over(attempt)
        except BaseException:
            following.cancel()
            stream.cancel()
            raise
        finally:
            del self._attempts[key]

    async def _follow(self, stream: Any, attempt: Attempt) -> None:
        """Learns where it is answered, and listens there. A stream that has ended tells nothing: the line does."""
        try:
            async for name in stream:
                attempt.replica = name
                self.lines.listen(name)
                self._say({"said": [(attempt.number, {"at": name})]})
        except Exception as error:  # noqa: BLE001  (whatever Ray makes of a death)
            attempt.fail(ReplicaDied(first_line(error)))
        if not attempt.replica:
            attempt.fail(ReplicaDied("its stream ended"))

    async def _until_over(self, attempt: Attempt) -> None:
        """Raises `RemoteUnavailable` if no replica takes it; over one that did, whoever listens to it watches."""
        loop, most = asyncio.get_running_loop(), self._patience
        asked_at = loop.time()
        while not (await asyncio.wait({attempt.over}, timeout=most.look))[0]:
            waited_s = 0.0 if attempt.replica else loop.time() - asked_at
            if self.lines.away and waited_s > most.away:
                raise RemoteUnavailable(AWAY)
            if waited_s > most.wait:
                raise RemoteUnavailable(f"No replica took the request in {most.wait:.0f} s.")
        attempt.over.result()

    def _pass_on(self, said: Said) -> None:
        known = [(attempt, kind, item) for key, kind, item in said if (attempt := self._attempts.get(key))]
        if known:
            self._say({"said": [(attempt.number, item) for attempt, _, item in known]})
        for attempt, kind, _ in known:
            attempt.begun = attempt.begun or kind == SAYS
            if kind == ENDS and not attempt.over.done():
                attempt.over.set_result(None)

    def _lose(self, replica: str, why: Exception) -> None:
        for attempt in self._attempts.values():
            if attempt.replica == replica:
                attempt.fail(why)
