"""The HTML of what each quantization of a model would take, against what this machine has free."""

from html import escape
from typing import TYPE_CHECKING

from millm.records import Quantization
from millm.ui import words
from millm.ui.cards import bar
from millm.ui.icons import icon

if TYPE_CHECKING:
    from millm.views import Preview, Sizes

ICON = {"ok": "check", "tight": "alert", "exceeds": "alert"}
EXACTLY = "Counted on an empty copy of the model; the weights are exact to the byte."
VERDICT = {"ok": "fits", "tight": "just fits", "exceeds": "does not fit"}


def costs(preview: "Preview") -> str:
    """A row for each quantization: memory against what is free, disk, the longest context; below, the parts."""
    known = {form: sizes for form, sizes in preview.sizes.items() if sizes.memory.total}
    if not known:
        return ""
    first = next(iter(known.values())).memory
    free = words.size(preview.memory_free)
    rows = "".join(_row(form, sizes, preview) for form, sizes in known.items())
    notes = dict.fromkeys(sizes.memory.note for sizes in known.values() if sizes.memory.note)
    said = "".join(
        f'<p class="mi-note is-warning">{icon("alert", 16)}<span>{escape(text)}</span></p>' for text in notes
    )
    return (
        f'<section class="mi-costs"><h3>Memory with {words.tokens(first.context_length)} tokens of context'
        f"<span>{free} free</span></h3>{rows}{said}"
        f'<details class="mi-parts"><summary>What it is made of</summary>{_parts(known)}</details></section>'
    )


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
        f'<span class="mi-cost-fit">{icon(ICON[sizes.fit], 15)}{VERDICT[sizes.fit]}</span>'
        f"<small>{' · '.join(more)}</small></div>"
    )


def _parts(known: "dict[Quantization, Sizes]") -> str:
    memories = [sizes.memory for sizes in known.values()]
    parts = {
        "Weights": [memory.weights for memory in memories],
        "Context (KV cache)": [memory.kv_cache for memory in memories],
        "Activations": [memory.activations for memory in memories],
        "Device": [memory.overhead for memory in memories],
    }
    heads = "".join(f'<th scope="col">{form}</th>' for form in known)
    rows = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(f"<td>{words.size(count)}</td>" for count in counts)}</tr>'
        for name, counts in parts.items()
        if any(counts)
    )
    provenance = memories[0].provenance
    how = EXACTLY if provenance == "exact" else f"Roughly, {provenance}."
    return f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table><p>{how}</p>"
