"""What is counted on an empty copy is what a loaded model takes, to the byte."""

from pathlib import Path
from typing import Any

import pytest
from allocated import KINDS, cache_bytes, load, make, prefill_bytes, weight_bytes

from millm.estimate import Estimator
from millm.records import Quantization

torch = pytest.importorskip("torch")

from millm.engines.blueprint import NotBuildable, answer, draw  # noqa: E402

pytestmark = pytest.mark.slow
TOKENS = 200
LLAMA = {"model_type": "llama", **KINDS["llama"]}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_cache_and_prompt_are_counted_to_the_byte(tmp_path: Path, kind: str) -> None:
    drawn = draw(make(kind, tmp_path), torch.bfloat16, (TOKENS,))
    model = load(tmp_path, "FP16")
    assert drawn.weights["FP16"] == weight_bytes(model)
    kept = drawn.cache.full * TOKENS + drawn.cache.constant
    kept += sum(min(TOKENS, window) * size for window, size in drawn.cache.windows)
    assert kept == cache_bytes(model, TOKENS)
    real = prefill_bytes(model, TOKENS)
    assert drawn.prefill[TOKENS] == pytest.approx(real, rel=0.05)


@pytest.mark.parametrize("form", ["Q8", "Q4"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text", "mixtral"])
def test_quantized_weights_are_counted_to_the_byte(tmp_path: Path, kind: str, form: str) -> None:
    pytest.importorskip("bitsandbytes")
    drawn = draw(make(kind, tmp_path), torch.bfloat16)
    assert drawn.weights[form] == weight_bytes(load(tmp_path, form))


def test_what_quantizing_hardly_helps_is_said() -> None:
    assert draw(LLAMA, torch.bfloat16).note == ""
    experts = {**LLAMA, "model_type": "mixtral", "num_local_experts": 64}
    assert "the experts of this architecture" in draw(experts, torch.bfloat16).note
    falcon = {**KINDS["falcon"], "model_type": "falcon", "num_hidden_layers": 40}
    assert "Q4 takes 100%" in draw(falcon, torch.bfloat16).note


def test_a_token_for_padding_is_not_looked_for() -> None:
    gpt2 = {"model_type": "gpt2", **KINDS["gpt2"]}
    padded = draw({**gpt2, "pad_token_id": 0, "auto_map": {"AutoModel": "x.Y"}}, torch.bfloat16, (50,))
    assert padded == draw(gpt2, torch.bfloat16, (50,))


def test_float16_is_counted_as_bfloat16_experts_too() -> None:
    experts = {"model_type": "mixtral", **KINDS["mixtral"]}
    assert draw(experts, torch.float16, (50,)) == draw(experts, torch.bfloat16, (50,))


def test_infinite_numbers_of_a_config_are_read() -> None:
    llama = {"model_type": "llama", **KINDS["llama"]}
    endless = {
        **llama,
        "time_step_limit": [0.0, {"__float__": "Infinity"}],
        "more": {"x": {"__float__": "-Infinity"}},
    }
    assert draw(endless, torch.bfloat16) == draw(llama, torch.bfloat16)


def test_a_layer_that_loops_is_traced_in_part(tmp_path: Path) -> None:
    drawn = draw(make("mamba", tmp_path), torch.bfloat16, (600,))
    assert drawn.prefill[600] == pytest.approx(prefill_bytes(load(tmp_path, "FP16"), 600), rel=0.02)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "no such thing"},
        {"model_type": ["llama"]},
        {"model_type": "llama", "hidden_size": "wide"},
        {"model_type": "llama", "num_attention_heads": 0},
        {"model_type": "llama", "num_hidden_layers": 10**6},
        {"model_type": "llama", "hidden_size": 2**40},
        {"model_type": "llama", "text_config": {"vocab_size": -5}},
        {"model_type": "llama", "rope_scaling": {"rope_type": "evil"}},
        {"model_type": "bert"},
    ],
)
def test_what_strangers_write_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(NotBuildable):
        draw(config, torch.bfloat16, (16,))


def test_a_question_is_answered_in_json() -> None:
    assert "no model type" in answer('{"config": {"model_type": "x"}, "device": "cpu", "prompts": []}')["error"]


def test_the_process_of_its_own_answers_and_survives_a_config_that_would_take_for_ever() -> None:
    estimator = Estimator(answer_s=12)
    given: dict[str, Any] = {"param_count": 1, "weight_file_bytes": 0, "on_gpu": False}
    endless = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4096, "num_hidden_layers": 1000}
    exact = estimator.estimate(LLAMA, Quantization.Q4, **given)
    assert exact.provenance == "exact"
    assert estimator.estimate({**endless, "head_dim": 2**20}, Quantization.Q4, **given).total > 0
    again = estimator.estimate({**LLAMA, "num_hidden_layers": 2}, Quantization.Q4, **given)
    assert (again.provenance, again.weights < exact.weights) == ("exact", True)
    process = estimator._process
    assert estimator.close()
    assert process is not None
    assert not process.alive
