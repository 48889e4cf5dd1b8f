"""The HTML of whether a model goes into memory: what it needs, what is free, and what it is made of."""

from html import escape
from typing import TYPE_CHECKING

from millm.ui import words
from millm.ui.costs import EXACTLY
from millm.ui.icons import icon
from millm.ui.stacked_bar import Part, legend, stacked

if TYPE_CHECKING:
    from millm.views import Room


def memory_picture(room: "Room", present: str = "") -> str:
    """Needed, free now, free after unloading the present model, the verdict, and the parts. present: its name."""
    needed = room.needed
    parts = [
        Part("Weights", needed.weights, "is-part-1"),
        Part(f"Cache for {words.tokens(needed.context_length)} tokens", needed.kv_cache, "is-part-2"),
        Part("Reading the prompt", needed.activations, "is-part-3"),
        Part("Device", needed.overhead, "is-part-4"),
    ]
    there = room.free + room.freed
    scale = max(needed.total, there, 1)
    sign = icon("check" if room.fit == "ok" else "alert", 16)
    return (
        f'<section class="mi-room is-{room.fit}" aria-label="Memory"><dl class="mi-figures">'
        f"{_figures(room, present)}</dl>"
        f'<div class="mi-room-bar"><div class="mi-room-free" style="width:{100 * there / scale:.2f}%"></div>'
        f"{stacked(parts, scale, 'Memory needed')}</div>{legend([*parts, Part(_limit(room), there, 'is-limit')])}"
        f'<p class="mi-room-fit">{sign}<span>{_verdict(room, there)}</span></p>'
        f'<p class="mi-small">{_longest(room)}{_provenance(room)}</p></section>'
    )


def _figures(room: "Room", present: str) -> str:
    kind = "GPU memory" if room.on_gpu else "Memory"
    figures = {"Needs": room.needed.total, f"{kind} free now": room.free}
    if room.freed:
        figures[f"After unloading {present}"] = room.free + room.freed
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{words.size(count)}</dd></div>" for name, count in figures.items()
    )


def _limit(room: "Room") -> str:
    """What the mark on the bar stands for."""
    return "Free after unloading" if room.freed else "Free"


def _verdict(room: "Room", there: int) -> str:
    if room.fit == "exceeds":
        short = words.size(room.needed.total - there)
        return f"Does not fit: {short} short. Loading may fail or make this computer slow."
    left = words.size(there - room.needed.total)
    return f"Just fits, {left} to spare." if room.fit == "tight" else f"Fits, {left} to spare."


def _longest(room: "Room") -> str:
    """How many tokens of context fit; "" where that is not known."""
    most = room.needed.most_context
    if most is None:
        return ""
    return f"Up to {words.tokens(most)} tokens of context fit. " if most else "No context fits. "


def _provenance(room: "Room") -> str:
    rough = f"Roughly, {escape(room.needed.provenance)}."
    note = f" {escape(room.needed.note)}" if room.needed.note else ""
    return (EXACTLY if room.needed.provenance == "exact" else rough) + note
