"""What the management API is asked and what it answers, as its documentation shows it.

Requests are checked by these models. Answers are written as plain JSON without passing through them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from millm.records import ModelType, Quantization, Source, Status, architecture_facts, is_plain, short_count
from millm.sources.base import Origin
from millm.views import Access, Preview, Sizes

T = TypeVar("T")
REPO = "google/gemma-2-2b"

# source -> the field that names the model, and the fields that mean nothing for it
SOURCE_FIELDS: dict[Source, tuple[str, tuple[str, ...]]] = {
    Source.HUGGINGFACE: ("repo_id", ("local_path", "url", "ollama_name", "checksum")),
    Source.LOCAL: ("local_path", ("repo_id", "url", "ollama_name", "checksum", "revision", "hf_token")),
    Source.URL: ("url", ("repo_id", "local_path", "ollama_name", "revision", "hf_token")),
    Source.OLLAMA: ("ollama_name", ("repo_id", "local_path", "url", "checksum", "revision", "hf_token")),
}
Lax = Field(strict=False)  # JSON has no enumerations, so their names are taken as such


class _Strict(BaseModel):
    """A body in which unknown fields and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    if not is_plain(value):
        raise PydanticCustomError("plain", "it holds what JSON readers cannot read")
    return value


class OriginBody(_Strict):
    """Where a model is asked to come from."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"repo_id": REPO}]})

    source: Annotated[Source, Lax] = Field(Source.HUGGINGFACE, description="where the model comes from")
    repo_id: str | None = Field(None, max_length=500, description="source huggingface: owner/name, or its address")
    local_path: str | None = Field(None, max_length=4096, description="source local: an absolute path")
    url: str | None = Field(None, max_length=4096, description="source url: the address of a weights file or archive")
    ollama_name: str | None = Field(None, max_length=255, description="source ollama: name:tag")
    checksum: str | None = Field(None, max_length=80, description="source url: sha256:<hex> or md5:<hex>")
    revision: str | None = Field(None, max_length=255, description="branch, tag or commit; else the default branch")
    trust_remote_code: bool = Field(False, description="allow loading to run Python code from the repository")
    hf_token: str | None = Field(None, max_length=500, description="for gated repositories; never written anywhere")
    model_type: Annotated[ModelType, Lax] = Field(ModelType.LLM, description="what the model is for")

    @model_validator(mode="after")
    def _fits_its_source(self) -> Self:
        needed, others = SOURCE_FIELDS[self.source]
        if getattr(self, needed) is None:
            raise PydanticCustomError("needed", f"source '{self.source}' needs it", {"param": needed})
        for other in others:
            if getattr(self, other) is not None:
                raise PydanticCustomError(
                    "conflict", f"it means nothing for source '{self.source}'", {"param": other}
                )
        return self

    def origin(self) -> Origin:
        """The origin that is meant."""
        return Origin(
            self.source,
            self.repo_id or self.ollama_name,
            self.revision,
            self.local_path,
            self.trust_remote_code,
            self.url,
            self.checksum,
            self.model_type,
        )


class PreviewBody(OriginBody):
    """A model to look at before it is downloaded."""

    context_length: int | None = Field(None, ge=1, description="tokens to work the memory out for; else 4096")


class DownloadBody(OriginBody):
    """A model to register, and by default to download."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"repo_id": REPO, "quantization": "FP16"},
                {"source": "local", "local_path": "/models/my-model", "custom_name": "my-model"},
            ]
        }
    )

    quantization: Annotated[Quantization, Lax] = Field(Quantization.FP16, description="how weights are kept")
    custom_name: str | None = Field(None, description="1-255 letters, digits, '-', '_' or '.'; else from the source")
    start: bool = Field(True, description="false: only register it, as `available`")


class TokenBody(_Strict):
    """What starting a download again may need."""

    hf_token: str | None = Field(None, max_length=500, description="for gated repositories; never written anywhere")


class LoadBody(_Strict):
    """How to load a model."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"context_length": 8192}]})

    force: bool = Field(False, description="go on where memory seems short")
    context_length: int | None = Field(None, ge=1, description="tokens; else what the model was made for")


class PatchBody(_Strict):
    """What to change of a record; fields that are left out stay."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "gemma"}]})

    name: str = Field(default_factory=str, description="1-255 letters, digits, '-', '_' or '.'; unique")
    settings: Annotated[dict[str, Any], AfterValidator(_plain)] = Field(
        default_factory=dict, description="replaces the whole object"
    )
    model_type: Annotated[ModelType, Lax] = Field(
        default_factory=lambda: ModelType.LLM, description="what the model is for"
    )

    def changes(self) -> dict[str, Any]:
        """The fields that were given."""
        return self.model_dump(exclude_unset=True)


def _blank_is_none(value: object) -> object:
    return None if value == "" else value


class RecordFilter(BaseModel):
    """Which records to list. An empty value is the same as none."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[Status | None, BeforeValidator(_blank_is_none)] = None
    type: Annotated[ModelType | None, BeforeValidator(_blank_is_none)] = None
    source: Annotated[Source | None, BeforeValidator(_blank_is_none)] = None
    q: str | None = Field(None, description="part of the name, the repository or the path")


class ErrorInfo(BaseModel):
    """What went wrong."""

    code: str = Field(examples=["MODEL_NOT_FOUND"])
    message: str = Field(examples=["There is no model with id 7."])
    details: dict[str, Any] = Field(examples=[{"id": 7}])


class Failed(BaseModel):
    """The answer to a request that failed."""

    success: Literal[False]
    data: None
    error: ErrorInfo


class Answer(BaseModel, Generic[T]):
    """The answer to a request that succeeded."""

    success: Literal[True]
    data: T
    error: None


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
    provenance: str = Field(examples=["from parameter count"])
    fits: bool


class PreviewInfo(BaseModel):
    """What would be downloaded, known before a byte of weights is moved."""

    name: str = Field(examples=[REPO])
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


class Health(BaseModel):
    """A sign of life."""

    status: Literal["ok"]
    version: str


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
            "fits": one.fits,
        }
        for quantization, one in sizes.items()
    }


def _megabytes(count: int) -> float:
    return round(count / 1e6, 2)
