"""Which architectures transformers knows, told without importing it."""

import subprocess
import sys
from pathlib import Path

import pytest

from millm.engines import architectures
from millm.engines.architectures import is_language_model, known_model_types, needs_own_code, stored_quantization

KNOWN = frozenset({"llama", "bert"})
CODE = {"auto_map": {"AutoConfig": "c.C", "AutoModelForCausalLM": "m.M"}}


def test_language_models_are_known_and_others_are_not() -> None:
    known = known_model_types()
    assert {"llama", "qwen3", "gemma3_text", "mistral", "phi3", "smollm3"} <= known
    assert not {"t5", "vits", "clip", "clip_vision_model"} & known


def test_neither_torch_nor_transformers_is_imported() -> None:
    script = (
        "import sys; from millm.engines.architectures import known_model_types; assert known_model_types()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
def test_it_is_the_table_that_transformers_itself_uses() -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert known_model_types() == set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


@pytest.mark.parametrize("content", ["", "NAMES = {}", "def", f"{architectures.TABLE} = OrderedDict([f(1)])"])
def test_a_transformers_that_is_built_otherwise_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    table = tmp_path / "transformers" / architectures.TABLE_FILE
    table.parent.mkdir(parents=True)
    (tmp_path / "transformers" / "__init__.py").touch()
    table.write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    assert known_model_types() == frozenset()
    assert "cannot tell which architectures" in caplog.text


@pytest.mark.parametrize(
    ("config", "can"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, True),
        ({"model_type": "llama"}, True),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, False),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, False),
        ({"model_type": "strange", **CODE}, True),
        ({"model_type": "strange", "auto_map": {"AutoModel": "m.M"}}, False),
        ({}, False),
        ({"model_type": ["llama"], "architectures": {"a": 1}, "auto_map": 3}, False),
    ],
)
def test_only_causal_language_models_can_be_loaded(config: dict[str, object], can: bool) -> None:
    assert is_language_model(config, KNOWN) is can


def test_own_code_is_needed_where_transformers_has_no_class() -> None:
    assert needs_own_code({"model_type": "strange", **CODE}, KNOWN)
    assert not needs_own_code({"model_type": "llama", **CODE}, KNOWN)
    assert not needs_own_code({"model_type": "strange"}, KNOWN)


def test_stored_quantization() -> None:
    assert stored_quantization({"quantization_config": {"quant_method": "gptq"}}) == "gptq"
    assert stored_quantization({"quantization_config": {}}) == "unknown"
    assert stored_quantization({"quantization_config": None}) is None
    assert stored_quantization({}) is None
