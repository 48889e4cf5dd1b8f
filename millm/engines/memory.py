"""What a network takes in memory, and how memory is given back."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from typing import Any

import torch

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "DefaultCPUAllocator", "CUDA out of memory")
SCALES = ("SCB", "absmax", "code", "offset", "scales")  # as bitsandbytes and `kernels` name them


def weight_bytes(network: Any) -> int:
    """Bytes of all parameters and buffers with what bitsandbytes keeps beside them; what is shared counts once."""
    storages = {}
    for tensor in (*network.parameters(), *network.buffers(), *_scales(network)):
        storage = tensor.untyped_storage()
        storages[(tensor.device, storage.data_ptr())] = storage.nbytes()
    return sum(storages.values())


def _scales(network: Any) -> Iterator[torch.Tensor]:
    """The scales and tables of quantized weights."""
    for module in network.modules():
        weight = getattr(module, "weight", None)
        state = getattr(weight, "quant_state", None)
        for holder in (module, weight, getattr(module, "state", None), state, getattr(state, "state2", None)):
            found = (getattr(holder, name, None) for name in SCALES)
            yield from (part for part in found if isinstance(part, torch.Tensor))


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that an allocation failed, on a GPU or in RAM."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in OUT_OF_MEMORY)


def release_memory() -> None:
    """Gives freed memory back to the system: Python's garbage, glibc's free lists, the GPU's cache."""
    gc.collect()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
