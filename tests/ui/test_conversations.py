"""Conversations in a real browser: kept, changed for each other, shown in two pages, and when storage says no."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import DESK, PHONE, new_context
from fakes import FakeEngine, FakeFetcher, make_manager
from serving import load, serving, until

from millm.api import GuardPolicy, create_app
from millm.engines.base import ChatRequest, Completion, LoadOptions
from millm.events import Event, Report, Stage
from millm.manager import Manager
from millm.records import ModelRecord, Source, Status
from millm.sources.base import Origin
from millm.ui import mount

playwright_api = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, BrowserContext, Page, expect  # noqa: E402

pytestmark = pytest.mark.slow

LONG = " ".join(f"word{number}" for number in range(400))
FULL = """
const keep = Storage.prototype.setItem;
Storage.prototype.setItem = function (key, value) {
  if (key.startsWith('millm-')) throw new DOMException('full', 'QuotaExceededError');
  keep.call(this, key, value);
};
"""
OFF = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"
Open = Callable[..., Page]


class Echo(FakeEngine):
    """Says what it hears; what is asked with "Think:" it thinks over first."""

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        if not request.messages[-1].content.startswith("Think:"):
            return super().chat(request, report)
        for place, word in enumerate(("hm ", "well")):
            time.sleep(0.3)
            report(Event(Stage.GENERATING, reasoning=word, tokens=place + 1))
        report(Event(Stage.GENERATING, text="Thought.", tokens=3))
        return Completion("Thought.", "stop", 5, 3, 0.3, 4.0, reasoning="hm well")


def opener(record: ModelRecord, options: LoadOptions, report: Report) -> Echo:
    return Echo(0.02)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = make_manager(tmp_path, FakeFetcher(), opener)
    load(manager)
    yield manager
    manager.close(1)


@pytest.fixture
def url(manager: Manager) -> Iterator[str]:
    with serving(mount(create_app(manager, GuardPolicy()), manager)) as url:
        yield url


@pytest.fixture
def open_context(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Opens browser profiles of their own whose pages collect what goes wrong in them."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def open_one(size: dict[str, int] = DESK, script: str = "") -> BrowserContext:
        contexts.append(new_context(browser, size))
        if script:
            contexts[-1].add_init_script(script)
        contexts[-1].on("weberror", lambda error: wrong.append(str(error.error)))
        return contexts[-1]

    yield open_one
    for context in contexts:
        context.close()
    assert wrong == []


def open_playground(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    page.locator("#tab-playground-button").click()
    expect(page.locator("#chat-input textarea")).to_be_visible()
    return page


def ask(page: Page, text: str, whole: bool = True) -> None:
    asked = questions(page).count()
    page.locator("#chat-input textarea").fill(text)
    page.locator("#send-btn").click()
    expect(page.locator("#chat-input textarea")).to_have_value("")
    expect(questions(page)).to_have_count(asked + 1)
    if whole:
        expect(page.locator("#send-btn")).to_be_visible()
        expect(page.locator("#chat-stats")).to_contain_text("prompt tokens")


def kept(page: Page) -> list[dict[str, Any]]:
    """The conversations in localStorage, oldest first."""
    script = "Object.entries(localStorage).filter(([key]) => key.startsWith('millm-chat-')).map(([, chat]) => chat)"
    whole = (json.loads(chat) for chat in page.evaluate(script) if chat != "{")
    return sorted(whole, key=lambda chat: chat["created"])


def spoken(chat: dict[str, Any]) -> list[str]:
    """What was said in a conversation."""
    return [message["content"][0]["text"] for message in chat["messages"]]


def settled(page: Page) -> None:
    """Waits until no page writes any more, and this one has heard of it all."""
    before: list[dict[str, Any]] = []
    while before != kept(page):
        before = kept(page)
        page.wait_for_timeout(1000)


def questions(page: Page) -> Any:
    return page.locator("#chat-log [data-testid=user]")


def in_drawer(page: Page, title: str, button: str) -> None:
    if not page.locator("#chats-drawer").is_visible():
        page.locator("#chats-btn").click()
    page.locator("#chats-list li", has_text=title).locator(f"[data-chat={button}]").click()


def test_conversations_are_kept_changed_and_listed(
    open_context: Callable[..., BrowserContext], url: str, tmp_path: Path
) -> None:
    page = open_playground(open_context(), url)
    ask(page, "the first question")
    expect(page.locator("#chats-title")).to_have_text("the first question")
    ask(page, "and one more")
    expect(page.locator("#chat-log .mi-stats")).to_have_count(1)
    expect(page.locator("#chat-log .mi-stats")).to_contain_text("3 answer tokens")

    page.reload()
    expect(questions(page)).to_have_text(["the first question", "and one more"])
    expect(page.locator("#chat-stats")).to_contain_text("3 answer tokens")
    expect(page.locator("#chat-log .mi-stats")).to_have_count(1)

    page.locator("#chats-new-btn").click()
    expect(questions(page)).to_have_count(0)
    expect(page.locator("#chats-title")).to_have_text("New conversation")
    ask(page, "Think: <b>twice</b>")
    expect(page.locator("#chat-log .thought-group")).to_contain_text("Thought for 0.")
    expect(page.locator("#chat-log")).not_to_contain_text("hm well")  # it is folded away

    page.evaluate("localStorage.setItem('millm-chat-broken', '{')")
    in_drawer(page, "the first question", "rename")
    expect(page.locator("#chats-foot")).to_contain_text("1 cannot be read")
    page.locator("#name-field").fill("Words & <i>more</i>")
    page.keyboard.press("Enter")
    expect(page.locator("#chats-list li b")).to_have_text(["Think: <b>twice</b>", "Words & <i>more</i>"])
    with page.expect_download() as download:
        in_drawer(page, "Think:", "export")
    download.value.save_as(tmp_path / "export.json")
    exported = json.loads((tmp_path / "export.json").read_text())
    assert exported["messages"][1]["reasoning"] == "hm well"
    assert exported["messages"][1]["content"] == "Thought."
    assert (exported["model"], exported["settings"]["Temperature"]) == ("tiny", 0.7)

    in_drawer(page, "Words", "open")
    expect(questions(page)).to_have_count(2)
    expect(page.locator("#chats-drawer")).to_be_hidden()
    in_drawer(page, "Words", "delete")
    page.locator("#confirm-cancel-btn").click()
    assert len(kept(page)) == 2, "the broken one is left alone"
    in_drawer(page, "Words", "delete")
    page.locator("#confirm-ok-btn").click()
    expect(page.locator("#chats-list li")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(questions(page)).to_have_count(0)
    until(lambda: [chat["title"] for chat in kept(page)] == ["Think: <b>twice</b>"])


def test_regenerate_edit_undo_and_stop_are_kept_too(open_context: Callable[..., BrowserContext], url: str) -> None:
    page = open_playground(open_context(), url)
    ask(page, "one two")
    page.locator("#chat-log [data-testid=bot]").evaluate("answer => answer.classList.add('first-answer')")
    page.get_by_role("button", name="Regenerate").or_(page.get_by_label("Retry")).first.click()
    expect(page.locator(".first-answer")).to_have_count(0)
    expect(page.locator("#chat-log [data-testid=bot]")).to_have_text("one two")
    expect(page.locator("#send-btn")).to_be_visible()
    settled(page)

    page.locator("#chat-log .user-row").hover()
    page.get_by_label("Edit").first.click()
    page.locator("#chat-log .user-row textarea").fill("three four five")
    page.get_by_label("Submit").first.click()
    expect(page.locator("#chat-log [data-testid=bot]")).to_have_text("three four five")
    expect(page.locator("#send-btn")).to_be_visible()
    until(lambda: [spoken(chat) for chat in kept(page)] == [["three four five"] * 2])

    page.get_by_label("Undo").first.click()
    expect(page.locator("#chat-input textarea")).to_have_value("three four five")
    expect(questions(page)).to_have_count(0)

    ask(page, LONG, whole=False)
    expect(page.locator("#stop-btn")).to_be_visible()
    expect(page.locator("#chat-input textarea")).to_have_value("")
    page.locator("#chat-input textarea").fill("written meanwhile")
    expect(page.locator("#chat-log [data-testid=bot]")).to_contain_text("word3")
    expect(page.locator("#chat-input textarea")).to_have_value("written meanwhile")
    until(lambda: len(spoken(kept(page)[0])) >= 1)
    page.reload()
    expect(questions(page)).to_have_count(1)
    expect(page.locator("#chat-log [data-testid=bot]")).to_contain_text("word3")

    ask(page, LONG, whole=False)
    expect(page.locator("#stop-btn")).to_be_visible()
    page.locator("#chats-new-btn").click()  # it stops the answer, keeps what is there, and goes on
    expect(questions(page)).to_have_count(0)
    ask(page, "after that")
    until(lambda: [spoken(chat) for chat in kept(page)[1:]] == [["after that"] * 2])
    assert len(spoken(kept(page)[0])) >= 3


def test_two_pages_show_the_same_and_never_write_over_each_other(
    open_context: Callable[..., BrowserContext], url: str
) -> None:
    context = open_context()
    one = open_playground(context, url)
    ask(one, "from one")
    two = open_playground(context, url)
    expect(questions(two)).to_have_text(["from one"])
    ask(two, "from two")
    expect(questions(one)).to_have_text(["from one", "from two"])

    settled(one)
    one.evaluate(
        "const key = Object.keys(localStorage).find((key) => key.startsWith('millm-chat-'));"
        "const chat = JSON.parse(localStorage.getItem(key));"
        "localStorage.setItem(key, JSON.stringify({ ...chat, rev: 'elsewhere' }));"
    )  # no page hears of what it writes itself
    ask(one, "once more")
    expect(one.locator("#chats-note")).to_contain_text("kept as a copy")
    until(lambda: sorted(len(spoken(chat)) for chat in kept(one)) == [4, 6])

    two.locator("#chats-new-btn").click()
    ask(two, "apart")
    expect(questions(one)).to_have_count(3)
    in_drawer(two, "apart", "delete")
    two.locator("#confirm-ok-btn").click()
    expect(questions(two)).to_have_count(0)
    until(lambda: len(kept(one)) == 2)


@pytest.mark.parametrize(
    ("script", "sentence"), [(FULL, "no room left"), (OFF, "keeps nothing")], ids=["full", "off"]
)
def test_a_storage_that_says_no_is_named_and_chat_goes_on(
    open_context: Callable[..., BrowserContext], url: str, script: str, sentence: str
) -> None:
    page = open_playground(open_context(PHONE, script), url)
    expect(page.locator("#chats-note")).to_contain_text(sentence)
    ask(page, "anybody there")
    expect(page.locator("#chat-log [data-testid=bot]")).to_have_text("anybody there")
    expect(page.locator("#chats-note")).to_contain_text(sentence)
    page.locator("#theme-btn").click()
    page.locator("#chats-btn").click()
    expect(page.locator("#chats-foot")).to_contain_text("Nothing yet")
    page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    expect(page.locator("#chat-input")).to_be_in_viewport()


def test_controls_follow_the_model_until_somebody_changes_them(
    open_context: Callable[..., BrowserContext], url: str, manager: Manager
) -> None:
    other = manager.download(Origin(Source.HUGGINGFACE, "acme/other"))
    while manager.record(other.id).status is not Status.READY:
        time.sleep(0.01)
    manager.update(other.id, settings={"system_prompt": "Be kind.", "generation": {"temperature": 0.2, "top_p": 0.5}})
    page = open_playground(open_context(), url)
    temperature = page.locator("#temperature input[type=number]")
    expect(temperature).to_have_value("0.7")
    expect(page.locator("#changed-note")).to_have_text("These are the defaults of tiny.")
    page.locator("#system-prompt textarea").fill("Mine.")
    expect(page.locator("#preset-select option:checked")).to_have_text("Written here")
    expect(page.locator("#changed-note")).to_contain_text("You changed System prompt")

    manager.load(other.id)
    expect(temperature).to_have_value("0.2")
    expect(page.locator("#system-prompt textarea")).to_have_value("Mine.")
    expect(page.locator("#changed-note")).to_contain_text("Kept when other was loaded")
    page.locator("#preset-save-btn").click()
    page.locator("#name-field").fill("My own")
    page.locator("#name-ok-btn").click()
    expect(page.locator("#preset-select option:checked")).to_have_text("My own")
    page.locator("#reset-btn").click()
    expect(page.locator("#system-prompt textarea")).to_have_value("Be kind.")
    expect(page.locator("#preset-select option:checked")).to_have_text("The model's own")
    page.locator("#preset-select").select_option("My own")
    ask(page, "to be kept")
    page.reload()
    expect(page.locator("#system-prompt textarea")).to_have_value("Mine.")
    expect(page.locator("#preset-select option:checked")).to_have_text("My own")

    page.get_by_role("button", name="Structured answer").click()
    schema = page.locator("#schema-input textarea")

    def filled() -> bool:
        schema.fill('{"type": "objekt"}')
        page.wait_for_timeout(500)
        return schema.input_value() != ""

    until(filled)  # gradio may still set a field that it has just drawn
    expect(page.locator("#schema-note")).to_contain_text('"objekt" is no type')
    page.locator("#schema-input textarea").fill('{"type": "object"}')
    page.locator("#schema-switch input").check()
    expect(page.locator("#schema-note")).to_be_empty()
    page.locator("#chat-input textarea").fill("as code")
    page.locator("#code-btn").click()
    expect(page.locator("#code-python")).to_contain_text("'content': 'as code'")
    expect(page.locator("#code-python")).to_contain_text("'schema': {'type': 'object'}")
    expect(page.locator("#code-curl")).to_contain_text(f"{url}/v1/chat/completions")
    page.locator("#copy-curl-btn").click()
    assert page.locator("#copy-curl-btn").get_attribute("data-copy") == page.locator("#code-curl").text_content()
