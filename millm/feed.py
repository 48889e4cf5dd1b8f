"""Where threads that push meet readers that pull. No lock is held across a `yield`, or while a watcher is called."""

# ruff: noqa: TID251  (this and jobs.py are the home of threading)

import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Generic, TypeVar

T = TypeVar("T")

BEAT = 0.5  # seconds: the longest a reader is left without a sign of life


class Feed(Generic[T]):
    """A numbered sequence that one side pushes to and any number of readers pull from.

    `keep` bounds how many items are held (None: all). An item may take the place of the newest one, under a new
    number, so that a slow reader skips what is out of date.
    """

    def __init__(self, keep: int | None = None) -> None:
        self._items: deque[tuple[int, T]] = deque(maxlen=keep)
        self._changed = threading.Condition()
        self._watchers: list[Callable[[], None]] = []
        self._number = 0
        self._closed = False

    @property
    def number(self) -> int:
        """The number of the newest item, 0 before the first."""
        return self._number

    @property
    def newest(self) -> T | None:
        """The newest item, None before the first."""
        with self._changed:
            return self._items[-1][1] if self._items else None

    def kept(self) -> tuple[int, list[T]]:
        """The number of the newest item and the items still held, oldest first."""
        with self._changed:
            return self._number, [item for _, item in self._items]

    def push(self, item: T, merge: Callable[[T], bool] | None = None) -> None:
        """Appends an item and wakes every reader. After `close` items are dropped.

        If `merge` says so of the newest item, the new one takes its place.
        """
        with self._changed:
            if self._closed:
                return
            if merge and self._items and merge(self._items[-1][1]):
                self._items.pop()
            self._number += 1
            self._items.append((self._number, item))
            self._changed.notify_all()
            watchers = self._watchers
        _call(watchers)

    def close(self) -> None:
        """Ends every reader once it has read what is there."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            watchers = self._watchers
        _call(watchers)

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` after each change, on the thread that made it, until the function that this returns is called.

        For readers that must not block, with `read(beat=0)`. `wake` must be quick and must not raise.
        """
        with self._changed:
            self._watchers = [*self._watchers, wake]
        return lambda: self._forget(wake)

    def _forget(self, wake: Callable[[], None]) -> None:
        with self._changed:
            self._watchers = [watcher for watcher in self._watchers if watcher is not wake]

    def read(self, after: int = 0, beat: float = BEAT) -> Iterator[T | None]:
        """Yields every item numbered above `after`, then new ones as they come, until the feed is closed.

        Yields None when nothing came for `beat` seconds.
        """
        while True:
            fresh, ended = self._wait(after, beat)
            for number, item in fresh:
                after = number
                yield item
            if ended:
                return
            if not fresh:
                yield None

    def _wait(self, after: int, beat: float) -> tuple[list[tuple[int, T]], bool]:
        with self._changed:
            self._changed.wait_for(lambda: self._number > after or self._closed, timeout=beat)
            fresh = list(takewhile(lambda entry: entry[0] > after, reversed(self._items)))
            return fresh[::-1], self._closed


def _call(watchers: list[Callable[[], None]]) -> None:
    for wake in watchers:
        wake()
