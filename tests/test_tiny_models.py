"""The models that other tests build are real, small, and the same on every run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models

pytestmark = pytest.mark.slow


def test_a_model_is_the_same_bytes_on_every_run(tmp_path: Path) -> None:
    here = tiny_models.build("gpt2", tmp_path / "here", dtype="float16")
    there = tmp_path / "there"
    command = [sys.executable, tiny_models.__file__, "gpt2", there, "--dtype", "float16"]
    subprocess.run(command, check=True, capture_output=True)
    assert [path.name for path in sorted(here.iterdir())] == [path.name for path in sorted(there.iterdir())]
    for path in here.iterdir():
        assert path.read_bytes() == (there / path.name).read_bytes(), path.name


@pytest.mark.parametrize("name", tiny_models.NAMES)
def test_sizes_and_files(tmp_path: Path, name: str) -> None:
    tiny, bigger = tiny_models.build(name, tmp_path / "t"), tiny_models.build(name, tmp_path / "b", size="bigger")
    assert (tiny / "model.safetensors").stat().st_size < 1e6
    assert 20e6 < (bigger / "model.safetensors").stat().st_size < 50e6
    assert json.loads((tiny / "config.json").read_text())["vocab_size"] == tiny_models.VOCABULARY
    assert {path.name for path in tiny.iterdir()} >= {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }


def test_weights_are_split_into_files_on_request(tmp_path: Path) -> None:
    folder = tiny_models.build("llama", tmp_path, size="bigger", shard_mb=5)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) >= 4


def test_the_tokenizer_brings_every_text_back() -> None:
    text = "Hello, wörld 😀\n\tdef f(x): return x  # 漢字"
    tokenizer = tiny_models.train()
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert len(tokenizer.encode("the function returns a list").ids) < 10, "common words must be few tokens"
