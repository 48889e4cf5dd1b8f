"""Which models are known: a TinyDB file that survives `kill -9` at any moment.

Only what rests is stored: a record says what would be true if the process died now, so `downloading`, `loading`
and `loaded` never reach the file. Reads come from an immutable snapshot in memory and never wait; writes run one
after the other on a lane of width one.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tinydb import TinyDB
from tinydb.storages import Storage
from tinydb.table import Document, Table

from millm.errors import ModelAlreadyExists, ModelNotFound
from millm.jobs import Lane
from millm.records import RESTING, ModelRecord, now

log = logging.getLogger(__name__)

Rows = dict[str, dict[str, Any]]


class AtomicJSONStorage(Storage):
    """A TinyDB storage whose file is, after a crash at any byte of a write, the old one or the new one.

    Written to a temporary file, fsynced, renamed over, and the directory fsynced. What was written last is kept
    in memory, so reading costs no parse.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data: dict[str, Rows] | None = None

    def load(self) -> None:
        """Reads the file into memory.

        Raises:
            ValueError: the file is not the JSON object of objects that TinyDB writes.
        """
        if not self._path.exists():
            return
        data = json.loads(self._path.read_bytes())
        if not isinstance(data, dict) or not all(isinstance(rows, dict) for rows in data.values()):
            raise ValueError("not a registry")
        self._data = data

    def read(self) -> dict[str, Rows] | None:
        """The tables as TinyDB wants them, None before the first write."""
        return self._data

    def write(self, data: dict[str, Rows]) -> None:
        """Replaces the file."""
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as out:
            out.write(json.dumps(data, ensure_ascii=False))
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(self._path)
        sync_directory(self._path.parent)
        self._data = data


def sync_directory(folder: Path) -> None:
    """Makes a rename inside `folder` survive a power cut. Windows has no such call and needs none."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Registry:
    """The known models, by id."""

    def __init__(self, path: Path, rebuild: Callable[[], Iterable[ModelRecord]]) -> None:
        """Opens the registry file at `path`.

        A file that cannot be read is kept beside it as `registry.json.damaged-<time>`; then, and when there is no
        file, the registry starts from the records that `rebuild` finds on disk.
        """
        storage = AtomicJSONStorage(path)
        missing = not path.exists()
        try:
            storage.load()
            records = [ModelRecord.from_dict(row) for row in (storage.read() or {}).get("models", {}).values()]
        except (ValueError, TypeError, AttributeError) as error:
            missing, records = True, []
            kept = path.with_name(f"{path.name}.damaged-{int(time.time())}")
            path.replace(kept)
            log.error("registry.json cannot be read (%s); kept as %s and rebuilt from disk", error, kept.name)
            storage = AtomicJSONStorage(path)
        self._table: Table = TinyDB(storage=lambda: storage).table("models", cache_size=0)
        self._lane = Lane("registry")
        self._records: MappingProxyType[int, ModelRecord] = MappingProxyType({r.id: r for r in records})
        self._last_id = max(self._records, default=0)  # an id is never given twice while the process lives
        if missing:
            for record in rebuild():
                self.add(record)

    def all(self) -> list[ModelRecord]:
        """Every record, newest first."""
        return sorted(self._records.values(), key=lambda record: record.id, reverse=True)

    def get(self, model_id: int) -> ModelRecord:
        """The record with this id.

        Raises:
            ModelNotFound: there is none.
        """
        try:
            return self._records[model_id]
        except KeyError:
            raise ModelNotFound(f"Model not found: there is no model with id {model_id}.", id=model_id) from None

    def find(self, name: str) -> ModelRecord | None:
        """The record with this name, None if there is none."""
        return next((record for record in self._records.values() if record.name == name), None)

    def add(self, record: ModelRecord) -> ModelRecord:
        """Stores a new record under the next id and returns it.

        A name that is taken gets the quantization, then a number, behind it.

        Raises:
            ModelAlreadyExists: the same source, revision and quantization, or the same path, is known already.
        """
        return self._lane.call(lambda: self._add(record))

    def update(self, model_id: int, **changes: Any) -> ModelRecord:
        """Changes fields of a record and returns it.

        Raises:
            ModelNotFound: there is no such record.
            ModelAlreadyExists: another record has the new name.
        """
        return self._lane.call(lambda: self._update(model_id, changes))

    def remove(self, model_id: int) -> None:
        """Forgets a record.

        Raises:
            ModelNotFound: there is no such record.
        """
        self._lane.call(lambda: self._remove(model_id))

    def close(self) -> None:
        """Waits for the last write and ends the lane."""
        self._lane.call(lambda: None)
        self._lane.close()

    def _add(self, record: ModelRecord) -> ModelRecord:
        twin = next((known for known in self._records.values() if _same(known, record)), None)
        if twin:
            raise ModelAlreadyExists(
                f"'{twin.name}' is this model in {twin.quantization} already (id {twin.id}).", id=twin.id
            )
        self._last_id += 1
        return self._store(record.with_(id=self._last_id, name=self._free_name(record)))

    def _update(self, model_id: int, changes: dict[str, Any]) -> ModelRecord:
        record = self.get(model_id).with_(**changes, updated_at=now())
        other = self.find(record.name)
        if other and other.id != model_id:
            raise ModelAlreadyExists(f"Another model is called '{record.name}' (id {other.id}).", id=other.id)
        return self._store(record)

    def _remove(self, model_id: int) -> None:
        self.get(model_id)
        self._table.remove(doc_ids=[model_id])
        self._records = MappingProxyType({i: r for i, r in self._records.items() if i != model_id})

    def _store(self, record: ModelRecord) -> ModelRecord:
        if record.status not in RESTING:
            raise ValueError(f"{record.status} is not a resting status")
        self._table.upsert(Document(record.to_dict(), doc_id=record.id))
        self._records = MappingProxyType({**self._records, record.id: record})
        return record

    def _free_name(self, record: ModelRecord) -> str:
        taken = {known.name for known in self._records.values()}
        if record.name not in taken:
            return record.name
        name = f"{record.name[:240]}-{record.quantization}"
        number = 2
        while name in taken:
            name, number = f"{record.name[:240]}-{record.quantization}-{number}", number + 1
        return name


def _same(known: ModelRecord, new: ModelRecord) -> bool:
    if new.local_path:
        return known.local_path == new.local_path
    return (known.source, known.repo_id, known.requested_revision, known.quantization) == (
        new.source,
        new.repo_id,
        new.requested_revision,
        new.quantization,
    )
