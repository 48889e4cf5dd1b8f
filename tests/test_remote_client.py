"""Addresses, keys and connections of OpenAI-compatible servers."""

import socket
from collections.abc import Iterator

import pytest
from remote_server import RemoteServer

from millm.errors import InvalidRequest, InvalidUrl, RemoteUnavailable
from millm.remote_client import Servers, server_address

KEY = "sk-canary-41"


@pytest.fixture
def server() -> Iterator[RemoteServer]:
    with RemoteServer() as running:
        yield running


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://gpu-box:8000", "http://gpu-box:8000/v1"),
        (" http://gpu-box:8000/v1/ ", "http://gpu-box:8000/v1"),
        ("HTTPS://Example.com:443/api/v1/chat/completions", "https://example.com/api/v1"),
        ("http://[::1]:80/v1/models", "http://[::1]/v1"),
        ("http://box/embeddings", "http://box/v1"),
        ("http://box/team-a", "http://box/team-a/v1"),
    ],
)
def test_an_address_ends_in_v1(text: str, address: str) -> None:
    assert server_address(text) == address
    assert server_address(address) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *[(text, "Enter one like") for text in ("gpu-box:8000", "", "ftp://box", "http://", "http://box:99999", "http://ä")],
        *[(text, "Enter one like") for text in ("http://box/a b", "http://box\\evil/", "http://[::1", "http://-box")],
        *[(text, "'\\?' or '#'") for text in ("http://box/v1?key=x", "http://box/#", "http://box/?")],
        *[(f"http://{user}@box/v1", "key as the server key") for user in ("me", f"me:{KEY}", "")],
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_server(text: str, message: str) -> None:
    with pytest.raises(InvalidUrl, match=message) as caught:
        server_address(text)
    assert KEY not in f"{caught.value} {caught.value.details}"


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "ä", "x" * 501], ids=["blank", "line", "letter", "long"])
def test_what_can_be_no_key(key: str) -> None:
    servers = Servers(allow_private=True)
    with pytest.raises(InvalidRequest, match="A server key has") as caught:
        servers.keep_key("http://box/v1", key)
    assert key not in str(caught.value)
    with pytest.raises(InvalidRequest):
        servers.client("http://box/v1", key)


def test_a_key_is_for_its_address_alone(server: RemoteServer) -> None:
    servers = Servers(allow_private=True)
    servers.keep_key(server.url, f" {KEY} ")
    assert servers.client(server.url).names() == ("tiny",)
    servers.client(f"http://localhost:{server.port}/v1").names()
    assert [sent.get("Authorization") for sent in server.headers] == [f"Bearer {KEY}", None]
    assert KEY not in f"{servers!r} {vars(servers.client('http://else/v1'))}"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "169.254.169.254", "127.1", "2130706433"]
)
def test_a_server_in_a_private_network_is_asked_only_where_that_is_allowed(host: str) -> None:
    with pytest.raises(InvalidUrl, match="is not on the public internet. A miLLM on Hugging Face Spaces"):
        Servers(allow_private=False).client(f"http://{host}:9/v1").names()


def test_the_very_address_that_was_checked_is_the_one_that_is_asked(
    server: RemoteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that changes between the check and the connection must not lead inside."""
    answers = [[("8.8.8.8", 0)], [("127.0.0.1", server.port)]]
    asked: list[str] = []

    def changing(host: str | bytes, *_: object, **__: object) -> list[object]:
        asked.append(host.decode() if isinstance(host, bytes) else host)
        if asked[-1] != "evil.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", server.port))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", answers.pop(0)[0])]

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    monkeypatch.setattr("millm.remote_http.getproxies", dict)  # which would look the name up themselves
    with pytest.raises(RemoteUnavailable):
        Servers(allow_private=False).client(f"http://evil.example:{server.port}/v1").names(seconds=1)
    assert asked.count("evil.example") == 1
    assert server.seen == []


def test_redirects_are_not_followed(server: RemoteServer) -> None:
    server.refusals["/v1/models"] = (302, "")
    with pytest.raises(RemoteUnavailable, match="leads elsewhere"):
        Servers(allow_private=True).client(server.url, KEY).names()
    assert [path for path, _ in server.seen] == ["/v1/models"]


def test_a_proxy_of_the_environment_is_used_but_never_for_this_machine(
    server: RemoteServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millm.remote_http.getproxies", lambda: {"http": f"127.0.0.1:{server.port}"})
    monkeypatch.setattr("millm.remote_http.proxy_bypass", lambda host: host == "box.inside")
    server.refusals["http://box.example/v1/models"] = (200, {"data": [{"id": "through"}]})
    servers = Servers(allow_private=True)
    assert servers.client("http://box.example/v1").names() == ("through",)
    assert servers.client(server.url).names() == ("tiny",)
    with pytest.raises(RemoteUnavailable):
        servers.client("http://box.inside/v1").names()


def test_a_list_without_end_is_not_read(server: RemoteServer) -> None:
    server.models = [f"model-{number}" for number in range(100_000)]
    with pytest.raises(RemoteUnavailable, match="does not answer as the OpenAI API does"):
        Servers(allow_private=True).client(server.url).names()


def test_a_server_that_takes_the_connection_and_says_nothing() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}/v1"
        with pytest.raises(RemoteUnavailable, match="does not answer in time"):
            Servers(allow_private=True).client(address).names(seconds=0.3)
