"""The field for a JSON schema that answers are to follow, and what is wrong with what stands in it."""

import json
from typing import Any

import gradio as gr

from millm.ui.cards import note
from millm.ui.wiring import QUIET, html

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
PLACEHOLDER = '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}'


def problem(text: str) -> str:
    """What is wrong with the text of a JSON schema, as a sentence; "" where nothing is, or nothing stands there.

    What only a model's grammar can tell comes as the error of the answer.
    """
    if not text.strip():
        return ""
    try:
        schema = json.loads(text)
        if not isinstance(schema, dict):
            return "A JSON schema is an object: it begins with { and ends with }."
        return _wrong_type(schema)
    except json.JSONDecodeError as error:
        return f"This is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
    except RecursionError:
        return "This schema is nested too deeply."


def _wrong_type(schema: dict[str, Any]) -> str:
    kind = schema.get("type", [])
    for word in kind if isinstance(kind, list) else [kind]:
        if word not in TYPES:
            return f"{json.dumps(word)} is no type of JSON schema. Choose among {', '.join(TYPES)}."
    parts = schema.get("properties")
    inner = [*parts.values()] if isinstance(parts, dict) else []
    inner.append(schema.get("items"))
    return next((said for part in inner if isinstance(part, dict) and (said := _wrong_type(part))), "")


def draw(text: str, structured: bool = True) -> str:
    """The sentence under the field. structured: whether answers are to follow the schema."""
    wrong = problem(text)
    if wrong:
        return note(wrong)
    if structured and not text.strip():
        return '<p class="mi-hint">Write a schema; until then answers are free.</p>'
    return ""


def build() -> tuple[gr.Checkbox, gr.Textbox, gr.HTML]:
    """Builds switch, field and the sentence under it."""
    switch = gr.Checkbox(False, label="Answers follow this JSON schema", elem_id="schema-switch")
    field = gr.Textbox(
        "",
        label="JSON schema",
        placeholder=PLACEHOLDER,
        lines=5,
        max_lines=14,
        elem_id="schema-input",
        elem_classes="mi-mono",
    )
    said = html(elem_id="schema-note")
    gr.on(
        [field.change, switch.change],
        draw,
        [field, switch],
        said,
        queue=False,
        trigger_mode="always_last",
        **QUIET,
    )
    return switch, field, said
