from collections.abc import Iterator
from pathlib import Path

import pytest
from making import Watcher, nowhere
from remote_server import RemoteServer

from millm.errors import InvalidRequest, InvalidUrl, RemoteUnavailable
from millm.records import ModelType, Source
from millm.remote_client import Servers
from millm.sources.base import KeyTaker, Origin, Plan
from millm.sources.remote import Remote

KEY = "sk-canary-42"


@pytest.fixture
def server() -> Iterator[RemoteServer]:
    with RemoteServer() as running:
        yield running


def plan(server: RemoteServer, name: str | None = None, key: str | None = None) -> Plan:
    return Remote(Servers(allow_private=True)).plan(Origin(Source.REMOTE, repo_id=name, url=server.url), key)


def test_the_only_model_need_not_be_named(server: RemoteServer) -> None:
    server.models = ["acme/Tiny-1B"]
    found = plan(server)
    assert (found.title, found.origin.repo_id, found.suggested_name) == ("acme/Tiny-1B", "acme/Tiny-1B", "Tiny-1B")
    assert (found.origin.url, found.files, found.total_bytes) == (server.url, (), 0)
    place = f"The server at 127.0.0.1:{server.port}"
    assert found.warnings == (f"{place} runs this model itself; nothing is downloaded.", "It has: acme/Tiny-1B.")


def test_one_of_several_must_be_named(server: RemoteServer) -> None:
    server.models = [f"m{number}" for number in range(25)]
    with pytest.raises(InvalidRequest, match=r"has 25 models. Name one. .*: m0, m1, .*m19, and 5 more\.") as caught:
        plan(server)
    assert caught.value.details["field"] == "repo_id"
    assert "m20" not in caught.value.message
    assert plan(server, " m7 ").origin.repo_id == "m7"


def test_a_name_that_is_not_listed_is_taken_with_a_word(server: RemoteServer) -> None:
    assert plan(server, "other").warnings[1] == "Its list does not name 'other', so it may not have it. It has: tiny."


def test_a_server_without_a_list_needs_a_name(server: RemoteServer) -> None:
    server.models = None
    with pytest.raises(InvalidRequest, match="does not say which models it has. Name one"):
        plan(server)
    assert "does not say which models it has" in plan(server, "tiny").warnings[1]
    server.models = []
    with pytest.raises(InvalidRequest, match="It lists none"):
        plan(server)


def test_the_key_is_asked_for_tried_and_kept_once_the_model_is_attached(server: RemoteServer, tmp_path: Path) -> None:
    server.key = KEY
    source, origin = Remote(Servers(allow_private=True)), Origin(Source.REMOTE, url=server.url)
    with pytest.raises(RemoteUnavailable, match="asks for a key") as caught:
        source.plan(origin, None)
    assert caught.value.details["field"] == "server_key"
    with pytest.raises(RemoteUnavailable, match="does not accept the key") as caught:
        source.plan(origin, "sk-wrong")
    assert "sk-wrong" not in f"{caught.value} {caught.value.details}"
    found = source.plan(origin, KEY)
    with pytest.raises(RemoteUnavailable):  # a look keeps nothing
        source.plan(origin, None)
    source.fetch(found, KEY, tmp_path, Watcher())
    assert source.plan(origin, None).title == "tiny"
    assert list(tmp_path.iterdir()) == []
    assert KEY not in repr(found)


def test_a_key_can_be_given_again(server: RemoteServer) -> None:
    server.key = KEY
    source = Remote(Servers(allow_private=True))
    assert isinstance(source, KeyTaker)
    source.give_key(server.url, KEY)
    assert source.plan(Origin(Source.REMOTE, url=server.url), None).title == "tiny"


def test_other_types_and_addresses_are_refused(server: RemoteServer) -> None:
    source = Remote(Servers(allow_private=True))
    with pytest.raises(InvalidRequest, match="language or embedding"):
        source.plan(Origin(Source.REMOTE, url=server.url, model_type=ModelType.TTS), None)
    with pytest.raises(InvalidUrl):
        source.plan(Origin(Source.REMOTE, url="gpu-box"), None)
    with pytest.raises(InvalidUrl, match="not on the public internet"):
        Remote(Servers(allow_private=False)).plan(Origin(Source.REMOTE, url=server.url), None)
    with pytest.raises(RemoteUnavailable, match="does not answer"):
        source.plan(Origin(Source.REMOTE, url=nowhere()), None)
    assert server.seen == []
