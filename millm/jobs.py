"""All threads: work runs on a `Lane`, says how far it is through `Job.report`, and ends with a result or an error.

Anybody reads a job's events, late or early, once or many times. Cancelling is a flag obeyed at the next report, on
the worker's own thread, so that `finally` in work is ordinary code.
"""

# ruff: noqa: TID251  (this is the home of threading and concurrent.futures)

import threading
import traceback
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

from millm.errors import Cancelled, QueueFull, explain
from millm.events import Event
from millm.feed import BEAT, Feed

T = TypeVar("T")


class Job(Generic[T]):
    """One long operation: its events so far, a way to cancel it, and its result.

    Its work runs on a lane, or in a machine with a loop of its own that calls `finish` or `fail`.
    `kind` and `subject` (a model id) say what it is about, for whoever lists jobs. `on_event(job, event)` hears
    every event; `on_end(job, error)` is called exactly once when the job ends in any way, before its result can
    be read; `error` is None after success.
    """

    def __init__(
        self,
        kind: str = "",
        subject: int = 0,
        on_event: Callable[["Job[T]", Event], None] | None = None,
        on_end: Callable[["Job[T]", BaseException | None], None] | None = None,
    ) -> None:
        self.id = uuid.uuid4().hex
        self.kind = kind
        self.subject = subject
        self.started = False
        self._on_event = on_event
        self._on_end = on_end
        self._feed: Feed[Event] = Feed()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._ended = False
        self._future: Future[T] = Future()

    @property
    def done(self) -> bool:
        """Whether the job ended, in any way, and its `on_end` has run."""
        return self._future.done()

    @property
    def cancelling(self) -> bool:
        """Whether somebody asked the job to stop."""
        return self._stop.is_set()

    @property
    def latest(self) -> Event | None:
        """The newest event."""
        return self._feed.newest

    @property
    def error(self) -> BaseException | None:
        """What the ended job failed with; None while it runs and when it succeeded."""
        return self._future.exception() if self._future.done() else None

    def report(self, event: Event) -> None:
        """Tells every reader how far the work is.

        Raises:
            Cancelled: the job was asked to stop.
        """
        self.check()
        self._feed.push(event, merge=event.replaces)
        if self._on_event:
            self._on_event(self, event)

    def check(self) -> None:
        """Raises `Cancelled` if the job was asked to stop."""
        if self._stop.is_set():
            raise Cancelled

    def events(self, beat: float = BEAT) -> Iterator[Event | None]:
        """Yields the job's events from the first, None for every silent beat, and ends with the job.

        The last word is `result()`: after the events it returns or raises at once.
        """
        return self._feed.read(beat=beat)

    def watch(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` after each event and after the end; see `Feed.watch`."""
        return self._feed.watch(wake)

    def cancel(self) -> None:
        """Asks the job to stop. One that has not begun ends here and now, on the caller's thread."""
        self._stop.set()
        with self._lock:
            waiting = not self.started
            self.started = True
        if waiting:
            self.fail(Cancelled())

    def result(self, timeout: float | None = None) -> T:
        """Waits for the end and returns what the work returned.

        Raises:
            TimeoutError: the job still runs after `timeout` seconds.
            BaseException: whatever the work raised, `Cancelled` among it.
        """
        return self._future.result(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end, `timeout` seconds at most; returns whether the job has ended."""
        return not wait([self._future], timeout).not_done

    def begin(self) -> bool:
        """Marks the job as running; False if it ended before it could begin."""
        with self._lock:
            first, self.started = not self.started, True
        return first

    def finish(self, value: T) -> None:
        """Ends the job with a result."""
        self._end(value, None)

    def fail(self, error: BaseException) -> None:
        """Ends the job with an error."""
        self._end(None, error)

    def _end(self, value: T | None, error: BaseException | None) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        if error is not None:
            forget_frames(error)
        try:
            if self._on_end:
                self._on_end(self, error)
        except Exception as bug:  # noqa: BLE001  (the job's own outcome must still reach its readers)
            explain(bug)
        if error is None:
            self._future.set_result(value)  # type: ignore[arg-type]
        else:
            self._future.set_exception(error)
        self._feed.close()


def forget_frames(error: BaseException | None) -> None:
    """Drops the local variables that an error's traceback keeps alive: half-loaded weights, open files."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class Lane:
    """A queue with `width` workers; width 1 means that two of its jobs never run at the same time.

    `limit` bounds the jobs waiting and running together; past it `submit` refuses.
    """

    def __init__(self, name: str, width: int = 1, limit: int | None = None) -> None:
        self.name = name
        self._limit = limit
        self._pool = ThreadPoolExecutor(width, thread_name_prefix=name)
        self._jobs: list[Job[Any]] = []
        self._closed = False
        self._lock = threading.Lock()

    @property
    def jobs(self) -> list[Job[Any]]:
        """The jobs waiting and running, oldest first."""
        with self._lock:
            return list(self._jobs)

    def submit(self, work: Callable[[Job[T]], T], job: Job[T] | None = None) -> Job[T]:
        """Queues `work`, which is called with its job on a worker's thread, and returns the job.

        Raises:
            QueueFull: `limit` jobs are in the lane already.
            Cancelled: the lane was closed.
        """
        job = job or Job()
        with self._lock:
            if self._closed:
                raise Cancelled
            if self._limit is not None and len(self._jobs) >= self._limit:
                raise QueueFull(f"Too many requests are waiting ({self._limit}). Try again shortly.")
            self._jobs.append(job)
            self._pool.submit(self._run, work, job)
        job._future.add_done_callback(lambda _: self._forget(job))
        return job

    def call(self, work: Callable[[], T]) -> T:
        """Runs `work` in this lane and waits for what it returns or raises."""
        return self.submit(lambda _: work()).result()

    def idle(self, timeout: float | None) -> bool:
        """Waits until the jobs now in the lane have ended; False if some still run after `timeout` seconds."""
        return not wait([job._future for job in self.jobs], timeout).not_done

    def close(self, timeout: float | None = None) -> bool:
        """Cancels every job and waits, `timeout` seconds at most, until the last one has stopped.

        Returns whether all of them did; the threads end with their work.
        """
        with self._lock:
            self._closed = True
        for job in self.jobs:
            job.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
        return self.idle(timeout)

    def _run(self, work: Callable[[Job[T]], T], job: Job[T]) -> None:
        if not job.begin():
            return
        try:
            job.finish(work(job))
        except BaseException as error:  # noqa: BLE001  (it reaches whoever reads the result)
            job.fail(error)

    def _forget(self, job: Job[T]) -> None:
        with self._lock:
            self._jobs.remove(job)
