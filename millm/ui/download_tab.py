"""The tab that brings models in: the form, the preview beside it, and the downloads that run."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr

from millm.errors import MiLLMError, explain
from millm.jobs import Job, Lane
from millm.records import ModelRecord, Quantization, Source
from millm.sources.base import Origin
from millm.ui import words
from millm.ui.actions import warn
from millm.ui.cards import page_head
from millm.ui.downloads_list import draw_downloads, draw_ending
from millm.ui.preview_card import hints, looking, preview_card, refused
from millm.ui.wiring import QUIET, html

if TYPE_CHECKING:
    from millm.manager import Manager

T = TypeVar("T")

LOOKUPS_AT_ONCE = 4
LOOKUPS_IN_ALL = 32
REDRAW_S = 0.25

UNCHANGED = gr.skip()


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
    preview: gr.Button
    download: gr.Button

    @property
    def inputs(self) -> list[Any]:
        """The fields, in the order in which the handlers take them."""
        return [self.source, self.repo, self.path, self.quantization, self.token, self.name, self.trust]


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

    @property
    def origin(self) -> Origin:
        """Where the model is to come from."""
        if Source(self.source) is Source.LOCAL:
            return Origin(Source.LOCAL, path=self.path.strip(), trust_remote_code=self.trust)
        return Origin(Source.HUGGINGFACE, repo_id=self.repo.strip(), trust_remote_code=self.trust)

    @property
    def title(self) -> str:
        """How the person named it."""
        return self.origin.repo_id or self.origin.path or "the model"


class Lookups:
    """Previews and starts of downloads. They wait for the network on a lane, so that no page waits silently."""

    def __init__(self, manager: "Manager") -> None:
        self._manager = manager
        self._lane = Lane("lookups", LOOKUPS_AT_ONCE, LOOKUPS_IN_ALL)

    def preview(self, *fields: Any) -> Iterator[tuple[Any, Any]]:
        """Yields (preview card, Preview button)."""
        asked = Asked(*fields)
        yield looking(asked.title), gr.Button(interactive=False)
        found = yield from self._ask(lambda: self._manager.plan(asked.origin, asked.token or None), (UNCHANGED,) * 2)
        drawn = refused(found.message) if isinstance(found, MiLLMError) else preview_card(found)
        yield drawn, gr.Button(interactive=True)

    def download(self, *fields: Any) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Yields (ending, running downloads, preview card, Download button) from the click to the end.

        The download itself is the manager's; when the page goes away only this telling of it ends.
        """
        asked = Asked(*fields)
        yield looking(asked.title), UNCHANGED, UNCHANGED, gr.Button(interactive=False)
        found = yield from self._ask(lambda: self._begin(asked), (UNCHANGED,) * 4)
        if isinstance(found, MiLLMError):
            warn(found.message)
            yield refused(found.message), UNCHANGED, UNCHANGED, gr.Button(interactive=True)
            return
        yield "", draw_downloads(self._manager), hints(), gr.Button(interactive=True)
        job = self._manager.job(found.id)
        if job is not None:
            for drawn in self._progress(job):
                yield UNCHANGED, drawn, UNCHANGED, UNCHANGED
        yield draw_ending(self._manager, found), draw_downloads(self._manager), UNCHANGED, UNCHANGED

    def _begin(self, asked: Asked) -> ModelRecord:
        return self._manager.download(
            asked.origin,
            quantization=Quantization(asked.quantization),
            token=asked.token or None,
            name=asked.name.strip() or None,
        )

    def _ask(self, work: Callable[[], T], unchanged: Any) -> Generator[Any, None, T | MiLLMError]:
        try:
            job = self._lane.submit(lambda _: work())
            for _ in job.events():
                yield unchanged
            return job.result()
        except Exception as error:  # noqa: BLE001  (a door: the person must see every error as a sentence)
            return explain(error)

    def _progress(self, job: Job[ModelRecord]) -> Iterator[str]:
        drawn_at = 0.0
        for event in job.events():
            if event is None or time.monotonic() - drawn_at >= REDRAW_S:
                drawn_at = time.monotonic()
                yield draw_downloads(self._manager)


def build(manager: "Manager") -> gr.HTML:
    """Builds the tab and wires it; returns the part that shows what is running, for the page's timer."""
    html(page_head("Download", "Get any Transformers model from HuggingFace, or add one from a folder."))
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320, elem_classes="mi-panel"):
            form = _build_form(manager.quantizations)
        with gr.Column(scale=5, min_width=320, elem_classes="mi-side"):
            ending = html(elem_id="download-ending")
            running = html(elem_id="downloads")
            preview = html(hints(), elem_id="preview-card")
    _wire(Lookups(manager), form, ending, running, preview)
    return running


def _build_form(quantizations: tuple[Quantization, ...]) -> Form:
    source = gr.Radio(
        [(word, source.value) for source, word in words.SOURCE.items()],
        value=Source.HUGGINGFACE.value,
        label="Source",
        elem_id="source-select",
        elem_classes="mi-segments",
    )
    repo, path = _build_places()
    quantization = gr.Radio(
        [quantization.value for quantization in quantizations],
        value=quantizations[0].value,
        label="Quantization",
        info=" ".join(words.QUANTIZATION_NOTE[quantization] for quantization in quantizations),
        elem_id="quant-select",
        elem_classes="mi-segments",
    )
    with gr.Row(elem_classes="mi-pair"):
        token, name = _build_token_and_name()
    trust = gr.Checkbox(
        label="Trust remote code",
        info="Warning: loading the model then runs Python code of its author on this computer.",
        elem_id="trust-checkbox",
    )
    with gr.Row(elem_classes="mi-buttons"):
        preview = gr.Button("Preview", elem_id="preview-btn", min_width=120)
        download = gr.Button("Download", variant="primary", elem_id="download-btn", min_width=120, scale=2)
    return Form(source, repo, path, quantization, token, name, trust, preview, download)


def _build_places() -> tuple[gr.Textbox, gr.Textbox]:
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
    return repo, path


def _build_token_and_name() -> tuple[gr.Textbox, gr.Textbox]:
    token = _line(
        "Access token",
        "Only for gated or private models. Kept in memory.",
        "hf_…",
        elem_id="token-input",
        type="password",
    )
    name = _line("Name", "What API clients ask for. Optional.", "Taken from the source", elem_id="name-input")
    return token, name


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


def _wire(lookups: Lookups, form: Form, ending: gr.HTML, running: gr.HTML, preview: gr.HTML) -> None:
    gr.on(
        [form.preview.click, form.repo.submit, form.path.submit],
        lookups.preview,
        form.inputs,
        [preview, form.preview],
        trigger_mode="multiple",  # the button is off meanwhile; "once" would swallow a click right after the answer
        **QUIET,
    )
    # "multiple": the listener lives as long as its download, and more downloads may be queued meanwhile
    shown = [ending, running, preview, form.download]
    form.download.click(lookups.download, form.inputs, shown, trigger_mode="multiple", **QUIET)
    form.source.change(
        _switch_source,
        form.source,
        [form.repo, form.path, form.token, form.download],
        queue=False,
        **QUIET,
    )


def _switch_source(source: str) -> tuple[Any, ...]:
    local = source == Source.LOCAL
    return (
        gr.Textbox(visible=not local),
        gr.Textbox(visible=local),
        gr.Textbox(visible=not local),
        gr.Button("Add" if local else "Download"),
    )
