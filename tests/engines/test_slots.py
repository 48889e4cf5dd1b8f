"""A row that steps with others has the logits that it has alone, whoever joins and leaves beside it."""

import copy
import weakref
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
import tiny_models
import torch
from transformers import cache_utils

from millm.engines import slots
from millm.engines.forward import Forward
from millm.engines.slots import Attended, Slots, slotted

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("inference")]

Load = Callable[[str], Forward]

SLIDING = ("mistral", "gemma2", "gemma3n_text")
RECURRENT = ("lfm2", "qwen3_next", "zamba2")
KINDS = ("llama", "gpt2", "bloom", *SLIDING, *RECURRENT)
LENGTHS = (1, 2, 7, 8, 9, 20, tiny_models.WINDOW - 1, tiny_models.WINDOW, tiny_models.WINDOW + 1, 70, 150)
MOST = 6  # rows at once
ROUNDING = 2e-4  # standard deviations of the logits


class Row:
    """A row by itself."""

    def __init__(self, forward: Forward, length: int = 0) -> None:
        self.forward, self.length, self.cache = forward, length, forward.new_cache()

    def read(self, tokens: list[int]) -> torch.Tensor:
        logits, self.cache = self.forward.read(tokens, self.cache, self.length)
        self.length += len(tokens)
        return logits


class Company:
    """Rows in slots, each of which is also read by itself."""

    def __init__(self, forward: Forward, lengths: Sequence[int] = ()) -> None:
        self.forward, self.rows, self.random = forward, list[Row](), Random(0)
        self.slots: Slots = forward.new_slots() or pytest.fail("no slots for this kind")
        for length in lengths:
            self.join(length)

    def tokens(self, count: int) -> list[int]:
        return [self.random.randrange(3, self.forward.vocabulary) for _ in range(count)]

    def new_row(self, length: int) -> Row:
        row = Row(self.forward)
        row.read(self.tokens(length))
        return row

    def join(self, length: int) -> None:
        self.rows.append(self.new_row(length))
        self.slots.join(self.rows[-1].cache, length)

    def step(self) -> None:
        """Each row reads one more token, and has the logits that it has alone."""
        tokens = self.tokens(len(self.rows))
        together = self.forward.step(tokens, self.slots)
        alone = [row.read([token]) for row, token in zip(self.rows, tokens, strict=True)]
        assert_same(together, torch.cat(alone))

    def leave(self, slot: int) -> None:
        """A row leaves while the others step, and goes on alone, as it should, with what the slots had of it."""
        row, given = self.rows[slot], Row(self.forward, self.rows[slot].length)
        self.slots.give(slot, given.cache)
        self.slots.leave(slot)
        self.rows[slot] = self.rows[-1]
        self.rows.pop()
        if self.rows:
            self.step()
        for tokens in (self.tokens(1), self.tokens(1), self.tokens(4)):
            assert_same(given.read(tokens), row.read(tokens))

    def buffer(self) -> torch.Tensor:
        pair = next(layer for layer in self.slots.cache.layers if isinstance(layer, Attended))._buffers
        assert pair is not None
        return pair[0]


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING * float(expected.std()))


def spoilt_memory(tensor: torch.Tensor, *sizes: int) -> torch.Tensor:
    """What `new_empty` may give: memory in which something stood before."""
    return tensor.new_full(sizes, torch.nan)


@pytest.mark.parametrize("slack", [3, 40])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_the_logits_they_have_alone(
    load: Load, kind: str, slack: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "SLACK", slack)
    monkeypatch.setattr(torch.Tensor, "new_empty", spoilt_memory)
    company, chance = Company(load(kind)), Random(f"{kind} {slack}")
    for _ in range(30):
        if not company.rows or (len(company.rows) < MOST and chance.random() < 0.4):
            company.join(chance.choice(LENGTHS))
        elif chance.random() < 0.3:
            company.leave(chance.randrange(len(company.rows)))
        if company.rows:
            company.step()
    assert company.slots.lengths == [row.length for row in company.rows]


@pytest.mark.parametrize("slot", [0, 1, 2], ids=["first", "middle", "last"])
@pytest.mark.parametrize("kind", ["llama", "mistral", "zamba2"])
def test_a_row_that_leaves_changes_no_other(load: Load, kind: str, slot: int) -> None:
    company = Company(load(kind), (40, 5, 18))
    company.step()
    company.leave(slot)
    for _ in range(3):
        company.step()
    company.join(25)
    company.step()
    assert company.slots.lengths == [row.length for row in company.rows]


@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
def test_a_row_of_any_length_beside_the_window_goes_on_alone(load: Load, length: int) -> None:
    company = Company(load("mistral"), (50, length))
    for _ in range(3):
        company.step()
    company.leave(1)
    company.leave(0)
    assert company.slots.lengths == []


@pytest.mark.parametrize("kind", ["llama", "mistral", "zamba2"])
def test_what_was_given_back_does_not_change_while_the_row_goes_on(load: Load, kind: str) -> None:
    company = Company(load(kind), (40, 5))
    given, twin = Row(company.forward, 5), Row(company.forward, 5)
    company.slots.give(1, given.cache)
    twin.cache = copy.deepcopy(company.rows[1].cache)
    company.step()
    company.step()
    tokens = company.tokens(3)
    assert_same(given.read(tokens), twin.read(tokens))


def test_only_what_the_window_shows_is_kept(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLACK", 3)
    company = Company(load("mistral"), (150, 70))
    for _ in range(10):
        company.step()
    assert company.buffer().shape[2] == tiny_models.WINDOW - 1 + 3


def test_rows_are_moved_only_for_a_longer_one_or_when_the_buffers_are_full(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "SLACK", 8)
    company = Company(load("llama"), (30, 10, 5))

    def moved(what: Callable[..., None], *how: int) -> bool:
        before = company.buffer().data_ptr()
        what(*how)
        return company.buffer().data_ptr() != before

    assert not moved(company.join, 20)
    assert not any(moved(company.step) for _ in range(4))
    assert not moved(company.leave, 0), "the others have stepped to column 35"
    assert not moved(company.join, 35)
    assert not moved(company.leave, 1)
    assert moved(company.join, 37)
    assert [moved(company.step) for _ in range(9)] == [False] * 8 + [True]
    assert moved(company.join, 1), "there were four slots"


def test_rows_of_one_length_need_no_mask(load: Load) -> None:
    company = Company(load("llama"), (5, 5))
    assert company.slots.mask() is None
    company.step()
    assert company.slots.mask() is None
    company.join(4)
    mask = company.slots.mask()
    assert mask is not None
    assert mask.tolist() == [[1] * 7, [1] * 7, [0, 0, 1, 1, 1, 1, 1]]
    company.leave(2)
    assert company.slots.mask() is None


@pytest.mark.parametrize("kind", ["llama", "mistral", "zamba2"])
def test_the_buffers_go_with_the_last_row(load: Load, kind: str) -> None:
    company = Company(load(kind), (20, 9))
    buffer = weakref.ref(company.buffer())
    company.slots.leave(0)
    assert buffer() is not None
    company.slots.leave(0)
    assert buffer() is None
    company.rows.clear()
    company.join(4)
    company.join(12)
    company.step()


class OutOfMemory:
    """Takes the place of a method of one layer and fails."""

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


@pytest.mark.parametrize("kind", ["llama", "bloom", "mistral", "gemma2"])
def test_a_step_that_failed_halfway_can_be_repeated(load: Load, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLACK", 3)
    company = Company(load(kind), (5, 40, 12))
    for _ in range(10):  # in some of them the buffers are moved
        with monkeypatch.context() as broken, pytest.raises(torch.OutOfMemoryError):
            broken.setattr(company.slots.cache.layers[1], "update", OutOfMemory())
            company.forward.step([7, 8, 9], company.slots)
        company.step()


@pytest.mark.parametrize("kind", KINDS)
def test_steps_can_be_repeated_where_nothing_is_overwritten(load: Load, kind: str) -> None:
    assert Company(load(kind)).slots.retriable is (kind not in RECURRENT)


def test_caches_of_unknown_kinds_have_no_slots(load: Load) -> None:
    assert load("rwkv").new_slots() is None
    assert slotted(cache_utils.DynamicIndexedLayer()) is None
    assert slotted(cache_utils.LinearAttentionAndSlidingWindowAttentionLayer(8)) is None


@pytest.mark.parametrize("kind", ["llama", "lfm2"])
def test_a_row_that_could_not_join_changes_no_other(load: Load, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    company = Company(load(kind), (10, 4))
    with monkeypatch.context() as broken, pytest.raises(torch.OutOfMemoryError):
        broken.setattr(company.slots.cache.layers[1], "join", OutOfMemory())
        company.slots.join(company.new_row(40).cache, 40)
    company.step()
    company.leave(0)
    company.join(20)
    company.step()


@pytest.mark.parametrize("part", ["keys", "values"])
def test_a_row_that_is_no_numbers_leaves_none_behind(load: Load, part: str) -> None:
    company = Company(load("llama"), (30,))
    spoilt = company.new_row(21).cache
    getattr(spoilt.layers[0], part).fill_(torch.nan)
    company.slots.join(spoilt, 21)
    company.slots.leave(1)
    company.join(4)
    company.step()
