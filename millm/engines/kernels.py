"""Faster ways for a CPU to multiply with weights as they are stored.

Some are private operators of torch, so each is used only where it is there and agrees with the plain way on the layer
at hand. Files that were mapped into memory stay mapped: their pages go first when memory is short.
"""

import copy
import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from millm.engines import matmul
from millm.engines.matmul import Multiply, Way
from millm.engines.norms import quicken_norms

log = logging.getLogger(__name__)

FEW = 16  # rows up to which the 8-bit operator is faster than multiplying with the weights made bfloat16
MANY = 24  # rows from which 4-bit weights are made bfloat16 first
TRIED_ROWS = {"Linear": (1, 40), "Linear8bitLt": (1, 40), "Linear4bit": (40,)}  # a few would repack its weights
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # layers that read the same input
FORCE_GQA = "TRANSFORMERS_SDPA_FORCE_GQA"  # read at every step
CLOSE = 0.02  # how far results may be off, in parts of their size: bfloat16 keeps three digits


class FastLinear(nn.Linear):  # type: ignore[misc]
    """A layer with bfloat16 weights, and the fastest way to multiply with them."""

    multiply: Multiply

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the plain layer."""
        return self.multiply(x, self.bias)


class Shared:
    """Layers that read the same input, copied as one: whoever is asked first computes for all."""

    def __init__(self, layers: list[Any], way: Way) -> None:
        biases = [layer.bias for layer in layers]
        self._multiply = way(torch.cat([layer.weight.data for layer in layers]))
        self._bias = None if biases[0] is None else torch.cat(biases)
        self._sizes = [layer.out_features for layer in layers]
        self._input: torch.Tensor | None = None
        self._parts: dict[int, torch.Tensor] = {}  # not asked for yet

    def part(self, place: int, x: torch.Tensor) -> torch.Tensor:
        """What the layer at this place makes of its input."""
        if x is not self._input or place not in self._parts:
            whole = self._multiply(x, self._bias)
            self._input, self._parts = x, dict(enumerate(torch.split_with_sizes(whole, self._sizes, -1)))
        part = self._parts.pop(place)
        if not self._parts:
            self._input = None
        return part


class SharedLinear(nn.Linear):  # type: ignore[misc]
    """One of several layers with bfloat16 weights that read the same input."""

    shared: Shared
    place: int

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the plain layer."""
        return self.shared.part(self.place, x)


class Int8Linear(nn.Linear):  # type: ignore[misc]
    """A layer of LLM.int8: rows of 8-bit weights with a scale each. Activations stay bfloat16."""

    quantized: Any
    scales: Any

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Without the rounding of activations, so nearer to the original than LLM.int8."""
        scales = self.scales.to(x.dtype)
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        if len(rows) > FEW:
            weight = self.quantized.to(x.dtype) * scales[:, None]
            return matmul.linear(x, weight, self.bias)
        out = torch._weight_int8pack_mm(rows, self.quantized, scales)
        out = out if self.bias is None else out + self.bias
        return out.view(*x.shape[:-1], -1)


class TwoWayNF4:
    """Mixed into a 4-bit layer: many rows at once are multiplied with the weights made bfloat16."""

    stored: Any

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the plain layer, but for rounding."""
        # Without a unit for bfloat16 bitsandbytes makes them bfloat16 too, and multiplies slower with them.
        many = matmul.ALONE + 1 if matmul.lacks_bfloat16() else MANY
        if x.numel() < many * x.shape[-1]:
            return super().forward(x)  # type: ignore[misc]
        import bitsandbytes

        weight = bitsandbytes.functional.dequantize_4bit(*self.stored).to(x.dtype)
        return matmul.linear(x, weight, self.bias)  # type: ignore[attr-defined]


def quicken(network: Any, mapped: bool) -> list[str]:
    """Swaps the layers of a network on the CPU for faster ones with the same weights; returns which kinds it has now.

    mapped: whether the weights lie in mapped files; only then is a second copy of bfloat16 weights worth its memory.
    """
    if network.device.type != "cpu":
        return []
    quicken_norms(network)
    # Heads that share keys read them where they are; without it a mask, which every batch has, makes copies for each.
    os.environ.setdefault(FORCE_GQA, "1")
    if network.dtype != torch.bfloat16:
        return []
    swaps: dict[str, Callable[[Any], None]] = {"Linear8bitLt": _to_int8, "Linear4bit": _to_two_ways}
    used = _quicken_plain(network, mapped)
    for kind, swap in swaps.items():
        layers = list(_layers(network, kind))
        if layers and _works(swap, layers[0]):
            for layer in layers:
                swap(layer)
            used += sorted({type(layer).__name__ for layer in layers})
    if used:
        log.info("faster layers: %s", ", ".join(used))
    return used


def _quicken_plain(network: Any, mapped: bool) -> list[str]:
    layers = list(_layers(network, "Linear"))
    ways = [way for way in matmul.ways(mapped) if layers and _works(partial(_to_fast, way=way), layers[0])]
    way = matmul.fastest(ways, [layer.weight.data for layer in layers]) if ways else matmul.plain
    if way is matmul.plain and not matmul.lacks_bfloat16():
        return []
    for group in _siblings(network) if way in matmul.COPY else []:
        _to_shared(group, way)
    for layer in _layers(network, "Linear"):
        _to_fast(layer, way)
    return sorted({type(layer).__name__ for layer in layers})


def _layers(network: Any, kind: str) -> Iterator[Any]:
    """The layers of exactly this class that compute in bfloat16."""
    for module in network.modules():
        known = type(module).__module__.startswith(("torch.", "bitsandbytes."))
        if known and type(module).__name__ == kind and (kind != "Linear" or module.weight.dtype == torch.bfloat16):
            yield module


@torch.no_grad()  # type: ignore[untyped-decorator]
def _works(swap: Callable[[Any], None], layer: Any) -> bool:
    """Whether a swapped copy of a layer computes what the layer does."""
    try:
        swapped = copy.copy(layer)
        swapped.__dict__ = {**layer.__dict__, "_parameters": dict(layer._parameters)}
        weight = _plain_weight(layer)
        swap(swapped)
        return all(_agrees(swapped, weight, layer.bias, rows) for rows in TRIED_ROWS[type(layer).__name__])
    except (RuntimeError, AttributeError, NotImplementedError, TypeError, AssertionError) as error:
        log.info("no faster %s here: %s", type(layer).__name__, error)
        return False


def _agrees(layer: Any, weight: torch.Tensor, bias: torch.Tensor | None, rows: int) -> bool:
    x = torch.randn(1, rows, weight.shape[1], generator=torch.Generator().manual_seed(rows)).bfloat16()
    expected = functional.linear(x.float(), weight, None if bias is None else bias.float())
    found = layer(x).float()
    return found.shape == expected.shape and bool((found - expected).abs().mean() <= CLOSE * expected.abs().mean())


def _plain_weight(layer: Any) -> torch.Tensor:
    """The layer's weights in float32."""
    state = getattr(layer.weight, "quant_state", None)
    if state is not None:
        import bitsandbytes

        return bitsandbytes.functional.dequantize_4bit(layer.weight.data, state).float()
    if layer.weight.dtype == torch.int8:
        return layer.weight.data.float() * _scales(layer)[:, None]
    return layer.weight.data.float()


def _scales(layer: Any) -> torch.Tensor:
    """What the rows of an 8-bit layer are multiplied with."""
    scales = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB
    return scales.float() / 127


def _to_fast(layer: Any, way: Way) -> None:
    layer.multiply = way(layer.weight.data)
    layer.__class__ = FastLinear


def _siblings(network: Any) -> Iterator[list[Any]]:
    """Layers that can be copied as one, because they read the same input, by their names."""
    plain = set(_layers(network, "Linear"))
    for parent in network.modules():
        for names in SIBLINGS:
            group: list[Any] = [getattr(parent, name, None) for name in names]
            if plain.issuperset(group) and len({(layer.in_features, layer.bias is None) for layer in group}) == 1:
                yield group


def _to_shared(layers: list[Any], way: Way) -> None:
    shared = Shared(layers, way)
    for place, layer in enumerate(layers):
        layer.shared, layer.place = shared, place
        layer.__class__ = SharedLinear


def _to_int8(layer: Any) -> None:
    scales = _scales(layer)
    layer.quantized, layer.scales = layer.weight.data.clone(), scales  # the operator needs aligned memory
    layer._parameters["weight"] = nn.Parameter(layer.quantized, requires_grad=False)
    layer.__class__ = Int8Linear


def _to_two_ways(layer: Any) -> None:
    # bitsandbytes repacks the weights at the first step, and drops what they were made of.
    layer.stored = layer.weight.data, copy.copy(layer.weight.quant_state)
    layer.__class__ = type("TwoWayLinear4bit", (TwoWayNF4, type(layer)), {})
