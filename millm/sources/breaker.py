"""A circuit breaker around questions to a server that may be down."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from pybreaker import STATE_CLOSED, CircuitBreaker, CircuitBreakerError, CircuitMemoryStorage

from millm.errors import HubUnavailable

T = TypeVar("T")


class Breaker:
    """Stops asking after `HubUnavailable` came `failures` times in a row.

    After `rest_s` seconds one question is let through, whose answer decides. Any other error is an answer too.
    """

    def __init__(self, failures: int, rest_s: float) -> None:
        self._rest_s = rest_s
        self._storage = CircuitMemoryStorage(STATE_CLOSED)
        self._circuit = CircuitBreaker(
            fail_max=failures,
            reset_timeout=rest_s,
            exclude=[lambda error: not isinstance(error, HubUnavailable)],
            state_storage=self._storage,
            throw_new_error_on_trip=False,
        )

    def call(self, question: Callable[[], T]) -> T:
        """Asks, or refuses to.

        Raises:
            HubUnavailable: nobody is asked for some seconds more, or the question itself raised it.
        """
        try:
            answer: T = self._circuit.call(question)
            return answer
        except CircuitBreakerError as error:
            seconds = self._left()
            raise HubUnavailable(
                f"HuggingFace did not answer several times. It is asked again in {seconds} seconds.", seconds=seconds
            ) from error

    def _left(self) -> int:
        opened = self._storage.opened_at or datetime.now(UTC)
        if opened.tzinfo is None:
            opened = opened.replace(tzinfo=UTC)
        return max(1, math.ceil(self._rest_s - (datetime.now(UTC) - opened).total_seconds()))
