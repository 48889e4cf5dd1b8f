"""The form of the Download tab: its fields, which of them apply to which source, and what they ask for."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import gradio as gr

from millm.records import ELSEWHERE, SERVED, ModelType, Quantization, Source
from millm.sources.base import Origin
from millm.ui import words
from millm.ui.download_fields import build_places, build_revision_and_type, build_server, build_token_and_name, way
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
    server: str = ""
    server_model: str = ""
    server_key: str = ""

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
            case Source.REMOTE:
                name = self.server_model.strip() or None
                return Origin(source, repo_id=name, url=self.server.strip(), model_type=self.kind)
            case Source.HUGGINGFACE:
                return Origin(source, repo_id=self.repo.strip(), revision=self.revision.strip() or None, **common)

    @property
    def kind(self) -> ModelType:
        """What the model is for; Ollama has language models only."""
        return ModelType.LLM if Source(self.source) is Source.OLLAMA else ModelType(self.model_type)

    @property
    def secret(self) -> str | None:
        """What lets miLLM in: a server's key, or the access token of the hub; never one in place of the other."""
        return (self.server_key.strip() if Source(self.source) is Source.REMOTE else self.token) or None

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
    server: gr.Textbox
    server_model: gr.Textbox
    server_key: gr.Textbox
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
            self.revision, self.model_type, self.more, self.token_way, self.trust_way, self.server, self.server_model,
            self.server_key, self.download,
        ]  # fmt: skip


def switch(source: str, model_type: str, token: str, trust: bool) -> tuple[Any, ...]:
    """Shows the fields that apply to a source and a type, and hides the others.

    What few models need, a token and trust in their code, is open only where it is filled in; a button opens it.
    """
    chosen = Source(source)
    hub, local, url, ollama, server = (chosen is kind for kind in words.SOURCE)
    served = ModelType(model_type) in SERVED
    runs_code = served and chosen not in ELSEWHERE
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
        *(gr.Textbox(visible=server) for _ in range(3)),
        gr.Button("Add" if local or server else "Download"),
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
    repo, path, url, checksum, ollama = build_places()
    with gr.Row(elem_classes="mi-pair"):
        server, server_model, server_key = build_server()
    quantization = gr.Radio(
        form_labels(None, quantizations),
        value=quantizations[0].value,
        label="Quantization",
        info=" ".join(words.QUANTIZATION_NOTE[quantization] for quantization in quantizations),
        elem_id="quant-select",
        elem_classes="mi-segments mi-forms",
    )
    with gr.Row(elem_classes="mi-pair"):
        token, name = build_token_and_name()
    trust = gr.Checkbox(
        label="Trust remote code",
        info="Warning: loading the model then runs Python code of its author on this computer.",
        elem_id="trust-checkbox",
        visible=False,
    )
    with gr.Row(elem_classes="mi-ways"):
        token_way = way("I have an access token", "token-way")
        trust_way = way("The model needs code of its own", "trust-way")
    with gr.Accordion("More options", open=False, elem_id="more-options") as more, gr.Row(elem_classes="mi-pair"):
        revision, model_type = build_revision_and_type()
    with gr.Row(elem_classes="mi-buttons"):
        preview = gr.Button("Preview", elem_id="preview-btn", min_width=120)
        download = gr.Button("Download", variant="primary", elem_id="download-btn", min_width=120, scale=2)
        stop = gr.Button("Cancel", visible="hidden", elem_id="lookup-cancel-btn", min_width=120)
    return Form(
        source, repo, path, quantization, token, name, trust, url, checksum, ollama, revision, model_type,
        server, server_model, server_key, more, token_way, trust_way, preview, download, stop,
    )  # fmt: skip
