"""The HTML of what is being downloaded, of what stopped on its way, and of how a download ended."""

from html import escape
from typing import TYPE_CHECKING

from millm.errors import ModelNotFound
from millm.events import Event, Stage
from millm.records import ModelRecord, Status
from millm.ui import words
from millm.ui.cards import button, heading, kept, newest_event, note, progress, source_line, use_button
from millm.ui.icons import icon

if TYPE_CHECKING:
    from millm.manager import Manager
    from millm.views import StorageState

COMING = (Status.DOWNLOADING, Status.QUEUED)


def draw_downloads(manager: "Manager", storage: "StorageState") -> str:
    """Every running and waiting download, the running one first, then those that failed; "" where there is none."""
    order = [state.model_id for state in manager.jobs()]
    records = manager.records()
    coming = [record for record in records if record.status in COMING]
    coming.sort(key=lambda record: order.index(record.id) if record.id in order else -1)
    rows = [_row(manager, record, before) for before, record in enumerate(coming)]
    failed = [record for record in records if record.status is Status.ERROR]
    stopped = [_stopped(record, storage.models.get(record.id, 0)) for record in failed]
    return _section("In progress", rows) + _section("Did not arrive", stopped)


def draw_ending(manager: "Manager", record: ModelRecord) -> str:
    """How the download of `record` ended, with what can be done next; a failed one stands among the downloads."""
    try:
        now = manager.record(record.id)
    except ModelNotFound:
        now = record.with_(status=Status.AVAILABLE)
    if now.status is Status.AVAILABLE:
        return _panel("", "stop", f"{now.name} was cancelled", "None of its files were kept.", "")
    if now.status in (*COMING, Status.ERROR):
        return ""
    use = use_button(now, id="", data_tab="models")
    return _panel("is-ok", "check", f"{now.name} is ready", words.next_step(now), use)


def _section(title: str, rows: list[str]) -> str:
    if not rows:
        return ""
    count = f'<span class="mi-count" aria-live="polite">{len(rows)}</span>'
    return (
        f'<section class="mi-coming" aria-label="{title}"><h2 class="mi-h2">{title} {count}</h2>'
        f"{''.join(rows)}</section>"
    )


def _row(manager: "Manager", record: ModelRecord, before: int) -> str:
    """before: downloads that come first. One runs at a time; it is the one that tests and people mean by "the"."""
    cancel = button("cancel", record, "Cancel", "stop", id="" if before else "cancel-btn")
    if before and record.status is Status.QUEUED:
        told = f'<p class="mi-line">{words.STAGE[Stage.QUEUED]}. {words.place_in_line(before)}</p>'
    else:
        event = newest_event(manager, record) or Event(Stage.QUEUED)
        told = progress(record, event, "" if before else "download-progress")
    return (
        f'<article class="mi-card is-{record.status}">{heading(record, "")}{source_line(record)}'
        f'{told}<div class="mi-actions">{cancel}</div></article>'
    )


def _stopped(record: ModelRecord, frees: int) -> str:
    """A download that failed: why, what Retry has to bring still, and the way to be rid of it. frees: bytes."""
    retry = button("retry", record, "Retry", "retry", "is-primary", id="")
    delete = button(
        "delete",
        record,
        "Delete",
        "trash",
        "is-quiet is-danger",
        id="",
        data_question=f"Delete {record.name}?",
        data_body=words.freed(record, frees),
        data_ok="Delete",
    )
    why = note(record.error_message or "The download was interrupted.")
    return (
        f'<article class="mi-card is-{record.status}">{heading(record, "")}{source_line(record)}'
        f'{why}{kept(record)}<div class="mi-actions">{retry}{delete}</div></article>'
    )


def _panel(kind: str, icon_name: str, title: str, text: str, way: str) -> str:
    return (
        f'<div class="mi-ending {kind}" role="status">{icon(icon_name)}<div><b>{escape(title)}</b>'
        f"<p>{escape(text)}</p></div>{way}</div>"
    )
