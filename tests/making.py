"""Repositories and reports for the tests of the sources."""

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from millm.errors import Cancelled
from millm.events import Event
from millm.sources.base import PlannedFile
from millm.sources.http import Limits

FAST = Limits(segment=64 * 1024, backoff=(0.01, 0.02, 0.04), connect=2, stall=2, tick=0.02)
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64}


def nowhere() -> str:
    """An address on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def content(size: int) -> bytes:
    """Bytes without a pattern, the same on every run."""
    return hashlib.shake_256(b"millm").digest(size)


def safetensors(data: bytes) -> bytes:
    """A safetensors file with one tensor of `data` as 16-bit numbers."""
    entry = {"dtype": "F16", "shape": [len(data) // 2], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + data


def make_repo(folder: Path, **files: bytes | str | dict[str, object]) -> Path:
    """Writes files into a new folder; `__` in a name stands for a dot, a dict becomes JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        text = json.dumps(value) if isinstance(value, dict) else value
        (folder / name.replace("__", ".")).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def announced(path: Path) -> PlannedFile:
    """A file as its source would announce it."""
    return PlannedFile(path.name, path.stat().st_size, f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")


class Watcher:
    """A report that keeps what it is told, and cancels as soon as `stop` says so."""

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self.events: list[Event] = []
        self._stop = stop

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if self._stop():
            raise Cancelled


class WebServer(ThreadingHTTPServer):
    """A web server on a free port, for answers that no hub gives. seen: path and headers of every request."""

    def __init__(self, answers: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), answers)
        self.seen: list[tuple[str, dict[str, str]]] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def url(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of these tests."""
