"""One copy of a model on Ray Serve: opened on the node where it lands, asked in JSON, answering in JSON.

The stream of a request says where it is made, and ends when that is over or broken off; whoever leaves it cancels the
request. What is said goes over the replica's `Line`.
"""

import asyncio
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from millm.devices import list_devices, ram
from millm.engines.base import ChatRequest, EmbedRequest, Engine, LoadOptions
from millm.engines.plain import plain, plain_error, restored
from millm.errors import Cancelled, LoadFailed, RemoteUnavailable, explain
from millm.events import Event, Report
from millm.jobs import Job, Lane
from millm.loads import CACHE_SHARE
from millm.nearby import folder_here
from millm.records import ModelRecord

T = TypeVar("T")

SAYS, QUIET, ENDS = "s", "q", "e"
"""What is said: a piece of an answer, what is no part of it, or at its very end the whole answer or an error."""
AGAIN = '"again"'
"""The last that a line says before it is to be listened to anew."""
CANNOT_OPEN = "miLLM cannot open this model here: "
"""Stands before the JSON of an error, in what a constructor that failed complains of."""
AT_ONCE = 64  # requests in a replica: 32 step together, the others wait beside their prompts
PACE_S = 0.0125  # for each answer in the making, in which tokens after its first gather before they are sent
SLOWEST_S = 0.2  # for all of them
BEAT_S = 1.0  # between two signs of life while nothing else is to be said
LONG = 10_000  # messages, after which a line begins anew: Ray may keep something of every one until a stream ends


class Line:
    """What all answers of a replica say, in that order, together: a message through Ray costs more than a token.

    Made and listened to in one event loop. What is said while nobody listens waits. answers: how many are being made.
    """

    def __init__(self) -> None:
        self.answers = 0
        self._said: deque[tuple[int, str, dict[str, Any]]] = deque()
        self._some, self._now = asyncio.Event(), asyncio.Event()
        self._rung = False
        self._listeners = 0

    def say(self, loop: asyncio.AbstractEventLoop, key: int, kind: str, item: dict[str, Any], at_once: bool) -> None:
        """Says one thing of the request with this key, from any thread. at_once: nothing is waited for."""
        self._said.append((key, kind, item))
        if at_once or not self._rung:
            self._rung = True
            loop.call_soon_threadsafe(self._ring, at_once)

    async def listen(self) -> AsyncIterator[str]:
        """JSON lists of (key, kind, item), empty for a sign of life; ends with `AGAIN`, or when another listens."""
        self._listeners += 1
        own = self._listeners
        for _ in range(LONG):
            await _up_to(self._some, BEAT_S)
            if own != self._listeners:
                return
            yield json.dumps(self._taken())
            await _up_to(self._now, min(SLOWEST_S, PACE_S * self.answers))
        yield AGAIN

    def _ring(self, at_once: bool) -> None:
        self._some.set()
        if at_once:
            self._now.set()

    def _taken(self) -> list[tuple[int, str, dict[str, Any]]]:
        self._rung = False  # before anything is taken: what is said from here on rings again
        self._some.clear()
        self._now.clear()
        return [self._said.popleft() for _ in range(len(self._said))]


async def _up_to(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


class Replica:
    """Opens a model when it is made. Ray Serve makes it, and calls its methods in its event loop."""

    def __init__(self, told: str) -> None:
        """told: JSON of the record, the options, the hub's address, GPUs for each, and the most replicas.

        Raises:
            RuntimeError: it cannot be opened; the error as JSON stands behind `CANNOT_OPEN`.
        """
        try:
            self._engine = _open(**json.loads(told))
        except Exception as error:  # noqa: BLE001  (of a constructor that fails, Ray hands on the text alone)
            raise RuntimeError(CANNOT_OPEN + json.dumps(plain_error(explain(error)))) from None
        self._name = own_name()
        self._lane = Lane("requests", AT_ONCE)
        self._line = Line()

    async def about(self) -> str:
        """What the one who had it opened wants to know of the engine, as JSON."""
        return json.dumps({"memory_bytes": self._engine.memory_bytes, "batching": self._engine.batching})

    async def listen(self, _name: str) -> AsyncIterator[str]:
        """What all requests say; see `Line.listen`. _name: of this replica, by which the caller's router found it."""
        async for said in self._line.listen():
            yield said

    async def chat(self, told: str) -> AsyncIterator[str]:
        """Answers. told: JSON of a key, by which the line calls it, and a `ChatRequest`."""
        async for name in self._answer(told, ChatRequest, self._engine.chat):
            yield name

    async def embed(self, told: str) -> AsyncIterator[str]:
        """Embeds. told: JSON of a key and an `EmbedRequest`."""
        async for name in self._answer(told, EmbedRequest, self._engine.embed):
            yield name

    async def _answer(self, told: str, kind: type[T], ask: Callable[[T, Report], Any]) -> AsyncIterator[str]:
        """The name of this replica; ends when what is answered has been said. Whoever leaves cancels it."""
        asked = json.loads(told)
        key, request = asked["key"], restored(kind, asked["request"])
        loop, over, begun = asyncio.get_running_loop(), asyncio.Event(), False

        def hear(_: Job[None], event: Event) -> None:
            nonlocal begun
            first, begun = event.says_something and not begun, begun or event.says_something
            self._line.say(loop, key, SAYS if event.says_something else QUIET, {"event": plain(event)}, at_once=first)

        def end(item: dict[str, Any]) -> None:
            self._line.say(loop, key, ENDS, item, at_once=True)

        def ended(_: Job[None], error: BaseException | None) -> None:
            if isinstance(error, Cancelled):
                error = RemoteUnavailable("The replica that was answering was stopped. Ask again.")
            if error is not None:
                end({"error": plain_error(explain(error))})
            loop.call_soon_threadsafe(over.set)

        self._line.answers += 1
        job: Job[None] = Job(on_event=hear, on_end=ended)
        self._lane.submit(lambda job: end({"answer": plain(ask(request, job.report))}), job)
        try:
            yield self._name
            await over.wait()
        finally:
            self._line.answers -= 1
            job.cancel()


def own_name() -> str:
    """How Ray Serve calls the replica that this process is."""
    from ray import serve

    return str(serve.get_replica_context().replica_id.unique_id)


def _open(record: dict[str, Any], options: dict[str, Any], hub: str | None, gpus: float, most: int) -> Engine:
    known, asked = ModelRecord.from_dict(record), restored(LoadOptions, options)
    if asked.adapter and not asked.adapter.is_dir():
        raise LoadFailed(f"The node {os.uname().nodename} does not see the adapter {asked.adapter}.")
    root = Path(os.environ.get("MODEL_CACHE_DIR") or Path.home() / ".cache" / "millm")
    folder = folder_here(known, asked.folder, root, hub, os.environ.get("HF_TOKEN"))
    from millm.engines.loader import open_model  # which takes seconds, so not for what cannot be had

    return open_model(known, replace(asked, folder=folder, cache_bytes=_room(known, gpus, most)), lambda _: None)


def _room(record: ModelRecord, gpus: float, most: int) -> int:
    """Bytes for caches on this node, where without a GPU of its own every replica may have to share the memory."""
    devices = list_devices() if gpus else (ram(),)
    sharing = max(1, round(1 / gpus)) if gpus else most
    free = min(device.free for device in devices) * max(1, int(gpus))
    return max(0, int(CACHE_SHARE * (free / sharing - (record.estimated_weights_mb or 0) * 1e6)))
