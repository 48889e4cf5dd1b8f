"""What the folder of a model on disk tells beyond its record: files, digests, versions, suggested sampling."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millm.meta import META, UNREADABLE
from millm.records import ModelRecord

SUGGESTED = "generation_config.json"
SAMPLING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
MOST_BYTES = 16 << 20  # of a file that is read whole
MOST_FILES = 500  # of a directory that was not made here


@dataclass(frozen=True, slots=True)
class FileOnDisk:
    """A file of a model. path: within its folder. size: bytes. sha256: as it came; None where it was never taken."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Details:
    """What a model's folder tells. All of it is empty where there is no folder, or one that cannot be read.

    made_at: when the folder was finished, ISO 8601. versions: of the packages that made it, by name. suggested: how
    its makers advise to choose tokens, by the names of `Sampling`; it changes nothing by itself.
    """

    files: tuple[FileOnDisk, ...] = ()
    made_at: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    suggested: dict[str, float] = field(default_factory=dict)


def read_details(record: ModelRecord) -> Details:
    """Reads the folder of a recorded model."""
    if record.cache_path is None:
        return Details()
    folder = Path(record.cache_path)
    meta = read_json(folder / META)
    return Details(
        files=_listed(meta) or _found(folder),
        made_at=meta["downloaded_at"] if isinstance(meta.get("downloaded_at"), str) else None,
        versions=_versions(meta),
        suggested=_suggested(read_json(folder / SUGGESTED)),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file that strangers wrote; empty where there is none that can be read."""
    try:
        read = json.loads(path.read_bytes()) if path.stat().st_size <= MOST_BYTES else None
    except (*UNREADABLE, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}


def _listed(meta: dict[str, Any]) -> tuple[FileOnDisk, ...]:
    try:
        return tuple(FileOnDisk(str(row["path"]), int(row["size"]), row.get("sha256")) for row in meta["files"])
    except UNREADABLE:
        return ()


def _found(folder: Path) -> tuple[FileOnDisk, ...]:
    """The files of a directory that nobody listed, as of a local model."""
    try:
        there = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        paths = sorted(there)[:MOST_FILES]
        return tuple(FileOnDisk(path.name, path.stat().st_size, None) for path in paths)
    except OSError:
        return ()


def _versions(meta: dict[str, Any]) -> dict[str, str]:
    packages = {name: meta.get(f"{name}_version") for name in ("transformers", "bitsandbytes")}
    return {name: found for name, found in packages.items() if isinstance(found, str)}


def _suggested(config: dict[str, Any]) -> dict[str, float]:
    found = {name: config.get(name) for name in SAMPLING}
    if config.get("do_sample") is False:
        found = {"temperature": 0}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}
