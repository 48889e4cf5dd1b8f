"""The drawer about this process and machine: what goes on, the last minutes as plots, versions, settings."""

import json
import sys
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import gradio as gr

from millm import __version__
from millm.devices import cpu
from millm.settings import Settings
from millm.ui import words
from millm.ui.cards import note
from millm.ui.icons import icon
from millm.ui.plots import plot
from millm.ui.status_bar import gauge, memory, present, requests, state
from millm.ui.wiring import QUIET

if TYPE_CHECKING:
    from millm.devices import Device
    from millm.events import Event
    from millm.history import Point
    from millm.manager import Manager
    from millm.records import ModelRecord
    from millm.views import SystemState

PACKAGES = ("torch", "transformers", "bitsandbytes", "gradio")

# What never changes while the process runs stands in the value; `parts` are filled in once a second while it is open.
SHELL = """
<dialog class="mi-system" id="system-drawer" aria-labelledby="system-title">
  <div class="mi-system-head"><h2 id="system-title">System</h2>
    <button type="button" class="mi-btn is-quiet is-icon" id="system-close-btn" autofocus title="Close">
      {close}<span>Close</span></button>
  </div>
  <div class="mi-system-body" tabindex="0" role="group" aria-label="About this miLLM">
    <section aria-label="Now"><div data-part="problems"></div><div data-part="now"></div></section>
    <section><h3>API</h3><button type="button" class="mi-system-address" data-copy=""
      aria-label="Copy the API address">{copy}<code></code></button>
      <p class="mi-system-links"><a href="docs" target="_blank" rel="noopener">API documentation</a>
      <a href="metrics" target="_blank" rel="noopener">Metrics for Prometheus</a></p></section>
    <section><h3>Last 10 minutes</h3><div class="mi-plots" data-part="plots"></div></section>
    <div data-part="replicas"></div>
    <section><h3>Devices</h3><div data-part="devices"></div></section>
    <section><h3>Versions</h3>{versions}</section>
    <section><h3>Settings</h3>{settings}</section>
  </div>
</dialog>
"""
SCRIPT = """
const drawer = element.querySelector('dialog');
const address = drawer.querySelector('.mi-system-address');
address.dataset.copy = location.origin + '/v1';
address.querySelector('code').textContent = location.origin + '/v1';
let clock;
const ask = () => { if (document.visibilityState === 'visible') trigger('show_system', {}); };
document.addEventListener('click', (event) => {
  if (!event.target.closest('[data-system]') || drawer.open) return;
  drawer.showModal();
  ask();
  clock = setInterval(ask, 1000);
});
drawer.addEventListener('close', () => clearInterval(clock));
drawer.addEventListener('click', (event) => {
  if (event.target === drawer || event.target.closest('#system-close-btn')) drawer.close();
});
const shown = {};
watch('parts', () => {
  for (const [name, html] of Object.entries(JSON.parse(props.parts))) {
    if (shown[name] !== html) drawer.querySelector(`[data-part=${name}]`).innerHTML = shown[name] = html;
  }
});
"""


def build(manager: "Manager", settings: Settings) -> None:
    """Builds the drawer and wires it; any button with `data-system` opens it."""
    value = SHELL.format(
        close=icon("close"), copy=icon("copy", 16), versions=draw_versions(), settings=draw_settings(settings)
    )
    drawer = gr.HTML(value, parts="", apply_default_css=False, js_on_load=SCRIPT, elem_id="system-block")
    drawer.show_system(lambda: gr.HTML(parts=json.dumps(draw(manager))), None, drawer, queue=False, **QUIET)


def draw(manager: "Manager") -> dict[str, str]:
    """What changes while the drawer is open, as HTML by its place."""
    system = manager.system()
    return {
        "problems": "".join(map(note, system.problems)),
        "now": draw_now(system, *present(manager)),
        "plots": draw_plots(manager.history(), system.devices),
        "replicas": draw_replicas(system),
        "devices": draw_devices(system),
    }


def draw_now(system: "SystemState", record: "ModelRecord | None", event: "Event | None") -> str:
    """The model, requests and memory as rows."""
    speed = system.tokens_per_s
    model = f"{escape(record.name)} ({record.quantization}): {state(record, event)}" if record else "None is loaded"
    rows = [
        ("Model", model),
        ("Requests", requests(system)),
        (
            "Speed",
            f"{speed:.1f} tokens a second" if speed else "Nothing is being written",
        ),
        ("Memory of miLLM", words.size(system.process_bytes)),
    ]
    if system.model_bytes:
        rows.insert(1, ("Its weights", words.size(system.model_bytes)))
    return _rows(rows)


def draw_plots(points: "tuple[Point, ...]", devices: "tuple[Device, ...]") -> str:
    """Speed, requests and memory over the last minutes."""
    plots = [
        plot("Tokens a second", [(each.ago, each.tokens_per_s) for each in points], lambda value: f"{value:.1f}"),
        plot("Requests at once", [(each.ago, each.requests) for each in points], lambda value: f"{value:.0f}"),
        plot("Memory of miLLM", [(each.ago, each.process_bytes) for each in points], words.size),
    ]
    gpus = any(device.kind == "cuda" for device in devices)
    used = [(each.ago, each.device_bytes) for each in points]
    plots.append(plot("GPU memory in use" if gpus else "RAM in use, all programs", used, words.size))
    return "".join(plots)


def draw_replicas(system: "SystemState") -> str:
    """The processes elsewhere that run the model: which, how they are, what they do. Nothing where there are none."""
    if not system.replicas:
        return ""
    rows = [(escape(each.name), escape(each.state) + _answering(each.requests)) for each in system.replicas]
    return f"<section><h3>Replicas</h3>{_rows(rows)}</section>"


def _answering(requests: int | None) -> str:
    return f", {words.several(requests, 'answer')} in the making" if requests is not None else ""


def draw_devices(system: "SystemState") -> str:
    """The processor, each GPU, RAM and disk."""
    found = cpu()
    cores = f", {words.several(found.cores, 'core')}" if found.cores else ""
    rows = [("Processor", f"{escape(found.name)}: {words.several(found.threads, 'thread')}{cores}")]
    rows += [(escape("Memory" if each.kind == "cpu" else each.name), gauge(each)) for each in memory(system)]
    return _rows([*rows, ("Disk", f"{words.size(system.disk_free)} free")])


def draw_versions() -> str:
    """miLLM, Python and the packages that models depend on."""
    python = ".".join(map(str, sys.version_info[:3]))
    packages = [(name, escape(_installed(name))) for name in PACKAGES]
    return _rows([("miLLM", escape(__version__)), ("Python", python), *packages])


def draw_settings(settings: Settings) -> str:
    """Every setting, its value and where that came from."""
    rows = "".join(
        f'<tr><th scope="row"><code>{escape(each.variable)}</code></th>'
        f"<td>{escape(each.value) or 'none'}</td><td>{escape(each.given_by)}</td></tr>"
        for each in settings.shown()
    )
    return (
        '<p class="mi-system-hint">They are read at start, from flags of app.py and from the environment.</p>'
        '<table class="mi-settings"><thead><tr><th scope="col">Setting</th><th scope="col">Value</th>'
        f'<th scope="col">From</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _rows(rows: list[tuple[str, str]]) -> str:
    """Names and what they are; both are HTML already."""
    return f'<dl class="mi-rows">{"".join(f"<div><dt>{name}</dt><dd>{told}</dd></div>" for name, told in rows)}</dl>'


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
