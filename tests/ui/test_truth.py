"""Whatever happens, and wherever: every open page shows the same as the server, and nothing of its own."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from browsing import field, open_tab
from playwright.sync_api import Page, Request, expect
from running import PATIENCE_S, App
from scenes import PHI, QWEN, Scene

pytestmark = pytest.mark.slow
Run = Callable[..., App]
Open = Callable[..., Page]


def show(page: Page, name: str, status: str) -> None:
    """The status bar and the card say so."""
    bar = name if status == "Loaded" else "No model loaded"
    expect(page.locator("#status-bar-model")).to_have_text(bar)
    card = page.locator(".model-card", has_text=name)
    expect(card.locator("[id^=model-status-]")).to_have_text(status)


def test_eight_pages_of_one_browser_follow_the_api(scene: Scene, open_page: Open) -> None:
    number = scene.arrange(QWEN, PHI)[PHI].id
    api, name = f"{scene.url}/api/models/{number}", PHI.split("/")[1]
    assert httpx.get(f"{scene.url}/config", timeout=PATIENCE_S).json()["connect_heartbeat"] is False
    pages = [open_page(scene)]
    pages += [open_page(scene, within=pages[0].context) for _ in range(7)]
    asked: list[Request] = []
    pages[2].on("request", lambda each: asked.append(each))
    pages[2].on("requestfinished", lambda each: each in asked and asked.remove(each))
    for page in pages:
        open_tab(page, "models")
        show(page, name, "Ready")
    httpx.post(f"{api}/load", timeout=PATIENCE_S).raise_for_status()
    for page in pages:
        show(page, name, "Loaded")
    httpx.patch(api, json={"name": "renamed"}, timeout=PATIENCE_S).raise_for_status()
    for page in pages:
        show(page, "renamed", "Loaded")

    pages[0].reload()
    for page in pages.pop(), pages.pop():
        page.close()
    pages.append(open_page(scene, within=pages[0].context))
    open_tab(pages[-1], "models")
    pages[1].locator(f"#unload-btn-{number}").click()
    for page in pages:  # the first one is back on the tab where it was
        show(page, "renamed", "Ready")
    httpx.delete(api, timeout=PATIENCE_S).raise_for_status()
    for page in pages:
        expect(page.locator(".model-card", has_text="renamed")).to_have_count(0)
    assert len(asked) <= 1, "a page holds no connection: at most its question of this second is under way"
    assert not any("heartbeat" in each.url or "queue/data" in each.url for each in asked)


def test_a_page_waits_for_its_server_and_goes_on(run_app: Run, open_page: Open, tmp_path: Path) -> None:
    app = run_app(cache=tmp_path / "cache", first=True)
    page, other = open_page(app), open_page(app)
    open_tab(page, "models")
    show(page, "millm-guide", "Ready")
    open_tab(other, "playground")
    field(other, "system-prompt").fill("What I was about to say")
    for each in page, other:
        each.evaluate("window.marked = true")
        expect(each.locator("#away")).to_be_hidden()
    app.process.kill()
    app.process.wait(PATIENCE_S)
    for each in page, other:
        expect(each.locator("#away")).to_be_visible()
        expect(each.locator("#away")).to_contain_text("does not answer")
    other.evaluate("window.gradio_config.dependencies.pop()")  # as if an older miLLM had made it

    again = run_app(cache=tmp_path / "cache", port=int(app.url.rsplit(":", 1)[1]))
    number = httpx.get(f"{again.url}/api/models", timeout=PATIENCE_S).json()["data"][0]["id"]
    httpx.patch(f"{again.url}/api/models/{number}", json={"name": "renamed"}, timeout=PATIENCE_S).raise_for_status()
    expect(page.locator("#away")).to_be_hidden()
    show(page, "renamed", "Ready")
    expect(page.locator(".toast-body")).to_have_count(0)
    assert page.evaluate("window.marked"), "it went on without loading itself anew"
    other.wait_for_function("!window.marked")
    expect(other.locator("#tab-playground-button")).to_have_attribute("aria-selected", "true")


def test_the_system_drawer_is_alive_only_while_it_is_open(scene: Scene, show_state: Open) -> None:
    page = show_state("playground-streaming")
    page.locator("#status-system-btn").press("Enter")
    drawer = page.locator("#system-drawer")
    expect(drawer.locator("[data-part=now]")).to_contain_text("1 request running")
    expect(drawer.locator("[data-part=now]")).to_contain_text("tokens a second")
    expect(drawer.locator("[data-part=devices]")).to_contain_text("RTX 4090")
    expect(drawer.locator(".mi-settings")).to_contain_text("MODEL_CACHE_DIR")
    expect(drawer.locator(".mi-system-address")).to_have_text(f"{scene.url}/v1")
    speed = drawer.locator("svg[aria-label^='Tokens a second in the last']")
    expect(speed).to_be_visible()
    before = speed.get_attribute("aria-label")
    page.wait_for_function(
        "before => document.querySelector('#system-drawer .mi-plot svg').ariaLabel !== before",
        arg=before,
    )
    assert "hf_secret" not in page.content()
    expect(page.locator("#system-close-btn")).to_be_focused()
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(page.locator("#status-system-btn")).to_be_focused()
    page.locator("#stop-btn").click()
    expect(page.locator("#send-btn")).to_be_visible()
    bodies: list[str] = []
    page.on("request", lambda asked: bodies.append(asked.post_data or ""))
    page.locator("#system-btn").click()
    page.wait_for_timeout(1500)
    opened = len(bodies)
    page.mouse.click(20, 400)  # beside it
    expect(drawer).to_be_hidden()
    bodies.clear()
    page.wait_for_timeout(1500)
    assert len(bodies) < opened
