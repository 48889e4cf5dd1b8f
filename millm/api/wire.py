"""What goes over the wire: the status of every error, both error shapes, and server-sent events."""

import logging
from typing import Any

import orjson
from starlette.responses import Response

from millm import errors
from millm.errors import Cancelled, MiLLMError, explain

log = logging.getLogger(__name__)

STATUSES: dict[type[MiLLMError], int] = {
    errors.InvalidRequest: 422,
    errors.InvalidRepoId: 400,
    errors.InvalidLocalPath: 400,
    errors.InvalidUrl: 400,
    errors.ContextLengthExceeded: 400,
    errors.ModelNotFound: 404,
    errors.ModelAlreadyExists: 409,
    errors.ModelAlreadyLoaded: 400,
    errors.ModelNotLoaded: 400,
    errors.ModelIsLoaded: 409,
    errors.ModelBusy: 409,
    errors.QueueFull: 503,
    errors.DownloadFailed: 502,
    errors.ChecksumMismatch: 502,
    errors.RepoNotFound: 404,
    errors.RevisionNotFound: 404,
    errors.GatedModel: 401,
    errors.InvalidToken: 401,
    errors.HubUnavailable: 503,
    errors.OllamaUnavailable: 503,
    errors.RemoteUnavailable: 503,
    errors.InsufficientDisk: 507,
    errors.InsufficientMemory: 507,
    errors.LoadFailed: 500,
    errors.UnsupportedModel: 422,
    errors.RemoteCodeRequired: 403,
    errors.StartupError: 500,
    errors.InternalError: 500,
}

# Where OpenAI's API answers with another status or another name than the management API.
OPENAI_STATUSES: dict[type[MiLLMError], int] = {errors.InvalidRequest: 400, errors.ModelNotLoaded: 503}
OPENAI_CODES: dict[type[MiLLMError], str] = {
    errors.InvalidRequest: "invalid_value",
    errors.ModelNotFound: "model_not_found",
    errors.ContextLengthExceeded: "context_length_exceeded",
}

MAX_BODY_BYTES = 32 * 1024**2
MAX_DEPTH = 100  # of JSON that had to be mended
MOST_LOGGED = 500  # characters of a message
RETRY_AFTER_S = 2  # what a client refused by a full queue is told to wait


def status_of(error: MiLLMError, *tables: dict[type[MiLLMError], int]) -> int:
    """The HTTP status of an error; the first table that knows its class, or one it inherits from, decides."""
    known = (table[kind] for table in (*tables, STATUSES) for kind in type(error).__mro__ if kind in table)
    return next(known, 500)


def encode(value: object) -> bytes:
    """JSON of plain values. What JSON cannot hold becomes null, as JavaScript does it with such numbers."""
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        # A stranger's config.json: an integer past 64 bits, half a surrogate pair, or a nest without end.
        return orjson.dumps(_within_json(value, MAX_DEPTH), option=orjson.OPT_NON_STR_KEYS)


def _within_json(value: Any, depth: int) -> Any:
    if isinstance(value, dict | list | tuple) and depth == 0:
        return None
    if isinstance(value, dict):
        return {_within_json(key, 1): _within_json(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_within_json(item, depth - 1) for item in value]
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, int) and value.bit_length() > 63:
        return float(value) if value.bit_length() < 1024 else None
    return value


class Json(Response):
    """A response that holds plain values as JSON."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Encodes the values."""
        return encode(content)


def success(data: object, status: int = 200) -> Response:
    """The envelope of the management API around what was asked for."""
    return Json({"success": True, "data": data, "error": None}, status)


def error_body(error: MiLLMError) -> dict[str, object]:
    """An error as the management API and its events show it."""
    return {"code": error.code, "message": error.message, "details": error.details}


def failure(error: BaseException) -> Response:
    """The envelope of the management API around an error."""
    known = in_words(error)
    return refusal(status_of(known), known.code, known.message, known.details)


def refusal(status: int, code: str, message: str, details: object = None) -> Response:
    """The envelope around a refusal that no `MiLLMError` stands for: a wrong path, a missing key."""
    shown = {"code": code, "message": message, "details": details or {}}
    return Json({"success": False, "data": None, "error": shown}, status, _retry_after(status, code))


def openai_error_body(error: MiLLMError) -> dict[str, object]:
    """An error in OpenAI's shape."""
    status = status_of(error, OPENAI_STATUSES)
    code = OPENAI_CODES.get(type(error), error.code.lower())
    return _openai_shape(status, code, error.message, error.details.get("field"))


def openai_failure(error: BaseException) -> Response:
    """The response to a failed request under /v1."""
    known = in_words(error)
    status = status_of(known, OPENAI_STATUSES)
    return Json(openai_error_body(known), status, _retry_after(status, known.code))


def openai_refusal(status: int, code: str, message: str, param: str | None = None) -> Response:
    """The response under /v1 to what no `MiLLMError` stands for."""
    return Json(_openai_shape(status, code, message, param), status)


def refusal_for(path: str, status: int, code: str, message: str) -> Response:
    """A refusal in the shape that clients of this path understand."""
    if under(path, "/v1"):
        return openai_refusal(status, code, message)
    return refusal(status, code.upper(), message)


def too_large(path: str) -> Response:
    """The answer to a request with more than `MAX_BODY_BYTES`."""
    sentence = f"The request is larger than {MAX_BODY_BYTES // 1024**2} MiB."
    return refusal_for(path, 413, "request_too_large", sentence)


def failure_for(path: str, error: BaseException) -> Response:
    """An error in the shape that clients of this path understand."""
    return openai_failure(error) if under(path, "/v1") else failure(error)


def under(path: str, root: str) -> bool:
    """Whether a path is `root` or lies below it."""
    return path == root or path.startswith(f"{root}/")


def in_words(error: BaseException) -> MiLLMError:
    """The error to show: itself, what a cancelled answer means to its client, or a bug. What failed is logged."""
    if isinstance(error, Cancelled):
        return errors.ModelNotLoaded("The answer was stopped: the model is being unloaded or miLLM is shutting down.")
    known = explain(error)
    if known is error:
        log_failure(known.code, known.message)
    return known


def log_failure(code: str, message: str) -> None:
    """Logs, in one line, why a request failed. What clients sent may be part of the message."""
    log.info("request failed: %s %r", code, message[:MOST_LOGGED])


def _openai_shape(status: int, code: str, message: str, param: object) -> dict[str, object]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _retry_after(status: int, code: str) -> dict[str, str] | None:
    return {"retry-after": str(RETRY_AFTER_S)} if status == 503 and code == errors.QueueFull.code else None


def frame(data: object, event: str | None = None) -> bytes:
    """One server-sent event. JSON holds no line breaks, so no text can end the frame early."""
    name = b"" if event is None else b"event: " + event.encode() + b"\n"
    return name + b"data: " + encode(data) + b"\n\n"
