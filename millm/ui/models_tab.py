"""The tab that lists what is there: filters, order, storage, and a card for each model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from millm.events import Stage
from millm.records import ModelRecord, ModelType, Status
from millm.ui import words
from millm.ui.cards import card, empty, newest_event, note, page_head
from millm.ui.icons import icon
from millm.ui.storage_picture import storage_picture
from millm.ui.wiring import html

if TYPE_CHECKING:
    from millm.manager import Manager
    from millm.views import StorageState

ALL = "All"
STATUSES = {
    ALL: frozenset(Status),
    "Loaded": frozenset({Status.LOADED}),
    "Ready": frozenset({Status.READY}),
    "In progress": frozenset({Status.QUEUED, Status.DOWNLOADING, Status.LOADING}),
    "Error": frozenset({Status.ERROR}),
}
NEWEST = "Newest first"
SORTS: dict[str, Callable[[ModelRecord], tuple[float, str]] | None] = {
    NEWEST: None,  # as the manager gives them
    "Name": lambda record: (0.0, record.name.casefold()),
    "Size on disk": lambda record: (-(record.disk_size_mb or 0.0), record.name.casefold()),
    "Memory": lambda record: (-(record.estimated_memory_mb or 0.0), record.name.casefold()),
}
TYPES = {"All types": None, **{word: kind for kind, word in words.MODEL_TYPE.items()}}


@dataclass(frozen=True)
class Filters:
    """What the person wants to see. The texts come from a browser; one that is unknown filters nothing."""

    search: str = ""
    status: str = ALL
    model_type: str = "All types"
    sort: str = NEWEST

    @property
    def statuses(self) -> frozenset[Status]:
        """The states to show."""
        return STATUSES.get(self.status, STATUSES[ALL])

    @property
    def kind(self) -> ModelType | None:
        """The one type to show, None for all."""
        return TYPES.get(self.model_type)


@dataclass(frozen=True)
class ModelsTab:
    """The parts of the tab that other rooms wire up. filters: search, status, type, order."""

    filters: tuple[gr.Textbox, gr.Radio, gr.Dropdown, gr.Dropdown]
    storage: gr.HTML
    cards: gr.HTML


def build() -> ModelsTab:
    """Builds the tab's components."""
    html(page_head("Models", "Load one model at a time. The API serves the loaded one."), "models-head")
    with gr.Row(elem_classes="mi-toolbar"):
        search = gr.Textbox(
            "",
            label="Search models",
            show_label=False,
            placeholder="Search models",
            max_length=200,
            scale=3,
            min_width=180,
            elem_id="search",
        )
        status = gr.Radio(
            list(STATUSES),
            value=ALL,
            label="Filter by status",
            show_label=False,
            scale=4,
            min_width=320,
            elem_id="filter-status",
            elem_classes="mi-segments",
        )
        kind = gr.Dropdown(
            list(TYPES),
            value="All types",
            label="Filter by type",
            show_label=False,
            filterable=False,
            scale=1,
            min_width=140,
            elem_id="filter-type",
        )
        order = gr.Dropdown(
            list(SORTS),
            value=NEWEST,
            label="Order",
            show_label=False,
            filterable=False,
            scale=1,
            min_width=150,
            elem_id="sort",
        )
    storage = html(elem_id="storage-summary")
    cards = html(elem_id="models-list")
    return ModelsTab((search, status, kind, order), storage, cards)


def draw_storage(manager: "Manager", filters: Filters, storage: "StorageState") -> str:
    """How many models there are and where the disk goes."""
    picture = storage_picture(storage, manager.records(), len(chosen(manager, filters)))
    return picture + (_guide() if manager.lacks_guide else "")


def draw_cards(manager: "Manager", filters: Filters, storage: "StorageState") -> str:
    """Every model that the filters let through, in the order that is asked for."""
    problems = "".join(note(sentence) for sentence in manager.system().problems)
    shown = chosen(manager, filters)
    if not shown:
        return problems + _nothing(bool(manager.records()))
    leaving = _leaving(manager)
    cards = (
        card(
            record,
            newest_event(manager, record),
            storage.models.get(record.id, 0),
            leaving.get(record.id, ""),
            record.status is Status.LOADED and manager.outdated(record.id),
        )
        for record in shown
    )
    return f'{problems}<div class="mi-list">{"".join(cards)}</div>'


def chosen(manager: "Manager", filters: Filters) -> list[ModelRecord]:
    """The records that the filters let through, in the order that is asked for."""
    found = manager.records(model_type=filters.kind, q=filters.search.strip())
    shown = [record for record in found if record.status in filters.statuses]
    order = SORTS.get(filters.sort)
    return sorted(shown, key=order) if order else shown


def _leaving(manager: "Manager") -> dict[int, str]:
    """The loaded model and why it is about to go, while another one takes its place."""
    loaded = manager.loaded()
    for coming in manager.records(status=Status.LOADING):
        event = newest_event(manager, coming)
        if loaded and event and event.stage is Stage.UNLOADING_PREVIOUS:
            pending = f" {words.several(event.pending, 'request')} still being answered." if event.pending else ""
            return {loaded.id: f"Makes room for {coming.name}.{pending}"}
    return {}


def _guide() -> str:
    return (
        '<p class="mi-left-over"><span>miLLM ships with a small model of its own.</span><button type="button" '
        'class="mi-btn is-quiet" id="guide-btn" data-act="guide" data-model="0">'
        f"{icon('models')}<span>Add millm-guide</span></button></p>"
    )


def _nothing(some: bool) -> str:
    if some:
        return empty("search", "Nothing here", "No model matches this search and these filters.")
    text = "Download one from HuggingFace, or register a folder that is on this computer already."
    return empty("models", "No models yet", text, "Get a model", "download")
