"""The tab to try the loaded model: conversations beside the controls of their answers."""

from typing import TYPE_CHECKING

import gradio as gr

from millm.ui import conversations_list, request_code, sampling_controls
from millm.ui.conversation import Conversation, Playground
from millm.ui.sampling_controls import Panel
from millm.ui.wiring import QUIET, html

if TYPE_CHECKING:
    from millm.manager import Manager


STATS_SCRIPT = "watch('value', () => window.millm.chats.told(props.value));"


def build(manager: "Manager") -> gr.HTML:
    """Builds the tab and wires it; returns the part that says whether there is a model, which follows the manager."""
    html('<h1 class="mi-hidden">Playground</h1>', classes="mi-unseen")
    code = request_code.build()
    with gr.Row(equal_height=False):
        with gr.Column(scale=9, min_width=320, elem_id="conversation"):
            chats = conversations_list.build()
            log = _build_log()
            notice = html(elem_id="no-model")
            stats = gr.HTML("", apply_default_css=False, js_on_load=STATS_SCRIPT, elem_id="chat-stats")
            box, send, stop = _build_box()
        with gr.Column(scale=4, min_width=280, elem_classes="mi-panel"):
            panel = sampling_controls.build()
    talk = Conversation(log, box, stats, send, stop)
    playground = Playground(manager)
    _wire(playground, talk, panel)
    _wire_browser(talk, panel, chats, notice)
    code.ask_code(playground.code, [talk.box, talk.log, *panel.inputs], code, **QUIET)
    return notice


def _build_log() -> gr.Chatbot:
    return gr.Chatbot(
        elem_id="chat-log",
        label="Conversation",
        show_label=False,
        layout="panel",
        height="var(--mi-chat-height)",
        buttons=["copy"],
        editable="user",
    )


def _build_box() -> tuple[gr.Textbox, gr.Button, gr.Button]:
    with gr.Row(elem_id="ask"):
        box = gr.Textbox(
            "",
            label="Message",
            show_label=False,
            placeholder="Message the model",
            lines=1,
            max_lines=8,
            scale=1,
            elem_id="chat-input",
        )
        send = gr.Button("Send", variant="primary", scale=0, min_width=36, elem_id="send-btn")
        stop = gr.Button("Stop", variant="primary", scale=0, min_width=36, elem_id="stop-btn")
    return box, send, stop


def _wire(playground: Playground, talk: Conversation, panel: Panel) -> None:
    shown, told = talk.outputs, [talk.log, *panel.inputs]
    # `Answers` lets one answer at a time pass; "once" would swallow a message sent right after the last one
    asking = {"trigger_mode": "multiple", **QUIET}
    sent = gr.on([talk.send.click, talk.box.submit], playground.send, [talk.box, *told], shown, **asking)
    retried = talk.log.retry(playground.again, told, shown, **asking)
    edited = talk.log.edit(playground.edit, told, shown, **asking)
    undone = talk.log.undo(playground.undo, talk.log, [talk.log, talk.box], queue=False, **QUIET)
    talk.stop.click(playground.stop, queue=False, **QUIET)
    for done in (sent, retried, edited, undone):
        done.then(None, told, None, js=_call("chats.ended"), **QUIET)


def _wire_browser(talk: Conversation, panel: Panel, chats: gr.HTML, notice: gr.HTML) -> None:
    """What the browser does by itself: conversations are kept there, and controls follow the model there."""
    controls = panel.inputs
    changes = [talk.log.change, *(control.change for control in controls)]
    gr.on(changes, None, [talk.log, *controls], None, js=_call("chats.seen"), **QUIET)
    opened = [talk.log, talk.stats, panel.schema_note, *controls]
    chats.show(None, notice, opened, js=_call("chats.shown"), **QUIET)
    notice.change(None, [notice, *controls], controls, js=_call("sampling.follow"), **QUIET)
    panel.changed.reset(None, None, controls, js=_call("sampling.defaults"), **QUIET)


def _call(name: str) -> str:
    """A listener in the browser that calls a function of the page's scripts."""
    return f"(...values) => window.millm.{name}(...values)"
