"""Faster normalizations by the root mean square, as nearly every network of today has four or so in each layer."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

BLOCK = 1 << 17  # numbers that are taken at once: with what is made of them they stay in the processor
FEW = 1 << 14  # numbers up to which calls cost more than counting
CLOSE = 0.005  # how far results may be off, in parts of their size: bfloat16 keeps three digits


class FastNorm:
    """Mixed into a normalization, which knows its tokens one by one: many are taken in blocks, few in one call.

    twice: what normalized numbers are multiplied with, two times over; None where that could not be found out.
    """

    twice: torch.Tensor | None
    epsilon: float

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the plain layer: bit by bit, or for few numbers of bfloat16 with one rounding less."""
        size = x.shape[-1]
        if x.numel() <= FEW and x.dtype == torch.bfloat16 and self.twice is not None:
            # The mean of numbers and their negatives is 0, so their variance is the mean of the squares.
            both = torch.cat((x, -x), -1)
            return functional.layer_norm(both, (2 * size,), self.twice, None, self.epsilon)[..., :size]
        if x.numel() <= BLOCK:
            return super().forward(x)  # type: ignore[misc]
        blocks = x.reshape(-1, size).split(max(1, BLOCK // size))
        return torch.cat([*map(super().forward, blocks)]).view(x.shape)  # type: ignore[misc]


def quicken_norms(network: Any) -> None:
    """Swaps the normalizations of a network on the CPU for faster ones."""
    for module in network.modules():
        kind, weight = type(module), getattr(module, "weight", None)
        known = kind.__module__.startswith("transformers.") and kind.__name__.endswith("RMSNorm")
        if known and weight is not None and weight.dim() == 1:
            module.__class__ = type("Fast" + kind.__name__, (FastNorm, kind), {})
            module.epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", 0.0))
            module.twice = _twice(module, super(FastNorm, module).forward)


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _twice(module: Any, plain: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor | None:
    """What `FastNorm` needs: the weights, or one more than them as Gemma has it, whichever agrees with the layer."""
    size = len(module.weight)
    sizes = torch.tensor([[1.0], [0.1], [0.01], [0.001]])  # the smaller, the more does epsilon count
    x = (sizes * torch.randn(4, size, generator=torch.Generator().manual_seed(size))).bfloat16()
    expected = plain(x)
    for scale in (module.weight.data, 1 + module.weight.data.float()):
        module.twice = torch.cat((scale, scale))
        found = module(x)
        off = (found - expected).float().abs().mean()
        if found.dtype == expected.dtype and off <= CLOSE * expected.float().abs().mean():
            return module.twice
    return None
