"""The sheet at the side: what it shows of a model, what it saves, and that a browser may ask it anything."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import CONFIG, FakeFetcher, FakeOpener, make_manager
from running import PATIENCE_S

from millm.manager import Manager
from millm.records import ModelRecord, ModelType, Source
from millm.sources.base import Origin
from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.drawer import build, draw_room, draw_sheet, save_settings  # noqa: E402


def settle(manager: Manager, record: ModelRecord) -> None:
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)


def add(manager: Manager, name: str, **origin: Any) -> ModelRecord:
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id=f"acme/{name}", **origin))
    settle(manager, record)
    return manager.record(record.id)


@pytest.fixture
def opener() -> FakeOpener:
    return FakeOpener()


@pytest.fixture
def manager(tmp_path: Path, opener: FakeOpener) -> Iterator[Manager]:
    manager = make_manager(tmp_path, FakeFetcher(written=json.dumps(CONFIG)), opener)
    yield manager
    manager.close(1)


@pytest.fixture
def record(manager: Manager) -> ModelRecord:
    return add(manager, "tiny")


def load(manager: Manager, record: ModelRecord) -> None:
    manager.load(record.id)
    settle(manager, record)


def test_details_lead_to_loading_and_to_settings(manager: Manager, record: ModelRecord) -> None:
    shown = draw_sheet(manager, {"kind": "details", "model": record.id})
    assert (shown["kind"], shown["title"]) == ("Details", "tiny")
    assert ">Ready</span>" in shown["badge"]
    assert "model.safetensors" in shown["body"]
    assert 'data-act="load"' in shown["foot"]
    assert 'data-drawer="settings"' in shown["foot"]
    load(manager, record)
    assert 'data-act="unload"' in draw_sheet(manager, {"kind": "details", "model": record.id})["foot"]


def test_a_loaded_model_can_be_saved_and_reloaded(manager: Manager, record: ModelRecord) -> None:
    asked = {"kind": "settings", "model": record.id}
    assert "settings-reload-btn" not in draw_sheet(manager, asked)["foot"]
    load(manager, record)
    shown = draw_sheet(manager, asked)
    assert "settings-save-btn" in shown["foot"]
    assert "settings-reload-btn" in shown["foot"]
    assert 'id="settings-form"' in shown["body"]


def test_memory_is_worked_out_for_the_context_that_is_typed(manager: Manager, record: ModelRecord) -> None:
    assert "Cache for 512 tokens" in draw_room(manager, {"model": record.id})
    assert "Cache for 64 tokens" in draw_room(manager, {"model": record.id, "context": "64"})
    for nonsense in ("many", "0", "-5", "9" * 5000, None, {}):
        assert "Cache for 512 tokens" in draw_room(manager, {"model": record.id, "context": nonsense})
    manager.update(record.id, settings={"context_length": 100})
    assert "Cache for 100 tokens" in draw_room(manager, {"model": record.id})
    assert "Cache for 512 tokens" in draw_room(manager, {"model": record.id, "context": "own"})


def test_memory_counts_what_unloading_the_present_model_gives_back(manager: Manager, record: ModelRecord) -> None:
    other = add(manager, "other")
    assert "After unloading" not in draw_room(manager, {"model": other.id})
    load(manager, record)
    assert "After unloading tiny" in draw_room(manager, {"model": other.id})


def test_what_is_right_is_saved(manager: Manager, record: ModelRecord) -> None:
    fields = {"name": "small", "temperature": "0.5", "system_prompt": "Be brief."}
    assert save_settings(manager, {"model": record.id, "fields": fields, "reload": False}) == {"faults": {}}
    changed = manager.record(record.id)
    assert (changed.name, changed.settings) == (
        "small",
        {"generation": {"temperature": 0.5}, "system_prompt": "Be brief."},
    )


def test_nothing_is_saved_where_a_field_is_wrong(manager: Manager, record: ModelRecord) -> None:
    fields = {"name": "small", "temperature": "5"}
    faults = save_settings(manager, {"model": record.id, "fields": fields, "reload": False})["faults"]
    assert faults == {"temperature": "Temperature is a number from 0 to 2."}
    assert manager.record(record.id).name == "tiny"


def test_a_name_that_is_taken_is_a_fault_of_its_field(manager: Manager, record: ModelRecord) -> None:
    other = add(manager, "other")
    faults = save_settings(manager, {"model": other.id, "fields": {"name": "tiny"}})["faults"]
    assert list(faults) == ["name"]
    assert "Another model is called 'tiny'" in faults["name"]


def test_saving_can_reload(manager: Manager, record: ModelRecord, opener: FakeOpener) -> None:
    load(manager, record)
    asked = {"model": record.id, "fields": {"context_length": "64"}, "reload": True}
    assert save_settings(manager, asked) == {"faults": {}}
    settle(manager, record)
    assert opener.asked[-1].context_length == 64
    manager.unload(record.id)
    settle(manager, record)
    assert "is not loaded" in save_settings(manager, asked)["faults"][""]


@pytest.mark.parametrize("asked", [None, [], "x", {}, {"model": "1"}, {"model": 99}, {"kind": 5}], ids=str)
def test_a_browser_may_ask_anything(manager: Manager, asked: Any) -> None:
    shown = draw_sheet(manager, asked)
    assert "mi-note" in shown["body"]
    assert "mi-note" in draw_room(manager, asked)
    assert list(save_settings(manager, asked)["faults"]) == [""]


def test_fields_that_are_no_fields_change_nothing(manager: Manager, record: ModelRecord) -> None:
    for fields in (None, [], "x", {"name": 5}):
        assert save_settings(manager, {"model": record.id, "fields": fields}) == {"faults": {}}
    assert manager.record(record.id).settings == {}


def test_other_types_have_nothing_to_weigh(manager: Manager) -> None:
    song = add(manager, "song", model_type=ModelType.MUSIC)
    assert "data-room" not in draw_sheet(manager, {"kind": "settings", "model": song.id})["body"]


def test_the_block_answers_by_the_names_that_the_script_calls(manager: Manager) -> None:
    import gradio as gr

    with gr.Blocks():
        block = build(manager)
    names = {function.__name__ for function in block.server_fns}
    assert names == {"draw_sheet", "draw_room", "save_settings"}
    script = str(block.js_on_load)
    assert all(f"server.{name}(" in script for name in names)
    assert block.draw_room({"model": 99}).startswith('<p class="mi-note')
