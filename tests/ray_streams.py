"""A handle of Ray Serve as a fake: streams that say what a test wrote down, and one line for each replica."""

import asyncio
import json
from typing import Any

from millm.replica import ENDS, SAYS

AT = "one"  # where a request is answered
WORD = (SAYS, {"event": {"stage": "generating", "text": "word"}})
WHOLE = (ENDS, {"answer": {}})
SILENCE = None  # nothing is said any more
MOMENT = object()  # in which what was said is heard
DEAD = RuntimeError("The actor died unexpectedly")


class LineEnds:
    """In a script: the line of the replica just ends, or raises. why: None for an end."""

    def __init__(self, why: Exception | None = None) -> None:
        self.why = why


class Stream:
    """Behaves as Ray's do: says what it is given, raises its errors, just ends."""

    def __init__(self) -> None:
        self.cancelled = False

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> str:
        raise NotImplementedError

    def cancel(self) -> None:
        self.cancelled = True


class Line(Stream):
    """What a replica says: texts, errors to raise, `StopAsyncIteration` for its end, as they are put in."""

    def __init__(self) -> None:
        super().__init__()
        self.said = asyncio.Queue[str | Exception]()

    async def __anext__(self) -> str:
        said = await self.said.get()
        if isinstance(said, Exception):
            raise said
        return said


class Request(Stream):
    """The stream of a request: its script tells what it says itself and what goes over the line."""

    def __init__(self, script: list[Any], key: int, handle: "Handle") -> None:
        super().__init__()
        self._script, self._key, self._handle = iter(script), key, handle

    async def __anext__(self) -> str:
        for said in self._script:
            if said is SILENCE:
                await asyncio.sleep(60)
            if isinstance(said, Exception):
                raise said
            if said == AT:
                return AT
            if said is MOMENT:
                await asyncio.sleep(0.05)
                continue
            line = self._handle.line(AT)
            if isinstance(said, LineEnds):
                line.said.put_nowait(said.why or StopAsyncIteration())
            else:
                line.said.put_nowait(json.dumps([(self._key, *said)]))
        raise StopAsyncIteration


class Handle:
    """Gives one request after the other its script, and whoever listens the line of the replica.

    asked: methods and texts of the requests. listened: replicas, once for every time.
    """

    def __init__(self, *scripts: list[Any]) -> None:
        self.requests: list[Request] = []
        self.asked: list[tuple[str, Any]] = []
        self.listened: list[str] = []
        self._scripts = scripts
        self._lines: dict[str, Line] = {}

    def line(self, replica: str) -> Line:
        return self._lines.setdefault(replica, Line())

    def options(self, stream: bool, method_name: str) -> "Handle":
        assert stream
        self._method = method_name
        return self

    def remote(self, told: str) -> Stream:
        if self._method == "listen":
            self.listened.append(told)
            return self.line(told)
        asked = json.loads(told)
        self.asked.append((self._method, asked["request"]))
        self.requests.append(Request(self._scripts[len(self.requests)], asked["key"], self))
        return self.requests[-1]
