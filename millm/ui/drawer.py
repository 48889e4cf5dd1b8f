"""The sheet at the side of the page that shows one model: its details, its settings, the memory it needs.

One `<dialog>` that is always there. A button with `data-drawer` opens it; drawer.js fills it with what the functions
here answer. They answer within the page's own requests, so keys and proxies need nothing of their own.
"""

from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from millm.contexts import DEFAULT_CONTEXT
from millm.errors import InvalidRequest, ModelAlreadyExists, explain
from millm.records import ModelRecord, Status, is_dimension
from millm.ui.actions import NONSENSE
from millm.ui.cards import badge, button, drawer_button, newest_event, note, use_button
from millm.ui.details_sheet import details_sheet
from millm.ui.icons import icon
from millm.ui.memory_picture import memory_picture
from millm.ui.settings_form import LONGEST_COUNT, Filled, read_form, settings_form

if TYPE_CHECKING:
    from millm.manager import Manager

SHELL = f"""
<dialog class="mi-drawer" id="model-drawer" aria-labelledby="drawer-title">
  <header class="mi-drawer-head"><div><p class="mi-drawer-kind" id="drawer-kind"></p>
  <h2 id="drawer-title" tabindex="-1" autofocus></h2><span id="drawer-badge"></span></div>
  <button type="button" class="mi-btn is-quiet is-icon" id="drawer-close-btn" title="Close">{icon("close")}
  <span>Close</span></button></header>
  <div class="mi-drawer-body" id="drawer-body"></div>
  <footer class="mi-drawer-foot" id="drawer-foot"></footer>
</dialog>
"""
SCRIPT = Path(__file__).with_name("drawer.js")
KINDS = {"details": "Details", "settings": "Settings"}
LATER = '<p class="mi-small" id="settings-later" role="status" hidden>Marked fields hold from the next load on.</p>'
SAVE = '<button type="button" class="mi-btn is-primary" id="settings-save-btn">Save</button>'


def build(manager: "Manager") -> gr.HTML:
    """Builds the sheet, closed."""
    return gr.HTML(
        SHELL,
        apply_default_css=False,
        js_on_load=SCRIPT.read_text(encoding="utf-8"),
        server_functions=[_asking(manager, answer) for answer in (draw_sheet, draw_room, save_settings)],
        elem_id="drawer-block",
    )


def _asking(manager: "Manager", answer: "Callable[[Manager, Any], Any]") -> Callable[[Any], Any]:
    """An answer with its manager, as a function of its own: gradio marks it."""

    def ask(asked: Any) -> Any:
        return answer(manager, asked)

    ask.__name__ = answer.__name__
    return ask


# What the sheet asks comes from a browser and may be anything.


def draw_sheet(manager: "Manager", asked: Any) -> dict[str, str]:
    """{kind, model} -> the HTML of the sheet's parts: kind, title, badge, body, foot."""
    try:
        record = _record(manager, asked)
        kind = str(asked.get("kind"))
        body, foot = _settings(manager, record) if kind == "settings" else _details(manager, record)
        shown = {"kind": KINDS.get(kind, KINDS["details"]), "title": escape(record.name)}
        return {**shown, "badge": badge(record, ""), "body": body, "foot": foot}
    except Exception as error:  # noqa: BLE001  (a door: the person must see every error as a sentence)
        return {"kind": "", "title": "miLLM", "badge": "", "body": note(explain(error).message), "foot": ""}


def draw_room(manager: "Manager", asked: Any) -> str:
    """{model, context} -> the HTML of the memory it needs. context: a number as text, or "own" for the model's own.

    Anything else stands for what its settings say.
    """
    try:
        record = _record(manager, asked)
        room = manager.room(record.id, _tokens(str(asked.get("context"))))
        present = manager.record(room.present).name if room.present else ""
        return memory_picture(room, present) if room.needed.total else ""
    except Exception as error:  # noqa: BLE001  (as above)
        return note(explain(error).message)


def save_settings(manager: "Manager", asked: Any) -> dict[str, dict[str, str]]:
    """{model, fields, reload} -> {"faults": field -> sentence}; the sentence of "" belongs to no field.

    Nothing is saved where a field is wrong. reload: the loaded model is loaded again with what was saved.
    """
    try:
        record = _record(manager, asked)
        fields = asked.get("fields")
        filled = read_form(record, fields if isinstance(fields, Mapping) else {})
        return {"faults": filled.faults or _save(manager, record, filled, bool(asked.get("reload")))}
    except Exception as error:  # noqa: BLE001  (as above)
        return {"faults": {"": explain(error).message}}


def _save(manager: "Manager", record: ModelRecord, filled: Filled, reload: bool) -> dict[str, str]:
    if filled.key:
        try:
            manager.give_key(record.id, filled.key)
        except InvalidRequest as error:
            return {"server_key": error.message}
    try:
        if filled.changes:
            manager.update(record.id, **filled.changes)
    except ModelAlreadyExists as taken:
        return {"name": taken.message}
    if reload:
        manager.reload(record.id)
    return {}


def _tokens(text: str) -> int | None:
    if text == "own":
        return DEFAULT_CONTEXT
    count = int(text) if text.isdecimal() and len(text) <= LONGEST_COUNT else None
    return count if is_dimension(count) else None


def _record(manager: "Manager", asked: Any) -> ModelRecord:
    model = asked.get("model") if isinstance(asked, Mapping) else None
    if not isinstance(model, int):
        raise InvalidRequest(NONSENSE)
    return manager.record(model)


def _details(manager: "Manager", record: ModelRecord) -> tuple[str, str]:
    event = newest_event(manager, record)
    body = details_sheet(record, manager.details(record.id), event)
    use = ""
    if event is None and record.status is Status.READY:
        use = use_button(record, id="")
    if event is None and record.status is Status.LOADED:
        use = button("unload", record, "Unload", "eject", id="")
    return body, use + drawer_button("settings", record, id="")


def _settings(manager: "Manager", record: ModelRecord) -> tuple[str, str]:
    body = settings_form(record, manager.details(record.id).suggested)
    loaded = record.status is Status.LOADED
    again = '<button type="button" class="mi-btn" id="settings-reload-btn" hidden>Save and reload</button>'
    return body, f"{LATER}{again if loaded else ''}{SAVE}"
