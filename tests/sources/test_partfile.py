import asyncio
import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from making import content

from millm.sources import partfile
from millm.sources.journal import Journal
from millm.sources.partfile import PartFile, to_the_end

DATA = content(1_000_000)
PIECE = 10_000
PIECES = range(0, len(DATA), PIECE)


def write(path: Path, digest: str | None, orders: Iterable[Iterable[int]]) -> str | None:
    async def run() -> str | None:
        part = PartFile(path.parent, path.name, len(DATA), digest, Journal(path.parent))
        for order in orders:
            part.restart()
            for at in order:
                await part.write(at, DATA[at : at + PIECE])
        assert part.written == len(DATA)
        found = await part.digest()
        part.close()
        return found

    return asyncio.run(run())


@pytest.mark.parametrize("kind", ["sha256", "md5"])
@pytest.mark.parametrize(
    "order", [PIECES, PIECES[::-1], [*PIECES[1::2], *PIECES[::2]]], ids=["forward", "backward", "mixed"]
)
def test_pieces_in_any_order_give_the_file_and_its_digest(tmp_path: Path, kind: str, order: Iterable[int]) -> None:
    found = write(tmp_path / "deep" / "file", f"{kind}:?", [order])
    assert (tmp_path / "deep" / "file").read_bytes() == DATA
    assert found == f"{kind}:{hashlib.new(kind, DATA).hexdigest()}"


def test_what_is_far_ahead_of_the_digest_is_read_back(tmp_path: Path) -> None:
    data = content(20_000_000)

    async def run() -> str | None:
        part = PartFile(tmp_path, "file", len(data), "sha256:?", Journal(tmp_path))
        for at in reversed(range(0, len(data), 1_000_000)):
            await part.write(at, data[at : at + 1_000_000])
        return await part.digest()

    assert asyncio.run(run()) == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_the_disk_is_synced_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))

    async def run() -> None:
        part = PartFile(tmp_path, "file", 40_000_000, None, Journal(tmp_path))
        for at in range(0, 40_000_000, 1_000_000):
            await part.write(at, bytes(1_000_000))

    asyncio.run(run())
    assert synced == [17_000_000, 34_000_000]


def test_digest_of_git(tmp_path: Path) -> None:
    expected = hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest()
    assert write(tmp_path / "file", "git-sha1:?", [PIECES]) == f"git-sha1:{expected}"


def test_without_an_announced_digest_none_is_computed(tmp_path: Path) -> None:
    assert write(tmp_path / "file", None, [PIECES]) is None


def test_starting_over_forgets_what_came(tmp_path: Path) -> None:
    found = write(tmp_path / "file", "sha256:?", [[*PIECES[3:]], PIECES])
    assert found == f"sha256:{hashlib.sha256(DATA).hexdigest()}"


def test_what_is_there_already_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(2 * len(DATA)))
    write(tmp_path / "file", None, [PIECES])
    assert (tmp_path / "file").read_bytes() == DATA


def test_no_step_on_the_disk_is_long() -> None:
    """A cancel waits for the step that runs: at 30 MB/s the longest of these takes 0.5 s."""
    assert max(partfile.SYNC_BYTES, partfile.CATCH_UP_BYTES) <= 0.6 * 30e6


def test_cancelled_work_on_the_disk_ends_before_its_caller() -> None:
    steps = []

    def work() -> None:
        time.sleep(0.1)
        steps.append("worked")

    async def run() -> None:
        task = asyncio.create_task(to_the_end(work))
        for _ in range(3):
            await asyncio.sleep(0.01)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        steps.append("left")

    asyncio.run(run())
    assert steps == ["worked", "left"]
