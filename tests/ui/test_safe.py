"""Names, texts of repositories and answers of models neither run nor fetch anything."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from browsing import field, open_tab
from playwright.sync_api import Page, expect
from running import PATIENCE_S
from scenes import PHI, Scene

pytestmark = pytest.mark.slow


@pytest.fixture
def stranger() -> Iterator[HTTPServer]:
    """Another web server, which remembers who came."""

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.came.append(self.path)  # type: ignore[attr-defined]
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Door)
    server.came = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join(PATIENCE_S)
    server.server_close()


def poison(address: str) -> str:
    """Everything that a page might run or fetch."""
    run = "window.pwned = 1"
    return (
        f'"><script>{run}</script><img src="{address}/img.png" onerror="{run}"> ${{{run}}} {{{{{run}}}}} '
        f'<iframe src="{address}/frame"></iframe><svg onload="{run}"></svg>'
        f'<link rel="stylesheet" href="{address}/style.css"><object data="{address}/object"></object>'
        f'<a href="javascript:{run}" style="background: url(\'{address}/background\')">click</a>'
    )


def test_nothing_that_others_wrote_runs_or_fetches(
    scene: Scene, open_page: Callable[..., Page], stranger: HTTPServer
) -> None:
    address = f"http://127.0.0.1:{stranger.server_port}"
    bad = poison(address)
    record = scene.arrange(PHI)[PHI]
    registry = scene.manager._registry
    texts = {"name": bad, "repo_id": bad, "params": bad, "warning": bad, "error_message": bad, "architecture": bad}
    registry.update(record.id, **texts, config={"model_type": bad, "architectures": [bad]})
    page = open_page(scene)
    for tab in ("download", "models", "playground"):
        open_tab(page, tab)
        page.wait_for_timeout(300)
    open_tab(page, "models")
    expect(page.locator(f"#model-card-{record.id} h2")).to_contain_text("window.pwned")
    page.locator(f"#delete-btn-{record.id}").click()
    expect(page.locator("#confirm-title")).to_contain_text("<script>")
    page.locator("#confirm-cancel-btn").click()
    scene.manager.load(record.id)
    expect(page.locator("#status-bar-model")).to_contain_text("<script>")
    page.locator("#system-btn").click()
    expect(page.locator("#system-drawer [data-part=now]")).to_contain_text("<script>")
    page.keyboard.press("Escape")

    open_tab(page, "playground")
    markdown = (
        f"![image]({address}/markdown.png) [link](javascript:window.pwned=1) <think>{bad}</think> $$\\href{{x}}$$"
    )
    field(page, "chat-input").fill(f"Repeat: Hello {bad} {markdown} the end")
    page.locator("#send-btn").click()
    expect(page.locator("#chat-log [data-testid=bot]").last).to_contain_text("the end")
    page.wait_for_timeout(500)
    for link in page.locator("#chat-log [data-testid=bot] a").all():
        link.dispatch_event("click")
    assert page.evaluate("window.pwned") is None
    assert stranger.came == []  # type: ignore[attr-defined]
