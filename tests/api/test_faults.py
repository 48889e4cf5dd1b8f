"""Whatever goes wrong in a route is answered in the shape of its path; bugs are logged once, under an id."""

import logging
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException

from millm.api import GuardPolicy, create_app
from millm.api.faults import BugBoundary, add_fault_handlers
from millm.errors import ModelBusy
from millm.manager import Manager

MEBIBYTE = b" " * 1024**2


@pytest.fixture
def broken() -> TestClient:
    app = FastAPI()

    def bug() -> None:
        raise ZeroDivisionError("at /home/me")

    def busy() -> None:
        raise ModelBusy("A load is running.")

    def teapot() -> None:
        raise HTTPException(418, "Short and stout")

    for root in ("/v1", "/api"):
        app.get(f"{root}/bug")(bug)
        app.get(f"{root}/busy")(busy)
        app.get(f"{root}/teapot")(teapot)
    add_fault_handlers(app)
    app.add_middleware(BugBoundary)
    return TestClient(app)


def test_a_bug_is_logged_once_and_told_by_its_id(broken: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = broken.get("/api/bug")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == "INTERNAL_ERROR"
    assert "/home/me" not in answer.text
    (record,) = caplog.records
    assert error["details"]["id"] in record.getMessage()
    assert record.exc_info
    assert broken.get("/v1/bug").json()["error"]["code"] == "internal_error"


def test_known_errors_and_those_of_the_framework(broken: TestClient) -> None:
    assert broken.get("/api/busy").json()["error"]["code"] == "MODEL_BUSY"
    assert broken.get("/v1/busy").json()["error"]["code"] == "model_busy"
    assert broken.get("/v1/busy").status_code == 409
    answer = broken.get("/api/teapot")
    assert (answer.status_code, answer.json()["error"]["code"]) == (418, "IM_A_TEAPOT")
    assert answer.json()["error"]["message"] == "Short and stout."


@pytest.mark.parametrize(
    ("path", "code"), [("/api/models", "REQUEST_TOO_LARGE"), ("/v1/completions", "request_too_large")]
)
def test_a_body_without_a_length_is_cut_off(manager: Manager, path: str, code: str) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield MEBIBYTE

    client = TestClient(create_app(manager, GuardPolicy()), base_url="http://localhost")
    answer = client.post(path, content=endless(), headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == code
    assert "x-request-id" in answer.headers
