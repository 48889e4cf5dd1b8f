"""What the tensors of a model take in each form, from what the headers of its safetensors files say of them."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from millm.records import Quantization

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
NEVER = re.compile(r"embed|lm_head|output\.weight|wte|wpe|norm|router|(^|\.)gate\.weight|experts|position")
"""Names of matrices that are not quantized: tables, heads, norms, and what belongs to a mixture of experts."""
OUT_BLOCK, IN_BLOCK = 32, 64


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A stored tensor. dtype: as safetensors names it, "BF16"."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Its numbers."""
        return math.prod(self.shape)


def nf4_bytes(count: int) -> int:
    """Bytes of `count` numbers in NF4 with double quantization.

    Two to a byte; a table of 16 float32; an 8-bit scale for each block of 64; for those, a float32 for each block of
    256, a table of 256 float32 and an offset. Source: bitsandbytes, `functional.quantize_4bit` and `QuantState`.
    """
    blocks = math.ceil(count / 64)
    return math.ceil(count / 2) + 64 + blocks + 4 * math.ceil(blocks / 256) + 1028


def weight_bytes_of(tensors: Mapping[str, TensorInfo], form: Quantization, tied: bool) -> int:
    """Bytes of all tensors in a form, half precision where it leaves them. tied: the head is the embedding.

    What is quantized is told by names and shapes alone; the modules themselves know it better (`engines/bnb.py`).
    """
    return sum(_bytes(name, info, form) for name, info in tensors.items() if not (tied and "lm_head" in name))


def _bytes(name: str, info: TensorInfo, form: Quantization) -> int:
    half = 2 * info.count if info.dtype in FLOATS else info.count
    whole = len(info.shape) == 2 and info.shape[0] % OUT_BLOCK == 0 and info.shape[1] % IN_BLOCK == 0
    if form is Quantization.FP16 or not whole or not name.endswith(".weight") or NEVER.search(name):
        return half
    return nf4_bytes(info.count) if form is Quantization.Q4 else info.count + 4 * info.shape[0]
