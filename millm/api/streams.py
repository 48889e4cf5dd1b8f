"""Responses that live as long as something else does: a feed of events, or a job that answers.

Clean-up sits in a response's `__call__` and never in a generator, because an abandoned generator is closed by the
garbage collector, seconds later. A client that goes away therefore stops its job at once, also while it is silent.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import Generic, TypeVar

import anyio
import anyio.to_thread
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from millm.jobs import Job

T = TypeVar("T")
Failure = Callable[[BaseException], Response]
"""Turns what a job failed with into a whole response."""

PATIENCE = 10  # beats to wait for a job's first event before answering with status 200 all the same
HEARTBEAT_S = 5.0  # silence after which a comment line tells proxies that the stream is alive
COMMENT = b": still here\n\n"
THREADS = 256  # streams that wait for their next event at the same time, apart from the threads of other routes
SSE_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class EventStream(StreamingResponse):
    """Server-sent events from an iterator of frames whose `next` blocks for a beat at most.

    An iterator yields an empty frame in a silent beat; nothing is sent for it, or now and then a comment line.
    """

    media_type = "text/event-stream"

    def __init__(
        self, frames: Iterable[bytes], threads: anyio.CapacityLimiter, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        """threads: waited on for frames. heartbeat_s: seconds of silence before a comment line is sent."""
        super().__init__(_pulled(iter(frames), threads, heartbeat_s), headers=SSE_HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI's own)
        """Streams until the frames end or the client is gone, whichever is first."""
        await _unless_gone(receive, lambda: self.stream_response(send))


class JobStream(EventStream, Generic[T]):
    """The answer of a job as it comes; a job that failed before its first event is answered with `failure`."""

    def __init__(
        self, job: Job[T], frames: Iterable[bytes], failure: Failure, threads: anyio.CapacityLimiter
    ) -> None:
        super().__init__(frames, threads)
        self._job, self._failure, self._threads = job, failure, threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams until the job ends or the client is gone, which stops the job."""

        async def stream() -> None:
            error = await anyio.to_thread.run_sync(_early_error, self._job, limiter=self._threads)
            if error is None:
                await self.stream_response(send)
            else:
                await self._failure(error)(scope, receive, send)

        try:
            await _unless_gone(receive, stream, self._job.cancel)
        finally:
            self._job.cancel()


class JobAnswer(Response, Generic[T]):
    """The whole answer of a job, once it is there."""

    def __init__(
        self, job: Job[T], answer: Callable[[T], Response], failure: Failure, threads: anyio.CapacityLimiter
    ) -> None:
        super().__init__()
        self._job, self._answer, self._failure, self._threads = job, answer, failure, threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Waits until the job ends or the client is gone, which stops the job."""

        async def respond() -> None:
            response = await anyio.to_thread.run_sync(self._written, limiter=self._threads)
            await response(scope, receive, send)

        try:
            await _unless_gone(receive, respond, self._job.cancel)
        finally:
            self._job.cancel()

    def _written(self) -> Response:
        """Waits for the end and writes it down, which takes a while for thousands of embeddings."""
        self._job.wait()
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


async def _pulled(
    frames: Iterator[bytes], threads: anyio.CapacityLimiter, heartbeat_s: float
) -> AsyncIterator[bytes]:
    sent = time.monotonic()
    while (frame := await anyio.to_thread.run_sync(_next, frames, limiter=threads)) is not None:
        if frame or time.monotonic() - sent >= heartbeat_s:
            sent = time.monotonic()
            yield frame or COMMENT


def _next(frames: Iterator[bytes]) -> bytes | None:
    return next(frames, None)


def _early_error(job: Job[T]) -> BaseException | None:
    """What a job failed with before its first event; None as soon as it has one, or when it takes long."""
    for beat, event in enumerate(job.events(), start=1):
        if event is not None or beat >= PATIENCE:
            return None
    return job.error
