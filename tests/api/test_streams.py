"""A client that goes away stops its job, at once, whatever the job is doing; a silent stream shows that it lives."""

import asyncio
import contextlib
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from running import PATIENCE_S
from serving import call, until
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message

from millm.api.streams import EventStream, JobAnswer, JobStream
from millm.errors import Cancelled, MiLLMError
from millm.events import Event, Stage
from millm.feed import BEAT, Feed
from millm.jobs import Job

Serve = Callable[[ASGIApp], str]
AT_ONCE = 0.5
LENT_THREADS = 40  # that starlette has for plain functions


def job_app(job: Job[str]) -> FastAPI:
    """An app that streams a job at /stream and waits for it at /whole."""
    app = FastAPI()

    def failed(error: BaseException) -> Response:
        return PlainTextResponse(f"failed: {error}", 418)

    def frames() -> Iterator[bytes]:
        for event in job.events(beat=0):
            yield event.text.encode() if event else b""
        yield f"end: {job.error or job.result()}".encode()

    app.get("/stream")(lambda: JobStream(job, frames(), failed))
    app.get("/whole")(lambda: JobAnswer(job, PlainTextResponse, failed))
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
    app, silent = FastAPI(), Feed[bytes]()
    frames = [b"data: 1\n\n", b"", b"", b"data: 2\n\n"]
    app.get("/stream")(lambda: EventStream(frames, silent.watch, heartbeat_s=0))
    answer = TestClient(app).get("/stream")
    assert answer.text == "data: 1\n\n: still here\n\ndata: 2\n\n"
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"


def test_a_stream_lives_also_while_its_feed_talks_to_others() -> None:
    app, feed = FastAPI(), Feed[bytes]()
    app.get("/stream")(lambda: EventStream((item or b"" for item in feed.read(beat=0)), feed.watch, heartbeat_s=0.3))
    for tenths in range(1, 10):
        threading.Timer(0.1 * tenths, feed.push, [b"" if tenths < 9 else b"data: 1\n\n"]).start()
    threading.Timer(1, feed.close).start()
    said = TestClient(app).get("/stream").text
    assert said.startswith(": still here\n\n")
    assert said.endswith("data: 1\n\n")


def test_frames_that_are_ready_together_are_sent_together_but_not_without_end() -> None:
    bodies: list[bytes] = []

    async def collect(message: Message) -> None:
        bodies.append(message.get("body", b""))

    async def stream() -> None:
        await EventStream([b"x" * 30_000] * 5, Feed[bytes]().watch)({"type": "http"}, asyncio.Event().wait, collect)

    asyncio.run(stream())
    assert [len(body) for body in bodies] == [0, 90_000, 60_000, 0]


@pytest.mark.slow
def test_silent_streams_take_no_threads_and_all_hear_at_once(serve: Serve) -> None:
    app, feed = FastAPI(), Feed[bytes]()
    app.get("/stream")(lambda: EventStream((item or b"" for item in feed.read(beat=0)), feed.watch))
    url = serve(app)
    before = threading.active_count()
    streams = [call(url, "/stream") for _ in range(300)]
    for stream in streams:
        assert b"200 OK" in stream.recv(64)
    assert threading.active_count() <= before + LENT_THREADS
    feed.push(b"data: now\n\n")
    feed.close()
    for stream in streams:
        assert b"data: now" in rest_of(stream)


@pytest.mark.slow
def test_whole_answers_that_are_waited_for_leave_plain_functions_their_threads(serve: Serve) -> None:
    job: Job[str] = Job()
    job.begin()
    app = job_app(job)
    app.get("/plain")(lambda: PlainTextResponse("here"))
    url = serve(app)
    waiting = [call(url, "/whole") for _ in range(2 * LENT_THREADS)]
    assert httpx.get(f"{url}/plain", timeout=PATIENCE_S).text == "here"
    job.finish("the answer")
    for each in waiting:
        with each.makefile("rb") as lines:
            assert b"200 OK" in lines.readline()
        each.close()


def rest_of(connection: socket.socket) -> bytes:
    """All that a connection says until its answer is over."""
    said = b""
    while not said.endswith(b"0\r\n\r\n"):
        said += connection.recv(4096)
    connection.close()
    return said
