"""Answers that follow a JSON schema: the tokens that would break it cannot be chosen."""

from collections.abc import Iterable
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import torch

from millm.errors import InvalidRequest

# As json.dumps writes it. With free white space a model may write blanks until its tokens are used up.
SPACING: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
MASK_BITS = 32


class Grammars:
    """Makes grammars for one model; what they share takes a second to prepare and is made with the first."""

    def __init__(self, tokenizer: Any, vocabulary: int, endings: Iterable[int]) -> None:
        """vocabulary: how many logits the model computes. endings: the tokens that end its turn."""
        self._tokenizer, self._vocabulary, self._endings = tokenizer, vocabulary, sorted(endings)
        self._prepared: Any = None

    def make(self, schema: str, field: str = "response_format") -> "Grammar":
        """A grammar for one answer. field: of the request, that the schema came from.

        Raises:
            InvalidRequest: the schema is wrong, or asks for what grammars cannot express; or the model's tokenizer
                is of a kind that cannot be used for this.
        """
        try:
            text = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=SPACING)
            wrong = llguidance.LLMatcher.validate_grammar(text)
        except ValueError as error:
            wrong = str(error)
        if wrong:
            raise InvalidRequest(f"The JSON schema cannot be used: {wrong}", field=field)
        return Grammar(llguidance.LLMatcher(self._prepare(), text), self._vocabulary)

    def _prepare(self) -> Any:
        if self._prepared is None:
            try:
                self._prepared = llguidance.hf.from_tokenizer(
                    self._tokenizer, self._vocabulary, self._endings or None
                )
            except (ValueError, TypeError, AttributeError) as error:
                raise InvalidRequest(f"This model's tokenizer cannot be held to a JSON schema: {error}") from error
        return self._prepared


class Grammar:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._mask = np.zeros(-(-vocabulary // MASK_BITS), dtype=np.int32)

    @property
    def complete(self) -> bool:
        """Whether nothing may follow."""
        return bool(self._matcher.is_stopped())

    def restrict(self, logits: Any) -> None:
        """Makes every token impossible, in place, that may not come next.

        Raises:
            InvalidRequest: no token may.
        """
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        allowed = np.unpackbits(self._mask.view(np.uint8), bitorder="little")[: self._vocabulary]
        logits.masked_fill_(torch.from_numpy(allowed == 0).to(logits.device), -torch.inf)

    def accept(self, token: int) -> None:
        """Goes on behind a token. Raises `InvalidRequest` if it may not stand there."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = str(self._matcher.get_error()).partition("\n")[0]  # what follows is the matcher's whole state
            raise InvalidRequest(f"The answer cannot follow its JSON schema any further: {reason}")
