"""A real browser for the tests that want one, and pages that remember what went wrong in them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import DESK, is_up, launch, new_context
from hub import Hub
from playwright.sync_api import Browser, BrowserContext, Page, Request, sync_playwright
from running import PATIENCE_S, App, Client, start_app, wait_until_up
from scenes import Scene
from serving import until
from states import STATES
from tiny_models import build


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The page over fakes; each test arranges it anew."""
    with Scene(tmp_path_factory.mktemp("scene")) as scene:
        yield scene


@pytest.fixture(scope="module")
def repos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with two models."""
    root = tmp_path_factory.mktemp("repos")
    build("qwen3", root / "acme" / "tiny-qwen3")
    build("llama", root / "acme" / "bigger-llama", size="bigger")
    with Hub(root) as hub:
        yield hub


@pytest.fixture(scope="module")
def running(repos: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("app")
    app = start_app(folder / "cache", folder / "log", HF_ENDPOINT=repos.url)
    yield wait_until_up(app)
    app.process.kill()
    app.process.wait(PATIENCE_S)


@pytest.fixture
def hub(repos: Hub) -> Hub:
    """The hub without faults."""
    repos.clear()
    return repos


@pytest.fixture
def app(hub: Hub, running: App) -> Iterator[App]:
    """A miLLM process whose list is empty before and after; all tests of a file share it. It asks `hub`."""
    yield running
    hub.clear()
    client = Client(running)
    for job in client.ask("GET", "/api/system", 200)["jobs"]:
        client.http.post(f"/api/models/{job['model_id']}/cancel")
    until(lambda: not client.ask("GET", "/api/system", 200)["jobs"])
    for record in client.ask("GET", "/api/models", 200):
        if record["status"] == "loaded":
            client.ask("POST", f"/api/models/{record['id']}/unload", 202)
            client.settle(record["id"])
        client.ask("DELETE", f"/api/models/{record['id']}", 200)


def leaves(asked: Request, own: tuple[str, ...]) -> bool:
    """Whether a failed request was for somebody else. What the page's own policy stops never leaves the browser."""
    return not asked.url.startswith(own) and asked.failure != "csp"


def watched(page: Page, url: str, wrong: list[str]) -> Page:
    """The page, which from now on notes what goes wrong in it: errors, and requests that leave the machine."""
    page.on("pageerror", lambda error: wrong.append(str(error)))
    own = (f"{url}/", "data:", "blob:")
    page.on("requestfinished", lambda asked: asked.url.startswith(own) or wrong.append(asked.url))
    page.on("requestfailed", lambda asked: leaves(asked, own) and wrong.append(f"{asked.url}: {asked.failure}"))
    return page


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens pages in which nothing may go wrong.

    within: the context of another page, to open a second one in the same browser. options: of a context of its own.
    """
    contexts, wrong = [], list[str]()

    def open_one(
        app: App | Scene, size: dict[str, int] = DESK, within: BrowserContext | None = None, **options: Any
    ) -> Page:
        if within is None:
            within = new_context(browser, size, **options)
            contexts.append(within)
        page = watched(within.new_page(), app.url, wrong)
        page.goto(app.url)
        is_up(page)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture(scope="module")
def show_state(browser: Browser, scene: Scene) -> Iterator[Callable[..., Page]]:
    """Shows a state of `STATES` as to somebody who never was here. Which page that is depends on the options."""
    pages: dict[str, Page] = {}
    wrong: list[str] = []

    def show_one(state: str, size: dict[str, int] = DESK, **options: Any) -> Page:
        key = f"{size} {options}"
        if key not in pages:
            context = new_context(browser, size, **options)
            pages[key] = watched(context.new_page(), scene.url, wrong)
        page = pages[key]
        page.unroute_all()
        page.goto(f"{scene.url}/health")
        page.evaluate("localStorage.clear(); sessionStorage.clear()")
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        STATES[state](page, scene)
        assert wrong == []
        return page

    yield show_one
    for page in pages.values():
        page.context.close()
    assert wrong == []
