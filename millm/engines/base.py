"""The seam of every engine: what is asked of a loaded model and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from millm.events import Report
from millm.records import ModelRecord


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. role: system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next tokens are chosen.

    temperature: 0 means greedy. top_p: 0-1, 1 means off. top_k: 0 means off. max_tokens: None means as many
    as the context has room for. stop: strings that end the answer and are not part of it. seed: None means
    another answer each time. clip: fewer than max_tokens will do where the context has no room for them.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    clip: bool = False


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What to answer: a conversation, or (when `prompt` is not None) a text to go on with as it stands."""

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer.

    finish_reason: "stop" (the model ended its turn or a stop string came) or "length".
    first_token_s: seconds from the request to the first token. tokens_per_s: of the tokens after the first.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_token_s: float
    tokens_per_s: float


class Engine(Protocol):
    """One loaded model that can answer."""

    memory_bytes: int
    """Bytes that the weights really take."""

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        """Answers; called from many threads at once. Each new piece of text is reported as an event.

        Raises:
            ContextLengthExceeded: prompt and answer do not fit.
            InvalidRequest: the model has no chat template, or a value is out of range.
            InsufficientMemory: the answer's cache does not fit.
            UnsupportedModel: the model computes no valid probabilities.
            Cancelled: `report` raised it; the answer stops within one step.
        """
        ...

    def close(self) -> None:
        """Gives the memory back. Called once, after the last `chat` has ended."""
        ...


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to open a model. folder: where its files are. context_length: tokens, None for the model's own.

    adapter: the directory of a LoRA or another adapter in the form of PEFT, to be laid over it.
    """

    folder: Path
    context_length: int | None = None
    adapter: Path | None = None


Opener = Callable[[ModelRecord, LoadOptions, Report], Engine]
"""Brings a model to life, reporting its stages.

Raises LoadFailed, UnsupportedModel, RemoteCodeRequired or Cancelled, and then leaves no memory behind.
"""
