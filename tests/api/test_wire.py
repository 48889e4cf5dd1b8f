"""The status of every error, both error shapes, and what JSON and event frames may hold."""

import json
import logging

import pytest
from starlette.responses import Response

from millm import errors
from millm.api.wire import (
    STATUSES,
    encode,
    failure,
    failure_for,
    frame,
    openai_failure,
    refusal_for,
    status_of,
    success,
)
from millm.errors import Cancelled, MiLLMError

# Section 7 of the specification.
PROMISED = {
    "MODEL_NOT_FOUND": 404,
    "MODEL_ALREADY_EXISTS": 409,
    "MODEL_DOWNLOAD_FAILED": 502,
    "MODEL_LOAD_FAILED": 500,
    "MODEL_ALREADY_LOADED": 400,
    "MODEL_NOT_LOADED": 400,
    "MODEL_LOADED": 409,
    "MODEL_BUSY": 409,
    "CHECKSUM_MISMATCH": 502,
    "UNSUPPORTED_MODEL": 422,
    "REMOTE_CODE_REQUIRED": 403,
    "VALIDATION_ERROR": 422,
    "INSUFFICIENT_MEMORY": 507,
    "INSUFFICIENT_DISK": 507,
    "INVALID_REPO_ID": 400,
    "INVALID_LOCAL_PATH": 400,
    "REPO_NOT_FOUND": 404,
    "REVISION_NOT_FOUND": 404,
    "GATED_MODEL_NO_TOKEN": 401,
    "INVALID_HF_TOKEN": 401,
    "HUB_UNAVAILABLE": 503,
    "QUEUE_FULL": 503,
    "CONTEXT_LENGTH_EXCEEDED": 400,
    "INTERNAL_ERROR": 500,
}


def with_codes(kind: type[MiLLMError] = MiLLMError) -> list[type[MiLLMError]]:
    own = [kind] if "code" in vars(kind) and kind is not MiLLMError else []
    return own + [found for child in kind.__subclasses__() for found in with_codes(child)]


def body(response: Response) -> dict[str, object]:
    return dict(json.loads(bytes(response.body)))


@pytest.mark.parametrize("kind", with_codes(), ids=lambda kind: kind.code)
def test_every_error_has_a_status_and_the_promised_one(kind: type[MiLLMError]) -> None:
    assert kind in STATUSES
    assert STATUSES[kind] == PROMISED.get(kind.code, STATUSES[kind])


def test_every_promised_code_exists() -> None:
    assert PROMISED.keys() <= {kind.code for kind in with_codes()}


def test_an_error_class_without_a_row_takes_the_one_of_its_parent() -> None:
    class StillBusier(errors.ModelBusy):
        pass

    assert status_of(StillBusier("x")) == 409
    assert status_of(MiLLMError("x")) == 500


def test_the_envelope_of_success_and_of_failure() -> None:
    assert body(success({"id": 1})) == {"success": True, "data": {"id": 1}, "error": None}
    failed = failure(errors.ModelBusy("A load is running.", id=7))
    assert failed.status_code == 409
    assert body(failed) == {
        "success": False,
        "data": None,
        "error": {"code": "MODEL_BUSY", "message": "A load is running.", "details": {"id": 7}},
    }


@pytest.mark.parametrize(
    ("error", "status", "code", "kind"),
    [
        (errors.ModelNotFound("no"), 404, "model_not_found", "invalid_request_error"),
        (errors.ContextLengthExceeded("no"), 400, "context_length_exceeded", "invalid_request_error"),
        (errors.InvalidRequest("no"), 400, "invalid_value", "invalid_request_error"),
        (errors.ModelNotLoaded("no"), 503, "model_not_loaded", "server_error"),
        (errors.QueueFull("no"), 503, "queue_full", "server_error"),
        (errors.LoadFailed("no"), 500, "model_load_failed", "server_error"),
    ],
)
def test_errors_in_the_shape_of_openai(error: MiLLMError, status: int, code: str, kind: str) -> None:
    response = openai_failure(error)
    assert response.status_code == status
    assert body(response) == {"error": {"message": "no", "type": kind, "param": None, "code": code}}


def test_a_full_queue_says_when_to_come_back() -> None:
    for response in (failure(errors.QueueFull("x")), openai_failure(errors.QueueFull("x"))):
        assert int(response.headers["retry-after"]) >= 1
    assert "retry-after" not in failure(errors.HubUnavailable("x")).headers


def test_a_bug_is_logged_under_an_id_and_its_text_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        response = failure(KeyError("/home/somebody/secret"))
    assert response.status_code == 500
    error = body(response)["error"]
    assert isinstance(error, dict)
    assert "secret" not in json.dumps(error)
    assert error["details"]["id"] in caplog.text
    assert "/home/somebody/secret" in caplog.text


def test_an_answer_that_was_cancelled_is_the_servers_doing() -> None:
    assert openai_failure(Cancelled()).status_code == 503


def test_the_path_decides_the_shape() -> None:
    assert "error" in body(failure_for("/v1/models", errors.ModelNotFound("x")))
    assert "success" not in body(refusal_for("/v1", 404, "not_found", "x"))
    for path in ("/api/models", "/v1x", "/"):
        assert body(refusal_for(path, 404, "not_found", "x"))["error"] == {
            "code": "NOT_FOUND",
            "message": "x",
            "details": {},
        }


def test_json_of_whatever_a_strangers_config_holds() -> None:
    strange = {"time_step_limit": [0.0, float("inf")], "huge": 2**70, "half": "\ud83d", 3: True, "absurd": 10**400}
    read = json.loads(encode(strange))
    assert read == {"time_step_limit": [0.0, None], "huge": 2.0**70, "half": "?", "3": True, "absurd": None}


def test_json_of_a_config_that_is_nested_without_end() -> None:
    nest: list[object] = []
    for _ in range(500):
        nest = [nest]
    read = json.loads(encode({"config": nest, "name": "x"}))
    assert read["name"] == "x"


def test_a_frame_is_one_event_whatever_the_text_is() -> None:
    text = 'two\nlines\r\n\r\ndata: "quoted" \u2028'
    sent = frame({"text": text}, "model:changed").decode()
    assert sent.startswith("event: model:changed\ndata: ")
    assert sent.endswith("\n\n")
    assert sent.strip().count("\n") == 1
    assert "\r" not in sent
    assert json.loads(sent.split("data: ", 1)[1]) == {"text": text}
