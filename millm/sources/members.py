"""What a zip or a tar holds, entry by entry, read without trusting its headers."""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from millm.errors import DownloadFailed

MOST_HEADER_BYTES = 2**20
"""What may lie between the contents of two entries of a tar: a header, a long name, padding."""
BYTES_PER_ENTRY = 1024
"""What a zip's table of contents may need for an entry; it is read into memory as a whole."""
LEAST_TABLE_BYTES = 2**20
ZIP_ENDINGS = (".zip",)
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
ENDINGS = (*ZIP_ENDINGS, *TAR_ENDINGS)
DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError, NotImplementedError,
    struct.error, OverflowError,
)  # fmt: skip
"""What the standard library raises of an archive that makes no sense."""


@dataclass(frozen=True, slots=True)
class Member:
    """An entry as the archive tells of it. fault: why it is refused. read: the next bytes, none at the end."""

    name: str
    size: int
    is_folder: bool
    fault: str | None
    read: Callable[[int], bytes]


def members(path: Path, most: int) -> Generator[Member, None, None]:
    """The entries of an archive, a zip if its name says so, else a tar. most: so many are expected at most.

    Raises:
        DownloadFailed: it is damaged, cut short or of another type.
    """
    return _zip_members(path, most) if path.name.lower().endswith(ZIP_ENDINGS) else _tar_members(path)


class _Capped(io.BufferedReader):
    """A file that refuses to read more than `most` bytes at once."""

    most: int

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises `BadZipFile` when asked for more."""
        if size is not None and size > self.most:
            raise zipfile.BadZipFile("the table of contents is too long")
        return super().read(size)


def _zip_members(path: Path, most: int) -> Generator[Member, None, None]:
    with sound(path.name), _Capped(io.FileIO(path)) as file:
        file.most = max(BYTES_PER_ENTRY * most, LEAST_TABLE_BYTES)
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if fault := _zip_fault(info):
                    yield Member(info.orig_filename, 0, False, fault, lambda _: b"")
                    continue
                with archive.open(info) as entry:
                    yield Member(info.orig_filename, info.file_size, info.is_dir(), None, entry.read)


def _zip_fault(info: zipfile.ZipInfo) -> str | None:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 1:
        return "is encrypted"
    # Only these are unpacked in pieces; of the others a few bytes may become gigabytes at once.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that is not supported"
    return None


class _StrictHeader(tarfile.TarInfo):
    """A header of a tar. A bad one is an error; tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Raises `EOFHeaderError` at the mark of the end, `ReadError` for what is neither that nor a header."""
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError("bad header") from error


class _Allowed(io.RawIOBase):
    """A stream that gives no more than `left` bytes, so that headers cannot fill the memory."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self.left = 0

    def read(self, size: int = -1, /) -> bytes:
        """Raises `ReadError` when nothing is left."""
        if self.left <= 0:
            raise tarfile.ReadError("header too long")
        data = self._stream.read(size)
        self.left -= len(data)
        return data


def _tar_members(path: Path) -> Generator[Member, None, None]:
    with sound(path.name), _unzipped(path) as stream:
        allowed = _Allowed(stream)
        allowed.left = MOST_HEADER_BYTES
        with tarfile.open(fileobj=allowed, mode="r|", tarinfo=_StrictHeader) as archive:
            while entry := archive.next():
                content = archive.extractfile(entry) if entry.isreg() else None
                allowed.left = max(entry.size, 0) + MOST_HEADER_BYTES
                read = content.read if content else lambda _: b""
                yield Member(entry.name, entry.size if content else 0, entry.isdir(), _tar_fault(entry), read)
                allowed.left = MOST_HEADER_BYTES
        if len(stream.read(MOST_HEADER_BYTES)) == MOST_HEADER_BYTES:  # to the end, where gzip has its checksum
            raise damaged(path.name)


def _tar_fault(entry: tarfile.TarInfo) -> str | None:
    if entry.issym() or entry.islnk():
        return "is a link"
    if entry.size < 0 or entry.issparse() or not (entry.isreg() or entry.isdir()):
        return "is neither a plain file nor a folder"
    return None


def _unzipped(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path) if is_gzip else path.open("rb")


@contextmanager
def sound(archive: str) -> Iterator[None]:
    """Says in our words that an archive makes no sense."""
    try:
        yield
    except DAMAGED as error:
        raise damaged(archive) from error


def damaged(archive: str) -> DownloadFailed:
    """The error of an archive that makes no sense."""
    return DownloadFailed(f"Download failed: '{archive}' is damaged, cut short, or not an archive of its type.")
