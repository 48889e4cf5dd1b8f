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

from millm.errors import explain
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
    and go. The stamp is the manager's version, a checksum of the status bar, and that of the comparison: those two
    change on their own.
    """

    def __init__(self, manager: "Manager") -> None:
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  (ASGI has it)
        """Answers a page that says by the query what it shows: `stamp`, `Filters`, and `filtered` if those are new.

        The answer is `Drawn` as JSON.
        """
        asked = dict(parse_qsl(scope["query_string"].decode()))
        small = takes_gzip(scope)
        await send_answer(START, await asyncio.to_thread(self._answer, asked, small), small, send)

    def draw(self, filters: Filters) -> Drawn:
        """Status bar, downloads, storage, cards, notice of the playground, four parts of comparison, news, stamp."""
        bar, stamp = self._bar_and_stamp()
        return [bar, *self._parts(filters), *compare.draw(self._manager), None, stamp]

    def changes(self, filters: Filters, shown: str, filtered: bool = False) -> Drawn:
        """The same, of what a page does not show yet. shown: its stamp. filtered: it shows other filters' cards."""
        bar, stamp = self._bar_and_stamp()
        before, now = shown.split(" "), str(stamp["value"]).split(" ")
        if before == now and not filtered:
            return UNCHANGED
        new_version = _seen(shown) != int(now[0])
        parts = self._parts(filters) if new_version else self._cards(filters) if filtered else PARTS_UNCHANGED
        run = RUN_UNCHANGED if before[-1] == now[-1] else compare.draw(self._manager)
        told = self._news(shown) if new_version else None
        return [None if before[1:2] == now[1:2] else bar, *parts, *run, told, None if before == now else stamp]

    def _answer(self, asked: dict[str, str], small: bool) -> bytes:
        filters = Filters(**{each.name: asked[each.name] for each in fields(Filters) if each.name in asked})
        try:
            drawn = self.changes(filters, asked.get("stamp", ""), "filtered" in asked)
        except Exception as error:  # noqa: BLE001  (a folder may vanish while it is measured; the next question draws)
            explain(error)
            drawn = UNCHANGED
        body = orjson.dumps(drawn)
        return gzip.compress(body, LEVEL) if small else body

    def _bar_and_stamp(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        version, bar = self._manager.version, status_bar.draw(self._manager)
        stamp = f"{version} {zlib.crc32(bar.encode())} {compare.stamp(self._manager)}"
        return {"value": bar}, {"value": stamp}

    def _news(self, shown: str) -> Mapping[str, Any] | None:
        """What ended since a page was drawn."""
        return news.draw_news(*self._manager.news(_seen(shown)))

    def _parts(self, filters: Filters) -> Drawn:
        storage = self._manager.storage()  # looks at every file
        _, *cards, _ = self._cards(filters, storage)
        return [{"value": draw_downloads(self._manager, storage)}, *cards, {"value": draw_notice(self._manager)}]

    def _cards(self, filters: Filters, storage: "StorageState | None" = None) -> Drawn:
        """Of the parts only those that filters change."""
        told = (self._manager, filters, storage or self._manager.storage())
        return [None, {"value": models_tab.draw_storage(*told)}, {"value": models_tab.draw_cards(*told)}, None]


def _seen(stamp: str) -> int:
    """The version that a page shows, 0 for a page that is new or shows something else."""
    first = stamp.split(" ")[0]
    return int(first) if first.isdigit() else 0
