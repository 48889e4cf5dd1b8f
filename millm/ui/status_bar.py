"""The bar on every tab: model, requests, memory, API address; and what covers it while no server answers."""

from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from millm.records import ELSEWHERE, Status
from millm.ui import words
from millm.ui.cards import bar, newest_event
from millm.ui.icons import icon
from millm.ui.wiring import html

if TYPE_CHECKING:
    from millm.devices import Device
    from millm.events import Event
    from millm.manager import Manager
    from millm.records import ModelRecord
    from millm.views import SystemState

# The address is the one the browser itself used, so it is right behind a proxy too.
FIXED = (
    '<div class="mi-status-fixed"><button type="button" class="mi-address" data-copy="" '
    f'aria-label="Copy the API address">{icon("copy", 14)}<code></code></button>'
    f'<button type="button" class="mi-address mi-more" id="status-system-btn" data-system aria-haspopup="dialog">'
    f"{icon('chart', 15)}<span>System</span></button></div>"
)
AWAY = (
    f'<div class="mi-away" id="away" role="alert" hidden>{icon("alert", 16)}<span><b>miLLM does not answer.</b> '
    "This page goes on by itself when it is back.</span></div>"
)
FILL_ADDRESS = """
const button = element.querySelector('button');
button.dataset.copy = location.origin + '/v1';
button.querySelector('code').textContent = location.host + '/v1';
"""
WARM, HOT = 75, 90  # percent of memory in use


def build() -> gr.HTML:
    """Builds the bar; returns the part that `draw` fills."""
    with gr.Row(elem_id="status-bar"):
        live = html(elem_id="status-live")
        gr.HTML(FIXED, apply_default_css=False, js_on_load=FILL_ADDRESS, elem_id="status-address")
    html(AWAY, "away-block")
    return live


def draw(manager: "Manager") -> str:
    """The bar as it is now."""
    return draw_bar(manager.system(), *present(manager))


def present(manager: "Manager") -> "tuple[ModelRecord | None, Event | None]":
    """The model in memory or on its way there, which stands before the one it replaces; and how far it is.

    The event is None unless it is being loaded or unloaded.
    """
    loading = manager.records(status=Status.LOADING)
    record = loading[0] if loading else manager.loaded()
    job = manager.job(record.id) if record else None
    if record is None or job is None or job.kind not in ("load", "unload"):
        return record, None
    return record, newest_event(manager, record)


def draw_bar(system: "SystemState", record: "ModelRecord | None", event: "Event | None" = None) -> str:
    """The bar for a loaded model, or with an event for one that is being loaded or unloaded."""
    moving = " is-moving" if event else ""
    gauges = "".join(map(gauge, memory(system)))
    return (
        f'<div class="mi-status{moving}"><div class="mi-status-model" role="status">{_model(record, event)}</div>'
        f'{_problems(system)}<div class="mi-status-requests" id="status-bar-requests">{requests(system)}</div>'
        f"{_speed(system)}{gauges}</div>"
    )


def draw_failure(said: str) -> str:
    """The bar where nothing can be said but this."""
    return (
        f'<div class="mi-status"><div class="mi-status-model" role="status"><i class="mi-dot"></i>'
        f'<b id="status-bar-model">{icon("alert", 15)} {escape(said)}</b></div></div>'
    )


def memory(system: "SystemState") -> "tuple[Device, ...]":
    """The GPUs, if there are any, and the RAM."""
    gpus = tuple(device for device in system.devices if device.kind == "cuda")
    return (*gpus, system.ram) if system.ram else system.devices


def requests(system: "SystemState") -> str:
    """How many requests run and wait: "2 requests running, 1 waiting"."""
    if not system.requests_running + system.requests_waiting:
        return "No requests"
    waiting = f", {system.requests_waiting} waiting" if system.requests_waiting else ""
    return f"{words.several(system.requests_running, 'request')} running{waiting}"


def state(record: "ModelRecord", event: "Event | None") -> str:
    """What goes on with a model, as HTML: "Loaded", "Loading weights 43%". The number is not read out."""
    if event is None:
        return words.STATUS[record.status]
    percent = f'<span aria-hidden="true"> {event.progress:.0f}%</span>' if event.progress else ""
    return f"<span>{escape(words.doing(event))}</span>{percent}"


def gauge(device: "Device") -> str:
    """How much of a device's memory is in use, as a bar with its words."""
    used = device.total - device.free
    percent = 100 * used / device.total if device.total else 0.0
    heat = "is-hot" if percent > HOT else "is-warm" if percent > WARM else ""
    label = "GPU" if device.kind == "cuda" else "RAM"
    free = f"{words.size(device.free)} free"
    return (
        f'<div class="mi-meter is-{device.kind}" title="{escape(device.name)}: {free}">'
        f'<span class="mi-meter-label">{label}</span>{bar(percent, f"{label} in use", heat)}'
        f'<span>{words.size(used)}<span class="mi-meter-total"> of {words.size(device.total)}</span></span>'
        f'<span class="mi-hidden">, {free}</span></div>'
    )


def _model(record: "ModelRecord | None", event: "Event | None") -> str:
    if record is None:
        return '<i class="mi-dot"></i><b id="status-bar-model">No model loaded</b>'
    kind, said = "loading" if event else "loaded", state(record, event)
    form = escape(words.served_by(record)) if record.source in ELSEWHERE else record.quantization
    return (
        f'<i class="mi-dot is-{kind}"></i><b id="status-bar-model">{escape(record.name)}</b>'
        f'<span class="mi-status-more">{form}</span><span class="mi-status-state">{said}</span>'
    )


def _problems(system: "SystemState") -> str:
    if not system.problems:
        return ""
    said = escape(" ".join(system.problems))
    return (
        f'<button type="button" class="mi-status-problem" data-system aria-haspopup="dialog" title="{said}">'
        f"{icon('alert', 15)}<span>{said}</span></button>"
    )


def _speed(system: "SystemState") -> str:
    return f'<b class="mi-status-speed">{system.tokens_per_s:.1f} tok/s</b>' if system.tokens_per_s else ""
