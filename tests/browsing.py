"""What browser tests share: sizes, waits, and the few moves that every way begins with."""

import shutil
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect
from scenes import SOON

FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
WINDOWLESS = "chromium-headless-shell"  # half the work of a browser that could show a window
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}

expect.set_options(timeout=SOON)


def chromium() -> str:
    """The path of the browser; without one the test is skipped."""
    found = next(filter(None, map(shutil.which, (WINDOWLESS, "chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("Chromium is not installed")
    return found


def launch(playwright: Playwright) -> Browser:
    """The browser."""
    return playwright.chromium.launch(executable_path=chromium(), args=FLAGS.split(), timeout=SOON)


def new_context(browser: Browser, size: Any = None, **options: Any) -> BrowserContext:
    """A profile of its own, in which all that is waited for may take long, and nothing moves: that takes a core."""
    context = browser.new_context(**{"viewport": size or DESK, "reduced_motion": "reduce", **options})
    context.set_default_timeout(SOON)
    return context


def field(page: Page, element_id: str) -> Any:
    """The input of one of gradio's blocks."""
    return page.locator(f"#{element_id} :is(textarea, input)").first


def open_tab(page: Page, name: str) -> None:
    """Shows a tab."""
    page.locator(f"#tab-{name}-button").click()


def is_up(page: Page) -> None:
    """Waits until the page shows what the server said."""
    expect(page.locator("#status-live .mi-status")).to_be_visible()
