"""Faster normalizations compute what the plain ones do."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from allocated import load
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNorm

from millm.engines import norms
from millm.engines.norms import FastNorm, quicken_norms

pytestmark = pytest.mark.slow

SIZE = 96
PLAIN = {"llama": LlamaRMSNorm, "gemma": GemmaRMSNorm, "qwen3 next": Qwen3NextRMSNorm}


def pair(kind: str, dtype: torch.dtype = torch.bfloat16) -> tuple[Any, Any]:
    """A normalization and its faster one."""
    plain = PLAIN[kind](SIZE, 1e-6)
    plain.weight.data = torch.randn(SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)
    network = torch.nn.ModuleList([copy.deepcopy(plain)])
    quicken_norms(network)
    return plain, network[0]


def numbers(*shape: int, size: float = 3.0) -> torch.Tensor:
    return size * torch.randn(*shape, SIZE, generator=torch.Generator().manual_seed(2)).bfloat16()


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("shape", [(1, 1), (8, 1), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("size", [1e-3, 3.0, 300.0])
def test_few_numbers_are_rounded_once_less(kind: str, shape: tuple[int, ...], size: float) -> None:
    plain, fast = pair(kind)
    x = numbers(*shape, size=size)
    exact = copy.deepcopy(plain).double()
    exact = exact.weight + (kind != "llama")
    expected = x.double() * (x.double().square().mean(-1, True) + 1e-6).rsqrt() * exact
    assert fast.twice is not None
    found = fast(x)
    assert (found.shape, found.dtype) == (x.shape, torch.bfloat16)
    worst = [float((out.double() - expected).abs().mean()) for out in (found, plain(x))]
    assert worst[0] <= 1.1 * worst[1]
    torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=1e-4)


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("rows", [1, 40])
def test_many_numbers_and_float32_are_the_same_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch, kind: str, dtype: torch.dtype, rows: int
) -> None:
    plain, fast = pair(kind, dtype)
    monkeypatch.setattr(norms, "FEW", 0)
    monkeypatch.setattr(norms, "BLOCK", 300)
    x = numbers(1, rows).to(dtype)
    assert torch.equal(fast(x), plain(x))


@pytest.mark.parametrize("rows", [1, 40])
def test_a_normalization_of_another_type_than_its_input_keeps_that(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    plain, fast = pair("llama", torch.float32)
    monkeypatch.setattr(norms, "BLOCK", 300)
    x = numbers(1, rows)
    assert plain(x).dtype == fast(x).dtype == torch.float32
    torch.testing.assert_close(fast(x), plain(x), rtol=0.01, atol=0.01)


def test_one_that_computes_something_else_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LlamaRMSNorm, "forward", lambda layer, x: 2 * x * layer.weight)
    plain, fast = pair("llama")
    assert fast.twice is None
    assert torch.equal(fast(numbers(1, 1)), plain(numbers(1, 1)))


def test_one_whose_epsilon_is_another_than_it_seems_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(layer: Any, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        return layer.weight * (wide * (wide.square().mean(-1, keepdim=True) + 1e-5).rsqrt()).to(x.dtype)

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)
    plain, fast = pair("llama")
    assert fast.twice is None
    x = numbers(1, 1, size=1e-3)
    assert torch.equal(fast(x), plain(x))


@pytest.mark.parametrize("kind", ["llama", "gemma", "qwen3"])
def test_all_of_a_network_are_swapped(tiny: Callable[..., Path], kind: str) -> None:
    network = load(tiny(kind), "FP16")
    expected = sum(type(module).__name__.endswith("RMSNorm") for module in network.modules())
    quicken_norms(network)
    fast = [module for module in network.modules() if isinstance(module, FastNorm)]
    assert len(fast) == expected > 4
    assert all(module.twice is not None for module in fast)
