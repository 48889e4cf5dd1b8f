"""The parts of the program that routes are given: set once by `create_app`, asked for by name in signatures."""

from typing import Annotated

import anyio
from fastapi import Depends, FastAPI, Request
from prometheus_client import CollectorRegistry

from millm.api.streams import THREADS
from millm.manager import Manager


def set_parts(app: FastAPI, manager: Manager, metrics: CollectorRegistry) -> None:
    """Gives an app its manager, what /metrics shows, and threads of its own for streams."""
    app.state.manager = manager
    app.state.metrics = metrics
    app.state.stream_threads = anyio.CapacityLimiter(THREADS)


async def _manager(request: Request) -> Manager:
    manager: Manager = request.app.state.manager
    return manager


async def _stream_threads(request: Request) -> anyio.CapacityLimiter:
    threads: anyio.CapacityLimiter = request.app.state.stream_threads
    return threads


async def _metrics(request: Request) -> CollectorRegistry:
    metrics: CollectorRegistry = request.app.state.metrics
    return metrics


TheManager = Annotated[Manager, Depends(_manager)]
StreamThreads = Annotated[anyio.CapacityLimiter, Depends(_stream_threads)]
TheMetrics = Annotated[CollectorRegistry, Depends(_metrics)]
