"""A model is quantized once, saved, tried out, and opens as what was estimated; or it says why not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
import torch
import transformers
from making import Watcher

from millm.child import run_errand
from millm.engines.base import ChatRequest, LoadOptions, Message, Sampling
from millm.engines.blueprint import draw
from millm.engines.bnb import quantized_layers
from millm.engines.loader import half_dtype, open_model
from millm.engines.quantize import quantize
from millm.errors import LoadFailed, UnsupportedModel
from millm.events import Event, Stage
from millm.quantizing import CHILD, CannotQuantize
from millm.quantizing import quantize as quantize_in_child
from millm.records import ModelRecord, Quantization

pytestmark = pytest.mark.slow

Tiny = Callable[..., Path]
FORMS = (Quantization.Q4, Quantization.Q8)
HELLO = ChatRequest((Message("user", "Hello"),), sampling=Sampling(temperature=0, max_tokens=5))


def silent(event: Event) -> None:
    pass


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", tiny_models.NAMES)
def test_a_copy_opens_answers_and_takes_what_was_estimated(
    tiny: Tiny, target: Path, name: str, form: Quantization
) -> None:
    source = tiny(name)
    quantize(source, target, form, False, silent)
    config = json.loads((source / "config.json").read_text())
    drawn = draw(config, half_dtype(torch.bfloat16, "cpu"))
    engine = open_model(ModelRecord(id=1, name="copy", quantization=form), LoadOptions(target), silent)
    assert engine.chat(HELLO, silent).completion_tokens
    engine.close()
    packed = drawn.packing if form is Quantization.Q4 else 0
    assert engine.memory_bytes == drawn.weights[form] + packed < drawn.weights["FP16"]


def test_everything_that_is_no_weight_comes_along_as_it_was(tiny: Tiny, target: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny("qwen3"), tmp_path / "source"))
    (source / "LICENSE").write_text("free")
    (source / ".journal").write_text("ours")
    (source / "generation_config.json").write_text('{"temperature": 0.6, "do_sample": false}')  # contradicts itself
    quantize(source, target, Quantization.Q4, False, silent)
    for name in ("LICENSE", "generation_config.json", "chat_template.jinja", "tokenizer.json"):
        assert (target / name).read_bytes() == (source / name).read_bytes(), name
    assert not (target / ".journal").exists()
    assert json.loads((target / "config.json").read_text())["quantization_config"]["load_in_4bit"]
    assert [path.name for path in target.glob("*.safetensors")] == ["model.safetensors"]


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_checkpoints_of_other_formats_are_quantized_too(tiny: Tiny, target: Path, stored: str) -> None:
    quantize(tiny("llama", dtype=stored), target, Quantization.Q4, False, silent)
    record = ModelRecord(id=1, name="copy", quantization=Quantization.Q4)
    engine = open_model(record, LoadOptions(target), silent)
    assert engine.chat(HELLO, silent).completion_tokens
    engine.close()


def test_stages_go_forward_to_a_hundred(tiny: Tiny, target: Path) -> None:
    watcher = Watcher()
    quantize(tiny("phi3", size="bigger"), target, Quantization.Q8, False, watcher)
    percents = [event.progress for event in watcher.events]
    assert percents == sorted(percents)
    assert (percents[0], percents[-1]) == (0, 100)
    stages = list(dict.fromkeys(event.stage for event in watcher.events))
    assert stages == [Stage.QUANTIZING, Stage.SAVING, Stage.VERIFYING]


def test_an_architecture_of_which_nothing_is_quantized_says_so(tmp_path: Path, target: Path) -> None:
    config = transformers.FalconConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=tiny_models.VOCABULARY
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "falcon")
    tiny_models.make_tokenizer().save_pretrained(tmp_path / "falcon")
    with pytest.raises(UnsupportedModel, match="quantizes none of the layers"):
        quantize(tmp_path / "falcon", target, Quantization.Q4, False, silent)


def test_matrices_that_the_kernels_cannot_take_are_left_out() -> None:
    odd = transformers.LlamaConfig(
        hidden_size=96, intermediate_size=80, num_hidden_layers=1, num_attention_heads=4, vocab_size=256
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(odd)
    assert quantized_layers(model, Quantization.Q4) == {}
    even = transformers.LlamaConfig(
        hidden_size=128, intermediate_size=80, num_hidden_layers=1, num_attention_heads=4, vocab_size=256
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(even)
    chosen = quantized_layers(model, Quantization.Q4)
    assert {name.rsplit(".", 1)[1] for name in chosen} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert "lm_head" not in chosen


def test_a_copy_that_answers_otherwise_is_found(tiny: Tiny, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from millm.engines import quantize as module

    def save_damaged(network: object, source: Path, folder: Path) -> None:
        save(network, source, folder)
        path = folder / "model.safetensors"
        from safetensors.torch import load_file, save_file

        weights = load_file(path)
        norm = "model.norm.weight"
        save_file({**weights, norm: -3 * weights[norm]}, path, {"format": "pt"})

    save = module._save
    monkeypatch.setattr(module, "_save", save_damaged)
    with pytest.raises(LoadFailed, match="answers otherwise"):
        quantize(tiny("llama"), target, Quantization.Q4, False, silent)


def test_the_process_quantizes_and_its_failures_are_sentences(tiny: Tiny, target: Path, tmp_path: Path) -> None:
    watcher = Watcher()
    quantize_in_child(tiny("llama"), target, Quantization.Q4, False, watcher)
    assert (watcher.events[-1].stage, watcher.events[-1].progress) == (Stage.VERIFYING, 100)
    assert (target / "model.safetensors").exists()
    broken = Path(shutil.copytree(tiny("llama"), tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"no")
    with pytest.raises(CannotQuantize, match="damaged"):
        quantize_in_child(broken, target, Quantization.Q4, False, watcher)


def test_the_process_says_when_memory_runs_out(tiny: Tiny, target: Path) -> None:
    limited = "import resource as r; r.setrlimit(r.RLIMIT_AS, (3 << 30, 3 << 30)); import runpy; "
    command = (CHILD[0], "-c", f"{limited}runpy.run_module('millm.engines.quantize', run_name='__main__')")
    asked = {"source": str(tiny("llama")), "target": str(target), "form": "Q4", "trusted": False}
    assert run_errand(command, asked, lambda _: None, lambda: None) is True
