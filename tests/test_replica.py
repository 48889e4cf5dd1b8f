"""A replica without Ray: what it says, and that it stops when nobody listens."""

import asyncio
import json
from collections.abc import Iterator
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
from millm.replica import AGAIN, CANNOT_OPEN, ENDS, SAYS, Line, Replica


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEngine]:
    engine = FakeEngine()
    monkeypatch.setattr(replica, "own_name", lambda: "one")
    monkeypatch.setattr(replica, "_open", lambda **_: engine)
    yield engine


KEY = 7


def asked(text: str) -> str:
    return json.dumps({"key": KEY, "request": plain(ChatRequest((Message("user", text),)))})


def told(method: str, request: str) -> tuple[list[str], list[list[Any]]]:
    """What one request's own stream says, and the messages of the line up to its end."""
    messages: list[list[Any]] = []

    async def run() -> list[str]:
        one = Replica("{}")

        async def hear() -> None:
            async for said in one.listen("one"):
                messages.append(json.loads(said))
                if any(kind == ENDS for _, kind, _ in messages[-1]):
                    return

        async with asyncio.timeout(20):
            hearing = asyncio.create_task(hear())
            own = [said async for said in getattr(one, method)(request)]
            await hearing
        return own

    return asyncio.run(run()), messages


def items(messages: list[list[Any]]) -> list[dict[str, Any]]:
    assert {key for message in messages for key, *_ in message} == {KEY}
    return [item for message in messages for *_, item in message]


def test_an_answer_ends_with_the_whole(engine: FakeEngine) -> None:
    own, messages = told("chat", asked("one two three"))
    assert own == ["one"], "the replica's name"
    found = items(messages)
    assert [item["event"]["text"] for item in found if "event" in item] == ["one", " two", " three"]
    assert found[-1]["answer"]["text"] == "one two three"
    assert [kind for message in messages for _, kind, _ in message] == [*[SAYS] * 3, ENDS]


def test_vectors_come_whole(engine: FakeEngine) -> None:
    request = json.dumps({"key": KEY, "request": plain(EmbedRequest(("a", "bc")))})
    assert len(items(told("embed", request)[1])[-1]["answer"]["vectors"]) == 2


def test_an_error_is_the_last_word(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise InvalidRequest("no template", field="messages")

    monkeypatch.setattr(engine, "chat", refuse)
    found = restored_error(items(told("chat", asked("x"))[1])[-1]["error"])
    assert (type(found), found.details) == (InvalidRequest, {"field": "messages"})


def test_a_silent_answer_gives_signs_of_life(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "BEAT_S", 0.05)
    engine.pause_s = 0.3
    assert told("chat", asked("one"))[1].count([]) >= 3


def test_tokens_after_the_first_travel_together(engine: FakeEngine) -> None:
    engine.pause_s = 0.002
    messages = [message for message in told("chat", asked("word " * 100))[1] if message]
    assert len(messages[0]) <= 2, "the first goes at once"
    assert len(messages) < 50
    assert sum("event" in item for item in items(messages)) == 100


def test_answers_share_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "SLOWEST_S", 20.0)

    async def run() -> list[Any]:
        line, loop = Line(), asyncio.get_running_loop()
        line.answers = 1000
        heard = line.listen()
        line.say(loop, 1, SAYS, {}, at_once=True)
        first = json.loads(await anext(heard))
        for key in (1, 2):
            line.say(loop, key, SAYS, {}, at_once=False)
        line.say(loop, 2, ENDS, {}, at_once=True)
        return [first, json.loads(await anext(heard))]

    async def bounded() -> list[Any]:
        async with asyncio.timeout(10):
            return await run()

    assert asyncio.run(bounded()) == [[[1, SAYS, {}]], [[1, SAYS, {}], [2, SAYS, {}], [2, ENDS, {}]]]


def test_what_is_said_while_nobody_listens_waits_for_the_next_who_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "LONG", 1)

    async def run() -> list[Any]:
        line, loop = Line(), asyncio.get_running_loop()
        line.say(loop, 1, SAYS, {}, at_once=True)
        first = [json.loads(said) async for said in line.listen()]
        line.say(loop, 2, SAYS, {}, at_once=True)
        return [*first, *[json.loads(said) async for said in line.listen()]]

    assert asyncio.run(run()) == [[[1, SAYS, {}]], json.loads(AGAIN), [[2, SAYS, {}]], json.loads(AGAIN)]


def test_who_listened_before_another_one_came_takes_nothing_from_it() -> None:
    async def run() -> list[list[str]]:
        line, loop = Line(), asyncio.get_running_loop()

        async def hear() -> list[str]:
            return [said async for said in line.listen() if said != "[]"]

        first = asyncio.create_task(hear())
        await asyncio.sleep(0.01)
        second = asyncio.create_task(hear())
        await asyncio.sleep(0.01)
        line.say(loop, 1, SAYS, {}, at_once=True)
        await asyncio.sleep(0.05)
        third = asyncio.create_task(hear())
        await asyncio.sleep(0.01)
        line.say(loop, 2, SAYS, {}, at_once=True)
        heard = [await first, await second]
        third.cancel()
        return heard

    assert asyncio.run(run()) == [[], [json.dumps([[1, SAYS, {}]])]]


def test_a_request_that_is_left_stops(engine: FakeEngine) -> None:
    engine.pause_s = 0.05

    async def leave() -> None:
        stream = Replica("{}").chat(asked("word " * 1000))
        await anext(stream)
        await asyncio.to_thread(until, lambda: engine.running == 1)
        await stream.aclose()  # type: ignore[attr-defined]
        await asyncio.to_thread(until, lambda: engine.running == 0)  # a loop that has ended would stop it, too

    asyncio.run(leave())
    assert engine.running == 0


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
