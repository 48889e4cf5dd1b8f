"""The page: brand, status bar, dialog, three tabs, and the timer that keeps them true."""

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from millm.errors import explain
from millm.ui import actions, download_tab, models_tab, playground_tab, status_bar, system_drawer
from millm.ui.catalog_list import draw_catalog
from millm.ui.downloads_list import draw_downloads
from millm.ui.icons import icon
from millm.ui.models_tab import Filters
from millm.ui.wiring import QUIET, html

if TYPE_CHECKING:
    from millm.manager import Manager
    from millm.settings import Settings

BRAND = (
    '<div class="mi-logo" role="img" aria-label="miLLM"><b aria-hidden="true">mi</b></div>'
    '<button type="button" class="mi-theme" id="theme-btn" title="Light or dark" '
    f'aria-label="Switch between light and dark">{icon("contrast", 20)}</button>'
    '<button type="button" class="mi-theme mi-system-btn" id="system-btn" title="System" data-system '
    f'aria-label="System" aria-haspopup="dialog">{icon("chart", 20)}</button>'
)
POLL_S = 1.0
CACHE_S = 86400
QUEUE_SLOTS = 64
IDLE_S = 0.01  # seconds; gradio's own 0.001 keeps 6 % of a core busy with nobody there


class Live:
    """Everything on the page that follows the manager, drawn afresh when something changed.

    A page says which state it shows by a stamp; there is no state for it here, so any number of pages may come
    and go. The stamp is the manager's version, and a checksum of the status bar, which changes on its own.
    """

    def __init__(self, manager: "Manager") -> None:
        self._manager = manager

    def draw(self, search: str, status: str, kind: str) -> tuple[Any, ...]:
        """Status bar, downloads, storage, cards, notice of the playground, stamp."""
        version, bar = self._manager.version, self._bar()
        return (bar, *self._parts(Filters(search, status, kind)), _stamp(version, bar))

    def poll(self, search: str, status: str, kind: str, stamp: str) -> tuple[Any, ...]:
        """The same, where what the page shows is out of date."""
        try:
            version, bar = self._manager.version, self._bar()
            fresh = _stamp(version, bar)
            if stamp == fresh:
                return (gr.skip(),) * 6
            if stamp.split(" ")[0] == str(version):
                return (bar, *(gr.skip(),) * 4, fresh)
            return (bar, *self._parts(Filters(search, status, kind)), fresh)
        except Exception as error:  # noqa: BLE001  (a folder may vanish while it is measured; the next tick draws)
            explain(error)
            return (gr.skip(),) * 6

    def filter(self, search: str, status: str, kind: str) -> tuple[str, str]:
        """Storage and the cards that the filters let through."""
        filters = Filters(search, status, kind)
        return models_tab.draw_storage(self._manager, filters), models_tab.draw_cards(self._manager, filters)

    def act(self, event: gr.EventData, search: str, status: str, kind: str) -> Iterator[tuple[Any, ...]]:
        """Carries out what a button asked, and draws what came of it; tells how a check of files ended."""
        action, model = getattr(event, "action", None), getattr(event, "model", None)
        if action != "verify":
            question = actions.act(self._manager, action, model)
            yield (gr.HTML(question=question) if question else gr.skip(), *self.draw(search, status, kind))
            return
        for _ in actions.verify(self._manager, model):
            yield (gr.skip(),) * 7  # the timer draws the progress

    def _bar(self) -> str:
        return status_bar.draw(self._manager)

    def _parts(self, filters: Filters) -> tuple[str, ...]:
        return (
            draw_downloads(self._manager),
            models_tab.draw_storage(self._manager, filters),
            models_tab.draw_cards(self._manager, filters),
            playground_tab.draw_notice(self._manager),
        )


def build(manager: "Manager", settings: "Settings") -> gr.Blocks:
    """Builds the whole page around a manager. settings: what it says of them."""
    with gr.Blocks(
        title="miLLM",
        fill_width=True,
        fill_height=True,
        analytics_enabled=False,
        delete_cache=(CACHE_S, CACHE_S),
    ) as page:
        html(BRAND, "brand")
        bar = status_bar.build()
        dialog = actions.build_dialog()
        system_drawer.build(manager, settings)
        # a hidden text, not gr.State: that would hold one of the browser's six connections for every open page
        stamp = gr.Textbox("", visible=False)
        with gr.Tabs(elem_id="nav", overflow_behavior="wrap"):
            with gr.Tab("Download", id="download", elem_id="tab-download"):
                downloads = download_tab.build(manager)
            with gr.Tab("Models", id="models", elem_id="tab-models"):
                models = models_tab.build()
            with gr.Tab("Playground", id="playground", elem_id="tab-playground"):
                notice = playground_tab.build(manager)
        shown = [bar, downloads.running, models.storage, models.cards, notice, stamp]
        _wire(Live(manager), page, dialog, models, shown)
        # what fits this machine is judged when a page is opened, so that no row moves under the pointer
        page.load(lambda: draw_catalog(manager), None, downloads.catalog, queue=False, **QUIET)
    _tune(page)
    return page


def _wire(live: Live, page: gr.Blocks, dialog: gr.HTML, models: models_tab.ModelsTab, shown: list[Any]) -> None:
    filters = list(models.filters)
    gr.Timer(POLL_S).tick(live.poll, [*filters, shown[-1]], shown, queue=False, **QUIET)
    page.load(live.draw, filters, shown, queue=False, **QUIET)
    search, status, kind = models.filters
    gr.on(
        [search.change, status.change, kind.change],
        live.filter,
        filters,
        [models.storage, models.cards],
        queue=False,
        trigger_mode="always_last",
        **QUIET,
    )
    dialog.ask_manager(live.act, filters, [dialog, *shown], trigger_mode="multiple", **QUIET)


def _stamp(version: int, bar: str) -> str:
    return f"{version} {zlib.crc32(bar.encode())}"


def _tune(page: gr.Blocks) -> None:
    page.queue(default_concurrency_limit=None, max_size=QUEUE_SLOTS)
    queue = getattr(page, "_queue", None)
    if queue is not None and hasattr(queue, "sleep_when_free"):  # private: works without it all the same
        queue.sleep_when_free = IDLE_S
