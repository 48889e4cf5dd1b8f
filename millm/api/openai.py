"""The OpenAI API over the loaded model: a job's events become chunks, its result the whole answer."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, ClassVar, TypeVar

from fastapi import APIRouter
from starlette.responses import Response

from millm.api import openai_examples as examples
from millm.api.openai_schema import ChatBody, CompletionBody, Generation
from millm.api.openai_tools import written
from millm.api.parts import TheManager
from millm.api.streams import JobAnswer, JobStream
from millm.api.wire import Json, frame, in_words, openai_error_body, openai_failure
from millm.engines.base import ChatRequest, Completion
from millm.errors import ModelNotFound, ModelNotLoaded
from millm.events import Chance, Event, Stage
from millm.jobs import Job
from millm.manager import Manager
from millm.records import ModelRecord, Status

router = APIRouter(prefix="/v1", tags=["OpenAI"])

Fields = dict[str, Any]
T = TypeVar("T")
DONE = b"data: [DONE]\n\n"
LAST = Event(Stage.GENERATING)


class Form(ABC):
    """How one kind of answer is written, whole or in chunks."""

    id_prefix: ClassVar[str]
    whole_kind: ClassVar[str]
    chunk_kind: ClassVar[str]

    def __init__(self, body: Generation) -> None:
        self._counted = body.include_usage
        self._count = body.n or 1
        self._head: Fields = {
            "id": self.id_prefix + uuid.uuid4().hex,
            "created": int(time.time()),
            "model": body.model,
        }

    def whole(self, completion: Completion) -> Fields:
        """The whole answer."""
        choices = [
            _choice(self.said(answer, index), index, self.logprobs(answer.chances), answer.finish_reason)
            for index, answer in enumerate((completion, *completion.others))
        ]
        return {**self._head, "object": self.whole_kind, "choices": choices, "usage": self._usage(completion)}

    def opening(self) -> list[Fields]:
        """The chunks before the first text."""
        return []

    def piece(self, event: Event) -> Fields:
        """A chunk with text."""
        return self._chunk(_choice(self.more(event), event.index, self.logprobs(event.chances)))

    def closing(self, completion: Completion) -> list[Fields]:
        """The chunks after the last text; if the client wants them, the last one holds the token counts."""
        last = [
            self._chunk(_choice(self.more(LAST), index, None, answer.finish_reason))
            for index, answer in enumerate((completion, *completion.others))
        ]
        return [*last, {**self._chunk(), "usage": self._usage(completion)}] if self._counted else last

    @abstractmethod
    def logprobs(self, chances: Sequence[Chance]) -> Fields | None:
        """How likely tokens were; None where that was not asked for."""

    @abstractmethod
    def said(self, answer: Completion, index: int) -> Fields:
        """The part of a whole answer that holds what was said."""

    @abstractmethod
    def more(self, event: Event) -> Fields:
        """The part of a chunk that holds what was said; nothing in the last one."""

    def _chunk(self, *choices: Fields) -> Fields:
        chunk = {**self._head, "object": self.chunk_kind, "choices": list(choices)}
        return {**chunk, "usage": None} if self._counted else chunk

    def _usage(self, completion: Completion) -> Fields:
        """How many tokens were read and said."""
        usage = completion.usage(self._count)
        return {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        }


class ChatForm(Form):
    """Answers of /v1/chat/completions."""

    id_prefix = "chatcmpl-"
    whole_kind = "chat.completion"
    chunk_kind = "chat.completion.chunk"

    def __init__(self, body: Generation) -> None:
        super().__init__(body)
        self._called: dict[int, int] = {}  # how many calls each answer made so far

    def opening(self) -> list[Fields]:
        """One chunk for each answer, that says who speaks."""
        opened: Fields = {"delta": {"role": "assistant", "content": ""}}
        return [self._chunk(_choice(opened, index)) for index in range(self._count)]

    def logprobs(self, chances: Sequence[Chance]) -> Fields | None:
        """As in OpenAI's chat answers."""
        return {"content": [_chance(chance) for chance in chances], "refusal": None} if chances else None

    def said(self, answer: Completion, index: int) -> Fields:  # noqa: ARG002  (a chat repeats no prompt)
        """A message."""
        calls = [written(call) for call in answer.calls]
        content = answer.text if answer.text or not calls else None
        message: Fields = {"role": "assistant", "content": content, "refusal": None}
        message |= {"reasoning_content": answer.reasoning} if answer.reasoning else {}
        return {"message": message | ({"tool_calls": calls} if calls else {})}

    def more(self, event: Event) -> Fields:
        """What the message grows by."""
        delta: Fields = {"content": event.text} if event.text else {}
        delta |= {"reasoning_content": event.reasoning} if event.reasoning else {}
        if event.calls:
            first = self._called.get(event.index, 0)
            self._called[event.index] = first + len(event.calls)
            delta["tool_calls"] = [written(call, first + place) for place, call in enumerate(event.calls)]
        return {"delta": delta}


class TextForm(Form):
    """Answers of /v1/completions."""

    id_prefix = "cmpl-"
    whole_kind = chunk_kind = "text_completion"

    def __init__(self, body: CompletionBody) -> None:
        super().__init__(body)
        self._echoed = [prompt for prompt in body.prompt for _ in range(body.n or 1)] if body.echo else []

    def opening(self) -> list[Fields]:
        """The prompts, where they are to be repeated."""
        return [self._chunk(_choice({"text": prompt}, index)) for index, prompt in enumerate(self._echoed)]

    def logprobs(self, chances: Sequence[Chance]) -> Fields | None:
        """As in OpenAI's text completions; offsets count from the first of these tokens."""
        if not chances:
            return None
        ends = list(accumulate(len(chance.text) for chance in chances))
        return {
            "tokens": [chance.text for chance in chances],
            "token_logprobs": [chance.logprob for chance in chances],
            "top_logprobs": [{other.text: other.logprob for other in chance.others} for chance in chances],
            "text_offset": [0, *ends[:-1]],
        }

    def said(self, answer: Completion, index: int) -> Fields:
        """The text itself, behind its prompt where that is to be repeated."""
        return {"text": str(self._echoed[index]) + answer.text if self._echoed else answer.text}

    def more(self, event: Event) -> Fields:
        """More of the text."""
        return {"text": event.text}


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
def chat(manager: TheManager, body: ChatBody) -> Response:
    """Whole, or with `stream` as server-sent events. What is left out, a system message too, is as the model's
    settings say, and where they say nothing as in OpenAI's API. `user`, `metadata`, `safety_identifier` and
    `prompt_cache_key` are accepted and change nothing."""
    return _answer(manager, body, body.request(), ChatForm(body))


@router.post(
    "/completions",
    summary="Go on with a text",
    **examples.documented(examples.TEXT, examples.TEXT_STREAM),
)
def complete(manager: TheManager, body: CompletionBody) -> Response:
    """Goes on with the text as it stands, without a chat template. What is left out is as the model's settings say,
    but for their system prompt. Without `max_tokens` in either it stops after 16, as OpenAI's API does."""
    return _answer(manager, body, body.request(), TextForm(body))


def _answer(manager: Manager, body: Generation, request: ChatRequest, form: Form) -> Response:
    job = asked_of(manager, body.model, lambda: manager.chat(request))
    if body.stream:
        return JobStream(job, _frames(job, form), openai_failure)
    return JobAnswer(job, lambda completion: Json(form.whole(completion)), openai_failure)


def asked_of(manager: Manager, name: str, ask: Callable[[], Job[T]]) -> Job[T]:
    """Asks the loaded model, if that is its name.

    Raises:
        ModelNotLoaded, ModelNotFound: no model is loaded, or another one.
        MiLLMError: what `ask` raises.
    """
    record = manager.loaded()
    if record is None:
        raise _none_loaded(manager)
    if record.name != name:
        raise _unknown(name, record)
    job = ask()
    if job.subject != record.id:  # another model came in between
        job.cancel()
        raise _unknown(name, manager.loaded())
    return job


def _frames(job: Job[Completion], form: Form) -> Iterator[bytes]:
    """Yields the answer as it comes, and an empty frame while there is no more of it.

    An error after the start can only be its last event.
    """
    yield from map(frame, form.opening())
    for event in job.events(beat=0):
        if event is None:
            yield b""
        elif event.says_something:
            yield frame(form.piece(event))
    if job.error is not None:
        yield frame(openai_error_body(in_words(job.error)))
        return
    yield from map(frame, form.closing(job.result()))
    yield DONE


def _choice(said: Fields, index: int, logprobs: Fields | None = None, reason: str | None = None) -> Fields:
    return {"index": index, **said, "logprobs": logprobs, "finish_reason": reason}


def _chance(chance: Chance, deep: bool = True) -> Fields:
    told: Fields = {"token": chance.text, "logprob": chance.logprob, "bytes": list(chance.raw)}
    return {**told, "top_logprobs": [_chance(other, deep=False) for other in chance.others]} if deep else told


def _model(record: ModelRecord) -> Fields:
    created = int(datetime.fromisoformat(record.created_at).timestamp())
    return {"id": record.name, "object": "model", "created": created, "owned_by": "miLLM"}


def _none_loaded(manager: Manager) -> ModelNotLoaded:
    coming = [record.name for record in manager.records() if record.status is Status.LOADING]
    if coming:
        return ModelNotLoaded(f"'{coming[0]}' is still being loaded. Ask again in a moment.")
    return ModelNotLoaded("No model is loaded. Load one first.")


def _unknown(name: str, loaded: ModelRecord | None) -> ModelNotFound:
    instead = f"'{loaded.name}' is loaded." if loaded else "No model is loaded."
    return ModelNotFound(f"The model '{name}' is not loaded here. {instead}", field="model")
