"""The seam of every engine: what is asked of a loaded model and what it answers."""

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from millm.events import Call, Chance, Report
from millm.records import ModelRecord


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. role: system, user, assistant or tool.

    calls: what an assistant wanted to have called. call_id: which call a tool's turn answers.
    """

    role: str
    content: str
    calls: tuple[Call, ...] = ()
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next tokens are chosen.

    temperature: 0 means greedy. top_p: 0-1, 1 means off. top_k: 0 means off. max_tokens: None means as many
    as the context has room for. stop: strings that end the answer and are not part of it. seed: None means
    another answer each time. clip: fewer than max_tokens will do where the context has no room for them.
    min_p: 0-1, the least chance of a token, in parts of the likeliest one's; 0 means off.
    frequency_penalty, presence_penalty: taken off a token's logit for every time, or once, that it stands in the
    answer, -2 to 2. repetition_penalty: what logits of tokens in prompt or answer are divided by (multiplied, below
    0); 1 means off. logit_bias: pairs of a token and what is added to its logit, -100 to 100.
    logprobs: how many of the likeliest tokens are told in each place, beside the chosen one; None means no chances.
    count: how many answers.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    clip: bool = False
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What to answer: a conversation, or (when there are `prompts`) texts to go on with as they stand.

    prompts: each a text, or the numbers of its tokens. Each one gets `sampling.count` answers.
    schema: JSON text of the JSON schema that every answer follows; None lets the model say what it likes.
    tools: what the model may call, as OpenAI's API describes it. tool_choice: auto, none, required, or the name of
    the one that must be called. parallel: whether several calls may come at once. parsed: whether reasoning and calls
    are told apart from the answer; otherwise they stand in its text as the model wrote them. unsaid: the fields of
    `sampling` that the asker left open, and, once an engine sees the request, the model's settings too.
    """

    messages: tuple[Message, ...] = ()
    prompts: tuple[str | tuple[int, ...], ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    schema: str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str = "auto"
    parallel: bool = True
    parsed: bool = False
    unsaid: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request. cached_tokens: of the prompts, that an earlier request had read already."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer.

    finish_reason: "stop" (the model ended its turn or a stop string came), "length" or "tool_calls".
    first_token_s: seconds from the request to the first token. tokens_per_s: of the tokens after the first.
    chances: of the answer's tokens, where they were asked for. others: the further answers, where there are several.
    cached_tokens: of the prompt, that an earlier request had read already. reasoning, calls: the other parts of the
    answer, where they were asked for.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_token_s: float
    tokens_per_s: float
    chances: tuple[Chance, ...] = ()
    others: tuple["Completion", ...] = ()
    cached_tokens: int = 0
    reasoning: str = ""
    calls: tuple[Call, ...] = ()

    def usage(self, count: int) -> Usage:
        """The tokens of all answers. A prompt that got `count` of them was read once."""
        answers = (self, *self.others)
        return Usage(
            sum(answer.prompt_tokens for answer in answers[::count]),
            sum(answer.cached_tokens for answer in answers[::count]),
            sum(answer.completion_tokens for answer in answers),
        )


@dataclass(frozen=True, slots=True)
class RowCount:
    """Answers in the making. stepping: those that get a token with every step. waiting: those still to be begun."""

    stepping: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Replica:
    """One process that runs the model elsewhere. state: "running", "starting", "stopping" or "unhealthy".

    requests: answers in the making there; None where that is not known.
    """

    name: str
    state: str
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How a loaded model is that runs elsewhere. problem: a sentence for the person; None where all is well."""

    problem: str | None = None
    replicas: tuple[Replica, ...] = ()


WELL = Health()
"""How an engine is whose model runs in this process."""


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """What to embed. inputs: each a text, or the numbers of its tokens as they stand.

    dimensions: how many values of each vector to keep, made to length 1 again; None for all as the model makes them.
    """

    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The vectors of texts, in their order. vectors: float32 values, as many in each. prompt_tokens: of all texts."""

    vectors: "tuple[array[float], ...]"
    prompt_tokens: int


class Engine(Protocol):
    """One loaded model that can answer, embed, or both."""

    memory_bytes: int
    """Bytes that the weights really take."""
    batching: bool
    """Whether requests are answered together, in one batch, and not in turn."""

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        """Answers; called from many threads at once. Each new piece of text is reported as an event.

        Raises:
            ContextLengthExceeded: prompt and answer do not fit.
            InvalidRequest: the model has no chat template or only embeds, or a value is out of range.
            InsufficientMemory: the answer's cache does not fit.
            UnsupportedModel: the model computes no valid probabilities.
            Cancelled: `report` raised it; the answer stops within one step.
        """
        ...

    def rows(self) -> RowCount | None:
        """How many answers are in the making now; None where the engine does not know."""
        ...

    @property
    def health(self) -> Health:
        """How it is, as far as is known without waiting for anybody."""
        ...

    def embed(self, request: EmbedRequest, report: Report) -> Embeddings:
        """Makes vectors of texts; called from many threads at once, also while others chat.

        Reports how far it is between batches of texts; `progress` is the percent of texts that are done.

        Raises:
            ContextLengthExceeded: a text has more tokens than the model reads.
            InvalidRequest: a text is empty, a token unknown, or there are not so many dimensions.
            InsufficientMemory: the computation does not fit.
            UnsupportedModel: the model has no states to embed with, or computes no numbers.
            Cancelled: `report` raised it; the work stops after the batch that runs.
        """
        ...

    def close(self) -> None:
        """Gives the memory back. Called once, after the last `chat` and `embed` have ended."""
        ...


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to open a model. folder: where its files are. context_length: tokens, None for the model's own.

    adapter: the directory of a LoRA or another adapter in the form of PEFT, to be laid over it.
    cache_bytes: how much memory the caches of all answers may take; None for no limit.
    fast_cpu: whether layers may be swapped for faster ones on a CPU, where they prove right.
    """

    folder: Path
    context_length: int | None = None
    adapter: Path | None = None
    cache_bytes: int | None = None
    fast_cpu: bool = True


Opener = Callable[[ModelRecord, LoadOptions, Report], Engine]
"""Brings a model to life, reporting its stages.

Raises LoadFailed, UnsupportedModel, RemoteCodeRequired or Cancelled, and then leaves no memory behind.
"""
