"""Answers of the loaded model as they are written: asked for, followed, stopped."""

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from millm.engines.base import ChatRequest, Completion, Message, Sampling
from millm.errors import Cancelled, InvalidRequest, explain
from millm.events import Event
from millm.jobs import Job

if TYPE_CHECKING:
    from millm.manager import Manager

History = list[dict[str, Any]]
"""What gradio's chatbot holds: {"role", "content"}, where the content is text or a list of parts."""

REDRAW_S = 0.04  # 25 times a second
LONGER_S = 0.00001  # a character: the browser draws the whole answer anew each time (18 ms for 5,000 characters)


@dataclass(frozen=True)
class Controls:
    """What the panel beside the conversation is set to."""

    system: str
    temperature: float
    max_tokens: float
    top_p: float
    top_k: float
    seed: float | None

    @property
    def sampling(self) -> Sampling:
        """The same for the engine."""
        return Sampling(
            temperature=float(self.temperature),
            top_p=float(self.top_p),
            top_k=int(self.top_k),
            max_tokens=int(self.max_tokens),
            clip=True,
            seed=None if self.seed is None else int(self.seed),
        )


@dataclass(frozen=True)
class Progress:
    """An answer so far.

    first_token_s: seconds from the question to the first token, 0 before it. ended: why nothing more comes:
    "stop", "length", "cancelled", "failed" or "dropped"; "" while it is being written. problem: what failed.
    """

    text: str = ""
    tokens: int = 0
    first_token_s: float = 0.0
    tokens_per_s: float = 0.0
    ended: str = ""
    problem: str = ""


def plain_text(content: Any) -> str:
    """The text of a message as gradio hands it back."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def chat_request(history: History, controls: Controls) -> ChatRequest:
    """The conversation as a request. Messages with a title are what the model thought: they are not repeated.

    Turns that follow each other, as after an answer that failed, become one: many templates want them to alternate.
    """
    said = [message for message in history if not (message.get("metadata") or {}).get("title")]
    turns = [
        Message(role, "\n\n".join(plain_text(message["content"]) for message in together))
        for role, together in groupby(said, key=lambda message: str(message["role"]))
    ]
    system = [Message("system", controls.system.strip())] if controls.system.strip() else []
    return ChatRequest(messages=(*system, *turns), sampling=controls.sampling)


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
            job = self._manager.chat(chat_request(history, controls))
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
            dropped = self._running.get(page) is not job
            if not dropped:
                del self._running[page]
        yield Progress(ended="dropped") if dropped else _ending(progress, job)

    def stop(self, page: str) -> None:
        """Ends the answer being written for a page; what is there of it stays."""
        job = self._running.get(page)
        if job is not None:
            job.cancel()

    def drop(self, page: str) -> None:
        """Ends the answer being written for a page; nothing of it stays."""
        job = self._running.pop(page, None)
        if job is not None:
            job.cancel()


def _advance(progress: Progress, event: Event, seconds: float) -> Progress:
    if not event.text:
        return progress
    first = progress.first_token_s or seconds
    rate = (event.tokens - 1) / (seconds - first) if seconds > first else 0.0
    return Progress(progress.text + event.text, event.tokens, first, rate)


def _ending(progress: Progress, job: Job[Completion]) -> Progress:
    try:
        whole = job.result(timeout=0)
    except Cancelled:
        return replace(progress, ended="cancelled")
    except Exception as error:  # noqa: BLE001  (a door: the person must see every error as a sentence)
        return replace(progress, ended="failed", problem=explain(error).message)
    return Progress(whole.text, whole.completion_tokens, whole.first_token_s, whole.tokens_per_s, whole.finish_reason)
