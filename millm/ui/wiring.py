"""How every listener and every piece of HTML of the page is made."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import gradio as gr

# concurrency_limit: the lanes of the manager are the limit; gradio's own default is one at a time
QUIET: Mapping[str, Any] = MappingProxyType(
    {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
)


def html(value: str = "", elem_id: str | None = None, classes: str | None = None) -> gr.HTML:
    """A place for HTML that we write and escape ourselves, without gradio's styles and scripts.

    Data goes into the value only: gradio runs `html_template` as code.
    """
    return gr.HTML(value, apply_default_css=False, js_on_load=None, elem_id=elem_id, elem_classes=classes)
