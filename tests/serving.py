"""An app on a real port, a client that can hang up, and a manager with a loaded model."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import uvicorn
from running import PATIENCE_S
from starlette.types import ASGIApp

from millm.manager import Manager
from millm.records import ModelRecord, Source, Status
from millm.sources.base import Origin

# Far more than what happens at once takes on a slow machine; what must not be waited for takes 5 s or more.
AT_ONCE_S = 4.0


def until(condition: Callable[[], object], seconds: float = PATIENCE_S) -> float:
    """Waits for a condition; returns how long that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "it did not happen in time"
        time.sleep(0.005)
    return time.monotonic() - started


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Runs a server in a thread for as long as the context lasts; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def call(url: str, path: str, body: object = None) -> socket.socket:
    """Sends a request and leaves the answer to the caller, who may hang up at any moment."""
    place = urlsplit(url)
    connection = socket.create_connection((place.hostname, place.port), timeout=PATIENCE_S)
    data = b"" if body is None else json.dumps(body).encode()
    head = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", f"Host: {place.netloc}"]
    if body is not None:
        head += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    connection.sendall("\r\n".join([*head, "", ""]).encode() + data)
    return connection


def load(manager: Manager, name: str = "tiny") -> ModelRecord:
    """Downloads acme/<name> from the fake hub and loads it."""
    record = manager.download(Origin(Source.HUGGINGFACE, f"acme/{name}"))
    until(lambda: manager.record(record.id).status is Status.READY)
    manager.load(record.id)
    until(lambda: manager.record(record.id).status is Status.LOADED)
    return manager.record(record.id)
