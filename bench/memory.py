"""Estimated memory against bytes really allocated, for random models of many architectures in all three forms.

    python bench/memory.py [--kinds llama,qwen3] [--tokens 300] [--large]

Every load is a process of its own. Weights: all storages with what bitsandbytes keeps beside them, once loaded.
Running: the same after the first token, when 4-bit weights may have been packed for the processor. Cache: after
`tokens` tokens. Prefill: the peak of all tensors while a prompt of `tokens` is read. Saved: the safetensors files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from allocated import KINDS, make  # noqa: E402

from millm.estimate import Estimator  # noqa: E402
from millm.records import Quantization  # noqa: E402


def measure(folder: Path, form: str, tokens: int) -> dict[str, int]:
    command = [sys.executable, ROOT / "tests" / "allocated.py", folder, form, str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    measured: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return measured


def off(estimated: int, real: int) -> float:
    return 100 * (estimated - real) / real if real else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(kind for kind in KINDS if kind != "mamba"))
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--large", action="store_true", help="models of 50 to 300 million parameters")
    options = parser.parse_args()
    estimator, worst = Estimator(), {"weights": 0.0, "running": 0.0, "cache": 0.0, "prefill": 0.0, "saved": 0.0}
    print("| architecture | FP16 | Q8 | Q4 (estimated / allocated bytes) | cache | prefill | saved, worst |")
    print("|---|---|---|---|---|---|---|")
    for kind in options.kinds.split(","):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            config = make(kind, folder, options.large)
            cells, saved, parts = [], 0.0, []
            for form in (Quantization.FP16, Quantization.Q8, Quantization.Q4):
                told = estimator.estimate(
                    config, form, param_count=None, weight_file_bytes=0, on_gpu=False, context_length=options.tokens
                )
                real = measure(folder, form, options.tokens)
                cells.append(f"{told.stored} / {real['weights']}")
                errors = {
                    "weights": off(told.stored, real["weights"]),
                    "running": off(told.weights, real["running"]),
                    "saved": off(told.stored, real["saved"]),
                }
                if "cache" in real:
                    errors["cache"] = off(told.kv_cache, real["cache"])
                    errors["prefill"] = off(told.kv_cache + told.activations, real["prefill"])
                    parts = [f"{errors['cache']:+.2f} %", f"{errors['prefill']:+.1f} %"]
                saved = max(saved, abs(errors["saved"]))
                worst = {part: max(value, abs(errors.get(part, 0.0))) for part, value in worst.items()}
            print(f"| {kind} | {' | '.join([*cells, *parts])} | {saved:.2f} % |", flush=True)
    print("\nworst: " + ", ".join(f"{part} {value:.3f} %" for part, value in worst.items()))
    estimator.close()


if __name__ == "__main__":
    main()
