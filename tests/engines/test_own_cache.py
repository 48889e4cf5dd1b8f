"""A row's own cache writes behind what it holds, and never into what somebody else sees."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch

from millm.engines.forward import Forward
from millm.engines.own_cache import SLACK, OwnLayer, cut_back, reserve
from millm.engines.prefixes import Prefixes
from millm.engines.slots import Attended

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("inference")]

ROUNDING = 2e-4  # standard deviations of the logits
Load = Callable[[str], Forward]


@pytest.fixture
def llama(load: Load) -> Forward:
    return load("llama")


def words(count: int, seed: int = 0) -> list[int]:
    chance = Random(seed)
    return [chance.randrange(3, 500) for _ in range(count)]


def layer(cache: Any) -> OwnLayer:
    found = cache.layers[0]
    assert isinstance(found, OwnLayer)
    return found


def columns(cache: Any) -> int:
    buffers = layer(cache).buffers
    assert buffers is not None
    return int(buffers[0].shape[-2])


def assert_read(forward: Forward, logits: torch.Tensor, tokens: list[int]) -> None:
    expected, _ = forward.read(tokens, forward.new_cache())
    torch.testing.assert_close(logits, expected, rtol=0, atol=ROUNDING * float(expected.std()))


def test_what_is_reserved_is_never_moved(llama: Forward) -> None:
    tokens, cache = words(90), llama.new_cache()
    reserve(cache, 72)
    llama.read(tokens[:30], cache)
    place = layer(cache).keys.data_ptr()
    for begin in (30, 60):
        logits, _ = llama.read(tokens[begin : begin + 30], cache, begin)
    assert (columns(cache), layer(cache).keys.data_ptr()) == (90, place)
    assert_read(llama, logits, tokens)


def test_one_token_after_the_other_moves_it_seldom(llama: Forward) -> None:
    tokens, cache, widths = words(40), llama.new_cache(), set()
    for place, token in enumerate(tokens):
        logits, _ = llama.read([token], cache, place)
        widths.add(columns(cache))
    assert widths == {1, 2 + SLACK}
    assert_read(llama, logits, tokens)


def test_a_row_that_is_alone_takes_its_buffers_into_the_slots_and_out_again(llama: Forward) -> None:
    tokens, cache, slots = words(20), llama.new_cache(), llama.new_slots()
    assert slots is not None
    reserve(cache, 32)
    llama.read(tokens, cache)
    place = layer(cache).keys.data_ptr()
    slots.join(cache, 20)
    joined = slots.cache.layers[0]
    assert isinstance(joined, Attended)
    assert joined._both()[0].data_ptr() == place
    assert layer(cache).buffers is None, "two would write into the same columns"
    llama.step([7], slots)
    left = llama.new_cache()
    slots.give(0, left)
    slots.leave(0)
    assert (layer(left).keys.data_ptr(), columns(left)) == (place, 40)
    logits, _ = llama.read([9], left, 21)
    assert_read(llama, logits, [*tokens, 7, 9])


def test_others_who_are_about_to_come_have_their_place(llama: Forward) -> None:
    slots = llama.new_slots()
    assert slots is not None
    lengths, places = (20, 5, 31, 12), set()
    for seed, length in enumerate(lengths):
        slots.join(llama.read(words(length, seed), llama.new_cache())[1], length, lengths[seed + 1 :])
        places.add(slots.cache.layers[0]._both()[0].data_ptr())
    assert len(places) == 1
    logits = llama.step([7] * 4, slots)
    for seed, length in enumerate(lengths):
        assert_read(llama, logits[seed : seed + 1], [*words(length, seed), 7])


def kept_with_room(llama: Forward) -> tuple[list[int], Prefixes, int]:
    """Forty tokens, a store that keeps their cache with room behind it, and where its keys lie."""
    text, cache = words(40), llama.new_cache()
    reserve(cache, 40)
    prefixes = Prefixes(llama.new_cache, 1 << 30)
    prefixes.keep(text, llama.read(text, cache)[1])
    return text, prefixes, layer(cache).keys.data_ptr()


def test_the_first_who_goes_on_from_a_whole_prefix_writes_behind_it_and_the_next_one_copies(llama: Forward) -> None:
    text, prefixes, place = kept_with_room(llama)
    caches = [prefixes.find([*text, seed])[1] for seed in (5, 6)]
    for seed, found in zip((5, 6), caches, strict=True):
        llama.read([seed], found, 40)
    assert [layer(found).keys.data_ptr() == place for found in caches] == [True, False]
    for seed, found in zip((5, 6), caches, strict=True):
        logits, _ = llama.read([8], found, 41)
        assert_read(llama, logits, [*text, seed, 8])


def test_who_goes_on_from_a_part_of_a_prefix_copies(llama: Forward) -> None:
    text, prefixes, _ = kept_with_room(llama)
    other = prefixes.find([*text[:30], 5, 6])[1]
    llama.read([5], other, 30)
    logits, _ = llama.read([9], prefixes.find([*text, 9])[1], 40)
    assert_read(llama, logits, [*text, 9])


def test_who_goes_on_from_nearly_all_of_a_prefix_writes_over_the_rest(llama: Forward) -> None:
    text, prefixes, place = kept_with_room(llama)
    count, found = prefixes.find([*text[:38], 5, 6, 7])
    llama.read([5, 6, 7], found, count)
    assert (count, layer(found).keys.data_ptr()) == (38, place)
    assert_read(llama, llama.read([8], found, 41)[0], [*text[:38], 5, 6, 7, 8])
    count, other = prefixes.find([*text, 9])
    assert count == 38, "the rest was written over"
    assert_read(llama, llama.read([*text[38:], 9], other, 38)[0], [*text, 9])


def test_nothing_is_forgotten_for_who_has_no_room_behind_it(llama: Forward) -> None:
    text = words(40)
    prefixes = Prefixes(llama.new_cache, 1 << 30)
    prefixes.keep(text, llama.read(text, llama.new_cache())[1])
    assert prefixes.find([*text[:38], *words(9, 1)])[0] == 38
    assert prefixes.find([*text, 7])[0] == 40


def test_a_row_that_leaves_adds_only_what_its_cache_does_not_know(llama: Forward) -> None:
    tokens, cache, slots = words(40), llama.new_cache(), llama.new_slots()
    assert slots is not None
    reserve(cache, 40)
    llama.read(tokens, cache)
    for seed in (0, 1):
        slots.join(cache if not seed else llama.read(words(9, 1), llama.new_cache())[1], 40 if not seed else 9, [9])
    place = layer(cache).keys.data_ptr()
    llama.step([7, 7], slots)
    slots.give(0, cache)
    assert (layer(cache).keys.data_ptr(), layer(cache).get_seq_length()) == (place, 41)
    assert_read(llama, llama.read([8], cache, 41)[0], [*tokens, 7, 8])


def test_a_read_that_failed_halfway_can_be_taken_back(llama: Forward, load: Load) -> None:
    tokens, cache = words(30), llama.new_cache()
    llama.read(tokens[:20], cache)
    for part in cache.layers[:1]:  # the first layer has seen the tokens, the second has not
        part.update(*(torch.ones_like(one[:, :, :10]) for one in (part.keys, part.values)))
    assert cut_back(cache, 20)
    logits, _ = llama.read(tokens[20:], cache, 20)
    assert_read(llama, logits, tokens)
    assert not cut_back(load("mistral").new_cache(), 0)
    assert not cut_back(None, 0)
