"""The OpenAI API over the loaded model: a job's events become chunks, its result the whole answer."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime
from typing import Any, ClassVar

import anyio
from fastapi import APIRouter
from starlette.responses import Response

from millm.api import openai_examples as examples
from millm.api.openai_schema import ChatBody, CompletionBody, Generation
from millm.api.parts import StreamThreads, TheManager
from millm.api.streams import JobAnswer, JobStream
from millm.api.wire import Json, frame, in_words, openai_error_body, openai_failure
from millm.engines.base import ChatRequest, Completion
from millm.errors import ModelNotFound, ModelNotLoaded
from millm.jobs import Job
from millm.manager import Manager
from millm.records import ModelRecord

router = APIRouter(prefix="/v1", tags=["OpenAI"])

Fields = dict[str, Any]
DONE = b"data: [DONE]\n\n"


class Form(ABC):
    """How one kind of answer is written, whole or in chunks."""

    id_prefix: ClassVar[str]
    whole_kind: ClassVar[str]
    chunk_kind: ClassVar[str]

    def __init__(self, body: Generation) -> None:
        self._counted = body.include_usage
        self._head: Fields = {
            "id": self.id_prefix + uuid.uuid4().hex,
            "created": int(time.time()),
            "model": body.model,
        }

    def whole(self, completion: Completion) -> Fields:
        """The whole answer."""
        choice = _choice(self.said(completion.text), completion.finish_reason)
        return {**self._head, "object": self.whole_kind, "choices": [choice], "usage": _usage(completion)}

    def opening(self) -> list[Fields]:
        """The chunks before the first text."""
        return []

    def piece(self, text: str) -> Fields:
        """A chunk with text."""
        return self._chunk(_choice(self.more(text)))

    def closing(self, completion: Completion) -> list[Fields]:
        """The chunks after the last text; if the client wants them, the last one holds the token counts."""
        last = self._chunk(_choice(self.more(""), completion.finish_reason))
        return [last, {**self._chunk(), "usage": _usage(completion)}] if self._counted else [last]

    @abstractmethod
    def said(self, text: str) -> Fields:
        """The part of a whole answer that holds its text."""

    @abstractmethod
    def more(self, text: str) -> Fields:
        """The part of a chunk that holds its text; empty in the last one."""

    def _chunk(self, *choices: Fields) -> Fields:
        chunk = {**self._head, "object": self.chunk_kind, "choices": list(choices)}
        return {**chunk, "usage": None} if self._counted else chunk


class ChatForm(Form):
    """Answers of /v1/chat/completions."""

    id_prefix = "chatcmpl-"
    whole_kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def opening(self) -> list[Fields]:
        """One chunk that says who speaks."""
        return [self._chunk(_choice({"delta": {"role": "assistant", "content": ""}}))]

    def said(self, text: str) -> Fields:
        """A message."""
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def more(self, text: str) -> Fields:
        """What the message grows by."""
        return {"delta": {"content": text} if text else {}}


class TextForm(Form):
    """Answers of /v1/completions."""

    id_prefix = "cmpl-"
    whole_kind = chunk_kind = "text_completion"

    def said(self, text: str) -> Fields:
        """The text itself."""
        return {"text": text}

    more = said


@router.get("/models", summary="List the loaded model", **examples.documented(examples.MODELS))
def list_models(manager: TheManager) -> Response:
    """Only what can be asked now: the loaded model, or nothing."""
    record = manager.loaded()
    return Json({"object": "list", "data": [_model(record)] if record else []})


@router.get("/models/{name:path}", summary="Get the loaded model", **examples.documented(examples.MODEL))
def show_model(manager: TheManager, name: str) -> Response:
    """The loaded model, if that is its name."""
    record = manager.loaded()
    if record is None or record.name != name:
        raise _unknown(name, record)
    return Json(_model(record))


@router.post(
    "/chat/completions",
    summary="Go on with a conversation",
    **examples.documented(examples.CHAT, examples.CHAT_STREAM),
)
def chat(manager: TheManager, threads: StreamThreads, body: ChatBody) -> Response:
    """Whole, or with `stream` as server-sent events. `user`, `metadata`, `safety_identifier` and
    `prompt_cache_key` are accepted and change nothing."""
    return _answer(manager, threads, body, body.request(), ChatForm(body))


@router.post(
    "/completions",
    summary="Go on with a text",
    **examples.documented(examples.TEXT, examples.TEXT_STREAM),
)
def complete(manager: TheManager, threads: StreamThreads, body: CompletionBody) -> Response:
    """Goes on with the text as it stands, without a chat template. Without `max_tokens` it stops after 16, as
    OpenAI's API does."""
    return _answer(manager, threads, body, body.request(), TextForm(body))


def _answer(
    manager: Manager, threads: anyio.CapacityLimiter, body: Generation, request: ChatRequest, form: Form
) -> Response:
    record = manager.loaded()
    if record is None:
        raise ModelNotLoaded("No model is loaded. Load one first.")
    if record.name != body.model:
        raise _unknown(body.model, record)
    job = manager.chat(request)
    if job.subject != record.id:  # another model came in between
        job.cancel()
        raise _unknown(body.model, manager.loaded())
    if body.stream:
        return JobStream(job, _frames(job, form), openai_failure, threads)
    return JobAnswer(job, lambda completion: Json(form.whole(completion)), openai_failure, threads)


def _frames(job: Job[Completion], form: Form) -> Iterator[bytes]:
    """Yields the answer as it comes; an error after the start can only be its last event."""
    yield from map(frame, form.opening())
    for event in job.events():
        yield frame(form.piece(event.text)) if event and event.text else b""
    if job.error is not None:
        yield frame(openai_error_body(in_words(job.error)))
        return
    yield from map(frame, form.closing(job.result()))
    yield DONE


def _choice(said: Fields, reason: str | None = None) -> Fields:
    return {"index": 0, **said, "logprobs": None, "finish_reason": reason}


def _model(record: ModelRecord) -> Fields:
    created = int(datetime.fromisoformat(record.created_at).timestamp())
    return {"id": record.name, "object": "model", "created": created, "owned_by": "miLLM"}


def _unknown(name: str, loaded: ModelRecord | None) -> ModelNotFound:
    instead = f"'{loaded.name}' is loaded." if loaded else "No model is loaded."
    return ModelNotFound(f"The model '{name}' is not loaded here. {instead}", field="model")


def _usage(completion: Completion) -> dict[str, int]:
    return {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "total_tokens": completion.prompt_tokens + completion.completion_tokens,
    }
