"""What stands in an empty conversation: suggestions, or how to get a model."""

import json
from dataclasses import astuple
from html import escape
from typing import TYPE_CHECKING

from millm.records import ModelRecord, ModelType, Status
from millm.ui.cards import empty, newest_event
from millm.ui.cards import progress as draw_progress
from millm.ui.icons import icon
from millm.ui.model_defaults import defaults

if TYPE_CHECKING:
    from millm.manager import Manager

EXAMPLES = (
    "Explain quantization in three sentences",
    "Write a haiku about local models",
    "Draft a polite reply to a late invoice",
)
GUIDE_EXAMPLES = (
    "What can miLLM do?",
    "What does Q4 mean?",
    "How do I call the API from Python?",
    "Give me a JSON object with name Ada and age 36",
)
OFFERED = 3
"""How many models can be loaded from here with one click; the others are in the list of models."""


def draw_notice(manager: "Manager") -> str:
    """What stands there now, with the controls that the loaded model wants (`sampling.js` reads them)."""
    loaded = manager.loaded()
    return f'<div data-defaults="{_told(loaded)}">{_draw(manager, loaded)}</div>'


def _told(record: ModelRecord | None) -> str:
    """The name of a model and its defaults in the order of the controls, as JSON for an attribute."""
    return escape(json.dumps({"model": record.name if record else "", "values": astuple(defaults(record))}))


def _draw(manager: "Manager", loaded: ModelRecord | None) -> str:
    for record in manager.records(status=Status.LOADING):
        event = newest_event(manager, record)
        moving = draw_progress(record, event) if event else ""
        return f'<div class="mi-empty"><h2>Loading {escape(record.name)}</h2>{moving}</div>'
    if loaded and loaded.model_type is ModelType.EMBEDDING:
        text = "It turns texts into vectors for programs, at /v1/embeddings. To chat, load a language model."
        return empty("models", f"{loaded.name} makes embeddings and cannot chat", text, "Choose a model", "models")
    if loaded:
        return _suggestions(loaded)
    ready = manager.records(status=Status.READY)
    guide = manager.guide()
    if guide and guide.status is Status.READY and len(ready) == 1:
        return _offer_guide(guide)
    if models := [record for record in ready if record.model_type is ModelType.LLM and not record.damaged]:
        return _offer(sorted(models, key=lambda record: record.built_in), more=len(ready) > OFFERED)
    if ready:
        return empty("models", "No model is loaded", "Load one, then ask it here.", "Choose a model", "models")
    return empty("models", "No model is loaded", "Get one first, then load it.", "Get a model", "download")


def _offer_guide(guide: ModelRecord) -> str:
    """The built-in model alone, one click away."""
    name = escape(guide.name)
    return (
        f'<div class="mi-empty">{icon("models", 34)}<h2>No model is loaded</h2>'
        f"<p>{name} ships with miLLM: very small, it answers questions about miLLM itself.</p>"
        f'<button type="button" class="mi-btn is-primary" id="guide-load-btn" data-act="load" '
        f'data-model="{guide.id}">Chat with {name}</button></div>'
    )


def _offer(models: list[ModelRecord], more: bool) -> str:
    """Models that can be loaded, one click away. more: there are others."""
    buttons = "".join(
        f'<button type="button" class="mi-btn{" is-primary" if not place else ""}" data-act="load" '
        f'data-model="{record.id}"{_known_id(record)}><span>Load {escape(record.name)}</span></button>'
        for place, record in enumerate(models[:OFFERED])
    )
    other = '<button type="button" class="mi-btn is-quiet" data-tab="models">All models</button>' if more else ""
    return (
        f'<div class="mi-empty">{icon("models", 34)}<h2>No model is loaded</h2><p>Load one, then ask it here.</p>'
        f'<div class="mi-offer">{buttons}{other}</div></div>'
    )


def _known_id(record: ModelRecord) -> str:
    return ' id="guide-load-btn"' if record.built_in else ""


def _suggestions(record: ModelRecord) -> str:
    buttons = "".join(
        f'<button type="button" class="mi-example" data-say="{escape(text)}">{escape(text)}</button>'
        for text in (GUIDE_EXAMPLES if record.built_in else EXAMPLES)
    )
    return (
        f'<div class="mi-empty mi-start"><h2>Ask {escape(record.name)}</h2>'
        f"<p>What you write goes to this miLLM and nowhere else.</p>{buttons}</div>"
    )
