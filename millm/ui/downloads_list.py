"""The HTML of what is being downloaded, and of how a download ended."""

from html import escape
from typing import TYPE_CHECKING

from millm.errors import ModelNotFound
from millm.events import Event, Stage
from millm.records import ModelRecord, Status
from millm.ui import words
from millm.ui.cards import button, heading, newest_event, progress, source_line, use_button
from millm.ui.icons import icon

if TYPE_CHECKING:
    from millm.manager import Manager

COMING = (Status.DOWNLOADING, Status.QUEUED)


def draw_downloads(manager: "Manager") -> str:
    """Every running and waiting download, the running one first; "" where there is none."""
    coming = [record for status in COMING for record in reversed(manager.records(status=status))]
    rows = [_row(manager, record, first=record is coming[0]) for record in coming]
    if not rows:
        return ""
    count = f'<span class="mi-count" aria-live="polite">{len(rows)}</span>'
    return (
        f'<section class="mi-coming" aria-label="Downloads"><h2 class="mi-h2">In progress {count}</h2>'
        f"{''.join(rows)}</section>"
    )


def draw_ending(manager: "Manager", record: ModelRecord) -> str:
    """How the download of `record` ended, with what can be done next."""
    try:
        now = manager.record(record.id)
    except ModelNotFound:
        now = record.with_(status=Status.AVAILABLE)
    if now.status is Status.ERROR:
        retry = button("retry", now, "Retry", "retry", id="")
        said = " ".join(filter(None, (now.error_message, words.kept(now))))
        return _panel("is-bad", "alert", f"{now.name} did not arrive", said, retry)
    if now.status is Status.AVAILABLE:
        return _panel("", "stop", f"{now.name} was cancelled", "None of its files were kept.", "")
    if now.status in COMING:
        return ""
    use = use_button(now, id="", data_tab="models")
    return _panel("is-ok", "check", f"{now.name} is ready", words.next_step(now), use)


def _row(manager: "Manager", record: ModelRecord, first: bool) -> str:
    # One download runs at a time; it is the one that tests and people mean by "the" progress.
    event = newest_event(manager, record) or Event(Stage.QUEUED)
    cancel = button("cancel", record, "Cancel", "stop", id="cancel-btn" if first else "")
    bar_id = "download-progress" if first else ""
    return (
        f'<article class="mi-card is-{record.status}">{heading(record, "")}{source_line(record)}'
        f'{progress(record, event, bar_id)}<div class="mi-actions">{cancel}</div></article>'
    )


def _panel(kind: str, icon_name: str, title: str, text: str, way: str) -> str:
    return (
        f'<div class="mi-ending {kind}" role="status">{icon(icon_name)}<div><b>{escape(title)}</b>'
        f"<p>{escape(text)}</p></div>{way}</div>"
    )
