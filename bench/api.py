"""What the HTTP API costs: a long list of models, and a chat against the same model asked directly.

    python bench/api.py [--requests 200]

Serves a registry of 1,000 models and a tiny random model from one real process on loopback. Prints the latency of
`GET /api/models`, and tokens a second of `model.generate`, of our engine in this process, and of the API with the
`openai` client, all in one run; then the same for 8 requests at once.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as app.py sets it

import httpx
import openai

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tiny_models import build  # noqa: E402

from millm.engines.base import ChatRequest, LoadOptions, Message, Sampling  # noqa: E402
from millm.records import ModelRecord, Status  # noqa: E402
from millm.registry import Registry  # noqa: E402

TOKENS = 64
QUESTION = "Tell me something about reading files in Python, please."


def fill(cache: Path, model: Path, count: int) -> None:
    """Writes a registry of `count` models with real-sized configs, and one that can be loaded."""
    cache.mkdir()
    registry = Registry(cache / "registry.json", list)
    config = json.loads((model / "config.json").read_text())
    rows = {
        str(n): ModelRecord(
            id=n, name=f"model-{n}", repo_id=f"acme/model-{n}", config=config, status=Status.READY
        ).to_dict()
        for n in range(1, count)
    }
    registry.close()
    (cache / "registry.json").write_text(json.dumps({"models": rows}))


@contextmanager
def serving(cache: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "app.py",
        "--model-cache-dir",
        str(cache),
        "--port",
        str(port),
        "--log-level",
        "WARNING",
    ]
    process = subprocess.Popen(command, cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{url}/health")
                break
            except httpx.HTTPError:
                time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def load(url: str, model: Path) -> str:
    body = {"source": "local", "local_path": str(model), "custom_name": "tiny"}
    record = httpx.post(f"{url}/api/models", json=body, timeout=30).json()["data"]
    httpx.post(f"{url}/api/models/{record['id']}/load", timeout=30)
    while httpx.get(f"{url}/api/models/{record['id']}").json()["data"]["status"] != "loaded":
        time.sleep(0.1)
    return "tiny"


def listing(url: str, requests: int) -> None:
    seconds = []
    with httpx.Client(base_url=url) as client:
        for _ in range(requests):
            started = time.perf_counter()
            size = len(client.get("/api/models").content)
            seconds.append(time.perf_counter() - started)
    p50, p95 = statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]
    print(f"GET /api/models, 1,000 records, {size / 1e6:.1f} MB: median {p50 * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms")


def at_once(width: int, ask: Callable[[], int]) -> float:
    """Tokens a second of `width` threads that each ask once."""
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(ask())) for _ in range(width)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def ways(url: str, name: str, folder: Path) -> dict[str, Callable[[], int]]:
    """The three ways to ask for TOKENS greedy tokens; each returns how many came."""
    from millm.engines.loader import open_model

    engine: Any = open_model(ModelRecord(name="tiny"), LoadOptions(folder), lambda event: None)
    engine._endings = frozenset()
    network, tokenizer = engine._network, engine._tokenizer
    chat = [{"role": "user", "content": QUESTION}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    request = ChatRequest((Message("user", QUESTION),), sampling=Sampling(temperature=0, max_tokens=TOKENS))
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")

    def generate() -> int:
        seen = network.generate(**prompt, do_sample=False, max_new_tokens=TOKENS, min_new_tokens=TOKENS)
        return int(seen.shape[1] - prompt["input_ids"].shape[1])

    def api() -> int:
        stream = client.chat.completions.create(
            model=name,
            messages=chat,  # type: ignore[arg-type]
            temperature=0,
            max_tokens=TOKENS,
            stream=True,
            stream_options={"include_usage": True},
        )
        return next(chunk.usage.completion_tokens for chunk in stream if chunk.usage)

    return {
        "generate": generate,
        "engine": lambda: engine.chat(request, lambda e: None).completion_tokens,
        "API": api,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = build("qwen3", Path(folder) / "tiny")
        fill(Path(folder) / "cache", model, 1000)
        with serving(Path(folder) / "cache") as url:
            name = load(url, model)
            listing(url, options.requests)
            asked = ways(url, name, model)
            for width in (1, 8):
                speeds: dict[str, list[float]] = {way: [] for way in asked}
                for ask in asked.values():
                    ask()
                for _ in range(options.rounds):
                    for way, ask in asked.items():
                        if way == "generate" and width > 1:
                            continue  # it answers one request at a time
                        speeds[way].append(at_once(width, ask))
                for way, values in speeds.items():
                    if values:
                        print(f"{width} at once, {way:8}: {statistics.median(values):7.1f} tokens/s")


if __name__ == "__main__":
    main()
