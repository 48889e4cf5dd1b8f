"""/metrics: what passed through and how this machine is doing, as Prometheus reads it.

Nothing is counted here. The figures are the manager's, read when somebody asks; the registry is the app's own.
"""

from collections.abc import Callable, Iterator
from math import inf
from typing import Any, Protocol

from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.responses import Response

from millm.api.management_examples import FAILED, METRICS
from millm.api.management_schema import Failed
from millm.api.parts import TheMetrics
from millm.figures import Figures, Histogram, Outcome
from millm.views import SystemState

router = APIRouter(tags=["This machine"])

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Prometheus text, version 0.0.4", "content": {"text/plain": {"example": METRICS}}},
    "default": {"model": Failed, "description": "An error", "content": {"application/json": {"example": FAILED}}},
}


class Told(Protocol):
    """What is asked for figures; the manager."""

    system: Callable[[], SystemState]
    figures: Callable[[], Figures]


@router.get("/metrics", summary="Read the figures", responses=DOCUMENTED, response_class=Response)
def show_metrics(metrics: TheMetrics) -> Response:
    """Requests, tokens, times and memory as Prometheus reads them. Times are in seconds, memory in bytes."""
    return Response(generate_latest(metrics), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})


def own_registry(told: Told) -> CollectorRegistry:
    """What /metrics of one app shows; nothing of it is shared with another app in the same process."""
    registry = CollectorRegistry()
    registry.register(_Reading(told))
    return registry


class _Reading(Collector):
    def __init__(self, told: Told) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        """Yields every metric as it is now."""
        system = self._told.system()
        yield from _passed(self._told.figures())
        yield from _going_on(system)
        yield from _memory(system)
        yield InfoMetricFamily("millm_build", "This program", {"version": system.version})
        model = InfoMetricFamily("millm_model", "The loaded model", labels=("name", "quantization", "source"))
        if record := system.loaded:
            model.add_metric((record.name, record.quantization, record.source), {})
        yield model


def _passed(figures: Figures) -> Iterator[Metric]:
    """What only grows."""
    requests = CounterMetricFamily("millm_requests", "Requests that ended, by how", labels=("outcome",))
    for outcome in Outcome:
        requests.add_metric((outcome,), figures.outcomes[outcome])
    yield requests
    yield CounterMetricFamily("millm_prompt_tokens", "Tokens in prompts of answered requests", figures.prompt_tokens)
    yield CounterMetricFamily(
        "millm_prompt_tokens_reused", "Of these, read already in an earlier turn", figures.cached_tokens
    )
    yield CounterMetricFamily("millm_generated_tokens", "Tokens generated", figures.generated_tokens)
    yield _histogram("millm_time_to_first_token_seconds", "From a request to its first token", figures.first_token)
    yield _histogram(
        "millm_inter_token_latency_seconds", "From each token of an answer to the next", figures.next_token
    )
    yield _histogram("millm_request_duration_seconds", "From a request to its end, however it ended", figures.whole)


def _going_on(system: SystemState) -> Iterator[Metric]:
    """What is being done now. Gauges that the engine does not know have no value."""
    yield GaugeMetricFamily("millm_requests_running", "Requests being answered", system.requests_running)
    yield GaugeMetricFamily("millm_requests_waiting", "Requests not begun yet", system.requests_waiting)
    yield GaugeMetricFamily("millm_batch_width", "Answers that get a token with every step", system.batch_width)
    yield GaugeMetricFamily("millm_rows_waiting", "Answers whose prompts are still to be read", system.rows_waiting)


def _memory(system: SystemState) -> Iterator[Metric]:
    yield GaugeMetricFamily("millm_process_memory_bytes", "RAM of this process alone", system.process_bytes)
    yield GaugeMetricFamily("millm_model_memory_bytes", "Weights of the loaded model", system.model_bytes)
    labels = ("device", "kind", "name")
    free = GaugeMetricFamily("millm_device_memory_free_bytes", "Memory left on a device", labels=labels)
    total = GaugeMetricFamily("millm_device_memory_bytes", "Memory of a device", labels=labels)
    for number, device in enumerate(system.devices):
        free.add_metric((str(number), device.kind, device.name), device.free)
        total.add_metric((str(number), device.kind, device.name), device.total)
    yield free
    yield total


def _histogram(name: str, meaning: str, histogram: Histogram) -> Metric:
    buckets = [(str(bound) if bound < inf else "+Inf", count) for bound, count in histogram.cumulated()]
    return HistogramMetricFamily(name, meaning, buckets, histogram.total)
