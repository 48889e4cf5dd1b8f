"""What the Download tab asks of sources: previews, while somebody types or on a button, and starts of downloads.

They wait for the network on a lane, so that no page waits silently. Of the previews of one page the newest counts:
it stops the one before it, waits until that has ended, and an answer that comes too late is not drawn.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import gradio as gr

from millm.errors import Cancelled, GatedModel, InvalidToken, MiLLMError, QueueFull, RepoNotFound, explain
from millm.feed import BEAT
from millm.jobs import Job, Lane
from millm.records import ModelRecord, Quantization, Source, is_dimension
from millm.ui.actions import NONSENSE, warn
from millm.ui.download_form import Asked, filled
from millm.ui.downloads_list import draw_downloads, draw_ending
from millm.ui.memory_steps import form_labels
from millm.ui.preview_card import doubt, looking, preview_card, problem_mark, refused

if TYPE_CHECKING:
    from millm.manager import Manager
    from millm.views import Preview

T = TypeVar("T")
Check = Callable[[], None]

LOOKUPS_AT_ONCE = 4
LOOKUPS_IN_ALL = 32
REDRAW_S = 0.25
PAGES_KEPT = 64  # whose newest preview can be weighed with another context
UNCHANGED = gr.skip()


class Answer(NamedTuple):
    """What a preview changes on the page, in the order of the outputs."""

    card: Any = UNCHANGED
    button: Any = UNCHANGED
    quantization: Any = UNCHANGED
    token: Any = UNCHANGED
    token_way: Any = UNCHANGED
    trust: Any = UNCHANGED
    trust_way: Any = UNCHANGED


NOTHING = Answer()


class Lookups:
    """The handlers. gradio's session hash tells one open page from another."""

    def __init__(self, manager: "Manager") -> None:
        self._manager = manager
        self._looking: WeakValueDictionary[str, Job[Any]] = WeakValueDictionary()
        self._starting: WeakValueDictionary[str, Job[Any]] = WeakValueDictionary()
        self._found: OrderedDict[str, tuple[Asked, Preview]] = OrderedDict()
        self._lane = Lane("lookups", LOOKUPS_AT_ONCE, LOOKUPS_IN_ALL)

    def preview(self, request: gr.Request, *fields: Any) -> Iterator[tuple[Any, ...]]:
        """Answers the Preview button: yields `Answer`s."""
        yield from self._look(str(request.session_hash), Asked(*fields), pressed=True)

    def look(self, request: gr.Request, *fields: Any) -> Iterator[tuple[Any, ...]]:
        """The same for what was typed, without alarm about what may be unfinished."""
        yield from self._look(str(request.session_hash), Asked(*fields), pressed=False)

    def weigh(self, event: gr.EventData, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Counts the memory of what is shown anew, for the context length where the slider came to rest."""
        page, tokens = str(request.session_hash), getattr(event, "tokens", None)
        known, busy = self._found.get(page), self._looking.get(page)
        if not is_dimension(tokens) or known is None or (busy and not busy.done):
            yield NOTHING
            return
        asked, shown = known
        job = self._newest(page, lambda _: self._manager.weigh(shown.plan, int(tokens or 0)))
        found = yield from self._wait(job, NOTHING)
        if self._looking.get(page) is job and found is not None and not isinstance(found, MiLLMError):
            yield self._drawn(page, found, asked, pressed=False)
        else:
            yield NOTHING

    def stop(self, request: gr.Request) -> None:
        """Ends what this page is waiting for."""
        page = str(request.session_hash)
        for job in (self._looking.get(page), self._starting.get(page)):
            if job:
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
        asked, page = Asked(*fields), str(request.session_hash)
        yield looking(asked.title), UNCHANGED, UNCHANGED, gr.Button(interactive=False)
        if preview := self._looking.get(page):
            preview.cancel()
        job = self._submit(lambda job: self._begin(asked, job.check))
        self._starting[page] = job
        found = yield from self._wait(job, (UNCHANGED,) * 4)
        if not isinstance(found, ModelRecord):
            if found:
                warn(found.message)
            said = refused(found) + problem_mark(found, Source(asked.source), asked=True) if found else ""
            yield said, UNCHANGED, UNCHANGED, gr.Button(interactive=True)
            return
        yield "", draw_downloads(self._manager, self._manager.storage()), "", gr.Button(interactive=True)
        coming = self._manager.job(found.id)
        if coming is not None:
            for drawn in self._progress(coming):
                yield UNCHANGED, drawn, UNCHANGED, UNCHANGED
        yield (
            draw_ending(self._manager, found),
            draw_downloads(self._manager, self._manager.storage()),
            UNCHANGED,
            UNCHANGED,
        )

    def _look(self, page: str, asked: Asked, pressed: bool) -> Iterator[tuple[Any, ...]]:
        yield Answer(looking(asked.title), gr.Button(interactive=False))
        job = self._newest(page, lambda check: self._manager.plan(asked.origin, asked.secret, check=check))
        found = yield from self._wait(job, NOTHING)
        if self._looking.get(page) is job:
            yield self._drawn(page, found, asked, pressed)
        else:
            yield NOTHING

    def _newest(self, page: str, ask: Callable[[Check], T]) -> Job[T]:
        """Asks in place of what this page asked before, once that has ended."""
        before = self._looking.get(page)

        def work(job: Job[T]) -> T:
            while before and not before.wait(BEAT):
                job.check()
            return ask(job.check)

        job = self._submit(work)
        self._looking[page] = job
        if before:
            before.cancel()
        return job

    def _submit(self, work: Callable[[Job[T]], T]) -> Job[T]:
        """A job on the lane; where that is full, one that failed with it."""
        job: Job[T] = Job()
        try:
            self._lane.submit(work, job)
        except QueueFull as full:
            job.fail(full)
        return job

    def _wait(self, job: Job[T], unchanged: Any) -> Generator[Any, None, T | MiLLMError | None]:
        """Waits for the end of a job. None: it was not wanted any more."""
        try:
            for _ in job.events():
                yield unchanged
            return job.result()
        except Cancelled:
            return None
        except Exception as error:  # noqa: BLE001  (a door: the person must see every error as a sentence)
            return explain(error)

    def _drawn(self, page: str, found: "Preview | MiLLMError | None", asked: Asked, pressed: bool) -> Answer:
        ready, offered = gr.Button(interactive=True), self._manager.quantizations
        self._found.pop(page, None)
        if found is None:
            return Answer("", ready)
        plain = gr.Radio(choices=form_labels(None, offered))
        if isinstance(found, MiLLMError):
            said = refused(found) if pressed else doubt(found)
            card = said + problem_mark(found, Source(asked.source), pressed)
            closed = isinstance(found, GatedModel | InvalidToken) or (pressed and isinstance(found, RepoNotFound))
            return Answer(card, ready, plain, *_opened(closed and asked.source == Source.HUGGINGFACE))
        self._found[page] = (asked, found)
        if len(self._found) > PAGES_KEPT:
            self._found.popitem(last=False)
        return Answer(
            preview_card(found, asked.kind),
            ready,
            gr.Radio(choices=form_labels(found, offered)),
            *_opened(found.access in ("token_needed", "licence_needed")),
            *_opened(found.requires_remote_code),
        )

    def _begin(self, asked: Asked, check: Check) -> ModelRecord:
        return self._manager.download(
            asked.origin,
            quantization=Quantization(asked.quantization),
            token=asked.secret,
            name=asked.name.strip() or None,
            check=check,
        )

    def _progress(self, job: Job[ModelRecord]) -> Iterator[str]:
        drawn_at = 0.0
        for event in job.events():
            if event is None or time.monotonic() - drawn_at >= REDRAW_S:
                drawn_at = time.monotonic()
                yield draw_downloads(self._manager, self._manager.storage())


def _opened(needed: bool) -> tuple[Any, Any]:
    """A field that is needed now and the button that would have shown it; one that is open already stays so."""
    return (gr.update(visible=True), gr.update(visible=False)) if needed else (UNCHANGED, UNCHANGED)
