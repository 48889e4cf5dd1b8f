"""The tab that lists what is there: filters, storage, and a card for each model."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from millm.records import ModelRecord, ModelType, Status
from millm.ui import words
from millm.ui.cards import card, empty, newest_event, note, page_head
from millm.ui.icons import icon
from millm.ui.wiring import html

if TYPE_CHECKING:
    from millm.manager import Manager

ALL = "All"
STATUSES = {
    ALL: frozenset(Status),
    "Loaded": frozenset({Status.LOADED}),
    "Ready": frozenset({Status.READY}),
    "In progress": frozenset({Status.QUEUED, Status.DOWNLOADING, Status.LOADING}),
    "Error": frozenset({Status.ERROR}),
}
TYPES = {"All types": None, **{word: kind for kind, word in words.MODEL_TYPE.items()}}


@dataclass(frozen=True)
class Filters:
    """What the person wants to see. The texts come from a browser; one that is unknown filters nothing."""

    search: str = ""
    status: str = ALL
    model_type: str = "All types"

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
    """The parts of the tab that other rooms wire up. filters: search, status, type."""

    filters: tuple[gr.Textbox, gr.Radio, gr.Dropdown]
    storage: gr.HTML
    cards: gr.HTML


def build() -> ModelsTab:
    """Builds the tab's components."""
    html(page_head("Models", "Load one model at a time. The API serves the loaded one."))
    with gr.Row(elem_classes="mi-toolbar"):
        search = gr.Textbox(
            "",
            label="Search models",
            show_label=False,
            placeholder="Search models",
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
    storage = html(elem_id="storage-summary")
    cards = html(elem_id="models-list")
    return ModelsTab((search, status, kind), storage, cards)


def draw_storage(manager: "Manager", filters: Filters) -> str:
    """How many models there are and where the disk goes."""
    storage, shown, total = manager.storage(), len(chosen(manager, filters)), len(manager.records())
    parts = [
        words.several(total, "model") if shown == total else f"{shown} of {words.several(total, 'model')}",
        f"{words.size(storage.total_bytes)} on disk",
        f"{words.size(storage.free_bytes)} free",
    ]
    if storage.staging_bytes:
        parts.append(f"{words.size(storage.staging_bytes)} unfinished")
    left_over = _left_over(storage.orphans) + (_guide() if manager.lacks_guide else "")
    return f'<p class="mi-summary" aria-live="polite">{" · ".join(parts)}{_by_type(storage.by_type)}</p>{left_over}'


def draw_cards(manager: "Manager", filters: Filters) -> str:
    """Every model that the filters let through, newest first."""
    problems = "".join(note(sentence) for sentence in manager.system().problems)
    shown = chosen(manager, filters)
    if not shown:
        return problems + _nothing(bool(manager.records()))
    frees = manager.storage().models
    cards = (card(record, newest_event(manager, record), frees.get(record.id, 0)) for record in shown)
    return f'{problems}<div class="mi-list">{"".join(cards)}</div>'


def chosen(manager: "Manager", filters: Filters) -> list[ModelRecord]:
    """The records that the filters let through."""
    found = manager.records(model_type=filters.kind, q=filters.search.strip())
    return [record for record in found if record.status in filters.statuses]


def _by_type(used: dict[str, int]) -> str:
    """Where the disk goes by type, where there is more than one."""
    if len(used) < 2:
        return ""
    named = (f"{words.MODEL_TYPE[ModelType(kind)]} {words.size(count)}" for kind, count in sorted(used.items()))
    return f"<span>{' · '.join(named)}</span>"


def _left_over(orphans: dict[str, int]) -> str:
    """What belongs to no model, with a button that removes it."""
    if not orphans:
        return ""
    size = words.size(sum(orphans.values()))
    named = "\n".join(orphans)
    question = f"Remove {words.several(len(orphans), 'left-over')}?"
    return (
        f'<p class="mi-left-over"><span title="{escape(named)}">{size} belong to no model.</span>'
        f'<button type="button" class="mi-btn is-quiet is-danger" id="clean-btn" data-act="clean" data-model="0" '
        f'data-question="{question}" data-body="{escape(named)}" data-ok="Remove">{icon("trash")}'
        "<span>Remove left-overs</span></button></p>"
    )


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
