"""Every answer and every log line of a request has its id."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import httpx
import pytest
from asking import HELLO, Make, chat, holding
from fakes import FakeEngine
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from millm.api import GuardPolicy, create_app
from millm.api.request_id import RequestId
from millm.engines.base import ChatRequest, Completion
from millm.events import Report
from millm.logs import REQUEST_ID, JsonFormatter
from millm.manager import Manager

GIVEN = "req_0a-9.Z:/+=@"


class Broken(FakeEngine):
    """Has a bug: at once, or after the first words where the prompt asks for that."""

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        if len(request.messages) > 1:
            super().chat(request, report)
        raise ZeroDivisionError("a bug")


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What miLLM logs, as JSON."""
    told: list[dict[str, Any]] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(json.loads(self.format(record)))

    keeper, log = Keeper(), logging.getLogger("millm")
    keeper.setFormatter(JsonFormatter())
    level = log.level
    log.addHandler(keeper)
    log.setLevel(logging.INFO)
    yield told
    log.removeHandler(keeper)
    log.setLevel(level)


@pytest.mark.parametrize("given", [GIVEN, "a", "b" * 128])
def test_a_clients_own_id_is_taken_over(client: TestClient, given: str) -> None:
    assert client.get("/health", headers={"x-request-id": given}).headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"c" * 129, b"two words", b'<b>"', b"\xc3\xa4", b"a;b", b"a\tb", b"a\x85b"])
def test_what_could_do_harm_is_replaced(client: TestClient, given: bytes) -> None:
    answer = client.get("/health", headers=[(b"x-request-id", given)])
    assert answer.headers["x-request-id"].encode() != given
    assert len(answer.headers["x-request-id"]) == 32


def test_every_answer_has_an_id_of_its_own(manager: Manager) -> None:
    client = TestClient(create_app(manager, GuardPolicy(api_key="k")), base_url="http://localhost")
    answers = [
        *(client.get("/health") for _ in range(2)),
        client.get("/v1/models"),
        client.get("/", headers={"host": "x"}),
        client.post("/v1/x", headers={"authorization": "Bearer k"}),
        client.post("/v1/completions", headers={"content-length": str(33 * 1024**2)}),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 401, 400, 404, 413]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
    assert all(len(answer.headers.get_list("x-request-id")) == 1 for answer in answers)


def test_a_refused_request_is_logged_under_its_id_in_one_line(make: Make, lines: list[dict[str, Any]]) -> None:
    _, client = holding(make, FakeEngine())
    lines.clear()
    answer = client.post("/v1/completions", json={"model": "a\nb", "prompt": "x"}, headers={"x-request-id": GIVEN})
    assert answer.status_code == 404
    (line,) = lines
    assert line["request_id"] == GIVEN
    assert "MODEL_NOT_FOUND" in line["message"]
    assert "\n" not in line["message"]


@pytest.mark.parametrize("path", ["/v1/completions", "/api/models"])
def test_so_is_one_that_is_not_understood_and_its_line_is_short(
    client: TestClient, lines: list[dict[str, Any]], path: str
) -> None:
    answer = client.post(path, json={"x" * 10_000: "secret"}, headers={"x-request-id": GIVEN})
    assert answer.status_code in (400, 422)
    (line,) = lines
    assert (line["request_id"], line["message"].split()[:3]) == (GIVEN, ["request", "failed:", "VALIDATION_ERROR"])
    assert len(line["message"]) < 600
    assert "secret" not in line["message"]


@pytest.mark.parametrize(("stream", "turns"), [(False, 1), (True, 1), (True, 2)])
def test_a_bug_is_logged_under_the_id_of_its_request(
    make: Make, lines: list[dict[str, Any]], stream: bool, turns: int
) -> None:
    """Also where the answer has begun: then there is no other place to look for it."""
    _, client = holding(make, Broken())
    lines.clear()
    answer = client.post(
        "/v1/chat/completions",
        json={"model": "tiny", "messages": HELLO * turns, "stream": stream},
        headers={"x-request-id": GIVEN},
    )
    assert answer.status_code == (200 if turns > 1 else 500)
    (line,) = lines
    assert line["request_id"] == GIVEN == answer.headers["x-request-id"]
    assert "ZeroDivisionError" in line["traceback"]
    assert line["message"].split()[1].rstrip(":") in answer.text  # the bug's own id


def test_an_answer_that_works_is_not_logged(make: Make, lines: list[dict[str, Any]]) -> None:
    _, client = holding(make, FakeEngine())
    lines.clear()
    assert chat(client).status_code == 200
    assert lines == []


def test_no_id_is_left_behind() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(REQUEST_ID.get())

    async def ask() -> str:
        scope = {"type": "http", "headers": [(b"x-request-id", b"r-1")]}
        await RequestId(app)(scope, None, None)  # type: ignore[arg-type]
        return REQUEST_ID.get()

    assert anyio.run(ask) == ""
    assert seen == ["r-1"]


@pytest.mark.slow
def test_streams_are_not_held_back(serve: Callable[[ASGIApp], str]) -> None:
    """The second part is only made when the first one has arrived."""
    arrived: list[bytes] = []
    app = FastAPI()

    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        with anyio.fail_after(5):
            while not arrived:
                await anyio.sleep(0.005)
        yield b"second"

    app.get("/")(lambda: StreamingResponse(parts()))
    app.add_middleware(RequestId)
    with httpx.stream("GET", serve(app)) as answer:
        assert answer.headers["x-request-id"]
        for part in answer.iter_raw():
            arrived.append(part)
    assert arrived == [b"first", b"second"]
