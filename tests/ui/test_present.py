"""A page that opens shows the present state at once, and nothing in it can leave the script it stands in."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import make_manager
from fastapi.testclient import TestClient
from serving import load

from millm.api import GuardPolicy, create_app
from millm.manager import Manager
from millm.ui import mount
from millm.ui.present import BEGIN, END, filled

PAGE = b'<html><script>window.gradio_config = {"a":"b","components":[{"id":1,"props":{"value":"","label":"L"}},'
PAGE += b'{"id":2,"props":{"value":"as built"}}]};</script><script>other();</script></html>'


def config(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body.split(BEGIN)[1].split(END)[0])
    return found


def props(page: dict[str, Any], element: str) -> dict[str, Any]:
    found: dict[str, Any] = next(e["props"] for e in page["components"] if e["props"].get("elem_id") == element)
    return found


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = make_manager(tmp_path)
    yield manager
    manager.close(1)


def test_components_begin_with_what_is_drawn() -> None:
    page = filled(PAGE, lambda: {1: {"value": "now", "choices": [["A", "a"]]}})
    assert config(page)["components"] == [
        {"id": 1, "props": {"value": "now", "label": "L", "choices": [["A", "a"]]}},
        {"id": 2, "props": {"value": "as built"}},
    ]
    assert page.endswith(b";</script><script>other();</script></html>")


def test_what_is_drawn_cannot_end_its_script() -> None:
    evil = "</script><img src=x onerror='alert(1)'>&\u2028"
    page = filled(PAGE, lambda: {1: {"value": evil}})
    assert page.count(b"</script>") == PAGE.count(b"</script>")
    assert b"<img" not in page
    assert config(page)["components"][0]["props"]["value"] == evil


def test_a_page_that_cannot_be_drawn_now_is_sent_as_it_was_built(caplog: pytest.LogCaptureFixture) -> None:
    def draw() -> dict[int, dict[str, Any]]:
        raise OSError("the folder has gone")

    assert filled(PAGE, draw) == PAGE
    assert "the folder has gone" in caplog.text
    assert filled(b"<html>another gradio</html>", lambda: {1: {"value": "now"}}) == b"<html>another gradio</html>"


def test_a_page_opens_with_the_present_state_and_asks_for_nothing(manager: Manager) -> None:
    client = TestClient(mount(create_app(manager, GuardPolicy()), manager), base_url="http://localhost")
    before = config(client.get("/").content)
    assert "acme/tiny" not in props(before, "models-list")["value"]
    load(manager)
    page = config(client.get("/").content)
    assert "acme/tiny" in props(page, "models-list")["value"]
    assert "tiny" in props(page, "status-live")["value"]
    assert "Suggested models" in props(page, "catalog")["value"]
    for letter in "ab":
        model = props(page, f"compare-model-{letter}")
        assert (model["value"], [name for _, name in model["choices"]]) == ("tiny", ["tiny"])
    assert not any(event == "load" for each in page["dependencies"] for _, event in each["targets"])


def test_a_page_that_was_just_opened_is_up_to_date(manager: Manager) -> None:
    """Its timer has nothing to draw: the stamp came with the page."""
    load(manager)
    mounted = mount(create_app(manager, GuardPolicy()), manager)
    page = config(TestClient(mounted, base_url="http://localhost").get("/").content)
    tick = next(each for each in page["dependencies"] if any(event == "tick" for _, event in each["targets"]))
    stamp = next(each for each in page["components"] if each["id"] == tick["outputs"][-1])
    version = str(manager.version)
    assert stamp["props"]["value"].split()[0] == version
