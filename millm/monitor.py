"""How this process and this machine are doing, measured when somebody asks."""

import time
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from millm import __version__
from millm.activity import Activity
from millm.catalog import Suggestion, load_catalog, sort_for
from millm.devices import Device, process_bytes, ram
from millm.engines.architectures import needs_own_code
from millm.errors import ModelNotFound
from millm.estimate import EXACT, Estimator
from millm.history import History
from millm.jobs import Lane
from millm.planning import draft_record, estimate_record, estimated, preview_plan
from millm.records import ModelRecord, ModelType, Quantization
from millm.registry import Registry
from millm.requirements import Compatibility, compatibility
from millm.resident import Resident
from millm.sources.base import Plan
from millm.store import Store
from millm.views import Notice, Preview, StorageState, SystemState

FRESH_S = 0.5  # seconds a measurement is good for, however many pages ask once a second


class Monitor:
    """Measures memory, requests and disk."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        resident: Resident,
        activity: Activity,
        devices: Callable[[], tuple[Device, ...]],
        known: Container[str],
        hub: str,
        estimator: Estimator,
    ) -> None:
        """known: the model types that the installed transformers has classes for. hub: the address of the hub."""
        self._known = known
        self._hub = hub
        self._estimator = estimator
        self.lane = Lane("estimates")
        self._registry = registry
        self._store = store
        self._resident = resident
        self._activity = activity
        self._devices = devices
        self._problems: tuple[str, ...] = ()
        self._measured: tuple[float, SystemState] | None = None
        self._history = History()
        self.history = self._history.points

    def problem(self, sentence: str) -> None:
        """Keeps something that went wrong at start where people see it."""
        self._problems = (*self._problems, sentence)
        self._measured = None

    def system(self) -> SystemState:
        """This process and machine: what is loaded and runs now, and figures measured at most twice a second."""
        if self._measured is None or time.monotonic() - self._measured[0] > FRESH_S:
            self._measured = (time.monotonic(), self._measure())
            self._remember(self._measured[1])
        return replace(self._measured[1], loaded=self._loaded(), jobs=self._activity.states())

    def judge(
        self, plan: Plan, quantizations: tuple[Quantization, ...], context_length: int | None, wait: bool
    ) -> Preview:
        """What a plan would cost here, and whether the model is in the list already.

        wait: for an exact estimate, which may take seconds.
        """
        preview = preview_plan(
            plan,
            quantizations,
            self._store.free_bytes(),
            self._devices(),
            self._resident.memory_bytes,
            self._estimator,
            context_length,
            wait,
        )
        talks = plan.origin.model_type is ModelType.LLM
        twins = (self._registry.twin(draft_record(preview, form, None)) for form in preview.sizes)
        return replace(
            preview,
            existing=next(filter(None, twins), None),
            known_architecture=plan.config.get("model_type") in self._known if talks and plan.config else None,
            requires_remote_code=needs_own_code(plan.config, self._known),
        )

    def refine(self, record: ModelRecord) -> None:
        """Has the exact estimate of a record worked out, while its download runs."""
        self.lane.submit(lambda _: self._refine(record))

    def _refine(self, record: ModelRecord) -> None:
        estimate = estimate_record(record, self._devices(), self._estimator)
        if estimate.provenance != EXACT:
            return
        with suppress(ModelNotFound):  # cancelled or deleted meanwhile
            exact = self._registry.update(record.id, **estimated(estimate))
            self._activity.announce(exact)

    def storage(self) -> StorageState:
        """Where the disk goes."""
        records = self._registry.all()
        staged = {record.id: self._store.unfinished(record) for record in records}
        unfinished = {model_id: count for model_id, count in staged.items() if count}
        models = {record.id: self._store.usage(record) + staged[record.id] for record in records}
        by_type: dict[str, int] = {}
        for record in records:
            by_type[record.model_type] = by_type.get(record.model_type, 0) + models[record.id]
        orphans = self._store.orphans(records)
        return StorageState(
            total_bytes=sum(models.values()) + sum(orphans.values()),
            free_bytes=self._store.free_bytes(),
            staging_bytes=self._store.staging_bytes(),
            by_type=by_type,
            models=models,
            orphans={_readable(path.relative_to(self._store.root)): size for path, size in orphans.items()},
            unfinished=unfinished,
        )

    def clean(self) -> int:
        """Removes what belongs to no model; returns how many bytes that were."""
        freed = self._store.remove_orphans(self._registry.all())
        self._activity.feed.push(Notice("storage:changed", 0))
        return freed

    def catalog(self, offered: tuple[Quantization, ...]) -> tuple[Suggestion, ...]:
        """The suggested models, what suits this machine first. offered: the forms that can be made here."""
        entries = (replace(entry, url=entry.address(self._hub)) for entry in load_catalog())
        return sort_for(entries, self._memory_free(), self._store.free_bytes(), offered)

    def compatibility(self, model_id: int) -> Compatibility:
        """What a model needs and whether this machine has it. Raises `ModelNotFound`."""
        record = self._registry.get(model_id)
        return compatibility(
            record,
            self._devices(),
            self._store.free_bytes(),
            self._resident.memory_bytes,
            self._estimator,
            known=self._known,
            on_disk=self._store.holds(record),
        )

    def _memory_free(self) -> int:
        return sum(device.free for device in self._devices()) + self._resident.memory_bytes

    def _remember(self, now: SystemState) -> None:
        figures = self._resident.figures()
        self._history.add(
            tokens=figures.generated_tokens,
            ended=figures.outcomes.total(),
            requests=now.requests_running,
            process_bytes=now.process_bytes,
            device_bytes=sum(device.total - device.free for device in now.devices),
        )

    def _measure(self) -> SystemState:
        rows, health, devices = self._resident.rows, self._resident.health, self._devices()
        return SystemState(
            version=__version__,
            devices=devices,
            process_bytes=process_bytes(),
            loaded=self._loaded(),
            requests_running=sum(job.started for job in self._resident.requests),
            requests_waiting=sum(not job.started for job in self._resident.requests),
            tokens_per_s=round(self._resident.speed(), 1),
            jobs=self._activity.states(),
            disk_free=self._store.free_bytes(),
            problems=(*self._problems, health.problem) if health.problem else self._problems,
            replicas=health.replicas,
            batch_width=rows.stepping if rows else None,
            rows_waiting=rows.waiting if rows else None,
            model_bytes=self._resident.memory_bytes,
            ram=next((device for device in devices if device.kind == "cpu"), None) or ram(),
        )

    def _loaded(self) -> ModelRecord | None:
        current = self._resident.current
        return self._activity.live(self._registry.get(current.model_id)) if current else None


def _readable(path: Path) -> str:
    """A name for people and JSON: what is no UTF-8 in it becomes question marks."""
    return path.as_posix().encode(errors="replace").decode()
