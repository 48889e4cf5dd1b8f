"""Responses that live as long as something else does: a feed of events, or a job that answers.

They wait in the event loop, and no thread waits with them: a thousand silent streams cost a thousand small objects.
Clean-up sits in a response's `__call__` and never in a generator, because an abandoned generator is closed by the
garbage collector, seconds later. A client that goes away therefore stops its job at once, also while it is silent.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

import anyio
import anyio.to_thread
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from millm.jobs import Job

T = TypeVar("T")
Failure = Callable[[BaseException], Response]
"""Turns what a job failed with into a whole response."""
Watch = Callable[[Callable[[], None]], Callable[[], None]]
"""Lets a function be called whenever there is something new, on any thread; what it returns ends that."""

PATIENCE_S = 5.0  # to wait for a job's first event before answering with status 200 all the same
HEARTBEAT_S = 5.0  # silence after which a comment line tells proxies that the stream is alive
COMMENT = b": still here\n\n"
MOST_AT_ONCE = 1 << 16  # bytes that are sent before others have their turn
SSE_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class Bell:
    """What a coroutine waits for and other threads ring."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wakes who waits; from any thread."""
        with suppress(RuntimeError):  # the loop is closed, so nobody waits
            self._loop.call_soon_threadsafe(self._rung.set)

    async def heard(self, seconds: float) -> bool:
        """Waits until somebody has rung since this was last asked; False if nobody does for so long."""
        with anyio.move_on_after(seconds):
            await self._rung.wait()
            self._rung.clear()
            return True
        return False


@contextmanager
def _bell(watch: Watch) -> Iterator[Bell]:
    bell = Bell()
    forget = watch(bell.ring)
    try:
        yield bell
    finally:
        forget()


class EventStream(StreamingResponse):
    """Server-sent events from an iterator of frames that never blocks: an empty frame says that there is none yet.

    Nothing is sent for that, or now and then a comment line. Frames that are ready together are sent together.
    """

    media_type = "text/event-stream"

    def __init__(self, frames: Iterable[bytes], watch: Watch, heartbeat_s: float = HEARTBEAT_S) -> None:
        """watch: of what the frames tell. heartbeat_s: seconds of silence before a comment line is sent."""
        super().__init__((), headers=SSE_HEADERS)
        self._frames, self._watch, self._heartbeat_s = iter(frames), watch, heartbeat_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI's own)
        """Streams until the frames end or the client is gone, whichever is first."""
        with _bell(self._watch) as bell:
            await _unless_gone(receive, lambda: self.stream(send, bell))

    async def stream(self, send: Send, bell: Bell) -> None:
        """Sends head and frames."""
        self.body_iterator = self._sent(bell)
        await self.stream_response(send)

    async def _sent(self, bell: Bell) -> AsyncIterator[bytes]:
        over, last = False, time.monotonic()
        while not over:
            ready, over = self._ready()
            if not (ready or over or await bell.heard(last + self._heartbeat_s - time.monotonic())):
                ready = COMMENT
            if ready:
                last = time.monotonic()
                yield ready

    def _ready(self) -> tuple[bytes, bool]:
        """The frames that can be sent now, and whether they are the last."""
        ready = b""
        for frame in self._frames:
            ready += frame
            if not frame or len(ready) >= MOST_AT_ONCE:
                return ready, False
        return ready, True


class JobStream(EventStream, Generic[T]):
    """The answer of a job as it comes; a job that failed before its first event is answered with `failure`."""

    def __init__(self, job: Job[T], frames: Iterable[bytes], failure: Failure) -> None:
        super().__init__(frames, job.watch)
        self._job, self._failure = job, failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the job ends or the client is gone, which stops the job."""

        async def stream() -> None:
            error = await _early_error(self._job, bell)
            if error is None:
                await self.stream(send, bell)
            else:
                await self._failure(error)(scope, receive, send)

        try:
            with _bell(self._watch) as bell:
                await _unless_gone(receive, stream, self._job.cancel)
        finally:
            self._job.cancel()


class JobAnswer(Response, Generic[T]):
    """The whole answer of a job, once it is there."""

    def __init__(self, job: Job[T], answer: Callable[[T], Response], failure: Failure) -> None:
        super().__init__()
        self._job, self._answer, self._failure = job, answer, failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Waits until the job ends or the client is gone, which stops the job."""

        async def respond() -> None:
            while not self._job.done:
                await bell.heard(math.inf)
            response = await anyio.to_thread.run_sync(self._written)  # thousands of embeddings take a while
            await response(scope, receive, send)

        try:
            with _bell(self._job.watch) as bell:
                await _unless_gone(receive, respond, self._job.cancel)
        finally:
            self._job.cancel()

    def _written(self) -> Response:
        error = self._job.error
        return self._failure(error) if error else self._answer(self._job.result())


async def _unless_gone(
    receive: Receive, work: Callable[[], Awaitable[None]], on_gone: Callable[[], None] = lambda: None
) -> None:
    """Does `work`, but stops it, after `on_gone`, once the client has left. The request's body must be read."""
    async with anyio.create_task_group() as tasks:

        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            on_gone()
            tasks.cancel_scope.cancel()

        tasks.start_soon(listen)
        await work()
        tasks.cancel_scope.cancel()


async def _early_error(job: Job[T], bell: Bell) -> BaseException | None:
    """What a job failed with before its first event; None as soon as it has one, or when it takes long."""
    with anyio.move_on_after(PATIENCE_S):
        while job.latest is None and not job.done:
            await bell.heard(math.inf)
    return job.error if job.latest is None else None
