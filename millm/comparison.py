"""What a quantization costs in quality, measured against another form of the same model and kept on the record."""

import sys
from collections.abc import Callable
from typing import Any

from millm.activity import Activity
from millm.child import ErrandFailed
from millm.devices import Device
from millm.errors import InsufficientMemory, InvalidRequest, LoadFailed
from millm.estimate import Estimator
from millm.events import Event, Report, Stage
from millm.jobs import Job, Lane
from millm.planning import check_memory, estimate_record
from millm.quantizing import run_staged
from millm.records import ModelRecord, ModelType, Quantization, Status, now
from millm.registry import Registry

CHILD = (sys.executable, "-m", "millm.engines.quality")
PRECISION = (Quantization.FP16, Quantization.Q8, Quantization.Q4)

Measure = Callable[[str, str, str | None, bool, Report], dict[str, Any]]
"""Compares the folder of a model, the second, with that of its reference, the first; see `measure`."""


def measure(
    reference: str, model: str, text: str | None, trusted: bool, report: Report, command: tuple[str, ...] = CHILD
) -> dict[str, Any]:
    """Has two forms of a model read a text, one after the other, in a process of its own.

    text: None takes the one that comes with the program. trusted: their own Python code may run. Returns what
    `engines.quality.compare` does.

    Raises:
        InsufficientMemory: memory ran out.
        LoadFailed: one of them cannot be loaded, or does not answer.
        Cancelled: `report` raised it.
    """
    asked = {"reference": reference, "model": model, "text": text, "trusted": trusted}
    try:
        found: dict[str, Any] = run_staged(command, asked, report, Event(Stage.MEASURING))
    except ErrandFailed as error:
        if error.memory:
            raise InsufficientMemory("Out of memory while measuring. Close other programs first.") from error
        raise LoadFailed(f"The comparison failed: {error}") from error
    return found


class Comparisons:
    """Runs comparisons as jobs on the lane that owns the devices."""

    def __init__(
        self,
        registry: Registry,
        activity: Activity,
        lane: Lane,
        devices: Callable[[], tuple[Device, ...]],
        estimator: Estimator,
        measure: Measure = measure,
    ) -> None:
        self._registry = registry
        self._activity = activity
        self._lane = lane
        self._devices = devices
        self._estimator = estimator
        self._measure = measure

    def begin(self, record: ModelRecord, against: int | None, text: str | None) -> None:
        """Queues a comparison with another model on disk; None takes the most precise other form of the same one.

        Raises:
            InvalidRequest: one of them is not on disk or is no language model, or there is no other form.
            ModelNotFound: there is no model with the id `against`.
        """
        reference = self._reference(record, against)
        for each in (record, reference):
            if each.model_type is not ModelType.LLM or each.status is not Status.READY or not each.cache_path:
                raise InvalidRequest(
                    f"'{each.name}' is no language model on disk; it cannot be compared.", id=each.id
                )
        self._activity.submit(
            "quality",
            record,
            self._lane,
            lambda job: self._compare(job, record, reference, text),
            lambda _: self._registry.get(record.id),
        )

    def _reference(self, record: ModelRecord, against: int | None) -> ModelRecord:
        if against == record.id:
            raise InvalidRequest("A model cannot be compared with itself.", field="against")
        if against is not None:
            return self._registry.get(against)
        forms = [
            other
            for other in self._registry.all()
            if other.id != record.id
            and (other.source, other.repo_id, other.revision) == (record.source, record.repo_id, record.revision)
            and other.repo_id
            and other.status is Status.READY
        ]
        if not forms:
            raise InvalidRequest(
                f"There is no other form of '{record.name}' on disk. Download it in FP16 too, to compare with that.",
                field="against",
            )
        return min(forms, key=lambda other: PRECISION.index(other.quantization))

    def _compare(
        self, job: Job[ModelRecord], record: ModelRecord, reference: ModelRecord, text: str | None
    ) -> ModelRecord:
        for each in (record, reference):
            devices = self._devices()
            check_memory(estimate_record(each, devices, self._estimator), devices, 0)
        trusted = record.trust_remote_code and reference.trust_remote_code
        found = self._measure(str(reference.cache_path), str(record.cache_path), text, trusted, job.report)
        found["reference"] |= {"id": reference.id, "name": reference.name, "quantization": reference.quantization}
        found |= {"text": "built-in" if text is None else "given", "measured_at": now()}
        return self._registry.update(record.id, quality=found)
