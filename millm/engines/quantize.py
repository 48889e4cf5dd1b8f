"""Quantizing a downloaded model once and for good: read, quantized, saved, read back, asked for a few tokens.

    python -m millm.engines.quantize

is told what to do by one JSON object, {"source": folder, "target": folder, "form": "Q4", "trusted": false}. It says
how far it is; see `answer_errand`.
It is a process of its own because reading weights changes torch for everybody, and its memory is surely given back.
"""

import gc
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from millm.child import answer_errand
from millm.engines.base import ChatRequest, Sampling
from millm.engines.bnb import bitsandbytes_config, quantized_layers
from millm.engines.loader import check_kind, half_dtype, load_weights, read_headers, stored_dtype
from millm.engines.loop import DecodeEngine
from millm.engines.memory import out_of_memory, release_memory
from millm.errors import LoadFailed, UnsupportedModel
from millm.events import Event, Report, Stage
from millm.records import Quantization

PROMPT, TOKENS = "Hello, how are you today?", 8
CLOSE = 0.05  # share of the largest logit that a copy read back may be off; on one machine it is 0
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index.json")
READ = 80.0  # percent of the way when all weights are read and quantized; saving them is the next part
SAVED = 95.0


def quantize(source: Path, target: Path, form: Quantization, trusted: bool, report: Report) -> None:
    """Makes the folder `target` from the model in `source`. trusted: its own Python code may run.

    Raises:
        UnsupportedModel: there is nothing to quantize in it, or it answers with numbers that are none.
        LoadFailed: its files are damaged, or the copy answers otherwise than what was saved.
        Exception: whatever transformers and bitsandbytes raise.
    """
    code = {"trust_remote_code": trusted, "local_files_only": True}
    check_kind(json.loads((source / "config.json").read_text("utf-8")))
    report(Event(Stage.QUANTIZING))
    config = transformers.AutoConfig.from_pretrained(source, **code)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, **code)
    ids = torch.tensor([tokenizer(PROMPT).input_ids or [0]])
    network = load_weights(
        source,
        config,
        lambda event: report(replace(event, stage=Stage.QUANTIZING, progress=event.progress * READ / 90)),
        quantize=_settings(source, config, form, trusted),
        **code,
    )
    report(Event(Stage.SAVING, READ))
    _save(network, source, target)
    said = _logits(network, ids)  # after saving: the first forward pass packs 4-bit weights anew for some CPUs
    del network
    gc.collect()
    release_memory()
    report(Event(Stage.VERIFYING, SAVED))
    copy = load_weights(target, transformers.AutoConfig.from_pretrained(target, **code), lambda _: None, **code)
    _compare(said, _logits(copy, ids))
    engine = DecodeEngine(copy, tokenizer, ids.shape[1] + TOKENS)
    engine.chat(ChatRequest(prompts=(PROMPT,), sampling=Sampling(temperature=0, max_tokens=TOKENS)), lambda _: None)
    engine.close()
    report(Event(Stage.VERIFYING, 100.0))


def _settings(source: Path, config: Any, form: Quantization, trusted: bool) -> transformers.BitsAndBytesConfig:
    compute = half_dtype(stored_dtype(config, read_headers(source)), "cuda" if torch.cuda.is_available() else "cpu")
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(config, dtype=compute, trust_remote_code=trusted)
    if not quantized_layers(empty, form):
        raise UnsupportedModel("bitsandbytes quantizes none of the layers of this architecture.")
    return bitsandbytes_config(empty, form, compute)


def _save(network: Any, source: Path, target: Path) -> None:
    """Saves the weights, and copies what else there is, generation defaults and all, as it was."""
    network.generation_config = transformers.GenerationConfig()  # saving refuses defaults that contradict each other
    network.save_pretrained(target)
    (target / "generation_config.json").unlink(missing_ok=True)
    for path in source.iterdir():
        if path.is_dir() or path.name.startswith(".") or path.name.endswith(WEIGHTS) or (target / path.name).exists():
            continue
        shutil.copyfile(path, target / path.name)


@torch.inference_mode()  # type: ignore[untyped-decorator]
def _logits(network: Any, ids: torch.Tensor) -> torch.Tensor:
    seen: torch.Tensor = network(input_ids=ids.to(network.device)).logits[0, -1].float().cpu()
    if not seen.isfinite().all():
        raise UnsupportedModel("The quantized model computes no valid probabilities.")
    return seen


def _compare(said: torch.Tensor, read_back: torch.Tensor) -> None:
    off = float((said - read_back).abs().max() / said.abs().max().clamp(min=1e-6))
    if off > CLOSE:
        raise LoadFailed(f"The saved copy answers otherwise than what was saved: {off:.0%} off.")


def work(asked: dict[str, Any], say: Callable[[Mapping[str, Any]], None]) -> bool:
    """Quantizes as it is asked, and says the stages."""
    transformers.logging.set_verbosity_error()

    def report(event: Event) -> None:
        parts = ("stage", "progress", "bytes_done", "bytes_total")
        say({name: getattr(event, name) for name in parts})

    form = Quantization(asked["form"])
    try:
        quantize(Path(asked["source"]), Path(asked["target"]), form, asked["trusted"], report)
    except Exception as error:
        if out_of_memory(error):
            raise MemoryError from error
        raise
    return True


if __name__ == "__main__":
    answer_errand(work)
