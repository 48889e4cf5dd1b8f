"""The cache of one row, with room behind its newest token: what is read next is written there, and nothing copied."""

from typing import Any

import torch
from transformers import cache_utils

SLACK = 256  # columns that are free after buffers have moved: so many tokens until that must happen again
ROOM = 0.25  # parts of a prompt's length that its cache has besides, for the answer and the next question
STATES = ("conv_states", "recurrent_states")
FACTS = ("is_conv_states_initialized", "is_recurrent_states_initialized", "conv_kernel_size", "has_previous_state")
Pair = tuple[torch.Tensor, torch.Tensor]


class OwnLayer(cache_utils.DynamicLayer):  # type: ignore[misc]
    """Keys and values of one row in one attention layer: the first columns of two buffers.

    buffers: of shape [1, heads, columns, head size]; None where somebody else writes behind this row's newest token,
    so that the next one moves all into buffers of its own. reserved: the columns that these have at least.
    """

    def __init__(self) -> None:
        super().__init__()
        self.buffers: Pair | None = None
        self.reserved = 0

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> Pair:
        """Writes tokens behind the others."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if self.buffers is None or end > self.buffers[0].shape[-2]:
            columns = max(self.reserved, end + SLACK if begin else end)
            self.buffers = _moved(key_states, self.keys, columns), _moved(value_states, self.values, columns)
        for buffer, part in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, begin:end] = part
        return self.show(self.buffers, end)

    def show(self, buffers: Pair, length: int) -> Pair:
        """Takes the first columns of buffers for its own; returns them."""
        self.keys, self.values = (buffer[:, :, :length] for buffer in buffers)
        return self.keys, self.values


def _moved(like: torch.Tensor, present: torch.Tensor, columns: int) -> torch.Tensor:
    """A buffer of so many columns that begins with those that are there."""
    buffer = like.new_empty(*like.shape[:-2], columns, like.shape[-1])
    if present.numel():
        buffer[:, :, : present.shape[-2]] = present
    return buffer


def copy_states(source: Any, row: Any, slot: int = 0) -> None:
    """Copies the states of one row of a layer into a layer of its own, where the next token overwrites them."""
    for name in STATES:
        its = getattr(row, name)
        for number, state in getattr(source, name).items():
            its[number] = None if state is None else state[slot : slot + 1].clone()
    for name in FACTS:
        setattr(row, name, dict(getattr(source, name)))
    row.device, row.dtype = source.device, source.dtype


def with_room(cache: Any) -> Any:
    """The same empty cache, its growing layers replaced by such that have room."""
    plain = cache_utils.DynamicLayer
    cache.layers = [OwnLayer() if type(layer) is plain else layer for layer in cache.layers]
    return cache


def reserve(cache: Any, tokens: int) -> None:
    """Lets the next buffers of a cache have room for a prompt of so many tokens, and for some more."""
    for layer in getattr(cache, "layers", []):
        if isinstance(layer, OwnLayer):
            layer.reserved = int((1 + ROOM) * tokens)


def cut_back(cache: Any, length: int) -> bool:
    """Forgets what a read that failed halfway has written behind so many tokens; False where that cannot be done."""
    layers = getattr(cache, "layers", None)
    if layers is None or not all(type(layer) in (OwnLayer, cache_utils.DummyLayer) for layer in layers):
        return False
    for layer in layers:
        if layer.get_seq_length() > length:
            layer.show((layer.keys, layer.values), length)
    return True
