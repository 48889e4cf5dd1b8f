"""The one model in memory: opened, asked, drained, closed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from millm.engines.base import (
    WELL,
    ChatRequest,
    Completion,
    Embeddings,
    EmbedRequest,
    Engine,
    Health,
    LoadOptions,
    Opener,
    RowCount,
)
from millm.errors import Cancelled, ModelNotLoaded, QueueFull
from millm.events import Event, Report, Stage
from millm.jobs import Job, Lane
from millm.records import ModelRecord, now
from millm.traffic import Tally, Traffic

T = TypeVar("T")

REQUESTS_AT_ONCE = 32
REQUESTS_IN_ALL = 128  # running and waiting; more are refused. Both are for one process that makes answers
DRAIN_BEAT = 0.25  # seconds between two reports of what is still running


@dataclass(slots=True)
class Loaded:
    """The model in memory. accepting: whether new requests are let in (not while it drains)."""

    model_id: int
    name: str
    engine: Engine
    loaded_at: str
    options: LoadOptions
    accepting: bool = True


class Resident:
    """Holds at most one engine. `open` and `empty` are called on one lane only; `chat` and `embed` from
    anywhere.

    drain_s: seconds that running requests get before they are cancelled. processes: how many make answers at most.
    """

    def __init__(self, opener: Opener, drain_s: float = 30.0, processes: int = 1) -> None:
        self._opener = opener
        self._drain_s = drain_s
        self._admission = Lane("admission")  # letting a request in and closing the door never cross
        self._traffic = Traffic()
        self.figures, self.speed = self._traffic.figures, self._traffic.speed
        self._requests = Lane("requests", REQUESTS_AT_ONCE * processes, REQUESTS_IN_ALL * processes)
        self.current: Loaded | None = None

    @property
    def requests(self) -> list[Job[Any]]:
        """The requests waiting and running."""
        return self._requests.jobs

    @property
    def memory_bytes(self) -> int:
        """Bytes that closing the present model would free; 0 without one."""
        loaded = self.current
        return loaded.engine.memory_bytes if loaded else 0

    @property
    def rows(self) -> RowCount | None:
        """How many answers the engine is making; None where it does not know."""
        loaded = self.current
        return loaded.engine.rows() if loaded else RowCount()

    @property
    def health(self) -> Health:
        """How the engine is; well where there is none."""
        loaded = self.current
        return loaded.engine.health if loaded else WELL

    def chat(self, request: ChatRequest) -> Job[Completion]:
        """Starts an answer.

        Raises:
            ModelNotLoaded: no model is loaded, or it is being unloaded.
            QueueFull: too many requests are waiting.
        """
        return self._admission.call(lambda: self._admit("chat", partial(_answer, request)))

    def embed(self, request: EmbedRequest) -> Job[Embeddings]:
        """Starts embedding. Raises what `chat` raises."""
        return self._admission.call(lambda: self._admit("embed", partial(_embed, request)))

    def open(self, record: ModelRecord, options: LoadOptions, job: Job[ModelRecord]) -> Loaded:
        """Closes the present model, if any, and opens another in its place.

        Raises:
            MiLLMError: the new model cannot be opened; then none is loaded.
        """
        self.empty(job, Stage.UNLOADING_PREVIOUS)
        engine = self._opener(record, options, job.report)
        self.current = Loaded(record.id, record.name, engine, now(), options)
        return self.current

    def reopen(self, record: ModelRecord, loaded: Loaded) -> None:
        """Opens a model again as it was; nobody can cancel that. Raises `MiLLMError` if it does not open any more."""
        engine = self._opener(record, loaded.options, lambda _: None)
        self.current = Loaded(record.id, record.name, engine, now(), loaded.options)

    def empty(self, job: Job[ModelRecord], stage: Stage = Stage.DRAINING) -> None:
        """Lets running requests finish, then gives the model's memory back. Without a model it does nothing.

        Raises:
            Cancelled: the job was cancelled while draining; the model stays and takes requests again.
        """
        loaded = self.current
        if loaded is None:
            return
        self._admission.call(lambda: setattr(loaded, "accepting", False))
        try:
            self._drain(job, stage)
        except Cancelled:
            loaded.accepting = True
            raise
        self.current = None
        loaded.engine.close()

    def close(self, grace_s: float) -> bool:
        """Ends everything: no new requests, `grace_s` seconds for the running ones, then the engine.

        Returns whether every request obeyed.
        """
        loaded, self.current = self.current, None
        self._requests.idle(grace_s)
        ended = self._requests.close(grace_s)
        if loaded:
            loaded.engine.close()
        return self._admission.close(grace_s) and ended

    def _admit(self, kind: str, work: Callable[[Engine, Report, Tally], T]) -> Job[T]:
        loaded = self.current
        if loaded is None:
            raise ModelNotLoaded("No model is loaded. Load one first.")
        if not loaded.accepting:
            raise ModelNotLoaded(f"'{loaded.name}' is being unloaded and takes no new requests.")
        engine, tally = loaded.engine, self._traffic.begin()
        job: Job[T] = Job(
            kind,
            loaded.model_id,
            on_event=lambda _, event: tally.hear(event),
            on_end=lambda _, error: tally.end(error),
        )
        try:
            return self._requests.submit(lambda job: work(engine, job.report, tally), job)
        except QueueFull as full:
            tally.end(full)
            raise

    def _drain(self, job: Job[ModelRecord], stage: Stage) -> None:
        deadline = time.monotonic() + self._drain_s
        job.report(Event(stage, pending=len(self.requests)))
        while self.requests and time.monotonic() < deadline:
            job.report(Event(stage, pending=len(self.requests)))
            self._requests.idle(DRAIN_BEAT)
        for request in self.requests:
            request.cancel()
        self._requests.idle(self._drain_s)


def _answer(request: ChatRequest, engine: Engine, report: Report, tally: Tally) -> Completion:
    completion = engine.chat(request, report)
    usage = completion.usage(request.sampling.count)
    tally.answered(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    return completion


def _embed(request: EmbedRequest, engine: Engine, report: Report, tally: Tally) -> Embeddings:
    embeddings = engine.embed(request, report)
    tally.answered(embeddings.prompt_tokens, 0, 0)
    return embeddings
