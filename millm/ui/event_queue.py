"""Gradio's queue of events, woken when one comes in.

By itself it looks for events a thousand times a second, which takes 6 % of a core with nobody there.
"""

import asyncio
from typing import Any

SLOTS = 64
SLEEP_S = 0.25  # between two looks that no event asked for: each takes time from an answer that is being computed
LOOK_S = 0.01  # where it cannot be woken


class Woken:
    """Mixed into gradio's queue."""

    delete_lock: asyncio.Lock
    _looking: "asyncio.Task[None] | None" = None

    async def start_processing(self) -> None:
        """Looks for events until the queue is closed."""
        self._looking = asyncio.current_task()
        await super().start_processing()  # type: ignore[misc]

    async def push(self, *event: Any, **more: Any) -> Any:
        """Adds an event."""
        pushed = await super().push(*event, **more)  # type: ignore[misc]
        self._wake()
        return pushed

    def _wake(self) -> None:
        """Ends a sleep between two looks: all that a look waits for besides, and never long, is the lock."""
        waits_for = getattr(self._looking, "_fut_waiter", None)
        if waits_for and not waits_for.done() and not self.delete_lock.locked():
            waits_for.set_result(None)


def tune(page: Any) -> None:
    """Makes the queue of a `gr.Blocks` cost little. What that goes by is private; without it events still arrive."""
    page.queue(default_concurrency_limit=None, max_size=SLOTS)
    queue: Any = getattr(page, "_queue", None)
    if not hasattr(queue, "sleep_when_free"):
        return
    queue.progress_update_sleep_when_free = SLEEP_S  # looks for gr.Progress, which this page does not use
    queue.sleep_when_free = LOOK_S
    if hasattr(asyncio.Task, "_fut_waiter") and hasattr(queue, "delete_lock") and hasattr(queue, "push"):
        queue.sleep_when_free = SLEEP_S
        kind = type(queue)
        queue.__class__ = type(kind.__name__, (Woken, kind), {})
