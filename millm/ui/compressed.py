"""The page itself, sent as a sixth of its bytes; gradio compresses what has a file ending, and the page has none."""

import gzip
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LEVEL = 5  # 3 ms for 190 kB


class CompressedPage:
    """Middleware that compresses what is at "/" for browsers that take it. Everything else passes untouched."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("GET", "/") or not _takes_gzip(scope):
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def collect(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
            elif message["type"] != "http.response.body":
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body"):
                    await _send_small(start, gzip.compress(body, LEVEL), send)

        await self._app(scope, receive, collect)


def _takes_gzip(scope: Scope) -> bool:
    return any(name == b"accept-encoding" and b"gzip" in value for name, value in scope["headers"])


async def _send_small(start: Message, small: bytes, send: Send) -> None:
    kept = [header for header in start["headers"] if header[0].lower() != b"content-length"]
    length = (b"content-length", str(len(small)).encode())
    added = [(b"content-encoding", b"gzip"), (b"vary", b"accept-encoding"), length]
    await send({**start, "headers": [*kept, *added]})
    await send({"type": "http.response.body", "body": small})
