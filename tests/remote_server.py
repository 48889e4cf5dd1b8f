"""A small OpenAI-compatible server for tests: the routes miLLM uses, over real HTTP, on a free port, and its faults.

Written from OpenAI's public API reference. Answers are an echo, or what a test laid down for a prompt.
"""

import json
import re
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"


@dataclass
class Fault:
    """What goes wrong with answers after so many chunks.

    kind: "silent" (says nothing until the client is gone), "drop" (cuts the connection), "error" (says `text` as an
    error), "end" (ends as if all were said), "slow" (waits `pause` seconds between chunks from there on), "odd" (says
    `text` in place of a chunk).
    """

    kind: str
    after: int = 0
    text: str = "something broke"
    pause: float = 0.05


@dataclass
class RemoteServer:
    """A running server; use as a context manager.

    models: what it lists; None for a server that lists nothing. key: what it asks for. answers: the deltas of an
    answer by prompt, in place of an echo. refusals: a status and a body by path. seen: path and body of every
    request. headers: of every request. gone: when (time.monotonic) a client left a silent stream.
    """

    models: list[str] | None = field(default_factory=lambda: ["tiny"])
    key: str = ""
    answers: dict[str, list[Json]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, object]] = field(default_factory=dict)
    fault: Fault | None = None
    usage: bool = True
    port: int = 0
    seen: list[tuple[str, Json]] = field(default_factory=list)
    headers: list[Json] = field(default_factory=list)
    gone: list[float] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._http = _Http(("127.0.0.1", self.port), _Routes)
        self._http.remote = self
        self.port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self, path: str) -> list[Json]:
        """What was sent to a path below /v1."""
        return [body for seen, body in self.seen if seen == f"/v1{path}"]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    remote: RemoteServer

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is part of these tests."""


class _Routes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Http

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def _route(self) -> None:
        remote = self.server.remote
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        remote.seen.append((self.path, body))
        remote.headers.append(dict(self.headers))
        if self.path in remote.refusals:
            return self._json(*reversed(remote.refusals[self.path]))
        if remote.key and self.headers.get("Authorization") != f"Bearer {remote.key}":
            told = f"Incorrect API key provided: {self.headers.get('Authorization')}."
            return self._error(401, told, "invalid_api_key")
        if self.path == "/v1/models" and remote.models is not None:
            listed = [{"id": name, "object": "model", "created": 1, "owned_by": "test"} for name in remote.models]
            return self._json({"object": "list", "data": listed})
        if self.path not in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
            return self._error(404, "Not Found", None)
        if body["model"] not in (remote.models or ["tiny"]):
            return self._error(404, f"The model `{body['model']}` does not exist.", "model_not_found")
        if self.path == "/v1/embeddings":
            vectors = [
                {"index": place, "embedding": [float(len(text)), 0.5]} for place, text in enumerate(body["input"])
            ]
            return self._json({"data": vectors[::-1], "usage": {"prompt_tokens": len(vectors), "total_tokens": 1}})
        return self._stream(list(_chunks(remote, body, self.path == "/v1/completions")))

    def _stream(self, chunks: list[Json]) -> None:
        """Sends chunks as events, as they come; where the fault says so it happens."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        fault = self.server.remote.fault
        for number, chunk in enumerate(chunks):
            if fault and number >= fault.after and not self._go_on(fault):
                return
            self._send(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self._send(DONE)
        self.wfile.write(b"0\r\n\r\n")

    def _go_on(self, fault: Fault) -> bool:
        """Whether the stream goes on after what the fault does."""
        match fault.kind:
            case "slow":
                time.sleep(fault.pause)
                return True
            case "silent":
                if select.select([self.connection], [], [], 30)[0]:  # only the end of the connection can come
                    self.server.remote.gone.append(time.monotonic())
            case "drop":
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
            case "error":
                self._send(b"data: " + json.dumps({"error": {"message": fault.text, "code": 500}}).encode() + b"\n\n")
                self.wfile.write(b"0\r\n\r\n")
            case "odd":
                self._send(f"data: {fault.text}\n\n".encode())
                self.wfile.write(b"0\r\n\r\n")
            case "end":
                self.wfile.write(b"0\r\n\r\n")
        self.close_connection = True
        return False

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _error(self, status: int, message: str, code: str | None) -> None:
        self._json({"error": {"message": message, "type": "invalid_request_error", "code": code}}, status)

    def _json(self, answer: object, status: int = 200) -> None:
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        if 300 <= status < 400:
            self.send_header("Location", "/v1/elsewhere")
        self.end_headers()
        self.wfile.write(data)


def _chunks(remote: RemoteServer, body: Json, plain: bool) -> Iterator[Json]:
    """The chunks of an answer: `n` to each prompt, then the token counts."""
    given = body["prompt"] if plain else body["messages"][-1]["content"]
    prompts = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
    said = 0
    for index in range(len(prompts) * body.get("n", 1)):
        prompt = str(prompts[index // body.get("n", 1)])
        words = re.findall(r"\s*\S+", f"You said: {prompt}")
        deltas = remote.answers.get(prompt) or [{"content": word} for word in words]
        kept = deltas[: body.get("max_tokens", len(deltas))]
        for delta in kept:
            said += 1
            yield _chunk(index, delta, plain, body)
        called = any("tool_calls" in delta for delta in kept)
        reason = "length" if len(kept) < len(deltas) else "tool_calls" if called else "stop"
        yield {"choices": [{"index": index, "delta": {}, "finish_reason": reason}]}
    if remote.usage:
        read = sum(len(str(prompt).split()) for prompt in prompts)
        details = {"prompt_tokens_details": {"cached_tokens": 1}}
        yield {"choices": [], "usage": {"prompt_tokens": read, "completion_tokens": said, **details}}


def _chunk(index: int, delta: Json, plain: bool, body: Json) -> Json:
    token = delta.get("content", "")
    chance: Json = {}
    if plain and "logprobs" in body:
        chance = {
            "logprobs": {"tokens": [token], "token_logprobs": [-0.5], "top_logprobs": [{token: -0.5, "x": -1.5}]}
        }
    elif body.get("logprobs"):
        others = [{"token": token, "logprob": -0.5, "bytes": None}] * body.get("top_logprobs", 0)
        told = {"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": others}
        chance = {"logprobs": {"content": [told]}}
    said = {"text": token} if plain else {"delta": delta}
    return {"choices": [{"index": index, **said, **chance, "finish_reason": None}]}
