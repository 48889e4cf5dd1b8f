"""Which replica a request goes to: the one with the fewest requests of ours, or the one it names to listen to."""

import time
from collections import Counter
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

LULL_S = 1.0  # without a request after which nothing is on its way that has not been sent


class FewestFirst(RequestRouter):  # type: ignore[misc]
    """Goes by what was chosen and has not ended, which is all there is: nobody else asks our replicas.

    Ray's own way takes what two replicas said last. While many requests are on their way at once that is old: of 32
    requests to two replicas one got 22.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._chosen: Counter[Any] = Counter()  # requests that were given a replica and not sent to it yet
        self._chosen_at = 0.0

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The replicas, that with the fewest requests first. While all are full Ray asks again, with pauses."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
            if pending_request.metadata.call_method == "listen":
                named = pending_request.args[0]
                candidate_replicas = [each for each in candidate_replicas if each.replica_id.unique_id == named]
        if time.monotonic() - self._chosen_at > LULL_S:
            self._chosen.clear()  # a request that was cancelled meanwhile is not sent
        self._chosen_at = time.monotonic()
        order = sorted(candidate_replicas, key=self._requests)
        if order and self._requests(order[0]) < order[0].max_ongoing_requests:
            self._chosen[order[0].replica_id] += 1
        return [[replica] for replica in order]

    def on_send_request(self, replica_id: Any) -> None:
        """A request that was given a replica is sent to it, and counted by Ray from now on."""
        self._chosen[replica_id] = max(0, self._chosen[replica_id] - 1)
        super().on_send_request(replica_id)

    def on_new_queue_len_info(self, replica_id: Any, num_ongoing_requests: int) -> None:
        """Nothing: a replica that accepts a request does not know of those behind it."""

    def _requests(self, replica: RunningReplica) -> int:
        sent = self.replica_queue_len_cache.get(replica.replica_id) or 0
        return int(sent + self._chosen[replica.replica_id])
