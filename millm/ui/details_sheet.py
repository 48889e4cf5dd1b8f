"""The HTML of everything that is known of a model."""

from datetime import datetime
from html import escape
from typing import TYPE_CHECKING

from millm.details import FileOnDisk
from millm.events import Event
from millm.records import ELSEWHERE, SERVED, ModelRecord, Source
from millm.ui import words
from millm.ui.cards import compare_button, kept, note, progress, verify_button
from millm.ui.icons import icon
from millm.ui.quality_table import quality_table

if TYPE_CHECKING:
    from millm.details import Details

SHORT = 12  # digits of a commit or a digest that are shown
FEW = 8  # files that are shown without asking


def details_sheet(record: ModelRecord, details: "Details", event: Event | None = None) -> str:
    """All of it, in sections. event: the newest one of the job on the model."""
    memory = f'<div class="mi-room-place" data-room="{record.id}"></div>' if _weighs(record) else ""
    return (
        f"{_state(record, event)}"
        f"{_section('Memory', memory + _rows(_measured(record)))}"
        f"{_section('Model', _rows(_dimensions(record)))}"
        f"{_section('Origin', _rows(_origin(record, details)))}"
        f"{_section('Quality', _quality(record, event))}"
        f"{_section('Files', _files(record, details, event))}"
    )


def _weighs(record: ModelRecord) -> bool:
    return record.model_type in SERVED and record.source not in ELSEWHERE


def _state(record: ModelRecord, event: Event | None) -> str:
    if event is not None:
        return progress(record, event)
    failed = note(record.error_message) + kept(record) if record.error_message else ""
    return failed + (note(record.warning, "is-warning") if record.warning else "")


def _section(title: str, inside: str) -> str:
    return f'<section class="mi-section"><h3>{title}</h3>{inside}</section>' if inside else ""


def _rows(rows: dict[str, str]) -> str:
    """Rows of a name and HTML; empty ones are left out."""
    drawn = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows.items() if value)
    return f'<dl class="mi-rows">{drawn}</dl>' if drawn else ""


def _measured(record: ModelRecord) -> dict[str, str]:
    estimated, measured = record.estimated_weights_mb, record.measured_memory_mb
    return {
        "Weights, estimated": words.size_of_mb(estimated) if estimated else "",
        "Weights, measured": f"{words.size_of_mb(measured)}{words.against_estimate(record)}" if measured else "",
        "In all, estimated": words.size_of_mb(record.estimated_memory_mb) if record.estimated_memory_mb else "",
        "Requests": "" if record.batching is None else "together" if record.batching else "in turn",
    }


def _dimensions(record: ModelRecord) -> dict[str, str]:
    counts = {
        "Parameters": record.param_count,
        "Layers": record.num_layers,
        "Hidden size": record.hidden_size,
        "Attention heads": record.num_heads,
        "Vocabulary": record.vocab_size,
    }
    return {
        "Type": words.type_of_model(record.model_type),
        "Architecture": escape(record.architecture or ""),
        **{name: f"{count:,}" if count else "" for name, count in counts.items()},
        "Context": f"{record.context_length:,} tokens" if record.context_length else "",
        "Weights": "" if record.source in ELSEWHERE else words.quantization(record),
        "Its own code": "runs when it is loaded" if record.trust_remote_code else "",
    }


def _origin(record: ModelRecord, details: "Details") -> dict[str, str]:
    made = ", ".join(f"{escape(name)} {escape(found)}" for name, found in details.versions.items())
    return {
        "Source": words.SOURCE[record.source],
        words.ORIGIN[record.source]: _copied(words.origin(record), words.ORIGIN[record.source]),
        "Server": _copied(record.url, "Server") if record.source is Source.REMOTE else "",
        "Revision": _copied(record.revision, "Revision", SHORT),
        "Licence": escape(record.license or ""),
        "Name": _copied(record.name, "Name"),
        "Folder": _copied(record.cache_path, "Folder"),
        "Added": _moment(record.created_at),
        "Finished": _moment(details.made_at),
        "Made with": made,
    }


def _copied(text: str | None, what: str, letters: int | None = None) -> str:
    """A text in monospace with a button that copies it. letters: how many are shown; None for all."""
    if not text:
        return ""
    shown = text[:letters] + ("…" if letters and len(text) > letters else "")
    return (
        f'<code title="{escape(text)}">{escape(shown)}</code><button type="button" class="mi-copy" '
        f'data-copy="{escape(text)}" aria-label="Copy: {escape(what)}" title="Copy">{icon("copy", 15)}</button>'
    )


def _moment(text: str | None) -> str:
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return ""
    return f'<time datetime="{escape(str(text))}">{at.day} {at:%b %Y, %H:%M} UTC</time>'


def _quality(record: ModelRecord, event: Event | None) -> str:
    """What was measured, and the button that measures."""
    button = compare_button(record) if record.status == "ready" and event is None else ""
    table = quality_table(record)
    if not table and not button:
        return ""
    said = table or '<p class="mi-small">Not measured yet. Needs another, more precise form of the same model.</p>'
    return f"{said}{button}"


def _files(record: ModelRecord, details: "Details", event: Event | None) -> str:
    files = details.files
    button = verify_button(record) if record.status == "ready" and event is None else ""
    if not files:
        return button
    total = words.size(sum(file.size for file in files))
    rows = "".join(map(_file, files))
    table = (
        '<table class="mi-files"><thead><tr><th scope="col">File</th><th scope="col">Size</th>'
        f'<th scope="col">sha256</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    closed = "" if len(files) > FEW else " open"
    summary = f"<summary>{words.several(len(files), 'file')}, {total}</summary>"
    return f'<details class="mi-more" id="details-files"{closed}>{summary}{table}</details>{button}'


def _file(file: FileOnDisk) -> str:
    digest = _copied(file.sha256, f"sha256 of {file.path}", SHORT) if isinstance(file.sha256, str) else "—"
    return (
        f'<tr><th scope="row">{escape(file.path)}</th><td>{words.size(file.size)}</td>'
        f'<td><span class="mi-digest">{digest}</span></td></tr>'
    )
