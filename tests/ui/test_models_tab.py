"""The list of models: filters, counts, empty places."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeOpener, make_manager
from running import PATIENCE_S

from millm.engines.base import ChatRequest, Message
from millm.manager import Manager
from millm.records import ModelRecord, ModelType, Source
from millm.sources.base import Origin
from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.models_tab import Filters, chosen, draw_cards, draw_storage  # noqa: E402


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def add(manager: Manager, name: str, **origin: Any) -> ModelRecord:
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id=f"acme/{name}", **origin))
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    return record


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = make_manager(tmp_path, opener=FakeOpener(broken={"broken"}))
    yield manager
    manager.close(1)


def test_no_models_lead_to_the_download_tab(manager: Manager) -> None:
    assert 'data-tab="download"' in draw_cards(manager, Filters(), manager.storage())
    assert "0 models" in draw_storage(manager, Filters(), manager.storage())


def test_the_newest_is_first(manager: Manager) -> None:
    add(manager, "old")
    add(manager, "new")
    html = draw_cards(manager, Filters(), manager.storage())
    assert html.index("acme/new") < html.index("acme/old")


def test_filters_by_search_status_and_type(manager: Manager) -> None:
    loaded = add(manager, "chatty")
    add(manager, "song", model_type=ModelType.MUSIC)
    manager.load(loaded.id)
    job = manager.job(loaded.id)
    assert job is None or job.wait(PATIENCE_S)

    def shown(filters: Filters) -> list[str]:
        html = draw_cards(manager, filters, manager.storage())
        return [name for name in ("chatty", "song") if f"acme/{name}" in html]

    assert shown(Filters()) == ["chatty", "song"]
    assert shown(Filters(search=" CHAT ")) == ["chatty"]
    assert shown(Filters(status="Loaded")) == ["chatty"]
    assert shown(Filters(status="Ready")) == ["song"]
    assert shown(Filters(status="Error")) == []
    assert shown(Filters(model_type="Music")) == ["song"]
    assert shown(Filters(status="nonsense", model_type="nonsense")) == ["chatty", "song"]
    assert "1 of 2 models" in draw_storage(manager, Filters(status="Loaded"), manager.storage())
    assert "No model matches" in draw_cards(manager, Filters(search="nothing like this"), manager.storage())


def test_the_order_is_as_asked(manager: Manager) -> None:
    for name, disk, memory in (("beta", 5.0, 1.0), ("Alpha", 9.0, 3.0), ("gamma", 7.0, 2.0)):
        record = add(manager, name)
        manager.update(record.id, disk_size_mb=disk, estimated_memory_mb=memory)

    def shown(sort: str) -> list[str]:
        return [record.name for record in chosen(manager, Filters(sort=sort))]

    assert shown("Newest first") == shown("nonsense") == ["gamma", "Alpha", "beta"]
    assert shown("Name") == ["Alpha", "beta", "gamma"]
    assert shown("Size on disk") == ["Alpha", "gamma", "beta"]
    assert shown("Memory") == ["Alpha", "gamma", "beta"]


def test_the_loaded_model_says_that_it_makes_room(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, opener=FakeOpener(engine_pause_s=0.1))
    old, new = add(manager, "old"), add(manager, "new")
    manager.load(old.id)
    job = manager.job(old.id)
    assert job is None or job.wait(PATIENCE_S)
    answer = manager.chat(ChatRequest((Message("user", "a long story of many words"),)))
    manager.load(new.id)
    until(
        lambda: (
            "Makes room for new. 1 request still being answered." in draw_cards(manager, Filters(), manager.storage())
        )
    )
    assert "Waiting for 1 pending requests to complete..." in draw_cards(manager, Filters(), manager.storage())
    manager.cancel(new.id)
    assert "Makes room" not in draw_cards(manager, Filters(), manager.storage())
    answer.cancel()
    manager.close(1)


def test_the_disk_is_told_by_type_where_there_is_more_than_one(manager: Manager) -> None:
    add(manager, "chatty")
    assert "Language" not in draw_storage(manager, Filters(), manager.storage())
    add(manager, "song", model_type=ModelType.MUSIC)
    assert "<span>Language " in draw_storage(manager, Filters(), manager.storage())
    assert " · Music " in draw_storage(manager, Filters(), manager.storage())


def test_a_load_that_failed_is_explained_on_its_card(manager: Manager) -> None:
    record = add(manager, "broken")
    manager.load(record.id)
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    html = draw_cards(manager, Filters(), manager.storage())
    assert "Out of memory loading model." in html
    assert f"load-btn-{record.id}" in html


def test_what_went_wrong_at_start_is_shown(manager: Manager) -> None:
    manager.auto_load("nobody")
    assert "there is no model called &#x27;nobody&#x27;" in draw_cards(manager, Filters(), manager.storage())
