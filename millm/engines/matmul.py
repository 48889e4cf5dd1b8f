"""Ways in which a CPU multiplies rows with bfloat16 weights, and which of them is fastest on this one today.

No way is best everywhere: a processor without a unit for bfloat16 reads prompts two to three times as fast once
weights are made float32, and one whose matrix unit is kept busy by others reads a row up to twice as fast without it.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import cache, partial
from itertools import accumulate
from typing import Any

import torch
from torch.nn import functional

log = logging.getLogger(__name__)

Multiply = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]  # rows and a bias
Way = Callable[[torch.Tensor], Multiply]  # of multiplying with the weights given

ALONE = 2  # rows up to which a CPU without a unit for bfloat16 is faster with it than with float32
FEW = 32  # rows up to which few weights are made float32 at a time: those stay in the processor
FEW_BLOCK, MANY_BLOCK = 1 << 18, 1 << 21  # weights that are made float32 at a time
TIMED_BYTES = 1 << 27  # of weights that are read to see which way is faster: more than most caches hold
CLEARLY = 1.15  # how many times as fast another way has to be
_numbers: ContextVar[torch.Tensor] = ContextVar("numbers")


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """As functional.linear, all in bfloat16."""
    rows = x.reshape(-1, x.shape[-1])  # torch may copy all weights for a part of a larger tensor
    if len(rows) <= ALONE or not lacks_bfloat16():
        out = functional.linear(rows, weight, bias)
    else:
        out = _wide(rows, weight)
        out = (out if bias is None else out + bias).to(x.dtype)
    return out.view(*x.shape[:-1], -1)


def _wide(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiplies in float32, and returns that. Weights are made float32 in blocks, each in the place of the last."""
    size = FEW_BLOCK if len(x) <= FEW else MANY_BLOCK
    wide = x.float()
    blocks = weight.split(max(1, size // weight.shape[1]))
    return torch.cat([functional.linear(wide, _place(block.shape).copy_(block)) for block in blocks], -1)


def _place(shape: torch.Size) -> torch.Tensor:
    """Memory of this thread for one block: new memory costs more than what is computed with it."""
    numbers = _numbers.get(None)
    if numbers is None or shape.numel() > len(numbers):
        with torch.inference_mode(False):
            numbers = torch.empty(max(MANY_BLOCK, shape.numel()))
        _numbers.set(numbers)
    return numbers[: shape.numel()].view(shape)


@cache
def lacks_bfloat16() -> bool:
    """Whether this CPU multiplies faster in float32, though the weights have to be made float32 each time."""
    weight, x = torch.ones(1024, 1024, dtype=torch.bfloat16), torch.ones(64, 1024, dtype=torch.bfloat16)
    narrow = _fastest_of(partial(functional.linear, x, weight), 7)
    wide = _fastest_of(partial(_wide, x, weight), 7)
    return narrow > wide


def plain(weight: torch.Tensor) -> Multiply:
    """Multiplies with the weights as they lie."""
    return lambda x, bias: linear(x, weight, bias)


def by_row(weight: torch.Tensor) -> Multiply:
    """Multiplies with the weights as they lie, one row as a vector."""

    def multiply(x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if x.numel() != weight.shape[1]:
            return linear(x, weight, bias)
        out = torch.mv(weight, x.reshape(-1))
        return (out if bias is None else out + bias).view(*x.shape[:-1], -1)

    return multiply


def copied(weight: torch.Tensor) -> Multiply:
    """As `by_row`, with a copy of the weights: memory of its own lies in huge pages, mapped files do not."""
    return by_row(weight.clone())


def packed(weight: torch.Tensor) -> Multiply:
    """Multiplies with a copy of the weights in the order in which oneDNN reads them; a private operator of torch."""
    copy = torch.ops.mkldnn._reorder_linear_weight(weight, 1)
    operator = torch.ops.mkldnn._linear_pointwise.default
    return lambda x, bias: operator(x, copy, bias, "none", [], "")


COPY = (packed, copied)


def ways(may_copy: bool) -> Sequence[Way]:
    """What is worth trying on this CPU, the usual first. may_copy: whether a copy of weights is worth its memory."""
    return COPY if may_copy and not lacks_bfloat16() else (plain, by_row)


def fastest(ways: Sequence[Way], weights: Sequence[torch.Tensor]) -> Way:
    """Which way reads these weights fastest, measured on some of them; the first if none is clearly faster.

    Of a small model it is the first: what fits into caches says little.
    """
    sizes = list(accumulate(weight.nbytes for weight in weights))
    if sizes[-1] < TIMED_BYTES:
        return ways[0]
    sample = [weight for weight, size in zip(weights, sizes, strict=True) if size - weight.nbytes < TIMED_BYTES]
    times = {way: _time(way, sample) for way in ways}
    log.info("multiplying: %s", ", ".join(f"{way.__name__} {times[way] * 1e3:.1f} ms" for way in ways))
    best = min(ways, key=times.__getitem__)
    return best if times[best] * CLEARLY < times[ways[0]] else ways[0]


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _time(way: Way, weights: Sequence[torch.Tensor]) -> float:
    """Seconds that a row alone takes through all these weights, and then eight together."""
    ready = [(way(weight), weight.shape[1]) for weight in weights]

    def read(rows: int) -> None:
        for multiply, size in ready:
            multiply(torch.ones(1, rows, size, dtype=torch.bfloat16), None)

    return sum(_fastest_of(partial(read, rows), 3) for rows in (1, 8))


def _fastest_of(work: Callable[[], Any], times: int) -> float:
    """Seconds that work takes at its fastest."""
    taken = []
    for _ in range(times):
        since = time.perf_counter()
        work()
        taken.append(time.perf_counter() - since)
    return min(taken)
