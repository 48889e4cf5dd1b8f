"""A page of the same look and the same parts that does nothing: what gradio itself costs, for `bench/page.py`.

python bench/bare_page.py PORT
"""

import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from app import LIBRARY_ENVIRONMENT  # noqa: E402

os.environ.update(LIBRARY_ENVIRONMENT)  # gradio reads it while it is imported

import gradio as gr  # noqa: E402
import uvicorn  # noqa: E402
from fastapi import FastAPI  # noqa: E402

from millm.ui.page_files import style  # noqa: E402
from millm.ui.theme import theme  # noqa: E402

CARDS = 12
POLL_S = 1.0
PLAIN: dict[str, Any] = {"apply_default_css": False}
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
PRESS = """element.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (button) trigger('press', { model: Number(button.dataset.model) });
});"""


def cards(status: str) -> str:
    """The list, as gradio's own text: twelve cards, all of which failed."""
    card = """<li class="mi-card model-card"><div class="mi-card-head"><h2>model-{n}</h2>
      <span class="mi-badge is-error">Error</span></div><p>acme/model-{n}</p>
      <dl><dt>Parameters</dt><dd>4.0B</dd><dt>Disk</dt><dd>2.6 GB</dd></dl>
      <button type="button" class="mi-btn" id="retry-btn-{n}" data-model="{n}">Retry</button>
      <button type="button" class="mi-btn" data-model="{n}">Delete</button></li>"""
    shown = [card.format(n=n) for n in range(1, CARDS + 1)] if status in ("All", "Error") else ["Nothing"]
    return f'<ul class="mi-cards">{"".join(shown)}</ul>'


def download_tab() -> None:
    """A form."""
    with gr.Row(), gr.Column():
        gr.Textbox(label="Model repository", placeholder="organisation/model-name", info="Paste an address.")
        gr.Radio(["Q4", "Q8", "FP16"], value="Q4", label="Precision")
        gr.HTML("<p>Fits</p>", **PLAIN)
        with gr.Accordion("Advanced", open=False):
            gr.Textbox(label="Access token", type="password")
            gr.Checkbox(label="Allow code from the repository")
        gr.Button("Download", variant="primary")


def models_tab() -> None:
    """The list with a filter, which the server applies, and buttons whose answer comes through the queue."""
    with gr.Row():
        gr.Textbox(show_label=False, label="Search", placeholder="Search models")
        status = gr.Radio(["All", "Loaded", "Ready", "Error"], value="All", label="Status", elem_id="filter-status")
        gr.Dropdown(["Status", "Name", "Size"], value="Status", label="Sort by")
    shown = gr.HTML(cards("All"), js_on_load=PRESS, **PLAIN)
    status.change(cards, status, shown, queue=False, **QUIET)

    def press(status: str) -> str:
        gr.Info("Working on it", duration=4)
        return cards(status)

    shown.press(press, status, shown, **QUIET)
    gr.Timer(POLL_S).tick(gr.skip, None, shown, queue=False, **QUIET)


def playground_tab() -> None:
    """A chat that nobody answers."""
    with gr.Row():
        with gr.Column(scale=9):
            gr.Chatbot(show_label=False, label="Conversation", layout="panel")
            gr.Textbox(show_label=False, label="Message", placeholder="Message the model", submit_btn=True)
        with gr.Column(scale=4):
            gr.Textbox(label="System prompt", lines=3)
            for name in ("Temperature", "Top-p", "Max tokens"):
                gr.Slider(0, 2, 1, label=name)
            with gr.Accordion("More sampling", open=False):
                gr.Slider(0, 200, 50, label="Top-k")
            gr.Button("Clear conversation")


def page() -> gr.Blocks:
    """The three tabs; it opens with the models."""
    with gr.Blocks(title="bare", fill_width=True, fill_height=True, analytics_enabled=False) as blocks:
        gr.HTML('<div id="brand">bare</div>', **PLAIN)
        gr.HTML('<div id="status-bar">No model loaded</div>', **PLAIN)
        with gr.Tabs(elem_id="nav", selected="models", overflow_behavior="wrap"):
            for name, build in (("download", download_tab), ("models", models_tab), ("playground", playground_tab)):
                with gr.Tab(name.capitalize(), id=name, elem_id=f"tab-{name}"):
                    build()
    return blocks


if __name__ == "__main__":
    options: dict[str, Any] = {
        "footer_links": [],
        "run_history": False,
        "ssr_mode": False,
        "enable_monitoring": False,
    }
    look = {"theme": theme(), "head": f"<style>{style()}</style>"}
    app = gr.mount_gradio_app(FastAPI(), page(), path="/", pwa=False, mcp_server=False, **look, **options)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
