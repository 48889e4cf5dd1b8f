"""Gradio's queue of events, woken when one comes in.

By itself it looks for events a thousand times a second, which takes 6 % of a core with nobody there.
"""

import asyncio
from typing import Any

SLOTS = 64
LOOK_S = 0.01  # between two looks at events for which there is no free place yet
PROGRESS_S = 0.25  # between two looks for gr.Progress, which this page does not use


class Woken:
    """Mixed into gradio's queue: the task that looks for events waits at the lock until there are some."""

    _looking: "asyncio.Task[None] | None" = None
    _came: asyncio.Event

    async def start_processing(self) -> None:
        """Looks for events until the queue is closed."""
        self._looking, self._came = asyncio.current_task(), asyncio.Event()
        await super().start_processing()  # type: ignore[misc]

    async def push(self, *event: Any, **more: Any) -> Any:
        """Adds an event."""
        pushed = await super().push(*event, **more)  # type: ignore[misc]
        if self._looking:
            self._came.set()
        return pushed

    def __len__(self) -> int:
        """How many events wait; for the task that looks for them at least one, or it would sleep instead."""
        waiting: int = super().__len__()  # type: ignore[misc]
        return waiting or int(self.looks())

    def looks(self) -> bool:
        """Whether it is the task that looks for events which asks."""
        return self._looking is not None and asyncio.current_task() is self._looking

    async def come(self) -> None:
        """Waits until there are events."""
        while not super().__len__():  # type: ignore[misc]
            self._came.clear()
            await self._came.wait()


class Gate(asyncio.Lock):
    """The lock of a queue, which lets the task that looks for events in when there are some."""

    def __init__(self, queue: Woken) -> None:
        super().__init__()
        self._queue = queue

    async def acquire(self) -> Any:
        """Takes the lock."""
        if self._queue.looks():
            await self._queue.come()
        return await super().acquire()


def tune(page: Any) -> None:
    """Makes the queue of a `gr.Blocks` cost little. What that goes by is private; without it events still arrive."""
    page.queue(default_concurrency_limit=None, max_size=SLOTS)
    queue: Any = getattr(page, "_queue", None)
    if not hasattr(queue, "sleep_when_free"):
        return
    queue.sleep_when_free, queue.progress_update_sleep_when_free = LOOK_S, PROGRESS_S
    if hasattr(queue, "delete_lock") and hasattr(queue, "push"):
        kind = type(queue)
        queue.__class__ = type(kind.__name__, (Woken, kind), {})
        queue.delete_lock = Gate(queue)
