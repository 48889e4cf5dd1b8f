"""The page: brand, status bar, dialog, three tabs, what they show at first, and the timer that keeps them true."""

import zlib
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

import gradio as gr

from millm.errors import explain
from millm.ui import (
    actions,
    compare,
    download_tab,
    drawer,
    models_tab,
    news,
    playground_tab,
    status_bar,
    system_drawer,
)
from millm.ui.catalog_list import draw_catalog
from millm.ui.downloads_list import draw_downloads
from millm.ui.icons import icon
from millm.ui.models_tab import Filters
from millm.ui.playground_notice import draw_notice
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
POLL_S = 1.0
CACHE_S = 86400
QUEUE_SLOTS = 64
PARTS_UNCHANGED, RUN_UNCHANGED = (gr.skip(),) * 4, (gr.skip(),) * 4
UNCHANGED = (gr.skip(), *PARTS_UNCHANGED, *RUN_UNCHANGED, gr.skip(), gr.skip())
# Gradio looks whether an event came in, over and over; its own 1 ms keeps 6 % of a core busy with nobody there.
LOOK_S = 0.01
SLEEP_S = 0.25  # between two looks while no page is open: each takes time from an answer that is being computed
GONE_S = 5 * POLL_S  # after its last poll a page is closed, or in a hidden tab that polls before it is clicked


class Live:
    """Everything on the page that follows the manager, drawn afresh when something changed.

    A page says which state it shows by a stamp; there is no state for it here, so any number of pages may come
    and go. The stamp is the manager's version, a checksum of the status bar, and that of the comparison: those two
    change on their own.
    """

    def __init__(self, manager: "Manager") -> None:
        self._manager = manager
        self._polled_at = 0.0

    @property
    def pause_s(self) -> float:
        """Seconds between two looks at whether an event came in."""
        return LOOK_S if monotonic() - self._polled_at < GONE_S else SLEEP_S

    def draw(self, *filters: str, stamp: str = "") -> tuple[Any, ...]:
        """Status bar, downloads, storage, cards, notice of the playground, comparison, news since `stamp`, stamp.

        filters: as in `Filters`.
        """
        self._polled_at = monotonic()
        version, told = self._manager.news(_seen(stamp))
        bar, fresh = self._bar_and_stamp()
        parts, run = self._parts(Filters(*filters)), compare.draw(self._manager)
        return (bar, *parts, *run, news.draw_news(version, told), fresh)

    def poll(self, *shown: str) -> tuple[Any, ...]:
        """The same, where what the page shows is out of date. shown: the filters, and the stamp last."""
        *filters, stamp = shown
        self._polled_at = monotonic()
        try:
            bar, fresh = self._bar_and_stamp()
            if stamp == fresh:
                return UNCHANGED
            parts = PARTS_UNCHANGED if _seen(stamp) == _seen(fresh) else self._parts(Filters(*filters))
            same_run = stamp.split(" ")[-1] == fresh.split(" ")[-1]
            run = RUN_UNCHANGED if same_run else compare.draw(self._manager)
            return (bar, *parts, *run, self._news(stamp, fresh), fresh)
        except Exception as error:  # noqa: BLE001  (a folder may vanish while it is measured; the next tick draws)
            explain(error)
            return UNCHANGED

    def filter(self, *filters: str) -> tuple[str, str]:
        """Storage and the cards that the filters let through."""
        wanted = Filters(*filters)
        told = (self._manager, wanted, self._manager.storage())
        return models_tab.draw_storage(*told), models_tab.draw_cards(*told)

    def act(self, event: gr.EventData, *shown: str) -> Iterator[tuple[Any, ...]]:
        """Carries out what a button asked, and draws what came of it; tells how a check of files ended."""
        action, model = getattr(event, "action", None), getattr(event, "model", None)
        if action != "verify":
            question = actions.act(self._manager, action, model)
            *filters, stamp = shown
            yield (actions.answered(question), *self.draw(*filters, stamp=stamp))
            return
        for place, _ in enumerate(actions.verify(self._manager, model)):
            yield (gr.skip() if place else actions.answered(), *UNCHANGED)  # the timer draws the progress

    def _bar_and_stamp(self) -> tuple[str, str]:
        version, bar = self._manager.version, self._bar()
        return bar, f"{version} {zlib.crc32(bar.encode())} {compare.stamp(self._manager)}"

    def _news(self, stamp: str, fresh: str) -> Any:
        """What ended since a page was drawn, where it does not show that yet."""
        if _seen(stamp) == _seen(fresh):
            return gr.skip()
        version, told = self._manager.news(_seen(stamp))
        return news.draw_news(version, told)

    def _bar(self) -> str:
        return status_bar.draw(self._manager)

    def _parts(self, filters: Filters) -> tuple[str, ...]:
        storage = self._manager.storage()  # looks at every file
        return (
            draw_downloads(self._manager, storage),
            models_tab.draw_storage(self._manager, filters, storage),
            models_tab.draw_cards(self._manager, filters, storage),
            draw_notice(self._manager),
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
        _wire(live, dialog, models, shown)

    def present() -> Props:
        manager.warm_up()  # whoever opens the page may soon want to know what a model takes
        parts = dict(zip(shown, live.draw(*(each.value for each in models.filters)), strict=True))
        del parts[told]  # a new page has missed nothing
        # what fits this machine is judged when a page is opened, so that no row moves under the pointer
        drawn = {**parts, downloads.catalog: draw_catalog(manager), **compare.fill(manager, comparing)}
        return {component._id: _props(value) for component, value in drawn.items()}

    page.present = present
    _tune(page, live)
    return page


def _props(value: Any) -> dict[str, Any]:
    """The properties that a listener's result changes: a value, or those of a component."""
    if isinstance(value, gr.blocks.Block):
        return {name: getattr(value, name) for name in value.constructor_args}
    return {"value": value}


def _wire(live: Live, dialog: gr.HTML, models: models_tab.ModelsTab, shown: list[Any]) -> None:
    filters = list(models.filters)
    gr.Timer(POLL_S).tick(live.poll, [*filters, shown[-1]], shown, queue=False, **QUIET)
    gr.on(
        [each.change for each in models.filters],
        live.filter,
        filters,
        [models.storage, models.cards],
        queue=False,
        trigger_mode="always_last",
        **QUIET,
    )
    dialog.ask_manager(live.act, [*filters, shown[-1]], [dialog, *shown], trigger_mode="multiple", **QUIET)


def _seen(stamp: str) -> int:
    """The version that a page shows, 0 for a page that is new or shows something else."""
    first = stamp.split(" ")[0]
    return int(first) if first.isdigit() else 0


def _tune(page: gr.Blocks, live: Live) -> None:
    page.queue(default_concurrency_limit=None, max_size=QUEUE_SLOTS)
    queue = getattr(page, "_queue", None)
    if queue is not None and hasattr(queue, "sleep_when_free"):  # private: works without it all the same
        kind = type(queue)
        queue.__class__ = type(kind.__name__, (kind,), {"sleep_when_free": property(lambda _: live.pause_s)})
        queue.progress_update_sleep_when_free = SLEEP_S  # looks for gr.Progress, which this page does not use
