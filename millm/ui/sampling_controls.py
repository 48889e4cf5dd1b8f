"""The panel beside the conversation: system prompt, sampling, the form of answers."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from millm.ui import schema_field
from millm.ui.answers import Controls
from millm.ui.icons import icon
from millm.ui.model_defaults import RANGES

PRESETS = (
    ("Plain and short", "Answer in plain words, and as briefly as the question allows."),
    ("Teacher", "You are a patient teacher. Explain step by step with small examples, then say what to try next."),
    (
        "Programmer",
        "You are an experienced programmer. Give working code first, then explain it briefly.",
    ),
    (
        "Editor",
        "Mend grammar, spelling and clarity of the text you get. Keep its meaning. Give only the text.",
    ),
    ("Translator", "Translate what you get into English. Give only the translation."),
)
FIRST = Controls()

# in the order of the fields of `Controls`
NAMES = (
    *("System prompt", "Temperature", "Max tokens", "Top-p", "Top-k", "Seed", "Min-p"),
    *("Repetition penalty", "Frequency penalty", "Presence penalty", "Stop strings", "JSON switch", "JSON schema"),
    "Token probabilities",
)
# What differs from the model's defaults, as `sampling.js` finds it; the button takes everything back.
CHANGED = (
    '<div class="mi-changed"><p id="changed-note" role="status"></p>'
    f'<button type="button" class="mi-btn is-quiet" id="reset-btn" hidden>{icon("retry", 16)}'
    "<span>Reset to the model's defaults</span></button></div>"
)
CHANGED_SCRIPT = """
window.millm.sampling.reset = () => trigger('reset');
"""


@dataclass(frozen=True)
class Panel:
    """The inputs in the order of the fields of `Controls`, and what stands around them."""

    inputs: list[Any]
    schema_note: gr.HTML
    changed: gr.HTML


def build() -> Panel:
    """Builds the panel. What its controls stand at is decided in the browser (`sampling.js`)."""
    gr.HTML(
        _presets(), apply_default_css=False, js_on_load="setTimeout(window.millm.presets.fill);", elem_id="presets"
    )
    system = gr.Textbox(
        FIRST.system,
        label="System prompt",
        placeholder="Optional. For example: Answer in one short paragraph.",
        lines=3,
        max_lines=6,
        elem_id="system-prompt",
    )
    temperature = _slider("temperature", FIRST.temperature, 0.05, "Temperature")
    max_tokens = gr.Number(
        FIRST.max_tokens,
        label="Max tokens",
        info="Empty: as many as there is room for",
        precision=0,
        minimum=1,
        elem_id="max-tokens",
    )
    with gr.Accordion("More sampling", open=False):
        more = _build_more()
    with gr.Accordion("Structured answer", open=False):
        switch, schema, schema_note = schema_field.build()
    chances = gr.Checkbox(
        label="Show token probabilities",
        info="For the answers to come. Costs a little speed.",
        elem_id="token-switch",
    )
    changed = gr.HTML(CHANGED, apply_default_css=False, js_on_load=CHANGED_SCRIPT, elem_id="changed")
    return Panel([system, temperature, max_tokens, *more, switch, schema, chances], schema_note, changed)


def _build_more() -> list[Any]:
    top_p = _slider("top_p", FIRST.top_p, 0.01, "Top-p")
    top_k = _slider("top_k", FIRST.top_k, 1, "Top-k", "0 is off")
    min_p = _slider("min_p", FIRST.min_p, 0.01, "Min-p", "0 is off")
    repetition = _slider("repetition_penalty", FIRST.repetition_penalty, 0.01, "Repetition penalty", "1 is off")
    frequency = _slider("frequency_penalty", FIRST.frequency_penalty, 0.1, "Frequency penalty", "0 is off")
    presence = _slider("presence_penalty", FIRST.presence_penalty, 0.1, "Presence penalty", "0 is off")
    seed = gr.Number(
        FIRST.seed, label="Seed", info="The same seed gives the same answer", precision=0, minimum=0, elem_id="seed"
    )
    stops = gr.Textbox(
        FIRST.stops,
        label="Stop strings",
        info="One a line; the answer ends before it. \\n is a new line",
        lines=2,
        max_lines=4,
        elem_id="stop-strings",
    )
    return [top_p, top_k, seed, min_p, repetition, frequency, presence, stops]


def _slider(field: str, value: float, step: float, label: str, info: str | None = None) -> gr.Slider:
    least, most = RANGES[field]
    # without gradio's reset button: that knows nothing of the model's defaults
    return gr.Slider(
        least, most, value, step=step, label=label, info=info, buttons=[], elem_id=field.replace("_", "-")
    )


def _presets() -> str:
    """The choice of system prompts: those that come with miLLM; `presets.js` adds the person's own."""
    options = "".join(f'<option value="{escape(text)}">{escape(name)}</option>' for name, text in PRESETS)
    return (
        '<label for="preset-select">Preset</label><div class="mi-presets">'
        '<select id="preset-select"><option value="">The model\'s own</option>'
        f'<optgroup label="miLLM\'s">{options}</optgroup><optgroup label="Yours" hidden></optgroup>'
        '<option value="" hidden>Written here</option></select>'
        '<button type="button" class="mi-btn is-quiet is-icon" id="preset-save-btn" title="Save as a preset" '
        f'aria-label="Save the system prompt as a preset">{icon("save")}</button>'
        '<button type="button" class="mi-btn is-quiet is-icon is-danger" id="preset-delete-btn" hidden '
        f'title="Delete this preset" aria-label="Delete this preset">{icon("trash")}</button></div>'
        '<p class="mi-note" id="presets-note" role="status" hidden></p>'
    )
