"""Makes what the registry says and what the disk holds agree, and what left-overs there are."""

import logging
from datetime import UTC, datetime
from typing import Any

from millm.errors import DownloadFailed, InvalidLocalPath
from millm.meta import staging_name
from millm.planning import NO_ERROR, facts_of, origin_of
from millm.records import ELSEWHERE, ModelRecord, Source, Status
from millm.registry import Registry
from millm.sources.base import Fetcher
from millm.sources.journal import kept_bytes
from millm.store import Store

log = logging.getLogger(__name__)

GONE = "The files are no longer where they were."


def reconcile(registry: Registry, store: Store, local: Fetcher | None) -> None:
    """Called once, before anything runs.

    Folders that no record knows are adopted. A record whose folder has gone says so and can be retried; a linked
    directory that changed is read again. What interrupted downloads left is kept and counted; everything else in
    staging is removed. local: the source of linked directories.
    """
    for record in registry.all():
        moved = store.moved(record)
        if moved:
            registry.update(record.id, cache_path=str(moved))
    for found in store.published():
        _adopt(registry, found)
    for record in registry.all():
        if record.source is Source.LOCAL and local:
            try:
                refresh(registry, local, record)
            except InvalidLocalPath as error:
                log.warning("'%s': %s", record.name, error.message)
        elif record.status is Status.READY and record.source not in ELSEWHERE and not store.holds(record):
            registry.update(record.id, status=Status.ERROR, error_code=DownloadFailed.code, error_message=GONE)
    interrupted = [record for record in registry.all() if record.status is Status.ERROR]
    store.sweep({staging_name(record) for record in interrupted})
    for record in interrupted:
        if (kept := kept_bytes(store.staging_path(staging_name(record)))) != record.downloaded_bytes:
            registry.update(record.id, downloaded_bytes=kept)


def refresh(registry: Registry, local: Fetcher, record: ModelRecord) -> ModelRecord:
    """Looks at a linked directory again: one that changed is read anew, one that came back is ready again.

    Raises:
        InvalidLocalPath: there is no model in it any more; the record says so too.
    """
    try:
        plan = local.plan(origin_of(record), None)
    except InvalidLocalPath as error:
        registry.update(record.id, status=Status.ERROR, error_code=error.code, error_message=error.message)
        raise
    changes: dict[str, Any] = {} if record.status is Status.READY else {"status": Status.READY, **NO_ERROR}
    if plan.fingerprint != record.fingerprint:
        changes |= facts_of(plan)
        if record.fingerprint and not record.built_in:
            today = datetime.now(UTC).date().isoformat()
            changes["warning"] = f"The files of this directory have changed since it was added; noticed on {today}."
    return registry.update(record.id, **changes) if changes else record


def _adopt(registry: Registry, found: ModelRecord) -> None:
    known = next((record for record in registry.all() if record.cache_path == found.cache_path), None)
    twin = known or registry.twin(found)
    if twin is None:
        log.info("found '%s' on disk; it is in the list again", found.name)
        registry.add(found)
    elif twin.status is Status.ERROR:
        size = found.downloaded_bytes
        registry.update(twin.id, status=Status.READY, cache_path=found.cache_path, downloaded_bytes=size, **NO_ERROR)
