"""A real browser for the tests that want one, and pages that remember what went wrong in them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import DESK, FLAGS, SOON, chromium, is_up
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright
from running import App
from scenes import Scene

expect.set_options(timeout=SOON)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The page over fakes; each test arranges it anew."""
    with Scene(tmp_path_factory.mktemp("scene")) as scene:
        yield scene


def leaves(asked: Request, own: tuple[str, ...]) -> bool:
    """Whether a failed request was for somebody else. What the page's own policy stops never leaves the browser."""
    return not asked.url.startswith(own) and asked.failure != "csp"


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages that collect what goes wrong in them: errors, and requests that leave the machine.

    within: the context of another page, to open a second one in the same browser. visit: whether to go there at once.
    """
    contexts, wrong = [], []

    def open_one(
        app: App | Scene,
        size: dict[str, int] = DESK,
        within: BrowserContext | None = None,
        visit: bool = True,
        **options: Any,
    ) -> Page:
        if within is None:
            within = browser.new_context(viewport=size, **options)
            contexts.append(within)
        page = within.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        own = (f"{app.url}/", "data:", "blob:")
        page.on("requestfinished", lambda asked: asked.url.startswith(own) or wrong.append(asked.url))
        page.on("requestfailed", lambda asked: leaves(asked, own) and wrong.append(f"{asked.url}: {asked.failure}"))
        if visit:
            page.goto(app.url)
            is_up(page)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert wrong == [], "errors in the page, or requests that left the machine"
