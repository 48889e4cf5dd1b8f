"""What the buttons on cards ask of the manager, and when the dialog asks back."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import make_manager

from millm.manager import Manager
from millm.records import ModelRecord, Source
from millm.sources.base import Origin
from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.actions import act, toasts  # noqa: E402


def ready(manager: Manager, name: str) -> ModelRecord:
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id=f"acme/{name}"))
    settle(manager, record)
    return record


def settle(manager: Manager, record: ModelRecord) -> None:
    job = manager.job(record.id)
    assert job is None or job.wait(5)


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


def test_too_little_memory_asks_and_then_goes_on(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, free_memory=1000)
    record = ready(manager, "tiny")
    question = json.loads(act(manager, "load", record.id) or "")
    assert question["body"].startswith("Warning: Model requires ~")
    assert (question["action"], question["model"], question["ok"]) == ("load-anyway", record.id, "Load anyway")
    assert manager.record(record.id).status == "ready"
    again = json.loads(act(manager, "load", record.id) or "")
    assert again != question, "the page shows a question only if it differs from the one before"
    assert act(manager, question["action"], question["model"]) is None
    settle(manager, record)
    assert manager.record(record.id).status == "loaded"
    manager.close(1)


# Outside of a page gradio turns a toast into a Python warning.


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
