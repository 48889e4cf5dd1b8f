"""The fields of the Download tab's form, each with its label, its hint and its id."""

from typing import Any

import gradio as gr

from millm.records import ModelType
from millm.ui import words


def build_places() -> tuple[gr.Textbox, gr.Textbox, gr.Textbox, gr.Textbox, gr.Textbox]:
    """Where a model comes from, one line for each source but servers: repo, path, url, checksum, ollama."""
    repo = _line(
        "Repository ID",
        "Paste owner/name or the address of the model's page.",
        "e.g., google/gemma-2-2b",
        elem_id="repo-input",
    )
    path = _line(
        "Local path",
        "A folder with config.json and weights. Its files stay where they are.",
        "e.g., /home/me/models/my-model",
        elem_id="path-input",
        visible=False,
    )
    url = _line(
        "URL",
        "A weights file, or a .zip or .tar.gz of a model's folder.",
        "e.g., https://example.com/model.safetensors",
        elem_id="url-input",
        visible=False,
    )
    checksum = _line(
        "Checksum",
        "Checked before anything is stored.",
        "sha256:… or md5:…, optional",
        elem_id="checksum-input",
        visible=False,
    )
    ollama = _line(
        "Ollama model",
        "Pulled and run by the Ollama server on this computer.",
        "e.g., llama3:8b",
        elem_id="ollama-input",
        visible=False,
    )
    return repo, path, url, checksum, ollama


def build_server() -> tuple[gr.Textbox, gr.Textbox, gr.Textbox]:
    """The server that runs a model: its address, the model's name there, its key."""
    server = _line(
        "Server address",
        "Any that speaks the OpenAI API.",
        "e.g., http://gpu-box:8000/v1",
        elem_id="remote-input",
        visible=False,
    )
    name = _line(
        "Model", "Its name there. Empty: the only one.", "e.g., Qwen/Qwen3-32B", elem_id="remote-model", visible=False
    )
    key = _line(
        "Server key",
        "Only where it asks for one. Kept in memory.",
        "Optional",
        elem_id="remote-key",
        type="password",
        visible=False,
    )
    return server, name, key


def build_token_and_name() -> tuple[gr.Textbox, gr.Textbox]:
    """The access token of the hub, and what the model is to be called here."""
    token = _line(
        "Access token",
        "Only for gated or private models. Kept in memory.",
        "hf_…",
        elem_id="token-input",
        type="password",
        visible=False,
    )
    name = _line("Name", "What API clients ask for. Optional.", "Taken from the source", elem_id="name-input")
    return token, name


def build_revision_and_type() -> tuple[gr.Textbox, gr.Dropdown]:
    """What few people change."""
    revision = _line("Revision", "Branch, tag or commit. Optional.", "e.g., main", elem_id="revision-input")
    model_type = gr.Dropdown(
        [(words.type_of_model(kind), kind.value) for kind in words.MODEL_TYPE],
        value=ModelType.LLM.value,
        label="Type",
        info="What other than text is kept for other programs.",
        filterable=False,
        min_width=200,
        elem_id="type-select",
    )
    return revision, model_type


def way(text: str, elem_id: str) -> gr.Button:
    """A quiet button that opens a field which few models need."""
    return gr.Button(text, variant="secondary", size="sm", elem_id=elem_id, elem_classes="mi-quiet-way", min_width=0)


def _line(label: str, info: str, placeholder: str, **options: Any) -> gr.Textbox:
    plain = gr.InputHTMLAttributes(autocapitalize="off", autocorrect="off", spellcheck=False, autocomplete="off")
    return gr.Textbox(
        "",
        label=label,
        info=info,
        placeholder=placeholder,
        max_lines=1,
        min_width=200,
        html_attributes=plain,
        **options,
    )
