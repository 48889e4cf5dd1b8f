"""The seam of every source: what is asked for, what it would bring, and who brings it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from millm.errors import MiLLMError
from millm.events import Report
from millm.records import ModelType, Source
from millm.tensors import TensorInfo

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pth.tar")
"""Endings of weights that can hold code."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model is asked to come from.

    repo_id: "owner/name" on the hub, "name:tag" in Ollama, or a model's name at a server. revision: a branch, tag or
    commit; None means the default branch. path: for source `local`. url: for source `url`, or a server's address.
    checksum ("sha256:<hex>" or "md5:<hex>"): for source `url`. model_type: what the model is for, which says which
    files belong to it.
    """

    source: Source
    repo_id: str | None = None
    revision: str | None = None
    path: str | None = None
    trust_remote_code: bool = False
    url: str | None = None
    checksum: str | None = None
    model_type: ModelType = ModelType.LLM


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file a plan brings.

    path: relative, with `/`. size: bytes. digest: "sha256:<hex>" or "git-sha1:<hex>", None where the
    source announces none.
    """

    path: str
    size: int
    digest: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a source would bring, known before a byte of weights is moved.

    title: how people name it ("owner/name"). suggested_name: a name for the record. files: what would be
    brought. commit: the pinned commit. param_count: None where unknown. config: config.json. code_files: the
    repository's own Python files, if its config names any to load it with. link: the model's page. path: the
    directory, for `local`. warnings: sentences for the person. chat_template: whether there is one, None where
    unknown. cached_bytes: of the files, on this machine already. unpacked_bytes: what an archive takes besides, once
    it is unpacked, at least. refusal: why it can be looked at but not brought, with the token that was given.
    fingerprint: of a directory; another one once any of its files is another.
    """

    origin: Origin
    title: str
    suggested_name: str
    files: tuple[PlannedFile, ...]
    commit: str | None = None
    param_count: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    gated: bool = False
    license: str | None = None
    link: str | None = None
    path: Path | None = None
    warnings: tuple[str, ...] = ()
    code_files: tuple[str, ...] = ()
    chat_template: bool | None = None
    cached_bytes: int = 0
    unpacked_bytes: int = 0
    refusal: MiLLMError | None = None
    fingerprint: str | None = None
    tensors: Mapping[str, TensorInfo] | None = None

    @property
    def format(self) -> str:
        """What the weights are stored as: "safetensors", "pickle" (which can hold code) or "other"."""
        names = [file.path for file in self.files]
        if any(name.endswith(".safetensors") for name in names):
            return "safetensors"
        return "pickle" if any(name.endswith(PICKLES) for name in names) else "other"

    @property
    def peak_bytes(self) -> int:
        """Bytes on disk at the moment when most is there."""
        return self.total_bytes + self.unpacked_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


class Fetcher(Protocol):
    """One place that models come from."""

    def plan(self, origin: Origin, token: str | None) -> Plan:
        """Finds out what `origin` would bring, in 10 s at most, without moving weights.

        Raises:
            MiLLMError: the origin is malformed, unknown, forbidden or unreachable.
        """
        ...

    def fetch(self, plan: Plan, token: str | None, folder: Path, report: Report) -> None:
        """Brings what `plan` says into `folder`, checked against its digests; nothing where the files stay elsewhere.

        What an earlier try left in `folder` is used. Reports at least twice a second; ends within a second of
        `report` raising `Cancelled`.

        Raises:
            MiLLMError: the source failed, or a file arrived damaged.
        """
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """A repository that a search found. downloads: in the last month."""

    repo_id: str
    downloads: int
    gated: bool


@runtime_checkable
class Searchable(Protocol):
    """A source that can be searched by name."""

    def search(self, text: str) -> tuple[Found, ...]:
        """The best matches first, in 10 s at most. Raises `MiLLMError` if the source cannot be reached."""
        ...


@runtime_checkable
class HeaderReader(Protocol):
    """A source that can tell what is in safetensors files without bringing them."""

    def tensors(self, plan: Plan, token: str | None) -> dict[str, TensorInfo]:
        """Every tensor of a plan by its name, in 10 s at most. Raises `MiLLMError`."""
        ...


@runtime_checkable
class Keeper(Protocol):
    """A source that keeps the files itself."""

    def delete(self, name: str) -> None:
        """Removes the files there. Raises `MiLLMError` if the source refuses or cannot be reached."""
        ...


@runtime_checkable
class KeyTaker(Protocol):
    """A source whose servers may ask for a key."""

    def give_key(self, address: str, key: str) -> None:
        """Remembers the key of a server, in memory only. Raises `InvalidRequest` for what can be none."""
        ...
