"""A replica without Ray: what it says, and that it stops when nobody listens."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEngine
from serving import until

from millm import replica
from millm.engines.base import ChatRequest, EmbedRequest, LoadOptions, Message
from millm.engines.plain import plain, restored_error
from millm.errors import InvalidRequest, LoadFailed
from millm.records import ModelRecord
from millm.replica import CANNOT_OPEN, ENDS, QUIET, SAYS, Replica


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    engine = FakeEngine()
    monkeypatch.setattr(replica, "own_name", lambda: "one")
    monkeypatch.setattr(replica, "_open", lambda **_: engine)
    yield engine


def asked(text: str) -> str:
    return json.dumps(plain(ChatRequest((Message("user", text),))))


async def heard(stream: AsyncIterator[str]) -> list[str]:
    return [said async for said in stream]


def items(said: list[str]) -> list[dict[str, Any]]:
    return [item for each in said for item in json.loads(each[1:])]


def test_an_answer_ends_with_the_whole(engine: FakeEngine) -> None:
    said = asyncio.run(heard(Replica("{}").chat(asked("one two three"))))
    found = items(said)
    assert found[0] == {"at": "one"}
    assert [item["event"]["text"] for item in found if "event" in item] == ["one", " two", " three"]
    assert found[-1]["answer"]["text"] == "one two three"
    assert [each[0] for each in said] == [QUIET, *[SAYS] * (len(said) - 2), ENDS]


def test_vectors_come_whole(engine: FakeEngine) -> None:
    request = json.dumps(plain(EmbedRequest(("a", "bc"))))
    answer = items(asyncio.run(heard(Replica("{}").embed(request))))[-1]["answer"]
    assert len(answer["vectors"]) == 2


def test_an_error_is_the_last_word(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise InvalidRequest("no template", field="messages")

    monkeypatch.setattr(engine, "chat", refuse)
    said = asyncio.run(heard(Replica("{}").chat(asked("x"))))
    found = restored_error(items(said)[-1]["error"])
    assert (type(found), found.details) == (InvalidRequest, {"field": "messages"})
    assert said[-1][0] == ENDS


def test_a_silent_answer_gives_signs_of_life(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "BEAT_S", 0.05)
    engine.pause_s = 0.3
    said = asyncio.run(heard(Replica("{}").chat(asked("one"))))
    assert said.count(QUIET + "[]") >= 3


def test_tokens_after_the_first_travel_together(engine: FakeEngine) -> None:
    engine.pause_s = 0.002
    said = asyncio.run(heard(Replica("{}").chat(asked("word " * 100))))
    sizes = [len(json.loads(each[1:])) for each in said if each[0] == SAYS]
    assert sizes[0] <= 2, "the first goes at once"
    assert len(said) < 50
    assert sum("event" in item for item in items(said)) == 100


def test_nobody_listens_and_the_answer_stops(engine: FakeEngine) -> None:
    engine.pause_s = 0.05

    async def leave() -> None:
        stream = Replica("{}").chat(asked("word " * 1000))
        async for said in stream:
            if said[0] == SAYS:
                break
        assert engine.running == 1
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())
    until(lambda: engine.running == 0)


def test_what_cannot_be_opened_says_so_in_its_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MODEL_CACHE_DIR", str(tmp_path))
    told = {
        "record": ModelRecord(name="tiny", source="local").to_dict(),  # type: ignore[arg-type]
        "options": plain(LoadOptions(tmp_path / "nowhere")),
        "hub": None,
        "gpus": 0,
        "most": 1,
    }
    with pytest.raises(RuntimeError) as raised:
        Replica(json.dumps(told))
    text = str(raised.value)
    assert text.startswith(CANNOT_OPEN)
    found = restored_error(json.loads(text.removeprefix(CANNOT_OPEN)))
    assert isinstance(found, LoadFailed)
    assert "does not see" in found.message
