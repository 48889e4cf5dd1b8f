"""One copy of a model on Ray Serve: opened on the node where it lands, asked in JSON, answering in JSON.

An answer is a stream of texts. The first letter of each says what is in it (`SAYS`, `QUIET`, `ENDS`), the rest is a
list of JSON objects: where it is made, events, and at the very end the answer or an error; it is empty for a sign of
life. A stream that stops without that end is one whose replica died: Ray tells nobody.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from millm.devices import list_devices, ram
from millm.engines.base import ChatRequest, EmbedRequest, Engine, LoadOptions
from millm.engines.plain import plain, plain_error, restored
from millm.errors import Cancelled, LoadFailed, RemoteUnavailable, explain
from millm.events import Event, Report
from millm.jobs import Job, Lane
from millm.loads import CACHE_SHARE
from millm.nearby import folder_here
from millm.records import ModelRecord

SAYS, QUIET, ENDS = "s", "q", "e"
CANNOT_OPEN = "miLLM cannot open this model here: "
"""Stands before the JSON of an error, in what a constructor that failed complains of."""
AT_ONCE = 64  # requests in a replica: 32 step together, the others wait beside their prompts
PACE_S = 0.0125  # for each answer in the making, in which tokens after the first gather before they are sent
SLOWEST_S = 0.2  # for all of them
BEAT_S = 1.0  # between two signs of life while nothing else is to be said


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
        self._answers = 0

    async def about(self) -> str:
        """What the one who had it opened wants to know of the engine, as JSON."""
        return json.dumps({"memory_bytes": self._engine.memory_bytes, "batching": self._engine.batching})

    async def chat(self, told: str) -> AsyncIterator[str]:
        """Answers a `ChatRequest`."""
        request = restored(ChatRequest, json.loads(told))
        async for said in self._answer(lambda report: self._engine.chat(request, report)):
            yield said

    async def embed(self, told: str) -> AsyncIterator[str]:
        """Embeds an `EmbedRequest`."""
        request = restored(EmbedRequest, json.loads(told))
        async for said in self._answer(lambda report: self._engine.embed(request, report)):
            yield said

    async def _answer(self, work: Callable[[Report], Any]) -> AsyncIterator[str]:
        """What work says, as it says it. Whoever stops listening cancels it."""
        loop, heard = asyncio.get_running_loop(), asyncio.Queue[tuple[str, dict[str, Any]]]()

        def say(kind: str, item: dict[str, Any]) -> None:
            loop.call_soon_threadsafe(heard.put_nowait, (kind, item))

        def hear(_: Job[None], event: Event) -> None:
            say(SAYS if event.says_something else QUIET, {"event": plain(event)})

        def ended(_: Job[None], error: BaseException | None) -> None:
            if isinstance(error, Cancelled):
                error = RemoteUnavailable("The replica that was answering was stopped. Ask again.")
            if error is not None:
                say(ENDS, {"error": plain_error(explain(error))})

        self._answers += 1
        job: Job[None] = Job(on_event=hear, on_end=ended)
        self._lane.submit(lambda job: say(ENDS, {"answer": plain(work(job.report))}), job)
        try:
            said, until = QUIET + json.dumps([{"at": self._name}]), 0.0
            while not said.startswith(ENDS):
                yield said
                if said.startswith(SAYS):  # the first token goes at once
                    until = loop.time() + min(SLOWEST_S, PACE_S * self._answers)
                said = await _gathered(heard, until)
            yield said
        finally:
            self._answers -= 1
            job.cancel()


async def _gathered(heard: "asyncio.Queue[tuple[str, dict[str, Any]]]", until: float) -> str:
    """What is said up to a time of the loop, in one text: a message through Ray costs more than a token."""
    loop = asyncio.get_running_loop()
    items: list[tuple[str, dict[str, Any]]] = []
    try:
        items.append(await asyncio.wait_for(heard.get(), BEAT_S))
        while items[-1][0] != ENDS and (not heard.empty() or loop.time() < until):
            items.append(await asyncio.wait_for(heard.get(), max(0.001, until - loop.time())))
    except TimeoutError:
        if not items:
            return QUIET + "[]"
    kinds = {kind for kind, _ in items}
    kind = ENDS if ENDS in kinds else SAYS if SAYS in kinds else QUIET
    return kind + json.dumps([item for _, item in items])


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
