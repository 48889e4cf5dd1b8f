"""Every state that a person can bring the page into, by name.

    STATES["models"](page, scene)  # the page of a browser shows it now

A new one is a function and a line of `STATES`: axe looks at it, and `tools/screenshots.py` takes its picture.
"""

from collections.abc import Callable

from browsing import field
from playwright.sync_api import Page
from scenes import GEMMA, MISTRAL, PHI, QWEN, Scene

from millm.engines.base import Health, Replica

State = Callable[[Page, Scene], None]


def download_form(page: Page, scene: Scene) -> None:
    scene.arrange()
    scene.open(page)
    page.locator("#catalog .mi-pick").first.wait_for()


def catalogue(page: Page, scene: Scene) -> None:
    download_form(page, scene)
    page.locator("#catalog summary").last.click()


def previewed(page: Page, scene: Scene) -> None:
    download_form(page, scene)
    field(page, "repo-input").fill(QWEN)
    page.locator("#preview-btn").click()
    page.locator("#preview-card .mi-preview-head").wait_for()


def refused(page: Page, scene: Scene) -> None:
    download_form(page, scene)
    field(page, "repo-input").fill("nobody/nothing")
    page.locator("#preview-btn").click()
    page.locator("#preview-card .mi-note").wait_for()


def remote_form(page: Page, scene: Scene) -> None:
    download_form(page, scene)
    page.locator("#source-select input[value=remote]").check()
    field(page, "remote-input").fill("http://127.0.0.1:9/v1")
    page.locator("#preview-card .mi-note, #remote-input-note").filter(has_text="does not answer").first.wait_for()


def downloading(page: Page, scene: Scene) -> None:
    scene.arrange(GEMMA)
    scene.open(page)
    page.locator("#downloads [role=progressbar]").wait_for()


def no_models(page: Page, scene: Scene) -> None:
    scene.arrange()
    guide = scene.manager.guide()
    if guide:
        scene.manager.delete(guide.id)
    scene.open(page, "models")
    page.locator("#models-list .mi-empty").wait_for()


def models(page: Page, scene: Scene) -> None:
    if scene.manager.lacks_guide:
        scene.manager.add_guide()
    scene.arrange(QWEN, PHI, MISTRAL, GEMMA, loaded=QWEN)
    scene.open(page, "models")
    page.locator(".model-card").first.wait_for()


def nothing_found(page: Page, scene: Scene) -> None:
    models(page, scene)
    field(page, "search").fill("no such model")
    page.locator("#models-list .mi-empty").wait_for()


def loading(page: Page, scene: Scene) -> None:
    scene.arrange(QWEN, PHI, loading=PHI)
    scene.open(page, "models")
    page.locator(".model-card [role=progressbar]").wait_for()


def asked_to_delete(page: Page, scene: Scene) -> None:
    scene.arrange(PHI)
    scene.open(page, "models")
    page.locator("[id^=delete-btn-]").first.click()
    page.locator("#confirm-dialog[open]").wait_for()


def details(page: Page, scene: Scene) -> None:
    models(page, scene)
    page.locator("[id^=details-btn-]").first.click()
    page.locator("#drawer-body .mi-room").wait_for()


def settings(page: Page, scene: Scene) -> None:
    models(page, scene)
    page.locator("[id^=settings-btn-]").first.click()
    page.locator("#settings-save-btn").wait_for()


def no_model_loaded(page: Page, scene: Scene) -> None:
    scene.arrange(PHI)
    scene.open(page, "playground")
    page.locator("#no-model .mi-empty").wait_for()


def chat_empty(page: Page, scene: Scene) -> None:
    scene.arrange(QWEN, loaded=QWEN)
    scene.open(page, "playground")
    page.locator("#no-model .mi-start").wait_for()


def _ask(page: Page, scene: Scene, text: str) -> None:
    chat_empty(page, scene)
    field(page, "chat-input").fill(text)
    page.locator("#send-btn").click()


def chat_streaming(page: Page, scene: Scene) -> None:
    _ask(page, scene, "Explain quantization, on and on.")
    page.locator("#chat-log table").first.wait_for()
    page.locator("#status-live .mi-status-speed").wait_for()


def chat_done(page: Page, scene: Scene) -> None:
    _ask(page, scene, "Explain quantization.")
    page.locator("#chat-log pre").wait_for()
    page.locator("#send-btn").wait_for()


def chat_tokens(page: Page, scene: Scene) -> None:
    chat_done(page, scene)
    page.locator(".mi-tokens summary").click()


def conversations(page: Page, scene: Scene) -> None:
    chat_done(page, scene)
    page.locator("#chats-btn").click()
    page.locator("#chats-list .mi-chat").first.wait_for()


def as_code(page: Page, scene: Scene) -> None:
    chat_done(page, scene)
    page.locator("#code-btn").click()
    page.locator("#code-curl").get_by_text("curl").first.wait_for()


def comparing(page: Page, scene: Scene) -> None:
    chat_empty(page, scene)
    page.locator("#playground-mode input[value=Compare]").check()
    page.locator("#compare-start").wait_for()


def system_drawer(page: Page, scene: Scene) -> None:
    scene.arrange(QWEN, loaded=QWEN)
    scene.open(page, "models")
    page.locator("#system-btn").click()
    page.locator("#system-drawer .mi-plot").first.wait_for()


def system_replicas(page: Page, scene: Scene) -> None:
    up = Replica("3k9d on 10.0.0.7", "running", 3), Replica("x1pq on 10.0.0.8", "starting", 0)
    scene.arrange(QWEN, loaded=QWEN, health=Health("1 of 2 replicas answer; Ray starts others.", up))
    scene.open(page, "models")
    page.locator("#system-btn").click()
    page.locator("#system-drawer [data-part=replicas]").wait_for()


def system_drawer_end(page: Page, scene: Scene) -> None:
    system_drawer(page, scene)
    page.locator(".mi-settings").scroll_into_view_if_needed()


def server_away(page: Page, scene: Scene) -> None:
    scene.arrange(QWEN, loaded=QWEN)
    scene.open(page, "models")
    page.route("**/page/live?**", lambda route: route.abort())
    page.locator("#away").wait_for()


STATES: dict[str, State] = {
    "download": download_form,
    "download-catalogue": catalogue,
    "download-preview": previewed,
    "download-refused": refused,
    "download-server": remote_form,
    "download-running": downloading,
    "models-none": no_models,
    "models": models,
    "models-none-found": nothing_found,
    "models-loading": loading,
    "models-details": details,
    "models-settings": settings,
    "dialog-delete": asked_to_delete,
    "playground-no-model": no_model_loaded,
    "playground-empty": chat_empty,
    "playground-streaming": chat_streaming,
    "playground-done": chat_done,
    "playground-tokens": chat_tokens,
    "playground-conversations": conversations,
    "playground-code": as_code,
    "playground-compare": comparing,
    "system": system_drawer,
    "system-replicas": system_replicas,
    "system-end": system_drawer_end,
    "server-away": server_away,
}
