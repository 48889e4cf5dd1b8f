"""A client that goes away stops its job, at once, whatever the job is doing; a silent stream shows that it lives."""

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Iterator

import anyio
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from serving import call, until
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from millm.api.streams import EventStream, JobAnswer, JobStream
from millm.errors import Cancelled, MiLLMError
from millm.events import Event, Stage
from millm.jobs import BEAT, Job

Serve = Callable[[ASGIApp], str]
AT_ONCE = 0.5


def job_app(job: Job[str]) -> FastAPI:
    """An app that streams a job at /stream and waits for it at /whole."""
    app = FastAPI()
    threads = anyio.CapacityLimiter(10)

    def failed(error: BaseException) -> Response:
        return PlainTextResponse(f"failed: {error}", 418)

    def frames() -> Iterator[bytes]:
        for event in job.events():
            yield event.text.encode() if event else b""
        yield f"end: {job.error or job.result()}".encode()

    app.get("/stream")(lambda: JobStream(job, frames(), failed, threads))
    app.get("/whole")(lambda: JobAnswer(job, PlainTextResponse, failed, threads))
    return app


def talk(job: Job[str]) -> None:
    with contextlib.suppress(Cancelled):
        while True:
            job.report(Event(Stage.GENERATING, text="word "))
            time.sleep(0.01)


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    """Without it, an abandoned generator is never closed: clean-up must not sit in one."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/stream", "/whole"])
@pytest.mark.usefixtures("no_garbage_collector")
def test_hanging_up_stops_a_job_that_talks(serve: Serve, path: str) -> None:
    job: Job[str] = Job()
    job.begin()
    talking = threading.Thread(target=talk, args=(job,))
    connection = call(serve(job_app(job)), path)
    talking.start()
    if path == "/stream":
        assert b"200 OK" in connection.recv(64)
    until(lambda: job.latest and job.latest.text)
    connection.close()
    assert until(lambda: job.cancelling) < AT_ONCE
    talking.join()
    job.fail(MiLLMError("over"))


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/stream", "/whole"])
@pytest.mark.parametrize("spoken", [True, False])
@pytest.mark.usefixtures("no_garbage_collector")
def test_hanging_up_stops_a_job_that_is_silent(serve: Serve, path: str, spoken: bool) -> None:
    job: Job[str] = Job()
    job.begin()
    if spoken:
        job.report(Event(Stage.GENERATING, text="one word"))
    connection = call(serve(job_app(job)), path)
    if path == "/stream" and spoken:
        assert b"200 OK" in connection.recv(64)
    time.sleep(0.2)
    assert not job.cancelling
    connection.close()
    assert until(lambda: job.cancelling) < AT_ONCE
    job.fail(MiLLMError("over"))


def test_a_job_that_ends_is_answered() -> None:
    for path, text in (("/stream", "hi end: done"), ("/whole", "done")):
        job: Job[str] = Job()
        job.begin()
        job.report(Event(Stage.GENERATING, text="hi "))
        job.finish("done")
        assert TestClient(job_app(job)).get(path).text == text


def test_a_job_that_fails_before_its_first_event_has_a_status_of_its_own() -> None:
    for path in ("/stream", "/whole"):
        job: Job[str] = Job()
        job.begin()
        job.fail(MiLLMError("too long"))
        answer = TestClient(job_app(job)).get(path)
        assert (answer.status_code, answer.text) == (418, "failed: too long")


def test_a_job_may_think_before_it_fails() -> None:
    """A prompt that is too long is found out only after some silent beats; then there is still a status to give."""
    job: Job[str] = Job()
    job.begin()
    thinking = threading.Timer(1.2 * BEAT, lambda: job.fail(MiLLMError("too long")))
    thinking.start()
    assert TestClient(job_app(job)).get("/stream").status_code == 418
    thinking.join()


def test_a_job_that_fails_later_says_so_at_the_end_of_its_stream() -> None:
    job: Job[str] = Job()
    job.begin()
    job.report(Event(Stage.GENERATING, text="hi "))
    job.fail(MiLLMError("broken"))
    answer = TestClient(job_app(job)).get("/stream")
    assert (answer.status_code, answer.text) == (200, "hi end: broken")


def test_a_silent_stream_sends_comment_lines_and_no_empty_frames() -> None:
    app = FastAPI()
    frames = [b"data: 1\n\n", b"", b"", b"data: 2\n\n"]
    threads = anyio.CapacityLimiter(1)
    app.get("/chatty")(lambda: EventStream(frames, threads, heartbeat_s=0))
    app.get("/quiet")(lambda: EventStream(frames, threads, heartbeat_s=9))
    client = TestClient(app)
    assert client.get("/chatty").text == "data: 1\n\n: still here\n\n: still here\n\ndata: 2\n\n"
    answer = client.get("/quiet")
    assert answer.text == "data: 1\n\ndata: 2\n\n"
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.slow
def test_waiting_streams_leave_the_threads_of_other_routes_alone(serve: Serve) -> None:
    app = FastAPI()
    threads = anyio.CapacityLimiter(60)
    go_on = threading.Event()

    def frames() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        go_on.wait(10)

    app.get("/stream")(lambda: EventStream(frames(), threads))
    app.get("/plain")(lambda: PlainTextResponse("here"))
    url = serve(app)
    streams = [call(url, "/stream") for _ in range(50)]
    for stream in streams:
        assert b"200 OK" in stream.recv(64)
    until(lambda: threads.borrowed_tokens == 50)
    started = time.monotonic()
    plain = call(url, "/plain")
    assert b"200 OK" in plain.recv(64)
    assert time.monotonic() - started < 1
    go_on.set()
    for connection in (*streams, plain):
        connection.close()
