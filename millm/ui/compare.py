"""The other half of the Playground: the same prompt through two models or settings, side by side."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from millm.engines.base import Sampling
from millm.errors import InvalidRequest
from millm.records import ModelRecord, ModelType, Status
from millm.ui import words
from millm.ui.actions import toasts
from millm.ui.compare_view import LETTERS, draw_run, draw_warning
from millm.ui.wiring import QUIET, html
from millm.views import Contest, Entry

if TYPE_CHECKING:
    from millm.manager import Manager

MODES = ("Chat", "Compare")
ASKABLE = (Status.READY, Status.LOADING, Status.LOADED)
GREEDY = Sampling(temperature=0.0, max_tokens=256, seed=0)  # so that a difference is the models'
PER_SIDE = 5  # fields

Changed = Mapping[str, Any]
"""Properties of a component that change."""


@dataclass(frozen=True)
class Compare:
    """The parts that the page wires up. shown: in the order of `draw`. fields: prompt, system prompt, A's, B's."""

    shown: list[Any]
    fields: list[Any]
    warning: gr.HTML


def build_switch() -> gr.Radio:
    """Builds the switch between the conversation and the comparison; compare.css shows the half that is chosen."""
    return gr.Radio(
        list(MODES),
        value=MODES[0],
        label="Part of the Playground",
        interactive=True,  # no listener takes it, which gradio would read as a mere display
        show_label=False,
        elem_id="playground-mode",
        elem_classes="mi-segments",
    )


def build(manager: "Manager") -> Compare:
    """Builds form and result, and wires them."""
    with gr.Column(elem_id="compare-pane"):
        html('<h1 class="mi-hidden">Compare</h1>', classes="mi-unseen")
        with gr.Column(elem_classes="mi-panel", elem_id="compare-form"):
            prompt = gr.Textbox(
                "",
                label="Prompt",
                placeholder="The same for A and B",
                lines=2,
                max_lines=10,
                elem_id="compare-prompt",
            )
            with gr.Row(equal_height=False, elem_classes="mi-pair"):
                sides = [_build_side(letter) for letter in LETTERS]
            with gr.Accordion("System prompt", open=False):
                system = gr.Textbox(
                    "", label="System prompt", show_label=False, lines=2, max_lines=6, elem_id="compare-system"
                )
            warning = html(elem_id="compare-note")
            start = gr.Button("Compare", variant="primary", elem_id="compare-start")
        run = html(elem_id="compare-run")
        loaded = html(elem_id="compare-loaded")
    models = [side[0] for side in sides]
    fields = [prompt, system, *sides[0], *sides[1]]
    gr.on([start.click, prompt.submit], partial(begin, manager), fields, run, **QUIET)
    gr.on(
        [*(model.change for model in models), loaded.change],
        partial(warn_of, manager),
        models,
        warning,
        queue=False,
        trigger_mode="always_last",
        **QUIET,
    )
    return Compare([*models, loaded, run], fields, warning)


def begin(manager: "Manager", prompt: str, system: str, *values: Any) -> str:
    """Starts a comparison and draws it. values: the fields of A and then those of B."""
    with toasts():
        first, second = (
            _entry(manager, letter, *values[place : place + PER_SIDE])
            for letter, place in zip(LETTERS, (0, PER_SIDE), strict=True)
        )
        manager.side_by_side.begin(Contest(prompt.strip(), (first, second), system))
    return _run(manager)


def warn_of(manager: "Manager", *names: str | None) -> str:
    """What starting would do to the loaded model. names: the models chosen for A and B."""
    if _running(manager):
        return ""
    chosen = [record for name in names if (record := manager.find(name or ""))]
    return draw_warning(manager.loaded(), chosen)


def stamp(manager: "Manager") -> str:
    """Changes with everything that `draw` draws."""
    known = f"{_choices(manager)} {_loaded(manager)}"
    return f"{manager.side_by_side.version}/{zlib.crc32(known.encode())}"


def draw(manager: "Manager") -> list[Changed]:
    """The parts that follow the manager: the choices of A and B, what is loaded, the comparison."""
    choices = {"choices": _choices(manager)}
    return [choices, choices, {"value": _loaded(manager)}, {"value": _run(manager)}]


def fill(manager: "Manager", parts: Compare) -> dict[Any, Changed]:
    """The form as a page that opens finds it: that of the newest comparison, else a pair to begin with."""
    run, choices = manager.side_by_side.run, _choices(manager)
    asked = [side.sampling for side in run.sides] if run else [GREEDY, GREEDY]
    names = [side.model.name for side in run.sides] if run else _pair(manager)
    values: list[Any] = [run.contest.prompt, run.contest.system] if run else ["", ""]
    for name, each in zip(names, asked, strict=True):
        values += [name, each.temperature, each.top_p, each.max_tokens, each.seed]
    filled: dict[Any, Changed] = {part: {"value": value} for part, value in zip(parts.fields, values, strict=True)}
    models = {part: {**filled[part], "choices": choices} for part in parts.shown[: len(names)]}
    return {**filled, **models, parts.warning: {"value": warn_of(manager, *names)}}


def _build_side(letter: str) -> list[Any]:
    name = letter.lower()
    with gr.Column(min_width=280, elem_classes="mi-compare-side"):
        # `draw` brings the choices; `begin` says what is wrong with a model that has gone meanwhile
        model = gr.Dropdown([], label=f"Model {letter}", allow_custom_value=True, elem_id=f"compare-model-{name}")
        with gr.Row(elem_classes="mi-numbers"):
            temperature = _number(f"Temperature {letter}", 0, 2, 0.1, f"compare-temperature-{name}")
            top_p = _number(f"Top-p {letter}", 0, 1, 0.05, f"compare-top-p-{name}")
            tokens = _number(f"Max tokens {letter}", 1, 100_000, 1, f"compare-tokens-{name}")
            seed = _number(f"Seed {letter}", 0, 2**31, 1, f"compare-seed-{name}")
    return [model, temperature, top_p, tokens, seed]


def _number(label: str, least: float, most: float, step: float, element_id: str) -> gr.Number:
    return gr.Number(
        None,
        label=label,
        minimum=least,
        maximum=most,
        step=step,
        precision=0 if step == 1 else None,
        min_width=110,
        elem_id=element_id,
    )


def _entry(
    manager: "Manager",
    letter: str,
    name: str | None,
    temperature: float | None,
    top_p: float | None,
    tokens: float | None,
    seed: float | None,
) -> Entry:
    record = manager.find(name or "")
    if record is None:
        raise InvalidRequest(f"Choose a model for {letter}.")
    sampling = Sampling(
        temperature=GREEDY.temperature if temperature is None else float(temperature),
        top_p=GREEDY.top_p if top_p is None else float(top_p),
        max_tokens=int(tokens) if tokens else GREEDY.max_tokens,
        clip=True,
        seed=None if seed is None else int(seed),
    )
    return Entry(record.id, sampling)


def _run(manager: "Manager") -> str:
    return draw_run(manager.side_by_side.run, bool(_askable(manager)))


def _askable(manager: "Manager") -> list[ModelRecord]:
    return [record for record in manager.records(model_type=ModelType.LLM) if record.status in ASKABLE]


def _choices(manager: "Manager") -> list[tuple[str, str]]:
    return [(f"{record.name} • {words.quantization(record)}", record.name) for record in _askable(manager)]


def _loaded(manager: "Manager") -> str:
    """A mark whose change says that the warning may have to be another one."""
    record = manager.loaded()
    return f'<span data-loaded="{record.id if record else 0}" data-running="{_running(manager)}"></span>'


def _running(manager: "Manager") -> bool:
    run = manager.side_by_side.run
    return run is not None and run.running


def _pair(manager: "Manager") -> tuple[str | None, str | None]:
    """The loaded model, or the newest, and beside it another form of the same one, or else another."""
    records = _askable(manager)
    if not records:
        return None, None
    first = next((record for record in records if record.status is Status.LOADED), records[0])
    others = [record for record in records if record.id != first.id]
    same = [record for record in others if first.repo_id and record.repo_id == first.repo_id]
    return first.name, (same or others or [first])[0].name
