"""What engines share whose model another server runs: an answer is collected from its pieces and reported."""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TypeVar

from millm import errors
from millm.engines.base import ChatRequest, Completion, Usage
from millm.events import Call, Chance, Event, Report, Stage

T = TypeVar("T")
TOO_LONG = re.compile(r"context.?(length|window|size)|maximum.{0,20}(context|tokens)|too many tokens", re.IGNORECASE)
REFUSED = (400, 413, 422)
BUSY = (429, 503)


@dataclass(frozen=True, slots=True)
class CallPart:
    """A part of a call, in the place it has among the calls of its answer; `arguments` are more of its JSON text."""

    place: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """What came of one answer. thought: of its reasoning. index: which one. reason: why it ended, "" before that."""

    text: str = ""
    thought: str = ""
    index: int = 0
    chances: tuple[Chance, ...] = ()
    calls: tuple[CallPart, ...] = ()
    reason: str = ""


@dataclass(slots=True)
class _Answer:
    text: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    chances: list[Chance] = field(default_factory=list)
    parts: dict[int, list[CallPart]] = field(default_factory=dict)
    calls: tuple[Call, ...] = ()
    reason: str = ""
    count: int = 0
    thinking: bool = False


class Answers:
    """The answers to one request as their pieces come in.

    parsed: reasoning is told apart from the answer; otherwise it stands in its text, between think tags.
    """

    def __init__(self, report: Report, parsed: bool) -> None:
        self._report = report
        self._parsed = parsed
        self._asked_at = perf_counter()
        self._first_at = self._last_at = 0.0
        self._answers: dict[int, _Answer] = {}

    @property
    def begun(self) -> bool:
        """Whether anything was said yet."""
        return self._first_at > 0

    @property
    def ended(self) -> int:
        """How many answers came to their end."""
        return sum(bool(answer.reason) for answer in self._answers.values())

    @property
    def going(self) -> int:
        """How many answers have not come to their end."""
        return len(self._answers) - self.ended

    def hear(self, piece: Piece) -> None:
        """Takes in one piece and reports what it says."""
        answer = self._answers.setdefault(piece.index, _Answer())
        text, thought = (piece.text, piece.thought) if self._parsed else (_tagged(answer, piece), "")
        for part in piece.calls:
            answer.parts.setdefault(part.place, []).append(part)
        answer.reason = piece.reason or answer.reason
        whole = bool(piece.reason and answer.parts and not answer.calls)
        if whole:
            answer.calls = tuple(_call(answer.parts[place]) for place in sorted(answer.parts))
        if not (text or thought or piece.chances or piece.calls or whole):
            return self.tick()
        self._last_at = perf_counter()
        self._first_at = self._first_at or self._last_at
        answer.count += max(len(piece.chances), bool(text or thought or piece.calls))
        answer.text.append(text)
        answer.thoughts.append(thought)
        answer.chances += piece.chances
        self._report(
            Event(
                Stage.GENERATING,
                text=text,
                tokens=answer.count,
                index=piece.index,
                chances=piece.chances,
                reasoning=thought,
                calls=answer.calls if whole else (),
            )
        )
        return None

    def tick(self) -> None:
        """Reports in a silence, so that a cancel is heard."""
        count = max((answer.count for answer in self._answers.values()), default=0)
        self._report(Event(Stage.GENERATING if count else Stage.READING_PROMPT, tokens=count))

    def completion(self, usage: Usage | None, tokens_per_s: float | None = None) -> Completion:
        """The whole of what was said. usage: of all answers; it is told of the first, but for what others said.

        tokens_per_s: None works it out from when the pieces came.
        """
        answers = [self._answers[index] for index in sorted(self._answers)] or [_Answer()]
        said = sum(answer.count for answer in answers)
        told = usage or Usage(0, 0, said)
        span = self._last_at - self._first_at
        worked_out = (told.completion_tokens - 1) / span if span > 0 and told.completion_tokens > 1 else 0.0
        whole = [
            Completion(
                text="".join(answer.text),
                finish_reason="tool_calls" if answer.calls and answer.reason != "length" else answer.reason,
                prompt_tokens=0 if place else told.prompt_tokens,
                completion_tokens=answer.count if place else max(0, told.completion_tokens - said + answer.count),
                first_token_s=(self._first_at or perf_counter()) - self._asked_at,
                tokens_per_s=worked_out if tokens_per_s is None else tokens_per_s,
                chances=tuple(answer.chances),
                cached_tokens=0 if place else told.cached_tokens,
                reasoning="".join(answer.thoughts),
                calls=answer.calls,
            )
            for place, answer in enumerate(answers)
        ]
        return replace(whole[0], others=tuple(whole[1:]))


class RelayEngine:
    """What is the same in every engine of a model that another server runs. memory_bytes: what it takes here."""

    batching = True  # the server sees to that itself

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self._closed = False

    def rows(self) -> None:
        """Such a server does not say how many answers it makes."""

    def _check_open(self) -> None:
        if self._closed:
            raise errors.ModelNotLoaded("The model was unloaded.")


def check_asked(request: ChatRequest, who: str, beyond: dict[str, object]) -> None:
    """Raises `InvalidRequest` if there is nothing to answer, or any of `beyond` is asked for."""
    if not any(request.prompts or request.messages):
        raise errors.InvalidRequest("There is nothing to answer: the prompt or conversation is empty.")
    if asked := [name for name, wanted in beyond.items() if wanted]:
        raise errors.InvalidRequest(f"A model {who} cannot be asked for {' and '.join(asked)}.")


def waited_for(ask: Callable[[Callable[[T], None], Callable[[], None]], None], report: Report) -> T:
    """The one thing that a server answers. ask: called with what hears it, and what it calls in a silence."""
    found: list[T] = []

    def tick() -> None:
        report(Event(Stage.READING_PROMPT))

    tick()
    ask(found.append, tick)
    return found[-1]


def refusal(
    who: str, name: str, status: int, said: str, away: type[errors.SourceError], again: str, field: str | None = None
) -> errors.MiLLMError:
    """The error for what a server says no with.

    who: "Ollama". name: of the model. away: for what the request is not to blame for. again: how to get a model back
    that has gone. field: of the request, that is too long if anything is.
    """
    if status in REFUSED and TOO_LONG.search(said):
        named = {"field": field} if field else {}
        return errors.ContextLengthExceeded(f"{who} refuses the request: {said}.", **named)
    if status == 404:
        return errors.ModelNotFound(f"{who} no longer has the model '{name}'. {again}")
    if status in REFUSED:
        return errors.InvalidRequest(f"{who} refuses the request: {said}.")
    if status in BUSY:
        return errors.QueueFull(f"{who} has too many requests waiting. Try again shortly.")
    return away(f"{who} could not answer: {said}.")


def _call(parts: list[CallPart]) -> Call:
    known = next((part.id for part in parts if part.id), "") or f"call_{uuid.uuid4().hex}"
    name = next((part.name for part in parts if part.name), "")
    return Call(known, name, "".join(part.arguments for part in parts) or "{}")


def _tagged(answer: _Answer, piece: Piece) -> str:
    """The text of a piece, with the tags that other models put around their reasoning themselves."""
    opening = "<think>" if piece.thought and not answer.thinking else ""
    answer.thinking = answer.thinking or bool(piece.thought)
    closing = "</think>" if piece.text and answer.thinking else ""
    answer.thinking = answer.thinking and not piece.text
    return opening + piece.thought + closing + piece.text
