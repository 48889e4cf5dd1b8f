from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler

import pytest
from making import WebServer

from millm.loops import in_own_loop
from millm.sources.client import BadRedirect, Client


class Answers(BaseHTTPRequestHandler):
    """Redirects to what the path says after `/to/`, else answers with the headers it saw."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        to_there = self.path.startswith("/to/")
        self.send_response(302 if to_there else 200)
        if to_there:
            self.send_header("Location", self.path.removeprefix("/to/"))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer(Answers) as server:
        yield server


def get(address: str, headers: Mapping[str, str] | None = None) -> int:
    async def run() -> int:
        async with Client(headers or {}, 2, 2) as client, client.open(address, {}) as response:
            return response.status

    return in_own_loop(run())


def test_the_token_stays_with_its_host(server: WebServer) -> None:
    there = f"{server.url('localhost')}/to/{server.url()}/end"
    get(f"{server.url()}/to//near", {"authorization": "Bearer secret"})
    get(f"{server.url()}/to/{there}", {"authorization": "Bearer secret"})
    assert [(path.count("/to/"), "authorization" in headers) for path, headers in server.seen] == [
        (1, True),
        (0, True),
        (2, True),
        (1, False),
        (0, False),
    ]


def test_a_signed_link_is_followed_as_it_stands(server: WebServer) -> None:
    get(f"{server.url()}/to//file?Signature=a%2Fb~%7E%20+c&Expires=1%2C")
    assert server.seen[-1][0] == "/file?Signature=a%2Fb~%7E%20+c&Expires=1%2C"


def test_nothing_is_compressed(server: WebServer) -> None:
    get(server.url())
    assert server.seen[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("place", ["/to//to//to//to//to//to//end", "/to/file:///etc/passwd", "/to/http://[", "/to/"])
def test_a_redirect_to_nowhere_is_an_error(server: WebServer, place: str) -> None:
    with pytest.raises(BadRedirect):
        get(server.url() + place)


def test_the_proxy_of_the_environment_is_used(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:pass@127.0.0.1:{server.server_port}")
    monkeypatch.setenv("no_proxy", "elsewhere")
    assert get("http://hub.invalid/file") == 200
    path, headers = server.seen[0]
    assert path == "http://hub.invalid/file"
    assert headers["Proxy-Authorization"] == "Basic dXNlcjpwYXNz"


def test_credentials_in_netrc_are_not_sent(
    server: WebServer, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    get(server.url())
    get(server.url(), {"Authorization": "Bearer token"})
    assert [headers.get("Authorization") for _, headers in server.seen] == [None, "Bearer token"]
