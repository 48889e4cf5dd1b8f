import pytest

from millm.sources.base import PlannedFile
from millm.sources.selection import select_files, select_weights


def files(names: str) -> list[PlannedFile]:
    return [PlannedFile(name, 1) for name in names.split()]


def names(chosen: tuple[PlannedFile, ...]) -> str:
    return " ".join(file.path for file in chosen)


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        ("model.safetensors pytorch_model.bin model.gguf model.onnx", "model.safetensors"),
        (
            "model-00001-of-00002.safetensors model-00002-of-00002.safetensors consolidated.safetensors",
            "model-00001-of-00002.safetensors model-00002-of-00002.safetensors",
        ),
        ("model-00001-of-00001.safetensors model.safetensors model.fp16.safetensors", "model.safetensors"),
        ("consolidated.00.pth consolidated.safetensors original/model.safetensors", ""),
        ("pytorch_model.bin training_args.bin optimizer.bin tf_model.h5 flax_model.msgpack", "pytorch_model.bin"),
        (
            "pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin",
            "pytorch_model-00001-of-00002.bin pytorch_model-00002-of-00002.bin",
        ),
        ("weights.safetensors", "weights.safetensors"),
        ("rust_model.ot model.ckpt onnx/model.onnx", ""),
    ],
)
def test_one_copy_of_the_weights(present: str, chosen: str) -> None:
    assert names(select_weights(files(present))) == chosen


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
        *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "qwen.tiktoken"),
        *("spiece.model", "sentencepiece.bpe.model", "chat_template.jinja", "chat_template.json", "tekken.json"),
        *("preprocessor_config.json", "README.md", "LICENSE", "LICENSE.txt"),
    ],
)
def test_what_goes_with_the_weights(name: str) -> None:
    assert names(select_files(files(f"{name} model.safetensors"), code=False)) == f"{name} model.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        *(".gitattributes", "model.gguf", "tokenizer.onnx", "trainer_state.json", "pytorch_model.bin.index.json"),
        *("onnx/config.json", "original/tokenizer.model", "figure.png", "../config.json", "tokenizer\n.json"),
        *("modeling_custom.py", "tokenizer.bin", "vocab.h5", "model.safetensors.index.json"),
    ],
)
def test_what_does_not(name: str) -> None:
    assert select_files([PlannedFile(name, 1), PlannedFile("model.safetensors", 1)], code=False) == (
        PlannedFile("model.safetensors", 1),
    )


def test_code_comes_only_when_it_is_allowed() -> None:
    present = files("modeling_custom.py configs/other.py model.safetensors")
    assert names(select_files(present, code=True)) == "modeling_custom.py model.safetensors"
    assert names(select_files(present, code=False)) == "model.safetensors"


def test_parts_come_with_their_index() -> None:
    parts = "model-00001-of-00002.safetensors model-00002-of-00002.safetensors"
    present = files(f"model.safetensors.index.json pytorch_model.bin.index.json {parts}")
    assert names(select_files(present, code=False)) == f"model.safetensors.index.json {parts}"
