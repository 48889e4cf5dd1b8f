"""Texts to vectors: with a model made for it, or with the last hidden states of a language model.

A request goes through the network in batches of texts of like length. Each batch is a job of its own on the lane that
owns the network, so that requests, and the steps of answers, take turns.
"""

import inspect
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from millm.engines.base import WELL, ChatRequest, Completion, Embeddings, EmbedRequest, RowCount
from millm.engines.forward import Forward
from millm.engines.memory import out_of_memory, release_memory, weight_bytes
from millm.engines.pooling import MEAN, Pooling, normalized
from millm.engines.prompts import plain_tokens
from millm.engines.rows import LONGEST_TOKEN
from millm.errors import (
    ContextLengthExceeded,
    InsufficientMemory,
    InvalidRequest,
    ModelNotLoaded,
    UnsupportedModel,
)
from millm.events import Event, Report, Stage
from millm.feed import BEAT
from millm.jobs import Job, Lane

BATCH = (2048, 32_768)  # tokens of one batch with its padding, on a CPU and on a GPU; a text alone may have more
TURN = (256, 2048)  # the same where answers wait for it

Rows = list[list[int]]
Work = Callable[[], torch.Tensor]
Compute = Callable[[Work], torch.Tensor]
Submit = Callable[[Callable[[Job[torch.Tensor]], torch.Tensor]], Job[torch.Tensor]]
"""Queues a forward pass on the lane that owns the network."""


class Embedder:
    """A network without its head, and how its states become vectors. Thread-safe, but for `vectors`.

    context_length: the tokens that one text may have. forward: how a language model is read, whose answers wait for
    each batch: what is longer than one is read in pieces; None for a network that is there for embedding alone.
    """

    def __init__(
        self, body: Any, tokenizer: Any, context_length: int, pooling: Pooling = MEAN, forward: Forward | None = None
    ) -> None:
        self._body, self._tokenizer, self._pooling = body, tokenizer, pooling
        self._context_length = context_length
        self._parameters = inspect.signature(body.forward).parameters.keys()
        self._together = "attention_mask" in self._parameters and (forward is None or forward.together)
        self._new_cache = forward.new_cache if forward and forward.pieces else lambda: None
        on_cpu, on_gpu = BATCH if forward is None else TURN
        self._most_tokens = on_cpu if body.device.type == "cpu" else on_gpu
        self._pad = getattr(tokenizer, "pad_token_id", None) or 0

    def embed(self, request: EmbedRequest, report: Report, submit: Submit) -> Embeddings:
        """Embeds, and reports between batches; see `Engine.embed`."""
        texts = self._texts(request)
        found: dict[int, array[float]] = {}
        for places in self._batches(texts):
            progress = Event(Stage.READING_PROMPT, 100 * len(found) / len(texts))
            compute = partial(_computed, submit=submit, tell=partial(report, progress))
            vectors = _cut(self._batch([texts[place] for place in places], compute), request.dimensions)
            found |= {place: _plain(vector) for place, vector in zip(places, vectors, strict=True)}
        return Embeddings(tuple(found[place] for place in range(len(texts))), sum(map(len, texts)))

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def vectors(self, rows: Rows) -> torch.Tensor:
        """The vectors of texts, float32 of shape [texts, size]; a batch that memory is too small for is halved.

        Raises:
            InsufficientMemory: it is too small for one text.
            UnsupportedModel: the network has no states of tokens, or computes no numbers.
        """
        try:
            states = self._states(rows)
            return _checked(
                torch.stack([self._pooled(part[: len(row)]) for part, row in zip(states, rows, strict=True)])
            )
        except Exception as error:
            if not out_of_memory(error):
                raise
            if len(rows) == 1:
                raise _no_memory() from error
        half = len(rows) // 2
        return torch.cat([self.vectors(rows[:half]), self.vectors(rows[half:])])

    def _texts(self, request: EmbedRequest) -> Rows:
        """The tokens of every text.

        Raises:
            ContextLengthExceeded: one has more than the model reads.
            InvalidRequest: one is empty, or holds a token that the model does not know.
        """
        most, vocabulary = self._context_length, len(self._body.get_input_embeddings().weight)
        texts: Rows = []
        for place, text in enumerate(request.inputs):
            if len(text) > most * LONGEST_TOKEN:  # counting its tokens would take a while
                raise _too_long(place, f"{len(text)} characters", most)
            lowered = text.lower() if self._pooling.lower and isinstance(text, str) else text
            texts.append(plain_tokens(self._tokenizer, lowered))
            if len(texts[-1]) > most:
                raise _too_long(place, f"{len(texts[-1])} tokens", most)
            if not texts[-1]:
                raise InvalidRequest("A text without tokens cannot be embedded.", field="input")
            if not 0 <= min(texts[-1]) <= max(texts[-1]) < vocabulary:
                raise InvalidRequest(f"Input {place} holds a token that the model does not know.", field="input")
        return texts

    def _batches(self, texts: Rows) -> Iterator[list[int]]:
        """The places of texts of like length, the longest first."""
        batch: list[int] = []
        for place in sorted(range(len(texts)), key=lambda place: -len(texts[place])):
            if batch and (not self._together or (len(batch) + 1) * len(texts[batch[0]]) > self._most_tokens):
                yield batch
                batch = []
            batch.append(place)
        yield batch

    def _batch(self, rows: Rows, compute: Compute) -> torch.Tensor:
        cache = self._new_cache() if len(rows[0]) > self._most_tokens else None
        if cache is None:
            return compute(partial(self.vectors, rows))
        starts = range(0, len(rows[0]), self._most_tokens)
        states = [compute(partial(self._piece, rows[0], start, cache)) for start in starts]
        return _checked(self._pooled(torch.cat(states))[None])

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _piece(self, row: list[int], start: int, cache: Any) -> torch.Tensor:
        """The states of the tokens from `start` on, as many as are read at once."""
        try:
            return self._states([row[start : start + self._most_tokens]], cache, start)[0]
        except Exception as error:
            if not out_of_memory(error):
                raise
            raise _no_memory() from error

    def _states(self, rows: Rows, cache: Any = None, known: int = 0) -> torch.Tensor:
        """The last states of shape [rows, tokens, hidden]. cache: has read `known` tokens of the only row before."""
        longest = max(map(len, rows))
        numbers = [[*row, *[self._pad] * (longest - len(row))] for row in rows]
        mask = [[1] * (known + len(row)) + [0] * (longest - len(row)) for row in rows]
        places = [[*range(known, known + longest)]]
        given = {"input_ids": numbers, "attention_mask": mask, **({"position_ids": places} if known else {})}
        tensors = {name: torch.tensor(each, device=self._body.device) for name, each in given.items()}
        more = {"past_key_values": cache, "use_cache": True} if cache is not None else {"use_cache": False}
        known_here = {name: value for name, value in (tensors | more).items() if name in self._parameters}
        states = getattr(self._body(**known_here), "last_hidden_state", None)
        if states is None:
            raise UnsupportedModel(f"'{type(self._body).__name__}' has no states of tokens that could be embedded.")
        return states

    def _pooled(self, states: torch.Tensor) -> torch.Tensor:
        return self._pooling(states.float()).cpu()


class EmbeddingEngine:
    """A model that is made for embeddings. It is an `Engine` that cannot chat."""

    batching = True
    health = WELL

    def __init__(self, network: Any, tokenizer: Any, context_length: int, pooling: Pooling = MEAN) -> None:
        """Tries the network out. Raises what `Embedder.vectors` raises."""
        self.memory_bytes = weight_bytes(network) + pooling.memory_bytes
        self.context_length = context_length
        self._embedder = Embedder(network, tokenizer, context_length, pooling)
        self._embedder.vectors([[0, 0], [0]])
        self._lane = Lane("embed")
        self._closed = False

    def chat(self, request: ChatRequest, report: Report) -> Completion:  # noqa: ARG002  (as every engine takes them)
        """Raises `InvalidRequest`."""
        raise InvalidRequest("This model makes embeddings and cannot chat: ask it at /v1/embeddings.", field="model")

    def embed(self, request: EmbedRequest, report: Report) -> Embeddings:
        """Embeds; see `Engine.embed`. Raises `ModelNotLoaded` when it was closed."""
        self._check_open()
        return self._embedder.embed(request, report, self._submit)

    def rows(self) -> RowCount:
        """It makes no answers."""
        return RowCount()

    def close(self) -> None:
        """Cancels what still runs and gives the memory back."""
        self._closed = True
        self._lane.close()
        del self._embedder
        release_memory()

    def _submit(self, work: Callable[[Job[torch.Tensor]], torch.Tensor]) -> Job[torch.Tensor]:
        self._check_open()
        return self._lane.submit(work)

    def _check_open(self) -> None:
        if self._closed:
            raise ModelNotLoaded("The model was unloaded.")


def _computed(work: Work, submit: Submit, tell: Callable[[], None]) -> torch.Tensor:
    """Has work done and waits for it. What `tell` raises ends the wait."""
    tell()
    job = submit(lambda _: work())
    try:
        while not job.wait(BEAT):
            tell()
        return job.result()
    finally:
        job.cancel()


def _checked(vectors: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(vectors).all():
        raise UnsupportedModel("The model computes values that are no numbers.")
    return vectors


def _cut(vectors: torch.Tensor, dimensions: int | None) -> torch.Tensor:
    """The first values of each vector, made to length 1 again; None for all as they are.

    Raises:
        InvalidRequest: there are not as many.
    """
    size = vectors.shape[-1]
    if dimensions is not None and dimensions > size:
        raise InvalidRequest(f"This model's embeddings have {size} dimensions.", field="dimensions")
    return vectors if dimensions in (None, size) else normalized(vectors[:, :dimensions])


def _plain(vector: torch.Tensor) -> "array[float]":
    return array("f", vector.contiguous().numpy().tobytes())


def _no_memory() -> InsufficientMemory:
    return InsufficientMemory("Out of memory while embedding. Try shorter texts.")


def _too_long(place: int, length: str, most: int) -> ContextLengthExceeded:
    return ContextLengthExceeded(
        f"This model reads {most} tokens at most, but input {place} has {length}.", context_length=most, field="input"
    )
