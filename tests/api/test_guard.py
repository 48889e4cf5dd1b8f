"""Who is let in: host names, origins, keys, sizes; and what every answer carries."""

import json

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.websockets import WebSocketDisconnect

from millm.api.guard import Guard, GuardPolicy, host_name
from millm.settings import Settings

LAN = GuardPolicy(host="0.0.0.0")
KEY = "s3cret-\u00fc"
TOO_MUCH = 33 * 1024 * 1024


def guarded(policy: GuardPolicy | None = None, base_url: str = "http://localhost:7860") -> TestClient:
    """An app that answers everything and, like the page's framework, hands out access to any origin."""

    async def anything(request: Request) -> Response:
        headers = {"access-control-allow-origin": request.headers.get("origin", "*")}
        return PlainTextResponse("in", headers=headers | {"access-control-allow-credentials": "true"})

    app = FastAPI(docs_url=None, openapi_url=None)
    app.add_api_route("/{path:path}", anything, methods=["GET", "POST", "DELETE", "OPTIONS"])
    app.add_middleware(Guard, policy=policy or GuardPolicy())
    return TestClient(app, base_url=base_url, follow_redirects=False)


def sentence(answer: Response) -> str:
    """The message of a refusal, in either shape."""
    return str(json.loads(bytes(answer.content))["error"]["message"])  # type: ignore[attr-defined]


# host names


@pytest.mark.parametrize("host", ["localhost", "localhost:7860", "127.0.0.1:7860", "[::1]:7860", "LOCALHOST"])
def test_loopback_names_are_let_in(host: str) -> None:
    assert guarded().get("/", headers={"host": host}).text == "in"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "192.168.1.5",
        "0.0.0.0",
        "",
        "a b",
        "localhost@x",
    ],
)
@pytest.mark.parametrize("path", ["/", "/health", "/v1/models", "/api/models", "/gradio_api/call/go"])
def test_other_names_are_refused_in_a_sentence(host: str, path: str) -> None:
    answer = guarded().get(path, headers={"host": host})
    assert answer.status_code == 400
    assert "MILLM_ALLOWED_HOSTS" in sentence(answer)


@pytest.mark.parametrize("host", ["192.168.1.5:7860", "[fe80::1]", "0.0.0.0", "localhost"])
def test_on_a_network_address_literals_are_let_in_but_names_are_not(host: str) -> None:
    """A page that rebinds its own name still sends that name, never an address."""
    assert guarded(LAN).get("/", headers={"host": host}).text == "in"
    assert guarded(LAN).get("/", headers={"host": "evil.example"}).status_code == 400


def test_names_that_the_person_allowed_are_let_in() -> None:
    policy = GuardPolicy(host="box.lan", allowed_hosts=("Proxy.Example:443", "other.example"))
    for host in ("box.lan", "proxy.example", "other.example:8080", "localhost"):
        assert guarded(policy).get("/", headers={"host": host}).text == "in"
    assert guarded(policy).get("/", headers={"host": "proxy.example.evil.example"}).status_code == 400


@pytest.mark.parametrize(
    ("header", "name"),
    [("A.b:1", "a.b"), ("[::1]:7860", "::1"), ("::1", None), ("a:b", None), ("a/b", None), ("", None), ("a", "a")],
)
def test_the_name_in_a_host_header(header: str, name: str | None) -> None:
    assert host_name(header) == name


# origins


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:3000"},
        {"origin": "null"},
        {"origin": "http://[::1"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://localhost:7860", "sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/gradio_api/upload", "/api/models/3/load", "/v1/chat/completions"])
def test_other_sites_cannot_change_anything(headers: dict[str, str], path: str) -> None:
    client = guarded()
    for answer in (client.post(path, headers=headers), client.delete(path, headers=headers)):
        assert answer.status_code == 403
        assert "MILLM_ALLOWED_ORIGINS" in sentence(answer)
        assert "access-control-allow-origin" not in answer.headers
    assert client.get(path, headers=headers).text == "in"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:7860"},
        {"origin": "http://localhost:7860", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ],
)
def test_the_page_itself_and_programs_can(headers: dict[str, str]) -> None:
    assert guarded().post("/api/models/3/load", headers=headers).text == "in"


def test_nothing_inside_hands_out_access_to_other_origins() -> None:
    answer = guarded(LAN).get("/config", headers={"origin": "https://evil.example", "host": "10.0.0.1"})
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_an_allowed_origin_may_call_v1_and_nothing_else() -> None:
    client = guarded(GuardPolicy(allowed_origins=("https://chat.example/",)))
    friend = {"origin": "https://chat.example", "sec-fetch-site": "cross-site"}
    answer = client.post("/v1/chat/completions", headers=friend)
    assert answer.text == "in"
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    assert "access-control-allow-credentials" not in answer.headers
    assert "origin" in answer.headers["vary"].lower()
    assert client.post("/api/models", headers=friend).status_code == 403
    for stranger in ("https://chat.example.evil", "http://chat.example", "https://chat.example:444"):
        assert client.post("/v1/chat/completions", headers=friend | {"origin": stranger}).status_code == 403


def test_a_preflight_is_answered_for_allowed_origins_only() -> None:
    client = guarded(GuardPolicy(api_key=KEY, allowed_origins=("https://chat.example",)))
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-stainless-os"}
    answer = client.options("/v1/chat/completions", headers=asks | {"origin": "https://chat.example"})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    assert answer.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    assert "POST" in answer.headers["access-control-allow-methods"]
    for path, origin in (("/v1/models", "https://evil.example"), ("/api/models", "https://chat.example")):
        answer = client.options(path, headers=asks | {"origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def test_websockets_are_refused() -> None:
    with pytest.raises(WebSocketDisconnect), guarded().websocket_connect("/anything"):
        pass


# what every answer carries


@pytest.mark.parametrize("headers", [{}, {"host": "evil.example"}])
def test_every_answer_tells_browsers_what_is_allowed(headers: dict[str, str]) -> None:
    answer = guarded().get("/", headers=headers)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"


def test_a_request_that_is_too_large_is_refused_before_it_is_read() -> None:
    answer = guarded().post("/v1/completions", headers={"content-length": str(TOO_MUCH)})
    assert answer.status_code == 413
    assert "32 MiB" in sentence(answer)
    error = answer.json()["error"]
    assert (error["code"], error["type"], error["param"]) == ("request_too_large", "invalid_request_error", None)


# Spaces


def test_on_spaces_the_proxy_owns_hosts_and_origins() -> None:
    client = guarded(GuardPolicy(host="0.0.0.0", spaces=True))
    answer = client.post("/x", headers={"host": "me-app.hf.space", "origin": "https://huggingface.co"})
    assert answer.text == "in"
    assert "frame-ancestors 'self' https://huggingface.co;" in answer.headers["content-security-policy"]
    assert answer.headers["access-control-allow-origin"] == "https://huggingface.co"
    assert guarded(GuardPolicy(spaces=True, api_key=KEY)).get("/x").status_code == 401


def test_the_policy_is_what_the_settings_say() -> None:
    settings = Settings(
        host="::", port=1234, api_key=KEY, allowed_hosts=("a",), allowed_origins=("https://b",), spaces=True
    )
    policy = GuardPolicy.of(settings)
    assert policy == GuardPolicy("::", 1234, KEY, ("a",), ("https://b",), True)
    assert KEY not in repr(policy)
