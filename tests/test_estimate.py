"""Estimates from config and counts."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import PATIENCE_S

from millm.estimate import GPU_CONTEXT_BYTES, Estimate, Estimator, rough_estimate
from millm.records import Quantization

LLAMA_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
}


def test_known_figures_of_a_known_model() -> None:
    """131,072 bytes of KV cache a token, and 932 MiB of activations for 8k tokens, as measured for this model."""
    estimate = rough_estimate(LLAMA_8B, Quantization.FP16, 8_030_261_248, 0, on_gpu=True, context_length=8192)
    assert estimate.kv_cache == 131072 * 8192
    assert estimate.activations / 2**20 == pytest.approx(932, rel=0.01)
    assert estimate.weights == 2 * 8_030_261_248
    assert estimate.overhead == GPU_CONTEXT_BYTES
    assert estimate.total == estimate.weights + estimate.kv_cache + estimate.activations + estimate.overhead


def test_head_size_is_not_always_hidden_by_heads() -> None:
    plain = rough_estimate({**LLAMA_8B, "head_dim": 256}, Quantization.FP16, 1, 0, on_gpu=False)
    assert plain.kv_cache == 2 * 131072 * 4096
    assert plain.overhead == 0


def test_the_context_stops_at_what_the_model_can_do() -> None:
    short = {**LLAMA_8B, "max_position_embeddings": 512}
    assert rough_estimate(short, Quantization.FP16, 1, 0, on_gpu=False).context_length == 512
    assert (
        rough_estimate(
            {"text_config": short}, Quantization.FP16, 1, 0, on_gpu=False, context_length=9999
        ).context_length
        == 512
    )


def test_without_a_count_the_files_are_the_measure() -> None:
    estimate = rough_estimate({}, Quantization.FP16, None, 12345, on_gpu=False)
    assert (estimate.weights, estimate.provenance) == (12345, "from file sizes")


CHILD = """
import json, sys, time
if len(sys.argv) > 2: time.sleep(float(sys.argv[2]))
print('{"ready": true}', flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    kind = asked["config"]["model_type"]
    with open(sys.argv[1], "a") as log: log.write(kind + "\\n")
    if kind == "ends": sys.exit()
    if kind == "hangs": time.sleep(60)
    if kind == "strange": answer = {"error": "no such class"}
    else: answer = {
        "weights": {"FP16": 1000, "Q8": 500, "Q4": 250}, "largest": 10, "packing": 5, "note": "hardly",
        "prefill": {str(tokens): 9 * tokens + tokens * tokens // 10 for tokens in asked["prompts"]},
        "cache": {"full": 2, "windows": [[10, 3]], "constant": 7},
    }
    print("noise" if kind == "garbage" else json.dumps(answer), flush=True)
"""


class Asked:
    """An estimator whose child answers as its script says; `log` is what it was asked."""

    def __init__(self, folder: Path, *options: str) -> None:
        (folder / "child.py").write_text(CHILD)
        self._log = folder / "log"
        self.estimator = Estimator((sys.executable, str(folder / "child.py"), str(self._log), *options), answer_s=0.5)

    @property
    def log(self) -> list[str]:
        return self._log.read_text().split() if self._log.exists() else []

    def __call__(
        self, kind: str, form: Quantization = Quantization.FP16, quantization_config: Any = None, **more: Any
    ) -> Estimate:
        given = {"param_count": 5, "weight_file_bytes": 0, "on_gpu": False, "context_length": 100, **more}
        config = {"model_type": kind, "max_position_embeddings": 1000}
        if quantization_config:
            config["quantization_config"] = quantization_config
        return self.estimator.estimate(config, form, **given)


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    asked = Asked(tmp_path)
    yield asked
    assert asked.estimator.close()


def test_parts_are_put_together(asked: Asked) -> None:
    found = asked("llama", Quantization.Q4)
    assert (found.weights, found.stored) == (255, 250)
    assert (found.kv_cache, found.activations) == (2 * 100 + 10 * 3 + 7, 1900 - 237)
    assert (found.provenance, found.note, found.overhead, found.total) == ("exact", "hardly", 0, 255 + 1900)
    assert (found.quantizing, asked("llama").note) == (250 + 20, "")
    assert asked("llama", Quantization.Q4, on_gpu=True).weights == 250
    assert asked("llama", on_gpu=True).overhead == GPU_CONTEXT_BYTES + 380


def test_a_process_that_starts_slowly_is_left_alone_and_used_once_it_is_ready(tmp_path: Path) -> None:
    """It imports torch first; one that was ended for that would never be ready on a slow machine."""
    asked = Asked(tmp_path, "1.2")
    assert asked("llama").provenance != "exact"
    assert asked.log == []
    deadline = time.monotonic() + PATIENCE_S
    while asked("llama").provenance != "exact":
        assert time.monotonic() < deadline
    assert asked.log == ["llama"]
    assert asked.estimator.close()


def test_the_longest_context_that_fits_is_worked_out_between_the_traces(asked: Asked) -> None:
    def most(free: int, on_gpu: bool = False) -> int | None:
        return asked("llama", Quantization.Q4, context_length=1000, memory_free=free, on_gpu=on_gpu).most_context

    def needed(tokens: int) -> int:
        return 255 + 9 * tokens + tokens * tokens // 10

    assert most(needed(1000)) == 1000
    assert most(needed(1000) - 1) == 768
    assert most(needed(512) + 2) == 512
    assert most(needed(512) - 3) == 256
    assert most(255) == most(10) == 0
    assert most(GPU_CONTEXT_BYTES + 250 + int(1.2 * needed(512)), on_gpu=True) == 512
    assert asked("llama").most_context is None
    assert asked("strange", memory_free=10**9).most_context is None


def test_other_contexts_are_worked_out_without_asking_again(asked: Asked) -> None:
    config = {"model_type": "llama", "max_position_embeddings": 1000}
    found = asked("llama", context_length=1000)
    along = asked.estimator.along(config, Quantization.FP16, found, (300, 700, 1000), on_gpu=False)
    assert asked.log == ["llama"]
    assert [each.total for each in along] == [asked("llama", context_length=n).total for n in (300, 700, 1000)]


def test_what_is_rough_grows_with_the_context() -> None:
    rough = Estimator(())
    found = rough.estimate(LLAMA_8B, Quantization.Q4, param_count=8 * 10**9, weight_file_bytes=0, on_gpu=True)
    along = rough.along(LLAMA_8B, Quantization.Q4, found, (256, 131_072), on_gpu=True)
    for each in along:
        assert each == rough_estimate(
            LLAMA_8B, Quantization.Q4, 8 * 10**9, 0, on_gpu=True, context_length=each.context_length
        )


def test_what_we_quantized_ourselves_is_counted_as_it_was_before(asked: Asked) -> None:
    ours = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}
    assert asked("llama", Quantization.Q4, quantization_config=ours).stored == 250
    assert asked.log == ["llama"]
    other = asked("llama", Quantization.Q4, quantization_config={"quant_method": "gptq"}, weight_file_bytes=70)
    assert (other.weights, other.provenance) == (70, "from file sizes")


def test_the_same_is_asked_once(asked: Asked) -> None:
    for form in Quantization:
        asked("llama", form)
    assert asked.log == ["llama"]
    asked("llama", context_length=50)
    assert asked.log == ["llama", "llama"]


@pytest.mark.parametrize("kind", ["strange", "ends", "hangs", "garbage"])
def test_what_cannot_be_built_is_rough_and_the_next_one_is_not(asked: Asked, kind: str) -> None:
    assert asked(kind).provenance == "from parameter count"
    assert asked("llama").provenance == "exact"


def test_who_does_not_wait_gets_what_is_known(asked: Asked) -> None:
    assert (asked("llama", wait=False).provenance, asked.log) == ("from parameter count", [])
    asked("llama")
    assert asked("llama", wait=False).provenance == "exact"


def test_what_is_quantized_already_is_not_built(asked: Asked) -> None:
    config = {"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}
    found = asked.estimator.estimate(config, Quantization.FP16, param_count=None, weight_file_bytes=77, on_gpu=False)
    assert (found.weights, found.provenance, asked.log) == (77, "from file sizes", [])


def test_quantizing_without_building_leaves_embedding_head_and_experts_alone() -> None:
    def weights(config: dict[str, Any], form: Quantization) -> int:
        return rough_estimate(config, form, 1000, 0, on_gpu=False).weights

    tied = {"hidden_size": 10, "vocab_size": 30, "tie_word_embeddings": True}
    assert [weights(tied, form) for form in Quantization] == [600 + 360, 600 + 700, 2000]
    assert weights({**tied, "tie_word_embeddings": False}, Quantization.Q8) == 1200 + 400
    assert weights({**tied, "num_experts": 8}, Quantization.Q4) == 2000


def test_without_a_child_every_estimate_is_rough() -> None:
    estimator = Estimator(())
    estimator.warm_up()
    found = estimator.estimate(LLAMA_8B, Quantization.FP16, param_count=7, weight_file_bytes=0, on_gpu=False)
    assert found.provenance == "from parameter count"
    assert estimator.close()
