"""Events are carried out when they come, though nobody looks for them before."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest
from running import PATIENCE_S
from serving import serving

from millm.ui import event_queue
from millm.ui.gradio_import import import_gradio

import_gradio()

import gradio as gr  # noqa: E402
from fastapi import FastAPI  # noqa: E402


@pytest.fixture
def page() -> gr.Blocks:
    """A page with one listener, which gives back what it is given."""
    with gr.Blocks() as page:
        text = gr.Textbox()
        text.submit(lambda said: said, text, text)
    return page


@pytest.fixture
def looks(page: gr.Blocks, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows whenever the queue looks for events."""
    looks: list[int] = []
    kind = type(page._queue)
    look = kind.get_events
    monkeypatch.setattr(kind, "get_events", lambda queue: looks.append(1) or look(queue))
    return looks


@pytest.fixture
def url(page: gr.Blocks, looks: list[int]) -> Iterator[str]:
    """The page, served."""
    event_queue.tune(page)
    with serving(gr.mount_gradio_app(FastAPI(), page, path="/")) as url:
        yield url


def press(url: str, session: str) -> str:
    """What the listener answers."""
    asked = {"data": ["pressed"], "fn_index": 0, "session_hash": session}
    httpx.post(f"{url}/gradio_api/queue/join", json=asked, timeout=PATIENCE_S).raise_for_status()
    end = time.monotonic() + PATIENCE_S
    with httpx.stream("GET", f"{url}/gradio_api/queue/data?session_hash={session}", timeout=PATIENCE_S) as lines:
        for line in lines.iter_lines():
            if "process_completed" in line:
                return str(json.loads(line.removeprefix("data: "))["output"]["data"][0])
            assert time.monotonic() < end, "gradio's sign of life comes, the answer does not"
    raise AssertionError("no answer")


def test_the_queue_looks_for_events_when_they_come_and_not_before(url: str, looks: list[int]) -> None:
    time.sleep(20 * event_queue.LOOK_S)
    assert looks == []
    assert press(url, "first") == "pressed"
    time.sleep(20 * event_queue.LOOK_S)
    assert press(url, "second") == "pressed"
    assert looks == [1, 1]


def test_events_that_come_together_are_all_carried_out(url: str, looks: list[int]) -> None:
    with ThreadPoolExecutor() as pages:
        assert [*pages.map(partial(press, url), map(str, range(12)))] == ["pressed"] * 12
    assert len(looks) == 12


def test_an_event_waits_for_a_place_without_being_forgotten(page: gr.Blocks) -> None:
    page.fns[0].concurrency_limit = 1
    event_queue.tune(page)
    with serving(gr.mount_gradio_app(FastAPI(), page, path="/")) as url, ThreadPoolExecutor() as pages:
        assert [*pages.map(partial(press, url), map(str, range(4)))] == ["pressed"] * 4


def test_a_queue_that_cannot_be_woken_looks_often(page: gr.Blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(type(page._queue), "push")
    event_queue.tune(page)
    assert not isinstance(page._queue, event_queue.Woken)
    assert page._queue.sleep_when_free == event_queue.LOOK_S
