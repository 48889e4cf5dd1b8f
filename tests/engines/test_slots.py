"""A row that steps with others has the logits that it has alone, whoever joins and leaves beside it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import small_networks
import tiny_models
import torch
import transformers

from millm.engines import slots
from millm.engines.forward import Forward
from millm.engines.slots import Attended, Slots, slotted

pytestmark = pytest.mark.slow

Load = Callable[..., Forward]

SLIDING = ("mistral", "gemma2", "gemma3n_text")
RECURRENT = ("lfm2", "qwen3_next", "zamba2")
KINDS = ("llama", "gpt2", "bloom", *SLIDING, *RECURRENT)
LENGTHS = (1, 2, 7, 8, 9, 20, tiny_models.WINDOW - 1, tiny_models.WINDOW, tiny_models.WINDOW + 1, 70, 150)
MOST = 6  # rows at once


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def load(tiny: Callable[..., Path]) -> Load:
    def forward(kind: str) -> Forward:
        if kind in small_networks.KINDS:
            return Forward(small_networks.small(kind))
        return Forward(transformers.AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=torch.float32).eval())

    return forward


class Row:
    """A row by itself, with a cache of its own."""

    def __init__(self, forward: Forward, prompt: list[int]) -> None:
        self.forward, self.length = forward, 0
        self.cache = forward.new_cache()
        self.read(prompt)

    def read(self, tokens: list[int]) -> torch.Tensor:
        logits, self.cache = self.forward.read(tokens, self.cache, self.length)
        self.length += len(tokens)
        return logits[0]


class Company:
    """Rows in slots, each of which is also read alone."""

    def __init__(self, forward: Forward, lengths: tuple[int, ...] = ()) -> None:
        self.forward = forward
        found = forward.new_slots()
        assert found is not None
        self.slots: Slots = found
        self.rows: list[Row] = []
        self.random = Random(len(lengths))
        for length in lengths:
            self.join(length)

    def tokens(self, count: int) -> list[int]:
        return [self.random.randrange(3, self.forward.vocabulary) for _ in range(count)]

    def join(self, length: int) -> None:
        self.rows.append(Row(self.forward, self.tokens(length)))
        self.slots.join(self.rows[-1].cache, length)

    def leave(self, slot: int) -> None:
        self.slots.leave(slot)
        self.rows[slot] = self.rows[-1]
        self.rows.pop()

    def step(self) -> None:
        tokens = self.tokens(len(self.rows))
        together = self.forward.step(tokens, self.slots)
        alone = torch.stack([row.read([token]) for row, token in zip(self.rows, tokens, strict=True)])
        assert_same(together, alone)
        assert self.slots.lengths == [row.length for row in self.rows]

    def give(self, slot: int) -> None:
        """Lets a row go on with what the slots have of it."""
        cache = self.forward.new_cache()
        self.slots.give(slot, cache)
        given, tokens = Row.__new__(Row), self.tokens(3)
        given.forward, given.length, given.cache = self.forward, self.rows[slot].length, cache
        twin = Row.__new__(Row)
        twin.forward, twin.length, twin.cache = self.forward, given.length, self.rows[slot].cache
        for token in tokens:
            assert_same(given.read([token]), twin.read([token]))


def assert_same(found: torch.Tensor, alone: torch.Tensor) -> None:
    assert found.shape == alone.shape
    worst = float((found - alone).abs().max() / alone.std())
    print(worst)
    assert worst < 1e-3
