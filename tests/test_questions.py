"""The model that ships with the program: there at the first start, gone when deleted, back when asked for."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import CONFIG, make_manager
from making import content, make_repo, safetensors

from millm.errors import InvalidLocalPath, ModelAlreadyExists
from millm.manager import Manager
from millm.records import Source, Status
from millm.sources.base import Origin


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "millm-guide", config__json=CONFIG, model__safetensors=safetensors(content(2000)))


@pytest.fixture
def start(tmp_path: Path, folder: Path) -> Iterator[Callable[..., Manager]]:
    made: list[Manager] = []

    def build(guide: Path | None = folder) -> Manager:
        if made:
            made.pop().close(1)
        made.append(make_manager(tmp_path / "home", guide=guide))
        return made[-1]

    yield build
    made[-1].close(1)


def test_it_is_ready_at_the_first_start(start: Callable[..., Manager]) -> None:
    manager = start()
    (record,) = manager.records()
    assert (record.name, record.source, record.status) == ("millm-guide", Source.LOCAL, Status.READY)
    assert (record.built_in, manager.guide(), manager.lacks_guide) == (True, record, False)


def test_deleted_it_stays_away_until_it_is_asked_for(start: Callable[..., Manager], folder: Path) -> None:
    manager = start()
    manager.delete(manager.records()[0].id)
    assert (manager.records(), manager.lacks_guide) == ([], True)
    manager = start()
    assert manager.records() == []
    assert manager.add_guide().built_in
    assert manager.guide() is not None
    with pytest.raises(ModelAlreadyExists):
        manager.add_guide()
    assert (folder / "model.safetensors").exists()


def test_it_is_found_again_where_the_program_moved(start: Callable[..., Manager], folder: Path) -> None:
    was = start().records()[0]
    moved = folder.rename(folder.with_name("elsewhere"))
    (now,) = start(moved).records()
    assert (now.id, now.status, now.local_path, now.warning) == (was.id, Status.READY, str(moved), None)
    assert Path(str(now.cache_path)).resolve() == moved


def test_a_lost_registry_finds_its_link(start: Callable[..., Manager], tmp_path: Path) -> None:
    start()
    (tmp_path / "home" / "registry.json").unlink()
    (record,) = start().records()
    assert (record.built_in, record.status) == (True, Status.READY)


def test_a_model_of_that_name_is_left_alone(start: Callable[..., Manager], tmp_path: Path) -> None:
    manager = start(None)
    mine = make_repo(tmp_path / "mine", config__json=CONFIG, model__safetensors=safetensors(content(2000)))
    record = manager.download(Origin(Source.LOCAL, path=str(mine)), name="millm-guide")
    (tmp_path / "home" / "registry.json").rename(tmp_path / "away")
    (same,) = start().records()
    assert (same.name, same.built_in, same.local_path) == (record.name, False, str(mine))


def test_a_copy_of_the_program_without_it(start: Callable[..., Manager]) -> None:
    manager = start(None)
    assert (manager.records(), manager.guide(), manager.lacks_guide) == ([], None, False)
    with pytest.raises(InvalidLocalPath):
        manager.add_guide()
