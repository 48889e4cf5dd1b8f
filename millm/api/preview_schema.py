"""What the management API says of a model that is still to be brought, as its documentation shows it."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, Field

from millm.records import Quantization, architecture_facts, short_count
from millm.views import Access, Fit, Preview, Sizes


class FileInfo(BaseModel):
    """One file that a download would bring. size: bytes."""

    path: str = Field(examples=["model-00001-of-00003.safetensors"])
    size: int = Field(examples=[4988025760])


class MemoryParts(BaseModel):
    """The parts of the memory a model needs, in bytes."""

    weights: int
    kv_cache: int
    activations: int
    overhead: int


class SizesInfo(BaseModel):
    """What one quantization would take; MB are 10^6 bytes. fits: memory and disk for it are free now."""

    download_mb: float
    disk_mb: float
    peak_disk_mb: float
    memory_mb: float
    memory_parts: MemoryParts
    context_length: int = Field(description="tokens that the memory was worked out for")
    provenance: str = Field(examples=["exact"])
    largest_context: int | None = Field(description="tokens that fit beside the weights now; null: not worked out")
    note: str = Field(description="why quantizing hardly saves memory; empty where it does")
    fit: Fit = Field(description="how the memory goes with what is free: tight from 85 % on")
    fits: bool


class PreviewInfo(BaseModel):
    """What would be downloaded, known before a byte of weights is moved."""

    name: str = Field(examples=["google/gemma-2-2b"])
    suggested_name: str = Field(examples=["gemma-2-2b"])
    revision: str | None = Field(description="the commit that would be pinned")
    link: str | None
    params: str | None = Field(examples=["2.6B"])
    param_count: int | None
    architecture: str | None = Field(examples=["Gemma2ForCausalLM"])
    hidden_size: int | None
    num_layers: int | None
    num_heads: int | None
    vocab_size: int | None
    context_length: int | None
    is_gated: bool
    access: Access = Field(description="whether the token that was given, if any, opens the repository")
    requires_trust_remote_code: bool
    license: str | None
    format: Literal["safetensors", "pickle", "other"]
    has_chat_template: bool | None
    code_files: list[str]
    architecture_known: bool | None = Field(description="to the transformers that is installed; null: no config")
    quantized_as: str | None = Field(description="how the repository itself quantized the weights")
    cached_bytes: int = Field(description="of the files, in the Hugging Face cache of this machine")
    existing_id: int | None = Field(description="the id of the record that is this model already")
    disk_free_bytes: int
    memory_free_bytes: int
    files: list[FileInfo]
    estimated_sizes: dict[Quantization, SizesInfo]
    warnings: list[str]


def preview_json(preview: Preview) -> dict[str, object]:
    """A preview as `PreviewInfo` describes it."""
    plan = preview.plan
    return {
        "name": plan.title,
        "suggested_name": plan.suggested_name,
        "revision": plan.commit,
        "link": plan.link,
        "params": short_count(plan.param_count),
        "param_count": plan.param_count,
        **architecture_facts(plan.config),
        "is_gated": plan.gated,
        "access": preview.access,
        "requires_trust_remote_code": preview.requires_remote_code,
        "license": plan.license,
        "format": plan.format,
        "has_chat_template": plan.chat_template,
        "code_files": list(plan.code_files),
        "architecture_known": preview.known_architecture,
        "quantized_as": preview.quantized_as,
        "cached_bytes": plan.cached_bytes,
        "existing_id": preview.existing.id if preview.existing else None,
        "disk_free_bytes": preview.disk_free,
        "memory_free_bytes": preview.memory_free,
        "files": [{"path": file.path, "size": file.size} for file in plan.files],
        "estimated_sizes": _sizes_json(preview.sizes),
        "warnings": [*([plan.refusal.message] if plan.refusal else []), *plan.warnings],
    }


def _sizes_json(sizes: Mapping[Quantization, Sizes]) -> dict[str, object]:
    return {
        quantization.value: {
            "download_mb": _megabytes(one.download_bytes),
            "disk_mb": _megabytes(one.disk_bytes),
            "peak_disk_mb": _megabytes(one.peak_disk_bytes),
            "memory_mb": _megabytes(one.memory.total),
            "memory_parts": {
                "weights": one.memory.weights,
                "kv_cache": one.memory.kv_cache,
                "activations": one.memory.activations,
                "overhead": one.memory.overhead,
            },
            "context_length": one.memory.context_length,
            "provenance": one.memory.provenance,
            "largest_context": one.memory.most_context,
            "note": one.memory.note,
            "fit": one.fit,
            "fits": one.fits,
        }
        for quantization, one in sizes.items()
    }


def _megabytes(count: int) -> float:
    return round(count / 1e6, 2)
