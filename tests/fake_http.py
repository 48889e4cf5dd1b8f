"""What the small servers of the tests share: a real HTTP server in a thread, its answers, and its faults."""

import json
import select
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


class FakeServer(ThreadingHTTPServer):
    """A running server on a port of this machine (0: a free one), until it is stopped. owner: what it stands for."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, routes: "type[FakeRoutes]", owner: Any) -> None:
        super().__init__(("127.0.0.1", port), routes)
        self.owner = owner
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of these tests."""


class FakeRoutes(BaseHTTPRequestHandler):
    """Answers one connection; `route` is what a subclass says to each request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeServer

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self.route()

    def do_POST(self) -> None:
        self.route()

    def do_DELETE(self) -> None:
        self.route()

    def route(self) -> None:
        """Answers a request."""
        raise NotImplementedError

    def body(self) -> Json:
        """What was sent; {} for nothing."""
        sent: Json = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        return sent

    def answer(self, data: bytes, kind: str, status: int = 200, **headers: str) -> None:
        """Sends a whole answer."""
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def begin_stream(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send(self, data: bytes) -> None:
        """Sends a piece of a stream."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def be_silent(self, silent: list[float], gone: list[float]) -> None:
        """Says nothing until the client has gone, and when each began (time.monotonic)."""
        silent.append(time.monotonic())
        if select.select([self.connection], [], [], 30)[0]:  # nothing but the end of the connection can come
            gone.append(time.monotonic())
        self.close_connection = True

    def drop(self) -> None:
        """Cuts the connection."""
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
