"""Listening to replicas, with a line that says what a test puts in; no Ray is needed."""

import asyncio
import json
from typing import Any

import pytest
from ray_streams import DEAD, Handle

from millm.errors import RemoteUnavailable
from millm.ray_lines import Lines, Patience, ReplicaDied
from millm.replica import AGAIN

HURRY = Patience(silence=0.3, away=0.1, look=0.02)
WORD = [1, "s", {"event": {}}]


def listen(*said: str | Exception, away: bool = False) -> tuple[Handle, list[Any], Exception]:
    """What is heard of a replica up to the end, and why it ended."""
    handle, heard = Handle(), list[Any]()

    async def run() -> Exception:
        gone = asyncio.get_running_loop().create_future()
        lines = Lines(handle, HURRY, heard.extend, lambda replica, why: gone.set_result((replica, why)))
        lines.away = away
        for each in said:
            handle.line("one").said.put_nowait(each)
        lines.listen("one")
        lines.listen("one")
        async with asyncio.timeout(5):
            replica, why = await gone
        assert replica == "one"
        assert isinstance(why, Exception)
        return why

    return handle, heard, asyncio.run(run())


@pytest.mark.parametrize("end", [StopAsyncIteration(), DEAD], ids=["just ends", "raises"])
def test_a_line_is_heard_to_its_end(end: Exception) -> None:
    handle, heard, why = listen(json.dumps([WORD, WORD]), "[]", json.dumps([WORD]), end)
    assert heard == [WORD] * 3
    assert isinstance(why, ReplicaDied)
    assert handle.listened == ["one"], "one line for all"


def test_a_line_that_begins_anew_is_the_same_to_who_hears() -> None:
    handle, heard, _ = listen(json.dumps([WORD]), AGAIN, json.dumps([WORD]), DEAD)
    assert heard == [WORD, WORD]
    assert handle.listened == ["one", "one"]


@pytest.mark.parametrize(("away", "words"), [(False, "has died or does not answer"), (True, "head does not answer")])
def test_a_silence_without_a_sign_of_life_ends(away: bool, words: str) -> None:
    handle, _, why = listen("[]", away=away)
    assert isinstance(why, RemoteUnavailable)
    assert words in why.message
    assert handle.line("one").cancelled


def test_a_replica_that_was_gone_can_be_listened_to_again() -> None:
    handle, gone = Handle(), list[str]()

    async def run() -> None:
        lines = Lines(handle, HURRY, lambda _: None, lambda replica, _: gone.append(replica))
        for _ in range(2):
            handle.line("one").said.put_nowait(DEAD)
            lines.listen("one")
            await asyncio.sleep(0.05)

    asyncio.run(run())
    assert gone == handle.listened == ["one", "one"]
