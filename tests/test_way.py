"""The main way over HTTP, with a real process, hub and model: download, load, serve, unload, delete."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hub import GRANTED, Hub
from running import PATIENCE_S, App, Client
from serving import AT_ONCE_S
from tiny_models import build

pytestmark = pytest.mark.slow
Run = Callable[..., App]


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repos")
    build("qwen3", root / "acme" / "tiny-qwen3")
    build("llama", root / "acme" / "bigger-llama", size="bigger")
    return root


@pytest.fixture
def hub(repos: Path) -> Iterator[Hub]:
    with Hub(repos) as hub:
        yield hub


def read_events(app: App, into: list[tuple[str, dict[str, Any]]]) -> None:
    with httpx.stream("GET", f"{app.url}/api/events", timeout=PATIENCE_S) as stream:
        name = ""
        for line in stream.iter_lines():
            if line.startswith("event:"):
                name = line.removeprefix("event:").strip()
            elif line.startswith("data:"):
                into.append((name, json.loads(line.removeprefix("data:"))))


def test_from_the_hub_to_an_openai_client_and_back(run_app: Run, hub: Hub, tmp_path: Path) -> None:
    app = run_app(HF_ENDPOINT=hub.url, HF_TOKEN=GRANTED)
    client = Client(app)
    events: list[tuple[str, dict[str, Any]]] = []
    reader = threading.Thread(target=read_events, args=(app, events))
    reader.start()

    preview = client.ask("POST", "/api/models/preview", 200, {"repo_id": "acme/tiny-qwen3"})
    assert preview["architecture"] == "Qwen3ForCausalLM"
    record = client.ask("POST", "/api/models", 202, {"source": "huggingface", "repo_id": "acme/tiny-qwen3"})
    ready = client.wait(record["id"], "ready")
    folder = Path(ready["cache_path"])
    assert {"config.json", "model.safetensors", ".millm_meta.json"} <= {path.name for path in folder.iterdir()}
    assert (ready["name"], ready["quantization"]) == ("tiny-qwen3", "Q4")
    assert len(ready["revision"]) == 40

    client.ask("POST", f"/api/models/{record['id']}/load", 202)
    loaded = client.wait(record["id"], "loaded")
    assert loaded["measured_memory_mb"] > 0
    chat_like_a_program(app, "tiny-qwen3")
    assert client.ask("DELETE", f"/api/models/{record['id']}", 409)["code"] == "MODEL_LOADED"
    client.ask("POST", f"/api/models/{record['id']}/unload", 202)
    client.wait(record["id"], "ready")
    client.ask("DELETE", f"/api/models/{record['id']}", 200)
    assert client.ask("GET", "/api/models", 200) == []
    assert not folder.exists()
    assert app.stop() == 0
    reader.join(PATIENCE_S)
    names = [name for name, _ in events]
    for kind in ("model:download:complete", "model:load:complete", "model:unload:complete", "model:deleted"):
        assert kind in names
    stages = {data["stage"] for name, data in events if name == "model:download:progress"}
    assert {"quantizing", "saving"} <= stages
    stages = {data["stage"] for name, data in events if name == "model:load:progress"}
    assert {"loading_weights", "warming_up"} <= stages
    for place in (app.log, json.dumps(events), (app.cache / "registry.json").read_text()):
        assert GRANTED not in place


def chat_like_a_program(app: App, name: str) -> None:
    program = openai.OpenAI(base_url=f"{app.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in program.models.list()] == [name]
    ask: dict[str, Any] = {"model": name, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 12}
    whole = program.chat.completions.create(**ask, temperature=0)
    pieces = list(program.chat.completions.create(**ask, temperature=0, stream=True))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert text == whole.choices[0].message.content
    assert whole.usage is not None
    assert 0 < whole.usage.completion_tokens <= 12
    seeded = [program.chat.completions.create(**ask, seed=7).choices[0].message.content for _ in range(2)]
    assert seeded[0] == seeded[1]
    answers: list[str | None] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(
                program.chat.completions.create(**ask, temperature=0).choices[0].message.content
            )
        )
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert answers == [text] * 6
    with pytest.raises(openai.NotFoundError):
        program.chat.completions.create(model="other", messages=ask["messages"])


def test_kill_9_during_a_download_leaves_no_partial_model(run_app: Run, hub: Hub, tmp_path: Path) -> None:
    first = run_app(HF_ENDPOINT=hub.url)
    client = Client(first)
    whole = client.ask(
        "POST", "/api/models", 202, {"source": "huggingface", "repo_id": "acme/tiny-qwen3", "quantization": "FP16"}
    )
    client.wait(whole["id"], "ready")
    hub.fault("cdn", "acme/bigger-llama/*", throttle=10_000_000, times=1)
    part = client.ask(
        "POST", "/api/models", 202, {"source": "huggingface", "repo_id": "acme/bigger-llama", "quantization": "FP16"}
    )
    while client.ask("GET", f"/api/models/{part['id']}", 200)["downloaded_bytes"] < 18_000_000:
        time.sleep(0.02)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait(PATIENCE_S)
    assert any((first.cache / ".staging").iterdir())

    second = run_app(HF_ENDPOINT=hub.url, cache=first.cache)
    client = Client(second)
    assert [model["id"] for model in client.ask("GET", "/api/models?status=ready", 200)] == [whole["id"]]
    interrupted = client.ask("GET", f"/api/models/{part['id']}", 200)
    assert interrupted["status"] == "error"
    assert interrupted["downloaded_bytes"] >= 16_000_000
    asked = len(hub.requests)
    assert [path.name for path in (first.cache / "huggingface").iterdir()] == ["acme--tiny-qwen3--FP16"]
    client.ask("POST", f"/api/models/{part['id']}/retry", 202)
    deadline = time.monotonic() + PATIENCE_S
    while client.ask("GET", f"/api/models/{part['id']}", 200)["status"] != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sum(request.sent for request in hub.requests[asked:] if request.kind == "cdn") < 10_000_000
    assert not any((first.cache / ".staging").iterdir())


def test_cancelling_ends_the_traffic_at_once_and_leaves_nothing(run_app: Run, hub: Hub) -> None:
    app = run_app(HF_ENDPOINT=hub.url)
    client = Client(app)
    hub.fault("cdn", "*", throttle=1_000_000)
    record = client.ask(
        "POST", "/api/models", 202, {"source": "huggingface", "repo_id": "acme/bigger-llama", "quantization": "FP16"}
    )
    while client.ask("GET", f"/api/models/{record['id']}", 200)["downloaded_bytes"] < 100_000:
        time.sleep(0.05)
    started = time.monotonic()
    client.ask("POST", f"/api/models/{record['id']}/cancel", 202)
    assert time.monotonic() - started < AT_ONCE_S
    assert hub.wait_for(lambda request: request.outcome == "client_gone", AT_ONCE_S)
    assert client.ask("GET", "/api/models", 200) == []
    assert list((app.cache / ".staging").iterdir()) == []


def test_a_local_directory_is_served_where_it_lies_and_loaded_at_start(run_app: Run, repos: Path) -> None:
    there = repos / "acme" / "tiny-qwen3"
    first = run_app()
    client = Client(first)
    record = client.ask(
        "POST", "/api/models", 202, {"source": "local", "local_path": str(there), "custom_name": "mine"}
    )
    assert record["status"] == "ready"
    assert (first.cache / "local" / "mine").resolve() == there
    error = client.ask("POST", "/api/models", 400, {"source": "local", "local_path": str(there.parent)})
    assert error["code"] == "INVALID_LOCAL_PATH"
    assert first.stop() == 0

    second = run_app("--auto-load-model", "mine", cache=first.cache)
    client = Client(second)
    assert client.wait(record["id"], "loaded")["source"] == "local"
    client.ask("POST", f"/api/models/{record['id']}/unload", 202)
    client.wait(record["id"], "ready")
    client.ask("DELETE", f"/api/models/{record['id']}", 200)
    assert (there / "model.safetensors").exists()


def test_kill_9_while_quantizing_leaves_nothing_half_done(run_app: Run, hub: Hub) -> None:
    first = run_app(HF_ENDPOINT=hub.url)
    client = Client(first)
    record = client.ask("POST", "/api/models", 202, {"repo_id": "acme/bigger-llama"})
    deadline = time.monotonic() + PATIENCE_S
    while not any(job["stage"] == "quantizing" for job in client.ask("GET", "/api/system", 200)["jobs"]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.5)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait(PATIENCE_S)
    second = run_app(cache=first.cache, HF_ENDPOINT=hub.url)
    client, fetched = Client(second), len(hub.requests)
    assert client.ask("GET", f"/api/models/{record['id']}", 200)["status"] == "error"
    client.ask("POST", f"/api/models/{record['id']}/retry", 202)
    ready = client.wait(record["id"], "ready")
    assert (ready["quantization"], ready["error_message"]) == ("Q4", None)
    assert not any(request.kind == "cdn" for request in hub.requests[fetched:]), "what was there is not fetched again"
    assert list((second.cache / ".staging").iterdir()) == []
