"""What on the page follows the manager, and the route by which a page asks once a second what of it has changed.

Not one of gradio's events: for those it makes every component anew that is named as an output, also one that stays as
it is, which took 20 ms a second for every open page.
"""

import asyncio
import gzip
import zlib
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson

from millm.errors import MiLLMError, explain
from millm.ui import compare, models_tab, news, status_bar
from millm.ui.downloads_list import draw_downloads
from millm.ui.framed import Receive, Scope, Send, send_answer, takes_gzip
from millm.ui.models_tab import Filters
from millm.ui.playground_notice import draw_notice

if TYPE_CHECKING:
    from millm.manager import Manager
    from millm.views import StorageState

LEVEL = 1  # of compressing: 0.4 ms for 50 kB

Drawn = list[Mapping[str, Any] | None]
"""The properties that change of each part, in the order of `draw`; None for a part that stays as it is."""

PARTS_UNCHANGED: Drawn = [None] * 4
RUN_UNCHANGED: Drawn = [None] * 4
UNCHANGED: Drawn = [None, *PARTS_UNCHANGED, *RUN_UNCHANGED, None, None]
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"cache-control", b"no-store")],
}


class Live:
    """Everything on the page that follows the manager, drawn afresh when something changed; an ASGI application.

    A page says which state it shows by a stamp; there is no state for it here, so any number of pages may come
    and go. The stamp is the manager's version, and checksums of the status bar, of the filters and of the comparison,
    which change on their own.
    """

    def __init__(self, manager: "Manager") -> None:
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI has it)
        """Answers a page that says by the query its `stamp`, and by which `Filters` it wants its cards.

        The answer is `Drawn` as JSON.
        """
        asked = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        small = takes_gzip(scope)
        await send_answer(START, await asyncio.to_thread(self._answer, asked, small), small, send)

    def draw(self, filters: Filters, shown: str = "") -> Drawn:
        """What a page with the stamp `shown` does not show yet; all of it for a page without one.

        Status bar, downloads, storage, cards, notice of the playground, four parts of comparison, news, stamp.
        """
        version, notices = self._manager.news(_seen(shown))  # first: what ends while this draws is told the next time
        bar = status_bar.draw(self._manager)
        now = [str(version), _sum(bar), _sum(repr(filters)), compare.stamp(self._manager)]
        known = shown.split(" ")
        if known == now:
            return UNCHANGED
        before = known if len(known) == len(now) else [""] * len(now)
        moved, other_bar, filtered, compared = (one != other for one, other in zip(before, now, strict=True))
        parts = self._parts(filters) if moved else self._cards(filters) if filtered else PARTS_UNCHANGED
        run = compare.draw(self._manager) if compared else RUN_UNCHANGED
        told = news.draw_news(version, notices)
        return [{"value": bar} if other_bar else None, *parts, *run, told, {"value": " ".join(now)}]

    def _answer(self, asked: dict[str, str], small: bool) -> bytes:
        filters = Filters(**{each.name: asked[each.name] for each in fields(Filters) if each.name in asked})
        stamp = asked.get("stamp", "")
        try:
            body = orjson.dumps(self.draw(filters, stamp))
        except Exception as error:  # noqa: BLE001  (the person is told on the page)
            body = orjson.dumps(_failed(explain(error), _seen(stamp)))
        return gzip.compress(body, LEVEL) if small else body

    def _parts(self, filters: Filters) -> Drawn:
        storage = self._manager.storage()  # looks at every file
        _, *cards, _ = self._cards(filters, storage)
        return [{"value": draw_downloads(self._manager, storage)}, *cards, {"value": draw_notice(self._manager)}]

    def _cards(self, filters: Filters, storage: "StorageState | None" = None) -> Drawn:
        """Of the parts only those that filters change."""
        told = (self._manager, filters, storage or self._manager.storage())
        return [None, {"value": models_tab.draw_storage(*told)}, {"value": models_tab.draw_cards(*told)}, None]


def _sum(text: str) -> str:
    return str(zlib.crc32(text.encode()))


def _failed(error: MiLLMError, seen: int) -> Drawn:
    """Says why the page could not be drawn, with a stamp by which the next question asks for all of it."""
    bar = status_bar.draw_failure(f"This page could not be brought up to date. {error.message}")
    return [{"value": bar}, *UNCHANGED[1:-1], {"value": str(seen)}]


def _seen(stamp: str) -> int:
    """The version that a page shows, 0 for a page that is new or shows something else."""
    first = stamp.split(" ")[0]
    return int(first) if first.isdecimal() else 0
