"""The Hugging Face cache of this machine: files that other programs have downloaded already."""

import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from millm.sources.base import Plan, PlannedFile
from millm.sources.partfile import new_hash

log = logging.getLogger(__name__)

BLOCK = 4 * 2**20


def reuse(plan: Plan, cache: Path, folder: Path, beat: Callable[[int], None]) -> tuple[PlannedFile, ...]:
    """Puts every planned file that the cache holds intact into `folder`, and returns those that it does not hold.

    A file is linked where the disk can, else copied; the cache is left as it is. Its name there is its digest, so it
    is found whatever commit it was downloaded for; the digest is computed again all the same. `beat` is told the
    bytes in place so far, again and again while files are read, and may raise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing, kept = [], 0
    for file in plan.files:
        blob = find_blob(plan.origin.repo_id or "", file, cache)
        if blob and _take(blob, file, folder / file.path, partial(beat, kept)):
            kept += file.size
        else:
            missing.append(file)
    return tuple(missing)


def find_blob(repo_id: str, file: PlannedFile, cache: Path) -> Path | None:
    """Where the cache holds a planned file, by name and size; links are followed, for caches share files."""
    if file.digest is None:
        return None
    blobs = cache / f"models--{repo_id.replace('/', '--')}" / "blobs"
    blob = (blobs / file.digest.partition(":")[2]).resolve()
    return blob if blob.is_file() and blob.stat().st_size == file.size else None


def _take(blob: Path, file: PlannedFile, target: Path, beat: Callable[[], None]) -> bool:
    if target.exists() and not target.samefile(blob):
        return False  # an earlier try was downloading it: that goes on
    if _digest(blob, file, beat) != file.digest:
        log.warning("%s in the Hugging Face cache is damaged; it is downloaded again", file.path)
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(blob, target)
    except OSError:  # another disk, or one that knows no links
        shutil.copyfile(blob, target)
    return True


def _digest(path: Path, file: PlannedFile, beat: Callable[[], None]) -> str:
    running = new_hash(file.digest, file.size)
    assert running is not None
    with path.open("rb") as content:
        while block := content.read(BLOCK):
            running.update(block)
            beat()
    return f"{str(file.digest).partition(':')[0]}:{running.hexdigest()}"
