"""What both doors ask about models, answered from the registry and from what runs."""

import time
from itertools import takewhile

from millm.activity import Activity
from millm.details import Details, read_details
from millm.errors import ModelNotFound
from millm.feed import Feed
from millm.records import ModelRecord, ModelType, Source, Status
from millm.registry import Registry
from millm.resident import Resident
from millm.upkeep import Upkeep
from millm.views import Notice

GUIDE = "millm-guide"


class Questions:
    """Reads only, and never waits for a job."""

    def __init__(self, registry: Registry, activity: Activity, resident: Resident, upkeep: Upkeep) -> None:
        self._registry = registry
        self._activity = activity
        self._resident = resident
        self._upkeep = upkeep
        self._born = int(time.time() * 1000)

    @property
    def feed(self) -> Feed[Notice]:
        """Everything that happens to models, as it happens."""
        return self._activity.feed

    @property
    def version(self) -> int:
        """Grows with every change that a page could show, also over restarts of the process."""
        return self._born + self.feed.number

    def news(self, seen: int) -> tuple[int, list[Notice]]:
        """The version now, and what happened after version `seen`; nothing if that was another process's."""
        while True:
            version = self.version
            told = self.feed.read(seen - self._born, beat=0) if self._born <= seen < version else iter(())
            notices = [notice for notice in takewhile(lambda each: each is not None, told) if notice]
            if version == self.version:
                return version, notices

    def records(
        self,
        status: Status | None = None,
        model_type: ModelType | None = None,
        source: Source | None = None,
        q: str | None = None,
    ) -> list[ModelRecord]:
        """The records that match, newest first, each with its live status."""
        live = map(self._activity.live, self._registry.all())
        return [record for record in live if record.matches(status, model_type, source, q)]

    def record(self, model_id: int) -> ModelRecord:
        """One record with its live status. Raises `ModelNotFound`."""
        return self._activity.live(self._registry.get(model_id))

    def details(self, model_id: int) -> Details:
        """What the files of a model tell; reads a few small ones. Raises `ModelNotFound`."""
        return read_details(self._registry.get(model_id))

    def find(self, name: str) -> ModelRecord | None:
        """The record with this name, None if there is none."""
        record = self._registry.find(name)
        return record and self._activity.live(record)

    def guide(self) -> ModelRecord | None:
        """The record of the model that ships with the program."""
        return next((record for record in self.records(source=Source.LOCAL) if record.built_in), None)

    def loaded(self) -> ModelRecord | None:
        """The record of the loaded model."""
        current = self._resident.current
        return self.record(current.model_id) if current else None

    def active(self, model_type: ModelType) -> ModelRecord:
        """The active record of a type; for `llm` that is the loaded one. Raises `ModelNotFound`."""
        record = self.loaded() if model_type is ModelType.LLM else self._upkeep.active(model_type)
        if record is None:
            raise ModelNotFound(f"No model of type '{model_type}' is active.", model_type=model_type)
        return self._activity.live(record)
