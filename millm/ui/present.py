"""What a page shows at first, written into it before it is sent, so that it need not ask once it runs."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from millm.errors import explain

Props = Mapping[int, Mapping[str, Any]]
"""Properties of components by the id of each."""

BEGIN, END = b"window.gradio_config = ", b";</script>"
UNSAFE = {b"<": b"\\u003c", b">": b"\\u003e", b"&": b"\\u0026", b"'": b"\\u0027"}  # as gradio does: it stands in HTML


def filled(body: bytes, draw: Callable[[], Props]) -> bytes:
    """The page of gradio, whose components begin with what `draw` says of them.

    Where that fails, or gradio writes its page in another way, they begin as they were built, and the timer of the
    page draws them a second later.
    """
    head, begin, rest = body.partition(BEGIN)
    config, end, tail = rest.partition(END)
    if not end:
        return body
    page = orjson.loads(config)
    try:
        drawn = draw()
        for component in page["components"]:
            component["props"] |= drawn.get(component["id"], {})
        return head + begin + _dumped(page) + end + tail
    except Exception as error:  # noqa: BLE001  (a folder may vanish while it is measured)
        explain(error)
        return body


def _dumped(page: dict[str, Any]) -> bytes:
    text = orjson.dumps(page)
    for sign, escaped in UNSAFE.items():
        text = text.replace(sign, escaped)
    return text
