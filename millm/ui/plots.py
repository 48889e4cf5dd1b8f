"""Small plots of the last minutes, as inline SVG with a sentence that says the same."""

from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from math import ceil

from millm.history import KEPT_S, STEP_S

HEIGHT = 100.0
HEADROOM = 1.08  # how far the highest value stays below the upper edge
GAP_S = 4 * STEP_S  # longer ones are left open: nothing was measured, the machine slept


def plot(title: str, values: Sequence[tuple[float, float]], said: Callable[[float], str]) -> str:
    """A plot with its title, what is now and what was most.

    values: (seconds before now, value not below 0), oldest first. said: a value in words.
    """
    heights = [value for _, value in values]
    top = max(heights, default=0.0)
    now = said(heights[-1]) if heights else "not measured yet"
    lines = [_line(part, top) for part in _unbroken(values)]
    return (
        f'<figure class="mi-plot"><figcaption>{escape(title)}<span><b>{escape(now)}</b>'
        f'<span class="mi-plot-most" aria-hidden="true">most {escape(said(top))}</span></span></figcaption>'
        f'<svg role="img" aria-label="{escape(_summary(title, values, said))}" '
        f'viewBox="0 0 {KEPT_S:.0f} {HEIGHT:.0f}" preserveAspectRatio="none">{"".join(lines)}</svg>'
        '<p aria-hidden="true"><span>10 min ago</span><span>now</span></p>'
        "</figure>"
    )


def _summary(title: str, values: Sequence[tuple[float, float]], said: Callable[[float], str]) -> str:
    if not values:
        return f"{title}: not measured yet."
    heights = [value for _, value in values]
    minutes = ceil(values[0][0] / 60) or 1
    span = f"{minutes} minutes" if minutes > 1 else "minute"
    mean = said(sum(heights) / len(heights))
    return f"{title} in the last {span}: {said(heights[-1])} now, {said(max(heights))} at most, {mean} on average."


def _unbroken(values: Sequence[tuple[float, float]]) -> list[Sequence[tuple[float, float]]]:
    """The same in pieces without gaps."""
    ends = [place for place, (old, new) in enumerate(pairwise(values), 1) if old[0] - new[0] > GAP_S]
    return [values[start:end] for start, end in pairwise((0, *ends, len(values))) if end > start]


def _line(values: Sequence[tuple[float, float]], top: float) -> str:
    """One line and the area below it; a single value is as wide as a step."""
    places = [(KEPT_S - ago, HEIGHT - (HEIGHT * value / (top * HEADROOM) if top else 0.0)) for ago, value in values]
    (left, first), (right, _) = (max(0.0, places[0][0] - STEP_S), places[0][1]), places[-1]
    line = f"M{left:.0f} {first:.1f}" + "".join(f"L{x:.0f} {y:.1f}" for x, y in places)
    floor = f"L{right:.0f} {HEIGHT:.0f}L{left:.0f} {HEIGHT:.0f}Z"
    return f'<path class="mi-plot-area" d="{line}{floor}"/><path class="mi-plot-line" d="{line}"/>'
