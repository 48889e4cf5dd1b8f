"""From a request to the rows that answer it: everything that can be wrong with it is said before anything runs."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from millm.engines.base import ChatRequest
from millm.engines.grammar import Grammars
from millm.engines.parsing import Marked, forced_schema, parser_for
from millm.engines.prompts import prompt_tokens
from millm.engines.rows import Row, check_length, room
from millm.engines.sampling import Sampler
from millm.engines.text import AnswerText
from millm.errors import InvalidRequest
from millm.events import Event, Report


class Admission:
    """Makes the rows of requests to one model."""

    def __init__(self, tokenizer: Any, vocabulary: int, endings: Iterable[int], context_length: int) -> None:
        """vocabulary: how many tokens the model knows. endings: those that end its turn."""
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._context_length = context_length
        self._grammars = Grammars(tokenizer, vocabulary, endings)

    def rows(self, request: ChatRequest, report: Report) -> list[Row]:
        """A row for each answer to each prompt. report: told which of them an event is about.

        Raises:
            ContextLengthExceeded: prompt and answer do not fit.
            InvalidRequest: a value is out of range, a token unknown, a schema or a conversation of no use.
        """
        check_length(request, self._context_length)
        prompts = prompt_tokens(self._tokenizer, request)
        return [
            self._row(tokens, request, number, partial(_indexed, report, index))
            for index, (tokens, number) in enumerate(product(prompts, range(request.sampling.count)))
        ]

    def _row(self, tokens: list[int], request: ChatRequest, number: int, report: Report) -> Row:
        self._check_tokens(tokens, request)
        sampling = request.sampling
        forced = forced_schema(request)
        schema = forced or request.schema
        grammar = self._grammars.make(schema, "tools" if forced else "response_format") if schema else None
        parser = parser_for(self._tokenizer, request, tokens)
        return Row(
            tokens,
            room(len(tokens), self._context_length, sampling),
            Sampler(sampling, tokens, number, grammar),
            AnswerText(self._tokenizer, sampling.stop, marks=isinstance(parser, Marked)),
            parser,
            report,
        )

    def _check_tokens(self, tokens: list[int], request: ChatRequest) -> None:
        biased = [token for token, _ in request.sampling.logit_bias] or [0]
        for field, known in (("prompt", tokens), ("logit_bias", biased)):
            if (unknown := max(known)) >= self._vocabulary or (unknown := min(known)) < 0:
                raise InvalidRequest(
                    f"The {field} holds the token {unknown}, but the model knows only {self._vocabulary}.",
                    field=field,
                )


def _indexed(report: Report, index: int, event: Event) -> None:
    report(replace(event, index=index))
