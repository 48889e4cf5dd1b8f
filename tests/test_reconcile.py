"""Linked directories that change, go and come back; what belongs to nobody."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import CONFIG, make_manager
from making import content, make_repo, safetensors
from running import PATIENCE_S

from millm.errors import InvalidLocalPath
from millm.manager import Manager
from millm.records import ModelRecord, Source, Status
from millm.sources.base import Origin


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Manager]]:
    made: list[Manager] = []

    def build() -> Manager:
        if made:
            made.pop().close(1)
        made.append(make_manager(tmp_path / "home"))
        return made[-1]

    yield build
    made[-1].close(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "mine", config__json=CONFIG, model__safetensors=safetensors(content(2000)))


def link(manager: Manager, folder: Path) -> ModelRecord:
    return manager.download(Origin(Source.LOCAL, path=str(folder)))


def wait(manager: Manager, record: ModelRecord) -> ModelRecord:
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    return manager.record(record.id)


def test_a_directory_that_did_not_change_is_left_alone(start: Callable[[], Manager], folder: Path) -> None:
    record = link(start(), folder)
    again = start().record(record.id)
    assert (again.warning, again.updated_at) == (None, record.updated_at)


def test_a_directory_that_changed_is_read_again_and_says_so(start: Callable[[], Manager], folder: Path) -> None:
    record = link(start(), folder)
    assert record.param_count == 1000
    (folder / "model.safetensors").write_bytes(safetensors(content(6000)))
    (folder / "config.json").write_text(str({**CONFIG, "num_hidden_layers": 9}).replace("'", '"'))
    now = start().record(record.id)
    assert (now.status, now.param_count, now.num_layers) == (Status.READY, 3000, 9)
    assert "have changed" in str(now.warning)
    assert now.fingerprint != record.fingerprint


def test_a_change_is_noticed_before_a_load_too(start: Callable[[], Manager], folder: Path) -> None:
    manager = start()
    record = link(manager, folder)
    (folder / "model.safetensors").write_bytes(safetensors(content(4000)))
    manager.load(record.id)
    assert wait(manager, record).param_count == 2000
    manager.unload(record.id)
    wait(manager, record)
    shutil.rmtree(folder)
    with pytest.raises(InvalidLocalPath):
        manager.load(record.id)
    gone = manager.record(record.id)
    assert (gone.status, gone.error_code) == (Status.ERROR, "INVALID_LOCAL_PATH")


def test_a_directory_that_comes_back_is_ready_again(start: Callable[[], Manager], folder: Path) -> None:
    record = link(start(), folder)
    away = folder.rename(folder.with_name("away"))
    manager = start()
    assert manager.record(record.id).status is Status.ERROR
    away.rename(folder)
    manager.retry(record.id)
    assert wait(manager, record).status is Status.READY
    away = folder.rename(folder.with_name("away"))
    assert start().record(record.id).status is Status.ERROR
    away.rename(folder)
    assert start().record(record.id).status is Status.READY


def test_what_belongs_to_no_model_is_shown_and_removed(
    start: Callable[[], Manager], folder: Path, tmp_path: Path
) -> None:
    manager = start()
    ready = manager.download(Origin(Source.HUGGINGFACE, "acme/one"))
    wait(manager, ready)
    link(manager, folder)
    home = tmp_path / "home"
    (home / "huggingface" / "stranger").mkdir()
    (home / "huggingface" / "stranger" / "model.safetensors").write_bytes(bytes(1000))
    (home / "local" / "dangling").symlink_to(folder / "nowhere")
    (home / "registry.json.damaged-1").write_bytes(bytes(10))
    storage = manager.storage()
    assert set(storage.orphans) == {"huggingface/stranger", "local/dangling", "registry.json.damaged-1"}
    assert storage.orphans["huggingface/stranger"] == 1000
    assert manager.clean() >= 1010
    assert manager.storage().orphans == {}
    assert wait(manager, ready).status is Status.READY
    assert Path(str(manager.record(ready.id).cache_path)).is_dir()
    assert (folder / "model.safetensors").exists()


def test_what_a_running_download_writes_belongs_to_it(start: Callable[[], Manager], tmp_path: Path) -> None:
    manager = start()
    manager._downloads._fetchers[Source.HUGGINGFACE].pause_s = 0.1  # type: ignore[attr-defined]
    record = manager.download(Origin(Source.HUGGINGFACE, "acme/one"))
    while not list((tmp_path / "home" / ".staging").iterdir()):
        assert manager.job(record.id)
    assert manager.clean() == 0
    assert wait(manager, record).status is Status.READY
