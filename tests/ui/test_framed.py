"""The page goes over the wire compressed, with our files in its head; nothing else changes."""

import re
from collections.abc import Iterator

import pytest
from fakes import make_manager
from fastapi.testclient import TestClient

from millm.api import GuardPolicy, create_app
from millm.ui import mount
from millm.ui.page_files import script, style


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


def test_our_files_come_before_gradio_starts_and_are_kept_by_the_browser(client: TestClient) -> None:
    for encoding in ("gzip", "identity"):
        page = client.get("/", headers={"accept-encoding": encoding}).text
        ours, body = page.split("<gradio-app")
        files = re.findall(r"/page/[0-9a-f]{16}\.(?:css|js)", ours)
        assert [path.rsplit(".")[-1] for path in files] == ["css", "js"]
        assert ours.endswith(f'<script src=".{files[1]}"></script>'), "it draws what is seen before gradio is there"
        assert f'<link rel="stylesheet" href=".{files[0]}"></body>' in body, "behind those of gradio"
        for path, text in zip(files, (style(), script()), strict=True):
            answer = client.get(path, headers={"accept-encoding": encoding})
            assert answer.text == text
            assert "immutable" in answer.headers["cache-control"]
            assert answer.headers.get("content-encoding", "identity") == encoding
    assert client.get("/page/other.js").status_code == 404


def test_nothing_else_is_touched(client: TestClient) -> None:
    answer = client.get("/health", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert answer.json()["data"]["status"] == "ok"
