import pytest

from millm.records import ModelType
from millm.sources.base import PlannedFile
from millm.sources.selection import is_weights, select_files, select_weights


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


def test_a_pipeline_brings_the_folders_that_it_names_in_half_precision() -> None:
    present = files(
        "model_index.json README.md all_in_one.safetensors unet/config.json scheduler/scheduler_config.json "
        "unet/diffusion_pytorch_model.safetensors unet/diffusion_pytorch_model.fp16.safetensors unet/model.onnx "
        "vae_1_0/config.json vae_1_0/diffusion_pytorch_model.safetensors tokenizer/vocab.json tokenizer/merges.txt"
    )
    chosen = select_files(present, False, ModelType.IMAGE_GEN, components={"unet", "scheduler", "tokenizer"})
    assert set(names(chosen).split()) == {
        *("model_index.json", "README.md", "scheduler/scheduler_config.json", "unet/config.json"),
        *("unet/diffusion_pytorch_model.fp16.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt"),
    }


def test_the_parts_of_a_variant_and_its_index_belong_together() -> None:
    parts = "unet/model.fp16-00001-of-00002.safetensors unet/model.fp16-00002-of-00002.safetensors"
    present = files(
        f"unet/model.safetensors.index.fp16.json {parts} unet/model.safetensors unet/model.bin "
        "unet/model.bin.index.json unet/model.non_ema.safetensors"
    )
    chosen = select_files(present, False, ModelType.ANIMATION, components={"unet"})
    assert names(chosen) == f"unet/model.safetensors.index.fp16.json {parts}"


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        ("config.json model_file.pth.tar speakers.pth", "config.json model_file.pth.tar speakers.pth"),
        ("config.yaml best_model.pth demo.wav picture.png .gitattributes", "config.yaml best_model.pth"),
        ("model.safetensors state_dict.bin model.onnx", "model.safetensors"),
        ("a/b/config.json a/b/model.pth one/two/three/four/model.pth", "a/b/config.json a/b/model.pth"),
        ("model.non_ema.safetensors model.safetensors model.fp16.safetensors", "model.fp16.safetensors"),
        ("model.non_ema.safetensors model.ema.safetensors", "model.non_ema.safetensors model.ema.safetensors"),
        ("../model.pth a/../model.pth .hidden/model.pth", ""),
        ("inference.py model.pth", "model.pth"),
    ],
)  # fmt: skip
def test_models_that_are_kept_for_other_programs(present: str, chosen: str) -> None:
    assert names(select_files(files(present), False, ModelType.TTS)) == chosen


def test_an_embedding_model_brings_its_steps() -> None:
    present = files(
        "1_Pooling/config.json 2_Dense/model.safetensors 2_Dense/pytorch_model.bin config.json modules.json "
        "model.safetensors onnx/model.onnx onnx/config.json pytorch_model.bin.index.json tokenizer.json"
    )
    chosen = select_files(present, False, ModelType.EMBEDDING)
    assert set(names(chosen).split()) == {
        *("1_Pooling/config.json", "2_Dense/model.safetensors", "config.json", "modules.json"),
        *("model.safetensors", "tokenizer.json"),
    }


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("a/model.pth.tar", True),
        ("model.safetensors", True),
        ("x.ckpt", True),
        ("config.json", False),
        ("a.wav", False),
    ],
)
def test_what_holds_weights(name: str, holds: bool) -> None:
    assert is_weights(name) is holds
