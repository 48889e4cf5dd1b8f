"""How a model gets from its source into the registry: planned, brought to staging, published, or undone."""

from collections.abc import Mapping
from dataclasses import replace

from millm.activity import Activity
from millm.errors import DownloadFailed, InvalidLocalPath, MiLLMError
from millm.events import Event, Stage
from millm.jobs import Job, Lane
from millm.records import ModelRecord, Source, Status
from millm.registry import Registry
from millm.sources.base import Fetcher, Origin, Plan
from millm.store import Store

INTERRUPTED = "The download was interrupted. Retry starts it again."
NO_ERROR = {"error_code": None, "error_message": None}


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
        token: str | None,
    ) -> None:
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

    def plan(self, origin: Origin, token: str | None) -> Plan:
        """Asks the source what it would bring. Raises what `Fetcher.plan` raises."""
        return self._fetchers[origin.source].plan(origin, token or self._token)

    def plan_again(self, record: ModelRecord, token: str | None) -> Plan:
        """The plan of a recorded model, at the commit that was chosen first."""
        origin = Origin(
            record.source, record.repo_id, record.requested_revision, record.local_path, record.trust_remote_code
        )
        return self.plan(replace(origin, revision=record.revision or record.requested_revision), token)

    def register(self, draft: ModelRecord, plan: Plan, token: str | None, start: bool) -> ModelRecord:
        """Adds a planned model; a local one is ready where it lies, another is queued if `start`.

        Raises:
            ModelAlreadyExists: the registry has it already.
            InsufficientDisk: the files do not fit; then nothing is recorded.
            InvalidLocalPath: the system refuses to link to the directory; likewise.
        """
        local = draft.source is Source.LOCAL
        if start and not local:
            self._store.check_space(plan.total_bytes)
        record = self._registry.add(draft)
        if local:
            return self._link(record)
        if start:
            self.begin(record, plan, token, keep=False)
        return record

    def begin(self, record: ModelRecord, plan: Plan, token: str | None, *, keep: bool) -> None:
        """Queues the download of a record. keep: a cancelled download leaves the record, as `available`.

        Raises:
            InsufficientDisk: the files do not fit.
        """
        self._store.check_space(plan.total_bytes)
        self._registry.update(
            record.id, status=Status.ERROR, error_code=DownloadFailed.code, error_message=INTERRUPTED
        )

        def settle(error: BaseException | None) -> ModelRecord | None:
            if error is None:
                return self._registry.get(record.id)
            if isinstance(error, MiLLMError):
                return self._registry.update(record.id, error_code=error.code, error_message=error.message)
            if self._closing:
                return self._registry.get(record.id)
            if keep:
                return self._registry.update(record.id, status=Status.AVAILABLE, **NO_ERROR)
            self._registry.remove(record.id)
            return None

        self._activity.submit(
            "download", record, self._lane, lambda job: self._bring(job, record, plan, token or self._token), settle
        )

    def _link(self, record: ModelRecord) -> ModelRecord:
        try:
            link = self._store.link(record)
        except OSError as error:
            self._registry.remove(record.id)
            raise InvalidLocalPath(f"Cannot link to {record.local_path}: {error.strerror}.") from error
        return self._registry.update(record.id, cache_path=str(link), status=Status.READY)

    def _bring(self, job: Job[ModelRecord], record: ModelRecord, plan: Plan, token: str | None) -> ModelRecord:
        total = plan.total_bytes
        with self._store.staging(job.id) as folder:
            job.report(Event(Stage.RESOLVING, bytes_total=total))
            self._fetchers[record.source].fetch(plan, token, folder, job.report)
            job.report(Event(Stage.SAVING, progress=100.0, bytes_done=total, bytes_total=total))
            path = self._store.publish(folder, record, {file.path: file.digest for file in plan.files})
        return self._registry.update(
            record.id, status=Status.READY, cache_path=str(path), downloaded_bytes=total, **NO_ERROR
        )
