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
        '<section class="mi-panel-html mi-catalog" aria-label="Suggested models">'
        f'<h2 class="mi-h2">{_title(suggestions[0])}</h2>{first}{more if others else ""}</section>'
    )


def _title(first: "Suggestion") -> str:
    if not first.fits:
        return "Suggestions"
    return f'Good fits for this computer <span class="mi-count">{words.size(first.memory_free)} of memory free</span>'


def _row(suggestion: "Suggestion") -> str:
    entry = suggestion.entry
    gated = '<span class="mi-tag is-warning">Gated</span>' if entry.gated else ""
    small = escape(" • ".join(filter(None, (*_facts(entry), _reason(suggestion)))))
    return (
        f'<button type="button" class="mi-pick" data-pick="{escape(entry.id)}">'
        f'<span class="mi-initials" aria-hidden="true">{escape(entry.title[:2])}</span>'
        f'<span class="mi-pick-text"><b>{escape(entry.title)}</b>{gated}'
        f"<span>{escape(entry.good_for)}</span><small>{small}</small></span>"
        f'<span class="mi-verdict {"is-ok" if suggestion.fits else "is-bad"}">'
        f"{icon('check' if suggestion.fits else 'alert', 14)}{_verdict(suggestion)}</span></button>"
    )


def _verdict(suggestion: "Suggestion") -> str:
    """Whether it fits, and in which form at best."""
    if not suggestion.fits:
        return "too big for the disk" if suggestion.lacks_disk else "too big"
    if suggestion.form is None:
        return "fits"
    return f"{suggestion.fitting[-1]} fits"  # the forms come from the smallest to the largest


def _reason(suggestion: "Suggestion") -> str:
    """What the verdict rests on: "about 5.1 GB as Q4"; of what does not fit also what is free."""
    if suggestion.lacks_disk:
        needed = words.size_of_mb(suggestion.entry.download_mb or 0)
        return f"{needed} of disk needed, {words.size(suggestion.disk_free)} free"
    if not suggestion.memory:
        return ""
    form = f"as {suggestion.form}" if suggestion.form else "of memory"
    free = "" if suggestion.fits else f", {words.size(suggestion.memory_free)} free"
    return f"about {words.size(suggestion.memory)} {form}{free}"


def _facts(entry: "Entry") -> tuple[str, ...]:
    return (
        "" if entry.model_type is ModelType.LLM else words.MODEL_TYPE[entry.model_type],
        f"{entry.params} params" if entry.params else "",
        f"{words.size_of_mb(entry.download_mb)} download" if entry.download_mb else "",
        "through Ollama" if entry.source is Source.OLLAMA else "",
    )
