"""What stands in an empty conversation, by what is loaded."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import make_manager

from millm.manager import Manager
from millm.records import ModelType, Source
from millm.sources.base import Origin
from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.playground_tab import draw_notice  # noqa: E402


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = make_manager(tmp_path)
    yield manager
    manager.close(1)


def loaded(manager: Manager, model_type: ModelType) -> str:
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id="acme/tiny"))
    for _ in range(2):
        job = manager.job(record.id)
        assert job is None or job.wait(5)
    manager.update(record.id, model_type=model_type)
    manager.load(record.id)
    job = manager.job(record.id)
    assert job is None or job.wait(5)
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
