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
from millm.records import ELSEWHERE, RESTING, ModelRecord, now

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
        """The tables as TinyDB wants them, None before the first write.

        Copies, for TinyDB changes them before it writes: a write that fails must change nothing.
        """
        return self._data and {name: dict(rows) for name, rows in self._data.items()}

    def write(self, data: dict[str, Rows]) -> None:
        """Replaces the file."""
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as out:
            out.write(json.dumps(data))
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
        """Opens the registry file at `path`; `fresh` says that there was none.

        A file that cannot be read is kept beside it as `registry.json.damaged-<time>`; then, and when there is no
        file, the registry starts from the records that `rebuild` finds on disk.
        """
        storage = AtomicJSONStorage(path)
        records, damaged = _read(storage)
        missing = not path.exists() or records is None
        self.fresh = not path.exists()
        if damaged:
            kept = path.with_name(f"{path.name}.damaged-{int(time.time())}")
            path.rename(kept)
            log.error("registry.json is damaged (%s); kept as %s", damaged, kept.name)
        self._table: Table = TinyDB(storage=lambda: storage).table("models", cache_size=0)
        self._lane = Lane("registry")
        self._records: MappingProxyType[int, ModelRecord] = MappingProxyType({r.id: r for r in records or ()})
        self._last_id = max(self._records, default=0)  # an id is never given twice while the process lives
        if missing or damaged:
            self._lane.call(lambda: self._restore(rebuild() if missing else ()))

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

    def twin(self, record: ModelRecord) -> ModelRecord | None:
        """The stored record that is the same model as `record`."""
        return next((known for known in self._records.values() if same_model(known, record)), None)

    def add(self, record: ModelRecord) -> ModelRecord:
        """Stores a new record under the next id and returns it.

        A name that is taken gets the quantization, or the source of weights elsewhere, behind it; then a number.

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

    def _restore(self, found: Iterable[ModelRecord]) -> None:
        """Writes what was readable and what was found, in one go; what is there twice is left out."""
        for record in found:
            if self.twin(record):
                log.warning("'%s' is on disk twice; %s is left out", record.name, record.cache_path)
                continue
            self._last_id += 1
            fresh = record.with_(id=self._last_id, name=self._free_name(record))
            self._records = MappingProxyType({**self._records, fresh.id: fresh})
        self._table.truncate()
        self._table.insert_multiple(Document(r.to_dict(), doc_id=r.id) for r in self._records.values())

    def _add(self, record: ModelRecord) -> ModelRecord:
        if twin := self.twin(record):
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
        longer = f"{record.name[:240]}-{record.source if record.source in ELSEWHERE else record.quantization}"
        name, number = longer, 2
        while name in taken:
            name, number = f"{longer}-{number}", number + 1
        return name


def same_model(known: ModelRecord, new: ModelRecord) -> bool:
    """Whether two records mean the same source and quantization, or the same path."""
    if new.local_path:
        return known.local_path == new.local_path
    return all(
        getattr(known, name) == getattr(new, name)
        for name in ("source", "repo_id", "url", "requested_revision", "quantization")
    )


def _read(storage: AtomicJSONStorage) -> tuple[list[ModelRecord] | None, str]:
    """The records of a file, None if it cannot be read at all; and what is wrong with it, "" if nothing is."""
    try:
        storage.load()
        rows = (storage.read() or {}).get("models", {})
    except (ValueError, RecursionError) as error:
        return None, str(error)
    records, wrong = [], ""
    for row in rows.values():
        try:
            records.append(ModelRecord.from_dict(row))
        except (ValueError, TypeError, AttributeError) as error:
            wrong = str(error)
    return records, wrong
