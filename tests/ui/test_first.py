"""What the page shows before gradio has set it up: the same in the same places, and nothing that could be pressed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsing import DESK, PHONE, new_context
from scenes import GEMMA, QWEN, Scene

playwright_api = pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect  # noqa: E402

pytestmark = pytest.mark.slow

GRADIO = "**/assets/*.js"
OPENED = """
const attach = Element.prototype.attachShadow;
Element.prototype.attachShadow = function () {
  const root = attach.call(this, { mode: 'open' });
  window.first ??= root;
  return root;
};
"""
PARTS = (
    *(".mi-logo", "#tab-models-button", ".mi-theme", ".mi-status-model", ".mi-meter", ".mi-address code", "h1"),
    *(".mi-head p", ".mi-storage", ".model-card", ".model-card h2", ".model-card button", ".mi-pick"),
    "#downloads .mi-card",
)
PLACES = """([inside, parts]) => Object.fromEntries(parts
  .map((part) => [part, (inside ? window.first : document).querySelector(part)])
  .filter(([, found]) => found?.checkVisibility())
  .map(([part, found]) => [part, found.getBoundingClientRect()])
  .map(([part, { x, y, width, height }]) => [part, [x, y, width, height]]))"""
Opening = Callable[..., Page]


@pytest.fixture
def opening(browser: Browser, scene: Scene) -> Iterator[Opening]:
    """Opens the page at a tab, with or without gradio; with `opened` a test can look into what is shown first."""
    contexts, wrong = [], []
    scene.arrange(QWEN, GEMMA, loaded=QWEN)

    def open_one(tab: str, size: dict[str, int] = DESK, gradio: bool = False, opened: bool = True) -> Page:
        contexts.append(new_context(browser, size))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.add_init_script(f"sessionStorage.setItem('millm-tab', '{tab}');{OPENED if opened else ''}")
        if not gradio:
            page.route(GRADIO, lambda route: route.abort())
        page.goto(scene.url)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert wrong == []


def places(page: Page, first: bool) -> dict[str, list[float]]:
    """Where the parts are that can be seen: x, y, width, height. first: those before gradio is there."""
    found: dict[str, list[float]] = page.evaluate(PLACES, [first, PARTS])
    return found


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize(("tab", "shown"), [("download", 10), ("models", 11), ("playground", 6)])
def test_all_is_where_gradio_puts_it_then(opening: Opening, size: dict[str, int], tab: str, shown: int) -> None:
    page = opening(tab, size)
    page.wait_for_function("document.fonts.status === 'loaded' && window.first?.querySelector('link').sheet")
    early = places(page, first=True)
    page.unroute_all()
    page.reload()
    expect(page.locator("body > [inert]")).to_have_count(0)
    expect(page.locator(f"#tab-{tab}-button")).to_have_attribute("aria-selected", "true")
    page.wait_for_function("document.fonts.status === 'loaded'")
    late = {part: place for part, place in places(page, first=False).items() if part in early}
    assert len(early) >= shown - (size is PHONE), early
    assert {part: place for part, place in early.items() if off(place, late.get(part)) > 2} == {}, late


def off(one: list[float], other: list[float] | None) -> float:
    """How many pixels lie between two places."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) if other else 1e9


def test_it_says_what_the_server_knows_now(opening: Opening, scene: Scene) -> None:
    page = opening("models")
    expect(page.locator(".model-card h2")).to_have_count(3)
    expect(page.locator("#status-bar-model")).to_have_text(scene.manager.loaded().name)
    expect(page.locator(".mi-address code")).to_have_text(scene.url.removeprefix("http://") + "/v1")
    expect(page.locator("[role=tab].selected")).to_have_text("Models")


def test_nobody_can_press_it_or_hears_it(opening: Opening) -> None:
    page = opening("models", opened=False)
    page.wait_for_function("document.querySelector('body > [inert][aria-hidden=true]')")
    assert page.locator(".model-card").count() == 0
    assert page.get_by_role("button").count() == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.body")


def test_it_is_gone_once_gradio_shows_the_same(opening: Opening) -> None:
    page = opening("models", gradio=True, opened=False)
    expect(page.locator(".model-card").first).to_be_visible()
    expect(page.locator("body > [inert]")).to_have_count(0)


def test_it_is_gone_when_gradio_never_comes(opening: Opening) -> None:
    page = opening("download", opened=False)
    expect(page.locator("body > [inert]")).to_have_count(1)
    page.evaluate("() => { const now = performance.now.bind(performance); performance.now = () => now() + 31_000; }")
    expect(page.locator("body > [inert]")).to_have_count(0)


@pytest.mark.parametrize(("chosen", "dark"), [("dark", True), ("light", False)])
def test_it_has_the_colours_that_were_chosen(opening: Opening, chosen: str, dark: bool) -> None:
    page = opening("models")
    page.evaluate(f"localStorage.setItem('millm-theme', '{chosen}')")
    page.reload()
    page.wait_for_function("window.first?.querySelector('link').sheet")
    background: Any = page.evaluate("getComputedStyle(window.first.querySelector('.mi-first')).backgroundColor")
    assert background == ("rgb(18, 19, 23)" if dark else "rgb(244, 244, 247)")
