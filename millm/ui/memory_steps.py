"""The slider over the memory table, and what the table says at each of its steps.

Every text is written here; the browser only puts the texts of a step into their places, and then asks for the step
where the slider came to rest to be counted anew.
"""

import json
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

from millm.planning import fit_of
from millm.records import Quantization
from millm.ui import words
from millm.ui.costs import VERDICT, fit_icons, known_sizes, shown_parts

if TYPE_CHECKING:
    from millm.estimate import Estimate
    from millm.views import Fit, Preview

Forms = Mapping[Quantization, "Estimate"]


def verdict_line(preview: "Preview") -> str:
    """Whether the model goes into the memory that is free, in a line; "" where what it takes is not known."""
    forms = {form: sizes.memory for form, sizes in known_sizes(preview).items()}
    if not forms:
        return ""
    fit, said, why = _verdict(forms, preview)
    icons = fit_icons(18)
    return f'<div class="mi-fit is-{fit}">{icons}<div><b>{escape(said)}</b><p>{escape(why)}</p></div></div>'


def context_slider(preview: "Preview") -> str:
    """The slider, with all that moves with it; "" where there is nothing to choose."""
    known = known_sizes(preview)
    lengths = [each.context_length for each in next(iter(known.values())).along] if known else []
    if len(lengths) < 2:
        return ""
    steps = [_step(preview, place) for place in range(len(lengths))]
    here = next(iter(known.values())).memory.context_length
    place = min(range(len(lengths)), key=lambda each: abs(lengths[each] - here))
    data = escape(json.dumps(steps, ensure_ascii=False, separators=(",", ":")))
    return (
        f'<div class="mi-context" data-steps="{data}" data-counted="{place}">'
        '<label for="context-slider">Context length</label>'
        f'<output for="context-slider" data-context>{words.tokens(here)}</output>'
        f'<input type="range" id="context-slider" min="0" max="{len(lengths) - 1}" step="1" value="{place}" '
        f'aria-valuetext="{escape(str(steps[place]["aloud"]))}">'
        f"<small><span>{words.tokens(lengths[0])}</span><span>{words.tokens(lengths[-1])} tokens, all that the model "
        "takes</span></small></div>"
    )


def form_labels(preview: "Preview | None", offered: tuple[Quantization, ...]) -> list[tuple[str, str]]:
    """The quantizations as choices, each with the memory it takes and whether that fits, as far as it is known."""
    known = known_sizes(preview) if preview else {}
    return [(f"{form}\n{_hint(form, preview, known)}", form.value) for form in offered]


def _hint(form: Quantization, preview: "Preview | None", known: Mapping[Quantization, object]) -> str:
    if preview is None or not known:
        return words.FORM_HINT[form]
    if form not in known:
        return "as published"
    sizes = preview.sizes[form]
    return f"{words.size(sizes.memory.total)} · {words.FIT_SHORT[sizes.fit]}"


def _step(preview: "Preview", place: int) -> dict[str, object]:
    """What stands where, at one length: the texts in the order of their places in the table."""
    known = known_sizes(preview)
    forms = {form: sizes.along[place] for form, sizes in known.items()}
    fits = {form: fit_of(memory.total, preview.memory_free) for form, memory in forms.items()}
    tokens = next(iter(forms.values())).context_length
    fit, said, why = _verdict(forms, preview)
    aloud = ", ".join(f"{form} {VERDICT[fits[form]]}" for form in forms)
    return {
        "tokens": tokens,
        "said": words.tokens(tokens),
        "aloud": f"{words.tokens(tokens)} tokens: {aloud}",
        "verdict": [fit, said, why],
        "rows": [
            [words.size(memory.total), _percent(memory.total, preview.memory_free), fits[form], VERDICT[fits[form]]]
            for form, memory in forms.items()
        ],
        "parts": [words.size(getattr(memory, name)) for name in shown_parts(known) for memory in forms.values()],
    }


def _percent(needed: int, free: int) -> int:
    return round(min(100.0, 100 * needed / max(1, free)))


def _verdict(forms: Forms, preview: "Preview") -> "tuple[Fit, str, str]":
    """The best that can be said, what of, and what it rests on."""
    fits = {form: fit_of(memory.total, preview.memory_free) for form, memory in forms.items()}
    memory_kind = "GPU memory" if preview.on_gpu else "memory"
    free = f"{words.size(preview.memory_free)} of {memory_kind} free"
    recommended = next(iter(forms))
    needs = f"Needs {words.size(forms[recommended].total)}{_named(forms, [recommended])}, {free}."
    if good := [form for form in forms if fits[form] == "ok"]:
        return "ok", f"Fits in {memory_kind}{_named(forms, good)}", needs
    if tight := [form for form in forms if fits[form] == "tight"]:
        return "tight", f"Just fits in {memory_kind}{_named(forms, tight)}", needs
    return "exceeds", "Too big for this computer", needs


def _named(forms: Forms, chosen: list[Quantization]) -> str:
    """The forms that are meant, where there are others."""
    if len(forms) == 1:
        return ""
    return f" as {', '.join(chosen[:-1])} or {chosen[-1]}" if len(chosen) > 1 else f" as {chosen[0]}"
