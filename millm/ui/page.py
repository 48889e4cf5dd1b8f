"""The page: brand, status bar, dialog, three tabs, what they show at first, and when it asks what has changed."""

from typing import TYPE_CHECKING, Any

import gradio as gr

from millm.ui import (
    actions,
    compare,
    download_tab,
    drawer,
    event_queue,
    models_tab,
    news,
    playground_tab,
    status_bar,
    system_drawer,
)
from millm.ui.catalog_list import draw_catalog
from millm.ui.icons import icon
from millm.ui.live import Live
from millm.ui.models_tab import Filters
from millm.ui.present import Props
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
CACHE_S = 86400
POLL_S = 1.0


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
        acted = actions.build_dialog(manager)
        drawer.build(manager)
        told = news.build(manager)
        system_drawer.build(manager, settings)
        # a hidden text, not gr.State: that would hold one of the browser's six connections for every open page
        stamp = gr.Textbox("", visible=False)
        with gr.Tabs(elem_id="nav", overflow_behavior="wrap"):
            with gr.Tab("Download", id="download", elem_id="tab-download"):
                downloads = download_tab.build(manager)
            with gr.Tab("Models", id="models", elem_id="tab-models"):
                models = models_tab.build()
            with gr.Tab("Playground", id="playground", elem_id="tab-playground"):
                compare.build_switch()
                with gr.Column(elem_id="chat-pane"):
                    notice = playground_tab.build(manager)
                comparing = compare.build(manager)
        shown = [bar, downloads.running, models.storage, models.cards, notice, *comparing.shown, told, stamp]
        live = Live(manager)
        _wire(acted, models, shown)

    def present() -> Props:
        manager.warm_up()  # whoever opens the page may soon want to know what a model takes
        parts = zip(shown, live.draw(Filters()), strict=True)
        # what fits this machine is judged when a page is opened, so that no row moves under the pointer
        drawn = {
            **{component: props for component, props in parts if props},
            downloads.catalog: {"value": draw_catalog(manager)},
            **compare.fill(manager, comparing),
        }
        return {component._id: props for component, props in drawn.items()}

    page.present, page.live = present, live
    event_queue.tune(page)
    return page


def _wire(acted: Any, models: models_tab.ModelsTab, shown: list[Any]) -> None:
    """Makes the page ask what has changed (live.js): every second, after a button had its effect, for new filters."""
    told = [*models.filters, shown[-1]]
    for asks, how in (
        (gr.Timer(POLL_S).tick, "tick"),
        (acted.then, "changes"),
        *((each.change, "filtered") for each in models.filters),
    ):
        asks(None, told, shown, js=f"window.millm.{how}", queue=False, **QUIET)
