"""What a person is told wherever on the page they are: that a download has ended.

The page knows which version of the manager it has shown; what happened since then is new to it, and told once. The
browser hands it back as an event, because gradio shows toasts for queued events only.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from millm.errors import ModelNotFound
from millm.ui import words
from millm.ui.actions import done, warn
from millm.ui.wiring import QUIET

if TYPE_CHECKING:
    from millm.manager import Manager
    from millm.views import Notice

COMPLETE, FAILED = "model:download:complete", "model:download:error"
MOST_AT_ONCE = 5
SCRIPT = "watch('items', () => trigger('tell', { items: JSON.parse(props.items).told }));"


def build(manager: "Manager") -> gr.HTML:
    """Builds the place that news passes through; it lies outside the tabs and shows nothing itself."""
    place = gr.HTML("", items="", apply_default_css=False, js_on_load=SCRIPT, elem_id="news")

    def tell(event: gr.EventData) -> None:
        say(manager, getattr(event, "items", None))

    place.tell(tell, trigger_mode="multiple", **QUIET)
    return place


def draw_news(version: int, notices: "Sequence[Notice]") -> Mapping[str, Any] | None:
    """What changes of the place for a page that has come to `version`, by all that happened on the way."""
    told = [[notice.kind, notice.model_id] for notice in notices if notice.kind in (COMPLETE, FAILED)]
    if not told:
        return None
    # with the version no two are alike, or the page would not see the second
    return {"props": {"items": json.dumps({"version": version, "told": told[-MOST_AT_ONCE:]})}}


def say(manager: "Manager", items: object) -> None:
    """Shows a toast for each piece of news. items: of [kind, model id]; from a browser, so it may be anything."""
    for item in items[:MOST_AT_ONCE] if isinstance(items, list) else []:
        match item:
            case [str(kind), int(model_id)]:
                _say(manager, kind, model_id)


def _say(manager: "Manager", kind: str, model_id: int) -> None:
    try:
        record = manager.record(model_id)
    except ModelNotFound:
        return  # deleted meanwhile
    if kind == COMPLETE:
        done(f"{record.name} is ready. {words.next_step(record)}")
    elif kind == FAILED and record.error_message:
        warn(" ".join(filter(None, (f"{record.name}:", record.error_message, words.kept(record)))))
