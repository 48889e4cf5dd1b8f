"""A small Ollama server for tests: the routes miLLM uses, over real HTTP, on a free port.

Written from Ollama's public API documentation (docs/api.md of its repository), because neither the program nor its
models can be had where the tests run: route by route the fields, the order of a pull's messages, the statuses and the
sentences of errors that people meet. Not a copy of its code; what the documentation does not say is not imitated.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from fake_http import FakeRoutes, FakeServer, Json


@dataclass
class Model:
    """A model in the server or in its library. layers: bytes of each; the first is the weights."""

    layers: tuple[int, ...] = (4_000_000, 20_000, 500)
    family: str = "llama"
    parameter_size: str = "8.0B"
    count: int | None = 8_030_261_248
    context_length: int = 8192
    generates: bool = True
    embeds: bool = True

    @property
    def size(self) -> int:
        return sum(self.layers)

    @property
    def details(self) -> Json:
        sizes = {"parameter_size": self.parameter_size, "quantization_level": "Q4_0"}
        return {"parent_model": "", "format": "gguf", "family": self.family, "families": [self.family], **sizes}


@dataclass
class Fault:
    """What goes wrong with the stream of one route after so many messages.

    kind: "silent" (says nothing until the client is gone), "drop" (cuts the connection), "error" (says `text` and
    ends), "end" (ends as if all were said), "slow" (waits `pause` seconds between messages from there on).
    """

    path: str
    kind: str
    after: int = 0
    text: str = "something broke"
    pause: float = 0.05


@dataclass
class OllamaServer:
    """A running server; use as a context manager.

    models: what it has. library: what it can pull. memory: loaded models and how long each stays ("keep_alive").
    answers: the pieces of an answer by prompt, in place of an echo. refusals: a status and a sentence by path. seen:
    path and body of every request. silent, gone: when (time.monotonic) a silence began, and a client left it.
    """

    models: dict[str, Model] = field(default_factory=dict)
    library: dict[str, Model] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, list[str]] = field(default_factory=dict)
    thoughts: list[str] = field(default_factory=list)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    fault: Fault | None = None
    seen: list[tuple[str, Json]] = field(default_factory=list)
    silent: list[float] = field(default_factory=list)
    gone: list[float] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._http = FakeServer(0, _Routes, self)
        return self

    def __exit__(self, *_: object) -> None:
        self._http.stop()

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def bodies(self, path: str) -> list[Json]:
        """What was sent to a path."""
        return [body for seen, body in self.seen if seen == path]

    def left(self, patience: float = 4.0) -> bool:
        """Whether a client has left a silent stream, waiting a moment for it."""
        deadline = time.monotonic() + patience
        while not self.gone and time.monotonic() < deadline:
            time.sleep(0.01)
        return bool(self.gone)


class _Routes(FakeRoutes):
    def route(self) -> None:
        ollama: OllamaServer = self.server.owner
        body = self.body()
        ollama.seen.append((self.path, body))
        if self.path in ollama.refusals:
            status, text = ollama.refusals[self.path]
            return self._json({"error": text}, status)
        fault = ollama.fault
        if fault and (fault.path, fault.kind, fault.after) == (self.path, "silent", 0):
            return self.be_silent(ollama.silent, ollama.gone)
        name = full_name(body.get("model", ""))
        answer = getattr(self, f"_{self.command.lower()}_{self.path.removeprefix('/api/')}", None)
        if answer is None:
            return self._json({"error": "404 page not found"}, 404)
        needs = self.path in ("/api/show", "/api/delete", "/api/chat", "/api/generate", "/api/embed")
        if needs and name not in ollama.models:
            return self._json({"error": f"model '{body['model']}' not found"}, 404)
        return answer(ollama, name, body)

    def _get_version(self, *_: object) -> None:
        self._json({"version": "0.12.0"})

    def _get_tags(self, ollama: OllamaServer, *_: object) -> None:
        self._json({"models": [_listed(name, model) for name, model in ollama.models.items()]})

    def _get_ps(self, ollama: OllamaServer, *_: object) -> None:
        running = [
            {**_listed(name, ollama.models[name]), "size_vram": 0, "context_length": 4096} for name in ollama.memory
        ]
        self._json({"models": running})

    def _post_show(self, ollama: OllamaServer, name: str, body: Json) -> None:
        model = ollama.models[name]
        facts = {"general.architecture": model.family, f"{model.family}.context_length": model.context_length}
        if model.count:
            facts["general.parameter_count"] = model.count
        self._json({"modelfile": "", "template": "", "details": model.details, "model_info": facts})

    def _delete_delete(self, ollama: OllamaServer, name: str, body: Json) -> None:
        del ollama.models[name]
        self._json(None)

    def _post_pull(self, ollama: OllamaServer, name: str, body: Json) -> None:
        self._stream(_pull(ollama, name))

    def _post_generate(self, ollama: OllamaServer, name: str, body: Json) -> None:
        if not ollama.models[name].generates:
            self._json({"error": f'"{body["model"]}" does not support generate'}, 400)
        elif body.get("prompt"):
            self._stream(_answer(ollama, body["prompt"], body, _as_generated))
        else:
            self._keep(ollama, name, body, _as_generated())

    def _post_chat(self, ollama: OllamaServer, name: str, body: Json) -> None:
        if body.get("messages"):
            self._stream(_answer(ollama, body["messages"][-1].get("content", ""), body, _as_message))
        else:
            self._keep(ollama, name, body, _as_message())

    def _post_embed(self, ollama: OllamaServer, name: str, body: Json) -> None:
        given = body.get("input") or []
        texts = [given] if isinstance(given, str) else given
        if not ollama.models[name].embeds:
            return self._json({"error": "this model does not support embeddings"}, 501)
        if not body.get("truncate", True) and any(len(text.split()) > 4 for text in texts):
            return self._json({"error": "input length exceeds maximum context length"}, 400)
        self._remember(ollama, name, body)
        vectors = [[float(len(text)), 0.5, -2.0, 0.25][: body.get("dimensions")] for text in texts]
        count = sum(len(text.split()) for text in texts)
        return self._json({"model": name, "embeddings": vectors, "prompt_eval_count": count})

    def _remember(self, ollama: OllamaServer, name: str, body: Json) -> Any:
        keep = body.get("keep_alive", "5m")
        if keep:
            ollama.memory[name] = keep
        else:
            ollama.memory.pop(name, None)
        return keep

    def _keep(self, ollama: OllamaServer, name: str, body: Json, empty: Json) -> None:
        """Loads a model, or unloads it where it shall be kept for no time."""
        keep = self._remember(ollama, name, body)
        self._json({"model": name, **empty, "done": True, "done_reason": "load" if keep else "unload"})

    def _stream(self, messages: Iterable[Json]) -> None:
        """Sends messages as lines, as they come; where the fault says so it happens."""
        self.begin_stream("application/x-ndjson")
        fault = self.server.owner.fault
        for number, message in enumerate(messages):
            if fault and fault.path == self.path and number >= fault.after:
                if fault.kind == "slow":
                    time.sleep(fault.pause)
                elif fault.kind == "silent":
                    return self.be_silent(self.server.owner.silent, self.server.owner.gone)
                elif fault.kind == "drop":
                    return self.drop()
                else:
                    if fault.kind == "error":
                        self._line({"error": fault.text})
                    break
            self._line(message)
        self.end_stream()
        return None

    def _line(self, message: Json) -> None:
        self.send(json.dumps(message, ensure_ascii=False).encode() + b"\n")

    def _json(self, answer: object, status: int = 200) -> None:
        data = b"" if answer is None else json.dumps(answer, ensure_ascii=False).encode()
        self.answer(data, "application/json; charset=utf-8", status)


def full_name(name: str) -> str:
    """The name with its tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _listed(name: str, model: Model) -> Json:
    return {
        "name": name,
        "model": name,
        "modified_at": "2024-12-07T09:32:18.757212583-08:00",
        "size": model.size,
        "digest": "fe938a131f40e6f6d40083c9f0f430a515233eb2edaa6d72eb85c50d64f2300e",
        "details": model.details,
    }


def _pull(ollama: OllamaServer, name: str) -> Iterator[Json]:
    yield {"status": "pulling manifest"}
    if name not in ollama.library:
        yield {"error": "pull model manifest: file does not exist"}
        return
    model = ollama.library[name]
    for number, total in enumerate(model.layers):
        layer = {"status": f"pulling {number:012x}", "digest": f"sha256:{number:064x}", "total": total}
        yield layer
        for quarter in (1, 2, 3, 4):
            yield {**layer, "completed": total * quarter // 4}
    yield {"status": "verifying sha256 digest"}
    yield {"status": "writing manifest"}
    yield {"status": "removing any unused layers"}
    ollama.models[name] = model
    yield {"status": "success"}


def _as_generated(said: str = "", thought: str = "") -> Json:
    return {"response": said, "thinking": thought}


def _as_message(said: str = "", thought: str = "") -> Json:
    return {"message": {"role": "assistant", "content": said, "thinking": thought}}


def _answer(ollama: OllamaServer, prompt: str, body: Json, form: Callable[..., Json]) -> Iterator[Json]:
    """The lines of an answer: an echo, or what was laid down for this prompt, then how it ended."""
    about = {"model": body["model"], "created_at": "2024-12-06T00:46:58.265747Z"}
    options = body.get("options", {})
    pieces = ollama.answers.get(prompt) or re.findall(r"\s*\S+", f"You said: {prompt}")
    for stop in options.get("stop") or []:
        pieces = re.findall(r"\s*\S+|\s+$", "".join(pieces).partition(stop)[0])
    lines = [*(form(thought=thought) for thought in ollama.thoughts), *map(form, pieces)]
    most = options.get("num_predict", -1)
    kept = lines if most < 0 else lines[:most]
    yield from ({**about, **line, "done": False} for line in kept)
    counts = {"prompt_eval_count": len(prompt.split()), "eval_count": len(kept), "eval_duration": len(kept) * 10**7}
    yield {**about, **form(), "done": True, "done_reason": "stop" if kept == lines else "length", **counts}
