"""How requests are passed on to replicas, with streams that behave as Ray's do; no Ray is needed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from millm.errors import RemoteUnavailable
from millm.ray_requests import TRIES, Patience, Requests
from millm.replica import ENDS, QUIET, SAYS

AT = QUIET + json.dumps([{"at": "one"}])
WORD = SAYS + json.dumps([{"event": {"stage": "generating", "text": "word"}}])
WHOLE = ENDS + json.dumps([{"answer": {}}])
DEAD = RuntimeError("The actor died unexpectedly")
HURRY = Patience(wait=0.3, silence=0.3, pause=0.01, look=0.05)
SILENCE = None  # in a script: nothing is said any more


class Stream:
    """What a handle returns: says what its script holds, raises its errors, just ends where it ends."""

    def __init__(self, script: list[Any]) -> None:
        self._script = iter(script)
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        for said in self._script:
            if said is SILENCE:
                await asyncio.sleep(60)
            if isinstance(said, Exception):
                raise said
            return str(said)
        raise StopAsyncIteration

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """Gives one stream after the other."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.streams = [Stream(script) for script in scripts]
        self.asked: list[tuple[str, str]] = []

    def options(self, stream: bool, method_name: str) -> Any:
        assert stream
        self._method = method_name
        return self

    def remote(self, request: str) -> Stream:
        self.asked.append((self._method, request))
        return self.streams[len(self.asked) - 1]


def play(handle: Handle, then: Callable[[Requests], None] = lambda _: None, patience: Patience = HURRY) -> list[Any]:
    """What is said to one request."""
    said: list[dict[str, Any]] = []

    async def run() -> None:
        requests = Requests(handle, said.append, patience)
        requests.hear({"id": 1, "ask": "chat", "request": {"x": 1}})
        await asyncio.sleep(0.05)
        then(requests)
        async with asyncio.timeout(10):
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)

    asyncio.run(run())
    assert all(each["id"] == 1 for each in said)
    return [item for each in said for item in json.loads(each["said"])]


def errors(items: list[Any]) -> list[str]:
    return [item["error"]["code"] for item in items if "error" in item]


def test_what_a_replica_says_is_passed_on_to_its_end() -> None:
    handle = Handle([AT, WORD, WHOLE])
    assert [next(iter(item)) for item in play(handle)] == ["at", "event", "answer"]
    assert handle.asked == [("chat", '{"x": 1}')]


@pytest.mark.parametrize("death", [[], [DEAD]], ids=["just ends", "raises"])
def test_an_answer_that_had_begun_ends_with_an_error(death: list[Any]) -> None:
    handle = Handle([AT, WORD, *death], [AT, WORD, WHOLE])
    assert errors(play(handle)) == [RemoteUnavailable.code]
    assert len(handle.asked) == 1, "half an answer is not begun again"


@pytest.mark.parametrize("death", [[], [DEAD]], ids=["just ends", "raises"])
def test_a_request_that_had_produced_nothing_goes_to_another_replica(death: list[Any]) -> None:
    handle = Handle([AT, *death], [AT, WORD, WHOLE])
    items = play(handle)
    assert "answer" in items[-1]
    assert errors(items) == []


def test_it_is_not_tried_for_ever() -> None:
    handle = Handle([DEAD], [DEAD], [DEAD], [WHOLE])
    assert errors(play(handle)) == [RemoteUnavailable.code]
    assert len(handle.asked) == TRIES


@pytest.mark.parametrize(("script", "words"), [([SILENCE], "No replica took"), ([AT, SILENCE], "does not answer")])
def test_a_silence_without_a_sign_of_life_ends(script: list[Any], words: str) -> None:
    handle = Handle(script)
    items = play(handle)
    assert words in items[-1]["error"]["message"]
    assert handle.streams[0].cancelled


def test_while_the_head_is_away_nobody_waits_long() -> None:
    patience = Patience(away=0.2, look=0.05)
    items = play(Handle([SILENCE]), lambda requests: setattr(requests, "away", True), patience)
    assert "head does not answer" in items[-1]["error"]["message"]


def test_a_cancel_reaches_the_stream() -> None:
    handle = Handle([AT, WORD, SILENCE])
    items = play(handle, lambda requests: requests.hear({"cancel": 1}))
    assert handle.streams[0].cancelled
    assert errors(items) == []


def test_a_cancel_of_what_has_ended_is_nothing() -> None:
    items = play(Handle([WHOLE]), lambda requests: requests.hear({"cancel": 1}))
    assert items == json.loads(WHOLE[1:])


def test_it_is_known_where_requests_run() -> None:
    seen: list[dict[str, int]] = []
    play(Handle([AT, WORD, SILENCE]), lambda requests: seen.append(dict(requests.running())))
    assert seen == [{"one": 1}]
