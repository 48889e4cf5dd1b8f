"""Tokens of an answer, and two answers side by side, in a real browser: on a desk, on a phone, over a reload."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from browsing import DESK, PHONE, new_context
from fakes import FakeOpener, make_manager
from running import PATIENCE_S

from millm import ui
from millm.api import GuardPolicy, create_app
from millm.jobs import Lane
from millm.manager import Manager
from millm.records import Source
from millm.sources.base import Origin

playwright_api = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect  # noqa: E402

pytestmark = pytest.mark.slow

PROMPT = f"alpha beta {'gamma ' * 40}<i>delta</i>"  # long enough for the timer to see each phase
Open = Callable[[dict[str, int]], Page]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Two models that repeat what they are told, the first of them loaded."""
    manager = make_manager(tmp_path, opener=FakeOpener(pause_s=0.2, engine_pause_s=0.05))
    for name in ("two", "one"):
        record = manager.download(Origin(Source.HUGGINGFACE, repo_id=f"acme/{name}"))
        job = manager.job(record.id)
        assert job is None or job.wait(PATIENCE_S)
    manager.load(record.id)
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    yield manager
    manager.close(2)


@pytest.fixture
def address(manager: Manager) -> Iterator[str]:
    app = ui.mount(create_app(manager, GuardPolicy()), manager)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    serving = Lane("server").submit(lambda _: server.run())
    while not server.started:
        assert not serving.done, serving.error
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    serving.wait(PATIENCE_S)


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Open]:
    contexts, wrong = [], []

    def open_one(size: dict[str, int]) -> Page:
        contexts.append(new_context(browser, size))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        expect(page.locator("#status-bar-model")).not_to_be_empty()
        page.locator("#tab-playground-button").click()
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert wrong == []


def ask(page: Page, text: str) -> None:
    page.locator("#chat-input textarea").fill(text)
    page.locator("#send-btn").click()


def test_a_token_tells_how_likely_it_was(open_page: Open) -> None:
    page = open_page(DESK)
    ask(page, "the cat <b>sat</b>")
    page.locator("#chat-stats summary").click()
    expect(page.locator(".mi-tokens")).to_contain_text("Switch on “Show token probabilities” and ask again.")
    page.get_by_role("button", name="Switch on").click()
    expect(page.locator("#token-switch input")).to_be_checked()
    expect(page.locator("#chat-input textarea")).to_be_focused()

    ask(page, "the cat <b>sat</b>")
    tokens = page.locator(".mi-tokens-text button")
    expect(tokens).to_have_text(["the", "·cat", "·<b>sat</b>"])
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    told = page.locator(".mi-token-told")
    expect(told.locator("p")).to_contain_text("60.7%")
    expect(told.locator("p")).to_contain_text("token 2 of 3")
    expect(told.locator("tr").first).to_contain_text("·catchosen")
    expect(told.locator("tr").nth(1)).to_contain_text("·cat036.8%")
    assert told.locator("tr").count() == 7
    tokens.nth(2).click()
    expect(told.locator("p")).to_contain_text("token 3 of 3")
    assert page.locator(".mi-tokens-text [aria-current]").count() == 1
    assert page.locator(".mi-tokens-text button:not([tabindex='-1'])").count() == 1


def test_two_answers_side_by_side_over_a_reload(open_page: Open, manager: Manager) -> None:
    page = open_page(PHONE)
    expect(page.locator("#chat-input")).to_be_visible()
    expect(page.locator("#compare-form")).to_be_hidden()
    page.locator("#playground-mode input[value=Compare]").check()
    expect(page.locator("#chat-input")).to_be_hidden()
    expect(page.locator("#compare-note")).to_contain_text("This unloads one while it runs")
    page.locator("#compare-prompt textarea").fill(PROMPT)
    page.locator("#compare-tokens-a input").fill("2")
    page.locator("#compare-start").click()
    expect(page.locator(".mi-run-state")).to_contain_text("2 of 2: B is")
    expect(page.locator("#compare-start")).to_be_hidden()

    page.reload()
    expect(page.locator("#compare-form")).to_be_visible()
    first, second = page.locator("#compare-side-a"), page.locator("#compare-side-b")
    expect(page.locator(".mi-run-state")).to_have_text("Done. one is loaded again.")
    expect(page.locator("#compare-prompt textarea")).to_have_value(PROMPT)
    expect(page.locator("#compare-tokens-a input")).to_have_value("2")
    expect(first.locator(".mi-run-text")).to_have_text("alpha beta")
    expect(first).to_contain_text("cut at the limit")
    expect(second.locator(".mi-run-text")).to_have_text(PROMPT)
    expect(second).to_contain_text("100.0 tok/s")
    expect(page.locator("#compare-diff ins").last).to_contain_text("gamma <i>delta</i>")
    above, below = first.bounding_box(), second.bounding_box()
    assert above
    assert below
    assert below["y"] >= above["y"] + above["height"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    page.locator("#compare-prompt textarea").fill("on and on " * 100)
    page.locator("#compare-start").click()
    expect(second).to_contain_text("Writing")
    other = open_page(DESK)
    other.locator("#playground-mode input[value=Compare]").check()
    other.locator("#compare-cancel").click()
    for each in (page, other):
        expect(each.locator(".mi-run-state")).to_contain_text("Cancelled.")
    expect(page.locator("#compare-start")).to_be_visible()
    assert manager.loaded()

    page.locator("#compare-prompt textarea").fill("not sent yet")
    page.reload()
    expect(page.locator("#compare-prompt textarea")).to_have_value("not sent yet")
    page.wait_for_timeout(1500)
    expect(page.locator("#compare-prompt textarea")).to_have_value("not sent yet")
