"""The cache directory: what is unfinished, what is finished, and the step between.

    <root>/.lock                                one process at a time
    <root>/.staging/<name>/                     everything unfinished; what nobody goes on with is swept at start
    <root>/huggingface/owner--name--FP16/       finished: complete, verified, with .millm_meta.json
    <root>/local/<name>                         a symlink to a directory that stays where it is

A folder appears under its final name by one rename of a finished staging folder, and disappears by one rename
into staging, so that a crash at any moment leaves no half model.
"""

import json
import logging
import shutil
import uuid
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from millm.errors import InsufficientDisk, StartupError
from millm.meta import (
    JOURNAL,
    META,
    UNREADABLE,
    folder_bytes,
    folder_name,
    identity,
    read_link,
    read_meta,
    staging_name,
    write_meta,
)
from millm.records import ModelRecord, Source

log = logging.getLogger(__name__)


class Store:
    """Everything miLLM keeps on disk, below one root directory."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.staging_root = self.root / ".staging"
        self._lock = FileLock(self.root / ".lock")

    @property
    def registry_path(self) -> Path:
        """Where the registry file belongs."""
        return self.root / "registry.json"

    def open(self) -> None:
        """Creates the directories and takes the lock.

        Raises:
            StartupError: the directory cannot be written, or another process holds it.
        """
        try:
            self.staging_root.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StartupError(f"Another miLLM is using the cache directory {self.root}.") from None
        except OSError as error:
            raise StartupError(f"Cannot write to the cache directory {self.root}: {error.strerror}.") from error

    def sweep(self, keep: Container[str]) -> None:
        """Removes what a killed process left in staging, but for the folders whose names are in `keep`."""
        for left_over in self.staging_root.iterdir():
            if left_over.name not in keep:
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
            raise InsufficientDisk(needed, free)

    def staging(self, name: str) -> Path:
        """The folder for unfinished files of this name; what an earlier try left is still in it."""
        folder = self.staging_path(name)
        folder.mkdir(exist_ok=True)
        return folder

    def staging_path(self, name: str) -> Path:
        """Where that folder is, or would be."""
        return self.staging_root / name

    def drop_staging(self, name: str) -> None:
        """Removes the unfinished files of this name, if there are any."""
        _remove(self.staging_path(name))

    def publish(
        self,
        folder: Path,
        record: ModelRecord,
        digests: Mapping[str, str | None],
        check: Callable[[], None] = lambda: None,
        original_bytes: int | None = None,
    ) -> Path:
        """Gives a finished staging folder its final name and returns that path.

        `digests` maps relative paths to "sha256:<hex>" where known; those of other files are computed here. `check`
        is called meanwhile, and may raise as long as nothing is final. original_bytes: see `write_meta`.
        """
        final = self._final_path(record)
        write_meta(folder, record, digests, check, original_bytes)
        check()
        final.parent.mkdir(exist_ok=True)
        if final.exists():
            self._discard(final)
        folder.rename(final)
        (final / JOURNAL).unlink(missing_ok=True)  # until now it was what a crash would have gone on from
        return final

    def unpublish(self, record: ModelRecord, name: str) -> Path:
        """Takes a finished folder back to staging, where its files are unfinished ones again; returns it there."""
        folder = self.staging_path(name)
        _remove(folder)
        Path(str(record.cache_path)).rename(folder)
        (folder / META).unlink(missing_ok=True)
        return folder

    def link(self, record: ModelRecord) -> Path:
        """Makes `local/<name>` point to the record's `local_path` and returns the link's path.

        A name that another record's link has (its record may be called otherwise by now) gets the id behind it.
        """
        link = self._link_path(record)
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

    def holds(self, record: ModelRecord) -> bool:
        """Whether the record's folder, or the directory that it links to, is still there."""
        proof = "config.json" if record.source is Source.LOCAL else META
        return record.cache_path is not None and (Path(record.cache_path) / proof).exists()

    def moved(self, record: ModelRecord) -> Path | None:
        """Where a record's folder is now, if the whole cache directory was moved since; else None."""
        if record.cache_path is None:
            return None
        here = self.root / record.source / Path(record.cache_path).name
        return here if str(here) != record.cache_path and here.exists() else None

    def usage(self, record: ModelRecord) -> int:
        """Bytes of the record's files: none of a local model, none that others link to, none that are unfinished."""
        if record.cache_path is None or record.source is Source.LOCAL:
            return 0
        return folder_bytes(Path(record.cache_path), own_only=True)

    def unfinished(self, record: ModelRecord) -> int:
        """Bytes of what has come of the record's download, or what a failed one left for Retry."""
        return folder_bytes(self.staging_path(staging_name(record)))

    def orphans(self, records: Iterable[ModelRecord]) -> dict[Path, int]:
        """What lies in the cache directory and belongs to no record, with its bytes."""
        owned: set[Path] = set()
        for record in records:
            link = self._link_path(record)
            owned |= {self.staging_path(staging_name(record)), self._final_path(record), link}
            if record.cache_path:
                owned.add(Path(record.cache_path))
        places = (self.staging_root, *(self.root / source for source in Source))
        found = [path for place in places if place.is_dir() for path in place.iterdir() if path not in owned]
        found += self.root.glob(f"{self.registry_path.name}.*")
        return {path: _bytes_of(path) for path in sorted(found)}

    def remove_orphans(self, records: Iterable[ModelRecord]) -> int:
        """Removes what belongs to no record; returns how many bytes that were. What links point to stays."""
        orphans = self.orphans(records)
        for path in orphans:
            log.info("removing the left-over %r", path.name)
            _remove(path)
        return sum(orphans.values())

    def staging_bytes(self) -> int:
        """Bytes of everything unfinished."""
        return folder_bytes(self.staging_root)

    def published(self) -> Iterable[ModelRecord]:
        """A record for every finished folder and every link, read from the meta files; for a lost registry."""
        finished = (path for source in Source for path in (self.root / source).glob(f"*/{META}"))
        for meta_path in sorted(finished):
            if meta_path.parent.is_symlink():
                continue
            try:
                yield read_meta(meta_path)
            except UNREADABLE as error:
                log.error("cannot adopt %s: %s", meta_path.parent, error)
        for link in sorted((self.root / Source.LOCAL).glob("*")):
            try:
                if link.is_symlink() and (link / "config.json").exists():
                    yield read_link(link)
            except UNREADABLE as error:
                log.error("cannot adopt %s: %s", link, error)

    def _link_path(self, record: ModelRecord) -> Path:
        link = self.root / Source.LOCAL / record.name
        taken = link.is_symlink() and str(link.readlink()) != record.local_path
        return link.with_name(f"{record.name}-{record.id}") if taken else link

    def _final_path(self, record: ModelRecord) -> Path:
        """The folder for a record. Where names differ only in case for the disk, the second gets a digest behind."""
        plain = self.root / record.source / folder_name(record)
        try:
            there = json.loads((plain / META).read_bytes())
        except (OSError, ValueError):
            return plain
        same = isinstance(there, dict) and there.get("repo_id") == record.repo_id and there.get("url") == record.url
        return plain if same else plain.with_name(f"{plain.name}--{identity(record)}")

    def _discard(self, path: Path) -> None:
        doomed = self.staging_root / f"deleted-{uuid.uuid4().hex}"
        path.rename(doomed)
        _remove(doomed)


def _bytes_of(path: Path) -> int:
    return folder_bytes(path, own_only=True) if path.is_dir() and not path.is_symlink() else path.lstat().st_size


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
