"""The page itself: with our script, our style sheet and what it shows now in it, and sent as a sixth of its bytes.

gradio would put them there only after it has started, and compresses only what has a file ending. The script stands
where the body begins: it draws there what is seen until then.
"""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from millm.ui.present import Props, filled

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LEVEL = 5  # 3 ms for 190 kB
END_OF_HEAD, BEGIN_OF_PAGE, END_OF_BODY = b"</head>", b"<gradio-app", b"</body>"


class FramedPage:
    """Middleware for what is at "/". Everything else passes untouched."""

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        script: str,
        sheet: str,
        present: Callable[[], Props],
    ) -> None:
        """script, sheet: their paths. The sheet goes behind those of gradio, over which it wins so.

        present: draws what a page shows at first.
        """
        self._app, self._present = app, present
        # relative, as gradio's own are: a proxy may serve all of this below a path
        self._head = f'<link rel="preload" as="style" href=".{sheet}">'.encode()
        self._first = f'<script src=".{script}"></script>'.encode()
        self._foot = f'<link rel="stylesheet" href=".{sheet}">'.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) != ("GET", "/"):
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
                    small = takes_gzip(scope)
                    await send_answer(start, await asyncio.to_thread(self._framed, body, small), small, send)

        await self._app(scope, receive, collect)

    def _framed(self, body: bytes, small: bool) -> bytes:
        begun = filled(body, self._present).replace(END_OF_HEAD, self._head + END_OF_HEAD, 1)
        begun = begun.replace(BEGIN_OF_PAGE, self._first + BEGIN_OF_PAGE, 1)
        whole = (self._foot + END_OF_BODY).join(begun.rsplit(END_OF_BODY, 1))
        return gzip.compress(whole, LEVEL) if small else whole


def takes_gzip(scope: Scope) -> bool:
    """Whether whoever asks understands compressed answers."""
    return any(name == b"accept-encoding" and b"gzip" in value for name, value in scope["headers"])


async def send_answer(start: Message, body: bytes, small: bool, send: Send) -> None:
    """Sends an answer that begins with `start`. small: whether the body is compressed."""
    kept = [header for header in start["headers"] if header[0].lower() != b"content-length"]
    added = [(b"vary", b"accept-encoding"), (b"content-length", str(len(body)).encode())]
    encoding = [(b"content-encoding", b"gzip")] if small else []
    await send({**start, "headers": [*kept, *added, *encoding]})
    await send({"type": "http.response.body", "body": body})
