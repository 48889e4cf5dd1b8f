"""How requests are passed on to replicas, with streams that behave as Ray's do; no Ray is needed."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from ray_streams import AT, DEAD, MOMENT, SILENCE, WHOLE, WORD, Handle, LineEnds

from millm.errors import RemoteUnavailable
from millm.ray_lines import Patience
from millm.ray_requests import TRIES, Requests

HURRY = Patience(wait=0.3, silence=5, pause=0.01, look=0.05)
DEATHS = pytest.mark.parametrize(
    "death", [[LineEnds()], [LineEnds(DEAD)], [DEAD]], ids=["its line just ends", "its line raises", "Ray says so"]
)


def play(handle: Handle, then: Callable[[Requests], None] = lambda _: None, patience: Patience = HURRY) -> list[Any]:
    """What is said to one request."""
    said: list[dict[str, Any]] = []

    async def run() -> None:
        requests = Requests(handle, said.append, patience)
        requests.hear({"id": 1, "ask": "chat", "request": {"x": 1}})
        await asyncio.sleep(0.05)
        then(requests)
        async with asyncio.timeout(10):
            while requests._tasks:
                await asyncio.wait(requests._tasks.values())
                await asyncio.sleep(0)

    asyncio.run(run())
    items = [pair for each in said for pair in each["said"]]
    assert all(number == 1 for number, _ in items)
    return [item for _, item in items]


def errors(items: list[Any]) -> list[str]:
    return [item["error"]["code"] for item in items if "error" in item]


def test_what_a_replica_says_is_passed_on_to_its_end() -> None:
    handle = Handle([AT, WORD, WHOLE])
    assert [next(iter(item)) for item in play(handle)] == ["at", "event", "answer"]
    assert handle.asked == [("chat", {"x": 1})]
    assert not handle.requests[0].cancelled, "it ends by itself"


@DEATHS
def test_an_answer_that_had_begun_ends_with_an_error(death: list[Any]) -> None:
    handle = Handle([AT, WORD, MOMENT, *death, SILENCE], [AT, WORD, WHOLE])
    assert errors(play(handle)) == [RemoteUnavailable.code]
    assert len(handle.asked) == 1, "half an answer is not begun again"


@DEATHS
def test_a_request_that_had_produced_nothing_goes_to_another_replica(death: list[Any]) -> None:
    handle = Handle([AT, *death, SILENCE], [AT, WORD, WHOLE])
    items = play(handle)
    assert "answer" in items[-1]
    assert errors(items) == []


def test_a_request_that_no_replica_took_before_its_stream_ended_goes_to_another() -> None:
    items = play(Handle([], [AT, WHOLE]))
    assert [next(iter(item)) for item in items] == ["at", "answer"]


def test_what_a_replica_says_of_a_request_that_went_elsewhere_is_not_heard() -> None:
    handle = Handle([AT, DEAD], [AT, WHOLE])
    handle.line(AT).said.put_nowait('[[99, "s", {"event": {}}]]')
    assert [next(iter(item)) for item in play(handle)] == ["at", "at", "answer"]


def test_it_is_not_tried_for_ever() -> None:
    handle = Handle([DEAD], [DEAD], [DEAD], [AT, WHOLE])
    assert errors(play(handle)) == [RemoteUnavailable.code]
    assert len(handle.asked) == TRIES


def test_a_request_that_no_replica_takes_ends() -> None:
    handle = Handle([SILENCE])
    assert "No replica took" in play(handle)[-1]["error"]["message"]
    assert handle.requests[0].cancelled


def test_while_the_head_is_away_nobody_waits_long() -> None:
    patience = Patience(away=0.2, look=0.05)
    items = play(Handle([SILENCE]), lambda requests: setattr(requests.lines, "away", True), patience)
    assert "head does not answer" in items[-1]["error"]["message"]


def test_a_cancel_reaches_the_stream() -> None:
    handle = Handle([AT, WORD, SILENCE])
    items = play(handle, lambda requests: requests.hear({"cancel": 1}))
    assert handle.requests[0].cancelled
    assert errors(items) == []


def test_a_cancel_of_what_has_ended_is_nothing() -> None:
    items = play(Handle([AT, WHOLE]), lambda requests: requests.hear({"cancel": 1}))
    assert items == [{"at": AT}, {"answer": {}}]


def test_it_is_known_where_requests_run() -> None:
    seen: list[dict[str, int]] = []

    def look(requests: Requests) -> None:
        seen.append(dict(requests.running()))
        requests.hear({"cancel": 1})

    play(Handle([AT, WORD, SILENCE]), look)
    assert seen == [{AT: 1}]
