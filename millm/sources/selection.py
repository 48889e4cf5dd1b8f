"""Which files of a repository or directory make a model: one copy of the weights and what goes with them."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from millm.sources.base import PlannedFile

WEIGHTS = tuple(
    re.compile(pattern)
    for pattern in (
        r"model\.safetensors",
        r"model-\d+-of-\d+\.safetensors",
        r"(?!consolidated)[\w.-]+\.safetensors",
        r"pytorch_model\.bin",
        r"pytorch_model-\d+-of-\d+\.bin",
    )
)
"""Forms that weights come in; only files of the first one present are taken."""

COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.tiktoken",
    "tekken.json",
    "spiece.model",
    "sentencepiece*.model",
    "chat_template*",
    "preprocessor_config.json",
    "processor_config.json",
    "README.md",
    "LICENSE*",
)
INDEX = {".safetensors": "model.safetensors.index.json", ".bin": "pytorch_model.bin.index.json"}
NEVER = (".bin", ".safetensors", ".gguf", ".onnx", ".h5", ".msgpack", ".pth", ".pt", ".ckpt")
SAFE_NAME = re.compile(r"\w[\w.+-]*", re.ASCII)


def select_weights(files: Iterable[PlannedFile]) -> tuple[PlannedFile, ...]:
    """The weight files: safetensors, or PyTorch's .bin where no safetensors exist; empty if there are none."""
    files = tuple(files)
    for form in WEIGHTS:
        if found := tuple(file for file in files if form.fullmatch(file.path)):
            return found
    return ()


def select_files(files: Iterable[PlannedFile], code: bool) -> tuple[PlannedFile, ...]:
    """The weights, preceded by their index, config, tokenizer, chat template, card and licence.

    code: whether the repository's own Python files are taken too. Only files at the top are ever taken.
    """
    files = tuple(file for file in files if SAFE_NAME.fullmatch(file.path))
    weights = select_weights(files)
    companions = COMPANIONS + (("*.py",) if code else ())
    if weights and weights[0].path not in ("model.safetensors", "pytorch_model.bin"):
        companions += (INDEX["." + weights[0].path.rpartition(".")[2]],)

    def wanted(name: str) -> bool:
        return not name.endswith(NEVER) and any(fnmatchcase(name, pattern) for pattern in companions)

    return tuple(file for file in files if wanted(file.path)) + weights
