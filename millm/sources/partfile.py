"""A file that arrives in pieces, in any order: written at their places, digested in file order."""

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from millm.errors import DownloadFailed, InsufficientDisk
from millm.sources.journal import Extent, Journal, checksum

T = TypeVar("T")
SYNC_BYTES = 16 * 2**20
"""So much is written between two syncs. Small, because a cancel waits for the one that runs."""
CATCH_UP_BYTES = 8 * 2**20
"""So much that was written ahead of the digest is read back and digested in one step; small likewise."""


class PartFile:
    """An open file of `size` bytes, empty at first but for what an earlier try left and `recover` finds intact.

    name: where it lies below `folder`, with `/`; what the journal calls it.

    The disk works in the event loop's executor, so that the loop goes on receiving. Every method that writes raises
    InsufficientDisk or DownloadFailed when the disk does not take the bytes.
    """

    def __init__(self, folder: Path, name: str, size: int, digest: str | None, journal: Journal) -> None:
        self.path = path = folder / name
        self.name = name
        self.size = size
        self.written = 0
        self.kept = 0
        self._expected = digest
        self._journal = journal
        self._ahead: dict[int, int] = {}  # start -> length of what is written but not digested yet
        self._fresh: dict[int, Extent] = {}  # end -> what is written but not noted yet
        self._busy = asyncio.Lock()
        with disk_errors(path, size):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_nlink > 1:
                path.unlink()  # a file that others share must not be written to
            fresh = 0 if journal.extents(name, digest) else os.O_TRUNC
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | fresh, 0o644)
        self._begin()

    async def recover(self) -> None:
        """Takes over what the journal knows of an earlier try and the disk still holds unchanged."""
        if os.fstat(self._fd).st_size > self.size:
            os.truncate(self._fd, self.size)
        for extent in self._journal.extents(self.name, self._expected):
            async with self._busy:
                await self._on_disk(self._take_over, extent)
        self.written = self.kept = sum(self._ahead.values())

    def missing(self) -> list[tuple[int, int]]:
        """The ranges [start, end) that are still to be fetched, after `recover` and before the first write."""
        gaps, at = [], 0
        for start in sorted(self._ahead):
            if start > at:
                gaps.append((at, start))
            at = max(at, start + self._ahead[start])
        return [*gaps, (at, self.size)] if at < self.size else gaps

    def restart(self) -> None:
        """Forgets what was written. No write may be under way."""
        self._journal.forget(self.name)
        self._begin()

    async def write(self, offset: int, data: bytes) -> None:
        """Writes a piece at its place. Each byte of the file is written once."""
        async with self._busy:
            await self._on_disk(self._write, offset, data)
        self._note(offset, data)
        self.written += len(data)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES:
            await self.sync()

    async def sync(self) -> None:
        """Waits until the disk holds what was written, and notes it in the journal."""
        self._unsynced = 0
        noted, self._fresh = self._fresh, {}
        await self._on_disk(os.fsync, self._fd)
        with disk_errors(self.path, self.size - self.written):
            self._journal.add(self.name, self._expected, noted.values())

    async def digest(self) -> str | None:
        """The digest of the whole file, in the form of the announced one; None if none was announced."""
        if self._hash is None or self._expected is None:
            return None
        while self._ahead:
            async with self._busy:
                await self._on_disk(self._catch_up)
        return f"{self._expected.partition(':')[0]}:{self._hash.hexdigest()}"

    def close(self) -> None:
        """Closes the file. No write may be under way."""
        os.close(self._fd)

    def _begin(self) -> None:
        self.written = self.kept = 0
        self._unsynced = 0
        self._hash = new_hash(self._expected, self.size)
        self._hashed = 0
        self._ahead, self._fresh = {}, {}

    def _take_over(self, extent: Extent) -> None:
        data = os.pread(self._fd, extent.length, extent.start)
        if len(data) == extent.length and extent.crc in (None, checksum(data)):
            self._ahead[extent.start] = extent.length

    def _note(self, offset: int, data: bytes) -> None:
        before = self._fresh.pop(offset, Extent(offset, 0, 0))
        extent = Extent(before.start, before.length + len(data), checksum(data, before.crc or 0))
        self._fresh[offset + len(data)] = extent

    async def _on_disk(self, work: Callable[..., object], *args: object) -> None:
        with disk_errors(self.path, self.size - self.written):
            await to_the_end(partial(work, *args))

    def _write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.pwrite(self._fd, view, offset + len(data) - len(view)) :]
        if self._hash is None:
            return
        if offset == self._hashed:
            self._hash.update(data)
            self._hashed += len(data)
        else:
            self._ahead[offset] = len(data)
        self._catch_up()

    def _catch_up(self) -> None:
        assert self._hash is not None
        until = self._hashed + CATCH_UP_BYTES
        while self._hashed in self._ahead and self._hashed < until:
            count = self._ahead.pop(self._hashed)
            self._hash.update(os.pread(self._fd, count, self._hashed))
            self._hashed += count


async def to_the_end(work: Callable[[], T]) -> T:
    """Runs blocking work in the loop's executor and returns no earlier than it, even when cancelled.

    A file must not be closed while a thread writes to it.
    """
    future = asyncio.get_running_loop().run_in_executor(None, work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        future.exception()  # looked at, else the loop logs it
        raise cancelled
    return future.result()


def new_hash(digest: str | None, size: int) -> "hashlib._Hash | None":
    """A running hash of the kind of an announced digest, for a file of `size` bytes; None where none is announced."""
    if digest is None:
        return None
    kind = digest.partition(":")[0]
    if kind == "git-sha1":
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    return hashlib.new(kind)


@contextmanager
def disk_errors(path: Path, missing: int) -> Iterator[None]:
    """Says in our words that the disk does not take a file. missing: bytes that are still to be written to it."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            reason = os.strerror(error.errno or 0)
            raise DownloadFailed(f"Download failed: cannot write '{path.name}' ({reason}).") from error
        raise InsufficientDisk(missing, shutil.disk_usage(path.parent).free) from error
