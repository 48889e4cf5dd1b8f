"""The HTML of the suggested models; a click on one fills the form."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from millm.records import ModelType, Source
from millm.ui import words
from millm.ui.icons import icon

if TYPE_CHECKING:
    from millm.catalog import Entry, Suggestion
    from millm.manager import Manager

SHOWN_AT_ONCE = 6
PICK_SCRIPT = "window.millm.pick = (entry) => trigger('pick', { entry });"


def build() -> gr.HTML:
    """Builds the place of the list; its event `pick` brings the id of the suggestion that was clicked."""
    return gr.HTML("", apply_default_css=False, js_on_load=PICK_SCRIPT, elem_id="catalog")


def draw_catalog(manager: "Manager") -> str:
    """Every suggestion, the best for this machine first."""
    return catalog_list(manager.catalog())


def catalog_list(suggestions: "Sequence[Suggestion]") -> str:
    """The first few suggestions, and the others behind a line that opens."""
    if not suggestions:
        return ""
    rows = [_row(suggestion) for suggestion in suggestions]
    first, others = "".join(rows[:SHOWN_AT_ONCE]), "".join(rows[SHOWN_AT_ONCE:])
    more = f"<details><summary>{len(rows) - SHOWN_AT_ONCE} more suggestions</summary>{others}</details>"
    return (
        '<section class="mi-panel-html mi-catalog" aria-label="Suggested models"><h2 class="mi-h2">Suggestions</h2>'
        f"{first}{more if others else ''}</section>"
    )


def _row(suggestion: "Suggestion") -> str:
    entry = suggestion.entry
    gated = '<span class="mi-tag is-warning">Gated</span>' if entry.gated else ""
    verdict = "fits" if suggestion.fits else "too large for this machine"
    return (
        f'<button type="button" class="mi-pick" data-pick="{escape(entry.id)}">'
        f'<span class="mi-initials" aria-hidden="true">{escape(entry.title[:2])}</span>'
        f'<span class="mi-pick-text"><b>{escape(entry.title)}</b>{gated}'
        f"<span>{escape(entry.good_for)}</span><small>{escape(_facts(entry))}</small></span>"
        f'<span class="mi-verdict {"is-ok" if suggestion.fits else "is-bad"}">'
        f"{icon('check' if suggestion.fits else 'alert', 14)}{verdict}</span></button>"
    )


def _facts(entry: "Entry") -> str:
    parts = (
        "" if entry.model_type is ModelType.LLM else words.MODEL_TYPE[entry.model_type],
        f"{entry.params} params" if entry.params else "",
        words.size_of_mb(entry.download_mb) if entry.download_mb else "",
        "through Ollama" if entry.source is Source.OLLAMA else "",
    )
    return " • ".join(filter(None, parts))
