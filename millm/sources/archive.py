"""Archives of models: unpacked without trusting what they say of themselves."""

import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from millm.errors import UnsupportedModel
from millm.sources.members import ENDINGS, Member, damaged, members, sound
from millm.sources.partfile import SYNC_BYTES, disk_errors

CHUNK = 2**20
MODEL_MARKS = ("config.json", "model_index.json")
DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may hold.

    entries: files and folders. total, entry: bytes when unpacked, of all entries and of each. ratio: unpacked to
    packed bytes, judged only beyond `ratio_from` unpacked bytes.
    """

    entries: int = 10_000
    total: int = 2 * 10**12
    entry: int = 10**12
    ratio: float = 100
    ratio_from: int = 64 * 2**20


DEFAULT_ARCHIVE_LIMITS = ArchiveLimits()


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked."""
    return name.lower().endswith(ENDINGS)


def extract(
    archive: Path, folder: Path, check: Callable[[], None], limits: ArchiveLimits = DEFAULT_ARCHIVE_LIMITS
) -> None:
    """Unpacks a zip or tar into `folder`, which it creates; on any error the folder is gone again.

    Hidden files are left out. If everything lies below one folder that holds a model, its contents are moved up.
    `check` is called several times a second and may raise.

    Raises:
        UnsupportedModel: an entry is not a plain file or folder with a plain path, or a limit is passed.
        DownloadFailed: the archive is damaged or cut short, or the disk does not take the bytes.
        InsufficientDisk: the disk is full.
    """
    with disk_errors(folder, 0):
        folder.mkdir(parents=True)
    try:
        unpacking = _Unpacking(archive, folder, check, limits)
        with closing(members(archive, limits.entries)) as found:
            for member in found:
                unpacking.add(member)
        if not any(folder.iterdir()):
            raise UnsupportedModel(f"Cannot unpack '{archive.name}': it holds no files.")
        _move_up(folder)
    except BaseException:
        shutil.rmtree(folder)
        raise


class _Unpacking:
    """One archive on its way to the disk: names and bytes so far."""

    def __init__(self, archive: Path, folder: Path, check: Callable[[], None], limits: ArchiveLimits) -> None:
        self._archive = archive.name
        self._packed = archive.stat().st_size
        self._folder = folder
        self._check = check
        self._limits = limits
        self._entries = 0
        self._bytes = 0
        self._names: dict[str, tuple[str, bool]] = {}  # as a file system without case sees it -> name, is a folder

    def add(self, member: Member) -> None:
        """Writes one entry, or refuses it."""
        self._check()
        self._entries += 1
        if self._entries > self._limits.entries:
            raise self._refused(member.name, f"comes after {self._limits.entries} others, too many")
        if fault := _name_fault(member.name) or member.fault:
            raise self._refused(member.name, fault)
        path = PurePosixPath(member.name)
        self._take_name(path, member)
        pieces = self._pieces(member)
        if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
            for _ in pieces:
                pass
        elif member.is_folder:
            self._make_folder(self._folder / path)
        else:
            self._make_folder((self._folder / path).parent)
            self._write(self._folder / path, member.size, pieces)

    def _take_name(self, path: PurePosixPath, member: Member) -> None:
        """Notes the path and the folders above it; none may be there under another spelling or as another kind."""
        for above in path.parents[:-1]:
            if self._names.setdefault(_folded(above), (str(above), True)) != (str(above), True):
                raise self._refused(member.name, "differs from another entry only in case, or lies in a file")
        mine = (str(path), member.is_folder)
        known = self._names.get(_folded(path))
        if known and not (known == mine and member.is_folder):
            raise self._refused(member.name, "is there twice, or differs from another entry only in case")
        self._names[_folded(path)] = mine

    def _pieces(self, member: Member) -> Iterator[bytes]:
        """The entry's bytes, counted as they really come."""
        got = 0
        while True:
            self._check()
            with sound(self._archive):
                data = member.read(CHUNK)
            if not data:
                break
            got += len(data)
            self._bytes += len(data)
            if got > self._limits.entry or self._bytes > self._limits.total:
                raise self._refused(member.name, "unpacks to more bytes than are allowed")
            if self._bytes > max(self._limits.ratio * self._packed, self._limits.ratio_from):
                raise self._refused(member.name, "unpacks to far more bytes than the archive has, like a zip bomb")
            yield data
        if got != member.size:
            raise damaged(self._archive)

    def _make_folder(self, path: Path) -> None:
        with disk_errors(self._folder, 0):
            path.mkdir(parents=True, exist_ok=True)

    def _write(self, path: Path, size: int, pieces: Iterator[bytes]) -> None:
        unsynced = 0
        with disk_errors(path, size):
            out = path.open("xb", buffering=0)
        with out:
            os.fchmod(out.fileno(), 0o644)
            for data in pieces:
                with disk_errors(path, size):
                    rest = memoryview(data)
                    while rest:
                        rest = rest[out.write(rest) :]
                    unsynced += len(data)
                    if unsynced >= SYNC_BYTES:
                        os.fsync(out.fileno())
                        unsynced = 0
            with disk_errors(path, size):
                os.fsync(out.fileno())

    def _refused(self, name: str, reason: str) -> UnsupportedModel:
        return UnsupportedModel(f"Cannot unpack '{self._archive}': '{name[:200]}' {reason}.", entry=name[:200])


def _name_fault(name: str) -> str | None:
    """Why a path is not one that stays inside a folder, on every system; None if it does."""
    if not name.isprintable():
        return "has characters in its name that cannot be shown"
    if "\\" in name:
        return "has a backslash in its name"
    if name.startswith("/") or DRIVE.match(name):
        return "has an absolute path"
    if ".." in name.split("/"):
        return "leads out of its folder"
    return None


def _folded(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


def _move_up(folder: Path) -> None:
    top, *others = folder.iterdir()
    if others or not any((top / mark).is_file() for mark in MODEL_MARKS):
        return
    emptied = top.rename(folder / ".emptied")  # no entry has such a name
    for child in list(emptied.iterdir()):
        child.rename(folder / child.name)
    emptied.rmdir()
