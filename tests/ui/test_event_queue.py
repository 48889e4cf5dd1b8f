"""Events are carried out at once, though the queue seldom looks for them."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from running import PATIENCE_S
from serving import serving, until

from millm.ui import event_queue
from millm.ui.gradio_import import import_gradio

import_gradio()

import gradio as gr  # noqa: E402
from fastapi import FastAPI  # noqa: E402

SLOW_S = 60.0  # between two looks, in these tests


@pytest.fixture
def page() -> gr.Blocks:
    """A page with one listener, which answers with when it was called."""
    with gr.Blocks() as page:
        gr.Button().click(lambda: time.monotonic(), None, gr.Number())
    return page


@pytest.fixture
def url(page: gr.Blocks, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The page, served with a queue that hardly ever looks."""
    monkeypatch.setattr(event_queue, "SLEEP_S", SLOW_S)
    event_queue.tune(page)
    with serving(gr.mount_gradio_app(FastAPI(), page, path="/")) as url:
        until(lambda: page._queue._looking is not None)
        yield url


def press(url: str, session: str) -> float:
    """Seconds until the listener was called."""
    began = time.monotonic()
    asked = {"data": [], "fn_index": 0, "session_hash": session}
    httpx.post(f"{url}/gradio_api/queue/join", json=asked, timeout=PATIENCE_S).raise_for_status()
    with httpx.stream("GET", f"{url}/gradio_api/queue/data?session_hash={session}", timeout=PATIENCE_S) as lines:
        done = next(line for line in lines.iter_lines() if "process_completed" in line)
    return float(httpx.Response(200, text=done.removeprefix("data: ")).json()["output"]["data"][0]) - began


def test_an_event_wakes_the_queue(url: str) -> None:
    press(url, "first")  # from here on the next look is so far away
    assert press(url, "second") < SLOW_S / 2


def test_a_queue_is_woken_only_from_its_sleep(page: gr.Blocks) -> None:
    event_queue.tune(page)

    async def go() -> list[bool]:
        queue: Any = page._queue
        sleep, lock = asyncio.get_running_loop().create_future(), asyncio.Lock()

        async def look() -> None:
            async with lock:
                await sleep

        queue._wake()  # nobody looks yet
        queue.delete_lock, queue._looking = lock, asyncio.create_task(look())
        await asyncio.sleep(0)
        queue._wake()
        held = sleep.done()
        queue.delete_lock = asyncio.Lock()
        queue._wake()
        queue._wake()  # a second time there is nothing to end
        await queue._looking
        return [held, sleep.done()]

    assert asyncio.run(go()) == [False, True]


def test_a_queue_that_cannot_be_woken_looks_often(page: gr.Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(type(page._queue), "push")
    event_queue.tune(page)
    assert page._queue.sleep_when_free == event_queue.LOOK_S
