"""The HTML of what each quantization of a model would take, against what this machine has free."""

from html import escape
from typing import TYPE_CHECKING

from millm.records import Quantization
from millm.ui import words
from millm.ui.cards import bar
from millm.ui.icons import icon

if TYPE_CHECKING:
    from millm.views import Preview, Sizes

EXACTLY = "Counted on an empty copy of the model; the weights are exact to the byte."
VERDICT = {"ok": "fits", "tight": "just fits", "exceeds": "does not fit"}
PARTS = {"weights": "Weights", "kv_cache": "Context (KV cache)", "activations": "Activations", "overhead": "Device"}


def costs(preview: "Preview") -> str:
    """A row for each quantization: memory against what is free, disk, the longest context; below, the parts."""
    known = known_sizes(preview)
    if not known:
        return ""
    first = next(iter(known.values())).memory
    free = words.size(preview.memory_free)
    tokens = f"<b data-context>{words.tokens(first.context_length)}</b>"
    rows = "".join(_row(form, sizes, preview) for form, sizes in known.items())
    notes = dict.fromkeys(sizes.memory.note for sizes in known.values() if sizes.memory.note)
    said = "".join(
        f'<p class="mi-note is-warning">{icon("alert", 16)}<span>{escape(text)}</span></p>' for text in notes
    )
    return (
        f'<section class="mi-costs"><h3><b>Memory with {tokens} tokens of context</b>'
        f"<span>{free} free</span></h3>{rows}{said}"
        f'<details class="mi-parts"><summary>What it is made of</summary>{_parts(known)}</details></section>'
    )


def fit_icons(pixels: int) -> str:
    """Both symbols of how well something fits; the style sheet shows the one that applies."""
    good, bad = icon("check", pixels), icon("alert", pixels)
    return f'<i class="for-good" aria-hidden="true">{good}</i><i class="for-bad" aria-hidden="true">{bad}</i>'


def known_sizes(preview: "Preview") -> "dict[Quantization, Sizes]":
    """What each form would take, where the memory is known."""
    return {form: sizes for form, sizes in preview.sizes.items() if sizes.memory.total}


def shown_parts(known: "dict[Quantization, Sizes]") -> list[str]:
    """The parts of an estimate that take anything in any form, in the order of the table's rows."""
    return [name for name in PARTS if any(getattr(sizes.memory, name) for sizes in known.values())]


def _row(form: Quantization, sizes: "Sizes", preview: "Preview") -> str:
    memory = sizes.memory
    share = 100 * memory.total / max(1, preview.memory_free)
    more = [f"{words.size(sizes.disk_bytes)} on disk"] if sizes.disk_bytes else []
    if memory.most_context:
        more.append(f"up to {words.tokens(memory.most_context)} tokens fit")
    elif memory.most_context == 0:
        more.append("no context fits")
    return (
        f'<div class="mi-cost is-{sizes.fit}"><b>{form}</b>{bar(share, f"Memory {form} needs, of what is free")}'
        f'<span class="mi-cost-size">{words.size(memory.total)}</span>'
        f'<span class="mi-cost-fit">{fit_icons(15)}{VERDICT[sizes.fit]}</span>'
        f"<small>{' · '.join(more)}</small></div>"
    )


def _parts(known: "dict[Quantization, Sizes]") -> str:
    memories = [sizes.memory for sizes in known.values()]
    heads = "".join(f'<th scope="col">{form}</th>' for form in known)
    rows = "".join(
        f'<tr><th scope="row">{PARTS[name]}</th>'
        f"{''.join(f'<td>{words.size(getattr(memory, name))}</td>' for memory in memories)}</tr>"
        for name in shown_parts(known)
    )
    provenance = memories[0].provenance
    how = EXACTLY if provenance == "exact" else f"Roughly, {provenance}."
    return f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table><p>{how}</p>"
