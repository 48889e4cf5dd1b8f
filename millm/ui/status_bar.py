"""The bar that stands on every tab: the loaded model, memory, requests in flight, the API address."""

from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from millm.records import Status
from millm.ui import words
from millm.ui.cards import bar
from millm.ui.icons import icon
from millm.ui.wiring import html

if TYPE_CHECKING:
    from millm.devices import Device
    from millm.records import ModelRecord
    from millm.views import SystemState

# The address is the one the browser itself used, so it is right behind a proxy too.
ADDRESS = (
    f'<button type="button" class="mi-address" data-copy="" title="Copy the API address" '
    f'aria-label="Copy the API address">{icon("copy", 14)}<code></code></button>'
)
FILL_ADDRESS = """
const button = element.querySelector('button');
button.dataset.copy = location.origin + '/v1';
button.querySelector('code').textContent = location.origin + '/v1';
"""


def build() -> gr.HTML:
    """Builds the bar; returns the part that `draw` fills."""
    with gr.Row(elem_id="status-bar"):
        live = html(elem_id="status-live")
        gr.HTML(ADDRESS, apply_default_css=False, js_on_load=FILL_ADDRESS, elem_id="status-address")
    return live


def draw(system: "SystemState", loaded: "ModelRecord | None", loading: "ModelRecord | None") -> str:
    """The bar as it is now. loading: the model that is on its way into memory."""
    return (
        f'<div class="mi-status"><div class="mi-status-model" role="status">{_model(loaded, loading)}'
        f"{_problems(system)}</div>"
        f'<div class="mi-status-requests">{_requests(system)}</div>{_memory(system)}</div>'
    )


def _model(loaded: "ModelRecord | None", loading: "ModelRecord | None") -> str:
    shown = loading or loaded
    if shown is None:
        return '<i class="mi-dot"></i><b id="status-bar-model">No model loaded</b>'
    kind = "loading" if loading else "loaded"
    state = f'<span class="mi-hidden">{words.STATUS[Status(kind)]}: </span>'
    return (
        f'<i class="mi-dot is-{kind}"></i>{state}<b id="status-bar-model">{escape(shown.name)}</b>'
        f'<span class="mi-status-more">{shown.quantization}{" · loading" if loading else ""}</span>'
    )


def _problems(system: "SystemState") -> str:
    said = escape(" ".join(system.problems))
    return f'<span class="mi-status-problem" title="{said}">{said}</span>' if said else ""


def _requests(system: "SystemState") -> str:
    waiting = f", {system.requests_waiting} waiting" if system.requests_waiting else ""
    running = words.several(system.requests_running, "request")
    count = f'<span id="status-bar-requests">{running} in flight{waiting}</span>'
    return f"{count}<b>{system.tokens_per_s:.1f} tok/s</b>" if system.tokens_per_s else count


def _memory(system: "SystemState") -> str:
    total = sum(device.total for device in system.devices)
    free = sum(device.free for device in system.devices)
    used = total - free
    percent = 100 * used / total if total else 0.0
    heat = "is-hot" if percent > 90 else "is-warm" if percent > 75 else ""
    own = f"{_names(system.devices)}. miLLM itself: {words.size(system.process_bytes)}"
    label = _label(system.devices)
    return (
        f'<div class="mi-meter" title="{escape(own)}"><span class="mi-meter-label">{label}</span>'
        f"{bar(percent, f'{label} used', heat)}"
        f"<span>{words.size(used)} used</span><span>{words.size(free)} free</span></div>"
    )


def _label(devices: "tuple[Device, ...]") -> str:
    return "GPU memory" if any(device.kind == "cuda" for device in devices) else "Memory"


def _names(devices: "tuple[Device, ...]") -> str:
    return ", ".join(f"{device.name} {words.size(device.total)}" for device in devices)
