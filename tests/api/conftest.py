"""A manager behind its HTTP door: in this process for most tests, on a real port for those about connections."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest
from fakes import make_manager
from fastapi.testclient import TestClient
from serving import load, serving
from starlette.types import ASGIApp

from millm.api import GuardPolicy, create_app
from millm.manager import Manager


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Manager]]:
    """Makes managers that are closed when the test is over."""
    made: list[Manager] = []

    def build(**parts: Any) -> Manager:
        made.append(make_manager(tmp_path / str(len(made)), **parts))
        return made[-1]

    yield build
    for manager in made:
        assert manager.close(5)


@pytest.fixture
def manager(make: Callable[..., Manager]) -> Manager:
    return make()


@pytest.fixture
def client(manager: Manager) -> TestClient:
    return TestClient(create_app(manager, GuardPolicy()), base_url="http://localhost")


@pytest.fixture
def serve(make: Callable[..., Manager]) -> Iterator[Callable[[ASGIApp], str]]:
    """Serves apps on free ports, before their managers are closed; gives their addresses."""
    with ExitStack() as running:
        yield lambda app: running.enter_context(serving(app))


@pytest.fixture(scope="module")
def loaded_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ASGIApp]:
    """One app with a loaded model, `tiny`, for all tests of a module that only ask."""
    manager = make_manager(tmp_path_factory.mktemp("loaded"))
    load(manager)
    yield create_app(manager, GuardPolicy())
    assert manager.close()


@pytest.fixture(scope="module")
def loaded(loaded_app: ASGIApp) -> TestClient:
    return TestClient(loaded_app, base_url="http://localhost")


@pytest.fixture(scope="module")
def program(loaded_app: ASGIApp) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, over a real port."""
    with serving(loaded_app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        yield client
