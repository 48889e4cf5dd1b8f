"""The form of the Download tab: its fields, which of them apply to which source, and what they ask for."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import gradio as gr

from millm.records import SERVED, ModelType, Quantization, Source
from millm.sources.base import Origin
from millm.ui import words
from millm.ui.memory_steps import form_labels

if TYPE_CHECKING:
    from millm.catalog import Entry


@dataclass(frozen=True)
class Asked:
    """What the form holds when a button is pressed."""

    source: str
    repo: str
    path: str
    quantization: str
    token: str
    name: str
    trust: bool
    url: str = ""
    checksum: str = ""
    ollama: str = ""
    revision: str = ""
    model_type: str = ModelType.LLM.value

    @property
    def origin(self) -> Origin:
        """Where the model is to come from."""
        source = Source(self.source)
        if source is Source.OLLAMA:
            return Origin(source, repo_id=self.ollama.strip())
        common: dict[str, Any] = {"trust_remote_code": self.trust, "model_type": self.kind}
        match source:
            case Source.LOCAL:
                return Origin(source, path=self.path.strip(), **common)
            case Source.URL:
                return Origin(source, url=self.url.strip(), checksum=self.checksum.strip() or None, **common)
            case Source.HUGGINGFACE:
                return Origin(source, repo_id=self.repo.strip(), revision=self.revision.strip() or None, **common)

    @property
    def kind(self) -> ModelType:
        """What the model is for; Ollama has language models only."""
        return ModelType.LLM if Source(self.source) is Source.OLLAMA else ModelType(self.model_type)

    @property
    def title(self) -> str:
        """How the person named it."""
        return self.origin.repo_id or self.origin.path or self.origin.url or "the model"


@dataclass(frozen=True)
class Form:
    """What the person fills in and presses."""

    source: gr.Radio
    repo: gr.Textbox
    path: gr.Textbox
    quantization: gr.Radio
    token: gr.Textbox
    name: gr.Textbox
    trust: gr.Checkbox
    url: gr.Textbox
    checksum: gr.Textbox
    ollama: gr.Textbox
    revision: gr.Textbox
    model_type: gr.Dropdown
    more: gr.Accordion
    token_way: gr.Button
    trust_way: gr.Button
    preview: gr.Button
    download: gr.Button
    stop: gr.Button

    @property
    def inputs(self) -> list[Any]:
        """The fields, in the order in which `Asked` takes them."""
        return [getattr(self, field.name) for field in fields(Asked)]

    @property
    def switched(self) -> list[Any]:
        """The parts that `switch` shows and hides, in its order."""
        return [
            self.repo, self.path, self.url, self.checksum, self.ollama, self.quantization, self.token, self.trust,
            self.revision, self.model_type, self.more, self.token_way, self.trust_way, self.download,
        ]  # fmt: skip


def switch(source: str, model_type: str, token: str, trust: bool) -> tuple[Any, ...]:
    """Shows the fields that apply to a source and a type, and hides the others.

    What few models need, a token and trust in their code, is open only where it is filled in; a button opens it.
    """
    chosen = Source(source)
    hub, local, url, ollama = (chosen is kind for kind in words.SOURCE)
    served = ModelType(model_type) in SERVED
    runs_code = served and not ollama
    return (
        gr.Textbox(visible=hub),
        gr.Textbox(visible=local),
        gr.Textbox(visible=url),
        gr.Textbox(visible=url),
        gr.Textbox(visible=ollama),
        gr.Radio(visible=runs_code),
        gr.Textbox(visible=hub and bool(token)),
        gr.Checkbox(visible=runs_code and trust),
        gr.Textbox(visible=hub),
        gr.Dropdown(visible=not ollama),
        gr.Accordion(visible=not ollama),
        gr.Button(visible=hub and not token),
        gr.Button(visible=runs_code and not trust),
        gr.Button("Add" if local else "Download"),
    )


def filled(entry: "Entry", quantization: str, token: str) -> Asked:
    """The form with a suggestion of the catalogue in it; quantization and token stay as they are."""
    return Asked(
        source=entry.source.value,
        repo=entry.repo_id or "",
        path="",
        quantization=quantization,
        token=token,
        name="",
        trust=False,
        url=entry.url or "",
        ollama=entry.ollama_name or "",
        model_type=entry.model_type.value,
    )


def build_form(quantizations: tuple[Quantization, ...]) -> Form:
    """Builds the form."""
    source = gr.Radio(
        [(word, source.value) for source, word in words.SOURCE.items()],
        value=Source.HUGGINGFACE.value,
        label="Source",
        elem_id="source-select",
        elem_classes="mi-segments",
    )
    repo, path, url, checksum, ollama = _build_places()
    quantization = gr.Radio(
        form_labels(None, quantizations),
        value=quantizations[0].value,
        label="Quantization",
        info=" ".join(words.QUANTIZATION_NOTE[quantization] for quantization in quantizations),
        elem_id="quant-select",
        elem_classes="mi-segments mi-forms",
    )
    with gr.Row(elem_classes="mi-pair"):
        token, name = _build_token_and_name()
    trust = gr.Checkbox(
        label="Trust remote code",
        info="Warning: loading the model then runs Python code of its author on this computer.",
        elem_id="trust-checkbox",
        visible=False,
    )
    with gr.Row(elem_classes="mi-ways"):
        token_way = _way("I have an access token", "token-way")
        trust_way = _way("The model needs code of its own", "trust-way")
    with gr.Accordion("More options", open=False, elem_id="more-options") as more, gr.Row(elem_classes="mi-pair"):
        revision, model_type = _build_revision_and_type()
    with gr.Row(elem_classes="mi-buttons"):
        preview = gr.Button("Preview", elem_id="preview-btn", min_width=120)
        download = gr.Button("Download", variant="primary", elem_id="download-btn", min_width=120, scale=2)
        stop = gr.Button("Cancel", visible="hidden", elem_id="lookup-cancel-btn", min_width=120)
    return Form(
        source, repo, path, quantization, token, name, trust, url, checksum, ollama, revision, model_type,
        more, token_way, trust_way, preview, download, stop,
    )  # fmt: skip


def _build_places() -> tuple[gr.Textbox, gr.Textbox, gr.Textbox, gr.Textbox, gr.Textbox]:
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


def _build_token_and_name() -> tuple[gr.Textbox, gr.Textbox]:
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


def _build_revision_and_type() -> tuple[gr.Textbox, gr.Dropdown]:
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


def _way(text: str, elem_id: str) -> gr.Button:
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
