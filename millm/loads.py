"""How a model gets into memory and out again: one at a time, checked first, as jobs."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from millm.activity import Activity
from millm.devices import Device
from millm.engines.base import LoadOptions
from millm.errors import (
    InvalidLocalPath,
    InvalidRequest,
    MiLLMError,
    ModelAlreadyLoaded,
    ModelNotLoaded,
    UnsupportedModel,
)
from millm.estimate import Estimator
from millm.jobs import Job, Lane
from millm.planning import NO_ERROR, check_memory, estimate_record, estimated, fit_of, on_gpu
from millm.records import SERVED, ModelRecord, Status
from millm.registry import Registry
from millm.resident import Loaded, Resident
from millm.views import Room

ADAPTER = "adapter_config.json"
CACHE_SHARE = 0.8  # of the memory that the weights leave, for the caches of requests


log = logging.getLogger(__name__)


def options_of(record: ModelRecord, context_length: int | None) -> LoadOptions:
    """How to open a recorded model: its settings, but for a context length that was asked for. Tokens.

    Raises:
        InvalidLocalPath: its adapter is no directory with one in it.
    """
    adapter = adapter_at(record.settings["adapter"]) if record.settings.get("adapter") else None
    return LoadOptions(
        Path(record.cache_path or ""),
        context_length or record.settings.get("context_length"),
        adapter,
        fast_cpu=record.settings.get("fast_cpu") is not False,
    )


def adapter_at(path: str) -> Path:
    """The directory of an adapter. Raises `InvalidLocalPath` if it is no absolute path of one."""
    adapter = Path(path)
    if not (adapter.is_absolute() and (adapter / ADAPTER).is_file()):
        raise InvalidLocalPath(f"The adapter {adapter} is no absolute path of a directory with {ADAPTER}.")
    return adapter


class Loads:
    """Runs loads and unloads one after the other on the lane that owns the devices."""

    def __init__(
        self,
        registry: Registry,
        resident: Resident,
        activity: Activity,
        devices: Callable[[], tuple[Device, ...]],
        estimator: Estimator,
    ) -> None:
        self._registry = registry
        self._resident = resident
        self._activity = activity
        self._devices = devices
        self._estimator = estimator
        self.lane = Lane("gpu")
        self._closing = False

    def close(self, timeout: float) -> bool:
        """Cancels what runs. Returns whether it stopped within `timeout` seconds."""
        self._closing = True
        return self.lane.close(timeout)

    def holds(self, model_id: int) -> bool:
        """Whether this is the model in memory."""
        current = self._resident.current
        return current is not None and current.model_id == model_id

    def outdated(self, record: ModelRecord) -> bool:
        """Whether a model is in memory with another context or adapter than its settings say now."""
        loaded = self._resident.current
        if loaded is None or loaded.model_id != record.id:
            return False
        adapter = str(loaded.options.adapter) if loaded.options.adapter else None
        wanted = (record.settings.get("context_length"), record.settings.get("adapter") or None)
        return (loaded.options.context_length, adapter) != wanted

    def room(self, record: ModelRecord, context_length: int | None) -> Room:
        """Whether a model would go into memory now. May take seconds."""
        devices, present = self._devices(), self._resident.current
        tokens = context_length or record.settings.get("context_length")
        free, freed = sum(device.free for device in devices), self._resident.memory_bytes
        needed = estimate_record(record, devices, self._estimator, tokens, free + freed)
        return Room(
            needed=needed,
            free=free,
            freed=freed,
            present=present.model_id if present else None,
            fit=fit_of(needed.total, free + freed),
            on_gpu=on_gpu(devices),
        )

    def check_room(self, record: ModelRecord, context_length: int | None) -> None:
        """Raises what `begin` raises, or `InsufficientMemory`. May take seconds."""
        self._check(record)
        devices = self._devices()
        context_length = options_of(record, context_length).context_length
        estimate = estimate_record(record, devices, self._estimator, context_length)
        check_memory(estimate, devices, self._resident.memory_bytes)

    def begin(self, record: ModelRecord, context_length: int | None, *, back: bool) -> None:
        """Queues a load, unless the model cannot be loaded as it is. back: if it fails, the present one comes back.

        Raises:
            ModelAlreadyLoaded, UnsupportedModel, InvalidRequest: why not.
        """
        self._check(record)
        options = options_of(record, context_length)
        self._submit("load", record, lambda job: self._open(job, record, options, back))

    def begin_reload(self, record: ModelRecord) -> None:
        """Queues loading the present model anew. Raises `ModelNotLoaded` if another model, or none, is loaded."""
        self._check_loaded(record)
        options = options_of(record, None)
        self._submit("load", record, lambda job: self._open(job, record, options, True))

    def begin_unload(self, record: ModelRecord) -> None:
        """Queues an unload. Raises `ModelNotLoaded` if another model, or none, is loaded."""
        self._check_loaded(record)
        self._submit("unload", record, lambda job: self._close(job, record))

    def _check_loaded(self, record: ModelRecord) -> None:
        if not self.holds(record.id):
            raise ModelNotLoaded(f"'{record.name}' is not loaded.", id=record.id)

    def _check(self, record: ModelRecord) -> None:
        if self.holds(record.id):
            raise ModelAlreadyLoaded(f"'{record.name}' is loaded already.", id=record.id)
        if record.model_type not in SERVED:
            raise UnsupportedModel(f"A model of type '{record.model_type}' cannot be loaded here.", id=record.id)
        if record.status is not Status.READY:
            raise InvalidRequest(f"'{record.name}' is not on disk yet. Download it first.", id=record.id)

    def _submit(self, kind: str, record: ModelRecord, work: Callable[[Job[ModelRecord]], ModelRecord]) -> None:
        def settle(error: BaseException | None) -> ModelRecord:
            if isinstance(error, MiLLMError):
                return self._registry.update(record.id, error_code=error.code, error_message=error.message)
            return self._registry.get(record.id)

        self._activity.submit(kind, record, self.lane, work, settle)

    def _open(self, job: Job[ModelRecord], record: ModelRecord, options: LoadOptions, back: bool) -> ModelRecord:
        previous = self._resident.current
        devices = self._devices()
        estimate = estimate_record(record, devices, self._estimator, options.context_length)
        left = sum(device.free for device in devices) + self._resident.memory_bytes - estimate.weights
        try:
            loaded = self._resident.open(record, replace(options, cache_bytes=max(0, int(CACHE_SHARE * left))), job)
        except BaseException:
            if back and previous and self._resident.current is None and not self._closing:
                self._go_back(previous)
            raise
        finally:
            if previous and not self.holds(previous.model_id):
                self._activity.announce(self._registry.get(previous.model_id))
        found = estimated(estimate)
        found["measured_memory_mb"] = round(loaded.engine.memory_bytes / 1e6, 2)
        found["batching"] = loaded.engine.batching
        return self._registry.update(record.id, **found, **NO_ERROR)

    def _go_back(self, previous: Loaded) -> None:
        """Loads again what was loaded before. A failure of this is logged only: the one that led here is told."""
        try:
            record = self._registry.get(previous.model_id)
            self._resident.reopen(record, previous)
            self._activity.announce(record)
        except MiLLMError as error:
            log.error("'%s' does not come back: %s", previous.name, error.message)

    def _close(self, job: Job[ModelRecord], record: ModelRecord) -> ModelRecord:
        if self.holds(record.id):  # a load that was queued before may have replaced it
            self._resident.empty(job)
        return self._registry.get(record.id)
