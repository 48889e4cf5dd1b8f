"""The tab that brings models in: the form, the preview and the suggestions beside it, the downloads that run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from millm.ui import catalog_list
from millm.ui.cards import page_head
from millm.ui.download_form import Form, build_form, switch
from millm.ui.lookups import Lookups
from millm.ui.preview_card import hints
from millm.ui.wiring import QUIET, html

if TYPE_CHECKING:
    from millm.manager import Manager

# what download.js calls, and what it is told of: an answer that concerns a field, figures that the slider moves
CARD_SCRIPT = """
window.millm.look = () => trigger('look', {});
window.millm.weigh = (tokens) => trigger('weigh', { tokens });
watch('value', () => window.millm.answered(element));
"""
ENDING_SCRIPT = "watch('value', () => window.millm.answered(element));"


@dataclass(frozen=True)
class DownloadTab:
    """The parts of the tab that other rooms wire up: what is running, and the suggestions."""

    running: gr.HTML
    catalog: gr.HTML


def build(manager: "Manager") -> DownloadTab:
    """Builds the tab and wires it."""
    html(
        page_head("Download", "Get a model from HuggingFace, a folder, a web address, Ollama or another server."),
        "download-head",
    )
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320, elem_classes="mi-panel"):
            form = build_form(manager.quantizations)
        with gr.Column(scale=5, min_width=320, elem_classes="mi-side"):
            preview = gr.HTML("", apply_default_css=False, js_on_load=CARD_SCRIPT, elem_id="preview-card")
            ending = gr.HTML("", apply_default_css=False, js_on_load=ENDING_SCRIPT, elem_id="download-ending")
            running = html(elem_id="downloads")
            catalog = catalog_list.build()
            html(hints(), "download-hints")
    lookups = Lookups(manager)
    answered = [preview, form.preview, form.quantization, form.token, form.token_way, form.trust, form.trust_way]
    _wire_previews(lookups, form, preview, answered)
    _wire_form(lookups, form, [ending, running, preview, form.download])
    catalog.pick(
        lookups.pick,
        [form.quantization, form.token],
        [*form.inputs, *answered],
        trigger_mode="multiple",
        **QUIET,
    )
    return DownloadTab(running, catalog)


def _wire_previews(lookups: Lookups, form: Form, preview: gr.HTML, answered: list[gr.Component]) -> None:
    # "multiple": the newest question stops the one before it, so it has to reach the server
    lines = (
        form.repo,
        form.path,
        form.url,
        form.checksum,
        form.ollama,
        form.server,
        form.server_model,
        form.revision,
    )
    pressed = [form.preview.click, *(line.submit for line in lines)]
    gr.on(pressed, lookups.preview, form.inputs, answered, trigger_mode="multiple", **QUIET)
    preview.look(lookups.look, form.inputs, answered, trigger_mode="multiple", **QUIET)
    preview.weigh(lookups.weigh, None, answered, trigger_mode="multiple", **QUIET)
    form.stop.click(lookups.stop, queue=False, **QUIET)


def _wire_form(lookups: Lookups, form: Form, shown: list[gr.Component]) -> None:
    # "multiple": the listener lives as long as its download, and more downloads may be queued meanwhile
    form.download.click(lookups.download, form.inputs, shown, trigger_mode="multiple", **QUIET)
    gr.on(
        [form.source.change, form.model_type.change],
        switch,
        [form.source, form.model_type, form.token, form.trust],
        form.switched,
        queue=False,
        trigger_mode="always_last",
        **QUIET,
    )
    opened = (gr.update(visible=True), gr.update(visible=False))
    for way, field in ((form.token_way, form.token), (form.trust_way, form.trust)):
        way.click(lambda: opened, None, [field, way], queue=False, **QUIET)
