"""Event loops that a thread runs for itself, and ends as soon as it likes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
TICK_S = 0.25  # between two looks at whether a silent request was cancelled


async def attend(stream: AsyncIterator[T], hear: Callable[[T], None], tick: Callable[[], None]) -> None:
    """Hands on what a stream brings, and calls `tick` whenever it is silent; what either raises ends it at once."""
    heard: asyncio.Queue[T | None] = asyncio.Queue()

    async def receive() -> None:
        try:
            async for part in stream:
                heard.put_nowait(part)
        finally:
            heard.put_nowait(None)

    receiver = asyncio.create_task(receive())
    try:
        while True:
            try:
                part = await asyncio.wait_for(heard.get(), TICK_S)
            except TimeoutError:
                tick()
                continue
            if part is None:
                return await receiver
            hear(part)
    finally:
        receiver.cancel()
        await asyncio.gather(receiver, return_exceptions=True)


def in_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in a new event loop of the caller's thread.

    Unlike `asyncio.run`, it does not wait at the end for threads in the loop's executor: a name lookup that hangs
    there must not hold up a cancel.
    """
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())  # what a client left half read
        loop.close()


def within(seconds: float, work: Callable[[], T]) -> T:
    """Runs blocking work and returns what it returns, or raises TimeoutError and leaves it to end by itself."""

    async def wait() -> T:
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(None, work), seconds)

    return in_own_loop(wait())
