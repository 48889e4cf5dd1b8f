"""What a load is given, and what is in memory after one that failed."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeOpener, make_manager
from running import PATIENCE_S

from millm.errors import InvalidLocalPath, InvalidRequest, ModelNotFound, ModelNotLoaded, UnsupportedModel
from millm.manager import Manager
from millm.records import ModelRecord, ModelType, Source, Status
from millm.sources.base import Origin


@pytest.fixture
def opener() -> FakeOpener:
    return FakeOpener()


@pytest.fixture
def manager(tmp_path: Path, opener: FakeOpener) -> Iterator[Manager]:
    manager = make_manager(tmp_path, opener=opener)
    yield manager
    assert manager.close()


def wait(manager: Manager, record: ModelRecord) -> ModelRecord:
    job = manager.job(record.id)
    if job:
        job.wait(PATIENCE_S)
    return manager.record(record.id)


@pytest.fixture
def two(manager: Manager) -> tuple[ModelRecord, ModelRecord]:
    """The first is loaded with a context of 100 tokens."""
    one, other = (
        wait(manager, manager.download(Origin(Source.HUGGINGFACE, repo_id=f"acme/{name}"))) for name in ("one", "two")
    )
    return wait(manager, manager.load(one.id, context_length=100)), other


def test_a_switch_that_fails_brings_the_old_model_back(
    manager: Manager, opener: FakeOpener, two: tuple[ModelRecord, ModelRecord]
) -> None:
    one, other = two
    opener.broken.add(other.name)
    failed = wait(manager, manager.switch(other.id))
    assert (failed.status, failed.error_code) == (Status.READY, "MODEL_LOAD_FAILED")
    assert wait(manager, one).status is Status.LOADED
    assert [options.context_length for options in opener.asked] == [100, None, 100]
    assert [engine.closed for engine in opener.opened] == [True, False]
    opener.broken.clear()
    assert wait(manager, manager.switch(other.id)).status is Status.LOADED
    assert manager.record(one.id).status is Status.READY


def test_a_load_that_fails_leaves_nothing_in_memory(
    manager: Manager, opener: FakeOpener, two: tuple[ModelRecord, ModelRecord]
) -> None:
    opener.broken.add(two[1].name)
    wait(manager, manager.load(two[1].id))
    assert manager.loaded() is None
    assert [engine.closed for engine in opener.opened] == [True]


def test_a_cancelled_switch_brings_the_old_model_back(
    manager: Manager, opener: FakeOpener, two: tuple[ModelRecord, ModelRecord]
) -> None:
    opener.pause_s = 0.1
    manager.switch(two[1].id)
    while len(opener.asked) < 2:
        time.sleep(0.01)
    manager.cancel(two[1].id)
    assert manager.loaded() == manager.record(two[0].id)


def test_a_switch_whose_old_model_is_gone_too_says_why_it_failed(
    manager: Manager, opener: FakeOpener, two: tuple[ModelRecord, ModelRecord]
) -> None:
    opener.broken |= {two[0].name, two[1].name}
    assert wait(manager, manager.switch(two[1].id)).error_code == "MODEL_LOAD_FAILED"
    assert manager.loaded() is None


def test_a_reload_takes_the_settings_as_they_are_now(
    manager: Manager, opener: FakeOpener, two: tuple[ModelRecord, ModelRecord], tmp_path: Path
) -> None:
    one, other = two
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    manager.update(one.id, settings={"context_length": 64, "adapter": str(adapter)})
    assert wait(manager, manager.reload(one.id)).status is Status.LOADED
    assert (opener.asked[-1].context_length, opener.asked[-1].adapter) == (64, adapter)
    with pytest.raises(ModelNotLoaded):
        manager.reload(other.id)


def test_an_adapter_that_is_none_is_refused(manager: Manager, two: tuple[ModelRecord, ModelRecord]) -> None:
    for path in ("relative/path", "/nowhere", "/tmp"):
        manager.update(two[1].id, settings={"adapter": path})
        with pytest.raises(InvalidLocalPath, match=path):
            manager.load(two[1].id)
    assert manager.record(two[0].id).status is Status.LOADED


@pytest.mark.parametrize("settings", [{"context_length": "many"}, {"context_length": 0}, {"adapter": 5}])
def test_settings_that_a_load_cannot_read_are_refused(
    manager: Manager, two: tuple[ModelRecord, ModelRecord], settings: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest, match="settings"):
        manager.update(two[1].id, settings=settings)


def test_an_embedding_model_takes_the_place_of_the_loaded_one_and_is_active_for_others_only_if_chosen(
    manager: Manager, opener: FakeOpener, two: tuple[ModelRecord, ModelRecord]
) -> None:
    one, other = two
    manager.update(other.id, model_type=ModelType.EMBEDDING)
    loaded = wait(manager, manager.load(other.id))
    assert (loaded.status, loaded.active) == (Status.LOADED, False)
    assert [engine.closed for engine in opener.opened] == [True, False]
    with pytest.raises(ModelNotFound):
        manager.active(ModelType.EMBEDDING)
    manager.activate(other.id)
    assert manager.active(ModelType.EMBEDDING) == manager.record(other.id) == manager.loaded()
    assert wait(manager, manager.load(one.id)).status is Status.LOADED
    assert manager.record(other.id).active


def test_what_miLLM_does_not_bring_to_life_is_not_loaded(
    manager: Manager, two: tuple[ModelRecord, ModelRecord]
) -> None:
    manager.update(two[1].id, model_type=ModelType.MUSIC)
    with pytest.raises(UnsupportedModel, match="'music' cannot be loaded here"):
        manager.load(two[1].id)


def test_a_load_is_told_what_memory_is_left_and_what_its_settings_ask_for(
    manager: Manager, two: tuple[ModelRecord, ModelRecord], opener: FakeOpener
) -> None:
    _, other = two
    manager.update(other.id, settings={"fast_cpu": False, "context_length": 50})
    manager.load(other.id)
    loaded = wait(manager, other)
    asked = opener.asked[-1]
    assert (asked.fast_cpu, asked.context_length, opener.asked[0].fast_cpu) == (False, 50, True)
    assert asked.cache_bytes is not None
    assert 0 < asked.cache_bytes < 8 << 30, "what the weights leave of the free memory"
    assert loaded.batching is True


def test_a_switch_that_is_no_switch_is_refused(manager: Manager, two: tuple[ModelRecord, ModelRecord]) -> None:
    with pytest.raises(InvalidRequest, match="fast_cpu is true or false"):
        manager.update(two[0].id, settings={"fast_cpu": "no"})


def test_the_room_for_a_model_counts_what_the_present_one_gives_back(
    manager: Manager, two: tuple[ModelRecord, ModelRecord]
) -> None:
    one, other = two
    room = manager.room(other.id)
    assert (room.free, room.freed, room.present, room.fit, room.on_gpu) == (8 << 30, 1_000_000, one.id, "ok", False)
    assert manager.room(other.id, 64).needed.context_length == 64
    manager.update(other.id, settings={"context_length": 32})
    assert manager.room(other.id).needed.context_length == 32
    wait(manager, manager.unload(one.id))
    assert (manager.room(other.id).freed, manager.room(other.id).present) == (0, None)


def test_changed_settings_are_told_until_a_reload(
    manager: Manager, two: tuple[ModelRecord, ModelRecord], tmp_path: Path
) -> None:
    one, other = two
    manager.update(one.id, settings={"context_length": 100, "generation": {"top_k": 5}})
    assert not manager.outdated(one.id)
    (tmp_path / "adapter_config.json").write_text("{}")
    for changed in ({"context_length": 64}, {"context_length": 100, "adapter": str(tmp_path)}):
        manager.update(one.id, settings=changed)
        assert manager.outdated(one.id)
        assert not manager.outdated(other.id)
    wait(manager, manager.reload(one.id))
    assert not manager.outdated(one.id)
