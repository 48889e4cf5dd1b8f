"""The decode loop that all requests share: a row is admitted, steps token by token beside the others, leaves.

The network, the caches and the samplers are touched on one lane of width one. `chat` hands its row over
through a deque, which needs no lock, and waits for the row's own job.
"""

import inspect
from collections import deque
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch

from millm.engines.base import ChatRequest, Completion, Sampling
from millm.engines.memory import out_of_memory, release_memory, weight_bytes
from millm.engines.prompts import prompt_tokens
from millm.engines.sampling import Sampler
from millm.engines.text import AnswerText
from millm.errors import Cancelled, ContextLengthExceeded, InsufficientMemory, InvalidRequest, ModelNotLoaded
from millm.events import Event, Report, Stage
from millm.jobs import Job, Lane

LONGEST_TOKEN = 128  # characters; longer ones (runs of spaces) are rare enough to be no limit in practice


@dataclass(slots=True, eq=False)
class Row:
    """One answer in the making. fresh: tokens that its cache has not seen yet, at first the whole prompt."""

    fresh: list[int]
    limit: int
    sampler: Sampler
    text: AnswerText
    report: Report
    asked_at: float
    done: Job[Completion] = field(default_factory=Job)
    cache: Any = None
    prompt_count: int = 0
    count: int = 0
    answer: str = ""
    first_at: float = 0.0

    def __post_init__(self) -> None:
        self.prompt_count = len(self.fresh)

    def completion(self, reason: str) -> Completion:
        """The finished answer."""
        decoding = perf_counter() - self.first_at
        return Completion(
            text=self.answer,
            finish_reason=reason,
            prompt_tokens=self.prompt_count,
            completion_tokens=self.count,
            first_token_s=self.first_at - self.asked_at,
            tokens_per_s=(self.count - 1) / decoding if self.count > 1 else 0.0,
        )


class DecodeEngine:
    """A causal language model that answers any number of requests at once. It is an `Engine`."""

    def __init__(self, network: Any, tokenizer: Any, context_length: int) -> None:
        self.memory_bytes = weight_bytes(network)
        self.context_length = context_length
        self._network = network
        self._tokenizer = tokenizer
        self._endings = ending_tokens(network, tokenizer)
        self._vocabulary = network.get_input_embeddings().weight.shape[0]
        # Where the network can, it computes the logits of the last position only.
        parameters = inspect.signature(network.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._lane = Lane("decode", 1)
        self._arrivals: deque[Row] = deque()
        self._rows: list[Row] = []
        self._closed = False

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        """Answers; see `Engine.chat`.

        Raises:
            ModelNotLoaded: the engine was closed.
            InsufficientMemory: the caches do not fit.
            UnsupportedModel: the model computes no valid probabilities.
        """
        if self._closed:
            raise ModelNotLoaded("The model was unloaded.")
        row = self._row(request, report)
        self._arrivals.append(row)
        self._lane.submit(self._run)
        return row.done.result()

    def close(self) -> None:
        """Cancels what still runs and gives the memory back."""
        self._closed = True
        self._lane.close()
        for row in (*self._rows, *self._arrivals):
            row.done.fail(Cancelled())
        self._rows.clear()
        self._arrivals.clear()
        del self._network, self._tokenizer
        release_memory()

    def _row(self, request: ChatRequest, report: Report) -> Row:
        asked_at = perf_counter()
        sampler = Sampler(request.sampling)
        check_length(request, self.context_length)
        tokens = prompt_tokens(self._tokenizer, request)
        unknown = max(tokens)
        if unknown >= self._vocabulary:
            raise InvalidRequest(
                f"The prompt holds the token {unknown}, but the model knows only {self._vocabulary}: "
                "the tokenizer belongs to another model."
            )
        limit = room(len(tokens), self.context_length, request.sampling)
        text = AnswerText(self._tokenizer, request.sampling.stop)
        return Row(tokens, limit, sampler, text, report, asked_at)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _run(self, job: Job[None]) -> None:
        """Steps all rows in turn until none is left.

        Every arrival queues one run, so none is ever missed; a run that sees another behind it hands over.
        """
        while not job.cancelling:
            self._admit()
            self._rows = [row for row in self._rows if self._step(row)]
            if not (self._rows or self._arrivals) or len(self._lane.jobs) > 1:
                return

    def _admit(self) -> None:
        while self._arrivals:
            self._rows.append(self._arrivals.popleft())

    def _step(self, row: Row) -> bool:
        """Brings one row one token further. Returns whether it goes on; an error ends this row alone."""
        try:
            if not row.count:
                row.report(Event(Stage.READING_PROMPT))
            token = row.sampler.choose(self._forward(row))
            completion = self._accept(row, token)
        except BaseException as error:  # noqa: BLE001  (it reaches whoever waits for this row)
            row.done.fail(_row_error(error))
            return False
        if completion:
            row.done.finish(completion)
        return completion is None

    def _forward(self, row: Row) -> Any:
        """Lets the network read the row's fresh tokens; returns the logits of what comes next.

        A long prompt is read in one piece: in several, rounding makes other logits than `generate` computes.
        """
        tokens = torch.tensor([row.fresh], device=self._network.device)
        seen = self._network(input_ids=tokens, past_key_values=row.cache, use_cache=True, **self._last_only)
        row.cache = seen.past_key_values
        return seen.logits[0, -1]

    def _accept(self, row: Row, token: int) -> Completion | None:
        """Takes the token into the answer and reports it; returns the completion if it was the last."""
        row.fresh = [token]
        row.count += 1
        if row.count == 1:
            row.first_at = perf_counter()
        ended = token in self._endings
        text = "" if ended else row.text.push(token)
        over = ended or row.text.stopped or row.count >= row.limit
        if over:
            text += row.text.flush()
        row.answer += text
        row.report(Event(Stage.GENERATING, text=text, tokens=row.count))
        return row.completion("stop" if ended or row.text.stopped else "length") if over else None


def check_length(request: ChatRequest, context: int) -> None:
    """Refuses a prompt that cannot fit before its tokens are counted, which would take a while.

    Raises:
        ContextLengthExceeded: it has more characters than the longest tokens could hold.
    """
    characters = len(request.prompt or "") + sum(len(message.content) for message in request.messages)
    if characters > context * LONGEST_TOKEN:
        raise ContextLengthExceeded(
            f"This model's context is {context} tokens, but the prompt has {characters} characters.",
            context_length=context,
            characters=characters,
        )


def room(prompt: int, context: int, sampling: Sampling) -> int:
    """How many tokens may be generated.

    Raises:
        ContextLengthExceeded: the prompt leaves no room for the tokens asked for.
    """
    asked = sampling.max_tokens
    if asked and sampling.clip:
        asked = min(asked, max(1, context - prompt))
    if prompt >= context or prompt + (asked or 0) > context:
        wish = f" and {asked} tokens of answer were asked for" if asked else ""
        raise ContextLengthExceeded(
            f"This model's context is {context} tokens, but the prompt has {prompt} tokens{wish}.",
            context_length=context,
            prompt_tokens=prompt,
            max_tokens=asked,
        )
    return asked or context - prompt


def ending_tokens(network: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens with which the model ends its turn."""
    stated = network.generation_config.eos_token_id
    listed = stated if isinstance(stated, list) else [stated]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)


def _row_error(error: BaseException) -> BaseException:
    if not out_of_memory(error):
        return error
    full = InsufficientMemory("Out of memory while answering. Try a shorter conversation or a smaller model.")
    full.__cause__ = error
    return full
