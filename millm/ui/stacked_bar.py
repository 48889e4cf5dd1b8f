"""The HTML of a whole and its parts: a bar, and a legend that says the same in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from millm.ui import words


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a whole. count: bytes. kind: the class that gives its colour."""

    name: str
    count: int
    kind: str


def stacked(parts: Sequence[Part], whole: int, label: str) -> str:
    """A bar of all parts that are there, each as wide as its share of `whole` bytes; read out as one picture."""
    shown = [part for part in parts if part.count > 0]
    said = ", ".join(f"{part.name} {words.size(part.count)}" for part in shown)
    pieces = "".join(
        f'<i class="{part.kind}" style="width:{100 * part.count / max(1, whole):.2f}%" '
        f'title="{escape(part.name)}: {words.size(part.count)}"></i>'
        for part in shown
    )
    return f'<div class="mi-stack" role="img" aria-label="{escape(label)}: {escape(said)}">{pieces}</div>'


def legend(parts: Sequence[Part]) -> str:
    """The names and sizes of the parts, each beside its colour."""
    rows = "".join(
        f'<li><i class="{part.kind}" aria-hidden="true"></i><span>{escape(part.name)}</span>'
        f"<b>{words.size(part.count)}</b></li>"
        for part in parts
        if part.count > 0
    )
    return f'<ul class="mi-legend">{rows}</ul>'
