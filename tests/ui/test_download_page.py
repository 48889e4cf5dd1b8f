"""The Download tab in a real browser: typing, choosing, sliding, waiting, and what is said on other tabs."""

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from browsing import PHONE, field, open_tab
from hub import GRANTED, Hub
from running import PATIENCE_S, App
from test_page import download

playwright_api = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Page, expect  # noqa: E402

from millm.records import NAME  # noqa: E402
from millm.sources.huggingface import REPO_ID  # noqa: E402
from millm.sources.ollama import PART  # noqa: E402
from millm.sources.url import CHECKSUM  # noqa: E402
from millm.ui import words  # noqa: E402

pytestmark = pytest.mark.slow
Open = Callable[..., Page]
SCRIPT = Path(__file__).parents[2] / "millm" / "ui" / "download.js"


def weighed(app: App, repo: str, tokens: int) -> dict[str, str]:
    """What the API says that each form takes with a context of so many tokens, once that is counted."""
    body, found = {"repo_id": repo, "context_length": tokens}, {"": {"provenance": ""}}
    while {sizes["provenance"] for sizes in found.values()} != {"exact"}:
        found = httpx.post(f"{app.url}/api/models/preview", json=body, timeout=PATIENCE_S).json()["data"][
            "estimated_sizes"
        ]
    return {form: words.size(sum(sizes["memory_parts"].values())) for form, sizes in found.items()}


def shown(page: Page) -> dict[str, str]:
    rows = page.locator(".mi-cost")
    return dict(
        zip(rows.locator("b").all_inner_texts(), rows.locator(".mi-cost-size").all_inner_texts(), strict=True)
    )


def test_the_page_and_the_sources_have_the_same_rules() -> None:
    script = SCRIPT.read_text()
    for pattern in (REPO_ID.pattern, PART, CHECKSUM.pattern, NAME.pattern.replace("\\", "\\\\")):
        assert f"'{pattern}'" in script, pattern


def test_typing_suggests_previews_and_says_what_is_wrong(app: App, open_page: Open, hub: Hub) -> None:
    page = open_page(app)
    repo, card = field(page, "repo-input"), page.locator("#preview-card")

    # the list under the field, by keyboard alone
    repo.press_sequentially("acme/t", delay=20)
    options = page.locator("#repo-matches [role=option]")
    expect(options).to_have_count(1)
    expect(repo).to_have_attribute("aria-expanded", "true")
    repo.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    expect(repo).to_have_attribute("aria-activedescendant", str(options.first.get_attribute("id")))
    repo.press("Enter")
    expect(options).to_have_count(0)
    expect(repo).to_have_value("acme/tiny-qwen3")

    # the preview comes by itself, the choices say what they take, and the slider moves the figures
    expect(card.locator(".mi-fit")).to_contain_text("Fits in")
    expect(page.locator("#quant-select label").first).to_contain_text("fits")
    slider = page.locator("#context-slider")
    length = int(str(slider.get_attribute("max")))
    before = shown(page)
    slider.focus()
    slider.press("Home")
    expect(card.locator("output")).to_have_text("256")
    assert "≈" in card.locator(".mi-costs").inner_text(), "worked out until it is counted"
    expect(card.locator(".mi-costs")).not_to_contain_text("≈")
    for form, size in weighed(app, "acme/tiny-qwen3", 256).items():
        expect(card.locator(".mi-cost", has_text=form).locator(".mi-cost-size")).to_have_text(size)
    assert shown(page) != before or length == 0
    expect(slider).to_be_focused()
    expect(slider).to_have_attribute("aria-valuetext", re.compile("256 tokens: .* fits"))

    # what is unfinished or unknown is a remark, what is wrong an error, and Download says so instead of asking
    note = page.locator("#repo-input-note")
    repo.fill("acme/tin")
    expect(note).to_contain_text("does not exist")
    expect(repo).not_to_have_attribute("aria-invalid", "true")
    repo.fill("two words")
    page.locator("#download-btn").click()
    expect(note).to_contain_text("owner/name")
    expect(repo).to_have_attribute("aria-invalid", "true")
    expect(repo).to_have_attribute("aria-describedby", "repo-input-note")
    expect(repo).to_be_focused()
    assert httpx.get(f"{app.url}/api/models", timeout=PATIENCE_S).json()["data"] == []
    repo.fill("acme/tiny-qwen3")
    expect(note).to_be_empty()
    field(page, "name-input").fill("no blanks")
    field(page, "name-input").blur()
    expect(page.locator("#name-input-note")).to_contain_text("Letters, digits")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_gated_model_asks_for_a_token(app: App, open_page: Open, hub: Hub) -> None:
    hub.gated.add("acme/bigger-llama")
    try:
        page = open_page(app, PHONE)
        expect(page.locator("#token-input")).to_have_count(0)
        field(page, "repo-input").fill("acme/bigger-llama")
        expect(page.locator("#token-input")).to_be_visible()
        field(page, "token-input").fill(GRANTED)
        expect(page.locator("#preview-card")).to_contain_text("open to the access token")
        page.locator("#trust-way").click()
        expect(page.locator("#trust-checkbox")).to_contain_text("Warning")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        hub.gated.discard("acme/bigger-llama")


def test_an_end_is_told_once_everywhere_and_a_failure_stays(app: App, open_page: Open, hub: Hub) -> None:
    page, second = open_page(app), open_page(app, PHONE)
    open_tab(second, "playground")
    download(page, "acme/tiny-qwen3")
    for each in (page, second):
        expect(each.get_by_text("tiny-qwen3 is ready. Load it").first).to_be_visible()
    second.reload()
    expect(second.locator("#status-bar")).to_be_visible()
    second.wait_for_timeout(1500)
    expect(second.get_by_text("tiny-qwen3 is ready. Load it")).to_have_count(0)

    hub.fault("cdn", "acme/bigger-llama/*", status=404)
    download(page, "acme/bigger-llama")
    stopped = page.get_by_role("region", name="Did not arrive")
    expect(stopped).to_contain_text("bigger-llama")
    page.reload()
    expect(stopped.get_by_role("button", name="Retry bigger-llama")).to_be_visible()
    hub.clear()
    stopped.get_by_role("button", name="Retry bigger-llama").click()
    expect(stopped).to_have_count(0)
