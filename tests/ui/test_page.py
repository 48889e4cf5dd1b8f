"""The main way in a real browser, on a desk and on a phone, and what a person sees when things go wrong."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import DESK, PHONE, field, open_tab
from hub import Hub
from playwright.sync_api import Page, expect
from running import PATIENCE_S, App

pytestmark = pytest.mark.slow
Run = Callable[..., App]
Open = Callable[..., Page]


def status(page: Page, word: str) -> Any:
    return expect(page.locator(".model-card [id^=model-status-]")).to_have_text(word)


def download(page: Page, repo: str) -> None:
    open_tab(page, "download")
    field(page, "repo-input").fill(repo)
    half = page.locator("#quant-select input[value=FP16]")
    if half.is_visible():  # else there is nothing to choose
        half.check()  # nothing to wait for after the download
    page.locator("#download-btn").click()


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_main_way(app: App, open_page: Open, size: dict[str, int]) -> None:
    page = open_page(app, size, reduced_motion="no-preference")
    expect(page.locator("#status-bar-model")).to_contain_text("No model loaded")

    field(page, "repo-input").fill("acme/tiny-qwen3")
    page.locator("#preview-btn").click()
    expect(page.locator("#preview-card")).to_contain_text("Qwen3ForCausalLM")
    page.locator("#download-btn").click()
    open_tab(page, "models")
    status(page, "Ready")

    page.locator("[id^=load-btn-]").click()
    status(page, "Loaded")
    expect(page.locator("#status-bar-model")).to_contain_text("tiny-qwen3")

    open_tab(page, "playground")
    field(page, "max-tokens").fill("40")
    field(page, "chat-input").fill("Tell me something.")
    page.locator("#send-btn").click()
    expect(page.locator("#chat-stats")).to_contain_text("tok/s")
    expect(page.locator("#chat-log [data-testid=bot]")).not_to_be_empty()
    expect(page.locator("#send-btn")).to_be_visible()

    open_tab(page, "models")
    page.locator("[id^=unload-btn-]").click()
    status(page, "Ready")
    expect(page.locator("#status-bar-model")).to_contain_text("No model loaded")
    page.locator("[id^=delete-btn-]").click()
    expect(page.locator("#confirm-dialog")).to_contain_text("tiny-qwen3")
    page.locator("#confirm-cancel-btn").click()
    status(page, "Ready")
    page.locator("[id^=delete-btn-]").click()
    page.locator("#confirm-ok-btn").click()
    expect(page.locator(".model-card")).to_have_count(0)
    assert httpx.get(f"{app.url}/api/models", timeout=PATIENCE_S).json()["data"] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_progress_cancel_and_a_second_page_that_sees_the_same(app: App, open_page: Open, hub: Hub) -> None:
    first = open_page(app)
    hub.fault("cdn", "acme/bigger-llama/*", throttle=400_000, times=1)
    download(first, "acme/bigger-llama")
    bar = first.locator("#download-progress")
    expect(bar).to_be_visible()
    seen: list[float] = []
    while len(seen) < 40 and len(set(seen)) < 3:
        seen.append(float(str(bar.get_attribute("aria-valuenow"))))
        first.wait_for_timeout(400)
    assert seen == sorted(seen)
    assert len(set(seen)) == 3

    second = open_page(app, PHONE)
    open_tab(second, "models")
    status(second, "Downloading")
    first.close()
    second.wait_for_timeout(500)
    status(second, "Downloading")
    second.locator("[id^=cancel-btn-]").click()
    confirm = second.locator("#confirm-ok-btn")
    if confirm.is_visible():
        confirm.click()
    expect(second.locator(".model-card")).to_have_count(0)
    assert list((app.cache / ".staging").iterdir()) == []


def test_stop_keeps_the_part_and_frees_the_model(app: App, open_page: Open) -> None:
    page = open_page(app)
    download(page, "acme/bigger-llama")
    open_tab(page, "models")
    status(page, "Ready")
    page.locator("[id^=load-btn-]").click()
    status(page, "Loaded")
    open_tab(page, "playground")
    for _ in range(3):  # an answer may end by itself before a slow machine gets to the button
        field(page, "chat-input").fill("Go on and on.")
        page.locator("#send-btn").click()
        page.locator("#stop-btn").click()
        expect(page.locator("#send-btn")).to_be_visible()
        if "stopped" in page.locator("#chat-stats").inner_text():
            break
    expect(page.locator("#chat-stats")).to_contain_text("stopped")
    assert page.locator(".toast-body:is(.warning, .error)").count() == 0
    deadline = time.monotonic() + PATIENCE_S  # the figures are measured twice a second
    while httpx.get(f"{app.url}/api/system", timeout=PATIENCE_S).json()["data"]["requests_running"]:
        assert time.monotonic() < deadline
        page.wait_for_timeout(100)


def test_mistakes_are_said_where_they_are_made(app: App, open_page: Open, tmp_path: Path) -> None:
    page = open_page(app)
    for repo, sentence in (
        ("nobody/nothing", "does not exist on HuggingFace"),
        ("<img src=x onerror=alert(1)>", "owner/name"),
    ):
        field(page, "repo-input").fill(repo)
        page.locator("#preview-btn").click()
        expect(page.locator("#preview-card")).to_contain_text(sentence)
    page.locator("#source-select input[value=local]").check()
    field(page, "path-input").fill(str(tmp_path))
    page.locator("#download-btn").click()
    expect(page.get_by_text("Invalid model path").first).to_be_visible()
    open_tab(page, "playground")
    field(page, "chat-input").fill("Anybody there?")
    field(page, "chat-input").press("Enter")
    expect(page.get_by_text("No model is loaded").first).to_be_visible()


def test_dark_and_light_follow_the_system_and_the_button(app: App, open_page: Open) -> None:
    background = "getComputedStyle(document.querySelector('.gradio-container')).backgroundColor"
    dark = open_page(app, color_scheme="dark").evaluate(background)
    page = open_page(app, color_scheme="light")
    light = page.evaluate(background)
    assert light != dark
    icon = page.locator(".mi-theme .mi-icon").first
    drawn = icon.evaluate("icon => (({ color, stroke, fill }) => [stroke === color, fill])(getComputedStyle(icon))")
    assert drawn == [True, "none"], "icons have the colour of the text around them"
    page.locator("#theme-btn").click()
    assert page.evaluate(background) == dark
    page.reload()
    expect(page.locator("#status-bar")).to_be_visible()
    page.wait_for_function(f"{background} === '{dark}'")


def test_each_source_has_its_fields_and_a_suggestion_fills_them(app: App, open_page: Open) -> None:
    page = open_page(app, PHONE)
    for source, shown, hidden in (
        ("url", ("url-input", "checksum-input"), ("repo-input", "token-input")),
        ("ollama", ("ollama-input",), ("url-input", "quant-select", "trust-checkbox", "more-options")),
        ("local", ("path-input", "trust-way"), ("ollama-input", "token-input", "trust-checkbox")),
    ):
        page.locator(f"#source-select input[value={source}]").check()
        for element_id in shown:
            expect(page.locator(f"#{element_id}")).to_be_visible()
        for element_id in hidden:
            expect(page.locator(f"#{element_id}")).to_be_hidden()
    page.locator("#catalog summary").click()
    page.locator("#catalog [data-pick='qwen3-0.6b']").click()
    expect(field(page, "repo-input")).to_have_value("Qwen/Qwen3-0.6B")
    expect(page.locator("#path-input")).to_be_hidden()
    expect(page.locator("#preview-card")).to_contain_text("does not exist on HuggingFace")
    expect(page.locator("#preview-card")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_files_are_verified_and_other_types_activated(app: App, open_page: Open) -> None:
    page = open_page(app)
    page.locator("#more-options button").first.click()
    page.locator("#type-select input").click()
    page.get_by_role("option", name="Music model").click()
    expect(page.locator("#quant-select")).to_be_hidden()
    download(page, "acme/tiny-qwen3")
    open_tab(page, "models")
    status(page, "Ready")
    page.locator("[id^=details-btn-]").click()
    page.locator("#model-drawer [data-act=verify]").click()
    expect(page.get_by_text("every file is whole").first).to_be_visible()
    weights = next(app.cache.glob("huggingface/*/model.safetensors"))
    weights.write_bytes(bytes(weights.stat().st_size))
    page.locator("[id^=details-btn-]").click()
    page.locator("#model-drawer [data-act=verify]").click()
    expect(page.locator(".model-card .mi-note")).to_contain_text("model.safetensors")
    page.get_by_role("button", name="Repair").click()
    expect(page.locator(".model-card .mi-note")).to_have_count(0)
    page.locator("[id^=activate-btn-]").click()
    expect(page.locator(".model-card .is-active")).to_have_text("Active")
    page.locator("[id^=deactivate-btn-]").click()
    expect(page.locator("[id^=activate-btn-]")).to_be_visible()


def test_a_hub_that_hangs_can_be_left_and_one_that_answers_makes_suggestions(
    app: App, open_page: Open, hub: Hub
) -> None:
    page = open_page(app)
    field(page, "repo-input").press_sequentially("acme/t")
    expect(page.locator("#repo-matches [role=option]")).to_have_count(1)

    hub.fault("api", "acme/tiny-qwen3", hang_after=0, times=2)  # for the preview too, where that comes first
    field(page, "repo-input").fill("acme/tiny-qwen3")
    page.locator("#download-btn").click()
    page.locator("#download-ending").get_by_role("button", name="Cancel").click()
    expect(page.locator("#download-btn")).to_be_enabled()
    expect(page.locator("#download-ending")).to_be_empty()
    open_tab(page, "models")
    expect(page.locator(".model-card")).to_have_count(0)


def test_the_first_chat_without_any_hub(run_app: Run, open_page: Open) -> None:
    """On a machine that never had miLLM and cannot reach a hub: one click, then an answer."""
    page = open_page(run_app(HF_ENDPOINT="http://127.0.0.1:9", first=True), PHONE)
    open_tab(page, "playground")
    page.locator("#guide-load-btn").click()
    expect(page.get_by_text("Ask millm-guide")).to_be_visible()
    page.get_by_text("What does Q4 mean?").click()
    expect(page.locator("#chat-log")).to_contain_text("4 bits")
    open_tab(page, "models")
    expect(page.locator(".mi-badge.is-built-in")).to_have_text("Built in")
    page.locator("[id^=unload-btn-]").click()
    page.locator("[id^=delete-btn-]").click()
    page.locator("#confirm-ok-btn").click()
    page.locator("#guide-btn").click()
    status(page, "Ready")
