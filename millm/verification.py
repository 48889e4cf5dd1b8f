"""Whether the files of a model on disk are still what was downloaded."""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from millm.errors import InvalidRequest
from millm.events import Event, Report, Stage
from millm.meta import META

log = logging.getLogger(__name__)

BLOCK = 2**20
TICK_S = 0.25


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What a check found; paths are relative to the model's folder, with `/`.

    checked: how many files were there to be checked. damaged: with another content than was downloaded, or
    unreadable. missing: gone. extra: not part of the download; harmless.
    """

    checked: int
    damaged: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def intact(self) -> bool:
        """Whether everything that was downloaded is there unchanged."""
        return not self.damaged and not self.missing


class _Listed(NamedTuple):
    path: str
    size: int
    sha256: str


def verify_folder(folder: Path, report: Report, tick_s: float = TICK_S) -> VerifyResult:
    """Reads every file that the folder's meta file lists and compares its sha256.

    Reports at the start, every `tick_s` seconds and at the end; ends at once when `report` raises.

    Raises:
        InvalidRequest: there are no digests to check against.
    """
    listed = _read_meta(folder)
    progress = _Progress(report, sum(file.size for file in listed), tick_s)
    damaged, missing = [], []
    for file in listed:
        before = progress.done
        if not (folder / file.path).is_file():
            missing.append(file.path)
        elif not _is_intact(folder / file.path, file, progress.add):
            log.warning("'%s' in %s is damaged", file.path, folder)
            damaged.append(file.path)
        progress.add(before + file.size - progress.done)
    progress.finish()
    names = {file.path for file in listed}
    return VerifyResult(
        checked=len(listed) - len(missing),
        damaged=tuple(damaged),
        missing=tuple(missing),
        extra=tuple(path for path in _files(folder) if path not in names),
    )


class _Progress:
    """Says how many bytes are read, now and then."""

    def __init__(self, report: Report, total: int, tick_s: float) -> None:
        self.done = 0
        self._report = report
        self._total = total
        self._tick_s = tick_s
        self._start = time.monotonic()
        self._say(self._start)

    def add(self, count: int) -> None:
        """Counts bytes; reports when it is time to."""
        self.done += count
        if (now := time.monotonic()) - self._said >= self._tick_s:
            self._say(now)

    def finish(self) -> None:
        """Reports the end."""
        self._say(time.monotonic())

    def _say(self, now: float) -> None:
        self._said = now
        speed = self.done / (now - self._start) if now > self._start else 0.0
        self._report(
            Event(
                Stage.VERIFYING,
                progress=100.0 * self.done / self._total if self._total else 100.0,
                bytes_done=self.done,
                bytes_total=self._total,
                speed=speed,
                eta=(self._total - self.done) / speed if speed else None,
            )
        )


def _is_intact(path: Path, file: _Listed, count: Callable[[int], None]) -> bool:
    digest = hashlib.sha256()
    try:
        if path.stat().st_size != file.size:
            return False
        with path.open("rb", buffering=0) as opened:
            while block := opened.read(BLOCK):
                digest.update(block)
                count(len(block))
    except OSError as error:
        log.warning("cannot read %s: %s", path, error)
        return False
    return digest.hexdigest() == file.sha256


def _read_meta(folder: Path) -> tuple[_Listed, ...]:
    try:
        rows = json.loads((folder / META).read_bytes())["files"]
        listed = tuple(_Listed(str(row["path"]), int(row["size"]), str(row["sha256"])) for row in rows)
    except OSError as error:
        kind = "A local model has" if folder.is_symlink() else "This model has"
        raise InvalidRequest(f"{kind} no digests to check against.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"Cannot check: {META} is damaged. Download the model again.") from error
    for file in listed:
        if (path := PurePosixPath(file.path)).is_absolute() or ".." in path.parts:
            raise InvalidRequest(f"Cannot check: {META} names a file outside the model's folder.", file=file.path)
    return listed


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(name for path in paths if (name := path.relative_to(folder).as_posix()) != META)
