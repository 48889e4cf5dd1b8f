"""The style sheets and scripts of the page: two files that a browser keeps, whose names tell what is in them."""

import gzip
import hashlib
from pathlib import Path

from millm.ui.framed import Receive, Scope, Send, send_answer, takes_gzip
from millm.ui.icons import mask

HERE = Path(__file__).parent
SHEETS = (
    *("theme.css", "cards.css", "models.css", "download.css"),
    *("playground.css", "conversations.css", "token_view.css", "compare.css"),
    *("status_bar.css", "system_drawer.css", "touch.css", "first.css"),
)
SCRIPTS = (  # each uses those before it
    *("connection.js", "page.js", "live.js", "suggest.js", "download.js"),
    *("chat_store.js", "messages.js", "sampling.js", "presets.js", "conversations.js"),
    *("token_view.js", "compare.js", "first.js"),
)
ICONS = {  # element id: icon
    "tab-download-button": "download",
    "tab-models-button": "models",
    "tab-playground-button": "playground",
    "send-btn": "send",
    "stop-btn": "stop",
}
FOLDER = "/page"
FOR_EVER = b"public, max-age=31536000, immutable"


def style() -> str:
    """All style sheets as one."""
    icons = "".join(f"#{element}{{--icon:{mask(name)}}}" for element, name in ICONS.items())
    return icons + "".join((HERE / sheet).read_text(encoding="utf-8") for sheet in SHEETS)


def script() -> str:
    """All scripts as one."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)


class PageFile:
    """A text at a path that changes with it, so that no browser need ask again."""

    def __init__(self, ending: str, text: str, media_type: str) -> None:
        self.whole = text.encode()
        self.small = gzip.compress(self.whole)
        self.path = f"{FOLDER}/{hashlib.sha256(self.whole).hexdigest()[:16]}.{ending}"
        self.headers = [(b"content-type", f"{media_type}; charset=utf-8".encode()), (b"cache-control", FOR_EVER)]


class PageFiles:
    """An ASGI application that sends the files; it is mounted at `FOLDER`."""

    def __init__(self) -> None:
        self.sheet = PageFile("css", style(), "text/css")
        self.script = PageFile("js", script(), "text/javascript")
        self._files = {file.path: file for file in (self.sheet, self.script)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI has it)
        """Answers one request."""
        file = self._files.get(scope["path"])
        start = {
            "type": "http.response.start",
            "status": 200 if file else 404,
            "headers": file.headers if file else [],
        }
        small = file is not None and takes_gzip(scope)
        await send_answer(start, (file.small if small else file.whole) if file else b"", small, send)
