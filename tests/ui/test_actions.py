"""What the buttons on cards ask of the manager, and when the dialog asks back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import make_manager
from running import PATIENCE_S

from millm.manager import Manager
from millm.records import ModelRecord, ModelType, Source
from millm.sources.base import Origin
from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.actions import act, toasts, verify  # noqa: E402

LARGE = 2**32  # bytes of a sparse file that takes long enough to be hashed for it to be cancelled


def ready(manager: Manager, name: str, **origin: Any) -> ModelRecord:
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id=f"acme/{name}", **origin))
    settle(manager, record)
    return record


def settle(manager: Manager, record: ModelRecord) -> None:
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = make_manager(tmp_path)
    yield manager
    manager.close(1)


def test_load_unload_and_delete(manager: Manager) -> None:
    record = ready(manager, "tiny")
    assert act(manager, "load", record.id) is None
    settle(manager, record)
    assert manager.record(record.id).status == "loaded"
    act(manager, "unload", record.id)
    settle(manager, record)
    assert manager.record(record.id).status == "ready"
    act(manager, "delete", record.id)
    assert manager.records() == []


def test_a_reload_takes_the_settings_as_they_are(manager: Manager) -> None:
    record = ready(manager, "tiny")
    act(manager, "load", record.id)
    settle(manager, record)
    manager.update(record.id, settings={"context_length": 64})
    act(manager, "reload", record.id)
    settle(manager, record)
    assert not manager.outdated(record.id)


def test_too_little_memory_asks_and_then_goes_on(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, free_memory=1000)
    record = ready(manager, "tiny")
    question = json.loads(act(manager, "load", record.id) or "")
    assert question["body"].startswith("Warning: Model requires ~")
    assert (question["action"], question["model"], question["ok"]) == ("load-anyway", record.id, "Load anyway")
    assert "Does not fit" in question["more"]
    assert manager.record(record.id).status == "ready"
    again = json.loads(act(manager, "load", record.id) or "")
    assert again != question, "the page shows a question only if it differs from the one before"
    assert act(manager, question["action"], question["model"]) is None
    settle(manager, record)
    assert manager.record(record.id).status == "loaded"
    manager.close(1)


def test_activating_and_deactivating(manager: Manager) -> None:
    record = ready(manager, "song", model_type=ModelType.MUSIC)
    act(manager, "activate", record.id)
    assert manager.active(ModelType.MUSIC).id == record.id
    act(manager, "deactivate", record.id)
    assert not manager.record(record.id).active


# Outside of a page gradio prints a toast of good news and turns others into Python warnings.


def test_a_model_can_be_deleted_where_it_came_from_too(manager: Manager, capsys: pytest.CaptureFixture[str]) -> None:
    record = ready(manager, "tiny")
    act(manager, "delete-everywhere", record.id)
    assert "tiny deleted, from Ollama too" in capsys.readouterr().out
    assert manager.records() == []


def test_saved_settings_are_said(manager: Manager, capsys: pytest.CaptureFixture[str]) -> None:
    act(manager, "saved", ready(manager, "tiny").id)
    assert "tiny: settings saved" in capsys.readouterr().out


def test_a_check_of_files_says_how_it_ended(manager: Manager, capsys: pytest.CaptureFixture[str]) -> None:
    record = ready(manager, "tiny")
    list(verify(manager, record.id))
    assert "tiny: every file is whole" in capsys.readouterr().out
    weights = Path(manager.record(record.id).cache_path or "") / "model.safetensors"
    weights.write_bytes(b"damaged".ljust(weights.stat().st_size))
    with pytest.warns(UserWarning, match="model.safetensors damaged"):
        list(verify(manager, record.id))
    assert "damaged" in (manager.record(record.id).error_message or "")


def test_a_check_that_is_cancelled_says_nothing(
    manager: Manager, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    record = ready(manager, "tiny")
    folder = Path(manager.record(record.id).cache_path or "")
    with (folder / "model.safetensors").open("r+b") as weights:
        weights.truncate(LARGE)
    meta = folder / ".millm_meta.json"
    meta.write_text(meta.read_text().replace('"size": 4000', f'"size": {LARGE}'))
    checking = verify(manager, record.id)
    next(checking)
    manager.cancel(record.id)
    list(checking)
    assert list(recwarn) == []
    assert "whole" not in capsys.readouterr().out
    assert manager.record(record.id).error_message is None


@pytest.mark.parametrize("model_id", [None, "1", {}, 99])
def test_a_check_of_nonsense_is_refused(manager: Manager, model_id: object) -> None:
    with pytest.warns(UserWarning, match=r"does not exist|o model"):
        assert list(verify(manager, model_id)) == []


def test_an_error_is_a_toast_and_nothing_else(manager: Manager) -> None:
    record = ready(manager, "tiny")
    act(manager, "load", record.id)
    settle(manager, record)
    with pytest.warns(UserWarning, match="Unload it"):
        assert act(manager, "delete", record.id) is None
    assert manager.record(record.id).status == "loaded"


@pytest.mark.parametrize(
    ("action", "model_id"), [("rm -rf", 1), (None, None), ("load", "1"), ("load", None), ({}, [])]
)
def test_nonsense_from_a_browser_is_refused(manager: Manager, action: object, model_id: object) -> None:
    with pytest.warns(UserWarning, match="does not exist"):
        assert act(manager, action, model_id) is None


def test_toasts_are_escaped_and_bugs_get_an_id() -> None:
    with pytest.warns(UserWarning, match=r"Something went wrong inside miLLM \(id [0-9a-f]{8}\)"), toasts():
        raise ValueError("secret")
    with pytest.warns(UserWarning, match="&lt;img&gt;"):
        from millm.ui.actions import warn

        warn("<img>")
