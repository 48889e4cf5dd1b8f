"""What stands in an empty conversation, by what is loaded."""

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest
from fakes import make_manager
from running import PATIENCE_S

from millm.manager import Manager
from millm.records import ModelType, Source
from millm.sources.base import Origin
from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.playground_notice import draw_notice  # noqa: E402


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = make_manager(tmp_path)
    yield manager
    manager.close(1)


def loaded(manager: Manager, model_type: ModelType) -> str:
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id="acme/tiny"))
    for _ in range(2):
        job = manager.job(record.id)
        assert job is None or job.wait(PATIENCE_S)
    manager.update(record.id, model_type=model_type)
    manager.load(record.id)
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    return draw_notice(manager)


def test_a_language_model_is_asked_something(manager: Manager) -> None:
    assert "No model is loaded" in draw_notice(manager)
    assert "Ask tiny" in loaded(manager, ModelType.LLM)


def test_a_model_that_makes_embeddings_says_that_it_cannot_chat(manager: Manager) -> None:
    notice = loaded(manager, ModelType.EMBEDDING)
    assert "tiny makes embeddings and cannot chat" in notice
    assert "/v1/embeddings" in notice
    assert 'data-tab="models"' in notice
    assert "data-say" not in notice


def test_models_on_disk_are_one_click_away_and_others_are_not_offered(manager: Manager) -> None:
    for name in ("one", "two", "three", "four", "voice"):
        record = manager.download(Origin(Source.HUGGINGFACE, repo_id=f"acme/{name}"))
        job = manager.job(record.id)
        assert job is None or job.wait(PATIENCE_S)
        if name == "voice":
            manager.update(record.id, model_type=ModelType.TTS)
    notice = draw_notice(manager)
    assert re.findall("Load (\\w+)</span>", notice) == ["four", "three", "two"]
    assert notice.count('data-act="load"') == 3
    assert 'data-tab="models"' in notice


def test_the_loaded_models_defaults_come_with_the_notice(manager: Manager) -> None:
    def told() -> dict[str, object]:
        found = re.search('data-defaults="([^"]*)"', draw_notice(manager))
        assert found
        return dict(json.loads(unescape(found[1])))

    assert told()["model"] == ""
    loaded(manager, ModelType.LLM)
    record = manager.loaded()
    assert record
    manager.update(record.id, settings={"system_prompt": 'Say <b>"hi"</b>.', "generation": {"temperature": 0.3}})
    assert told()["model"] == "tiny"
    assert told()["values"][:2] == ['Say <b>"hi"</b>.', 0.3]
    assert "<b>" not in draw_notice(manager).split("mi-empty")[0]
