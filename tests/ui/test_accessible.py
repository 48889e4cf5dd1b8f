"""WCAG 2.1 AA: axe on every state of the page in both themes, the keyboard alone, fingers, and less motion."""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsing import DESK, PHONE, open_tab
from playwright.sync_api import Page, expect
from scenes import PHI, Scene
from states import STATES

pytestmark = pytest.mark.slow
Open = Callable[..., Page]

OPTIONS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"], "resultTypes": ["violations"]}
# gradio's own: the title of a thought is a button that holds another one, without a name
NOT_OURS: list[list[str]] = [["#chat-log .thought-group"]]

# What a finger should hit and is too small for it. A label or gradio's frame around an input counts as the input;
# links in the middle of a text may be as high as the text.
SMALL = """() => [...document.querySelectorAll('button, a[href], summary, input, select, textarea, [role=tab]')]
  .filter((each) => each.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && !each.disabled)
  .filter((each) => each.tagName !== 'A' || getComputedStyle(each).display !== 'inline')
  .filter((each) => each.closest('dialog[open]') || !document.querySelector('dialog[open]'))
  .map((each) => [each, (each.closest('label, .wrap:has(> .wrap-inner)') ?? each).getBoundingClientRect()])
  .filter(([, box]) => box.width && box.height && (box.height < 43.5 || box.width < 43.5))
  .map(([each, box]) => `${each.outerHTML.slice(0, 120)}: ${Math.round(box.width)} x ${Math.round(box.height)}`)"""
PHONE_STATES = ("download-preview", "models", "dialog-delete", "playground-done", "system", "server-away")


def violations(page: Page, rules: tuple[str, ...] = ()) -> list[str]:
    """What axe finds by these rules, or by all."""
    options = OPTIONS | ({"runOnly": {"type": "rule", "values": rules}} if rules else {})
    found: dict[str, Any] = Axe().run(page, context={"exclude": NOT_OURS}, options=options).response
    return [
        f"{each['id']}: {node['html'][:200]} ({node['failureSummary'][:300]})"
        for each in found["violations"]
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_in_either_theme(show_state: Open, state: str) -> None:
    page = show_state(state)
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.body.classList.contains('dark')")
    assert violations(page, ("color-contrast", "link-in-text-block")) == []


@pytest.mark.parametrize("state", PHONE_STATES)
def test_fingers_hit_what_they_mean(show_state: Open, state: str) -> None:
    page = show_state(state, PHONE, has_touch=True)
    assert page.evaluate(SMALL) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert violations(page) == []


def test_nothing_moves_where_that_is_not_wanted(show_state: Open) -> None:
    page = show_state("models-loading")
    page.locator("#system-btn").click()
    expect(page.locator("#system-drawer .mi-plot").first).to_be_visible()
    moving = "document.getAnimations().filter((each) => each.playState === 'running').length"
    assert page.evaluate(moving) == 0


def tab_to(page: Page, selector: str, limit: int = 60) -> None:
    """Presses Tab until the focus is there, and sees that it can be seen."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            ring = page.evaluate(
                "getComputedStyle(document.activeElement.closest('.mi-segments label, #ask') ?? "
                "document.activeElement).boxShadow"
            )
            assert (outline, ring) != ("none", "none"), f"{selector} has the focus and does not show it"
            return
    raise AssertionError(f"the focus never came to {selector}")


def test_the_main_way_without_a_mouse(scene: Scene, open_page: Open) -> None:
    scene.arrange()
    page = open_page(scene, DESK)
    tab_to(page, "#repo-input :is(textarea, input)")
    page.keyboard.type(PHI)
    tab_to(page, "#download-btn")
    page.keyboard.press("Enter")
    expect(page.locator("#download-ending")).to_contain_text("ready")
    page.reload()
    tab_to(page, "#tab-download-button")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    record = next(each for each in scene.manager.records() if each.repo_id == PHI)
    tab_to(page, f"#load-btn-{record.id}")
    page.keyboard.press("Enter")
    expect(page.locator(f"#model-status-{record.id}")).to_have_text("Loaded")
    open_tab(page, "playground")
    tab_to(page, "#chat-input textarea")
    page.keyboard.type("Go on and on.")
    page.keyboard.press("Enter")
    expect(page.locator("#chat-log table").first).to_be_visible()
    tab_to(page, "#stop-btn")
    page.keyboard.press("Enter")
    expect(page.locator("#chat-stats")).to_contain_text("stopped")
    open_tab(page, "models")
    tab_to(page, f"#unload-btn-{record.id}")
    page.keyboard.press("Enter")
    expect(page.locator(f"#model-status-{record.id}")).to_have_text("Ready")
    tab_to(page, f"#delete-btn-{record.id}")
    page.keyboard.press("Enter")
    expect(page.locator("#confirm-cancel-btn")).to_be_focused()
    tab_to(page, "#confirm-ok-btn", 3)
    page.keyboard.press("Enter")
    expect(page.locator(f"#model-card-{record.id}")).to_have_count(0)
