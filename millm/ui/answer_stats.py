"""The numbers of an answer: under it, and kept with it."""

import time
from html import escape

from millm.ui import token_view
from millm.ui.answers import Progress
from millm.ui.cards import note

ENDINGS = {"length": "cut at max tokens", "cancelled": "stopped", "failed": "broken off"}
BETWEEN = " · "


def numbers(progress: Progress) -> list[tuple[str, str]]:
    """Speed, time to the first token, tokens of answer and prompt, how it ended: pairs of a figure and its words."""
    if not progress.tokens:
        return []
    parts = [
        (f"{progress.tokens_per_s:.1f}", "tok/s"),
        (f"{progress.first_token_s:.2f} s", "to first token"),
        (f"{progress.tokens}", "answer tokens"),
    ]
    if progress.prompt_tokens:
        parts.append((f"{progress.prompt_tokens}", "prompt tokens"))
    if progress.ended == "stop" and not (progress.said.strip() or progress.thought):
        parts.append(("", "the model said nothing"))
    elif progress.ended in ENDINGS:
        parts.append(("", ENDINGS[progress.ended]))
    return parts


def line(progress: Progress) -> str:
    """The same as plain text: it goes into the conversation with the answer (`conversations.js` shows it there)."""
    return BETWEEN.join(f"{figure} {words}".strip() for figure, words in numbers(progress))


def draw_stats(progress: Progress, taken: bool = False) -> str:
    """The same between conversation and message, or what stands there instead.

    While the answer is being written it says so to playground.css, which shows Stop for it instead of Send. taken:
    whether the message box may be emptied (`conversations.js`).
    """
    if progress.problem:
        return note(progress.problem)
    parts = numbers(progress)
    marks = ("" if progress.ended else " data-busy") + (f' data-taken="{time.time_ns()}"' if taken else "")
    if not parts:
        return f'<p class="mi-stats"{marks}>{ENDINGS.get(progress.ended, "Reading the prompt…")}</p>'
    shown = "".join(f"<span>{f'<b>{figure}</b> ' if figure else ''}{escape(words)}</span>" for figure, words in parts)
    tokens = token_view.draw(progress.chances, progress.tokens) if progress.ended else ""
    return f'<p class="mi-stats"{marks}>{shown}</p>{tokens}'
