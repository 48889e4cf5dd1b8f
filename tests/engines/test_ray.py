"""A model in replicas on a real Ray of two nodes, asked over HTTP; one test goes on where the one before it ended."""

import asyncio
import importlib.util
import json
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from browsing import field, is_up, launch, new_context, open_tab
from playwright.sync_api import expect, sync_playwright
from ray_cluster import MARK, RayCluster, processes_with, replicas_of, title
from running import PATIENCE_S, App, Client, start_app, wait_until_up
from serving import until
from tiny_models import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

ENDLESS = {"logit_bias": {str(token): -100 for token in range(4)}}  # what could end an answer is never chosen
PROMPTS = ("Hello!", "Read a file, please.", "What is a socket?")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    cluster = RayCluster()
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("qwen3", tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def app(cluster: RayCluster, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A miLLM that knows of two nodes, which start meanwhile."""
    folder = tmp_path_factory.mktemp("app")
    settings = {"MILLM_ENGINE": "ray", "MILLM_REPLICAS": "2"}
    app = start_app(folder / "cache", folder / "log", **settings, **cluster.environment)
    cluster.start()
    yield wait_until_up(app)
    app.process.kill()
    app.process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def client(app: App) -> Client:
    return Client(app)


@pytest.fixture(scope="module")
def record(client: Client, model: Path) -> dict[str, Any]:
    asked = {"source": "local", "local_path": str(model), "custom_name": "tiny"}
    record = client.ask("POST", "/api/models", 202, asked)
    client.ask("POST", f"/api/models/{record['id']}/load", 202)
    return client.wait(record["id"], "loaded")


def replicas(client: Client) -> list[dict[str, Any]]:
    return list(client.ask("GET", "/api/system", 200)["replicas"])


def both_run(client: Client) -> bool:
    return [each["state"] for each in replicas(client)] == ["running", "running"]


def body(prompt: str, tokens: int, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": tokens, **more}


async def stream(client: httpx.AsyncClient, prompt: str, tokens: int, begun: Counter[str]) -> dict[str, Any]:
    """What a stream brought: its text, how it ended ("stop", "length", an error's code, "" if it just ended).

    begun: counts pieces of text by prompt.
    """
    text, ending = "", ""
    asked = body(prompt, tokens, stream=True, **ENDLESS)
    async with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            frame = json.loads(line.removeprefix("data: "))
            if "error" in frame:
                ending = frame["error"]["code"]
            elif frame["choices"]:
                piece = frame["choices"][0]["delta"].get("content") or ""
                begun.update([prompt] if piece else [])
                text += piece
                ending = frame["choices"][0]["finish_reason"] or ending
    return {"text": text, "ending": ending}


async def many(app: App, count: int, tokens: int, meanwhile: Any = None) -> list[dict[str, Any]]:
    """So many streams at once. meanwhile: what is done while they run; it is told which have brought some text."""
    begun: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=app.url, timeout=PATIENCE_S, limits=limits) as client:
        streams = [asyncio.create_task(stream(client, f"Say {n}.", tokens, begun)) for n in range(count)]
        if meanwhile:
            await asyncio.to_thread(meanwhile, begun)
        return await asyncio.gather(*streams)


def test_answers_are_those_of_one_process(app: App, client: Client, record: dict[str, Any], model: Path) -> None:
    from millm.engines.base import ChatRequest, EmbedRequest, LoadOptions, Message, Sampling
    from millm.engines.loader import open_model
    from millm.records import ModelRecord

    assert record["measured_memory_mb"] > 0
    engine = open_model(ModelRecord(name="tiny"), LoadOptions(model), lambda _: None)
    for prompt in PROMPTS:
        asked = ChatRequest((Message("user", prompt),), sampling=Sampling(temperature=0, max_tokens=32))
        alone = engine.chat(asked, lambda _: None)
        whole = client.http.post("/v1/chat/completions", json=body(prompt, 32)).json()
        choice = whole["choices"][0]
        assert choice["message"]["content"] == alone.text
        assert choice["finish_reason"] == alone.finish_reason
        assert whole["usage"]["completion_tokens"] == alone.completion_tokens
    vectors = client.http.post("/v1/embeddings", json={"model": "tiny", "input": list(PROMPTS)}).json()["data"]
    here = engine.embed(EmbedRequest(PROMPTS), lambda _: None).vectors
    for there, vector in zip(vectors, here, strict=True):
        assert there["embedding"] == pytest.approx(list(vector), abs=1e-5)
    engine.close()


def test_errors_of_a_replica_are_ours(client: Client, record: dict[str, Any]) -> None:
    answer = client.http.post("/v1/chat/completions", json=body("Hello!", 5000))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


def test_the_page_chats_and_shows_the_replicas(app: App, client: Client, record: dict[str, Any]) -> None:
    until(lambda: both_run(client))
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = new_context(browser).new_page()
        page.goto(app.url)
        is_up(page)
        open_tab(page, "playground")
        field(page, "chat-input").fill("Hello!")
        page.locator("#send-btn").click()
        expect(page.locator("#chat-log [data-testid=bot]").first).to_contain_text(re.compile(r"\w"))
        page.locator("#system-btn").click()
        shown = page.locator("#system-drawer [data-part=replicas] dd")
        expect(shown).to_have_count(2)
        expect(shown.first).to_contain_text("running")
        browser.close()


def test_both_replicas_answer_64_streams(app: App, client: Client, record: dict[str, Any]) -> None:
    shares: list[list[int]] = []
    until(lambda: both_run(client))

    def watch(_: Counter[str]) -> None:
        until(lambda: shares.append(loads(client)) or sum(shares[-1]) == 64)

    answers = asyncio.run(many(app, 64, 200, watch))
    assert Counter(answer["ending"] for answer in answers) == {"length": 64}
    assert max(shares[-1]) - min(shares[-1]) <= 16, shares[-1]  # on a busy machine Ray cannot ask in time


def loads(client: Client) -> list[int]:
    return [each["requests"] for each in replicas(client)]


def test_streams_that_are_left_end_in_the_replicas(app: App, cluster: RayCluster, record: dict[str, Any]) -> None:
    at_work = replicas_of(cluster.processes())
    assert len(at_work) == 2

    def busy() -> bool:
        """Whether the replicas compute: a share of a core for half a second."""
        before = sum(sum(each.cpu_times()[:2]) for each in at_work)
        time.sleep(0.5)
        return sum(sum(each.cpu_times()[:2]) for each in at_work) - before > 0.15

    async def leave() -> None:
        async with httpx.AsyncClient(base_url=app.url, timeout=PATIENCE_S) as client:
            streams = [asyncio.create_task(stream(client, f"Count to {n}.", 1900, Counter())) for n in range(32)]
            await asyncio.to_thread(until, busy)
            for each in streams:
                each.cancel()
            await asyncio.gather(*streams, return_exceptions=True)

    asyncio.run(leave())
    until(lambda: not busy(), 30)  # all of them would take much longer


def test_a_killed_replica_ends_no_stream_in_silence(
    app: App, client: Client, cluster: RayCluster, record: dict[str, Any]
) -> None:
    for _ in range(5):
        until(lambda: both_run(client))
        endings = endings_around_a_kill(app, client, replicas_of(cluster.processes())[0])
        assert set(endings) <= {"length", "remote_unavailable"}, endings
        assert endings["length"] >= 1, "the streams of the other replica go on"
        if endings["remote_unavailable"]:
            break  # else all of its streams had ended, and were only still being read here
    else:
        pytest.fail("no stream was under way in the replica that was killed")
    until(lambda: both_run(client))


def endings_around_a_kill(app: App, client: Client, victim: psutil.Process) -> Counter[str]:
    """How 32 streams end, some of which are under way in a replica that is killed; a new request is answered."""

    def kill_one(begun: Counter[str]) -> None:
        until(lambda: len(begun) == 32)  # what had not begun would be asked of the other replica, and end well
        victim.kill()
        fresh = client.http.post("/v1/chat/completions", json=body("Hello!", 8), timeout=PATIENCE_S)
        assert fresh.status_code == 200, fresh.text

    return Counter(answer["ending"] for answer in asyncio.run(many(app, 32, 1400, kill_one)))


def test_a_head_that_went_away_is_said_and_survived(
    app: App, client: Client, cluster: RayCluster, record: dict[str, Any], tmp_path: Path
) -> None:
    cluster.kill()
    until(lambda: client.ask("GET", "/api/system", 200)["problems"])
    answer = client.http.post("/v1/chat/completions", json=body("Hello!", 8), timeout=PATIENCE_S)
    assert answer.status_code == 503
    assert "Ray" in answer.json()["error"]["message"]
    cluster.start_head()
    with ThreadPoolExecutor(1) as aside:
        worker = aside.submit(cluster.start_worker)
        broken = load_broken(client, tmp_path / "broken")
        worker.result()
    assert broken["error_code"] == "MODEL_LOAD_FAILED"
    assert "another shape" in broken["error_message"]
    client.ask("POST", f"/api/models/{record['id']}/load", 202)
    client.wait(record["id"], "loaded")
    answer = client.http.post("/v1/chat/completions", json=body("Hello!", 8), timeout=PATIENCE_S)
    assert answer.status_code == 200
    assert not client.ask("GET", "/api/system", 200)["problems"]


def load_broken(client: Client, folder: Path) -> dict[str, Any]:
    """The record of a model that replicas cannot open, after a load."""
    made = client.ask("POST", "/api/models", 202, {"source": "local", "local_path": str(build("qwen3", folder))})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    client.ask("POST", f"/api/models/{made['id']}/load", 202)
    return until_failed(client, made["id"])


def until_failed(client: Client, model_id: int) -> dict[str, Any]:
    """The record once it has an error."""
    until(lambda: client.ask("GET", f"/api/models/{model_id}", 200)["error_message"])
    return dict(client.ask("GET", f"/api/models/{model_id}", 200))


def drivers(app: App) -> list[psutil.Process]:
    """The processes of miLLM that speak with Ray."""
    return [each for each in psutil.Process(app.process.pid).children() if "millm.ray_driver" in title(each)]


def test_after_an_unload_nothing_of_ours_runs(
    app: App, client: Client, cluster: RayCluster, record: dict[str, Any]
) -> None:
    assert replicas_of(cluster.processes())
    client.ask("POST", f"/api/models/{record['id']}/unload", 202)
    client.wait(record["id"], "ready")
    until(lambda: not replicas_of(cluster.processes()))
    until(lambda: not drivers(app))
    assert client.ask("GET", "/api/system", 200)["replicas"] == []


def test_a_ray_of_its_own_ends_with_a_process_that_is_killed(model: Path, tmp_path: Path) -> None:
    app = wait_until_up(start_app(tmp_path / "cache", tmp_path / "log", MILLM_ENGINE="ray", **{MARK: str(tmp_path)}))
    client = Client(app)
    record = client.ask("POST", "/api/models", 202, {"source": "local", "local_path": str(model)})
    client.ask("POST", f"/api/models/{record['id']}/load", 202)
    client.wait(record["id"], "loaded")
    assert replicas_of(processes_with(MARK, str(tmp_path)))
    app.process.send_signal(signal.SIGKILL)
    app.process.wait(PATIENCE_S)
    until(lambda: not processes_with(MARK, str(tmp_path)))
