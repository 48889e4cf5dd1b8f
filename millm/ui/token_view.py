"""The HTML of an answer's tokens, each tinted by how likely the model found it; token_view.js opens one."""

import json
import math
from html import escape

from millm.events import Chance
from millm.ui import words

TOLD = 6
"""How many of the likeliest tokens are asked for in each place."""

MOST = 1500  # tokens drawn
LEVELS = ((0.9, "over 90%"), (0.5, "50–90%"), (0.2, "20–50%"), (0.05, "5–20%"), (0.0, "under 5%"))
MARKS = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}

MISSING = (
    '<details class="mi-tokens"><summary>Tokens</summary><div class="mi-tokens-missing"><p>No probabilities came '
    "with this answer. Switch on “Show token probabilities” and ask again. Models in Ollama tell none.</p>"
    '<button type="button" class="mi-btn" data-tokens-on>Switch on</button></div></details>'
)


def draw(chances: tuple[Chance, ...], tokens: int) -> str:
    """The tokens of a finished answer, or how to get them. tokens: how many the answer has."""
    if not chances:
        return MISSING if tokens else ""
    shown = chances[:MOST]
    told = [_told(chance) for chance in shown]
    cut = "" if len(shown) == len(chances) else f"<p>{_cut(len(chances))}</p>"
    return (
        f'<details class="mi-tokens" open><summary>Tokens</summary><div class="mi-tokens-body">{_legend()}'
        f'<div class="mi-tokens-text" role="group" aria-label="Tokens of the answer; arrow keys move between them" '
        f"data-told='{_attribute(told)}'>"
        f"{''.join(_button(chance, place) for place, chance in enumerate(shown))}</div>{cut}"
        '<div class="mi-token-told" aria-live="polite"><p>Choose a token to see how likely it was, and what else '
        "could have stood there.</p></div></div></details>"
    )


def visible(chance: Chance) -> str:
    """A token's text with its spaces and line ends made visible, or its bytes where they are no whole characters."""
    try:
        text = chance.raw.decode()
    except UnicodeDecodeError:
        return f"⟨{chance.raw.hex(' ').upper()}⟩"
    return "".join(MARKS.get(letter) or _printed(letter) for letter in text) or "⟨empty⟩"


def level(logprob: float) -> int:
    """Which tint a token has, 0 for the likeliest."""
    chance = math.exp(logprob)
    return next(rank for rank, (least, _) in enumerate(LEVELS) if chance >= least)


def _printed(letter: str) -> str:
    return letter if letter.isprintable() else f"⟨U+{ord(letter):04X}⟩"


def _button(chance: Chance, place: int) -> str:
    marked = escape(visible(chance))
    for mark in MARKS.values():
        marked = marked.replace(mark, f"<i>{mark}</i>")
    reached = "" if place == 0 else ' tabindex="-1"'
    ends = "<br>" * (b"\n" in chance.raw)
    return f'<button type="button" class="is-{level(chance.logprob)}"{reached}>{marked}</button>{ends}'


def _told(chance: Chance) -> list[float | str]:
    """What opening a token shows: its probability, then the text and probability of each other token."""
    others = (other for other in chance.others if other.raw != chance.raw)
    return [_probability(chance), *(part for other in others for part in (visible(other), _probability(other)))]


def _attribute(told: list[list[float | str]]) -> str:
    """JSON for an attribute in single quotes: double ones, of which there are many, stay as they are."""
    return escape(json.dumps(told, separators=(",", ":"), ensure_ascii=False), quote=False).replace("'", "&#x27;")


def _probability(chance: Chance) -> float:
    return round(math.exp(chance.logprob), 5)


def _legend() -> str:
    keys = "".join(f'<li><i class="is-{rank}"></i>{name}</li>' for rank, (_, name) in enumerate(LEVELS))
    return f'<ul class="mi-tokens-legend" aria-label="What the colours mean">{keys}</ul>'


def _cut(count: int) -> str:
    return f"The first {MOST:,} of {words.several(count, 'token')} are shown."
