"""Gets gradio imported in half the time."""

import inspect
from typing import Any


def import_gradio() -> None:
    """Imports gradio without letting it write stubs of its own components.

    At import gradio compares some 80 generated `.pyi` files with their sources, which is 40 % of its import time.
    It leaves out a class whose file it cannot find, so for its own classes `inspect.getfile` says just that. Where
    a version of gradio works in another way, this changes nothing.
    """
    find = inspect.getfile

    def getfile(item: Any) -> str:
        if isinstance(item, type) and item.__module__.startswith("gradio."):
            raise OSError("left out")
        return find(item)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        import gradio  # noqa: F401
    finally:
        inspect.getfile = find
