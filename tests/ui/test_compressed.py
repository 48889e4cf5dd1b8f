"""The page goes over the wire compressed; nothing else changes."""

from collections.abc import Iterator

import pytest
from fakes import make_manager
from fastapi.testclient import TestClient

from millm.api import GuardPolicy, create_app
from millm.ui import mount


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    manager = make_manager(tmp_path_factory.mktemp("page"))
    yield TestClient(mount(create_app(manager, GuardPolicy()), manager), base_url="http://localhost")
    manager.close(1)


def test_the_page_is_compressed_for_those_who_take_it(client: TestClient) -> None:
    small = client.get("/", headers={"accept-encoding": "gzip"})
    whole = client.get("/", headers={"accept-encoding": "identity"})
    assert small.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in whole.headers
    assert "system-drawer" in small.text
    assert len(small.text) > 0.9 * len(whole.text)
    assert int(small.headers["content-length"]) < len(whole.content) / 3
    assert small.headers["content-security-policy"] == whole.headers["content-security-policy"]


def test_nothing_else_is_touched(client: TestClient) -> None:
    answer = client.get("/health", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert answer.json()["data"]["status"] == "ok"
