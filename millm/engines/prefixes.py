"""Caches of earlier prompts and answers, so that what two requests have in common is read once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import cache_utils

from millm.engines.own_cache import ROOM, STATES, OwnLayer, copy_states

FEWEST = 16  # tokens in common that are worth it
FORGOTTEN = 1 / 16  # of a cache that somebody goes on from: reading so much again costs less than a copy


@dataclass(slots=True, eq=False)
class Prefix:
    """Tokens and the cache of a network that has read them."""

    tokens: list[int]
    cache: Any
    size: int


class Prefixes:
    """Keeps caches by their tokens; of those that do not fit any more the one unused for longest goes first."""

    def __init__(self, new_cache: Callable[[], Any], limit: int) -> None:
        """new_cache: makes an empty cache for one row. limit: bytes for all caches together."""
        self._new_cache = new_cache
        self.limit = limit
        self._kept: list[Prefix] = []  # the one used last at the end

    @property
    def size(self) -> int:
        """Bytes of all that is kept."""
        return sum(prefix.size for prefix in self._kept)

    def find(self, tokens: list[int]) -> tuple[int, Any]:
        """How many of the first tokens are known, and a cache that has read them; 0 and None without one.

        The last token is never among them: its logits are what a reader is after.
        """
        best, count = None, FEWEST - 1
        for prefix in self._kept:
            usable = self._usable(prefix, tokens)
            if usable > count:
                best, count = prefix, usable
        if best is None:
            return 0, None
        self._kept.remove(best)
        self._kept.append(best)
        return count, self._first(best, count, len(tokens))

    def keep(self, tokens: list[int], cache: Any) -> None:
        """Keeps a cache that has read these tokens; the caller does not use it any more."""
        _compact(cache)
        size = cache_bytes(cache)
        if not self.limit or len(tokens) < FEWEST or size > self.limit:
            return
        self._kept = [known for known in self._kept if known.tokens != tokens[: len(known.tokens)]]
        self._kept.append(Prefix(tokens, cache, size))
        self.shrink(self.limit)

    def shrink(self, size: int = 0) -> bool:
        """Forgets caches until so many bytes are kept at most. Returns whether any went."""
        before = len(self._kept)
        while self._kept and self.size > size:
            del self._kept[0]
        return len(self._kept) < before

    def _usable(self, prefix: Prefix, tokens: list[int]) -> int:
        common = _common(prefix.tokens, tokens[:-1])
        whole = common == len(prefix.tokens)
        return common if whole or all(map(_can_be_cut, prefix.cache.layers)) else 0

    def _first(self, prefix: Prefix, count: int, length: int) -> Any:
        """A cache of the first tokens. Keys and values are shared: a cache writes behind its own or makes new ones.

        Who goes on from all of a prefix, or from nearly all, may write behind that, once; the rest is forgotten.
        length: the tokens that it will read in all.
        """
        fresh = self._new_cache()
        taken = _can_be_taken(prefix, count, length)
        for mine, its in zip(fresh.layers, prefix.cache.layers, strict=True):
            if isinstance(its, cache_utils.LinearAttentionCacheLayerMixin):
                copy_states(its, mine)
            if getattr(its, "keys", None) is not None:
                mine.lazy_initialization(its.keys, its.values)
                mine.keys, mine.values = its.keys[:, :, :count], its.values[:, :, :count]
                if taken and isinstance(mine, OwnLayer):
                    mine.buffers, its.buffers = its.buffers, None
                    its.keys, its.values = mine.keys, mine.values
                if hasattr(its, "cumulative_length"):
                    mine.cumulative_length = count
        if taken:
            prefix.tokens = prefix.tokens[:count]
        return fresh


def cache_bytes(cache: Any) -> int:
    """Bytes that the tensors of a row's own cache take, and the room behind them."""
    total = 0
    for layer in getattr(cache, "layers", []):
        tensors = [getattr(layer, "keys", None), getattr(layer, "values", None)]
        tensors += [state for name in STATES for state in getattr(layer, name, {}).values()]
        total += sum(tensor.untyped_storage().nbytes() for tensor in tensors if tensor is not None)
    return total


def _compact(cache: Any) -> None:
    """Copies keys and values that are a part of something much larger, which they would keep in memory."""
    for layer in getattr(cache, "layers", []):
        for name in ("keys", "values"):
            tensor = getattr(layer, name, None)
            if tensor is not None and tensor.untyped_storage().nbytes() > (1 + ROOM) * tensor.nbytes:
                setattr(layer, name, tensor.clone())
                layer.buffers = None


def _can_be_cut(layer: Any) -> bool:
    """Whether a layer still holds what it was like some tokens ago."""
    if type(layer) is cache_utils.DynamicSlidingWindowLayer:
        return bool(layer.cumulative_length < layer.sliding_window)
    return type(layer) in (OwnLayer, cache_utils.DummyLayer)


def _can_be_taken(prefix: Prefix, count: int, length: int) -> bool:
    """Whether who goes on from the first tokens gets the room behind them, too."""
    forgotten = len(prefix.tokens) - count
    return not forgotten or (
        forgotten <= FORGOTTEN * count
        and all(
            isinstance(layer, OwnLayer) and layer.buffers is not None and layer.buffers[0].shape[-2] >= length
            for layer in prefix.cache.layers
            if type(layer) is not cache_utils.DummyLayer
        )
    )


def _common(first: list[int], second: list[int]) -> int:
    """How many tokens at the beginning are the same."""
    shorter = min(len(first), len(second))
    if first[:shorter] == second[:shorter]:
        return shorter
    return next(place for place in range(shorter) if first[place] != second[place])
