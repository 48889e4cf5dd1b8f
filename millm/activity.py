"""What is going on: which job runs on which model, the notices of it, and the live status of a record."""

import logging
from collections.abc import Callable

from millm.errors import Cancelled, InvalidRequest, explain
from millm.events import Event, Stage
from millm.feed import Feed
from millm.jobs import Job, Lane
from millm.records import ModelRecord, ModelType, Status
from millm.resident import Resident
from millm.views import JobState, Notice

log = logging.getLogger(__name__)

NOTICES_KEPT = 1000
CANCEL_WAIT_S = 5.0  # seconds a cancelled job gets to clean up before `cancel` returns without it

Settle = Callable[[BaseException | None], ModelRecord | None]
"""Writes to the registry what a job's end means; returns the record, None if it is gone. None: the job succeeded."""


class Activity:
    """The jobs that run on models, at most one for each, and everything they say."""

    def __init__(self, resident: Resident) -> None:
        self._resident = resident
        self._jobs: dict[int, Job[ModelRecord]] = {}
        self.feed: Feed[Notice] = Feed(keep=NOTICES_KEPT)

    def job(self, model_id: int) -> Job[ModelRecord] | None:
        """The job that runs on a model, or waits to."""
        return self._jobs.get(model_id)

    def states(self) -> tuple[JobState, ...]:
        """Every job with its newest event."""
        jobs = list(self._jobs.values())
        events = [job.latest or Event(Stage.QUEUED) for job in jobs]
        return tuple(
            JobState(job.id, job.kind, job.subject, event.stage, event.progress)
            for job, event in zip(jobs, events, strict=True)
        )

    def submit(
        self,
        kind: str,
        record: ModelRecord,
        lane: Lane,
        work: Callable[[Job[ModelRecord]], ModelRecord],
        settle: Settle,
    ) -> None:
        """Queues a job on a model. `settle` runs once when it ends, before anybody hears of the end."""
        job: Job[ModelRecord] = Job(
            kind,
            record.id,
            on_event=lambda job, event: self._progress(job, event),
            on_end=lambda job, error: self._ended(job, record, settle, error),
        )
        self._jobs[record.id] = job
        self._progress(job, Event(Stage.QUEUED))
        lane.submit(work, job)

    def cancel(self, record: ModelRecord) -> None:
        """Stops the job that runs on a model and waits until it has cleaned up.

        Raises:
            InvalidRequest: no job runs on it.
        """
        job = self._jobs.get(record.id)
        if job is None:
            raise InvalidRequest(f"Nothing is running on '{record.name}' that could be cancelled.", id=record.id)
        job.cancel()
        job.wait(CANCEL_WAIT_S)

    def announce(self, record: ModelRecord) -> ModelRecord:
        """Tells everybody that a record is new or changed; returns it with its live status."""
        live = self.live(record)
        self.feed.push(Notice("model:changed", record.id, record=live))
        return live

    def gone(self, model_id: int) -> None:
        """Tells everybody that a record was removed."""
        self.feed.push(Notice("model:deleted", model_id))

    def live(self, record: ModelRecord) -> ModelRecord:
        """The record with the status of what is going on laid over the stored one."""
        job, loaded = self._jobs.get(record.id), self._resident.current
        if job and job.kind == "download":
            event = job.latest or Event(Stage.QUEUED)
            return record.with_(
                status=Status.DOWNLOADING if job.started else Status.QUEUED,
                download_progress=round(event.progress, 1),
                downloaded_bytes=event.bytes_done,
                error_message=None,
                error_code=None,
            )
        if job and job.kind == "load":
            return record.with_(status=Status.LOADING, error_message=None, error_code=None)
        mine = loaded if loaded and loaded.model_id == record.id else None
        leaving = loaded is None and job is not None and job.kind == "unload"  # it is busy until its memory is back
        if mine or leaving:
            active = record.active or record.model_type is ModelType.LLM
            return record.with_(status=Status.LOADED, active=active, loaded_at=mine.loaded_at if mine else None)
        return record

    def _progress(self, job: Job[ModelRecord], event: Event) -> None:
        notice = Notice(f"model:{job.kind}:progress", job.subject, event=event)
        self.feed.push(notice, merge=notice.replaces)

    def _ended(self, job: Job[ModelRecord], record: ModelRecord, settle: Settle, error: BaseException | None) -> None:
        said = None if error is None or isinstance(error, Cancelled) else explain(error)
        settled: ModelRecord | None = record
        try:
            settled = settle(said or error)
        except Exception as bug:  # noqa: BLE001  (a full disk, say: whoever waits must hear of it)
            said = explain(bug)
        finally:
            del self._jobs[record.id]
        if said:
            log.warning("%s of '%s' failed: %s", job.kind, record.name, said.message)
            self.feed.push(Notice(f"model:{job.kind}:error", record.id, error=said))
        elif settled is None:
            self.gone(record.id)
        elif error:
            self.announce(settled)
        else:
            log.info("%s of '%s' complete", job.kind, record.name)
            self.feed.push(Notice(f"model:{job.kind}:complete", record.id, record=self.live(settled)))
