"""Answers of the loaded model as they are written: asked for, followed, stopped."""

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from millm.engines.base import ChatRequest, Completion, Message, Sampling
from millm.errors import Cancelled, InvalidRequest, explain
from millm.events import Chance, Event
from millm.generation import system_prompt_of
from millm.jobs import Job
from millm.records import ModelRecord, Source
from millm.ui.token_view import TOLD

if TYPE_CHECKING:
    from millm.manager import Manager

History = list[dict[str, Any]]
"""What gradio's chatbot holds: {"role", "content"}, where the content is text or a list of parts."""

THINK = ("<think>", "</think>")
REDRAW_S = 0.04  # 25 times a second
LONGER_S = 0.00001  # a character: the browser draws the whole answer anew each time (18 ms for 5,000 characters)


@dataclass(frozen=True)
class Controls:
    """What the panel beside the conversation is set to, in the order of its fields; units as in `Sampling`.

    max_tokens: None for as many as the context has room for. stops: strings that end the answer, one a line, with
    \\n for a new line. structured: whether answers follow `schema`, the text of a JSON schema.
    """

    system: str = ""
    temperature: float = 0.7
    max_tokens: float | None = 1024
    top_p: float = 0.95
    top_k: float = 0
    seed: float | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    stops: str = ""
    structured: bool = False
    schema: str = ""
    chances: bool = False

    @property
    def sampling(self) -> Sampling:
        """The same for the engine."""
        return Sampling(
            temperature=float(self.temperature),
            top_p=float(self.top_p),
            top_k=int(self.top_k),
            max_tokens=int(self.max_tokens) if self.max_tokens else None,
            clip=True,
            seed=None if self.seed is None else int(self.seed),
            stop=tuple(line.replace("\\n", "\n") for line in self.stops.splitlines() if line),
            min_p=float(self.min_p),
            repetition_penalty=float(self.repetition_penalty),
            frequency_penalty=float(self.frequency_penalty),
            presence_penalty=float(self.presence_penalty),
            logprobs=TOLD if self.chances else None,
        )

    @property
    def followed(self) -> str | None:
        """The JSON schema that answers follow; None where they are free."""
        return self.schema if self.structured and self.schema.strip() else None


@dataclass(frozen=True)
class Progress:
    """An answer so far.

    text, reasoning: as the engine tells them apart. first_token_s: seconds from the question to the first token, 0
    before it. ended: why nothing more comes: "stop", "length", "cancelled" or "failed"; "" while it is being
    written. problem: what failed. thought_s: seconds of reasoning.
    prompt_tokens: 0 until the end. chances: of its tokens, where they were asked for.
    """

    text: str = ""
    tokens: int = 0
    first_token_s: float = 0.0
    tokens_per_s: float = 0.0
    ended: str = ""
    problem: str = ""
    reasoning: str = ""
    thought_s: float = 0.0
    prompt_tokens: int = 0
    chances: tuple[Chance, ...] = ()

    @property
    def thought(self) -> str:
        """What the model thought before it answered."""
        return (self.reasoning or _apart(self.text)[0]).strip()

    @property
    def said(self) -> str:
        """What it answered."""
        return _apart(self.text)[1]


def _apart(text: str) -> tuple[str, str]:
    """Reasoning and answer in the text of an engine that leaves the model's marks standing."""
    before, opened, rest = text.partition(THINK[0])
    if not opened or before.strip():
        return "", text
    thought, _, said = rest.partition(THINK[1])
    return thought, said.lstrip("\n")


def plain_text(content: Any) -> str:
    """The text of a message as gradio hands it back."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def chat_request(history: History, controls: Controls, loaded: ModelRecord | None = None) -> ChatRequest:
    """The conversation as a request to a model. Messages with a title are what it thought: they are not repeated.

    Turns that follow each other, as after an answer that failed, become one: many templates want them to alternate.
    An empty system prompt is sent where the model's settings would put another one in its place. A model in Ollama
    is not asked for probabilities, which it would refuse.
    """
    settings = loaded.settings if loaded else {}
    if loaded and loaded.source is Source.OLLAMA:
        controls = replace(controls, chances=False)
    said = [message for message in history if not (message.get("metadata") or {}).get("title")]
    turns = [
        Message(role, "\n\n".join(plain_text(message["content"]) for message in together))
        for role, together in groupby(said, key=lambda message: str(message["role"]))
    ]
    prompt = controls.system.strip()
    system = [Message("system", prompt)] if prompt or system_prompt_of(settings) else []
    return ChatRequest(messages=(*system, *turns), sampling=controls.sampling, schema=controls.followed, parsed=True)


class Answers:
    """The answers being written now, at most one for each open page."""

    def __init__(self, manager: "Manager") -> None:
        self._manager = manager
        self._running: dict[str, Job[Completion]] = {}

    def begin(self, page: str, history: History, controls: Controls) -> Job[Completion]:
        """Asks for the next message of a conversation.

        Raises:
            InvalidRequest: the last answer for this page is still being written.
            MiLLMError: there is no model, or too many requests wait.
        """
        if page not in self._running:
            job = self._manager.chat(chat_request(history, controls, self._manager.loaded()))
            if self._running.setdefault(page, job) is job:
                return job
            job.cancel()  # the same page asked twice at the same moment
        raise InvalidRequest("An answer is still being written. Stop it first.")

    def follow(self, page: str, job: Job[Completion]) -> Generator[Progress, None, None]:
        """Yields the answer so far, at once and then at most 25 times a second, a long one less often, and last how
        it ended.

        Repeats itself in silence, so that whoever listens can leave; leaving cancels the answer.
        """
        progress, drawn_at, began = Progress(), 0.0, time.monotonic()
        try:
            yield progress
            for event in job.events():
                if event is not None:
                    progress = _advance(progress, event, time.monotonic() - began)
                pause = REDRAW_S + LONGER_S * len(progress.text)
                if event is None or time.monotonic() - drawn_at >= pause:
                    drawn_at = time.monotonic()
                    yield progress
        finally:
            job.cancel()
            del self._running[page]
        yield _ending(progress, job)

    def stop(self, page: str) -> None:
        """Ends the answer being written for a page; what is there of it stays."""
        job = self._running.get(page)
        if job is not None:
            job.cancel()


def _advance(progress: Progress, event: Event, seconds: float) -> Progress:
    progress = replace(progress, chances=progress.chances + event.chances) if event.chances else progress
    if not event.says_something:
        return progress
    first = progress.first_token_s or seconds
    rate = (event.tokens - 1) / (seconds - first) if seconds > first else 0.0
    longer = replace(
        progress,
        text=progress.text + event.text,
        reasoning=progress.reasoning + event.reasoning,
        tokens=event.tokens,
        first_token_s=first,
        tokens_per_s=rate,
    )
    return replace(longer, thought_s=seconds - first) if longer.thought and not progress.said else longer


def _ending(progress: Progress, job: Job[Completion]) -> Progress:
    try:
        whole = job.result(timeout=0)
    except Cancelled:
        return replace(progress, ended="cancelled")
    except Exception as error:  # noqa: BLE001  (a door: the person must see every error as a sentence)
        return replace(progress, ended="failed", problem=explain(error).message)
    return replace(
        progress,
        text=whole.text,
        reasoning=whole.reasoning,
        tokens=whole.completion_tokens,
        first_token_s=whole.first_token_s,
        tokens_per_s=whole.tokens_per_s,
        ended=whole.finish_reason,
        prompt_tokens=whole.prompt_tokens,
        chances=whole.chances,
    )
