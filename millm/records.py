"""The nouns of miLLM: what a model is, where it came from, and in which state it is."""

import re
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from millm.errors import ChecksumMismatch


class ModelType(StrEnum):
    """What a model is for. Those in `SERVED` can be loaded here; the others are managed for other programs."""

    LLM = "llm"
    EMBEDDING = "embedding"
    IMAGE_GEN = "image_gen"
    ANIMATION = "animation"
    TTS = "tts"
    MUSIC = "music"
    LIP_SYNC = "lip_sync"


SERVED = frozenset({ModelType.LLM, ModelType.EMBEDDING})
"""The types of models that can be loaded and served here."""


class Source(StrEnum):
    """Where a model comes from."""

    HUGGINGFACE = "huggingface"
    LOCAL = "local"
    URL = "url"
    OLLAMA = "ollama"
    REMOTE = "remote"


ELSEWHERE = frozenset({Source.OLLAMA, Source.REMOTE})
"""The sources whose servers keep and run their models themselves: nothing of them lies in the cache directory."""


class Quantization(StrEnum):
    """How the weights are held. `FP16` is half precision: bfloat16 where the checkpoint is, else float16."""

    Q4 = "Q4"
    Q8 = "Q8"
    FP16 = "FP16"


class Status(StrEnum):
    """The state of a model. The registry stores only the resting ones; the others live while a job runs."""

    AVAILABLE = "available"
    QUEUED = "queued"
    DOWNLOADING = "downloading"
    READY = "ready"
    LOADING = "loading"
    LOADED = "loaded"
    ERROR = "error"


RESTING = frozenset({Status.AVAILABLE, Status.READY, Status.ERROR})
NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,255}")


def now() -> str:
    """This moment as ISO 8601 in UTC with a `Z`, to the microsecond."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def short_count(count: int | None) -> str | None:
    """A parameter count as people write it: 2_506_172_416 -> "2.5B", 134_515_008 -> "135M"."""
    if not count:
        return None
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            value = count / size
            return f"{value:.1f}{letter}" if value < 10 and letter in "TB" else f"{value:.0f}{letter}"
    return str(count)


@dataclass(frozen=True)
class ModelRecord:
    """One model as the registry knows it: a source and a quantization. Field names are the public API.

    Sizes ending in `_mb` are in MB of 10^6 bytes; `size_bytes` and `downloaded_bytes` are bytes;
    `download_progress` is percent; times are ISO 8601 in UTC. `config` is the model's config.json. `active`: other
    programs that ask for the model of this type get this one; an `llm` is active while it is loaded.
    `original_size_mb`: of the half-precision files that a quantized copy was made from. `fingerprint`: of a linked
    directory as it was last read. `warning`: a sentence that stays true of the model. `quality`: how it read a text
    beside another form of the same model (`comparison.py`). `built_in`: it ships with the program. `license`: as its
    repository names it, "apache-2.0". Of source `remote`, `url` is the server's address and `repo_id` the model's
    name there.
    """

    id: int = 0
    name: str = ""
    model_type: ModelType = ModelType.LLM
    source: Source = Source.HUGGINGFACE
    repo_id: str | None = None
    revision: str | None = None
    requested_revision: str | None = None
    local_path: str | None = None
    url: str | None = None
    params: str | None = None
    param_count: int | None = None
    architecture: str | None = None
    hidden_size: int | None = None
    num_layers: int | None = None
    num_heads: int | None = None
    vocab_size: int | None = None
    context_length: int | None = None
    quantization: Quantization = Quantization.FP16
    disk_size_mb: float | None = None
    original_size_mb: float | None = None
    downloaded_bytes: int = 0
    size_bytes: int | None = None
    estimated_memory_mb: float | None = None
    estimated_weights_mb: float | None = None
    measured_memory_mb: float | None = None
    batching: bool | None = None
    cache_path: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    trust_remote_code: bool = False
    checksum: str | None = None
    license: str | None = None
    quality: dict[str, Any] | None = None
    fingerprint: str | None = None
    warning: str | None = None
    built_in: bool = False
    active: bool = False
    status: Status = Status.AVAILABLE
    download_progress: float | None = None
    error_message: str | None = None
    error_code: str | None = None
    created_at: str = field(default_factory=now)
    updated_at: str = field(default_factory=now)
    loaded_at: str | None = None

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Self:
        """Reads a stored row. Fields this version does not know are left out.

        Raises:
            ValueError: a value of an enumeration is unknown.
        """
        known = {f.name: row[f.name] for f in fields(cls) if f.name in row}
        for name, kind in ENUMS.items():
            if name in known:
                known[name] = kind(known[name])
        return cls(**known)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values; `config` and `settings` are shared, not copied."""
        return {name: getattr(self, name) for name in FIELD_NAMES}

    def matches(
        self, status: Status | None, model_type: ModelType | None, source: Source | None, q: str | None
    ) -> bool:
        """Whether the record is one of those asked for. q: part of its name, repository, path or address."""
        text = (q or "").lower()
        return (
            status in (None, self.status)
            and model_type in (None, self.model_type)
            and source in (None, self.source)
            and any(text in (word or "").lower() for word in (self.name, self.repo_id, self.local_path, self.url))
        )

    @property
    def damaged(self) -> bool:
        """Whether a verification found files that are not as they came."""
        return self.status is Status.READY and self.error_code == ChecksumMismatch.code

    def with_(self, **changes: Any) -> Self:
        """A copy with these fields changed."""
        return replace(self, **changes)


def is_dimension(value: object) -> bool:
    """Whether a value of a config.json can be a size: strangers write these files."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**31


def is_plain(value: object, depth: int = 64) -> bool:
    """Whether a value can be stored as JSON and read by every reader: not too deep, 64-bit integers, real text."""
    if isinstance(value, dict):
        return depth > 0 and all(is_plain(key, 1) and is_plain(item, depth - 1) for key, item in value.items())
    if isinstance(value, list):
        return depth > 0 and all(is_plain(item, depth - 1) for item in value)
    if isinstance(value, str):
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def safe_name(text: str) -> str:
    """The nearest text that a model may be called."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:200].strip(".-") or "model"


ENUMS: dict[str, type[StrEnum]] = {
    "model_type": ModelType,
    "source": Source,
    "quantization": Quantization,
    "status": Status,
}
FIELD_NAMES = tuple(f.name for f in fields(ModelRecord))


def architecture_facts(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record that a config.json states: architecture and dimensions.

    Composite models keep the language model's dimensions under `text_config`; those win.
    """
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    assert isinstance(text, dict)

    def first(*names: str) -> int | None:
        return next((text[n] for n in names if is_dimension(text.get(n))), None)

    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else None
    return {
        "architecture": architecture[:255] if isinstance(architecture, str) else None,
        "hidden_size": first("hidden_size", "n_embd", "d_model"),
        "num_layers": first("num_hidden_layers", "n_layer", "num_layers"),
        "num_heads": first("num_attention_heads", "n_head", "num_heads"),
        "vocab_size": first("vocab_size"),
        "context_length": first("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"),
    }
