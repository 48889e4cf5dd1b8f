"""Loops of a thread's own: they give up in time, and end at once when somebody says so."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
from serving import AT_ONCE_S

from millm.errors import Cancelled
from millm.loops import attend, in_own_loop, within


def test_within_returns_raises_and_gives_up() -> None:
    assert within(1, lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        within(1, lambda: 1 // 0)
    release = threading.Event()
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        within(0.05, lambda: release.wait(20))
    assert time.monotonic() - start < AT_ONCE_S
    release.set()


async def slowly(pause_s: float) -> AsyncIterator[int]:
    yield 1
    await asyncio.sleep(pause_s)
    yield 2


def test_a_silent_stream_is_attended_to() -> None:
    heard: list[int] = []
    ticks: list[int] = []
    in_own_loop(attend(slowly(0.6), heard.append, lambda: ticks.append(len(heard))))
    assert (heard, ticks) == ([1, 2], [1, 1])


def test_what_a_listener_raises_ends_it() -> None:
    def stop() -> None:
        raise Cancelled

    start = time.monotonic()
    with pytest.raises(Cancelled):
        in_own_loop(attend(slowly(20), lambda _: None, stop))
    assert time.monotonic() - start < AT_ONCE_S


def test_what_was_left_half_read_is_closed_with_the_loop() -> None:
    closed: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append("numbers")

    left = numbers()

    async def read_one() -> int:
        return await anext(left)

    assert in_own_loop(read_one()) == 1
    assert closed == ["numbers"]
