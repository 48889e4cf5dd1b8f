"""What a model needs, and whether this machine has it."""

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from millm.devices import Device
from millm.engines.architectures import architecture_name, is_language_model, needs_own_code, stored_quantization
from millm.errors import InsufficientDisk, InsufficientMemory
from millm.estimate import Estimate, Estimator
from millm.planning import check_memory, estimate_record
from millm.records import ELSEWHERE, SERVED, ModelRecord, ModelType, Quantization, Source

PACKAGES = {
    ModelType.LLM: ("torch", "transformers", "accelerate"),
    ModelType.EMBEDDING: ("torch", "transformers", "accelerate"),
    ModelType.IMAGE_GEN: ("torch", "transformers", "diffusers", "accelerate"),
    ModelType.ANIMATION: ("torch", "transformers", "diffusers", "accelerate"),
    ModelType.TTS: ("torch", "coqui-tts"),
    ModelType.MUSIC: ("torch", "transformers"),
    ModelType.LIP_SYNC: ("torch", "librosa", "opencv-python"),
}
"""Python packages that a program needs to use a model of a type, by their names on the package index."""

Installed = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a model needs. memory: when it runs. disk_bytes: of all its files. missing_bytes: still to be brought.

    packages: Python packages to use it with, by their names on the package index.
    """

    memory: Estimate
    disk_bytes: int
    missing_bytes: int
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compatibility:
    """Whether this machine can use a model.

    fits: memory and disk are free now. warnings: sentences for the person; none means that nothing is in the way.
    """

    requirements: Requirements
    fits: bool
    warnings: tuple[str, ...]


def is_installed(package: str) -> bool:
    """Whether a Python package of this name, as on the package index, is installed here."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def requirements_of(
    record: ModelRecord,
    devices: tuple[Device, ...],
    estimator: Estimator,
    *,
    on_disk: bool,
    context_length: int | None = None,
) -> Requirements:
    """What a recorded model needs on these devices. on_disk: its files are complete and in place."""
    size = record.size_bytes or 0
    local = record.source is Source.LOCAL
    return Requirements(
        memory=estimate_record(record, devices, estimator, context_length),
        disk_bytes=0 if local else size,
        missing_bytes=0 if on_disk or local else max(0, size - record.downloaded_bytes),
        packages=packages_for(record),
    )


def packages_for(record: ModelRecord) -> tuple[str, ...]:
    """The Python packages that a program needs to use a recorded model."""
    if record.source in ELSEWHERE:
        return ("ollama",) if record.source is Source.OLLAMA else ("openai",)
    quantized = record.model_type in SERVED and record.quantization is not Quantization.FP16
    return PACKAGES[record.model_type] + (("bitsandbytes",) if quantized else ())


def compatibility(
    record: ModelRecord,
    devices: tuple[Device, ...],
    disk_free: int,
    reclaimable: int,
    estimator: Estimator,
    installed: Installed = is_installed,
    *,
    known: Container[str],
    on_disk: bool,
    context_length: int | None = None,
) -> Compatibility:
    """Whether this machine has what a recorded model needs.

    reclaimable: bytes of memory that unloading the present model would free. known: `known_model_types()`.
    """
    needed = requirements_of(record, devices, estimator, on_disk=on_disk, context_length=context_length)
    short = tuple(_shortages(needed, devices, disk_free, reclaimable))
    return Compatibility(
        requirements=needed,
        fits=not short,
        warnings=(
            *short,
            *_kind_warnings(record, known),
            *_package_warnings(record, [name for name in needed.packages if not installed(name)]),
        ),
    )


def config_warnings(config: Mapping[str, Any], trusted: bool, known: Container[str]) -> Iterator[str]:
    """What stands in the way of loading a language model with this config.json here, as sentences.

    trusted: the repository's own Python code is allowed. known: `known_model_types()`; when it is empty nothing is
    said about the architecture.
    """
    if known and not is_language_model(config, known):
        yield (
            f"Architecture '{architecture_name(config)}' is not a causal language model that the installed "
            "transformers knows. It cannot be loaded here."
        )
    elif known and needs_own_code(config, known) and not trusted:
        yield "This model runs Python code from its repository. Allow that only if you trust its author."
    if method := stored_quantization(config):
        yield f"The weights are quantized already ({method}): the memory estimate is rough."


def _shortages(needed: Requirements, devices: tuple[Device, ...], disk_free: int, reclaimable: int) -> Iterator[str]:
    if needed.missing_bytes > disk_free:
        yield InsufficientDisk(needed.missing_bytes, disk_free).message
    try:
        check_memory(needed.memory, devices, reclaimable)
    except InsufficientMemory as error:
        yield error.message


def _kind_warnings(record: ModelRecord, known: Container[str]) -> Iterator[str]:
    if record.model_type not in SERVED:
        yield f"A model of type '{record.model_type}' is kept for other programs; it cannot be loaded here."
    elif record.source not in ELSEWHERE and record.model_type is ModelType.LLM:
        yield from config_warnings(record.config, record.trust_remote_code, known)


def _package_warnings(record: ModelRecord, missing: list[str]) -> Iterator[str]:
    if not missing:
        return
    user = "Loading it" if record.model_type in SERVED else "A program that uses it"
    yield f"Not installed here: {', '.join(missing)}. {user} needs {'this' if len(missing) == 1 else 'these'}."
