"""The seam of every source: what is asked for, what it would bring, and who brings it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from millm.events import Report
from millm.records import Source


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model is asked to come from.

    revision: a branch, tag or commit; None means the default branch. path: for source `local`.
    """

    source: Source
    repo_id: str | None = None
    revision: str | None = None
    path: str | None = None
    trust_remote_code: bool = False


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
    brought. commit: the pinned commit. param_count: None where unknown. config: config.json.
    requires_remote_code: loading would run Python code of the repository. link: the model's page.
    path: the directory, for `local`. warnings: sentences for the person.
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
    requires_remote_code: bool = False
    link: str | None = None
    path: Path | None = None
    warnings: tuple[str, ...] = ()

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
        """Brings every file of `plan` into `folder`, checked against its digest.

        Reports at least twice a second; ends within a second of `report` raising `Cancelled`.

        Raises:
            MiLLMError: the source failed, or a file arrived damaged.
        """
        ...
