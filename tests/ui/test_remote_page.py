"""A model of another server in a real browser: attached, loaded, chatted with, lost and found again."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from browsing import PHONE, field, open_tab
from remote_server import RemoteServer
from running import PATIENCE_S, App

playwright_api = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Page, expect  # noqa: E402

pytestmark = pytest.mark.slow
Run = Callable[..., App]
Open = Callable[..., Page]
KEY = "sk-canary-44"


def choose(page: Page) -> None:
    page.locator("#source-select input[value=remote]").check()
    expect(page.locator("#remote-input")).to_be_visible()


def badge(page: Page, word: str) -> None:
    expect(page.locator(".model-card [id^=model-status-]")).to_have_text(word)


def chat(page: Page, text: str) -> Any:
    field(page, "chat-input").fill(text)
    page.locator("#send-btn").click()
    return page.locator("#chat-log [data-testid=bot]").last


def test_a_server_is_attached_used_lost_and_found(run_app: Run, open_page: Open) -> None:
    app = run_app()
    page = open_page(app)
    card, key_note = page.locator("#preview-card"), page.locator("#remote-key-note")
    with RemoteServer(models=["acme/Tiny", "acme/Other"], key=KEY) as server:
        choose(page)
        expect(page.locator("#quant-select")).to_have_count(0)
        address = field(page, "remote-input")
        address.fill("gpu box")
        page.locator("#download-btn").click()
        expect(page.locator("#remote-input-note")).to_contain_text("http://gpu-box:8000/v1")
        address.fill(f"127.0.0.1:{server.port}")
        page.locator("#download-btn").click()
        expect(address).to_have_attribute("aria-invalid", "true")
        assert server.seen == []
        address.fill(f"http://127.0.0.1:{server.port}")
        expect(key_note).to_contain_text("asks for a key")
        field(page, "remote-key").fill(KEY)
        expect(page.locator("#remote-model-note")).to_contain_text("It has: acme/Tiny, acme/Other")
        expect(key_note).to_be_empty()
        field(page, "remote-model").fill("acme/Tiny")
        expect(card).to_contain_text("nothing is downloaded")
        expect(card).to_contain_text("It has: acme/Tiny, acme/Other.")
        page.locator("#download-btn").click()

        open_tab(page, "models")
        badge(page, "Ready")
        expect(page.locator(".model-card")).to_contain_text(f"served by 127.0.0.1:{server.port}")
        page.locator("[id^=load-btn-]").click()
        badge(page, "Loaded")
        open_tab(page, "playground")
        expect(chat(page, "hello there")).to_contain_text("You said: hello there")
        expect(page.locator("#send-btn")).to_be_visible()
        assert server.asked("/chat/completions")[-1]["model"] == "acme/Tiny"

    expect(page.locator("#status-bar")).to_contain_text(f"served by 127.0.0.1:{server.port}")
    trouble = page.locator(".mi-status-problem")
    expect(trouble).to_have_attribute("title", f"The server at 127.0.0.1:{server.port} does not answer. "
                                      "Is it running, and is the address right?")  # fmt: skip
    chat(page, "are you there?")
    expect(page.locator("#chat-stats")).to_contain_text("does not answer")
    with RemoteServer(models=["acme/Tiny"], key=KEY, port=server.port):
        expect(trouble).to_have_count(0)
        expect(page.locator("#send-btn")).to_be_visible()
        expect(chat(page, "and now")).to_contain_text("and now")
    assert KEY not in httpx.get(f"{app.url}/api/models", timeout=PATIENCE_S).text


def test_after_a_restart_the_key_is_given_in_the_settings(run_app: Run, open_page: Open) -> None:
    with RemoteServer(key=KEY) as server:
        first = run_app()
        body = {"source": "remote", "url": server.url, "server_key": KEY, "custom_name": "mine"}
        assert httpx.post(f"{first.url}/api/models", json=body, timeout=PATIENCE_S).status_code == 202
        assert first.stop() == 0
        page = open_page(run_app(), PHONE)
        open_tab(page, "models")
        badge(page, "Ready")
        page.locator("[id^=load-btn-]").click()
        expect(page.locator(".model-card")).to_contain_text("asks for a key. Give it as the server key")
        page.locator("[id^=settings-btn-]").click()
        secret = page.locator("#set-server_key")
        expect(secret).to_have_attribute("type", "password")
        expect(page.locator("#set-context_length, #set-adapter")).to_have_count(0)
        secret.fill("two words")
        page.locator("#settings-save-btn").click()
        expect(page.locator("#set-server_key-fault")).to_contain_text("A server key has")
        secret.fill(KEY)
        page.locator("#settings-save-btn").click()
        expect(page.locator("#model-drawer")).not_to_be_visible()
        page.locator("[id^=load-btn-]").click()
        badge(page, "Loaded")
        page.locator("[id^=details-btn-]").click()
        expect(page.locator("#drawer-body")).to_contain_text(server.url)
        assert KEY not in page.content()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.locator("#drawer-close-btn").click()
        page.locator("[id^=unload-btn-]").click()
        badge(page, "Ready")
        page.locator("[id^=delete-btn-]").click()
        expect(page.locator("#confirm-dialog")).to_contain_text("The server keeps the model")
        page.locator("#confirm-ok-btn").click()
        expect(page.locator(".model-card")).to_have_count(0)
