"""Faster layers compute what the plain ones do, and are left out where they would not."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from allocated import load
from torch.nn import functional

from millm.engines import kernels, matmul
from millm.engines.kernels import quicken
from millm.engines.loader import half_dtype
from millm.engines.matmul import Multiply, Way
from millm.engines.memory import weight_bytes

pytestmark = pytest.mark.slow

FAST = half_dtype(torch.bfloat16, "cpu") == torch.bfloat16
on_a_fast_cpu = pytest.mark.skipif(not FAST, reason="half precision is float32 on this processor")
UNITS = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", bool)()
with_units = pytest.mark.skipif(not UNITS, reason="this processor has no units for bfloat16")
COPIES = [pytest.param(matmul.packed, marks=with_units), matmul.copied]


def logits(network: Any, count: int) -> torch.Tensor:
    tokens = torch.randint(100, 2000, (1, count), generator=torch.Generator().manual_seed(count))
    with torch.inference_mode():
        return network(input_ids=tokens).logits[0].float()


def off(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found).abs().mean() / expected.std())


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Callable[[Way], None]:
    """Makes a way the fastest."""
    monkeypatch.setattr(matmul, "lacks_bfloat16", lambda: False)

    def choose(way: Way) -> None:
        def fastest(ways: Sequence[Way], weights: Sequence[torch.Tensor]) -> Way:
            assert way in ways
            return way

        monkeypatch.setattr(matmul, "fastest", fastest)

    return choose


@on_a_fast_cpu
@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("rows", [1, 3, 16, 17, 40])
def test_copied_weights_compute_the_same(
    tiny: Callable[..., Path], choose: Callable[[Way], None], way: Way, rows: int
) -> None:
    plain, swift = load(tiny("llama"), "FP16"), load(tiny("llama"), "FP16")
    choose(way)
    assert quicken(swift, mapped=True) == ["FastLinear", "SharedLinear"]
    assert off(logits(plain, rows), logits(swift, rows)) < 0.02
    assert weight_bytes(swift) == weight_bytes(plain)


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_a_processor_without_bfloat16_multiplies_in_float32_without_a_copy(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, rows: int, mapped: bool
) -> None:
    plain, swift = load(tiny("llama"), "FP16"), load(tiny("llama"), "FP16")
    monkeypatch.setattr(matmul, "lacks_bfloat16", lambda: True)
    assert quicken(swift, mapped) == ["FastLinear"]
    assert off(logits(plain, rows), logits(swift, rows)) < 0.02


@on_a_fast_cpu
@pytest.mark.parametrize("way", COPIES)
def test_layers_that_read_the_same_input_are_multiplied_at_once_and_no_others(
    tiny: Callable[..., Path], choose: Callable[[Way], None], way: Way
) -> None:
    plain, swift = load(tiny("llama"), "FP16"), load(tiny("llama"), "FP16")
    choose(way)
    quicken(swift, mapped=True)
    layers = [f"model.layers.0.self_attn.{name}_proj" for name in "qkvo"]
    joined = [swift.get_submodule(name) for name in layers]
    assert [type(layer).__name__ for layer in joined] == ["SharedLinear"] * 3 + ["FastLinear"]
    x, other = torch.randn(2, 1, 7, plain.config.hidden_size).bfloat16()
    for layer, given in ((0, x), (1, other), (2, x), (1, x), (1, x), (0, other), (2, other), (0, x)):
        expected = plain.get_submodule(layers[layer])(given)
        assert off(expected.float(), joined[layer](given).float()) < 0.02


@on_a_fast_cpu
@pytest.mark.parametrize("lacks", [False, True], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("rows", [1, 16, 17, 40])
def test_8_bit_layers_are_the_stored_numbers_times_their_scales(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, rows: int, lacks: bool
) -> None:
    monkeypatch.setattr(matmul, "lacks_bfloat16", lambda: lacks)
    plain, swift = load(tiny("llama"), "Q8"), load(tiny("llama"), "Q8")
    size = weight_bytes(plain)
    layer = swift.model.layers[0].mlp.up_proj
    stored = layer.weight.data.float() * layer.weight.SCB.float()[:, None] / 127
    assert "Int8Linear" in quicken(swift, mapped=False)
    x = torch.randn(rows, stored.shape[1]).bfloat16()
    expected = functional.linear(x.float(), stored)
    assert off(expected, layer(x).float()) < 0.02
    assert layer(x[None]).shape == (1, rows, len(stored))
    assert weight_bytes(swift) == size


@on_a_fast_cpu
@pytest.mark.parametrize("lacks", [False, True], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("rows", [1, 23, 24, 40])
def test_4_bit_layers_give_one_answer_in_two_ways(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, rows: int, lacks: bool
) -> None:
    monkeypatch.setattr(matmul, "lacks_bfloat16", lambda: lacks)
    plain, swift = load(tiny("llama"), "Q4"), load(tiny("llama"), "Q4")
    assert "TwoWayLinear4bit" in quicken(swift, mapped=False)
    for count in (rows, 1, rows):  # a step repacks the weights, after which prompts must still be right
        assert off(logits(plain, count), logits(swift, count)) < 0.05


@on_a_fast_cpu
@pytest.mark.parametrize(("lacks", "own"), [(True, [3, 24]), (False, [24])], ids=["float32", "bfloat16"])
def test_4_bit_weights_are_made_bfloat16_from_fewer_rows_on_where_the_cpu_lacks_it(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, lacks: bool, own: list[int]
) -> None:
    swift = load(tiny("llama"), "Q4")
    quicken(swift, mapped=False)
    monkeypatch.setattr(matmul, "lacks_bfloat16", lambda: lacks)
    layer, seen, linear = swift.model.layers[0].mlp.up_proj, list[int](), matmul.linear
    monkeypatch.setattr(matmul, "linear", lambda x, *rest: seen.append(len(x)) or linear(x, *rest))
    with torch.inference_mode():
        for rows in (1, 2, 3, 24):
            layer(torch.ones(rows, layer.in_features, dtype=torch.bfloat16))
    assert seen == own


def test_an_operator_that_computes_something_else_is_left_out(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(weight: torch.Tensor) -> Multiply:
        return matmul.plain(2 * weight)

    def missing(weight: torch.Tensor) -> Multiply:
        raise AttributeError("no such operator")

    monkeypatch.setattr(matmul, "lacks_bfloat16", lambda: False)
    for broken in (wrong, missing):
        monkeypatch.setattr(matmul, "COPY", (broken,))
        network = load(tiny("llama"), "FP16")
        expected = logits(network, 5)
        assert quicken(network, mapped=True) == []
        assert torch.equal(logits(network, 5), expected)


def test_float32_is_left_alone(tiny: Callable[..., Path]) -> None:
    assert quicken(load(tiny("llama"), "FP16", "float32"), mapped=True) == []


def test_weights_that_would_lie_in_memory_twice_are_not_copied(
    tiny: Callable[..., Path], choose: Callable[[Way], None]
) -> None:
    network = load(tiny("llama"), "FP16")
    choose(matmul.plain)
    assert quicken(network, mapped=False) == []
    choose(matmul.by_row)
    assert quicken(network, mapped=False) == ["FastLinear"]
    with pytest.raises(AssertionError):
        choose(matmul.copied)
        quicken(load(tiny("llama"), "FP16"), mapped=False)


@on_a_fast_cpu
def test_a_trial_changes_no_layer(tiny: Callable[..., Path]) -> None:
    network = load(tiny("llama"), "Q4")
    before = copy.deepcopy(network.model.layers[0].mlp.up_proj.weight.data)
    quicken(network, mapped=False)
    assert torch.equal(network.model.layers[0].mlp.up_proj.weight.data, before)


@pytest.mark.parametrize("steps", [1, 7], ids=["a token", "a piece"])
def test_masked_heads_that_share_keys_compute_the_same_without_copies(
    tiny: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.delenv(kernels.FORCE_GQA, raising=False)
    network = load(tiny("llama", dtype="float32"), "FP16").float()
    tokens = torch.randint(100, 2000, (2, 20 + steps), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    mask[0, :5] = 0
    asked: list[bool] = []
    plain_attention = functional.scaled_dot_product_attention

    def attention(*args: Any, **kwargs: Any) -> Any:
        asked.append(bool(kwargs.get("enable_gqa")))
        return plain_attention(*args, **kwargs)

    def read() -> Any:
        with torch.inference_mode():
            cache = network(input_ids=tokens[:, :20], attention_mask=mask[:, :20], use_cache=True).past_key_values
            return network(input_ids=tokens[:, 20:], attention_mask=mask, past_key_values=cache).logits

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    expected = read()
    assert not any(asked)
    asked.clear()
    assert quicken(network, mapped=False) == []
    torch.testing.assert_close(read(), expected, rtol=0, atol=1e-5 * float(expected.std()))
    assert all(asked)
