"""The cache directory: what is unfinished, what is finished, and the step between.

    <root>/.lock                                one process at a time
    <root>/.staging/<job>/                      everything unfinished; swept at start
    <root>/huggingface/owner--name--FP16/       finished: complete, verified, with .millm_meta.json
    <root>/local/<name>                         a symlink to a directory that stays where it is

A folder appears under its final name by one rename of a finished staging folder, and disappears by one rename
into staging, so that a crash at any moment leaves no half model.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from millm.errors import InsufficientDisk, StartupError
from millm.records import (
    ModelRecord,
    ModelType,
    Quantization,
    Source,
    Status,
    architecture_facts,
    short_count,
)

log = logging.getLogger(__name__)

META = ".millm_meta.json"
META_FIELDS = (
    "name", "model_type", "source", "repo_id", "revision", "requested_revision", "quantization", "param_count",
    "trust_remote_code", "estimated_memory_mb", "created_at",
)  # fmt: skip


class Store:
    """Everything miLLM keeps on disk, below one root directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._staging = self.root / ".staging"
        self._lock = FileLock(self.root / ".lock")

    @property
    def registry_path(self) -> Path:
        """Where the registry file belongs."""
        return self.root / "registry.json"

    def open(self) -> None:
        """Creates the directories, takes the lock and sweeps what a killed process left unfinished.

        Raises:
            StartupError: the directory cannot be written, or another process holds it.
        """
        try:
            self._staging.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StartupError(f"Another miLLM is using the cache directory {self.root}.") from None
        except OSError as error:
            raise StartupError(f"Cannot write to the cache directory {self.root}: {error.strerror}.") from error
        for left_over in self._staging.iterdir():
            log.info("removing unfinished %s", left_over.name)
            _remove(left_over)

    def close(self) -> None:
        """Lets another process take the directory."""
        self._lock.release()

    def free_bytes(self) -> int:
        """Bytes free on the disk of the cache directory, for this user."""
        return shutil.disk_usage(self.root).free

    def check_space(self, needed: int) -> None:
        """Raises `InsufficientDisk` if fewer than `needed` bytes are free."""
        free = self.free_bytes()
        if needed > free:
            raise InsufficientDisk(
                f"Insufficient disk space. Need {needed / 1e9:.1f} GB, only {free / 1e9:.1f} GB available.",
                needed_bytes=needed,
                free_bytes=free,
            )

    @contextmanager
    def staging(self, job_id: str) -> Iterator[Path]:
        """A folder for one job's unfinished files; whatever is left in it at the end is removed."""
        folder = self._staging / job_id
        folder.mkdir()
        try:
            yield folder
        finally:
            _remove(folder)

    def publish(self, folder: Path, record: ModelRecord, digests: Mapping[str, str | None]) -> Path:
        """Gives a finished staging folder its final name and returns that path.

        `digests` maps relative paths to "sha256:<hex>" where known; the others are computed here.
        """
        final = self.root / record.source / folder_name(record)
        sizes = {path: (folder / path).stat().st_size for path in digests}
        meta = {
            "model_id": record.id,
            **{name: getattr(record, name) for name in META_FIELDS},
            "downloaded_at": record.updated_at,
            "original_size_bytes": sum(sizes.values()),
            "quantized_size_bytes": None,
            "files": [
                {"path": path, "size": sizes[path], "sha256": _sha256(folder / path, digest)}
                for path, digest in digests.items()
            ],
            "transformers_version": _version("transformers"),
            "bitsandbytes_version": _version("bitsandbytes"),
        }
        with (folder / META).open("w", encoding="utf-8") as out:
            json.dump(meta, out, indent=1, ensure_ascii=False)
            out.flush()
            os.fsync(out.fileno())
        final.parent.mkdir(exist_ok=True)
        if final.exists():
            self._discard(final)
        folder.rename(final)
        return final

    def link(self, record: ModelRecord) -> Path:
        """Makes `local/<name>` point to the record's `local_path` and returns the link's path."""
        link = self.root / Source.LOCAL / record.name
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(str(record.local_path), target_is_directory=True)
        return link

    def delete(self, record: ModelRecord) -> None:
        """Removes the record's folder. Of a local model only the link goes; what it points to is never touched.

        Raises:
            ValueError: the record's path is not one this store gave out.
        """
        if record.cache_path is None:
            return
        path = Path(record.cache_path)
        if path.parent != self.root / record.source:
            raise ValueError(f"{path} is not in {self.root / record.source}")
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            self._discard(path)

    def usage(self, record: ModelRecord) -> int:
        """Bytes on disk that deleting the record would free; 0 for a local model."""
        if record.cache_path is None or record.source is Source.LOCAL:
            return 0
        return folder_bytes(Path(record.cache_path))

    def staging_bytes(self) -> int:
        """Bytes of everything unfinished."""
        return folder_bytes(self._staging)

    def published(self) -> Iterable[ModelRecord]:
        """A record for every finished folder and every link, read from the meta files; for a lost registry."""
        for meta_path in sorted(self.root.glob(f"*/*/{META}")):
            if meta_path.parent.is_symlink():
                continue
            try:
                yield _read_meta(meta_path)
            except (ValueError, KeyError, OSError) as error:
                log.error("cannot adopt %s: %s", meta_path.parent, error)
        for link in sorted((self.root / Source.LOCAL).glob("*")):
            if link.is_symlink() and (link / "config.json").exists():
                yield _read_link(link)

    def _discard(self, path: Path) -> None:
        doomed = self._staging / f"deleted-{uuid.uuid4().hex}"
        path.rename(doomed)
        _remove(doomed)


def folder_name(record: ModelRecord) -> str:
    """The final folder's name: `owner--name--FP16`, with the revision between when one was asked for."""
    parts = [(record.repo_id or record.name).replace("/", "--")]
    if record.requested_revision:
        parts.append(re.sub(r"[^A-Za-z0-9_.-]", "_", record.requested_revision)[:80])
    return "--".join([*parts, record.quantization])


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; links are not followed."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size  # noqa: PTH118  (hot: a status bar asks)
            except FileNotFoundError:  # a running download renamed or removed it meanwhile
                continue
    return total


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sha256(path: Path, digest: str | None) -> str:
    if digest and digest.startswith("sha256:"):
        return digest.removeprefix("sha256:")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read_meta(path: Path) -> ModelRecord:
    meta: dict[str, Any] = json.loads(path.read_bytes())
    for name in ("name", "source", "quantization", "files"):
        meta[name]  # a meta file without these is not ours
    size = sum(file["size"] for file in meta["files"])
    return _describe(
        path.parent,
        ModelRecord.from_dict({name: meta.get(name) for name in META_FIELDS if meta.get(name) is not None}),
        size,
    )


def _read_link(link: Path) -> ModelRecord:
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
    config = json.loads((folder / "config.json").read_bytes()) if (folder / "config.json").exists() else {}
    return record.with_(
        **architecture_facts(config),
        config=config,
        params=short_count(record.param_count),
        size_bytes=size,
        downloaded_bytes=size,
        disk_size_mb=round(size / 1e6, 2),
        cache_path=str(folder),
        status=Status.READY,
    )
