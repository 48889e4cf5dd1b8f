"""The most memory that a computation holds at once, found by running it on the meta device, without data."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def traced_peak(work: Callable[[], object]) -> int:
    """Bytes of the tensors that `work` makes, at the moment when most of them are alive."""
    ledger = Ledger()
    with _FusedAttention(), ledger:
        result = work()
    del result
    return ledger.peak


class Ledger(TorchDispatchMode):  # type: ignore[misc]
    """Counts storages from the operation that makes them until nobody holds them any more."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {self._key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and self._key(leaf) not in before:
                self._count(leaf)
        return out

    def _key(self, tensor: torch.Tensor) -> int:
        return int(tensor.untyped_storage()._cdata)

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._now += size
        self.peak = max(self.peak, self._now)
        self._known[key] = weakref.ref(storage, lambda _: self._drop(key, size))

    def _drop(self, key: int, size: int) -> None:
        del self._known[key]
        self._now -= size


class _FusedAttention(TorchFunctionMode):  # type: ignore[misc]
    """Stands in for the fused attention kernels, which the meta device would spell out with all scores."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, key, value = args[:3] if len(args) > 2 else (kwargs["query"], kwargs["key"], kwargs["value"])
            heads_fit = query.shape[1] == key.shape[1] or (kwargs or {}).get("enable_gqa")
            if query.shape[-1] == value.shape[-1] and heads_fit:  # else no kernel takes it
                return query.new_empty((*query.shape[:-1], value.shape[-1]))
        return func(*args, **(kwargs or {}))
