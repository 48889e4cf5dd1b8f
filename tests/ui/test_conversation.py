"""What happens in a conversation, seen from its handlers."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeOpener, make_manager
from running import PATIENCE_S

from millm.feed import BEAT
from millm.manager import Manager
from millm.records import Source, Status
from millm.sources.base import Origin
from millm.ui.answers import Progress
from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui import actions, conversation  # noqa: E402
from millm.ui.conversation import NOTHING, Playground, said  # noqa: E402

PAGE: Any = SimpleNamespace(session_hash="page")


@pytest.fixture
def opener() -> FakeOpener:
    return FakeOpener(pause_s=0.3)


@pytest.fixture
def manager(tmp_path: Path, opener: FakeOpener) -> Iterator[Manager]:
    manager = make_manager(tmp_path, opener=opener)
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id="acme/tiny"))
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    yield manager
    manager.close(1)


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    for room in (conversation, actions):
        monkeypatch.setattr(room, "warn", said.append)
    return said


def load(manager: Manager) -> None:
    manager.load(manager.records()[0].id)
    while manager.records()[0].status is not Status.LOADED:
        time.sleep(0.01)


def test_a_question_without_a_model_stays_in_the_box(manager: Manager, warned: list[str]) -> None:
    playground = Playground(manager)
    assert list(playground.send(PAGE, "Hello?", [])) == [NOTHING]
    assert warned == ["No model is loaded. Load one first."]


def test_a_question_during_the_first_load_says_that_the_model_is_coming(manager: Manager, warned: list[str]) -> None:
    manager.load(manager.records()[0].id)
    assert list(Playground(manager).send(PAGE, "Hello?", [])) == [NOTHING]
    assert warned == ["tiny is still loading. Your message stays in the box: send it when it is there."]


def test_an_answer_comes_with_its_numbers(manager: Manager, warned: list[str]) -> None:
    load(manager)
    drawn = list(Playground(manager).send(PAGE, "one two", []))
    history, _ = drawn[0]
    assert history == [{"role": "user", "content": "one two"}]
    marks = [found[1] if (found := re.search('data-taken="([0-9]+)"', str(each))) else "" for _, each in drawn]
    assert {*marks} == {marks[0], ""}, "the box is emptied once: what is typed meanwhile stays"
    assert marks[0]
    assert ["data-busy" in str(each) for _, each in drawn] == [True] * (len(drawn) - 1) + [False]
    _, answer = drawn[-1][0]
    assert answer["content"] == "one two"
    assert answer["metadata"]["log"].startswith("100.0 tok/s")
    assert warned == []


def test_thoughts_stand_apart_and_close_when_they_are_done() -> None:
    thinking = said(Progress(reasoning="hm", tokens=1, thought_s=0.4))
    assert [message["metadata"] for message in thinking] == [{"title": "Thinking…", "status": "pending"}]
    thought, answer = said(Progress("Yes.", 3, reasoning="hm", thought_s=1.23, ended="stop"))
    assert thought["metadata"] == {"title": "Thought for 1.2 s", "status": "done"}
    assert answer["content"] == "Yes."


def test_an_answer_in_silence_is_drawn_as_it_is(manager: Manager, opener: FakeOpener) -> None:
    opener.engine_pause_s = 2.5 * BEAT
    load(manager)
    drawn = list(Playground(manager).send(PAGE, "one", []))
    assert len(drawn) > len({str(shown) for shown in drawn}), "the engine pauses longer than a beat"
    assert NOTHING not in drawn, "gradio would make each output anew"


def test_a_message_that_is_answered_once_more_does_not_come_from_the_box(manager: Manager) -> None:
    load(manager)
    event: Any = SimpleNamespace(index=0)
    drawn = list(Playground(manager).again(PAGE, event, [{"role": "user", "content": "one"}]))
    assert not any("data-taken" in str(stats) for _, stats in drawn)


def test_with_a_bad_schema_nothing_is_asked(manager: Manager, warned: list[str]) -> None:
    load(manager)
    fields = ("", 0.7, 64, 1, 0, None, 0, 1, 0, 0, "", True, '{"type": }')
    (drawn,) = Playground(manager).send(PAGE, "Hello?", [], *fields)
    assert drawn == NOTHING
    assert "This is not JSON" in warned[0]


def test_the_code_asks_what_send_would_ask(manager: Manager, warned: list[str]) -> None:
    load(manager)
    event: Any = SimpleNamespace(address="http://here/v1", keyed=False)
    history = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    playground = Playground(manager)

    def asked(text: str, history: list[dict[str, Any]]) -> str:
        return str(json.loads(playground.code(event, text, history).props["code"])["curl"])

    assert asked("three", history).index("two") < asked("three", history).index("three")
    assert "two" not in asked(" ", history), "without a message, what was asked last"
    assert "Hello!" in asked("", [])
    fields = ("", 0.7, 64, 1, 0, None, 0, 1, 0, 0, "", True, "[]")
    shown = json.loads(playground.code(event, "three", history, *fields).props["code"])
    assert "The JSON schema is left out" in shown["said"]
    assert "response_format" not in shown["curl"]
