"""What of an unfinished download is safely on disk, so that a later try, or a later process, goes on from there."""

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from millm.meta import JOURNAL

BLOCK_BYTES = 16 * 2**20


class Extent(NamedTuple):
    """A range of a file that was written and synced.

    crc: CRC-32 of its bytes; None for what was found whole, which the digest of the file alone decides about.
    """

    start: int
    length: int
    crc: int | None


class Journal:
    """A file of lines beside the files of a download: one for each range that the disk holds.

    A line is written after its range was synced. A line that a crash cut short is ignored with all after it: what it
    told of is fetched again.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / JOURNAL
        self._known = read_journal(folder)
        self._out = self._path.open("a", encoding="utf-8")
        self._out.write("\n")  # ends a line that a crash cut short

    def extents(self, name: str, digest: str | None) -> list[Extent]:
        """The ranges that are on disk of the file called `name`, if it was the one with this digest."""
        return self._known.get((name, digest), [])

    def count(self, name: str, digest: str | None) -> int:
        """Bytes of those ranges."""
        return sum(extent.length for extent in self.extents(name, digest))

    def add(self, name: str, digest: str | None, extents: Iterable[Extent]) -> None:
        """Notes ranges that were just synced."""
        for extent in extents:
            self._out.write(json.dumps([name, digest, *extent]) + "\n")
        self._out.flush()

    def forget(self, name: str) -> None:
        """Notes that nothing of a file is worth keeping."""
        self._out.write(json.dumps([name]) + "\n")
        self._out.flush()

    def close(self) -> None:
        """Closes the journal. It stays beside the files, for until they are published a crash needs it."""
        self._out.close()


def note_whole(folder: Path, files: Iterable[tuple[str, str | None, int]]) -> None:
    """Notes files, given as (name, digest, size), that lie in a folder complete. They are still digested again."""
    journal = Journal(folder)
    for name, digest, size in files:
        starts = range(0, size, BLOCK_BYTES)
        journal.add(name, digest, (Extent(start, min(BLOCK_BYTES, size - start), None) for start in starts))
    journal.close()


def read_journal(folder: Path) -> dict[tuple[str, str | None], list[Extent]]:
    """The ranges noted in a folder's journal, by file name and digest; empty without one."""
    try:
        lines = (folder / JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    known: dict[tuple[str, str | None], list[Extent]] = {}
    for line in filter(None, lines):
        try:
            name, *rest = json.loads(line)
            if rest:
                digest, start, length, crc = rest
                known.setdefault((name, digest), []).append(Extent(start, length, crc))
            else:
                known = {key: extents for key, extents in known.items() if key[0] != name}
        except (ValueError, TypeError):
            continue
    return known


def kept_bytes(folder: Path) -> int:
    """Bytes of an unfinished download that another try need not fetch again."""
    return sum(extent.length for extents in read_journal(folder).values() for extent in extents)


def checksum(data: bytes, before: int = 0) -> int:
    """CRC-32 of `data`, going on from that of the bytes before it."""
    return zlib.crc32(data, before)
