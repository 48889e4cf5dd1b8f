"""A network that computes something else in company, or from its cache, is found out before anybody asks it."""

from collections.abc import Callable
from typing import Any

import pytest
import small_networks
import tiny_models
import torch

from millm.engines.trial import tried
from millm.errors import UnsupportedModel

pytestmark = pytest.mark.slow

Network = Callable[..., Any]
UNFIT = {"bert", "jamba", "openai-gpt", "rwkv"}
FIT = (*tiny_models.NAMES, *(kind for kind in small_networks.KINDS if kind not in UNFIT))


def before(network: Any, change: Callable[[dict[str, Any]], None]) -> Any:
    """A network that changes what it is given, or fails, before it computes."""

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        change(kwargs)
        return args, kwargs

    network.register_forward_pre_hook(hook, with_kwargs=True)
    return network


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", FIT)
def test_networks_that_can_step_together_and_read_in_pieces(network: Network, kind: str, dtype: str) -> None:
    forward = tried(network(kind, dtype))
    assert (forward.together, forward.pieces) == (True, True)


def test_a_network_with_a_cache_of_its_own_kind_does_not_step_together(network: Network) -> None:
    forward = tried(network("rwkv"))
    assert (forward.together, forward.pieces) == (False, True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_network_that_mistakes_where_a_row_stands_does_not_step_together(network: Network, dtype: str) -> None:
    deaf = before(network("llama", dtype), lambda given: given.pop("position_ids"))
    forward = tried(deaf)
    assert (forward.together, forward.pieces) == (False, True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_network_that_shows_a_row_unused_columns_does_not_step_together(network: Network, dtype: str) -> None:
    blind = before(network("llama", dtype), lambda given: given.pop("attention_mask", None))
    assert not tried(blind).together


def test_a_network_that_forgets_between_pieces_reads_in_one(network: Network) -> None:
    forward = tried(network("jamba"))
    assert (forward.together, forward.pieces) == (True, False)


@pytest.mark.xfail(strict=True, reason="what is allowed for rounding in bfloat16 is more than the forgetting changes")
def test_a_network_that_forgets_between_pieces_reads_in_one_in_bfloat16_too(network: Network) -> None:
    assert not tried(network("jamba", "bfloat16")).pieces


@pytest.mark.parametrize("kind", ["bert", "openai-gpt"])
def test_a_network_that_cannot_go_on_from_its_cache_is_refused(network: Network, kind: str) -> None:
    refused = network(kind)
    with pytest.raises(UnsupportedModel, match=f"'{type(refused).__name__}' cannot go on from a cache") as caught:
        tried(refused)
    assert caught.value.details == {"architecture": type(refused).__name__}


def test_a_network_that_ignores_its_cache_is_refused(network: Network) -> None:
    forgetful = before(network("llama"), lambda given: given.update(past_key_values=None))
    with pytest.raises(UnsupportedModel):
        tried(forgetful)


def fail_on(error: Exception, rows: int = 1, tokens: int = 1) -> Callable[[dict[str, Any]], None]:
    """Fails where so many rows, each with so many tokens, go on from a cache that is not empty."""

    def change(given: dict[str, Any]) -> None:
        if given["input_ids"].shape == (rows, tokens) and given["past_key_values"].get_seq_length():
            raise error

    return change


def test_what_fails_when_tried_is_not_done(network: Network) -> None:
    error = ValueError("not implemented")
    forward = tried(before(network("llama"), fail_on(error, rows=2)))
    assert (forward.together, forward.pieces) == (False, True)
    forward = tried(before(network("llama"), fail_on(error, tokens=4)))
    assert (forward.together, forward.pieces) == (True, False)
    with pytest.raises(UnsupportedModel):
        tried(before(network("llama"), fail_on(error)))


@pytest.mark.parametrize("shape", [{}, {"rows": 2}, {"tokens": 4}], ids=["alone", "together", "in pieces"])
def test_too_little_memory_says_nothing_about_the_network(network: Network, shape: dict[str, int]) -> None:
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    with pytest.raises(torch.OutOfMemoryError):
        tried(before(network("llama"), fail_on(full, **shape)))


@pytest.mark.parametrize(("dtype", "number"), [("float32", 4), ("bfloat16", 2)])
def test_a_token_takes_the_bytes_of_its_keys_and_values(network: Network, dtype: str, number: int) -> None:
    layers, heads, size = 2, 2, 32
    assert tried(network("llama", dtype)).token_bytes == 2 * layers * heads * size * number


def test_states_that_do_not_grow_take_nothing_for_a_token(network: Network) -> None:
    attended, heads, size, number = 1, 2, 16, 4  # the other one of its two layers is a convolution
    assert tried(network("lfm2")).token_bytes == 2 * attended * heads * size * number
