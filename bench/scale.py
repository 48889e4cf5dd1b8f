"""What replicas on Ray Serve bring and what they cost: tokens a second of 1 and of 2, and the way through Ray.

    python bench/scale.py [--streams 16] [--tokens 96] [--rounds 3] [--turns 3] [--requests 50] [--only scale latency]

Needs requirements-ray.txt. Everything runs on this machine, on Rays of its own, one after the other; every replica
and the engine of this process compute with one thread. `scale`: a random Qwen3-like model of 100 million numbers,
enough that arithmetic is most of the work, asked by `streams` requests at once for each replica there is. `latency`:
a tiny one, asked by one request at a time, so that what is measured is the way through Ray. Prints medians, and how
busy other programs kept the machine: above a few percent the figures mean little.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # of this process's own engine; a replica of one core has one thread anyway
os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as app.py sets it

import psutil

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from tiny_models import build  # noqa: E402

from app import OF_REPLICAS  # noqa: E402
from millm.engines.base import ChatRequest, Completion, Engine, LoadOptions, Message, Sampling  # noqa: E402
from millm.engines.ray import Cluster, open_ray  # noqa: E402
from millm.events import Event, Report  # noqa: E402
from millm.records import ModelRecord, Source  # noqa: E402

RECORD = ModelRecord(id=1, name="scale", source=Source.LOCAL)
MIDDLE = {
    "hidden_size": 1024,
    "num_hidden_layers": 8,
    "intermediate_size": 3072,
    "num_attention_heads": 8,
    "head_dim": 128,
}
ENDLESS = tuple((token, -100.0) for token in range(4))  # what could end an answer is never chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=16, help="requests at once for each replica")
    parser.add_argument("--tokens", type=int, default=96, help="of each answer")
    parser.add_argument("--rounds", type=int, default=3, help="of each turn; their median counts")
    parser.add_argument("--turns", type=int, default=3, help="in which one process, 1 replica and 2 are opened anew")
    parser.add_argument("--requests", type=int, default=50, help="for the latency")
    parser.add_argument("--only", nargs="*", choices=("scale", "latency"), default=("scale", "latency"))
    asked = parser.parse_args()
    print(f"busy before: {psutil.cpu_percent(3):.0f} % of {os.cpu_count()} cores\n")
    with tempfile.TemporaryDirectory() as folder:
        if "scale" in asked.only:
            scale(build("qwen3", Path(folder) / "middle", **MIDDLE), asked)  # type: ignore[arg-type]
        if "latency" in asked.only:
            latency(build("qwen3", Path(folder) / "tiny"), asked.requests)
    print(f"\nbusy after: {psutil.cpu_percent(3):.0f} % of {os.cpu_count()} cores")


def scale(model: Path, asked: argparse.Namespace) -> None:
    """Tokens a second of this process's engine, of one replica and of two, in turn: a machine changes meanwhile."""
    ways = {"in one process": (1, 0), "1 replica": (1, 1), "2 replicas": (2, 2)}
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(asked.turns):
        for name, (share, count) in ways.items():
            with replicas(model, count) if count else local(model) as engine:
                crowd(engine, share * asked.streams, 8)
                rounds = [crowd(engine, share * asked.streams, asked.tokens) for _ in range(asked.rounds)]
            seen[name].append(statistics.median(rounds))
    print(f"| {asked.streams} streams for each, {asked.tokens} tokens | tokens a second, by turn |\n|---|---|")
    for name, each in seen.items():
        print(f"| {name} | {', '.join(f'{figure:.0f}' for figure in each)} |")
    times = [two / one for one, two in zip(seen["1 replica"], seen["2 replicas"], strict=True)]
    by_turn = ", ".join(f"{ratio:.2f}" for ratio in times)
    print(f"\n2 replicas against 1: {statistics.median(times):.2f} times ({by_turn})\n", flush=True)


def latency(model: Path, requests: int) -> None:
    """How long a request takes to its first token and to its 32nd, in this process and through Ray."""
    print(f"| {requests} requests, one after the other | first token, p95 | 32 tokens, p95 |\n|---|---|---|")
    medians = []
    for name, opened in (("in one process", local(model)), ("through Ray", replicas(model, 1))):
        with opened as engine:
            for _ in range(5):
                ask(engine, "warm up", 8)
            times = [timed(engine, f"Count to {n}.") for n in range(requests)]
        first, whole = ([each[part] for each in times] for part in (0, 1))
        medians.append((statistics.median(first), statistics.median(whole)))
        print(f"| {name} | {spread(first)} | {spread(whole)} |", flush=True)
    (here, here_whole), (there, there_whole) = medians
    more = (there - here) * 1e3, (there_whole - here_whole) * 1e3
    print(f"\nThrough Ray: {more[0]:+.1f} ms to the first token, {more[1]:+.1f} ms to the 32nd")


def spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.1f} ms, {statistics.quantiles(seconds, n=20)[-1] * 1e3:.1f} ms"


def timed(engine: Engine, text: str) -> tuple[float, float]:
    """Seconds to the first token of an answer and to the last."""
    begun, heard = time.perf_counter(), list[float]()

    def hear(event: Event) -> None:
        if event.says_something:
            heard.append(time.perf_counter())

    ask(engine, text, 32, hear)
    return heard[0] - begun, time.perf_counter() - begun


def crowd(engine: Engine, streams: int, tokens: int) -> float:
    """Tokens a second of so many requests at once."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        answers = pool.map(lambda n: ask(engine, f"Say {n}.", tokens), range(streams))
        count = sum(each.completion_tokens for each in answers)
    return count / (time.perf_counter() - begun)


def ask(engine: Engine, text: str, tokens: int, report: Report | None = None) -> Completion:
    sampling = Sampling(temperature=0, max_tokens=tokens, logit_bias=ENDLESS)
    return engine.chat(ChatRequest((Message("user", text),), sampling=sampling), report or unheard)


@contextmanager
def local(model: Path) -> Iterator[Engine]:
    """The engine in this process."""
    from millm.engines.loader import open_model

    engine = open_model(RECORD, LoadOptions(model), unheard)
    yield engine
    engine.close()


@contextmanager
def replicas(model: Path, count: int) -> Iterator[Engine]:
    """The engine in so many replicas, on a Ray of its own."""
    engine = open_ray(RECORD, LoadOptions(model), unheard, Cluster(fewest=count, most=count, environment=OF_REPLICAS))
    yield engine
    engine.close()


def unheard(_: Event) -> None:
    """What is reported on the way."""


if __name__ == "__main__":
    main()
