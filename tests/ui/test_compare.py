"""The form of a comparison: what it starts with, what it sends, and what it keeps over a reload."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeOpener, make_manager
from running import PATIENCE_S

from millm.engines.base import Sampling
from millm.manager import Manager
from millm.records import Source
from millm.sources.base import Origin
from millm.ui import actions
from millm.ui.gradio_import import import_gradio
from millm.views import Phase

import_gradio()

from millm.ui import compare  # noqa: E402

PLAIN = (0, 1, 256, 0)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = make_manager(tmp_path, opener=FakeOpener(engine_pause_s=0.01))
    for name in ("one", "two"):
        record = manager.download(Origin(Source.HUGGINGFACE, repo_id=f"acme/{name}"))
        job = manager.job(record.id)
        assert job is None or job.wait(PATIENCE_S)
    yield manager
    manager.close(1)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(actions, "warn", said.append)
    return said


def filled(manager: Manager) -> tuple[object, ...]:
    with compare.gr.Blocks():
        parts = compare.build(manager)
    props = compare.fill(manager, parts)
    assert all("choices" in props[model] for model in parts.shown[:2])
    return tuple(props[part]["value"] for part in parts.fields)


def ended(manager: Manager) -> None:
    job = manager.side_by_side._job
    assert job
    assert job.wait(PATIENCE_S)


def test_the_form_sends_what_it_says_and_keeps_it(manager: Manager) -> None:
    drawn = compare.begin(manager, " Say it ", "Be brief.", "one", 0, 1, 64, 7, "two", 0.5, 0.9, None, None)
    assert "Say it" in drawn
    ended(manager)
    run = manager.side_by_side.run
    assert run
    assert [side.sampling for side in run.sides] == [
        Sampling(temperature=0.0, top_p=1.0, max_tokens=64, clip=True, seed=7),
        Sampling(temperature=0.5, top_p=0.9, max_tokens=256, clip=True, seed=None),
    ]
    assert filled(manager) == ("Say it", "Be brief.", "one", 0, 1, 64, 7, "two", 0.5, 0.9, 256, None)


def test_mistakes_are_said_as_sentences(manager: Manager, warnings: list[str]) -> None:
    compare.begin(manager, "Say it", "", None, *PLAIN, "two", *PLAIN)
    compare.begin(manager, "Say it", "", "one", *PLAIN, "gone", *PLAIN)
    compare.begin(manager, "", "", "one", *PLAIN, "two", *PLAIN)
    assert warnings == ["Choose a model for A.", "Choose a model for B.", "Write a prompt first."]


def test_a_new_page_starts_from_the_loaded_model_and_another(tmp_path: Path, manager: Manager) -> None:
    record = manager.find("one")
    assert record
    manager.load(record.id)
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    assert filled(manager) == ("", "", "one", *PLAIN, "two", *PLAIN)
    bare = make_manager(tmp_path / "bare")
    assert filled(bare) == ("", "", None, *PLAIN, None, *PLAIN)
    bare.close(1)


def test_choices_follow_the_manager_and_so_does_the_stamp(manager: Manager) -> None:
    first, second, loaded, run = compare.draw(manager)
    assert [name for _, name in first["choices"]] == ["two", "one"]
    assert second == first
    assert "Nothing compared yet" in run["value"]
    before = compare.stamp(manager)
    assert compare.stamp(manager) == before
    record = manager.find("one")
    assert record
    manager.load(record.id)
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    assert compare.stamp(manager) != before
    assert compare.draw(manager)[2] != loaded
    assert "This unloads one while it runs" in compare.warn_of(manager, "one", "two")
    assert compare.warn_of(manager, None, "gone") == ""


def test_the_button_that_cancels_reaches_the_manager(manager: Manager) -> None:
    compare.begin(manager, "on and on " * 80, "", "one", *PLAIN, "two", *PLAIN)
    assert compare.warn_of(manager, "one", "two") == ""
    actions.act(manager, "stop-comparing", 0)
    ended(manager)
    run = manager.side_by_side.run
    assert run
    assert run.sides[1].phase is Phase.CANCELLED
    assert compare.warn_of(manager, "one", "two") != ""
