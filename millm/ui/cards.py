"""The HTML of a model's card and its parts. Every piece of data that comes in here is escaped here."""

from html import escape
from typing import TYPE_CHECKING

from millm.events import Event, Stage
from millm.records import ELSEWHERE, SERVED, ModelRecord, ModelType, Quantization, Source, Status
from millm.ui import words
from millm.ui.icons import icon
from millm.ui.quality_table import summary

if TYPE_CHECKING:
    from millm.manager import Manager

DRAWERS = {"settings": ("Settings", "sliders"), "details": ("Details", "info")}
LOADING = {"Make room": Stage.UNLOADING_PREVIOUS, "Load weights": Stage.LOADING_WEIGHTS, "Warm up": Stage.WARMING_UP}
MOVING = (Status.QUEUED, Status.DOWNLOADING, Status.LOADING)


def badge(record: ModelRecord, element_id: str) -> str:
    """The status as a coloured word."""
    identity = f' id="{element_id}"' if element_id else ""
    word = words.STATUS[record.status]
    status = f'<span class="mi-badge is-{record.status}"{identity}><i aria-hidden="true"></i>{word}</span>'
    chosen = record.active and record.status is Status.READY
    status += '<span class="mi-badge is-active">Active</span>' if chosen else ""
    return status + ('<span class="mi-badge is-built-in">Built in</span>' if record.built_in else "")


def button(action: str, record: ModelRecord, text: str, icon_name: str, kind: str = "", **extra: str) -> str:
    """A button that asks the manager for `action` on a model. extra: further attributes, escaped here.

    Its id is `{action}-btn-{id}` unless `extra` names another one; an empty one leaves it out.
    """
    attributes = {"id": f"{action}-btn-{record.id}", **extra}
    written = " ".join(f'{name.replace("_", "-")}="{escape(value)}"' for name, value in attributes.items() if value)
    return (
        f'<button type="button" class="mi-btn {kind}" data-act="{action}" data-model="{record.id}" {written} '
        f'aria-label="{text} {escape(record.name)}" title="{text}">{icon(icon_name)}<span>{text}</span></button>'
    )


def drawer_button(kind: str, record: ModelRecord, **extra: str) -> str:
    """A button that opens the sheet at the side. kind: details or settings. extra: see `button`."""
    text, icon_name = DRAWERS[kind]
    attributes = {"id": f"{kind}-btn-{record.id}", **extra}
    written = f'id="{attributes["id"]}" ' if attributes["id"] else ""
    return (
        f'<button type="button" class="mi-btn is-quiet" data-drawer="{kind}" data-model="{record.id}" {written}'
        f'aria-haspopup="dialog" aria-label="{text} of {escape(record.name)}" title="{text}">'
        f"{icon(icon_name)}<span>{text}</span></button>"
    )


def delete_button(record: ModelRecord, frees: int) -> str:
    """The Delete button with the question it asks first. frees: bytes."""
    ways = {"data_ok": "Delete model"}
    if record.source is Source.OLLAMA:
        also = {"data_also": "Remove from Ollama too", "data_also_act": "delete-everywhere"}
        ways = {"data_ok": "Remove from the list", **also}
    elif record.source is Source.REMOTE:
        ways = {"data_ok": "Remove from the list"}
    return button(
        "delete",
        record,
        "Delete",
        "trash",
        "is-quiet is-danger is-icon",
        data_question=f"Delete {record.name}?",
        data_body=words.freed(record, frees),
        **ways,
    )


def bar(percent: float, label: str, kind: str = "", element_id: str = "") -> str:
    """A progress bar that screen readers can read. percent: 0-100."""
    whole = round(min(100.0, max(0.0, percent)))
    identity = f' id="{element_id}"' if element_id else ""
    return (
        f'<div class="mi-bar {kind}"{identity} role="progressbar" aria-label="{escape(label)}" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{whole}"><span style="width:{whole}%"></span></div>'
    )


def progress(record: ModelRecord, event: Event, element_id: str = "") -> str:
    """How far a job on a model is: bar, stage, percent, bytes, speed and time left, as far as they are known."""
    left = [f"<b>{round(event.progress)}%</b>", escape(words.doing(event))]
    if event.bytes_total and event.bytes_done:
        left.append(words.share(event.bytes_done, event.bytes_total))
    right = [text for text in (words.speed(event.speed), words.time_left(event.eta)) if text]
    kind = "is-waiting" if record.status is Status.QUEUED else "is-busy"
    return (
        f'<div class="mi-progress">{bar(event.progress, f"Progress of {record.name}", kind, element_id)}'
        f'<div class="mi-progress-text"><span>{" · ".join(left)}</span><span>{" · ".join(right)}</span></div></div>'
    )


def note(message: str, kind: str = "") -> str:
    """A sentence about what went wrong, or with kind "is-warning" about what may."""
    return f'<p class="mi-note {kind}">{icon("alert", 16)}<span>{escape(message)}</span></p>'


def kept(record: ModelRecord) -> str:
    """How much an unfinished download left for Retry."""
    said = words.kept(record)
    return f'<p class="mi-kept">{escape(said)}</p>' if said else ""


def actions(record: ModelRecord, event: Event | None, frees: int, outdated: bool = False) -> str:
    """The buttons that apply to a model as it is now. event: the newest one of its job. outdated: see `card`."""
    if record.status in MOVING:
        return button("cancel", record, "Cancel", "stop")
    if event is not None:  # its files are being checked, or it is being unloaded
        return button("cancel", record, "Cancel", "stop") if record.status is Status.READY else ""
    more = drawer_button("settings", record) + drawer_button("details", record) + copy_button(record)
    if record.status is Status.LOADED:
        again = button("reload", record, "Reload", "retry") if outdated else ""
        return button("unload", record, "Unload", "eject") + again + more
    first = {
        Status.AVAILABLE: button("start", record, "Download", "download", "is-primary"),
        Status.ERROR: button("retry", record, "Retry", "retry"),
    }.get(record.status, "")
    if record.status is Status.READY:
        first = use_button(record) + activate_button(record)
    if record.damaged:
        first = button("retry", record, "Repair", "retry", "is-primary") + verify_button(record)
    return first + more + delete_button(record, frees)


def use_button(record: ModelRecord, **extra: str) -> str:
    """What makes a model that is on disk the one in use: Load, or Activate for what other programs run."""
    if record.model_type in SERVED:
        return button("load", record, "Load", "play", "is-primary", **extra)
    return _choose_button(record, "is-primary", **extra)


def activate_button(record: ModelRecord) -> str:
    """Names a model that can be loaded here to other programs as well; an `llm` is named by loading it."""
    return _choose_button(record, "is-quiet") if record.model_type is ModelType.EMBEDDING else ""


def _choose_button(record: ModelRecord, kind: str, **extra: str) -> str:
    if record.active:
        return button("deactivate", record, "Deactivate", "eject", **extra)
    return button("activate", record, "Activate", "check", kind, **extra)


def verify_button(record: ModelRecord) -> str:
    """Checks the files again; only of models whose files miLLM itself brought and keeps."""
    if record.cache_path is None or record.source in ELSEWHERE | {Source.LOCAL}:
        return ""
    return button("verify", record, "Verify", "shield", "is-quiet")


def compare_button(record: ModelRecord) -> str:
    """Measures what a quantization costs; only of models that miLLM holds in one itself."""
    if record.model_type is not ModelType.LLM or record.quantization is Quantization.FP16:
        return ""
    return button("compare", record, "Measure quality", "chart", "is-quiet")


def copy_button(record: ModelRecord) -> str:
    """Copies the name that API clients use for the model."""
    name = escape(record.name)
    return (
        f'<button type="button" class="mi-btn is-quiet is-icon" data-copy="{name}" '
        f'aria-label="Copy the name {name}" title="Copy the name">{icon("copy")}<span>Copy the name</span></button>'
    )


def heading(record: ModelRecord, badge_id: str) -> str:
    """Name and status of a model, beside its two letters."""
    name = escape(record.name)
    return (
        f'<div class="mi-initials" aria-hidden="true">{escape(record.name[:2])}</div>'
        f'<div class="mi-title"><h2 title="{name}">{name}</h2>{badge(record, badge_id)}</div>'
    )


def source_line(record: ModelRecord) -> str:
    """Repository, path or address, in monospace."""
    text = escape(words.origin(record))
    kind = words.ORIGIN[record.source]
    return f'<p class="mi-origin" title="{text}"><span class="mi-hidden">{kind}: </span><code>{text}</code></p>'


def stages(record: ModelRecord, event: Event) -> str:
    """The steps of a load, and which one it is at; "" for other jobs."""
    if record.status is not Status.LOADING:
        return ""
    stage = Stage.LOADING_WEIGHTS if event.stage in (Stage.MOVING_TO_GPU, Stage.QUANTIZING) else event.stage
    order = list(LOADING.values())
    at = order.index(stage) if stage in order else -1
    steps = "".join(
        f'<li class="is-now" aria-current="step">{name}</li>'
        if place == at
        else f'<li class="{"is-done" if place < at else ""}">{name}</li>'
        for place, name in enumerate(LOADING)
    )
    return f'<ol class="mi-stages" aria-label="Steps of loading">{steps}</ol>'


def card(
    record: ModelRecord, event: Event | None = None, frees: int = 0, leaving: str = "", outdated: bool = False
) -> str:
    """A model in the list. event: the newest event of the job on it. frees: bytes that deleting it frees.

    leaving: a sentence about why the loaded model is about to go. outdated: whether a reload would change it.
    """
    extra = ""
    if event is not None:
        extra = progress(record, event) + stages(record, event)
    elif record.error_message:
        extra = note(record.error_message) + kept(record)
    extra += note(record.warning, "is-warning") if record.warning else ""
    extra += f'<p class="mi-small">{escape(summary(record.quality))}</p>' if record.quality else ""
    extra += note(leaving, "is-warning") if leaving else ""
    extra += note("Its settings have changed. A reload puts them into effect.", "is-plain") if outdated else ""
    code = '<li class="is-warning">runs its own code</li>' if record.trust_remote_code else ""
    head = heading(record, f"model-status-{record.id}")
    return (
        f'<article class="mi-card model-card is-{record.status}" id="model-card-{record.id}" '
        f'data-status="{record.status}" aria-label="{escape(record.name)}">'
        f"{head}{source_line(record)}"
        f'<ul class="mi-facts"><li>{escape(words.facts(record))}</li>'
        f"<li>{escape(words.more_facts(record))}</li>{code}</ul>"
        f'{extra}<div class="mi-actions">{"" if leaving else actions(record, event, frees, outdated)}</div></article>'
    )


def empty(icon_name: str, title: str, text: str, link: str = "", tab: str = "") -> str:
    """What stands where nothing is. link: the text of a button that leads to `tab`."""
    way = f'<button type="button" class="mi-btn is-primary" data-tab="{tab}">{escape(link)}</button>' if tab else ""
    return f'<div class="mi-empty">{icon(icon_name, 34)}<h2>{escape(title)}</h2><p>{escape(text)}</p>{way}</div>'


def page_head(title: str, text: str) -> str:
    """The heading of a tab."""
    return f'<header class="mi-head"><h1>{escape(title)}</h1><p>{escape(text)}</p></header>'


def newest_event(manager: "Manager", record: ModelRecord) -> Event | None:
    """How far the job on a model is; None where no job runs."""
    job = manager.job(record.id)
    return None if job is None else job.latest or Event(Stage.QUEUED)
