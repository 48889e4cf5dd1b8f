"""The caches of many rows as one, in buffers that rows join and leave.

Every row's columns end where those of all others end, so a shorter row has unused columns on its left: the distance
of two tokens in columns is their distance in positions, which sliding windows and ALiBi count on. A row that joins is
copied into its slot, one that leaves is overwritten by the last; nobody else is touched, but when a newcomer is
longer than the buffers, or these are full.
"""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import cache_utils

from millm.engines.own_cache import FACTS, SLACK, STATES, OwnLayer, Pair, copy_states


class Attended(cache_utils.DynamicLayer):  # type: ignore[misc]
    """Keys and values of one attention layer: two buffers of shape [slots, heads, columns, head size].

    window: how many tokens a query sees, itself included; None for all. Columns that nobody sees are not kept.
    """

    def __init__(self, window: int | None) -> None:
        super().__init__()
        self.is_sliding = window is not None
        self.width = 0  # tokens of the longest row
        self._most = sys.maxsize if window is None else window - 1  # tokens that are kept of a row
        self._rows = 0
        self._end = 0  # the column after the newest one
        self._buffers: Pair | None = None

    @property
    def seen(self) -> int:
        """The columns that the next token sees beside itself."""
        return min(self.width, self._most)

    def join(self, slot: int, row: Any, ahead: Sequence[int] = ()) -> None:
        """Copies the keys and values of a row's own layer, of shape [1, heads, length, head size], into a slot.

        A row that comes alone brings its buffers, where it has some. ahead: the lengths of those about to follow.
        """
        if row.keys is None:  # this layer looks at the keys of another
            return
        pair, length = (row.keys, row.values), row.keys.shape[-2]
        if self._buffers is None and not ahead and isinstance(row, OwnLayer) and row.buffers is not None:
            self._buffers, row.buffers = row.buffers, None
            self._rows, self._end = 1, length
            return
        slots = 0 if self._buffers is None else self._buffers[0].shape[0]
        if slot >= slots or length > self._end:
            longest = max(self.seen, length, min(max(ahead, default=0), self._most))
            self._move(pair, slots if slot < slots else max(slot + 1 + len(ahead), 2 * slots), longest)
        self._rows = max(self._rows, slot + 1)
        for buffer, part in zip(self._both(), pair, strict=True):
            buffer[slot, :, : self._end - length] = 0  # see `_move`
            buffer[slot, :, self._end - length : self._end] = part[0]

    def leave(self, slot: int) -> None:
        """Frees a slot: the last row moves into it."""
        if self._buffers is None:
            return
        self._rows -= 1
        if not self._rows:
            self._buffers, self._end = None, 0
        elif slot < self._rows:
            for buffer in self._both():
                begin = self._end - self.seen
                buffer[slot, :, :begin] = 0
                buffer[slot, :, begin : self._end] = buffer[self._rows, :, begin : self._end]

    def give(self, slot: int, length: int, row: Any) -> None:
        """Copies what is kept of a row with so many tokens, which is about to leave, into a layer of its own.

        That may know the first of them already. The last row takes the buffers with it.
        """
        if self._buffers is None:
            return
        if isinstance(row, OwnLayer):
            self._give_to_own(slot, length, row)
            return
        kept = slice(self._end - min(length, self.seen), self._end)
        keys, values = (buffer[slot : slot + 1, :, kept].clone() for buffer in self._both())
        row.lazy_initialization(keys, values)
        row.keys, row.values = keys, values
        if self.is_sliding:
            row.cumulative_length = length

    def _give_to_own(self, slot: int, length: int, row: OwnLayer) -> None:
        buffers = self._both()
        if buffers[0].shape[0] == 1 and length == self._end:
            row.lazy_initialization(*buffers)
            row.buffers = buffers
            row.show(buffers, length)
        else:
            unknown = slice(self._end - length + row.get_seq_length(), self._end)
            row.update(*(buffer[slot : slot + 1, :, unknown] for buffer in buffers))

    def update(self, key_states: Any, value_states: Any, *_: Any, **__: Any) -> Pair:
        """Writes the next token of every row; nothing has happened before `commit`."""
        if self._end == self._both()[0].shape[2]:
            self._move(self._both(), self._both()[0].shape[0], self.seen)
        for buffer, part in zip(self._both(), (key_states, value_states), strict=True):
            buffer[: self._rows, :, self._end] = part[:, :, 0]
        visible = slice(self._end - self.seen, self._end + 1)
        keys, values = (buffer[: self._rows, :, visible] for buffer in self._both())
        return keys, values

    def commit(self) -> None:
        """The step succeeded: what `update` wrote stays."""
        self._end += self._buffers is not None

    def get_seq_length(self) -> int:
        """Tokens that the longest row has, also those no longer kept."""
        return self.width

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many columns a step sees and how many earlier ones are hidden."""
        return self.seen + query_length, self.width - self.seen

    def _both(self) -> Pair:
        assert self._buffers is not None, "no row has joined"
        return self._buffers

    def _move(self, like: Pair, slots: int, columns: int) -> None:
        """Brings all rows into new buffers in which they end after `columns` columns."""
        fresh = []
        for place, tensor in enumerate(like):
            buffer = tensor.new_empty(slots, tensor.shape[1], columns + SLACK, tensor.shape[3])
            if self._rows:
                # Zeros, because a mask does not hide what is no number: 0 times NaN is NaN.
                buffer[: self._rows, :, : columns - self.seen] = 0
                kept = self._both()[place][: self._rows, :, self._end - self.seen : self._end]
                buffer[: self._rows, :, columns - self.seen : columns] = kept
            fresh.append(buffer)
        self._buffers, self._end = (fresh[0], fresh[1]), columns


class Recurrent(cache_utils.LinearAttentionLayer):  # type: ignore[misc]
    """States of convolutions and recurrences, of a fixed size: those of all rows are stacked."""

    def join(self, slot: int, row: Any, ahead: Sequence[int] = ()) -> None:  # noqa: ARG002  (the states are small)
        """Copies the states of a row's own layer."""
        joined = {name: dict(getattr(row, name)) for name in STATES}
        for name, states in joined.items():
            for number, state in states.items():
                if state is not None:
                    others = [getattr(self, name)[number][:slot]] if slot else []
                    states[number] = torch.cat([*others, state])
        for name in STATES:
            setattr(self, name, joined[name])
        for name in FACTS:
            setattr(self, name, dict(getattr(row, name)))
        self.device, self.dtype = row.device, row.dtype

    def leave(self, slot: int) -> None:
        """Frees a slot: the last row moves into it."""
        for name in STATES:
            states = getattr(self, name)
            for number, state in states.items():
                if state is not None:
                    last = len(state) - 1
                    states[number] = state[[last if row == slot else row for row in range(last)]]

    def give(self, slot: int, length: int, row: Any) -> None:  # noqa: ARG002  (the states do not grow)
        """Copies a row's states into a layer of its own."""
        copy_states(self, row, slot)

    def commit(self) -> None:
        """The states have been overwritten already."""


class Hybrid(Recurrent, Attended, cache_utils.LinearAttentionAndFullAttentionLayer):  # type: ignore[misc]
    """A layer with both."""

    def __init__(self, states: int) -> None:
        Attended.__init__(self, None)
        cache_utils.LinearAttentionLayer.__init__(self, number_of_states=states)

    def join(self, slot: int, row: Any, ahead: Sequence[int] = ()) -> None:
        """Copies keys, values and states of a row's own layer."""
        Recurrent.join(self, slot, row)
        try:
            Attended.join(self, slot, row, ahead)
        except BaseException:
            Recurrent.leave(self, slot)
            raise

    def leave(self, slot: int) -> None:
        """Frees a slot: the last row moves into it."""
        Recurrent.leave(self, slot)
        Attended.leave(self, slot)

    def give(self, slot: int, length: int, row: Any) -> None:
        """Copies what is kept of a row into a layer of its own."""
        Recurrent.give(self, slot, length, row)
        Attended.give(self, slot, length, row)

    def commit(self) -> None:
        """The step succeeded: what `update` wrote stays."""
        Attended.commit(self)


class Nothing(cache_utils.DummyLayer):  # type: ignore[misc]
    """A layer that keeps nothing."""

    def join(self, slot: int, row: Any, ahead: Sequence[int] = ()) -> None:
        """Nothing to copy."""

    def leave(self, slot: int) -> None:
        """Nothing to free."""

    def give(self, slot: int, length: int, row: Any) -> None:
        """Nothing to copy."""

    def commit(self) -> None:
        """Nothing to keep."""


def slotted(layer: Any) -> Any:
    """A layer for many rows of the same kind as a row's own one; None where there is no such kind."""
    kind = type(layer)
    if kind is OwnLayer:
        return Attended(None)
    if kind is cache_utils.DynamicSlidingWindowLayer:
        return Attended(layer.sliding_window)
    if kind is cache_utils.LinearAttentionLayer:
        return Recurrent(number_of_states=layer.number_of_states)
    if kind is cache_utils.LinearAttentionAndFullAttentionLayer:
        return Hybrid(layer.number_of_states)
    return Nothing() if kind is cache_utils.DummyLayer else None


class Slots:
    """The caches of the rows that step together. Row n sits in slot n; the last one moves when another leaves."""

    def __init__(self, layers: list[Any]) -> None:
        """layers: one for all rows for each layer of the network, see `slotted`."""
        self.cache = cache_utils.DynamicCache()
        self.cache.layers = layers
        self.lengths: list[int] = []

    @property
    def retriable(self) -> bool:
        """Whether a step that failed halfway has changed nothing."""
        return not any(isinstance(layer, Recurrent) for layer in self.cache.layers)

    def join(self, row: Any, length: int, ahead: Sequence[int] = ()) -> None:
        """Adds a row: its own cache, of so many tokens, is copied into the next slot. An error adds nothing.

        ahead: the lengths of the rows that are about to follow, so that the buffers need not grow for each.
        """
        joined = []
        try:
            for layer, its in zip(self.cache.layers, row.layers, strict=True):
                layer.join(len(self.lengths), its, ahead)
                joined.append(layer)
        except BaseException:
            for layer in joined:
                layer.leave(len(self.lengths))
            raise
        self.lengths.append(length)
        self._measure()

    def leave(self, slot: int) -> None:
        """Removes a row."""
        for layer in self.cache.layers:
            layer.leave(slot)
        self.lengths[slot] = self.lengths[-1]
        self.lengths.pop()
        self._measure()

    def give(self, slot: int, row: Any) -> None:
        """Copies a row into a cache of its own, which knows none or the first of its tokens."""
        for layer, its in zip(self.cache.layers, row.layers, strict=True):
            layer.give(slot, self.lengths[slot], its)

    def commit(self) -> None:
        """Every row has one token more."""
        for layer in self.cache.layers:
            layer.commit()
        self.lengths = [length + 1 for length in self.lengths]
        self._measure()

    def mask(self) -> torch.Tensor | None:
        """Which columns the next token of each row sees, of shape [rows, columns]; None if all see all."""
        width = max(self.lengths)
        if min(self.lengths) == width:
            return None
        unused = torch.tensor([[width - length] for length in self.lengths])
        return (torch.arange(width + 1)[None] >= unused).long()

    def _measure(self) -> None:
        width = max(self.lengths, default=0)
        for layer in self.cache.layers:
            if isinstance(layer, Attended):
                layer.width = width
