"""What an earlier request has read is used again with the same logits, and takes no more memory than allowed."""

import gc
import weakref
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import tiny_models
import torch

from millm.engines.forward import Forward
from millm.engines.prefixes import FEWEST, Prefixes, cache_bytes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("inference")]

Load = Callable[[str], Forward]

PLENTY = 1 << 30
ROUNDING = 2e-4  # standard deviations of the logits
BEYOND = tiny_models.WINDOW + 20  # tokens, more than any sliding window here shows
WHOLE = ("mistral", "gemma2", "lfm2", "qwen3_next", "zamba2")  # kinds whose long caches cannot be cut


@pytest.fixture
def llama(load: Load) -> Forward:
    return load("llama")


def words(count: int, seed: int = 0) -> list[int]:
    chance = Random(seed)
    return [chance.randrange(3, 500) for _ in range(count)]


def read(forward: Forward, tokens: list[int]) -> Any:
    return forward.read(tokens, forward.new_cache())[1]


def keeper(forward: Forward, *texts: list[int], limit: int = PLENTY) -> Prefixes:
    prefixes = Prefixes(forward.new_cache, limit)
    for text in texts:
        prefixes.keep(text, read(forward, text))
    return prefixes


def known(prefixes: Prefixes, tokens: list[int]) -> int:
    count, cache = prefixes.find(tokens)
    assert (cache is None) is (count == 0)
    return count


def assert_goes_on(forward: Forward, prefixes: Prefixes, tokens: list[int], count: int) -> None:
    """A cache that has read `count` of the tokens is found, and goes on as if it had read all of them."""
    found, cache = prefixes.find(tokens)
    assert found == count
    logits, _ = forward.read(tokens[found:], cache, found)
    expected, _ = forward.read(tokens, forward.new_cache())
    torch.testing.assert_close(logits, expected, rtol=0, atol=ROUNDING * float(expected.std()))


def test_the_longest_common_beginning_is_found(llama: Forward) -> None:
    first = words(40)
    second = first[:20] + words(30, 1)
    prefixes = keeper(llama, first, second)
    assert known(prefixes, first[:30] + words(9, 2)) == 30
    assert known(prefixes, second[:45] + words(9, 2)) == 45
    assert known(prefixes, first[:20] + words(9, 2)) == 20
    assert known(prefixes, words(40, 3)) == 0


def test_the_last_token_is_always_left_to_read(llama: Forward) -> None:
    for tokens, count in ((words(40), 39), (words(30), 29), ([*words(40), 7], 40)):
        assert known(keeper(llama, words(40)), tokens) == count


def test_a_few_tokens_are_not_worth_it(llama: Forward) -> None:
    prefixes = keeper(llama, words(40))
    assert known(prefixes, words(FEWEST) + words(9, 1)) == FEWEST
    assert known(prefixes, words(FEWEST - 1) + words(9, 1)) == 0
    assert known(prefixes, words(FEWEST)) == 0
    assert keeper(llama, words(FEWEST - 1)).size == 0


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom", "mistral"])
def test_a_part_of_a_cache_goes_on_as_if_it_had_read_everything(load: Load, kind: str) -> None:
    forward, text = load(kind), words(tiny_models.WINDOW - 1)
    prefixes = keeper(forward, text)
    for count in (20, 25, 20):  # the kept one is not changed by being read on
        assert_goes_on(forward, prefixes, text[:count] + words(15, count), count)
    assert_goes_on(forward, prefixes, text + words(50, 1), len(text))
    assert_goes_on(forward, prefixes, text, len(text) - 1)


@pytest.mark.parametrize("kind", ["llama", "gemma3n_text", *WHOLE])
def test_a_whole_cache_goes_on_as_if_it_had_read_everything(load: Load, kind: str) -> None:
    forward, text = load(kind), words(BEYOND)
    prefixes = keeper(forward, text)
    for seed in (1, 2, 1):
        assert_goes_on(forward, prefixes, text + words(30, seed), BEYOND)
    assert_goes_on(forward, prefixes, [*text, 7], BEYOND)


@pytest.mark.parametrize("length", [tiny_models.WINDOW, BEYOND])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_cache_that_cannot_be_cut_is_used_whole_or_not_at_all(load: Load, kind: str, length: int) -> None:
    prefixes = keeper(load(kind), words(length))
    assert known(prefixes, words(length - 1) + words(9, 1)) == 0
    assert known(prefixes, words(length)) == 0
    assert known(prefixes, words(length) + words(9, 1)) == length


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen3_next"])
def test_a_kept_cache_that_joins_others_is_not_changed(load: Load, kind: str) -> None:
    forward, text = load(kind), words(BEYOND)
    prefixes, slots = keeper(forward, text), forward.new_slots()
    assert slots is not None
    for slot in range(2):
        slots.join(prefixes.find([*text, 5])[1], BEYOND)
        forward.step([7 + slot] * (slot + 1), slots)
    assert_goes_on(forward, prefixes, text + words(5, 1), BEYOND)


def test_a_longer_cache_takes_the_place_of_its_beginning(llama: Forward) -> None:
    prefixes = keeper(llama, words(20), words(20, 1), words(40))
    assert prefixes.size == sum(cache_bytes(read(llama, words(count))) for count in (20, 40))
    assert known(prefixes, words(20) + words(9, 2)) == 20
    assert known(prefixes, words(40) + words(9, 2)) == 40


def test_what_was_not_used_for_longest_makes_way(llama: Forward) -> None:
    one = cache_bytes(read(llama, words(40)))
    prefixes = keeper(llama, words(40, 1), words(40, 2), limit=2 * one)
    assert prefixes.size == 2 * one
    assert known(prefixes, [*words(40, 1), 5]) == 40
    prefixes.keep(words(40, 3), read(llama, words(40, 3)))
    assert [known(prefixes, [*words(40, seed), 5]) for seed in (1, 2, 3)] == [40, 0, 40]
    assert prefixes.size == 2 * one


def test_what_is_larger_than_allowed_is_not_kept_and_displaces_nothing(llama: Forward) -> None:
    prefixes = keeper(llama, words(20), words(40), limit=cache_bytes(read(llama, words(39))))
    assert known(prefixes, words(40)) == 20


def test_nothing_is_kept_without_memory_for_it(llama: Forward) -> None:
    prefixes = keeper(llama, words(40), limit=0)
    assert prefixes.size == 0
    assert known(prefixes, words(40)) == 0


def test_shrinking_forgets_the_oldest_first(llama: Forward) -> None:
    prefixes = keeper(llama, *(words(40, seed) for seed in range(3)))
    one = prefixes.size // 3
    assert not prefixes.shrink(3 * one)
    assert prefixes.shrink(3 * one - 1)
    assert [known(prefixes, [*words(40, seed), 5]) for seed in range(3)] == [0, 40, 40]
    assert prefixes.shrink()
    assert prefixes.size == 0
    assert not prefixes.shrink()


def test_what_is_forgotten_gives_its_memory_back(llama: Forward) -> None:
    cache = read(llama, words(40))
    keys, prefixes = weakref.ref(cache.layers[0].buffers[0]), keeper(llama)
    prefixes.keep(words(40), cache)
    del cache
    found = prefixes.find(words(40))
    assert keys() is not None
    prefixes.shrink()
    del found
    gc.collect()
    assert keys() is None


def test_bytes_are_those_of_keys_values_and_states(load: Load) -> None:
    heads, size, layers, number = 2, 32, 2, 4
    assert cache_bytes(read(load("llama"), words(40))) == 40 * 2 * heads * size * layers * number
    cache = read(load("lfm2"), words(40))
    states, attended = cache.layers
    assert cache_bytes(cache) == states.conv_states[0].nbytes + attended.keys.nbytes + attended.values.nbytes
    assert cache_bytes(read(load("rwkv"), words(4))) == 0, "a cache of another kind cannot be measured"


def test_no_more_memory_is_held_than_is_told(load: Load) -> None:
    forward = load("mistral")
    cache = read(forward, words(700))
    prefixes = keeper(forward)
    prefixes.keep(words(700), cache)
    parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]
    assert prefixes.size >= sum(part.untyped_storage().nbytes() for part in parts)
