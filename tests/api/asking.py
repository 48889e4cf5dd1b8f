"""What tests of the OpenAI API ask with, and how they read the answers."""

import json
from collections.abc import Callable
from typing import Any

from fakes import FakeEngine, FakeOpener
from fastapi.testclient import TestClient
from serving import load
from starlette.types import ASGIApp

from millm.api import GuardPolicy, create_app
from millm.engines.base import ChatRequest, Completion, Embeddings, EmbedRequest
from millm.events import Report
from millm.manager import Manager

Make = Callable[..., Manager]
Serve = Callable[[ASGIApp], str]
HELLO: list[Any] = [{"role": "user", "content": "hello big world"}]


class Listening(FakeEngine):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        self.asked.append(request)
        return super().chat(request, report)

    def embed(self, request: EmbedRequest, report: Report) -> Embeddings:
        self.asked.append(request)
        return super().embed(request, report)


def holding(make: Make, engine: FakeEngine) -> tuple[Manager, TestClient]:
    """A manager that has loaded this engine as `tiny`, and its door."""
    opener = FakeOpener()
    manager = make(opener=lambda *wish: opener(*wish) and engine)
    load(manager)
    return manager, TestClient(create_app(manager, GuardPolicy()), base_url="http://localhost")


def chat(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/chat/completions", json={"model": "tiny", "messages": HELLO} | fields)


def complete(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/completions", json={"model": "tiny", "prompt": "hello big world"} | fields)


def chunks(text: str) -> list[Any]:
    """The data of each event; every event must be exactly one line of data."""
    events = [event for event in text.split("\n\n") if event]
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [event[6:] if event == "data: [DONE]" else json.loads(event[6:]) for event in events]
