"""What sources are asked before anything is brought: plans, headers, names. They may be slow."""

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from millm.errors import InvalidToken, MiLLMError
from millm.jobs import Lane
from millm.records import Source
from millm.sources.base import Fetcher, Found, HeaderReader, Origin, Plan, Searchable
from millm.tensors import TensorInfo

log = logging.getLogger(__name__)

T = TypeVar("T")
PLANS_AT_ONCE, PLANS_IN_ALL = 4, 16
SHORTEST_SEARCH = 2


class Inquiry:
    """Asks the sources, a few at once. token: for gated repositories when a request brings none."""

    def __init__(self, fetchers: Mapping[Source, Fetcher], token: str | None) -> None:
        self._fetchers = fetchers
        self._token = token
        self._plans = Lane("plan", PLANS_AT_ONCE, PLANS_IN_ALL)  # a slow hub must not take all threads

    def close(self, timeout: float) -> bool:
        """Returns whether every question was answered within `timeout` seconds."""
        return self._plans.close(timeout)

    def plan(self, origin: Origin, token: str | None, check: Callable[[], None] = lambda: None) -> Plan:
        """Asks the source what it would bring.

        `check` is called twice a second meanwhile. If it raises, nobody waits for the answer any more.

        Raises:
            MiLLMError: what `Fetcher.plan` raises, or `QueueFull`.
        """
        fetcher = self._fetchers[origin.source]
        try:
            return self._ask(lambda: fetcher.plan(origin, self.token_for(origin.source, token)), check)
        except InvalidToken as error:
            if token is None and self._token:
                raise InvalidToken(f"{error.message} It is the one in HF_TOKEN.", **error.details) from error
            raise

    def token_for(self, source: Source, token: str | None) -> str | None:
        """The token to show a source: what a request brought, else for the hub, and no other host, the one set."""
        return token or (self._token if source is Source.HUGGINGFACE else None)

    def _ask(self, question: Callable[[], T], check: Callable[[], None]) -> T:
        asking = self._plans.submit(lambda _: question())
        try:
            for _ in asking.events():
                check()
            return asking.result()
        finally:
            asking.cancel()

    def tensors(self, plan: Plan, token: str | None, check: Callable[[], None]) -> Mapping[str, TensorInfo] | None:
        """What is in a plan's weight files, if its source can tell; None otherwise."""
        source = self._fetchers.get(plan.origin.source)
        if not isinstance(source, HeaderReader) or plan.refusal or plan.format != "safetensors":
            return None
        try:
            return self._ask(lambda: source.tensors(plan, self.token_for(plan.origin.source, token)), check)
        except MiLLMError as error:
            log.info("no headers of '%s': %s", plan.title, error.message)
            return None

    def search(self, text: str) -> tuple[Found, ...]:
        """Repositories of the hub whose names match, the most popular first; none for less than two characters.

        Raises:
            HubUnavailable, QueueFull
        """
        hub = self._fetchers.get(Source.HUGGINGFACE)
        if len(text.strip()) < SHORTEST_SEARCH or not isinstance(hub, Searchable):
            return ()
        return self._plans.call(lambda: hub.search(text.strip()))
