"""How a model gets from its source into the registry: planned, brought to staging, published, or undone."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from millm.activity import Activity
from millm.conversion import COPY, Converted, Converter, in_part, is_converted
from millm.errors import (
    DownloadFailed,
    InvalidLocalPath,
    InvalidRequest,
    MiLLMError,
    UnsupportedModel,
)
from millm.events import Event, Stage
from millm.inquiry import Inquiry
from millm.jobs import Job, Lane
from millm.meta import describe_folder, staging_name
from millm.planning import NO_ERROR, origin_of
from millm.reconcile import refresh
from millm.records import ELSEWHERE, ModelRecord, Source, Status
from millm.registry import Registry
from millm.sources.base import Fetcher, Keeper, KeyTaker, Plan
from millm.sources.journal import kept_bytes, note_whole
from millm.store import Store
from millm.verification import verify_folder

log = logging.getLogger(__name__)

FETCHED = 70.0  # percent of a download when all files are there and are still to be quantized
INTERRUPTED = {"error_code": DownloadFailed.code, "error_message": "The download was interrupted."}


class Downloads:
    """Runs one download at a time, the others in the order they came.

    While a download runs, the stored record says that it was interrupted: that is what a killed process leaves.
    """

    def __init__(
        self,
        registry: Registry,
        store: Store,
        fetchers: Mapping[Source, Fetcher],
        activity: Activity,
        inquiry: Inquiry,
        converter: Converter,
        token: str | None,
    ) -> None:
        self._inquiry = inquiry
        self._converter = converter
        self._registry = registry
        self._store = store
        self._fetchers = fetchers
        self._activity = activity
        self._token = token
        self._lane = Lane("download")
        self._closing = False

    def close(self, timeout: float) -> bool:
        """Interrupts what runs; its record stays, to be retried. Returns whether it stopped in `timeout` seconds."""
        self._closing = True
        return self._lane.close(timeout)

    def register(self, draft: ModelRecord, plan: Plan, token: str | None, start: bool) -> ModelRecord:
        """Adds a planned model; a local one is ready where it lies, another is queued if `start`.

        Raises:
            ModelAlreadyExists: the registry has it already.
            InsufficientDisk: the files do not fit; then nothing is recorded.
            InvalidLocalPath: the system refuses to link to the directory; likewise.
            MiLLMError: the plan's own refusal; likewise.
        """
        if plan.refusal:
            raise plan.refusal
        local = draft.source is Source.LOCAL
        if start and not local:
            self._check_space(plan, draft, 0)
        record = self._registry.add(draft)
        if local:
            return self._link(record)
        if start:
            self.begin(record, plan, token, keep=False)
        return record

    def begin_again(self, record: ModelRecord, expected: Status, token: str | None) -> None:
        """Queues the download of a record that is there already, at the commit that was chosen first.

        Raises:
            InvalidRequest: the record is in another state than `expected`, and not damaged either.
        """
        if expected is Status.ERROR and record.damaged:
            self.begin_repair(record, token)
            return
        if record.status is not expected:
            raise InvalidRequest(f"'{record.name}' is {record.status}, not {expected}.", id=record.id)
        self.begin(record, None, token, keep=expected is Status.AVAILABLE)

    def begin(self, record: ModelRecord, plan: Plan | None, token: str | None, *, keep: bool) -> None:
        """Queues the download of a record. keep: a cancelled download leaves the record, as `available`.

        plan: None if the source is still to be asked; then that is the first part of the job.
        """
        self._registry.update(record.id, status=Status.ERROR, **INTERRUPTED)
        self._activity.submit(
            "download",
            record,
            self._lane,
            lambda job: self._bring(job, record, plan, token),
            lambda error: self._settle(record, keep, error),
        )

    def look_again(self, record: ModelRecord) -> None:
        """Reads a linked directory anew if it changed. Raises `InvalidLocalPath` if there is no model in it."""
        if record.source is Source.LOCAL:
            refresh(self._registry, self._fetchers[Source.LOCAL], record)

    def follow(self, record: ModelRecord, folder: Path) -> None:
        """Has the record of the model that ships with the program point to where it is now."""
        if record.local_path != str(folder) or not record.built_in or record.status is not Status.READY:
            moved = self._registry.update(record.id, local_path=str(folder), built_in=True)
            self._registry.update(record.id, cache_path=str(self._store.link(moved)), status=Status.READY, **NO_ERROR)

    def begin_repair(self, record: ModelRecord, token: str | None) -> None:
        """Queues bringing anew what a verification found damaged or missing; the rest is kept.

        Until the damage is seen again and the source has answered, nothing changes. From then on it is a download
        that was interrupted: cancelled or failed, it keeps what it has for Retry.
        """
        self._activity.submit(
            "download",
            record,
            self._lane,
            lambda job: self._repair(job, record, token),
            lambda error: self._settle_repair(record, error),
        )

    def forget(self, record: ModelRecord) -> None:
        """Removes what an unfinished download of a record left on disk."""
        self._store.drop_staging(staging_name(record))

    def give_key(self, record: ModelRecord, key: str) -> None:
        """Tells the source of a record the key of its server; it is kept in memory only.

        Raises:
            InvalidRequest: it needs none, or this can be none.
        """
        source = self._fetchers.get(record.source)
        if not isinstance(source, KeyTaker):
            raise InvalidRequest(f"'{record.name}' runs at no server that takes a key.", field="server_key")
        source.give_key(str(record.url), key)

    def delete(self, record: ModelRecord, everywhere: bool) -> None:
        """Removes a record and its files. everywhere: also those that the source keeps itself.

        Raises:
            MiLLMError: the source does not let go; then nothing is removed.
        """
        fetcher = self._fetchers.get(record.source)
        if everywhere and isinstance(fetcher, Keeper):
            fetcher.delete(str(record.repo_id))
        self._store.delete(record)
        self.forget(record)
        self._registry.remove(record.id)

    def _settle(self, record: ModelRecord, keep: bool, error: BaseException | None) -> ModelRecord | None:
        if error is None:
            return self._registry.get(record.id)
        kept = self._kept(record)
        if not kept:
            self.forget(record)
        if isinstance(error, MiLLMError):
            said = {"error_code": error.code, "error_message": error.message}
            return self._registry.update(record.id, downloaded_bytes=kept, **said)
        if self._closing:
            return self._registry.update(record.id, downloaded_bytes=kept)
        self.forget(record)
        if keep:
            return self._registry.update(record.id, status=Status.AVAILABLE, downloaded_bytes=0, **NO_ERROR)
        self._registry.remove(record.id)
        return None

    def _repair(self, job: Job[ModelRecord], record: ModelRecord, token: str | None) -> ModelRecord:
        result = verify_folder(Path(str(record.cache_path)), job.report)
        plan = self._resolve(job, record, token)
        self._registry.update(record.id, **INTERRUPTED, status=Status.ERROR, cache_path=None)
        if is_converted(plan, record.quantization):  # nothing of a quantized copy can be brought by itself
            self._store.delete(record)
            return self._bring(job, record, plan, token)
        folder = self._store.unpublish(record, staging_name(record))
        for name in result.damaged:
            (folder / name).unlink()
        there = [file for file in plan.files if (folder / file.path).is_file()]
        note_whole(folder, [(file.path, file.digest, file.size) for file in there])
        return self._bring(job, record, plan, token)

    def _settle_repair(self, record: ModelRecord, error: BaseException | None) -> ModelRecord:
        now = self._registry.get(record.id)
        if error is None or now.status is Status.READY:
            return now
        said = {"error_code": error.code, "error_message": error.message} if isinstance(error, MiLLMError) else {}
        return self._registry.update(record.id, downloaded_bytes=self._kept(record), **said)

    def _kept(self, record: ModelRecord) -> int:
        return kept_bytes(self._store.staging_path(staging_name(record)))

    def _link(self, record: ModelRecord) -> ModelRecord:
        try:
            link = self._store.link(record)
        except OSError as error:
            self._registry.remove(record.id)
            raise InvalidLocalPath(f"Cannot link to {record.local_path}: {error.strerror}.") from error
        return self._registry.update(record.id, cache_path=str(link), status=Status.READY, **NO_ERROR)

    def _check_space(self, plan: Plan, record: ModelRecord, kept: int) -> None:
        if plan.origin.source not in ELSEWHERE:
            copy = self._converter.copy_bytes(plan, record.quantization)
            self._store.check_space(plan.peak_bytes + copy - kept)

    def _resolve(self, job: Job[ModelRecord], record: ModelRecord, token: str | None) -> Plan:
        plan = self._inquiry.plan(origin_of(record), token, job.check)
        if plan.refusal:
            raise plan.refusal
        self._check_space(plan, record, self._kept(record))
        return plan

    def _bring(self, job: Job[ModelRecord], record: ModelRecord, plan: Plan | None, token: str | None) -> ModelRecord:
        job.report(Event(Stage.RESOLVING, bytes_total=record.size_bytes or 0))
        plan = plan or self._resolve(job, record, token)
        if record.source is Source.LOCAL:
            return self._link(record)
        total = plan.total_bytes
        folder = self._store.staging(staging_name(record))
        convert = is_converted(plan, record.quantization)
        fetched = in_part(job.report, 0, FETCHED) if convert else job.report
        self._fetchers[record.source].fetch(plan, self._inquiry.token_for(record.source, token), folder, fetched)
        became = Converted(folder, record.quantization)
        if convert:
            became = self._converter.convert(job, record, folder, in_part(job.report, FETCHED, 100.0, total))
        job.report(Event(Stage.SAVING, progress=100.0, bytes_done=total, bytes_total=total))
        if not any(folder.iterdir()):  # the source keeps the files itself
            self._store.drop_staging(folder.name)
            size = self._fetchers[record.source].plan(plan.origin, token).total_bytes  # known once it is there
            return self._finish(record, total, size_bytes=size, disk_size_mb=round(size / 1e6, 2))
        return self._publish(job, record, plan, became)

    def _publish(self, job: Job[ModelRecord], record: ModelRecord, plan: Plan, became: Converted) -> ModelRecord:
        """Gives what a plan has become its final place; the half-precision files go if they were quantized."""
        final, total = record.with_(quantization=became.quantization), plan.total_bytes
        if became.warning and (twin := self._registry.twin(final)):
            raise UnsupportedModel(f"{became.warning} They are there already, as '{twin.name}'.", id=twin.id)
        copied = became.folder.name == COPY
        digests = {} if copied else {file.path: file.digest for file in plan.files}
        path = self._store.publish(became.folder, final, digests, job.check, total if copied else None)
        self.forget(record)
        found = describe_folder(path) | {"quantization": became.quantization, "warning": became.warning}
        found["original_size_mb"] = round(total / 1e6, 2) if copied else None
        return self._finish(record, total, cache_path=str(path), **found)

    def _finish(self, record: ModelRecord, total: int, **found: Any) -> ModelRecord:
        return self._registry.update(record.id, status=Status.READY, downloaded_bytes=total, **NO_ERROR, **found)
