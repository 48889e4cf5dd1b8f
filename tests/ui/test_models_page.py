"""The Models tab in a real browser: order, storage, details, settings, and what a load shows on its way."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import DESK, PHONE, field, new_context, open_tab
from fakes import CONFIG, FakeFetcher, FakeOpener, make_manager
from running import PATIENCE_S
from serving import serving, until

from millm.api import GuardPolicy, create_app
from millm.engines.base import ChatRequest, Message
from millm.manager import Manager
from millm.records import ModelRecord, Source
from millm.sources.base import Origin
from millm.ui import mount

playwright_api = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, Route, expect  # noqa: E402

pytestmark = pytest.mark.slow
EVIL = "</textarea><img src=x onerror=alert(1)>"
FIT = "document.documentElement.scrollWidth <= innerWidth"
SMALL = """[...document.querySelectorAll('#model-drawer button, #model-drawer input')]
    .filter((each) => each.checkVisibility() && each.getBoundingClientRect().height < 43.5).map((each) => each.id)"""


@pytest.fixture
def opener() -> FakeOpener:
    return FakeOpener()


@pytest.fixture
def manager(tmp_path: Path, opener: FakeOpener) -> Iterator[Manager]:
    manager = make_manager(tmp_path, FakeFetcher(written=json.dumps(CONFIG)), opener, drain_s=20)
    yield manager
    manager.close(1)


@pytest.fixture
def url(manager: Manager) -> Iterator[str]:
    with serving(mount(create_app(manager, GuardPolicy()), manager)) as address:
        yield address


@pytest.fixture
def show(browser: Browser, url: str) -> Iterator[Callable[..., Page]]:
    """Opens the Models tab in pages that must not fail."""
    contexts, wrong = [], []

    def open_one(size: dict[str, int] = DESK) -> Page:
        contexts.append(new_context(browser, size))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(url)
        expect(page.locator("#status-bar")).to_be_visible()
        open_tab(page, "models")
        expect(page.locator(".model-card").first).to_be_visible()
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert wrong == []


def add(manager: Manager, name: str) -> ModelRecord:
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id=f"acme/{name}"))
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    return manager.record(record.id)


def load(manager: Manager, record: ModelRecord) -> None:
    manager.load(record.id)
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)


def test_the_last_filter_counts_however_late_an_answer_is(manager: Manager, show: Callable[..., Page]) -> None:
    for name in ("beta", "alpha"):
        add(manager, name)
    page = show()
    names, search = page.locator(".model-card h2"), field(page, "search")
    held: list[Route] = []
    page.route("**/page/live?search=al&**", lambda route: held.append(route))
    search.fill("al")
    until(lambda: page.wait_for_timeout(50) or bool(held))
    search.fill("bet")
    expect(names).to_have_text(["beta"])
    with page.expect_response("**/page/live?search=al&**"):
        held[0].continue_()
    page.wait_for_timeout(300)  # nothing may happen now
    expect(names).to_have_text(["beta"])
    expect(page.locator("#storage-summary")).to_contain_text("1 of 2")


def test_cards_of_a_filter_that_were_missed_are_asked_for_again(manager: Manager, show: Callable[..., Page]) -> None:
    for name in ("beta", "alpha"):
        add(manager, name)
    page = show()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.route("**/page/live?search=bet&**", lambda route: route.fulfill(status=500, body="A bug."), times=1)
    field(page, "search").fill("bet")
    expect(page.locator(".model-card h2")).to_have_text(["beta"])
    assert any("500 A bug." in error for error in errors), errors


def test_letters_typed_at_once_are_one_question(manager: Manager, show: Callable[..., Page]) -> None:
    add(manager, "alpha")
    page = show()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "search=typed" in request.url else None)
    answers = page.evaluate("""Promise.all(['typed', 'typed o', 'typed on'].map(
        (search) => window.millm.filtered(search, 'All', 'All types', 'Newest first', '')))""")
    assert [len(answer) > 0 for answer in answers] == [False, False, True]
    assert len(asked) == 1


def test_a_page_whose_key_is_another_one_by_now_shows_the_door(manager: Manager, show: Callable[..., Page]) -> None:
    add(manager, "alpha")
    page = show()
    page.evaluate("window.marked = true")
    page.route("**/page/live?**", lambda route: route.fulfill(status=401), times=1)
    page.wait_for_function("!window.marked")
    expect(page.locator(".model-card h2")).to_have_text(["alpha"])


def test_order_storage_and_details_that_follow(manager: Manager, show: Callable[..., Page], url: str) -> None:
    for name in ("beta", "alpha"):
        add(manager, name)
    page = show()
    names = page.locator(".model-card h2")
    expect(names).to_have_text(["alpha", "beta"])
    page.locator("#sort input").click()
    page.get_by_role("option", name="Name").click()
    manager.update(1, name="zeta")
    expect(names).to_have_text(["alpha", "zeta"])
    expect(page.locator("#storage-summary .mi-legend")).to_contain_text("Free")
    assert "zeta" in str(page.locator("#storage-summary [role=img]").get_attribute("aria-label"))

    opened = page.locator("#details-btn-1")
    opened.focus()
    page.keyboard.press("Enter")
    sheet = page.locator("#model-drawer")
    expect(sheet).to_be_visible()
    expect(page.locator("#drawer-title")).to_be_focused()
    expect(sheet).to_contain_text("LlamaForCausalLM")
    expect(sheet.locator(".mi-room")).to_contain_text("Fits")
    expect(sheet.locator(".mi-files")).to_contain_text("model.safetensors")
    httpx.patch(f"{url}/api/models/1", json={"name": "eta"}, timeout=PATIENCE_S).raise_for_status()
    expect(page.locator("#drawer-title")).to_have_text("eta")
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    expect(opened).to_be_focused()
    opened.click()
    sheet.locator("[data-act=load]").click()
    expect(sheet).to_be_hidden()
    expect(page.locator("#model-status-1")).to_have_text("Loaded")


def test_settings_say_what_is_wrong_and_are_obeyed(
    manager: Manager, opener: FakeOpener, show: Callable[..., Page], url: str
) -> None:
    record = add(manager, "tiny")
    manager.update(record.id, settings={"fast_cpu": False, "system_prompt": EVIL})
    load(manager, record)
    page, sheet = show(), "#model-drawer"
    page.locator("#settings-btn-1").click()
    expect(page.locator("#set-system_prompt")).to_have_value(EVIL)
    page.locator("#set-temperature").fill("5")
    page.locator("#set-top_k").fill("1")
    page.locator("#settings-save-btn").click()
    expect(page.locator("#set-temperature-fault")).to_have_text("Temperature is a number from 0 to 2.")
    expect(page.locator("#set-temperature")).to_be_focused()
    expect(page.locator("#set-temperature")).to_have_attribute("aria-invalid", "true")
    page.keyboard.press("Escape")
    expect(page.locator("#confirm-dialog")).to_contain_text("Discard your changes?")
    page.locator("#confirm-cancel-btn").click()
    expect(page.locator(sheet)).to_be_visible()
    page.locator("#set-temperature").fill("0")
    page.locator("#set-max_tokens").fill("2")
    page.locator("#set-system_prompt").fill("Be brief.")
    expect(page.locator("#settings-reload-btn")).to_be_hidden()
    page.locator("#set-context_length").fill("64")
    expect(page.locator(f"{sheet} .mi-room")).to_contain_text("Cache for 64 tokens")
    expect(page.locator("#settings-later")).to_be_visible()
    page.locator("#settings-reload-btn").click()
    expect(page.locator(sheet)).to_be_hidden()
    expect(page.get_by_text("settings saved").first).to_be_visible()
    expect(page.locator("#model-status-1")).to_have_text("Loaded")
    assert manager.record(1).settings == {
        "fast_cpu": False,
        "context_length": 64,
        "generation": {"temperature": 0, "top_k": 1, "max_tokens": 2},
        "system_prompt": "Be brief.",
    }
    assert opener.asked[-1].context_length == 64
    body = {"model": "tiny", "messages": [{"role": "user", "content": "one two three"}]}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE_S).json()
    assert answer["choices"][0]["message"]["content"] == "one two"


def test_the_sheet_fills_a_phone_and_its_targets_are_large(manager: Manager, show: Callable[..., Page]) -> None:
    add(manager, "tiny")
    page = show(PHONE)
    assert page.evaluate(FIT)
    for kind in ("details", "settings"):
        page.locator(f"#{kind}-btn-1").click()
        expect(page.locator("#model-drawer")).to_be_visible()
        expect(page.locator("#model-drawer .mi-room")).to_be_visible()
        box = page.locator("#model-drawer").bounding_box()
        assert box is not None
        assert (round(box["width"]), round(box["height"])) == (390, 844)
        assert page.evaluate(SMALL) == []
        assert page.evaluate("document.querySelector('#drawer-body').scrollWidth <= innerWidth")
        page.locator("#drawer-close-btn").click()
        expect(page.locator("#model-drawer")).to_be_hidden()


def test_a_load_shows_whom_it_waits_for_its_steps_and_ends_when_cancelled(
    manager: Manager, opener: FakeOpener, show: Callable[..., Page]
) -> None:
    old, new = add(manager, "old"), add(manager, "new")
    opener.engine_pause_s = 0.2
    load(manager, old)
    answer = manager.chat(ChatRequest((Message("user", "word " * 100),)))
    page = show()
    page.locator(f"#load-btn-{new.id}").click()
    coming, going = page.locator(f"#model-card-{new.id}"), page.locator(f"#model-card-{old.id}")
    expect(coming).to_contain_text("Waiting for 1 pending requests to complete...")
    expect(coming.locator("[aria-current=step]")).to_have_text("Make room")
    expect(going).to_contain_text("Makes room for new. 1 request still being answered.")
    page.locator(f"#cancel-btn-{new.id}").click()
    expect(page.locator(f"#model-status-{new.id}")).to_have_text("Ready")
    expect(going.locator(f"#unload-btn-{old.id}")).to_be_visible()
    answer.cancel()
    opener.pause_s = 1.0
    page.locator(f"#load-btn-{new.id}").click()
    expect(coming.locator("[aria-current=step]")).to_have_text("Load weights")
    page.locator(f"#cancel-btn-{new.id}").click()
    expect(page.locator(f"#model-status-{new.id}")).to_have_text("Ready")


def test_a_button_that_nobody_answers_can_be_pressed_again(manager: Manager, show: Callable[..., Page]) -> None:
    add(manager, "tiny")
    page = show()
    page.route("**/gradio_api/queue/**", lambda route: None)  # as if the server were gone
    page.clock.install()
    page.locator("#load-btn-1").click()
    expect(page.locator("#load-btn-1")).to_have_attribute("aria-busy", "true")
    page.clock.fast_forward(31_000)
    expect(page.locator("#load-btn-1")).not_to_have_attribute("aria-busy", "true")


def test_too_little_memory_is_shown_before_it_is_forced(
    tmp_path: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make_manager(tmp_path, free_memory=1000)
    add(manager, "tiny")
    weighed, asked, begin = threading.Event(), list[int](), manager.load

    def slow(model_id: int, **how: Any) -> Any:
        asked.append(model_id)
        weighed.wait(PATIENCE_S)
        return begin(model_id, **how)

    monkeypatch.setattr(manager, "load", slow)
    with serving(mount(create_app(manager, GuardPolicy()), manager)) as address:
        page = new_context(browser, PHONE).new_page()
        page.goto(address)
        open_tab(page, "models")
        page.locator("#load-btn-1").click()
        expect(page.locator("#load-btn-1")).to_have_attribute("aria-busy", "true")
        page.locator("#load-btn-1").press("Enter")
        weighed.set()
        dialog = page.locator("#confirm-dialog")
        expect(dialog).to_contain_text("Warning: Model requires")
        expect(dialog.locator(".mi-room")).to_contain_text("Does not fit")
        expect(page.locator("#load-btn-1")).not_to_have_attribute("aria-busy", "true")
        assert asked == [1], "a button that is busy does nothing"
        assert page.evaluate(FIT)
        page.get_by_role("button", name="Load anyway").click()
        expect(page.locator("#model-status-1")).to_have_text("Loaded")
        page.close()
    manager.close(1)
