"""The parts of the program that routes are given: set once by `create_app`, asked for by name in signatures."""

from typing import Annotated

from fastapi import Depends, FastAPI, Request
from prometheus_client import CollectorRegistry

from millm.manager import Manager


def set_parts(app: FastAPI, manager: Manager, metrics: CollectorRegistry) -> None:
    """Gives an app its manager and what /metrics shows."""
    app.state.manager = manager
    app.state.metrics = metrics


async def _manager(request: Request) -> Manager:
    manager: Manager = request.app.state.manager
    return manager


async def _metrics(request: Request) -> CollectorRegistry:
    metrics: CollectorRegistry = request.app.state.metrics
    return metrics


TheManager = Annotated[Manager, Depends(_manager)]
TheMetrics = Annotated[CollectorRegistry, Depends(_metrics)]
