"""What is done with models that are on disk besides loading them: checking their files, choosing the active one."""

from pathlib import Path

from millm.activity import Activity
from millm.errors import ChecksumMismatch, InvalidRequest
from millm.jobs import Job, Lane
from millm.records import ModelRecord, ModelType, Status
from millm.registry import Registry
from millm.verification import VerifyResult, verify_folder


class Upkeep:
    """Verifies one model at a time, and remembers which model of a type is active."""

    def __init__(self, registry: Registry, activity: Activity) -> None:
        self._registry = registry
        self._activity = activity
        self.lane = Lane("verify")

    def begin_verify(self, record: ModelRecord) -> None:
        """Queues a check of a model's files against the digests they came with.

        The job fails with `ChecksumMismatch`, which the record then shows, if files are damaged or missing.

        Raises:
            InvalidRequest: its files are not on disk, or somebody else keeps them.
        """
        if record.status is not Status.READY or record.cache_path is None:
            raise InvalidRequest(f"'{record.name}' has no files here that could be verified.", id=record.id)
        folder = Path(record.cache_path)

        def settle(error: BaseException | None) -> ModelRecord:
            if error is None:
                return self._registry.update(record.id, error_code=None, error_message=None)
            if isinstance(error, ChecksumMismatch):
                return self._registry.update(record.id, error_code=error.code, error_message=error.message)
            return self._registry.get(record.id)

        self._activity.submit("verify", record, self.lane, lambda job: self._verify(job, record, folder), settle)

    def activate(self, record: ModelRecord) -> ModelRecord:
        """Makes a model the active one of its type. An `llm` becomes active by loading it instead.

        Raises:
            InvalidRequest: it is not on disk.
        """
        if record.status is not Status.READY:
            raise InvalidRequest(f"'{record.name}' is not on disk yet. Download it first.", id=record.id)
        for other in self._registry.all():
            if other.active and other.model_type is record.model_type:
                self._activity.announce(self._registry.update(other.id, active=False))
        return self._activity.announce(self._registry.update(record.id, active=True))

    def deactivate(self, record: ModelRecord) -> ModelRecord:
        """Leaves the model's type without an active one."""
        return self._activity.announce(self._registry.update(record.id, active=False))

    def active(self, model_type: ModelType) -> ModelRecord | None:
        """The active record of a type other than `llm`."""
        return next(
            (r for r in self._registry.all() if r.active and r.model_type is model_type and r.status is Status.READY),
            None,
        )

    def _verify(self, job: Job[ModelRecord], record: ModelRecord, folder: Path) -> ModelRecord:
        result = verify_folder(folder, job.report)
        if problems := _problems(result):
            raise ChecksumMismatch(f"Files of '{record.name}' are not as they came: {problems}.", id=record.id)
        return record


def _problems(result: VerifyResult) -> str:
    named = ((result.damaged, "damaged"), (result.missing, "missing"))
    return "; ".join(f"{', '.join(files)} {what}" for files, what in named if files)
