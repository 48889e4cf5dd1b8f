"""The HTML of a comparison: both sides, their figures, and where the answers differ."""

from html import escape

from millm.engines.base import Sampling
from millm.records import ModelRecord
from millm.ui import words
from millm.ui.cards import empty, note, progress
from millm.ui.icons import icon
from millm.views import Phase, Run, Side
from millm.word_diff import Span

LETTERS = ("A", "B")
ONLY = {"first": ("del", "only in A: "), "second": ("ins", "only in B: ")}
BADGES = {  # phase: colour, word
    Phase.WAITING: ("", "Waiting"),
    Phase.LOADING: ("is-loading", "Loading"),
    Phase.ANSWERING: ("is-loading", "Writing"),
    Phase.DONE: ("is-loaded", "Done"),
    Phase.FAILED: ("is-error", "Failed"),
    Phase.CANCELLED: ("", "Cancelled"),
}


def draw_run(run: Run | None, some: bool) -> str:
    """The newest comparison. some: whether there is a model to ask."""
    if run is None:
        return _nothing(some)
    sides = "".join(_side(letter, side) for letter, side in zip(LETTERS, run.sides, strict=True))
    busy = "is-busy" if run.running else "is-over"
    return (
        f'<section class="mi-run {busy}" aria-label="Comparison">{_head(run)}'
        f'<div class="mi-run-sides">{sides}</div>{_differences(run)}</section>'
    )


def draw_warning(loaded: ModelRecord | None, chosen: list[ModelRecord]) -> str:
    """What starting would do to the model that is loaded. chosen: the models of both sides, as far as known."""
    if not chosen:
        return ""
    if loaded and all(record.id == loaded.id for record in chosen):
        return f'<p class="mi-hint">{escape(loaded.name)} is loaded and stays loaded.</p>'
    if loaded:
        return note(f"This unloads {loaded.name} while it runs, and loads it again afterwards.", "is-warning")
    return f'<p class="mi-hint">{escape(chosen[-1].name)} stays loaded afterwards.</p>'


def _nothing(some: bool) -> str:
    if not some:
        return empty("models", "No model to ask yet", "Get one first, then compare.", "Get a model", "download")
    text = "The same prompt goes to A and then to B. Both answers, their speed and every difference show here."
    return empty("chart", "Nothing compared yet", text)


def _head(run: Run) -> str:
    stop = (
        '<button type="button" class="mi-btn" id="compare-cancel" data-act="stop-comparing" data-model="0">'
        f"{icon('stop')}<span>Cancel</span></button>"
    )
    moving = progress(run.before, run.returning) if run.before and run.returning else ""
    return (
        f'<header class="mi-run-head"><div><p class="mi-run-state" role="status">{escape(_doing(run))}</p>'
        f'<p class="mi-run-prompt"><span class="mi-hidden">Prompt: </span>{escape(run.contest.prompt)}</p></div>'
        f"{stop if run.running else ''}</header>{moving}{note(run.problem) if run.problem else ''}"
    )


def _doing(run: Run) -> str:
    if run.returning and run.before:
        return f"Loading {run.before.name} again…"
    for letter, side in zip(LETTERS, run.sides, strict=True):
        if run.running and side.phase in (Phase.WAITING, Phase.LOADING, Phase.ANSWERING):
            doing = "writing" if side.phase is Phase.ANSWERING else "getting ready"
            return f"{LETTERS.index(letter) + 1} of 2: {letter} is {doing}…"
    phases = {side.phase for side in run.sides}
    word = (
        "Cancelled." if Phase.CANCELLED in phases else "Ended with an error." if Phase.FAILED in phases else "Done."
    )
    return f"{word} {run.before.name} is loaded again." if run.before and run.returned else word


def _side(letter: str, side: Side) -> str:
    kind, word = BADGES[side.phase]
    name = escape(side.model.name)
    said = ""
    if side.event:
        said = progress(side.model, side.event)
    elif side.problem:
        said = note(side.problem)
    return (
        f'<article class="mi-run-side" id="compare-side-{letter.lower()}" aria-label="{letter}: {name}">'
        f'<header><span class="mi-initials" aria-hidden="true">{letter}</span><div class="mi-title">'
        f'<h2 title="{name}">{name}</h2><span class="mi-badge {kind}"><i aria-hidden="true"></i>{word}</span></div>'
        f'<p class="mi-run-settings">{escape(words.quantization(side.model))} • {_settings(side.sampling)}</p>'
        f"</header>{said}{_text(letter, side)}{_figures(side)}</article>"
    )


def _settings(sampling: Sampling) -> str:
    seed = "no seed" if sampling.seed is None else f"seed {sampling.seed}"
    parts = (f"temperature {sampling.temperature:g}", f"top-p {sampling.top_p:g}", f"max {sampling.max_tokens}", seed)
    return " • ".join(parts)


def _text(letter: str, side: Side) -> str:
    thought = escape(side.reasoning.strip())
    details = f"<details><summary>Reasoning</summary><p>{thought}</p></details>" if thought else ""
    if not side.text.strip():
        silent = '<p class="mi-hint">It said nothing.</p>' if side.phase is Phase.DONE else ""
        return f'<div class="mi-run-text">{details}{silent}</div>' if details or silent else ""
    copy = (
        f'<button type="button" class="mi-btn is-quiet is-icon" data-copy="{escape(side.text.strip())}" '
        f'title="Copy the answer" aria-label="Copy the answer of {letter}">{icon("copy")}</button>'
    )
    done = copy if side.phase is Phase.DONE else ""
    return f'<div class="mi-run-text">{details}<p>{escape(side.text.strip())}</p>{done}</div>'


def _figures(side: Side) -> str:
    """Speed, time to the first token, tokens and memory, as far as they are known."""
    known = [
        ("Speed", f"{side.tokens_per_s:.1f} tok/s", side.tokens_per_s),
        ("First token", f"{side.first_token_s:.2f} s", side.first_token_s),
        ("Tokens", f"{side.tokens}{_cut(side)}", side.tokens),
        ("Memory", words.size(side.memory_bytes), side.memory_bytes),
        ("Load", f"{side.load_s:.1f} s", side.load_s),
    ]
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value, there in known if there)
    return f'<dl class="mi-run-figures">{rows}</dl>' if side.tokens else ""


def _cut(side: Side) -> str:
    return ", cut at the limit" if side.finish_reason == "length" else ""


def _differences(run: Run) -> str:
    if not run.spans:
        return ""
    counts = {place: sum(span.words for span in run.spans if span.found_in == place) for place in ONLY}
    if not any(counts.values()):
        said, shown = "Both answers are the same, word for word.", ""
    else:
        shared = sum(span.words for span in run.spans if span.found_in == "both")
        share = 200 * shared / (2 * shared + sum(counts.values()))
        said = f"{share:.0f}% of the words are in both. {counts['first']} only in A, {counts['second']} only in B."
        shown = f'<p class="mi-diff-text">{"".join(map(_span, run.spans))}</p>'
    legend = '<p class="mi-diff-legend"><del>only in A</del> <ins>only in B</ins></p>' if shown else ""
    return (
        f'<section class="mi-diff" id="compare-diff" aria-label="Differences"><h2 class="mi-h2">Differences</h2>'
        f'<p class="mi-hint">{said}</p>{legend}{shown}</section>'
    )


def _span(span: Span) -> str:
    if span.found_in == "both":
        return escape(span.text)
    tag, said = ONLY[span.found_in]
    bare = span.text.lstrip()
    space = span.text[: len(span.text) - len(bare)]
    return f'{space}<{tag}><span class="mi-hidden">{said}</span>{escape(bare)}</{tag}>'
