"""What a finished folder says about itself: its name, its meta file, its config.json."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from millm.records import ModelRecord, ModelType, Quantization, Source, Status, architecture_facts, short_count

META = ".millm_meta.json"
JOURNAL = ".journal"
"""What of an unfinished download is safely on disk; see `sources/journal.py`."""
BLOCK = 2**20
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, OSError)  # what a strange file may raise
META_FIELDS = (
    "name",
    "model_type",
    "source",
    "repo_id",
    "revision",
    "requested_revision",
    "quantization",
    "param_count",
    "trust_remote_code",
    "license",
    "estimated_memory_mb",
    "estimated_weights_mb",
    "warning",
    "created_at",
)


def folder_name(record: ModelRecord) -> str:
    """The final folder's name: `owner--name--FP16`, with the revision between when one was asked for.

    Where that could be the name of another model too, a digest of what the model is stands at the end.
    """
    parts = [(record.repo_id or record.name).replace("/", "--")]
    revision = record.requested_revision or ""
    if revision:
        parts.append(re.sub(r"[^A-Za-z0-9_.-]", "_", revision)[:80])
    parts.append(record.quantization)
    if "--" in (record.repo_id or "") or parts[1:-1] != [revision][: len(parts) - 2] or record.url:
        parts.append(identity(record))
    return re.sub(r"[^A-Za-z0-9_.-]", "_", "--".join(parts))


def identity(record: ModelRecord) -> str:
    """Eight hex digits that tell models apart."""
    what = [record.source, record.repo_id, record.url, record.requested_revision, record.quantization]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]


def staging_name(record: ModelRecord) -> str:
    """The staging folder of a record's download; the same in every process, so that a later one finds it."""
    return f"{record.source}--{folder_name(record)}"


def folder_bytes(folder: Path, own_only: bool = False) -> int:
    """Bytes of all files below a folder; links are not followed. own_only: only files without other hard links."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                stat = os.lstat(os.path.join(where, name))  # noqa: PTH118  (hot: a status bar asks)
            except FileNotFoundError:  # a running download renamed or removed it meanwhile
                continue
            total += 0 if own_only and stat.st_nlink > 1 else stat.st_size
    return total


def write_meta(
    folder: Path,
    record: ModelRecord,
    digests: Mapping[str, str | None],
    check: Callable[[], None] = lambda: None,
    original_bytes: int | None = None,
) -> None:
    """Writes a folder's meta file to the disk; `digests` maps relative paths to "sha256:<hex>" where known.

    `check` is called again and again while files are digested, and may raise. original_bytes: of the files that a
    quantized copy was made from, where this is one.
    """
    own = (folder / META, folder / JOURNAL)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path not in own)
    size = sum(path.stat().st_size for path in files)
    meta = {
        "model_id": record.id,
        **{name: getattr(record, name) for name in META_FIELDS},
        "downloaded_at": record.updated_at,
        "original_size_bytes": original_bytes or size,
        "quantized_size_bytes": size if original_bytes and record.quantization is not Quantization.FP16 else None,
        "files": [_file_row(folder, path, digests, check) for path in files],
        "transformers_version": _version("transformers"),
        "bitsandbytes_version": _version("bitsandbytes"),
    }
    with (folder / META).open("w", encoding="utf-8") as out:
        json.dump(meta, out, indent=1)
        out.flush()
        os.fsync(out.fileno())


def _file_row(
    folder: Path, path: Path, digests: Mapping[str, str | None], check: Callable[[], None]
) -> dict[str, object]:
    name = path.relative_to(folder).as_posix()
    return {"path": name, "size": path.stat().st_size, "sha256": _sha256(path, digests.get(name), check)}


def _sha256(path: Path, digest: str | None, check: Callable[[], None]) -> str:
    if digest and digest.startswith("sha256:"):
        return digest.removeprefix("sha256:")
    running = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            running.update(block)
            check()
    return running.hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_meta(path: Path) -> ModelRecord:
    """The record of a finished folder, from its meta file. Raises one of `UNREADABLE`."""
    meta: dict[str, Any] = json.loads(path.read_bytes())
    for name in ("name", "source", "quantization", "files"):
        meta[name]  # a meta file without these is not ours
    size = sum(file["size"] for file in meta["files"])
    known = {name: meta.get(name) for name in META_FIELDS if meta.get(name) is not None}
    if meta.get("quantized_size_bytes"):
        known["original_size_mb"] = round(meta["original_size_bytes"] / 1e6, 2)
    return _describe(path.parent, ModelRecord.from_dict(known), size)


def read_link(link: Path) -> ModelRecord:
    """The record of a linked local directory. Raises one of `UNREADABLE`."""
    target = str(link.resolve())
    record = ModelRecord(
        name=link.name,
        source=Source.LOCAL,
        local_path=target,
        quantization=Quantization.FP16,
        model_type=ModelType.LLM,
    )
    return _describe(link, record, folder_bytes(Path(target)))


def _describe(folder: Path, record: ModelRecord, size: int) -> ModelRecord:
    return record.with_(
        **describe_folder(folder),
        params=short_count(record.param_count),
        downloaded_bytes=size,
        cache_path=str(folder),
        status=Status.READY,
    )


def describe_folder(folder: Path) -> dict[str, Any]:
    """The fields of a record that a finished folder tells: config and what it states, size."""
    path = folder / "config.json"
    size = folder_bytes(folder.resolve())
    facts: dict[str, Any] = {"size_bytes": size, "disk_size_mb": round(size / 1e6, 2)}
    if not path.exists():
        return facts
    config = json.loads(path.read_bytes())
    return {**facts, **architecture_facts(config), "config": config}
