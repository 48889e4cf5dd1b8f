"""What `serve.py` measures: random models, and servers with one of them loaded."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from running import Client, free_port, start_app, wait_until_up  # noqa: E402

OLDER = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}  # as if the processor had no unit for bfloat16
LIBRARIES = {"GOMP_SPINCOUNT": "20000", "THP_MEM_ALLOC_ENABLE": "1", "HF_HUB_OFFLINE": "1"}

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
size = sum(p.numel() * p.element_size() for p in {p.data_ptr(): p for p in model.parameters()}.values())
print(json.dumps({"tokens_per_s": sorted(rates)[1], "weights": size}))
"""
BANDWIDTH = """
import json, time, torch
block = torch.ones(250_000_000)
sums = []
for _ in range(6):
    begun = time.perf_counter(); block.sum(); sums.append(block.nbytes / (time.perf_counter() - begun))
print(json.dumps(max(sums)))
"""
PREFILL = """
import json, sys, time, torch, transformers
sys.path[:0] = [sys.argv[2]]
from millm.engines.kernels import quicken
transformers.logging.set_verbosity_error()
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()
swift = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()
quicken(swift, mapped=True)
ids = torch.randint(100, 2000, (1, int(sys.argv[3])))
times = {"plain": [], "ours": []}
with torch.inference_mode():
    for _ in range(4):
        for name, one in (("plain", model), ("ours", swift)):
            begun = time.perf_counter(); one(input_ids=ids, use_cache=True, logits_to_keep=1)
            times[name].append(time.perf_counter() - begun)
print(json.dumps({name: sorted(all[1:])[1] for name, all in times.items()}))
"""


def child(code: str, *arguments: str, **more: str) -> Any:
    """Runs code in a process of its own, with more environment variables; returns the JSON of its last line."""
    environment = {**os.environ, **LIBRARIES, **more}
    run = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    return json.loads(run.stdout.strip().splitlines()[-1]) if run.stdout.strip() else None


@contextmanager
def ours(folder: Path, work: Path) -> Iterator[tuple[str, str]]:
    """miLLM with the model of a folder loaded; yields address and model name."""
    cache = work / f"cache-{time.monotonic_ns()}"
    app = wait_until_up(start_app(cache, cache.with_suffix(".log"), **LIBRARIES))
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
    log = (work / f"theirs-{port}.log").open("w")
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


def make_models(folder: Path) -> None:
    """Writes the models into folders: bf16, q8, q4 and tiny."""
    child(MAKE.format(root=str(ROOT), folder=str(folder)))


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
