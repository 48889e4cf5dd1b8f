"""The registry: nothing lost under concurrency, under kill -9 and under damage."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from millm.errors import ModelAlreadyExists, ModelNotFound
from millm.records import ModelRecord, Quantization, Source, Status
from millm.registry import AtomicJSONStorage, Registry


def open_registry(folder: Path, found: tuple[ModelRecord, ...] = ()) -> Registry:
    return Registry(folder / "registry.json", lambda: found)


def record(number: int, **fields: object) -> ModelRecord:
    return ModelRecord(name=f"m{number}", repo_id=f"acme/m{number}", status=Status.READY).with_(**fields)


def test_what_was_stored_is_there_after_reopening(tmp_path: Path) -> None:
    first = open_registry(tmp_path)
    added = first.add(record(1, config={"hidden_size": 64}, settings={"temperature": 0.5}))
    first.update(added.id, name="renamed", params="1B")
    first.close()
    again = open_registry(tmp_path)
    stored = again.get(added.id)
    assert (stored.name, stored.params, stored.config) == ("renamed", "1B", {"hidden_size": 64})
    assert stored.quantization is Quantization.FP16
    assert stored.updated_at > stored.created_at
    again.close()


def test_four_hundred_concurrent_inserts_lose_nothing(tmp_path: Path) -> None:
    registry = open_registry(tmp_path)

    def insert(first: int) -> None:
        for number in range(first, first + 50):
            registry.add(record(number))

    threads = [threading.Thread(target=insert, args=(start * 50,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({r.id for r in registry.all()}) == 400
    registry.close()
    again = open_registry(tmp_path)
    assert {r.name for r in again.all()} == {f"m{n}" for n in range(400)}
    again.close()


def test_newest_first_and_an_id_is_never_given_twice(tmp_path: Path) -> None:
    registry = open_registry(tmp_path)
    ids = [registry.add(record(n)).id for n in range(3)]
    assert [r.id for r in registry.all()] == ids[::-1]
    registry.remove(ids[-1])
    assert registry.add(record(9)).id > ids[-1]
    with pytest.raises(ModelNotFound):
        registry.get(ids[-1])
    registry.close()


def test_the_same_model_twice_is_refused_and_says_which_it_is(tmp_path: Path) -> None:
    registry = open_registry(tmp_path)
    known = registry.add(record(1))
    with pytest.raises(ModelAlreadyExists) as refused:
        registry.add(record(1, name="other"))
    assert refused.value.details["id"] == known.id
    other_form = registry.add(record(1, quantization=Quantization.Q4))
    other_revision = registry.add(record(1, requested_revision="v1"))
    assert len({known.name, other_form.name, other_revision.name}) == 3
    path = "/models/x"
    registry.add(ModelRecord(name="x", source=Source.LOCAL, local_path=path))
    with pytest.raises(ModelAlreadyExists):
        registry.add(ModelRecord(name="y", source=Source.LOCAL, local_path=path))
    registry.close()


def test_a_name_that_is_taken_gets_something_behind_it_that_tells_the_models_apart(tmp_path: Path) -> None:
    registry = open_registry(tmp_path)
    elsewhere = {"source": Source.REMOTE, "quantization": Quantization.FP16}
    added = [
        record(1),
        record(2, quantization=Quantization.Q8),
        record(3, quantization=Quantization.Q8),
        record(4, url="http://a/v1", **elsewhere),
        record(5, url="http://b/v1", **elsewhere),
    ]
    names = [registry.add(each.with_(name="m")).name for each in added]
    assert names == ["m", "m-Q8", "m-Q8-2", "m-remote", "m-remote-2"]


def test_a_name_belongs_to_one_model(tmp_path: Path) -> None:
    registry = open_registry(tmp_path)
    one, two = registry.add(record(1)), registry.add(record(2))
    with pytest.raises(ModelAlreadyExists):
        registry.update(two.id, name=one.name)
    assert registry.update(two.id, name=two.name).name == two.name
    assert registry.find("m2") == registry.get(two.id)
    registry.close()


@pytest.mark.parametrize("status", [Status.QUEUED, Status.DOWNLOADING, Status.LOADING, Status.LOADED])
def test_what_only_runs_is_never_stored(tmp_path: Path, status: Status) -> None:
    registry = open_registry(tmp_path)
    with pytest.raises(ValueError, match=status):
        registry.add(record(1, status=status))
    stored = registry.add(record(1))
    with pytest.raises(ValueError, match=status):
        registry.update(stored.id, status=status)
    registry.close()
    assert f'"{status}"' not in (tmp_path / "registry.json").read_text()


@pytest.mark.parametrize("damage", [b"", b"{", b'{"models": {"1": {"name"', b"[]", b'{"models": 3}', b"\xff\xfe"])
def test_a_damaged_file_is_kept_aside_and_the_registry_rebuilt(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "registry.json").write_bytes(damage)
    registry = open_registry(tmp_path, (record(7),))
    assert [r.name for r in registry.all()] == ["m7"]
    registry.close()
    kept = list(tmp_path.glob("registry.json.damaged-*"))
    assert [path.read_bytes() for path in kept] == [damage]
    assert json.loads((tmp_path / "registry.json").read_text())["models"]["1"]["name"] == "m7"


def test_a_lost_file_is_rebuilt_but_a_present_one_is_believed(tmp_path: Path) -> None:
    first = open_registry(tmp_path, (record(1), record(2)))
    assert len(first.all()) == 2
    first.remove(1)
    first.close()
    again = open_registry(tmp_path, (record(1), record(2)))
    assert [r.name for r in again.all()] == ["m2"]
    again.close()


def test_a_torn_write_leaves_the_old_registry(tmp_path: Path) -> None:
    """What the disk can hold if the process dies at any byte of a write: the old file and a part of the new."""
    registry = open_registry(tmp_path)
    registry.add(record(1))
    old = (tmp_path / "registry.json").read_bytes()
    registry.add(record(2))
    registry.close()
    new = (tmp_path / "registry.json").read_bytes()
    for torn in range(0, len(new) + 1, 97):
        (tmp_path / "registry.json").write_bytes(old)
        (tmp_path / "registry.tmp").write_bytes(new[:torn])
        again = open_registry(tmp_path)
        assert [r.name for r in again.all()] == ["m1"]
        again.add(record(3))
        again.close()


WRITER = """
import sys
from pathlib import Path
from millm.records import ModelRecord, Status
from millm.registry import Registry
registry = Registry(Path(sys.argv[1]) / "registry.json", list)
number = 0
while True:
    number += 1
    config = {"x": "y" * 20000}
    registry.add(ModelRecord(name=f"m{number}", repo_id=f"a/m{number}", status=Status.READY, config=config))
    print(number, flush=True)
"""


@pytest.mark.slow
def test_kill_9_while_writing_leaves_a_readable_registry(tmp_path: Path) -> None:
    for round_number in range(8):
        folder = tmp_path / str(round_number)
        folder.mkdir()
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        confirmed = int(writer.stdout.readline())
        time.sleep(0.013 * round_number)
        os.kill(writer.pid, signal.SIGKILL)
        confirmed = max([confirmed, *(int(line) for line in writer.stdout.read().split())])
        writer.wait()
        storage = AtomicJSONStorage(folder / "registry.json")
        storage.load()
        stored = (storage.read() or {})["models"]
        assert confirmed <= len(stored) <= confirmed + 1


def test_a_write_that_fails_changes_nothing_and_the_next_one_works(tmp_path: Path) -> None:
    registry = open_registry(tmp_path)
    kept = registry.add(record(1))
    (tmp_path / "registry.tmp").mkdir()  # the temporary file cannot be written
    for attempt in (lambda: registry.add(record(2)), lambda: registry.remove(kept.id)):
        with pytest.raises(OSError, match="directory"):
            attempt()
    (tmp_path / "registry.tmp").rmdir()
    registry.add(record(3))
    registry.close()
    again = open_registry(tmp_path)
    assert [r.name for r in again.all()] == ["m3", "m1"]
    again.close()


def test_text_that_is_no_text_can_be_stored(tmp_path: Path) -> None:
    registry = open_registry(tmp_path)
    registry.add(record(1, settings={"x": "\ud800"}))
    registry.add(record(2))
    registry.close()
    again = open_registry(tmp_path)
    assert len(again.all()) == 2
    again.close()


def test_one_row_that_cannot_be_read_does_not_cost_the_others(tmp_path: Path) -> None:
    registry = open_registry(tmp_path)
    registry.add(record(1))
    registry.add(record(2))
    registry.close()
    path = tmp_path / "registry.json"
    path.write_text(path.read_text().replace('"huggingface"', '"of a later version"', 1))
    again = open_registry(tmp_path, (record(7),))
    assert [r.name for r in again.all()] == ["m2"]
    assert list(tmp_path.glob("registry.json.damaged-*"))
    again.close()
    third = open_registry(tmp_path)
    assert [r.name for r in third.all()] == ["m2"]
    third.close()


def test_a_rebuild_leaves_out_what_is_there_twice_and_is_whole_or_nothing(tmp_path: Path) -> None:
    registry = open_registry(tmp_path, (record(1), record(1, name="copy"), record(2)))
    assert {r.name for r in registry.all()} == {"m1", "m2"}
    registry.close()
    again = open_registry(tmp_path)
    assert {r.name for r in again.all()} == {"m1", "m2"}
    again.close()
