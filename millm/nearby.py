"""The files of a model on the node of a replica: where they are shared they are read there, else they are fetched."""

import logging
import shutil
from pathlib import Path

from filelock import FileLock

from millm.conversion import is_converted
from millm.errors import LoadFailed
from millm.events import Event
from millm.meta import META, UNREADABLE, folder_name, read_meta
from millm.planning import origin_of
from millm.quantizing import CannotQuantize, quantize
from millm.records import ModelRecord, Source
from millm.sources.huggingface import HuggingFace

log = logging.getLogger(__name__)


def folder_here(record: ModelRecord, shared: Path, root: Path, hub: str | None, token: str | None) -> Path:
    """The folder that a model is opened from on this node.

    shared: where the files are for the one who asks. root: what is fetched here is kept below it. hub: its address,
    None for the public one. token: for gated repositories, of this node.

    Raises:
        LoadFailed: this node does not see the files, and they do not come from the hub.
        MiLLMError: the hub refuses, or cannot be reached.
    """
    if _holds(shared, record):
        return shared
    if record.source is not Source.HUGGINGFACE or not record.revision:
        raise LoadFailed(
            f"A node of the Ray cluster does not see {shared}, and '{record.name}' does not come from the hub: "
            "put MODEL_CACHE_DIR on a disk that all nodes share, under the same path."
        )
    kept = root / "replicas" / f"{folder_name(record)}-{record.revision[:12]}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(kept.with_name(f"{kept.name}.lock")):  # replicas on one node fetch it once
        if not kept.is_dir():
            _bring(record, kept, HuggingFace(hub), token)
    return kept


def _holds(folder: Path, record: ModelRecord) -> bool:
    """Whether these are the model's files: complete, and at its commit where they say which one."""
    if not (folder / "config.json").is_file():
        return False
    try:
        return record.source is Source.LOCAL or read_meta(folder / META).revision == record.revision
    except UNREADABLE:
        return False


def _bring(record: ModelRecord, kept: Path, hub: HuggingFace, token: str | None) -> None:
    """Fetches the pinned commit, verified, and quantizes it if the record is a quantized copy."""
    unfinished = kept.with_name(f"{kept.name}.part")
    plan = hub.plan(origin_of(record), token)
    if plan.refusal:
        raise plan.refusal
    unfinished.mkdir(exist_ok=True)
    log.info("fetching %s at %s", record.repo_id, plan.commit)
    hub.fetch(plan, token, unfinished, _unheard)
    if not is_converted(plan, record.quantization):
        unfinished.rename(kept)
        return
    copy = kept.with_name(f"{kept.name}.copy")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    try:
        quantize(unfinished, copy, record.quantization, record.trust_remote_code, _unheard)
    except CannotQuantize as error:
        raise LoadFailed(f"'{record.name}' cannot be quantized on a node of the Ray cluster: {error}") from error
    copy.rename(kept)
    shutil.rmtree(unfinished)


def _unheard(_: Event) -> None:
    """How far it is: before a replica is up, Ray has nowhere to tell it."""
