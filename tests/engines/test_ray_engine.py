"""The engine against a small driver that says what a test wants: no Ray is needed."""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from serving import until

from millm.engines.base import ChatRequest, EmbedRequest, Engine, LoadOptions, Message, Replica, RowCount
from millm.engines.ray import INSTALL, Cluster, cluster_of, open_ray
from millm.errors import (
    Cancelled,
    InvalidRequest,
    LoadFailed,
    ModelNotLoaded,
    RemoteUnavailable,
    StartupError,
    UnsupportedModel,
)
from millm.events import Event, Stage
from millm.records import ModelRecord
from millm.settings import Settings

ROOT = Path(__file__).parent.parent.parent
RECORD = ModelRecord(id=7, name="tiny")
DRIVER = """
import json, os, sys, time
sys.path.insert(0, {root!r})
from millm.child import voice
say = voice()
asked = json.loads(sys.stdin.readline())
def answer(n, *items): say({{"said": [(n, item) for item in items]}})
WORD = {{"event": {{"stage": "generating", "text": "word", "tokens": 1}}}}
WHOLE = {{"text": "word", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1, "first_token_s": 9.0,
    "tokens_per_s": 1.0}}
WRONG = {{"code": "VALIDATION_ERROR", "message": "no", "details": {{"x": 1}}}}
{opening}
say({{"up": 1, "of": asked["fewest"]}})
say({{"opened": {{"memory_bytes": 123, "batching": True}}}})
for line in sys.stdin:
    told = json.loads(line)
    n, text = told.get("id"), json.dumps(told)
    if "cancel" in told: print("cancelled", told["cancel"], file=sys.stderr); say({{"problem": "cancelled"}})
    elif "silent" in text: answer(n, {{"at": "a"}}, WORD)
    elif "die" in text: answer(n, WORD); os._exit(3)
    elif "wrong" in text: answer(n, {{"error": WRONG}})
    elif "embed" in text: answer(n, {{"answer": {{"vectors": ["AACAPw=="], "prompt_tokens": 2}}}})
    elif "state" in text:
        say({{"replicas": [{{"name": "a", "state": "running", "requests": 1}}], "problem": "1 of 2"}})
        answer(n, WORD, {{"answer": WHOLE}})
    else: answer(n, {{"at": "a"}}, WORD); answer(n, {{"answer": WHOLE}})
{ending}
"""


def opened(opening: str = "", ending: str = "", report: Callable[[Event], None] = lambda _: None) -> Engine:
    command = (sys.executable, "-c", DRIVER.format(root=str(ROOT), opening=opening, ending=ending))
    return open_ray(RECORD, LoadOptions(Path("/nowhere")), report, Cluster(fewest=2, most=2), command)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = opened()
    yield engine
    engine.close()


def ask(text: str) -> ChatRequest:
    return ChatRequest((Message("user", text),))


def test_opening_reports_how_many_replicas_are_up() -> None:
    events: list[Event] = []
    engine = opened(report=events.append, opening='say({"up": 0, "of": 2}); time.sleep(0.5)')
    engine.close()
    assert (engine.memory_bytes, engine.batching) == (123, True)
    assert [event.stage for event in events][:1] == [Stage.RESOLVING]
    assert {event.progress for event in events if event.stage is Stage.LOADING_WEIGHTS} == {0.0, 45.0}
    assert events[-1] == Event(Stage.WARMING_UP, 100.0)


def test_a_load_that_is_cancelled_takes_its_driver_along(tmp_path: Path) -> None:
    proof = tmp_path / "left"
    waiting = f"say({{'up': 0, 'of': 2}}); sys.stdin.read(); open({str(proof)!r}, 'w'); sys.exit()"

    def report(event: Event) -> None:
        if event.stage is Stage.LOADING_WEIGHTS:
            raise Cancelled

    with pytest.raises(Cancelled):
        opened(waiting, report=report)
    assert proof.exists(), "it was let take away what it began"


def test_what_a_replica_could_not_open_is_raised_as_its_own_error() -> None:
    with pytest.raises(UnsupportedModel, match="no such kind"):
        opened('say({"failed": {"code": "UNSUPPORTED_MODEL", "message": "no such kind", "details": {}}})')


def test_a_driver_that_dies_while_it_opens_says_its_last_words() -> None:
    with pytest.raises(LoadFailed, match="it was the raylet"):
        opened('sys.stderr.write("it was the raylet"); sys.exit(1)')


def test_answers_and_vectors_come_through(engine: Engine) -> None:
    events: list[Event] = []
    completion = engine.chat(ask("hello"), events.append)
    assert (completion.text, completion.finish_reason) == ("word", "stop")
    assert completion.first_token_s < 5, "the time that this process waited, not what the replica says"
    assert [event.text for event in events if event.text] == ["word"]
    embeddings = engine.embed(EmbedRequest(("embed",)), events.append)
    assert [list(vector) for vector in embeddings.vectors] == [[1.0]]


def test_errors_of_a_request_keep_their_kind(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="no") as raised:
        engine.chat(ask("wrong"), lambda _: None)
    assert raised.value.details == {"x": 1}


def test_a_cancel_in_a_silence_is_passed_on(engine: Engine) -> None:
    spoken: list[Event] = []

    def report(event: Event) -> None:
        spoken.append(event)
        if len(spoken) > 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.chat(ask("silent"), report)
    assert [event.text for event in spoken if event.text] == ["word"], "what was said is not said again"
    until(lambda: engine.health.problem == "cancelled")


def test_a_driver_that_dies_ends_every_request_and_says_so(engine: Engine) -> None:
    with ThreadPoolExecutor(3) as pool:
        silent = [pool.submit(engine.chat, ask("silent"), lambda _: None) for _ in range(2)]
        until(lambda: engine.rows() == RowCount(2, 0))
        with pytest.raises(RemoteUnavailable, match="Load the model again"):
            engine.chat(ask("die"), lambda _: None)
        for each in silent:
            assert isinstance(each.exception(20), RemoteUnavailable)
    assert "Load the model again" in str(engine.health.problem)
    with pytest.raises(RemoteUnavailable):
        engine.chat(ask("hello"), lambda _: None)


def test_it_tells_how_the_replicas_are(engine: Engine) -> None:
    engine.chat(ask("state"), lambda _: None)
    assert engine.health.problem == "1 of 2"
    assert engine.health.replicas == (Replica("a", "running", 1),)
    assert engine.rows() == RowCount()


def test_closed_it_answers_nobody() -> None:
    engine = opened()
    engine.close()
    with pytest.raises(ModelNotLoaded):
        engine.chat(ask("hello"), lambda _: None)


def test_a_driver_that_does_not_leave_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millm.engines.ray.LEAVE_S", 0.2)
    engine = opened(ending="time.sleep(60)")
    before = time.monotonic()
    engine.close()
    assert time.monotonic() - before < 30


def test_without_ray_the_start_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find: Any = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    with pytest.raises(StartupError, match=r"pip install -r requirements-ray\.txt"):
        cluster_of(Settings(engine="ray"), {})
    assert cluster_of(Settings(), {}) is None
    assert "requirements-ray.txt" in INSTALL


def test_the_names_of_applications_tell_installations_apart() -> None:
    names = {Cluster(owner=owner).application(RECORD) for owner in ("/one", "/two")}
    assert len(names) == 2
    assert all(name.startswith("millm-7-") for name in names)
