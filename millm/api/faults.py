"""Whatever goes wrong in a route becomes an answer here, in the shape that clients of its path understand."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millm.api.wire import failure_for, openai_refusal, refusal, refusal_for, too_large, under
from millm.errors import InvalidRequest, MiLLMError

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
NOT_JSON = "the body must be a JSON object, sent with 'Content-Type: application/json'"


def add_fault_handlers(app: FastAPI) -> None:
    """Answers errors of every route, and paths that no route has. To be called after the routes were added."""
    app.add_exception_handler(MiLLMError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for root in ("/v1", "/api"):
        for path in (root, root + "/{path:path}"):
            app.add_api_route(path, _no_such_path, methods=METHODS, include_in_schema=False)


class BugBoundary:
    """ASGI middleware: a bug in a route is logged once, under an id, and the client is told the id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on and watches how it ends."""
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as bug:
            if scope["type"] != "http" or started:
                raise
            await failure_for(scope["path"], bug)(scope, receive, send)


async def _known(request: Request, error: Exception) -> Response:
    return failure_for(request.scope["path"], error)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, status = request.scope["path"], error.status_code
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return too_large(path)
    return refusal_for(path, status, HTTPStatus(status).name.lower(), f"{error.detail}.")


async def _no_such_path(request: Request) -> Response:
    path = request.scope["path"]
    sentence = f"There is no route {request.method} {path}. The routes are listed at /docs."
    return refusal_for(path, 404, "not_found", sentence)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    if under(request.scope["path"], "/v1"):
        return _openai_invalid(problems[0])
    faults = [{"field": _field(problem), "message": _sentence(problem)} for problem in problems]
    message = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults)
    return refusal(422, InvalidRequest.code, f"Invalid request: {message}.", {"errors": faults})


def _openai_invalid(problem: Mapping[str, Any]) -> Response:
    """What a client sent is not repeated: it may hold secrets, and it may be long."""
    field = _field(problem)
    param = None if field == "body" else field
    kind = problem["type"]
    if kind == "missing" and param:
        return openai_refusal(400, "missing_required_parameter", f"Missing required parameter: '{param}'.", param)
    if kind in ("extra_forbidden", "unknown_parameter"):
        return openai_refusal(400, "unknown_parameter", f"Unknown parameter: '{param}'.", param)
    if kind == "unsupported_parameter":
        return openai_refusal(400, kind, f"'{param}' is not supported here with this value.", param)
    code = "invalid_type" if kind.endswith("_type") else "invalid_value"
    return openai_refusal(400, code, f"Invalid value for '{field}': {_sentence(problem)}.", param)


def _field(problem: Mapping[str, Any]) -> str:
    """Where in the request the problem is: `messages[0].content`, or `body` for the body as a whole."""
    named = (problem.get("ctx") or {}).get("param")
    place: Sequence[Any] = (*problem["loc"], named) if named else problem["loc"]
    if problem["type"] == "json_invalid" or len(place) < 2:
        return "body"
    name = str(place[1])
    for part in place[2:]:
        name += f"[{part}]" if isinstance(part, int) else f".{part}"
    return name


def _sentence(problem: Mapping[str, Any]) -> str:
    if problem["type"] == "json_invalid":
        return f"not valid JSON ({problem['ctx']['error']})"
    if problem["type"] in ("model_attributes_type", "dict_type", "missing") and len(problem["loc"]) == 1:
        return NOT_JSON
    if problem["type"] == "extra_forbidden":
        return "unknown field"
    text: str = problem["msg"]
    return text[:1].lower() + text[1:]
