"""A model in replicas on Ray Serve, asked through a process of its own that speaks with Ray (`ray_driver.py`)."""

import hashlib
import importlib.util
import itertools
import logging
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from millm.child import Child
from millm.engines.base import (
    ChatRequest,
    Completion,
    Embeddings,
    EmbedRequest,
    Engine,
    Health,
    LoadOptions,
    Replica,
    RowCount,
)
from millm.engines.plain import plain, restored, restored_error
from millm.errors import LoadFailed, ModelNotLoaded, RemoteUnavailable, StartupError
from millm.events import Event, Report, Stage
from millm.feed import Feed
from millm.jobs import Job, Lane
from millm.records import ModelRecord
from millm.settings import Settings

log = logging.getLogger(__name__)

T = TypeVar("T")

INSTALL = "Ray is not installed. Install it with: pip install -r requirements-ray.txt"
DRIVER = (sys.executable, "-m", "millm.ray_driver")
TICK_S = 0.25  # between two looks at whether a silent request was cancelled
DEAF_S = 60.0  # without a word from the driver, which speaks every second
LEAVE_S = 30.0  # for the driver to take everything away
GONE = "The connection to Ray was lost, and with it the replicas. Load the model again."
LOADED = 90.0  # percent of the load when every replica is up


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where replicas run, and how.

    address: host:port of a Ray cluster's head, or "auto"; "" for a Ray of our own that ends with the model. fewest,
    most: replicas. cpus, gpus: of each. hub: where nodes fetch what they do not see; None for the public one.
    owner: what tells the applications of one miLLM from those of another. environment: of every replica.
    """

    address: str = ""
    fewest: int = 1
    most: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    hub: str | None = None
    owner: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def application(self, record: ModelRecord) -> str:
        """The name of the application that runs a model."""
        digest = hashlib.sha256(f"{socket.gethostname()} {self.owner}".encode()).hexdigest()
        return f"millm-{record.id}-{digest[:8]}"


def cluster_of(settings: Settings, environment: Mapping[str, str]) -> Cluster | None:
    """Where replicas run by the settings; None where models run in this process. environment: of every replica.

    Raises:
        StartupError: Ray is asked for and not installed.
    """
    if settings.engine != "ray":
        return None
    if importlib.util.find_spec("ray") is None:
        raise StartupError(INSTALL)
    fewest, most = settings.replicas
    return Cluster(
        settings.ray_address,
        fewest,
        most,
        settings.replica_cpus,
        settings.replica_gpus,
        settings.hf_endpoint,
        str(settings.model_cache_dir.absolute()),
        environment,
    )


def open_ray(
    record: ModelRecord,
    options: LoadOptions,
    report: Report,
    cluster: Cluster,
    command: tuple[str, ...] = DRIVER,
) -> Engine:
    """Has Ray Serve open a model in replicas, and keeps them until the engine is closed; see `Opener`.

    Raises:
        LoadFailed: Ray is missing, has no room, or a replica failed.
        MiLLMError: what the loader of a replica raised.
        RemoteUnavailable: there is no Ray at the address.
    """
    report(Event(Stage.RESOLVING))
    driver = Child(command, {})
    try:
        driver.send(_asked(record, options, cluster))
        about = _opened(driver, report)
    except BrokenPipeError:
        _, said = driver.end(TICK_S)
        raise LoadFailed(f"The process that speaks with Ray ended: {said[-300:] or 'without a word'}") from None
    except BaseException:
        driver.leave(LEAVE_S)
        raise
    report(Event(Stage.WARMING_UP, 100.0))
    return RayEngine(driver, **about)


class RayEngine:
    """A model in replicas. It is an `Engine`; each replica makes its own batch.

    memory_bytes: what the weights take in one replica. batching: whether a replica answers requests together.
    """

    def __init__(self, driver: Child, memory_bytes: int, batching: bool) -> None:
        self.memory_bytes, self.batching = memory_bytes, batching
        self.health = Health()
        self._driver = driver
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Feed[dict[str, Any]]] = {}
        self._producing: set[int] = set()
        self._gone = self._closed = False
        self._asking = Lane("ray-asking")  # one writes at a time
        self._hearing = Lane("ray-hearing")
        self._hearing.submit(self._hear)

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        """Answers; see `Engine.chat`.

        Raises:
            ModelNotLoaded: the engine was closed.
            RemoteUnavailable: the replica died in the middle of the answer, none took it, or Ray is gone.
        """
        asked_at, first_at = time.perf_counter(), list[float]()

        def hear(event: Event) -> None:
            if event.says_something and not first_at:
                first_at.append(time.perf_counter())
            report(event)

        completion = self._ask("chat", request, hear, Completion)
        return replace(completion, first_token_s=first_at[0] - asked_at) if first_at else completion

    def embed(self, request: EmbedRequest, report: Report) -> Embeddings:
        """Embeds; see `Engine.embed`. Raises what `chat` raises."""
        return self._ask("embed", request, report, Embeddings)

    def rows(self) -> RowCount:
        """How many answers are being written in all replicas, and how many are still to be begun."""
        producing = len(self._producing)
        return RowCount(producing, max(0, len(self._waiting) - producing))

    def close(self) -> None:
        """Takes the replicas away, and Ray itself where it is our own."""
        self._closed = True
        self._driver.leave(LEAVE_S)
        self._hearing.close(TICK_S)
        self._asking.close()

    def _ask(self, what: str, request: ChatRequest | EmbedRequest, report: Report, kind: type[T]) -> T:
        if self._closed:
            raise ModelNotLoaded("The model was unloaded.")
        number, heard = next(self._numbers), Feed[dict[str, Any]]()
        self._waiting[number] = heard
        ended = False
        try:
            if self._gone:  # asked after all that waited were told
                raise RemoteUnavailable(GONE)
            self._send({"id": number, "ask": what, "request": plain(request)})
            latest = Event(Stage.READING_PROMPT)
            for item in heard.read(beat=TICK_S):
                ended = item is not None and bool(item.keys() & {"answer", "error"})
                if item is None or "at" in item:
                    report(latest)  # which hears a cancel
                elif "event" in item:
                    event = restored(Event, item["event"])
                    latest = Event(event.stage, event.progress, tokens=event.tokens)
                    self._producing.update({number} if event.says_something else ())
                    report(event)
                elif "error" in item:
                    raise restored_error(item["error"])
                else:
                    return restored(kind, item["answer"])
            raise RemoteUnavailable(GONE)
        finally:
            del self._waiting[number]
            self._producing.discard(number)
            if not ended:
                with suppress(RemoteUnavailable):  # whose replicas are gone, too
                    self._send({"cancel": number})

    def _send(self, value: Mapping[str, Any]) -> None:
        try:
            self._asking.call(lambda: self._driver.send(value))
        except (OSError, ValueError) as error:
            raise RemoteUnavailable(GONE) from error

    def _hear(self, job: Job[None]) -> None:
        """Hands on what the driver says until it has ended, or says nothing any more; then nobody waits for it."""
        spoke = time.monotonic()
        try:
            while not job.cancelling and time.monotonic() - spoke < DEAF_S:
                if (said := self._driver.read(TICK_S)) is not None:
                    spoke = time.monotonic()
                    self._take(said)
        except (OSError, ValueError) as error:
            if not self._closed:
                log.error("the process that speaks with Ray is gone: %s", error)
        finally:
            self._gone = True
            self.health = Health(GONE)
            self._driver.kill()
            for heard in list(self._waiting.values()):
                heard.close()

    def _take(self, said: dict[str, Any]) -> None:
        if "said" in said:
            for number, item in said["said"]:
                if heard := self._waiting.get(number):
                    heard.push(item)
        elif "replicas" in said:
            self.health = Health(said["problem"], tuple(Replica(**each) for each in said["replicas"]))
        else:
            self.health = Health(said["problem"], self.health.replicas)


def _asked(record: ModelRecord, options: LoadOptions, cluster: Cluster) -> dict[str, Any]:
    told = {
        "record": record.to_dict(),
        "options": plain(options),
        "hub": cluster.hub,
        "gpus": cluster.gpus,
        "most": cluster.most,
    }
    where = {"address": cluster.address, "fewest": cluster.fewest, "most": cluster.most}
    each = {"cpus": cluster.cpus, "gpus": cluster.gpus, "environment": dict(cluster.environment), "told": told}
    return {"name": cluster.application(record), **where, **each}


def _opened(driver: Child, report: Report) -> dict[str, Any]:
    """What the driver says of the engine once it is open. Raises `MiLLMError`, `BrokenPipeError` if it has ended."""
    latest = Event(Stage.RESOLVING)
    while True:
        said = driver.read(TICK_S) or {}
        if "opened" in said:
            about: dict[str, Any] = said["opened"]
            return about
        if "failed" in said:
            raise restored_error(said["failed"])
        if "up" in said:
            latest = Event(Stage.LOADING_WEIGHTS, LOADED * said["up"] / said["of"])
        report(latest)
