"""miLLM's HTTP API against `transformers serve` and against `generate`, with the `openai` client, in one run.

    python bench/serve.py [--only single eight long forms prefill turn overhead crowd] [--rounds 3]

Makes a random Qwen3-like model of 0.5 billion bfloat16 numbers, its 8-bit and 4-bit copies, and a tiny one. Servers
are asked in turn, each alone; figures are medians over the rounds. Says how busy other programs kept the machine
before and after: above a few percent the figures mean little.
"""

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import openai
import psutil

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from rivals import BANDWIDTH, GENERATE, OLDER, PREFILL, child, make_models, ours, servers  # noqa: E402
from running import App, Client, start_app, wait_until_up  # noqa: E402

LOADS = {"single": (1, 200, 64), "eight": (8, 200, 48), "long": (8, 1000, 192)}  # streams, tokens read and written
LEFT_OUT = {("long", "serve")}  # would take minutes, one after the other
PARTS = ("single", "eight", "long", "forms", "prefill", "turn", "overhead", "crowd")
WORDS = ("list", "file", "path", "read", "write", "open", "name", "value", "key", "item", "text", "line", "word")


@dataclass
class Answer:
    """One streamed answer. Times in seconds since it was asked for."""

    tokens: int
    first: float
    whole: float
    text: str = ""


def question(tokens: int, seed: int) -> str:
    """A text of about so many tokens that no other request begins with."""
    rng = random.Random(seed)
    return f"{seed} " + " ".join(rng.choice(WORDS) for _ in range(int(tokens / 1.35)))


def ask(server: tuple[str, str], text: str, count: int) -> Answer:
    client = openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", timeout=600)
    begun, first, tokens, said = time.perf_counter(), 0.0, 0, ""
    turns = [{"role": "user", "content": text}]
    for chunk in client.chat.completions.create(
        model=server[1], messages=turns, max_tokens=count, temperature=0, stream=True
    ):
        if chunk.choices and chunk.choices[0].delta.content:
            tokens += 1
            said += chunk.choices[0].delta.content
            first = first or time.perf_counter() - begun
    return Answer(tokens, first, time.perf_counter() - begun, said)


def at_once(works: list[Callable[[], Answer]]) -> tuple[list[Answer], float]:
    """Answers asked for together, and the seconds until the last was there."""
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda w=work: answers.append(w())) for work in works]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers, time.perf_counter() - begun


def rate(server: tuple[str, str], streams: int, prompt: int, count: int, seed: int) -> dict[str, float]:
    """Tokens a second of all streams together, and the median time to the first token."""
    lengths = [prompt + 7 * number for number in range(streams)]
    answers, seconds = at_once(
        [lambda n=n, size=size: ask(server, question(size, seed + n), count) for n, size in enumerate(lengths)]
    )
    return {
        "tokens_per_s": sum(answer.tokens for answer in answers) / seconds,
        "first": statistics.median(answer.first for answer in answers),
    }


def median(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def streams(work: Path, only: set[str], rounds: int) -> None:
    """The parts that compare servers. All are up at once and asked in turn: a slow minute is slow for each."""
    with ExitStack() as stack:
        up = {name: stack.enter_context(start()) for name, start in servers(work / "bf16", work).items()}
        for number, server in enumerate(up.values()):
            ask(server, question(20, number), 4)
        for part in [name for name in LOADS if name in only]:
            asked = {name: server for name, server in up.items() if (part, name) not in LEFT_OUT}
            found: dict[str, list[dict[str, float]]] = {name: [] for name in asked}
            for number in range(rounds):
                for name, server in asked.items():
                    found[name].append(rate(server, *LOADS[part], 1000 * number))
            _print_streams(part, {name: median(each) for name, each in found.items()})


def _print_streams(part: str, middle: dict[str, dict[str, float]]) -> None:
    for name, one in middle.items():
        times = middle["ours"]["tokens_per_s"] / one["tokens_per_s"]
        print(
            f"| {part} | {name} | {one['tokens_per_s']:.1f} tok/s | {one['first']:.2f} s | ours x{times:.2f} |",
            flush=True,
        )


def forms(work: Path) -> None:
    for form in ("bf16", "q8", "q4"):
        raw = child(GENERATE, str(work / "bf16"))
        with ours(work / form, work) as server:
            ask(server, question(20, 1), 4)
            found = [ask(server, question(200, seed), 64) for seed in range(3)]
            whole = statistics.median(answer.tokens / answer.whole for answer in found)
            print(
                f"| {form} | {whole:.1f} tok/s | x{whole / raw['tokens_per_s']:.2f} of generate in bf16 |", flush=True
            )
            if form == "bf16":
                _print_share(server, raw["weights"])


def _print_share(server: tuple[str, str], weights: int) -> None:
    """How much of the memory's bandwidth decoding uses. Both are measured in turn; the median turn is shown."""
    turns = []
    for seed in range(5):
        bandwidth = child(BANDWIDTH)
        answer = ask(server, question(200, 10 + seed), 64)
        rate = (answer.tokens - 1) / (answer.whole - answer.first)
        turns.append((rate * weights / bandwidth, rate, bandwidth))
    share, rate, bandwidth = sorted(turns)[len(turns) // 2]
    print(f"| decoding | {rate:.1f} tok/s | {share:.0%} of {bandwidth / 1e9:.1f} GB/s |", flush=True)


def prefill(work: Path) -> None:
    parts = (("Q4, prompt of 512", "q4", 512, {}), ("bf16, prompt of 128, no unit for bfloat16", "bf16", 128, OLDER))
    for what, form, tokens, environment in parts:
        found = child(PREFILL, str(work / form), str(ROOT), str(tokens), **environment)
        plain, own = found["plain"], found["ours"]
        print(f"| {what} | {plain:.2f} s | {own:.2f} s | x{plain / own:.2f} |", flush=True)


def turn(work: Path) -> None:
    with ours(work / "bf16", work) as server:
        ask(server, question(20, 1), 4)
        cold = [ask(server, question(1800, seed), 2).first for seed in (11, 12)]
        known = []
        for seed in (21, 22):
            first = question(1600, seed)
            ask(server, first, 2)
            known.append(ask(server, f"{first} {question(200, seed)}", 2).first)
    print(f"| second turn | {min(cold):.2f} s | {min(known):.2f} s | x{min(known) / min(cold):.2f} |")


def overhead(work: Path) -> None:
    for name, start in list(servers(work / "tiny", work).items())[:2]:
        with start() as server:
            times = [ask(server, "Hello", 1).whole for _ in range(60)][10:]
        print(f"| one token of a tiny model | {name} | {1000 * statistics.median(times):.1f} ms |")


def crowd(work: Path) -> None:
    """64 clients, half of whom leave, and one switch of models in the middle."""
    questions = [line.split(" ", 1)[-1] for line in (ROOT / "tools/guide/blind.txt").read_text().splitlines()]
    questions = [text for text in questions if text.endswith("?")][:32]
    cache = work / f"crowd-{time.monotonic_ns()}"
    app = wait_until_up(start_app(cache, work / "crowd.log", "--auto-load-model", "millm-guide", first=True))
    try:
        _crowd(app, questions, work)
    finally:
        app.stop()


def _crowd(app: App, questions: list[str], work: Path) -> None:
    client = Client(app)
    guide = client.wait(client.ask("GET", "/api/models", 200)[0]["id"], "loaded")
    other = client.ask("POST", "/api/models", 202, {"source": "local", "local_path": str(work / "tiny")})
    server = (app.url, guide["name"])
    alone = {text: ask(server, text, 60).text for text in questions}
    before = psutil.Process(app.process.pid).num_threads()
    outcomes = {"right": 0, "wrong": 0, "left": 0, "refused": 0}

    def one(number: int) -> None:
        text, rng = questions[number % len(questions)], random.Random(number)
        try:
            if number % 2:
                _leave_early(server, text, rng.randint(1, 12))
                outcomes["left"] += 1
            else:
                outcomes["right" if ask(server, text, 60).text == alone[text] else "wrong"] += 1
        except openai.APIError:
            outcomes["refused"] += 1

    threads = [threading.Thread(target=one, args=(number,)) for number in range(64)]
    for thread in threads[:48]:
        thread.start()
    time.sleep(0.2)
    client.wait(other["id"], "ready")
    client.ask("POST", f"/api/models/{other['id']}/load", 202, {"force": True})
    for thread in threads[48:]:
        thread.start()
    for thread in threads:
        thread.join(60)
    client.wait(other["id"], "loaded")
    time.sleep(3)
    hung = sum(thread.is_alive() for thread in threads)
    running = client.ask("GET", "/api/system", 200)["requests_running"]
    threads_now = psutil.Process(app.process.pid).num_threads()
    print(f"| 64 clients | {outcomes} | hung {hung} | still running {running} | threads {before} -> {threads_now} |")


def _leave_early(server: tuple[str, str], text: str, pieces: int) -> None:
    client = openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", timeout=60)
    turns = [{"role": "user", "content": text}]
    with client.chat.completions.create(model=server[1], messages=turns, max_tokens=60, stream=True) as stream:
        for number, _ in enumerate(stream):
            if number >= pieces:
                return


def main() -> None:
    """Runs the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="a folder for the models, so that another run need not make them")
    given = parser.parse_args()
    print(f"others use {psutil.cpu_percent(3):.0f} % of the processors")
    with tempfile.TemporaryDirectory() as temporary:
        work = given.keep or Path(temporary)
        if not (work / "tiny").exists():
            work.mkdir(exist_ok=True)
            make_models(work)
        if LOADS.keys() & set(given.only):
            streams(work, set(given.only), given.rounds)
        for name, part in (("forms", forms), ("prefill", prefill), ("turn", turn), ("overhead", overhead)):
            if name in given.only:
                part(work)
        if "crowd" in given.only:
            crowd(work)
    print(f"others use {psutil.cpu_percent(3):.0f} % of the processors")


if __name__ == "__main__":
    main()
