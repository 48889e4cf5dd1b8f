"""A small OpenAI-compatible server for tests: the routes miLLM uses, over real HTTP, on a free port, and its faults.

Written from OpenAI's public API reference. Answers are an echo, or what a test laid down for a prompt.
"""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self

from fake_http import FakeRoutes, FakeServer, Json

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
    request. headers: of every request. silent, gone: when (time.monotonic) a silence began, and a client left it.
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
    silent: list[float] = field(default_factory=list)
    gone: list[float] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._http = FakeServer(self.port, _Routes, self)
        self.port = self._http.server_port
        return self

    def __exit__(self, *_: object) -> None:
        self._http.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def asked(self, path: str) -> list[Json]:
        """What was sent to a path below /v1."""
        return [body for seen, body in self.seen if seen == f"/v1{path}"]


class _Routes(FakeRoutes):
    def route(self) -> None:
        remote: RemoteServer = self.server.owner
        body = self.body()
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
        self.begin_stream("text/event-stream")
        fault = self.server.owner.fault
        for number, chunk in enumerate(chunks):
            if fault and number >= fault.after and not self._go_on(fault):
                return
            self.send(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self.send(DONE)
        self.end_stream()

    def _go_on(self, fault: Fault) -> bool:
        """Whether the stream goes on after what the fault does."""
        match fault.kind:
            case "slow":
                time.sleep(fault.pause)
                return True
            case "silent":
                self.be_silent(self.server.owner.silent, self.server.owner.gone)
            case "drop":
                self.drop()
            case "error":
                self.send(b"data: " + json.dumps({"error": {"message": fault.text, "code": 500}}).encode() + b"\n\n")
                self.end_stream()
            case "odd":
                self.send(f"data: {fault.text}\n\n".encode())
                self.end_stream()
            case "end":
                self.end_stream()
        self.close_connection = True
        return False

    def _error(self, status: int, message: str, code: str | None) -> None:
        self._json({"error": {"message": message, "type": "invalid_request_error", "code": code}}, status)

    def _json(self, answer: object, status: int = 200) -> None:
        page = isinstance(answer, str)
        moved = {"Location": "/v1/elsewhere"} if 300 <= status < 400 else {}
        data = str(answer) if page else json.dumps(answer)
        self.answer(data.encode(), "text/html" if page else "application/json", status, **moved)


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
