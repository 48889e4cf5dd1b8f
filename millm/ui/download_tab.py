"""The tab that brings models in: the form, the preview and the suggestions beside it, the downloads that run."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

import gradio as gr

from millm.errors import Cancelled, MiLLMError, explain
from millm.jobs import Job, Lane
from millm.records import ModelRecord, Quantization
from millm.ui import catalog_list
from millm.ui.actions import NONSENSE, warn
from millm.ui.cards import page_head
from millm.ui.download_form import Asked, Form, build_form, filled, switch
from millm.ui.downloads_list import draw_downloads, draw_ending
from millm.ui.preview_card import hints, looking, preview_card, refused
from millm.ui.wiring import QUIET, html

if TYPE_CHECKING:
    from millm.manager import Manager
    from millm.views import Preview

T = TypeVar("T")

LOOKUPS_AT_ONCE = 4
LOOKUPS_IN_ALL = 32
REDRAW_S = 0.25

UNCHANGED = gr.skip()


@dataclass(frozen=True)
class DownloadTab:
    """The parts of the tab that other rooms wire up: what is running, and the suggestions."""

    running: gr.HTML
    catalog: gr.HTML


class Lookups:
    """Previews and starts of downloads. They wait for the network on a lane, so that no page waits silently."""

    def __init__(self, manager: "Manager") -> None:
        self._manager = manager
        self._asking: WeakValueDictionary[str | None, Job[Any]] = WeakValueDictionary()  # by session
        self._lane = Lane("lookups", LOOKUPS_AT_ONCE, LOOKUPS_IN_ALL)

    def preview(self, request: gr.Request, *fields: Any) -> Iterator[tuple[Any, ...]]:
        """Yields (preview card, Preview button)."""
        asked = Asked(*fields)

        def look(check: Callable[[], None]) -> "Preview":
            return self._manager.plan(asked.origin, asked.token or None, check=check)

        yield looking(asked.title), gr.Button(interactive=False)
        found = yield from self._ask(request, look, (UNCHANGED,) * 2)
        yield drawn_answer(found, asked), gr.Button(interactive=True)

    def stop(self, request: gr.Request) -> None:
        """Ends what this page is waiting for."""
        if job := self._asking.get(request.session_hash):
            job.cancel()

    def pick(
        self, event: gr.EventData, request: gr.Request, quantization: str, token: str
    ) -> Iterator[tuple[Any, ...]]:
        """Fills the form with a suggestion and previews it. Yields (every field, then what `preview` yields)."""
        key = getattr(event, "entry", None)  # comes from a browser and may be anything
        entry = next((each.entry for each in self._manager.catalog() if each.entry.id == key), None)
        if entry is None:
            warn(NONSENSE)
            return
        asked = filled(entry, quantization, token)
        fields: tuple[Any, ...] = astuple(asked)
        for drawn in self.preview(request, *astuple(asked)):
            yield (*fields, *drawn)
            fields = (UNCHANGED,) * len(fields)

    def download(self, request: gr.Request, *fields: Any) -> Iterator[tuple[Any, ...]]:
        """Yields (ending, running downloads, preview card, Download button) from the click to the end.

        The download itself is the manager's; when the page goes away only this telling of it ends.
        """
        asked = Asked(*fields)
        yield looking(asked.title), UNCHANGED, UNCHANGED, gr.Button(interactive=False)
        found = yield from self._ask(request, lambda check: self._begin(asked, check), (UNCHANGED,) * 4)
        if not isinstance(found, ModelRecord):
            if found:
                warn(found.message)
            yield refused(found) if found else "", UNCHANGED, UNCHANGED, gr.Button(interactive=True)
            return
        yield "", draw_downloads(self._manager), "", gr.Button(interactive=True)
        job = self._manager.job(found.id)
        if job is not None:
            for drawn in self._progress(job):
                yield UNCHANGED, drawn, UNCHANGED, UNCHANGED
        yield draw_ending(self._manager, found), draw_downloads(self._manager), UNCHANGED, UNCHANGED

    def _begin(self, asked: Asked, check: Callable[[], None]) -> ModelRecord:
        return self._manager.download(
            asked.origin,
            quantization=Quantization(asked.quantization),
            token=asked.token or None,
            name=asked.name.strip() or None,
            check=check,
        )

    def _ask(
        self, request: gr.Request, work: Callable[[Callable[[], None]], T], unchanged: Any
    ) -> Generator[Any, None, T | MiLLMError | None]:
        """Waits for the work, which is given a way to notice that it is not wanted any more. None: it was not."""
        try:
            job = self._lane.submit(lambda job: work(job.check))
            self._asking[request.session_hash] = job
            for _ in job.events():
                yield unchanged
            return job.result()
        except Cancelled:
            return None
        except Exception as error:  # noqa: BLE001  (a door: the person must see every error as a sentence)
            return explain(error)

    def _progress(self, job: Job[ModelRecord]) -> Iterator[str]:
        drawn_at = 0.0
        for event in job.events():
            if event is None or time.monotonic() - drawn_at >= REDRAW_S:
                drawn_at = time.monotonic()
                yield draw_downloads(self._manager)


def drawn_answer(found: "Preview | MiLLMError | None", asked: Asked) -> str:
    """The card for what a source said; nothing when nobody waited for it."""
    if found is None:
        return ""
    return refused(found) if isinstance(found, MiLLMError) else preview_card(found, asked.kind)


def build(manager: "Manager") -> DownloadTab:
    """Builds the tab and wires it."""
    html(page_head("Download", "Get a model from HuggingFace, a folder, a web address or Ollama."))
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320, elem_classes="mi-panel"):
            form = build_form(manager.quantizations)
        with gr.Column(scale=5, min_width=320, elem_classes="mi-side"):
            ending = html(elem_id="download-ending")
            running = html(elem_id="downloads")
            preview = html(elem_id="preview-card")
            catalog = catalog_list.build()
            html(hints())
    lookups = Lookups(manager)
    _wire(lookups, form, ending, running, preview)
    catalog.pick(
        lookups.pick,
        [form.quantization, form.token],
        [*form.inputs, preview, form.preview],
        trigger_mode="multiple",
        **QUIET,
    )
    return DownloadTab(running, catalog)


def _wire(lookups: Lookups, form: Form, ending: gr.HTML, running: gr.HTML, preview: gr.HTML) -> None:
    gr.on(
        [
            form.preview.click,
            *(line.submit for line in (form.repo, form.path, form.url, form.checksum, form.ollama, form.revision)),
        ],
        lookups.preview,
        form.inputs,
        [preview, form.preview],
        trigger_mode="multiple",  # the button is off meanwhile; "once" would swallow a click right after the answer
        **QUIET,
    )
    # "multiple": the listener lives as long as its download, and more downloads may be queued meanwhile
    shown = [ending, running, preview, form.download]
    form.download.click(lookups.download, form.inputs, shown, trigger_mode="multiple", **QUIET)
    form.stop.click(lookups.stop, queue=False, **QUIET)
    gr.on(
        [form.source.change, form.model_type.change],
        switch,
        [form.source, form.model_type],
        form.switched,
        queue=False,
        trigger_mode="always_last",
        **QUIET,
    )
