"""Downloads that are brought to each stage in which a person may cancel them, for a test and a bench.

with Yard(folder) as yard:
    for stage in STAGES:
        manager, record = yard.reach(stage)  # it is in that stage now
        manager.cancel(record.id)
"""

import os
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Self

from fakes import FakeOpener
from hub import Hub
from ollama_server import Fault, Model, OllamaServer
from running import PATIENCE_S

from millm.devices import Device
from millm.events import Event, Stage
from millm.manager import Manager
from millm.records import ModelRecord, Source
from millm.registry import Registry
from millm.sources.base import Origin
from millm.sources.huggingface import HuggingFace
from millm.sources.local import Local
from millm.sources.ollama import Ollama
from millm.sources.url import Url
from millm.store import Store

BIG = 10**9  # bytes; sparse, so that it costs nothing to have
BIG_NAME = "acme/big/model.safetensors"


class Yard:
    """A hub with a big model and an archive, an Ollama server, and a manager of its own for each download."""

    def __init__(self, root: Path) -> None:
        self._root = root
        repos = root / "repos"
        for name in ("big", "archive", "cached", "plain"):
            (repos / "acme" / name).mkdir(parents=True)
            (repos / "acme" / name / "config.json").write_text('{"model_type": "llama"}')
        for name, size in (("big", BIG), ("cached", BIG), ("plain", BIG // 4)):
            with (repos / "acme" / name / "model.safetensors").open("wb") as file:
                file.truncate(size)
        with zipfile.ZipFile(repos / "acme/archive/many.zip", "w") as archive:
            for number in range(5000):
                archive.writestr(f"{number}.txt", "x")
            archive.writestr("model.bin", random.Random(0).randbytes(100_000))
        blobs = root / "cache" / "models--acme--cached" / "blobs"
        blobs.mkdir(parents=True)
        os.link(repos / "acme/cached/model.safetensors", blobs / ("0" * 64))
        self.hub = Hub(repos)
        self.ollama = OllamaServer(library={"big:latest": Model()}, fault=Fault("/api/pull", "silent", after=3))
        self._managers: list[Manager] = []

    def __enter__(self) -> Self:
        self.hub.__enter__()
        self.ollama.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()
        self.hub.__exit__()
        self.ollama.__exit__()

    def settle(self) -> None:
        """Ends the managers that are there and takes all faults back."""
        while self._managers:
            self._managers.pop().close(2)
        self.hub.clear()

    def reach(self, stage: str) -> tuple[Manager, ModelRecord]:
        """A download that has come to this stage."""
        store = Store(self._root / f"home{time.monotonic_ns()}")
        store.open()
        fetchers = {
            Source.HUGGINGFACE: HuggingFace(self.hub.url, cache=self._root / "cache"),
            Source.LOCAL: Local(),
            Source.URL: Url(allow_private=True),
            Source.OLLAMA: Ollama(self.ollama.host),
        }
        devices = (Device("cpu", "RAM", 1 << 40, 1 << 40),)
        registry = Registry(store.registry_path, store.published)
        manager = Manager(registry, store, fetchers, FakeOpener(), lambda: devices)
        self._managers.append(manager)
        record, arrived = STAGES[stage](self, manager)
        deadline = time.monotonic() + PATIENCE_S
        while not arrived((job := manager.job(record.id)) and job.latest):
            assert job is not None, f"{stage}: the job is over: {manager.records()}"
            assert time.monotonic() < deadline, stage
            time.sleep(0.005)
        return manager, record


Arrived = Callable[[Event | None], bool]
Way = Callable[[Yard, Manager], tuple[ModelRecord, Arrived]]


def _hub(name: str = "acme/big") -> Origin:
    return Origin(Source.HUGGINGFACE, name)


def _faulty(bytes_first: int = 0, **fault: object) -> Way:
    def way(yard: Yard, manager: Manager) -> tuple[ModelRecord, Arrived]:
        asked = len(yard.hub.requests)
        yard.hub.fault("cdn", BIG_NAME, **fault)

        def arrived(event: Event | None) -> bool:
            hit = any(request.kind == "cdn" for request in yard.hub.requests[asked:])
            return hit and event is not None and event.bytes_done >= bytes_first

        return manager.download(_hub()), arrived

    return way


def _queued(yard: Yard, manager: Manager) -> tuple[ModelRecord, Arrived]:
    yard.hub.fault("cdn", BIG_NAME, throttle=1000)
    manager.download(_hub())
    return manager.download(_hub("acme/cached")), lambda event: True


def _resolving(yard: Yard, manager: Manager) -> tuple[ModelRecord, Arrived]:
    known = manager.download(_hub(), start=False)
    yard.hub.fault("api", "acme/big", hang_after=0)
    return manager.start(known.id), lambda event: event is not None and event.stage is Stage.RESOLVING


def _verifying(yard: Yard, manager: Manager) -> tuple[ModelRecord, Arrived]:
    return manager.download(_hub("acme/cached")), _is(Stage.VERIFYING)


def _web_file(yard: Yard, manager: Manager) -> tuple[ModelRecord, Arrived]:
    yard.hub.fault("cdn", BIG_NAME, throttle=1_000_000)
    return manager.download(_at(yard, BIG_NAME)), _is(Stage.DOWNLOADING)


def _unpacking(yard: Yard, manager: Manager) -> tuple[ModelRecord, Arrived]:
    return manager.download(_at(yard, "acme/archive/many.zip")), _is(Stage.SAVING)


def _saving(yard: Yard, manager: Manager) -> tuple[ModelRecord, Arrived]:
    return manager.download(_at(yard, "acme/plain/model.safetensors")), _is(Stage.SAVING)


def _pulling(yard: Yard, manager: Manager) -> tuple[ModelRecord, Arrived]:
    return manager.download(Origin(Source.OLLAMA, "big")), _is(Stage.DOWNLOADING)


def _is(stage: Stage) -> Arrived:
    return lambda event: event is not None and event.stage is stage


def _at(yard: Yard, name: str) -> Origin:
    owner, repo, file = name.split("/")
    return Origin(Source.URL, url=f"{yard.hub.url}/{owner}/{repo}/resolve/main/{file}")


STAGES: dict[str, Way] = {
    "queued": _queued,
    "resolving": _resolving,
    "hanging before headers": _faulty(hang_after=0),
    "hanging in the middle": _faulty(hang_after=100_000, bytes_first=100_000),
    "dripping": _faulty(throttle=300),
    "backing off": _faulty(status=503, retry_after=30),
    "downloading": _faulty(throttle=100_000_000, bytes_first=20_000_000),
    "verifying": _verifying,
    "a web file": _web_file,
    "unpacking": _unpacking,
    "saving": _saving,
    "pulling with Ollama": _pulling,
}
