"""Every request has an id: the one that its client gave it, or a new one. Its answer and its log lines carry it."""

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from millm.logs import REQUEST_ID

HEADER = "x-request-id"
HARMLESS = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")  # in a header, in a log line, in a shell


class RequestId:
    """ASGI middleware around everything, so that refusals have an id too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on and marks the beginning of its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given(Headers(scope=scope)) or uuid.uuid4().hex

        async def mark(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message.get("headers", ())))
                headers[HEADER] = request_id
                message = {**message, "headers": headers.raw}
            await send(message)

        before = REQUEST_ID.set(request_id)
        try:
            await self._app(scope, receive, mark)
        finally:
            REQUEST_ID.reset(before)


def _given(headers: Headers) -> str | None:
    """The id in a request's headers, if it may be repeated."""
    found = HARMLESS.fullmatch(headers.get(HEADER, ""))
    return found and found[0]
