"""What the management API is asked and what it answers, as its documentation shows it.

Requests are checked by these models. Answers are written as plain JSON without passing through them.
"""

from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from millm.records import ModelType, Quantization, Source, Status, is_plain
from millm.sources.base import Origin

T = TypeVar("T")
REPO = "google/gemma-2-2b"
REPO_ID = (
    "source huggingface: owner/name, or its address; source remote: the model's name at the server, if it has several"
)
URL = "source url: the address of a weights file or archive; source remote: the server's address, up to /v1"

# source -> the field that names the model, and the fields that mean nothing for it
SOURCE_FIELDS: dict[Source, tuple[str, tuple[str, ...]]] = {
    Source.HUGGINGFACE: ("repo_id", ("local_path", "url", "ollama_name", "checksum", "server_key")),
    Source.LOCAL: (
        "local_path",
        ("repo_id", "url", "ollama_name", "checksum", "revision", "hf_token", "server_key"),
    ),
    Source.URL: ("url", ("repo_id", "local_path", "ollama_name", "revision", "hf_token", "server_key")),
    Source.OLLAMA: (
        "ollama_name",
        ("repo_id", "local_path", "url", "checksum", "revision", "hf_token", "server_key"),
    ),
    Source.REMOTE: ("url", ("local_path", "ollama_name", "checksum", "revision", "hf_token")),
}
SERVER_KEY = "source remote: the server's key; kept in memory only, never written anywhere"
SETTINGS = (
    "`context_length`, `adapter` and `fast_cpu` hold from the next load on; `system_prompt` and `generation` "
    "(`temperature`, `top_p`, `top_k`, `min_p`, `max_tokens`, `repetition_penalty`) at once, for every request under "
    "/v1 that says nothing else"
)
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
    repo_id: str | None = Field(None, max_length=500, description=REPO_ID)
    local_path: str | None = Field(None, max_length=4096, description="source local: an absolute path")
    url: str | None = Field(None, max_length=4096, description=URL)
    ollama_name: str | None = Field(None, max_length=255, description="source ollama: name:tag")
    checksum: str | None = Field(None, max_length=80, description="source url: sha256:<hex> or md5:<hex>")
    revision: str | None = Field(None, max_length=255, description="branch, tag or commit; else the default branch")
    trust_remote_code: bool = Field(False, description="allow loading to run Python code from the repository")
    hf_token: str | None = Field(None, max_length=500, description="for gated repositories; never written anywhere")
    server_key: str | None = Field(None, max_length=500, description=SERVER_KEY)
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

    @property
    def token(self) -> str | None:
        """What the source asks for before it lets anybody in."""
        return self.hf_token or self.server_key

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
                {"source": "remote", "url": "http://gpu-box:8000/v1", "repo_id": "Qwen/Qwen3-32B"},
            ]
        }
    )

    quantization: Annotated[Quantization | None, Lax] = Field(None, description="how weights are kept; default Q4")
    custom_name: str | None = Field(None, description="1-255 letters, digits, '-', '_' or '.'; else from the source")
    start: bool = Field(True, description="false: only register it, as `available`")


class TokenBody(_Strict):
    """What starting a download again may need."""

    hf_token: str | None = Field(None, max_length=500, description="for gated repositories; never written anywhere")
    server_key: str | None = Field(None, max_length=500, description=SERVER_KEY)

    @property
    def token(self) -> str | None:
        """What the source asks for before it lets anybody in."""
        return self.hf_token or self.server_key


class LoadBody(_Strict):
    """How to load a model."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"context_length": 8192}]})

    force: bool = Field(False, description="go on where memory seems short")
    context_length: int | None = Field(None, ge=1, description="tokens; else what the model was made for")
    server_key: str | None = Field(None, max_length=500, description=SERVER_KEY)


class QualityBody(_Strict):
    """What to compare a model with, and on which text."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"against": 2}]})

    against: int | None = Field(None, description="id of the reference; else the most precise other form on disk")
    text: str | None = Field(None, min_length=1, max_length=100_000, description="else the one that comes with miLLM")


class PatchBody(_Strict):
    """What to change of a record; fields that are left out stay."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "gemma", "settings": {"generation": {"temperature": 0.7}}}]}
    )

    name: str = Field(default_factory=str, description="1-255 letters, digits, '-', '_' or '.'; unique")
    settings: Annotated[dict[str, Any], AfterValidator(_plain)] = Field(
        default_factory=dict, description="replaces the whole object; " + SETTINGS
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


class Health(BaseModel):
    """A sign of life."""

    status: Literal["ok"]
    version: str
