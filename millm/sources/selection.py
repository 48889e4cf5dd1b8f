"""Which files of a repository or directory make a model: one copy of the weights and what goes with them.

A language model is one folder. Models of other types may lie in several: a diffusers pipeline names its folders in
`model_index.json`, a sentence-transformers model has one for each step after the first.
"""

import re
from collections.abc import Container, Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import PurePosixPath

from millm.records import ModelType
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
MOST_DEEP = 3  # folders below each other

STEP = re.compile(r"\d+_\w+")
"""A folder of a sentence-transformers model."""
ANY_WEIGHTS = ((".safetensors",), (".bin",), (".pth", ".pt", ".ckpt", ".pth.tar", ".tar"))
"""Endings of weights in any layout; only files of the first kind present in a folder are taken."""
VARIANT = re.compile(r"(?P<base>.+)\.(?P<variant>fp16|non_ema|ema)(?P<rest>(-\d+-of-\d+)?\.\w+)")
HALF = "fp16"
ANY_COMPANIONS = (*COMPANIONS, "*.json", "*.yaml", "*.yml", "*.txt", "*.model")
MODEL_INDEX = "model_index.json"
"""What makes a repository a diffusers pipeline: its keys name the folders that belong to it."""


def select_weights(files: Iterable[PlannedFile]) -> tuple[PlannedFile, ...]:
    """The weight files: safetensors, or PyTorch's .bin where no safetensors exist; empty if there are none."""
    files = tuple(files)
    for form in WEIGHTS:
        if found := tuple(file for file in files if form.fullmatch(file.path)):
            return found
    return ()


def select_files(
    files: Iterable[PlannedFile],
    code: bool,
    model_type: ModelType = ModelType.LLM,
    components: Container[str] | None = None,
) -> tuple[PlannedFile, ...]:
    """The weights, preceded by their index, config, tokenizer, chat template, card and licence.

    code: whether the repository's own Python files are taken too. model_type: of an `llm` only files at the top are
    taken. components: the folders of a diffusers pipeline, None where it is none.
    """
    safe = [file for file in files if _is_safe(file.path)]
    top = [file for file in safe if "/" not in file.path]
    match model_type:
        case ModelType.LLM:
            return _standard(top, code)
        case ModelType.EMBEDDING:
            standard = _standard(top, code)
            steps = [file for file in safe if STEP.fullmatch(_folder(file))]
            settings = [file for file in top if file.path.endswith(".json") and ".index." not in file.path]
            return (*(file for file in settings if file not in standard), *standard, *_by_folder(steps, code))
    if components is None:
        return tuple(_by_folder(safe, code))
    inner = [file for file in safe if file.path.partition("/")[0] in components and "/" in file.path]
    return (*_companions(top, ANY_COMPANIONS, code), *_by_folder(inner, code))


def is_weights(path: str) -> bool:
    """Whether a file holds weights, to judge by its name."""
    return any(path.endswith(endings) for endings in ANY_WEIGHTS)


def _standard(files: list[PlannedFile], code: bool) -> tuple[PlannedFile, ...]:
    weights = select_weights(files)
    companions: tuple[str, ...] = COMPANIONS
    if weights and weights[0].path not in ("model.safetensors", "pytorch_model.bin"):
        companions += (INDEX["." + weights[0].path.rpartition(".")[2]],)
    return (*_companions(files, companions, code), *weights)


def _companions(files: Iterable[PlannedFile], patterns: tuple[str, ...], code: bool) -> Iterator[PlannedFile]:
    patterns += ("*.py",) if code else ()
    for file in files:
        name = PurePosixPath(file.path).name
        if not name.endswith(NEVER) and any(fnmatchcase(name, pattern) for pattern in patterns):
            yield file


def _by_folder(files: Iterable[PlannedFile], code: bool) -> Iterator[PlannedFile]:
    """Of every folder one kind of weights, in half precision where there is a choice, and what is no weights."""
    for _, inside in groupby(sorted(files, key=_folder), key=_folder):
        folder = list(inside)
        kinds = ([file for file in folder if file.path.endswith(endings)] for endings in ANY_WEIGHTS)
        weights = _one_variant(next(filter(None, kinds), []))
        kind = PurePosixPath(weights[0].path).suffix if weights else ""
        for file in _companions(folder, ANY_COMPANIONS, code):
            if ".index." not in file.path or (kind and kind in file.path):
                yield file
        yield from weights


def _one_variant(weights: list[PlannedFile]) -> list[PlannedFile]:
    """Drops what is there in another variant too: full precision beside half, and weights for training."""
    variants = {file.path: VARIANT.fullmatch(file.path) for file in weights}
    half = {f"{m['base']}{_unnumbered(m['rest'])}" for m in variants.values() if m and m["variant"] == HALF}
    plain = {_unnumbered(path) for path, match in variants.items() if not match}

    def wanted(path: str) -> bool:
        match = variants[path]
        if match is None:
            return _unnumbered(path) not in half
        return match["variant"] == HALF or f"{match['base']}{_unnumbered(match['rest'])}" not in plain | half

    return [file for file in weights if wanted(file.path)]


def _unnumbered(path: str) -> str:
    return re.sub(r"-\d+-of-\d+(?=\.\w+$)", "", path)


def _folder(file: PlannedFile) -> str:
    return file.path.rpartition("/")[0]


def _is_safe(path: str) -> bool:
    parts = path.split("/")
    return len(parts) <= 1 + MOST_DEEP and all(SAFE_NAME.fullmatch(part) for part in parts)
