"""One answer in the making, from its prompt to its completion."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

from millm.engines.base import ChatRequest, Completion, Sampling
from millm.engines.memory import out_of_memory
from millm.engines.parsing import Parser, Part
from millm.engines.sampling import Choice, Sampler
from millm.engines.text import AnswerText
from millm.errors import ContextLengthExceeded, InsufficientMemory
from millm.events import Chance, Event, Report, Stage
from millm.jobs import Job

LONGEST_TOKEN = 128  # characters; longer ones (runs of spaces) are rare enough to be no limit in practice


class Row:
    """One answer: what it reads next, what it said so far, and who waits for it.

    unread: tokens of the prompt that its cache has not seen yet. cache: its own, until it joins others.
    """

    def __init__(
        self, prompt: list[int], limit: int, sampler: Sampler, text: AnswerText, parser: Parser, report: Report
    ) -> None:
        """limit: the most tokens it may say. text, parser: turn tokens into text, and text into its parts."""
        self.prompt = prompt
        self.unread = prompt
        self.begun = False
        self._known = 0
        self.tokens: list[int] = []
        self.cache: Any = None
        self.sampler = sampler
        self.done: Job[Completion] = Job()
        self._limit = limit
        self._text = text
        self._parser = parser
        self._report = report
        self.asked_at = perf_counter()
        self._first_at = 0.0
        self._parts: list[Part] = []
        self._chances: list[Chance] = []

    @property
    def length(self) -> int:
        """Tokens of the prompt and of the answer so far."""
        return len(self.prompt) + len(self.tokens)

    def begin(self, known: int, cache: Any) -> None:
        """Goes on from a cache that has read so many tokens of the prompt."""
        self.begun, self.cache, self.unread, self._known = True, cache, self.prompt[known:], known

    def reading(self) -> None:
        """Says that the prompt is being read, or waits for that. Raises `Cancelled` if nobody wants the answer."""
        self.done.check()
        self._report(Event(Stage.READING_PROMPT, 100 * (1 - len(self.unread) / len(self.prompt))))

    def accept(self, choice: Choice, ends: bool) -> None:
        """Takes a token into the answer and reports it. ends: whether it ends the turn.

        Raises `Cancelled` if nobody wants the answer.
        """
        self.done.check()
        token = choice.token
        self.tokens.append(token)
        if len(self.tokens) == 1:
            self._first_at = perf_counter()
        self.sampler.said(token)
        text = "" if ends else self._text.push(token)
        turn_over = ends or self.sampler.complete or self._text.stopped
        over = turn_over or len(self.tokens) >= self._limit
        parts = [self._parser.push(text)]
        if over:
            parts += [self._parser.push(self._text.flush()), self._parser.flush()]
        silent = ends or self.sampler.sampling.logprobs is None
        self._tell(parts, () if silent else (self._text.chance(choice),))
        if over:
            self.done.finish(self._completion("stop" if turn_over or self._text.stopped else "length"))

    def _tell(self, parts: list[Part], chances: tuple[Chance, ...]) -> None:
        self._parts.extend(parts)
        self._chances.extend(chances)
        self._report(
            Event(
                Stage.GENERATING,
                text="".join(part.text for part in parts),
                tokens=len(self.tokens),
                chances=chances,
                reasoning="".join(part.reasoning for part in parts),
                calls=tuple(call for part in parts for call in part.calls),
            )
        )

    def _completion(self, reason: str) -> Completion:
        decoding = perf_counter() - self._first_at
        count = len(self.tokens)
        calls = tuple(call for part in self._parts for call in part.calls)
        return Completion(
            text="".join(part.text for part in self._parts),
            finish_reason="tool_calls" if calls and reason == "stop" else reason,
            prompt_tokens=len(self.prompt),
            completion_tokens=count,
            first_token_s=self._first_at - self.asked_at,
            tokens_per_s=(count - 1) / decoding if count > 1 else 0.0,
            chances=tuple(self._chances),
            cached_tokens=self._known,
            reasoning="".join(part.reasoning for part in self._parts),
            calls=calls,
        )


def check_length(request: ChatRequest, context: int) -> None:
    """Refuses a prompt that cannot fit before its tokens are counted, which would take a while.

    Raises:
        ContextLengthExceeded: it has more characters than the longest tokens could hold.
    """
    turns = sum(len(message.content) for message in request.messages)
    characters = max((len(prompt) for prompt in request.prompts), default=0) + turns
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
    listed: Sequence[int | None] = stated if isinstance(stated, list) else [stated]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)


def no_memory() -> InsufficientMemory:
    """The error of a row whose cache does not fit."""
    return InsufficientMemory("Out of memory while answering. Try a shorter conversation or a smaller model.")


def row_error(error: BaseException) -> BaseException:
    """What whoever waits for a row is told of an error in it."""
    if not out_of_memory(error):
        return error
    full = no_memory()
    full.__cause__ = error
    return full
