"""What miLLM can do. The only room that knows both sources and engines; it does no I/O of its own.

Commands that check a state and then change it run one after the other on the lane `orders`, so that no two of
them can cross. Long work runs as jobs: downloads one at a time, loads and unloads one at a time. What runs is
known in memory (`activity.py`, `resident.py`); what exists is known to the registry, which holds at every moment
what would be true if the process died.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from millm.activity import Activity
from millm.catalog import Suggestion
from millm.comparison import Comparisons, Measure, measure
from millm.conversion import Converter
from millm.devices import Device
from millm.downloads import Downloads
from millm.engines.architectures import known_model_types
from millm.engines.base import Opener
from millm.errors import (
    InvalidRequest,
    MiLLMError,
    ModelAlreadyExists,
    ModelIsLoaded,
    ModelNotFound,
)
from millm.estimate import Estimator
from millm.inquiry import Inquiry
from millm.loads import Loads
from millm.monitor import Monitor
from millm.orders import Orders
from millm.planning import check_name, check_settings, draft_record, form_of
from millm.quantizing import Quantizer
from millm.questions import GUIDE
from millm.reconcile import reconcile
from millm.records import ModelRecord, Quantization, Source, Status
from millm.registry import Registry
from millm.resident import Resident
from millm.sidebyside import SideBySide
from millm.sources.base import Fetcher, Origin, Plan
from millm.store import Store
from millm.views import Preview

log = logging.getLogger(__name__)


class Manager(Orders):
    """The commands and questions that both doors, the page and the HTTP API, are made of. Thread-safe."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        fetchers: Mapping[Source, Fetcher],
        opener: Opener,
        devices: Callable[[], tuple[Device, ...]],
        token: str | None = None,
        drain_s: float = 30.0,
        hub: str = "",
        guide: Path | None = None,
        estimator: Estimator | None = None,
        quantizer: Quantizer | None = None,
        measure: Measure = measure,
        processes: int = 1,
    ) -> None:
        """token: for gated repositories when a request brings none. hub: its address.

        drain_s, processes: see `Resident`. guide: the folder of the model that ships with the program; it is in the
        list from the first start on.
        estimator: None means that estimates are rough. quantizer: None means that models stay in half precision.
        """
        self._store = store
        resident = Resident(opener, drain_s, processes)
        activity = Activity(resident)
        self._estimator = estimator or Estimator(())
        loads = Loads(registry, resident, activity, devices, self._estimator)
        converter = Converter(quantizer, loads.lane, self._estimator, devices)
        self._inquiry = Inquiry(fetchers, token)
        self._downloads = Downloads(registry, store, fetchers, activity, self._inquiry, converter, token)
        comparisons = Comparisons(registry, activity, loads.lane, devices, self._estimator, measure)
        super().__init__(registry, activity, resident, loads, comparisons, self._downloads.look_again)
        known = known_model_types()
        self._monitor = Monitor(registry, store, resident, activity, devices, known, hub, self._estimator)
        self.quantizations = tuple(Quantization) if quantizer else (Quantization.FP16,)
        """What can be chosen for a new model, what is recommended first."""
        reconcile(registry, store, fetchers.get(Source.LOCAL))
        # what another room answers as it stands
        self.figures = resident.figures
        self.embed = resident.embed
        self.job = activity.job
        self.jobs = activity.states
        self.system = self._monitor.system
        self.history = self._monitor.history
        self.storage = self._monitor.storage
        self.compatibility = self._monitor.compatibility
        self.search = self._inquiry.search
        self.warm_up = self._estimator.warm_up
        self.side_by_side = SideBySide(self, self.chat, resident, activity)
        self._guide = guide
        self._welcome()

    def plan(
        self,
        origin: Origin,
        token: str | None = None,
        context_length: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Preview:
        """What `origin` would bring and cost, without moving weights. Takes up to 10 s.

        `check` is called twice a second meanwhile and may raise, to stop waiting.

        Raises:
            MiLLMError: the source refuses or cannot be reached.
        """
        plan = self._inquiry.plan(origin, token, check)
        preview = self._monitor.judge(plan, self.quantizations, context_length, wait=True)
        if preview.is_rough and (tensors := self._inquiry.tensors(plan, token, check)):
            plan = replace(plan, tensors=tensors)
            preview = self._monitor.judge(plan, self.quantizations, context_length, wait=False)
        return preview

    def catalog(self) -> tuple[Suggestion, ...]:
        """The suggested models, what suits this machine first."""
        return self._monitor.catalog(self.quantizations)

    def weigh(self, plan: Plan, context_length: int) -> Preview:
        """What a plan costs with a context of so many tokens. Asks no source; may take seconds."""
        return self._monitor.judge(plan, self.quantizations, context_length, wait=True)

    # commands

    def download(
        self,
        origin: Origin,
        *,
        quantization: Quantization | None = None,
        token: str | None = None,
        name: str | None = None,
        start: bool = True,
        check: Callable[[], None] = lambda: None,
    ) -> ModelRecord:
        """Registers a model and, if `start`, queues its download; a local model is ready at once.

        quantization: None means what is recommended; what cannot be quantized here is taken as it is.
        `check` is called while the source is asked; if it raises, nothing is registered.

        Raises `MiLLMError` if the source refuses, the disk is too small, or the model is known already.
        """
        asked = quantization or self.quantizations[0]
        if asked not in self.quantizations:
            raise InvalidRequest(f"Quantization {asked} is not available here.", field="quantization")
        check_name(name)
        plan = self._inquiry.plan(origin, token, check)
        form = form_of(plan, asked)
        draft = draft_record(self._monitor.judge(plan, (form,), None, wait=False), form, name)
        check()

        def order() -> ModelRecord:
            if name and self._registry.find(name):
                raise ModelAlreadyExists(f"Another model is called '{name}'.", name=name)
            record = self._downloads.register(draft, plan, token, start)
            return self._activity.announce(record)

        record = self._orders.call(order)
        self._monitor.refine(record)
        return record

    @property
    def lacks_guide(self) -> bool:
        """Whether the model that ships with the program could be added to the list."""
        return self._guide is not None and self.guide() is None

    def add_guide(self) -> ModelRecord:
        """Puts the model that ships with the program back into the list.

        Raises:
            ModelAlreadyExists: it is there.
            InvalidLocalPath: it was not shipped with this copy of the program.
        """
        record = self.download(Origin(Source.LOCAL, path=str(self._guide or "")), name=GUIDE)
        return self._activity.announce(self._registry.update(record.id, built_in=True))

    def start(self, model_id: int, token: str | None = None) -> ModelRecord:
        """Downloads a model that is only registered. Raises what `retry` raises."""
        return self._order(model_id, lambda record: self._downloads.begin_again(record, Status.AVAILABLE, token))

    def retry(self, model_id: int, token: str | None = None) -> ModelRecord:
        """Downloads a model again after an error, at the commit that was chosen first.

        What the source says comes as the job's outcome. Raises `InvalidRequest` if the record is in another state.
        """
        return self._order(model_id, lambda record: self._downloads.begin_again(record, Status.ERROR, token))

    def give_key(self, model_id: int, key: str) -> None:
        """Tells miLLM the key of the server that runs a model; it counts at once and is kept in memory only.

        Raises:
            InvalidRequest: the model runs at no server that takes a key, or this can be none.
        """
        self._downloads.give_key(self._registry.get(model_id), key)

    def cancel(self, model_id: int) -> None:
        """Stops the job that runs on a model and waits until it has cleaned up.

        A cancelled download leaves no file and no record (or an `available` one, if it came from there); a
        cancelled load leaves the model ready. Raises `InvalidRequest` if no job runs on it.
        """
        self._activity.cancel(self._registry.get(model_id))

    def delete(self, model_id: int, everywhere: bool = False) -> None:
        """Removes a model's files and its record; of one that a directory or a server keeps the record only.

        everywhere: an Ollama model is removed from Ollama too. Raises `ModelBusy` or `ModelIsLoaded`.
        """

        def order() -> None:
            record = self._free_record(model_id)
            if self._loads.holds(model_id):
                raise ModelIsLoaded(f"'{record.name}' is loaded. Unload it before deleting it.", id=model_id)
            self._downloads.delete(record, everywhere)
            self._activity.gone(model_id)

        self._orders.call(order)

    def clean(self) -> int:
        """Removes what lies in the cache directory and belongs to no model; returns how many bytes that frees."""
        return self._orders.call(self._monitor.clean)

    def update(self, model_id: int, **changes: Any) -> ModelRecord:
        """Changes name, settings or model_type of a record.

        Raises `InvalidRequest` if a name cannot be one, `ModelAlreadyExists` if another model has it.
        """
        check_name(changes.get("name"))
        check_settings(changes.get("settings"))
        if "model_type" in changes and self._loads.holds(model_id):
            raise ModelIsLoaded("The type of a loaded model cannot be changed. Unload it first.", id=model_id)
        return self._activity.announce(self._orders.call(lambda: self._registry.update(model_id, **changes)))

    def auto_load(self, name: str) -> None:
        """Loads the model of this name at start. A failure is logged and shown, never raised."""
        try:
            record = self.find(name)
            if record is None:
                raise ModelNotFound(f"AUTO_LOAD_MODEL: there is no model called '{name}'.", name=name)
            self.load(record.id)
        except MiLLMError as error:
            log.error("%s", error.message)
            self._monitor.problem(error.message)

    def close(self, grace_s: float = 5.0) -> bool:
        """Ends all work: jobs are cancelled, running answers get `grace_s` seconds. Returns whether all obeyed."""
        self.feed.close()
        work = (self.side_by_side, self._orders, self._monitor.lane, self._downloads, self._loads, self._upkeep.lane)
        helpers = (self._inquiry, self._resident, self._estimator)  # of the work: without it nobody asks them
        ended = [part.close(grace_s) for part in (*work, *helpers)]
        self._registry.close()
        self._store.close()
        return all(ended)

    # how commands are carried out

    def _welcome(self) -> None:
        """Puts the guide into the list at the very first start, and finds it again where the program moved."""
        if self._guide is None:
            return
        linked = (each for each in self.records(source=Source.LOCAL) if each.local_path == str(self._guide))
        if there := self.guide() or next(linked, None):
            self._downloads.follow(there, self._guide)
        elif self._registry.fresh:
            try:
                self.add_guide()
            except ModelAlreadyExists as error:  # another model is called so
                log.info("%s", error.message)
