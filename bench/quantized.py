"""Opening a model that was quantized once, against quantizing it on every load; and what quantizing itself takes.

    python bench/quantized.py [--layers 12] [--hidden 1024] [--rounds 3]

Makes a random Qwen3-shaped model in bfloat16. Every load is a process of its own that opens the model, writes one
token, and says how long that took and the most memory of its own (anonymous, from /proc) it ever had; what torch and
transformers take before the load is left out of both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from millm.child import ERRAND  # noqa: E402
from millm.conversion import PROCESS_BYTES  # noqa: E402
from millm.estimate import Estimator  # noqa: E402
from millm.records import Quantization  # noqa: E402

LOAD = """
import json, sys, time
import torch, transformers, bitsandbytes
sys.path[:0] = [{root!r}]
from millm.engines import bnb, loader
folder, form = sys.argv[1], sys.argv[2]
transformers.logging.set_verbosity_error()
print("ready", flush=True)
sys.stdin.readline()
begun = time.monotonic()
config = transformers.AutoConfig.from_pretrained(folder)
settings = None
if form:
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    settings = bnb.bitsandbytes_config(empty, form, torch.bfloat16)
network = loader.load_weights(loader.Path(folder), config, lambda _: None, quantize=settings)
with torch.inference_mode():
    network(input_ids=torch.zeros((1, 1), dtype=torch.long))
print(json.dumps(time.monotonic() - begun), flush=True)
"""


def own_bytes(pid: int) -> int:
    """Memory of a process that is no mapped file; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


class Peak:
    """The most memory that a process has while this is watched."""

    def __init__(self, pid: int) -> None:
        self.most = self.first = own_bytes(pid)
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.most = max(self.most, own_bytes(self._pid))

    def end(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.most


def load(folder: Path, form: str) -> tuple[float, int]:
    """Seconds, and bytes at the peak beyond what the imports took."""
    command = [sys.executable, "-c", LOAD.format(root=str(ROOT)), str(folder), form]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    peak = Peak(process.pid)
    process.stdin.write("go\n")
    process.stdin.flush()
    seconds = json.loads(process.stdout.readline() or "null")
    most = peak.end()
    _, complaint = process.communicate()
    if seconds is None:
        raise RuntimeError(complaint[-500:])
    return float(seconds), most - peak.first


def quantize(source: Path, target: Path, form: str) -> tuple[float, int]:
    """Seconds, and bytes at the peak of the process that quantizes, its imports and its self-test among them."""
    target.mkdir()
    asked = json.dumps({"source": str(source), "target": str(target), "form": form, "trusted": False})
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "millm.engines.quantize"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **ERRAND},
    )
    peak = Peak(process.pid)
    said, _ = process.communicate(asked + "\n")
    most = peak.end()
    if '"done"' not in said.splitlines()[-1]:
        raise RuntimeError(said[-500:])
    return time.monotonic() - begun, most


def make(folder: Path, layers: int, hidden: int) -> dict[str, object]:
    """A random model with its tokenizer; returns its config."""
    import torch
    import transformers
    from tiny_models import make_tokenizer

    config = transformers.Qwen3Config(
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=3 * hidden,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        head_dim=64,
        vocab_size=32_000,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    written: dict[str, object] = json.loads((folder / "config.json").read_text())
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    estimator = Estimator()
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "half"
        config = make(source, options.layers, options.hidden)
        size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
        print(f"A model of {size / 2e6:.0f} million parameters, {size / 1e6:.0f} MB in bfloat16.\n")
        print("| form | quantize once | memory, estimated | open the copy | quantize on load | time | memory |")
        print("|---|---|---|---|---|---|---|")
        for form in (Quantization.Q4, Quantization.Q8):
            target = Path(name) / form
            once_s, once = quantize(source, target, form)
            told = estimator.estimate(
                config, form, param_count=None, weight_file_bytes=0, on_gpu=False, context_length=64
            )
            pairs = [(load(target, ""), load(source, form)) for _ in range(options.rounds)]
            (copy_s, copy), (fresh_s, fresh) = (
                (
                    statistics.median(pair[side][0] for pair in pairs),
                    statistics.median(pair[side][1] for pair in pairs),
                )
                for side in (0, 1)
            )
            expected = told.quantizing + PROCESS_BYTES
            print(
                f"| {form} | {once_s:.1f} s, {once / 1e6:.0f} MB | {expected / 1e6:.0f} MB "
                f"| {copy_s:.2f} s, {copy / 1e6:.0f} MB | {fresh_s:.2f} s, {fresh / 1e6:.0f} MB "
                f"| {fresh_s / copy_s:.1f} x | {fresh / copy:.1f} x |",
                flush=True,
            )
    estimator.close()


if __name__ == "__main__":
    main()
