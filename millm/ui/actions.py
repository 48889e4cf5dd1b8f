"""What the buttons on cards ask of the manager, and the dialog that asks back."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from millm.errors import Cancelled, InsufficientMemory, InvalidRequest, explain
from millm.ui import words
from millm.ui.memory_picture import memory_picture
from millm.ui.wiring import QUIET

if TYPE_CHECKING:
    from millm.manager import Manager

DIALOG = """
<dialog class="mi-dialog" id="confirm-dialog" aria-labelledby="confirm-title" aria-describedby="confirm-body">
  <h2 id="confirm-title"></h2><p id="confirm-body"></p><div id="confirm-more"></div>
  <div class="mi-dialog-buttons">
    <button type="button" class="mi-btn" id="confirm-cancel-btn" autofocus>Cancel</button>
    <button type="button" class="mi-btn is-primary" id="confirm-ok-btn"></button>
    <button type="button" class="mi-btn is-primary is-danger" id="confirm-also-btn" hidden></button>
  </div>
</dialog>
"""
# Questions come from a button's data (delete) or from the server as the `question` property (load anyway). Both reach
# the page as textContent, but for `more`: HTML that only the server sends. The answer is "ok", "also" (the second
# way, where there is one) or "".
DIALOG_SCRIPT = """
const dialog = element.querySelector('dialog');
const part = (id) => dialog.querySelector('#confirm-' + id);
let answer = null;
window.millm.ask = ({ title, body, ok, also, danger, more }) => new Promise((resolve) => {
  part('title').textContent = title;
  part('body').textContent = body;
  part('more').innerHTML = more ?? '';
  part('ok-btn').textContent = ok;
  part('ok-btn').classList.toggle('is-danger', danger && !also);
  part('ok-btn').classList.toggle('is-primary', !also);
  part('also-btn').textContent = also ?? '';
  part('also-btn').hidden = !also;
  answer = resolve;
  dialog.returnValue = '';
  dialog.showModal();
});
dialog.addEventListener('close', () => { answer?.(dialog.returnValue); answer = null; });
dialog.addEventListener('click', (event) => {
  if (event.target === dialog || event.target === part('cancel-btn')) dialog.close('');
  if (event.target === part('ok-btn')) dialog.close('ok');
  if (event.target === part('also-btn')) dialog.close('also');
});
window.millm.act = (action, model) => trigger('ask_manager', { action, model });
watch('answered', () => {
  for (const button of document.querySelectorAll('[data-act][aria-busy]')) button.removeAttribute('aria-busy');
});
watch('question', async () => {
  const { title, body, ok, action, model, more } = JSON.parse(props.question);
  if (await window.millm.ask({ title, body, ok, more, danger: true })) window.millm.act(action, model);
});
"""

TOAST_S = 8.0
NONSENSE = "The page asked for something that does not exist. Reload it."


def build_dialog(manager: "Manager") -> Any:
    """Builds the confirm dialog, through which every button of a card reaches the server.

    Returns the event that a button had its effect.
    """
    dialog = gr.HTML(
        DIALOG, question="", answered="", apply_default_css=False, js_on_load=DIALOG_SCRIPT, elem_id="dialog-block"
    )

    def answer(event: gr.EventData) -> Iterator[Any]:
        yield from _answers(manager, getattr(event, "action", None), getattr(event, "model", None))

    return dialog.ask_manager(answer, None, dialog, trigger_mode="multiple", **QUIET)


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


def done(message: str) -> None:
    """A toast about something that went well."""
    gr.Success(escape(message), duration=TOAST_S / 2)


def _load(manager: "Manager", model_id: int) -> None:
    manager.load(model_id)


def _load_anyway(manager: "Manager", model_id: int) -> None:
    manager.load(model_id, force=True)


def _unload(manager: "Manager", model_id: int) -> None:
    manager.unload(model_id)


def _reload(manager: "Manager", model_id: int) -> None:
    manager.reload(model_id)


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
    done(f"{name} deleted")


def _delete_everywhere(manager: "Manager", model_id: int) -> None:
    name = manager.record(model_id).name
    manager.delete(model_id, everywhere=True)
    done(f"{name} deleted, from Ollama too")


def _saved(manager: "Manager", model_id: int) -> None:
    done(f"{manager.record(model_id).name}: settings saved")


def _guide(manager: "Manager", _: int) -> None:
    manager.add_guide()


def _clean(manager: "Manager", _: int) -> None:
    done(f"{words.size(manager.clean())} freed")


def _compare(manager: "Manager", model_id: int) -> None:
    manager.compare(model_id)


def _stop_comparing(manager: "Manager", _: int) -> None:
    manager.side_by_side.cancel()


def _activate(manager: "Manager", model_id: int) -> None:
    manager.activate(model_id)


def _deactivate(manager: "Manager", model_id: int) -> None:
    manager.deactivate(model_id)


COMMANDS: dict[str, "Callable[[Manager, int], None]"] = {
    "load": _load,
    "load-anyway": _load_anyway,
    "unload": _unload,
    "reload": _reload,
    "cancel": _cancel,
    "start": _start,
    "retry": _retry,
    "delete": _delete,
    "delete-everywhere": _delete_everywhere,
    "saved": _saved,
    "guide": _guide,
    "clean": _clean,
    "compare": _compare,
    "stop-comparing": _stop_comparing,
    "activate": _activate,
    "deactivate": _deactivate,
}


def act(manager: "Manager", action: object, model_id: object) -> str | None:
    """Carries out what a button asked; returns a question for the dialog where the person must decide first.

    Both values come from a browser and may be anything.
    """
    with toasts():
        command, number = COMMANDS.get(str(action)), _checked_id(model_id)
        if command is None:
            raise InvalidRequest(NONSENSE)
        try:
            command(manager, number)
        except InsufficientMemory as short:
            return load_anyway_question(manager.record(number).name, number, short.message, _room(manager, number))
    return None


def _answers(manager: "Manager", action: object, model: object) -> Iterator[Any]:
    """Carries out what a button asked, and says so to the page; waits for the end of a check of files, to tell it."""
    if action != "verify":
        yield _answered(act(manager, action, model))
        return
    for place, _ in enumerate(verify(manager, model)):
        yield gr.skip() if place else _answered()


def _answered(question: str | None = None) -> Any:
    """What tells the page that a pressed button has had its effect, and what must be decided first, if anything."""
    asked = {"question": question} if question else {}
    return gr.HTML(answered=str(time.time_ns()), **asked)


def _checked_id(model_id: object) -> int:
    if not isinstance(model_id, int):
        raise InvalidRequest(NONSENSE)
    return model_id


def verify(manager: "Manager", model_id: object) -> Iterator[None]:
    """Has a model's files checked and says in a toast how that ended; yields at once and then every beat."""
    with toasts():
        record = manager.verify(_checked_id(model_id))
        job = manager.job(record.id)
        yield
        if job is not None:
            for _ in job.events():
                yield
            with suppress(Cancelled):
                job.result()
                done(words.verified(record))
            return
        now = manager.record(record.id)  # a small model is checked before anybody can watch
        if now.error_message:
            warn(now.error_message)
        else:
            done(words.verified(now))


def _room(manager: "Manager", model_id: int) -> str:
    room = manager.room(model_id)
    return memory_picture(room, manager.record(room.present).name if room.present else "")


def load_anyway_question(name: str, model_id: int, message: str, more: str = "") -> str:
    """The question whether to load a model for which memory seems short, as JSON for the dialog. more: HTML.

    `asked` makes each question differ from the one before it, or the page would not see it.
    """
    question = {
        "title": f"Load {name}?",
        "body": message,
        "more": more,
        "ok": "Load anyway",
        "action": "load-anyway",
        "model": model_id,
        "asked": time.time_ns(),
    }
    return json.dumps(question)
