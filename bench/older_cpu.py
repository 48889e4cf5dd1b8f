"""What half precision costs on a processor with AVX2 alone: in bfloat16, as it is now, and in float32, as it was.

    python bench/older_cpu.py [--rounds 4] [--keep FOLDER]

A processor with more is kept from using it: torch, oneDNN and bitsandbytes are told that there is no more than AVX2.
The model of `serve.py` is loaded twice in one process, in both number formats, and both are asked in turn: one row,
eight rows, and a prompt of 128 tokens; medians.
"""

import argparse
import tempfile
from pathlib import Path

from rivals import ROOT, child, make_models

OLD = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
FORMS = {"FP16": "bf16", "Q8": "q8", "Q4": "q4"}
MAKE = """
import sys, torch, transformers
from pathlib import Path
folder = Path(sys.argv[1])
settings = {
    "q8": transformers.BitsAndBytesConfig(load_in_8bit=True),
    "q4": transformers.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32),
}
for name, how in settings.items():
    transformers.AutoModelForCausalLM.from_pretrained(folder / "bf16", dtype=torch.float32,
        quantization_config=how).save_pretrained(folder / f"{name}-float32")
"""
MEASURE = """
import json, statistics, sys, time
from functools import partial
sys.path[:0] = [sys.argv[1]]
import bitsandbytes.backends.cpu.ops, bitsandbytes.functional, bitsandbytes.nn.modules, torch, transformers
for module in (bitsandbytes.backends.cpu.ops, bitsandbytes.functional, bitsandbytes.nn.modules):
    module.has_avx512bf16 = lambda: False
from millm.engines.forward import Forward
from millm.engines.kernels import quicken
assert torch.backends.cpu.get_cpu_capability() == "AVX2"
works, sizes = {}, {}
with torch.inference_mode():
    for name, folder in (("bfloat16", sys.argv[2]), ("float32", sys.argv[3])):
        network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, name)).eval()
        assert network.dtype == getattr(torch, name)
        quicken(network, mapped=True)
        forward = Forward(network)
        sizes[name] = sum({p.data_ptr(): p.nbytes for p in network.parameters()}.values())
        for rows in (1, 8):
            slots = forward.new_slots()
            for _ in range(rows):
                slots.join(forward.read(list(range(30)), forward.new_cache())[1], 30)
            works[f"{rows} rows", name] = partial(forward.step, [5] * rows, slots)
        works["prompt", name] = lambda read=forward: read.read(list(range(128)), read.new_cache())
    times = {key: [] for key in works}
    for _ in range(int(sys.argv[4]) + 1):
        for key, work in works.items():
            begun = time.perf_counter(); work(); times[key].append(time.perf_counter() - begun)
found = {what: [statistics.median(times[what, name][1:]) for name in sizes] for what, _ in works}
print(json.dumps({"sizes": list(sizes.values()), **found}))
"""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--keep", type=Path, help="a folder for the models, so that another run need not make them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.keep or Path(temporary)
        if not (work / "tiny").exists():
            work.mkdir(exist_ok=True)
            make_models(work)
        if not (work / "q4-float32").exists():
            child(MAKE, str(work), **OLD)
        for form, folder in FORMS.items():
            other = folder if form == "FP16" else f"{folder}-float32"
            found = child(MEASURE, str(ROOT), str(work / folder), str(work / other), str(given.rounds), **OLD)
            now, before = found.pop("sizes")
            told = [f"{one * 1e3:.0f} and {two * 1e3:.0f} ms (x{two / one:.2f})" for one, two in found.values()]
            print(f"| {form} | {now / 1e6:.0f} and {before / 1e6:.0f} MB | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()
