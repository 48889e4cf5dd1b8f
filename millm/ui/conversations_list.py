"""Above the conversation: which one it is, the others, a new one. `conversations.js` fills it in the browser."""

import json
from dataclasses import astuple
from html import escape

import gradio as gr

from millm.ui.icons import icon
from millm.ui.sampling_controls import FIRST, NAMES

ROW = (
    '<template id="chats-row"><li class="mi-chat"><button type="button" class="mi-chat-open" data-chat="open">'
    "<b></b><small></small></button>"
    '<button type="button" class="mi-btn is-quiet is-icon" data-chat="rename" title="Rename">'
    f"{icon('pencil')}</button>"
    '<button type="button" class="mi-btn is-quiet is-icon" data-chat="export" title="Export as JSON">'
    f"{icon('download')}</button>"
    '<button type="button" class="mi-btn is-quiet is-icon is-danger" data-chat="delete" title="Delete">'
    f"{icon('trash')}</button></li></template>"
)
DRAWER = (
    '<dialog class="mi-chats-drawer" id="chats-drawer" aria-labelledby="chats-heading">'
    '<div class="mi-chats-drawer-head">'
    '<h2 id="chats-heading">Conversations</h2><button type="button" class="mi-btn is-quiet is-icon" '
    f'data-close aria-label="Close" title="Close">{icon("close")}</button></div>'
    '<button type="button" class="mi-btn" data-chat="new" autofocus>'
    f"{icon('plus')}<span>New conversation</span></button>"
    '<ul id="chats-list"></ul><p class="mi-chats-drawer-foot" id="chats-foot"></p></dialog>'
)
NAME_DIALOG = (
    '<dialog class="mi-dialog" id="name-dialog" aria-labelledby="name-title"><h2 id="name-title"></h2>'
    '<label for="name-field" id="name-label"></label><input id="name-field" type="text" maxlength="80" '
    'autocomplete="off"><div class="mi-dialog-buttons">'
    '<button type="button" class="mi-btn" id="name-cancel-btn">Cancel</button>'
    '<button type="button" class="mi-btn is-primary" id="name-ok-btn">Save</button></div></dialog>'
)
HEAD = (
    f'<div class="mi-chats" data-names="{escape(json.dumps(NAMES))}" '
    f'data-first="{escape(json.dumps(astuple(FIRST)))}">'
    '<button type="button" class="mi-btn is-quiet" id="chats-btn" aria-haspopup="dialog" title="All conversations">'
    f'{icon("list")}<span class="mi-hidden">All conversations. Shown: </span>'
    '<span id="chats-title">New conversation</span></button>'
    '<button type="button" class="mi-btn" id="chats-new-btn" data-chat="new" title="New conversation">'
    f"{icon('plus')}<span>New</span></button>"
    '<button type="button" class="mi-btn is-quiet" id="code-btn" aria-haspopup="dialog" title="Same request as code">'
    f"{icon('code')}<span>Code</span></button></div>"
    f'<p class="mi-note is-warning" id="chats-note" role="status" hidden>{icon("alert", 16)}<span></span></p>'
)
SCRIPT = """
setTimeout(() => window.millm.chats.start(() => trigger('show')));  // once it is in the document
"""


def build() -> gr.HTML:
    """Builds the row and its drawer. Its event "show" asks the listener to show another conversation."""
    return gr.HTML(HEAD + DRAWER + NAME_DIALOG + ROW, apply_default_css=False, js_on_load=SCRIPT, elem_id="chats")
