"""Commands on a model that is known: ask it, load it, unload it, make it the active one, check its files.

Commands that check a state and then change it run one after the other on the lane `orders`, so that no two of
them can cross. Long work runs as jobs.
"""

from collections.abc import Callable

from millm.activity import Activity
from millm.comparison import Comparisons
from millm.engines.base import ChatRequest, Completion
from millm.errors import ModelBusy
from millm.generation import completed
from millm.jobs import Job, Lane
from millm.loads import Loads
from millm.questions import Questions
from millm.records import ModelRecord, ModelType
from millm.registry import Registry
from millm.resident import Resident
from millm.upkeep import Upkeep
from millm.views import Room


class Orders(Questions):
    """What changes a model's place in memory, not on disk."""

    def __init__(
        self,
        registry: Registry,
        activity: Activity,
        resident: Resident,
        loads: Loads,
        comparisons: Comparisons,
        look_again: Callable[[ModelRecord], None],
    ) -> None:
        """look_again: learns what changed in a model's files, before it is loaded."""
        super().__init__(registry, activity, resident, Upkeep(registry, activity))
        self._loads = loads
        self._comparisons = comparisons
        self._look_again = look_again
        self._orders = Lane("orders")

    def chat(self, request: ChatRequest) -> Job[Completion]:
        """Starts an answer of the loaded model, whose settings hold for what the request leaves open.

        Raises:
            ModelNotLoaded: no model is loaded, or it is being unloaded.
            QueueFull: too many requests are waiting.
        """
        current = self._resident.current
        settings = self._registry.get(current.model_id).settings if current else {}
        return self._resident.chat(completed(request, settings))

    def outdated(self, model_id: int) -> bool:
        """Whether a reload would change the loaded model: its settings are no longer those it was loaded with."""
        return self._loads.outdated(self._registry.get(model_id))

    def room(self, model_id: int, context_length: int | None = None) -> Room:
        """Whether a model would go into memory now, and what it takes there. May take seconds."""
        return self._loads.room(self._registry.get(model_id), context_length)

    def verify(self, model_id: int) -> ModelRecord:
        """Queues a check of a model's files against the digests they came with; the record shows what it finds."""
        return self._order(model_id, self._upkeep.begin_verify)

    def compare(self, model_id: int, against: int | None = None, text: str | None = None) -> ModelRecord:
        """Queues measuring what a model's quantization costs in quality; see `Comparisons.begin`."""
        return self._order(model_id, lambda record: self._comparisons.begin(record, against, text))

    def activate(self, model_id: int) -> ModelRecord:
        """Makes a model the active one of its type; an `llm` is loaded. Raises what `load` raises."""
        if self._registry.get(model_id).model_type is ModelType.LLM:
            return self.load(model_id)
        return self._order(model_id, self._upkeep.activate)

    def deactivate(self, model_id: int) -> ModelRecord:
        """Leaves the model's type without an active one; an `llm` is unloaded."""
        if self._registry.get(model_id).model_type is ModelType.LLM:
            return self.unload(model_id)
        return self._order(model_id, self._upkeep.deactivate)

    def load(self, model_id: int, force: bool = False, context_length: int | None = None) -> ModelRecord:
        """Queues loading a model; the present one is unloaded first. `force` goes on where memory seems short.

        Raises:
            ModelAlreadyLoaded, ModelBusy, UnsupportedModel, InvalidRequest: it cannot be loaded as it is.
            InsufficientMemory: it needs more memory than is free, and `force` is not set.
        """
        return self._load(model_id, force, context_length, back=False)

    def switch(self, model_id: int, force: bool = False, context_length: int | None = None) -> ModelRecord:
        """Queues loading a model in place of the present one, which comes back if that fails. Raises as `load`."""
        return self._load(model_id, force, context_length, back=True)

    def reload(self, model_id: int) -> ModelRecord:
        """Queues loading the loaded model anew, with its settings as they are now; if that fails, as it was.

        Raises:
            ModelNotLoaded, ModelBusy: it is not the loaded one, or it is being unloaded.
        """
        return self._order(model_id, self._loads.begin_reload)

    def unload(self, model_id: int) -> ModelRecord:
        """Queues unloading a model; running requests get their time to finish.

        Raises:
            ModelNotLoaded: it is not the loaded one.
            ModelBusy: it is being unloaded already.
        """
        return self._order(model_id, self._loads.begin_unload)

    # how commands are carried out

    def _load(self, model_id: int, force: bool, context_length: int | None, *, back: bool) -> ModelRecord:
        self._look_again(self._registry.get(model_id))
        if not force:
            self._loads.check_room(self._free_record(model_id), context_length)
        return self._order(model_id, lambda record: self._loads.begin(record, context_length, back=back))

    def _free_record(self, model_id: int) -> ModelRecord:
        record = self._registry.get(model_id)
        job = self._activity.job(model_id)
        if job:
            raise ModelBusy(f"A {job.kind} is running on '{record.name}'.", id=model_id, job=job.kind)
        return record

    def _order(self, model_id: int, command: Callable[[ModelRecord], object]) -> ModelRecord:
        """Carries out a command on a model that no job runs on."""

        def order() -> ModelRecord:
            command(self._free_record(model_id))
            return self.record(model_id)

        return self._orders.call(order)
