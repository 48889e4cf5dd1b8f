"""Checking files again, and the active model of each type."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import make_manager
from running import PATIENCE_S

from millm.errors import InvalidRequest, ModelBusy, ModelNotFound
from millm.manager import Manager
from millm.records import ModelRecord, ModelType, Source, Status
from millm.sources.base import Origin


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = make_manager(tmp_path)
    yield manager
    assert manager.close(2)


def get(manager: Manager, name: str, model_type: ModelType = ModelType.LLM) -> ModelRecord:
    record = manager.download(Origin(Source.HUGGINGFACE, f"acme/{name}", model_type=model_type))
    return wait(manager, record)


def wait(manager: Manager, record: ModelRecord) -> ModelRecord:
    job = manager.job(record.id)
    if job:
        job.wait(PATIENCE_S)
    return manager.record(record.id)


def verify(manager: Manager, record: ModelRecord) -> ModelRecord:
    manager.verify(record.id)
    return wait(manager, record)


def test_damage_is_found_named_and_forgotten_once_it_is_mended(manager: Manager) -> None:
    record = get(manager, "one")
    assert verify(manager, record).error_message is None
    weights = Path(str(record.cache_path)) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"?" + whole[1:])
    damaged = verify(manager, record)
    assert (damaged.status, damaged.error_code) == (Status.READY, "CHECKSUM_MISMATCH")
    assert "model.safetensors damaged" in str(damaged.error_message)
    weights.unlink()
    assert "model.safetensors missing" in str(verify(manager, record).error_message)
    weights.write_bytes(whole)
    assert verify(manager, record).error_message is None


def test_what_is_not_on_disk_is_not_verified(manager: Manager) -> None:
    record = manager.download(Origin(Source.HUGGINGFACE, "acme/later"), start=False)
    with pytest.raises(InvalidRequest):
        manager.verify(record.id)


def test_one_model_of_a_type_is_active(manager: Manager) -> None:
    one, two = get(manager, "one", ModelType.TTS), get(manager, "two", ModelType.TTS)
    other = get(manager, "other", ModelType.MUSIC)
    for record in (one, other, two):
        assert manager.activate(record.id).active
    assert manager.active(ModelType.TTS).id == two.id
    assert manager.active(ModelType.MUSIC).id == other.id
    assert not manager.record(one.id).active
    manager.deactivate(two.id)
    with pytest.raises(ModelNotFound):
        manager.active(ModelType.TTS)


def test_a_language_model_is_active_while_it_is_loaded(manager: Manager) -> None:
    record = get(manager, "one")
    manager.activate(record.id)
    assert wait(manager, record).active
    assert manager.active(ModelType.LLM).id == record.id
    manager.deactivate(record.id)
    assert not wait(manager, record).active


def test_a_busy_model_is_left_alone(manager: Manager, tmp_path: Path) -> None:
    record = get(manager, "one", ModelType.TTS)
    job_blocker = Path(str(record.cache_path)) / "model.safetensors"
    job_blocker.write_bytes(b"x" * 50_000_000)
    manager.verify(record.id)
    if manager.job(record.id):
        with pytest.raises(ModelBusy):
            manager.activate(record.id)
    wait(manager, record)
