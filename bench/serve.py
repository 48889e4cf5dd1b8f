"""miLLM's HTTP API against `transformers serve` and against `generate`, with the `openai` client, in one run.

    python bench/serve.py [--only single eight long forms prefill turn overhead crowd] [--rounds 2]

Makes a random Qwen3-like model of 0.5 billion bfloat16 numbers, its 8-bit and 4-bit copies, and a tiny one. Each
server is started once a round and asked alone; figures are medians over the rounds. Says how busy other programs kept
the machine meanwhile: above a few percent the figures mean little.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from running import App, Client, free_port, start_app, wait_until_up  # noqa: E402

LIBRARIES = {"GOMP_SPINCOUNT": "20000", "THP_MEM_ALLOC_ENABLE": "1", "HF_HUB_OFFLINE": "1"}
PARTS = ("single", "eight", "long", "forms", "prefill", "turn", "overhead", "crowd")
WORDS = (
    "list",
    "file",
    "path",
    "read",
    "write",
    "open",
    "name",
    "value",
    "key",
    "item",
    "text",
    "line",
    "word",
    "code",
)

MAKE = """
import sys, torch, transformers
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from tiny_models import build, make_tokenizer, train
from tokenizers import Tokenizer
import json
folder = {folder!r}
shape = dict(hidden_size=1024, num_hidden_layers=22, intermediate_size=3072, num_attention_heads=16,
    num_key_value_heads=8, head_dim=128, vocab_size=151936, tie_word_embeddings=True, max_position_embeddings=4096)
tokenizer = make_tokenizer()
core = json.loads(train().to_str())
vocabulary = core["model"]["vocab"]
vocabulary |= {{f"\\u0120w{{n:06d}}": n for n in range(len(vocabulary), shape["vocab_size"])}}
full = transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(core)),
    eos_token=tokenizer.eos_token, pad_token=tokenizer.pad_token, chat_template=tokenizer.chat_template)
torch.manual_seed(0)
config = transformers.Qwen3Config(**shape, eos_token_id=full.eos_token_id, pad_token_id=full.pad_token_id)
model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
model.save_pretrained(folder + "/bf16")
full.save_pretrained(folder + "/bf16")
config_of = transformers.BitsAndBytesConfig
four = config_of(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.bfloat16)
for name, settings in (("q8", config_of(load_in_8bit=True)), ("q4", four)):
    copy = transformers.AutoModelForCausalLM.from_pretrained(folder + "/bf16", dtype=torch.bfloat16,
        quantization_config=settings)
    copy.save_pretrained(folder + "/" + name)
    full.save_pretrained(folder + "/" + name)
build("qwen3", folder + "/tiny")
"""
GENERATE = """
import json, sys, time, torch, transformers
transformers.logging.set_verbosity_error()
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()
ids = torch.randint(100, 2000, (1, 200))
ask = lambda n: model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n,
    do_sample=False)
ask(4)
rates = []
for _ in range(3):
    begun = time.perf_counter(); ask(64); rates.append(64 / (time.perf_counter() - begun))
block = torch.ones(250_000_000)
sums = []
for _ in range(6):
    begun = time.perf_counter(); block.sum(); sums.append(block.nbytes / (time.perf_counter() - begun))
size = sum(p.numel() * p.element_size() for p in {p.data_ptr(): p for p in model.parameters()}.values())
print(json.dumps({"tokens_per_s": sorted(rates)[1], "bandwidth": max(sums), "weights": size}))
"""
PREFILL = """
import json, sys, time, torch, transformers
sys.path[:0] = [sys.argv[2]]
from millm.engines.kernels import quicken
transformers.logging.set_verbosity_error()
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()
swift = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()
quicken(swift, mapped=True)
ids = torch.randint(100, 2000, (1, 512))
times = {"plain": [], "ours": []}
with torch.inference_mode():
    for _ in range(4):
        for name, one in (("plain", model), ("ours", swift)):
            begun = time.perf_counter(); one(input_ids=ids, use_cache=True, logits_to_keep=1)
            times[name].append(time.perf_counter() - begun)
print(json.dumps({name: sorted(all[1:])[1] for name, all in times.items()}))
"""


@dataclass
class Answer:
    """One streamed answer. Times in seconds since it was asked for."""

    tokens: int
    first: float
    whole: float
    text: str = ""


def child(code: str, *arguments: str) -> Any:
    """Runs code in a process of its own; returns the JSON of its last line."""
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], env={**os.environ, **LIBRARIES}, capture_output=True, text=True
    )
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    return json.loads(run.stdout.strip().splitlines()[-1]) if run.stdout.strip() else None


@contextmanager
def ours(folder: Path, work: Path) -> Iterator[tuple[str, str]]:
    """miLLM with the model of a folder loaded; yields address and model name."""
    cache = work / f"cache-{time.monotonic_ns()}"
    app = wait_until_up(start_app(cache, work / "ours.log", **LIBRARIES))
    try:
        client = Client(app)
        record = client.ask("POST", "/api/models", 202, {"source": "local", "local_path": str(folder)})
        client.wait(record["id"], "ready")
        client.ask("POST", f"/api/models/{record['id']}/load", 202, {"force": True})
        client.wait(record["id"], "loaded", 120)
        yield app.url, record["name"]
    finally:
        app.stop()


@contextmanager
def theirs(folder: Path, work: Path, *options: str) -> Iterator[tuple[str, str]]:
    """`transformers serve` with the model of a folder."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder), "--port", str(port), *options]
    log = (work / "theirs.log").open("w")
    process = subprocess.Popen(command, env={**os.environ, **LIBRARIES}, stdout=log, stderr=log)
    url = f"http://localhost:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{url}/health", timeout=1).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield url, str(folder)
    finally:
        process.terminate()
        process.wait(20)


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


def servers(folder: Path, work: Path) -> dict[str, Callable[[], Any]]:
    batched = (
        "--continuous-batching",
        "--cb-num-blocks",
        "64",
        "--cb-block-size",
        "256",
        "--cb-max-batch-tokens",
        "512",
    )
    return {
        "ours": lambda: ours(folder, work),
        "serve": lambda: theirs(folder, work),
        "serve --continuous-batching": lambda: theirs(folder, work, *batched),
    }


def streams(work: Path, only: set[str], rounds: int) -> None:
    """The parts that compare servers."""
    loads = {"single": (1, 200, 64), "eight": (8, 200, 48), "long": (8, 1000, 24)}
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for number in range(rounds):
        for name, start in servers(work / "bf16", work).items():
            with start() as server:
                ask(server, question(20, number), 4)
                for part, (width, prompt, count) in loads.items():
                    if part in only:
                        seed = 1000 * number + 100 * width + prompt
                        found.setdefault((part, name), []).append(rate(server, width, prompt, count, seed))
    for (part, name), all_found in found.items():
        middle = median(all_found)
        reference = median(found[part, "ours"])["tokens_per_s"]
        print(
            f"| {part} | {name} | {middle['tokens_per_s']:.1f} tok/s | {middle['first']:.2f} s |"
            f" ours x{reference / middle['tokens_per_s']:.2f} |",
            flush=True,
        )


def forms(work: Path) -> None:
    raw = child(GENERATE, str(work / "bf16"))
    bound = raw["bandwidth"] / raw["weights"]
    print(f"generate in-process {raw['tokens_per_s']:.1f} tok/s; bandwidth {raw['bandwidth'] / 1e9:.1f} GB/s")
    for form in ("bf16", "q8", "q4"):
        with ours(work / form, work) as server:
            ask(server, question(20, 1), 4)
            found = [ask(server, question(200, seed), 64) for seed in range(3)]
        decode = statistics.median((a.tokens - 1) / (a.whole - a.first) for a in found)
        whole = statistics.median(a.tokens / a.whole for a in found)
        share = f", {decode / bound:.0%} of the bandwidth limit" if form == "bf16" else ""
        times = whole / raw["tokens_per_s"]
        print(f"| {form} | {whole:.1f} tok/s | x{times:.2f} of generate | decode {decode:.1f}{share} |", flush=True)


def prefill(work: Path) -> None:
    found = child(PREFILL, str(work / "q4"), str(ROOT))
    plain, own = found["plain"], found["ours"]
    print(f"| 4-bit prompt of 512 | {plain:.2f} s | {own:.2f} s | x{plain / own:.2f} |", flush=True)


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
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="a folder for the models, so that another run need not make them")
    given = parser.parse_args()
    print(f"others use {psutil.cpu_percent(3):.0f} % of the processors")
    with tempfile.TemporaryDirectory() as temporary:
        work = given.keep or Path(temporary)
        if not (work / "tiny").exists():
            work.mkdir(exist_ok=True)
            child(MAKE.format(root=str(ROOT), folder=str(work)))
        streams(work, set(given.only), given.rounds if {"single", "eight", "long"} & set(given.only) else 0)
        for name, part in (("forms", forms), ("prefill", prefill), ("turn", turn), ("overhead", overhead)):
            if name in given.only:
                part(work)
        if "crowd" in given.only:
            crowd(work)
    print(f"others use {psutil.cpu_percent(3):.0f} % of the processors")


if __name__ == "__main__":
    main()
