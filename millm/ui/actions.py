"""What the buttons on cards ask of the manager, and the dialog that asks back."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from millm.errors import InsufficientMemory, InvalidRequest, explain

if TYPE_CHECKING:
    from millm.manager import Manager

DIALOG = """
<dialog class="mi-dialog" id="confirm-dialog" aria-labelledby="confirm-title" aria-describedby="confirm-body">
  <h2 id="confirm-title"></h2><p id="confirm-body"></p>
  <div class="mi-dialog-buttons">
    <button type="button" class="mi-btn" id="confirm-cancel-btn" autofocus>Cancel</button>
    <button type="button" class="mi-btn is-primary" id="confirm-ok-btn"></button>
  </div>
</dialog>
"""
# Questions come from a button's data (delete) or from the server as the `question` property (load anyway).
# Both reach the page as textContent only.
DIALOG_SCRIPT = """
const dialog = element.querySelector('dialog');
const part = (id) => dialog.querySelector('#confirm-' + id);
let answer = null;
window.millm.ask = (title, body, ok, danger) => new Promise((resolve) => {
  part('title').textContent = title;
  part('body').textContent = body;
  part('ok-btn').textContent = ok;
  part('ok-btn').classList.toggle('is-danger', danger);
  answer = resolve;
  dialog.returnValue = '';
  dialog.showModal();
});
dialog.addEventListener('close', () => { answer?.(dialog.returnValue === 'ok'); answer = null; });
dialog.addEventListener('click', (event) => {
  if (event.target === dialog || event.target === part('cancel-btn')) dialog.close('');
  if (event.target === part('ok-btn')) dialog.close('ok');
});
window.millm.act = (action, model) => trigger('ask_manager', { action, model });
watch('question', async () => {
  const { title, body, ok, action, model } = JSON.parse(props.question);
  if (await window.millm.ask(title, body, ok, true)) window.millm.act(action, model);
});
"""

TOAST_S = 8.0


def build_dialog() -> gr.HTML:
    """Builds the confirm dialog, through which every button of a card reaches the server."""
    return gr.HTML(DIALOG, question="", apply_default_css=False, js_on_load=DIALOG_SCRIPT, elem_id="dialog-block")


@contextmanager
def toasts() -> Iterator[None]:
    """Shows whatever goes wrong inside as a toast; what is not a `MiLLMError` is logged under an id first."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  (a door: the person must see every error as a sentence)
        warn(explain(error).message)


def warn(message: str) -> None:
    """A toast about something that went wrong."""
    gr.Warning(escape(message), duration=TOAST_S)


def _load(manager: "Manager", model_id: int) -> None:
    manager.load(model_id)


def _load_anyway(manager: "Manager", model_id: int) -> None:
    manager.load(model_id, force=True)


def _unload(manager: "Manager", model_id: int) -> None:
    manager.unload(model_id)


def _cancel(manager: "Manager", model_id: int) -> None:
    manager.cancel(model_id)


def _start(manager: "Manager", model_id: int) -> None:
    gr.Info(f"Looking up {escape(manager.record(model_id).name)}…", duration=TOAST_S / 2)
    manager.start(model_id)


def _retry(manager: "Manager", model_id: int) -> None:
    gr.Info(f"Looking up {escape(manager.record(model_id).name)}…", duration=TOAST_S / 2)
    manager.retry(model_id)


def _delete(manager: "Manager", model_id: int) -> None:
    name = manager.record(model_id).name
    manager.delete(model_id)
    gr.Success(f"{escape(name)} deleted", duration=TOAST_S / 2)


COMMANDS: dict[str, "Callable[[Manager, int], None]"] = {
    "load": _load,
    "load-anyway": _load_anyway,
    "unload": _unload,
    "cancel": _cancel,
    "start": _start,
    "retry": _retry,
    "delete": _delete,
}


def act(manager: "Manager", action: object, model_id: object) -> str | None:
    """Carries out what a button asked; returns a question for the dialog where the person must decide first.

    Both values come from a browser and may be anything.
    """
    with toasts():
        command = COMMANDS.get(str(action))
        if command is None or not isinstance(model_id, int):
            raise InvalidRequest("The page asked for something that does not exist. Reload it.")
        try:
            command(manager, model_id)
        except InsufficientMemory as short:
            return load_anyway_question(manager.record(model_id).name, model_id, short.message)
    return None


def load_anyway_question(name: str, model_id: int, message: str) -> str:
    """The question whether to load a model for which memory seems short, as JSON for the dialog.

    `asked` makes each question differ from the one before it, or the page would not see it.
    """
    question = {
        "title": f"Load {name}?",
        "body": message,
        "ok": "Load anyway",
        "action": "load-anyway",
        "model": model_id,
        "asked": time.time_ns(),
    }
    return json.dumps(question)
