"""The key: asked for on every route but /health, shown by programs as a header and by browsers as a cookie."""

import json
from collections.abc import Callable
from http.cookies import SimpleCookie

import pytest
from browsing import launch, new_context
from fastapi.testclient import TestClient
from starlette.types import ASGIApp
from test_guard import KEY, guarded

from millm.api.guard import GuardPolicy

LOCKED = GuardPolicy(api_key=KEY)
BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
def locked() -> TestClient:
    return guarded(LOCKED)


@pytest.mark.parametrize(
    "path", ["/", "/config", "/page/live", "/gradio_api/info", "/docs", "/openapi.json", "/api/models", "/healthz"]
)
def test_every_route_asks_for_the_key(locked: TestClient, path: str) -> None:
    for answer in (locked.get(path), locked.post(path)):
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "INVALID_API_KEY"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_health_does_not(locked: TestClient) -> None:
    assert locked.get("/health").text == "in"


def test_openai_clients_are_refused_in_their_shape(locked: TestClient) -> None:
    answer = locked.get("/v1/models", headers={"authorization": "Bearer wrong"})
    assert answer.status_code == 401
    error = answer.json()["error"]
    assert error["code"] == "invalid_api_key"
    assert error["type"] == "invalid_request_error"
    assert KEY not in answer.text


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer {KEY}", 200),
        (f"Bearer {KEY}x", 401),
        (f"Bearer {KEY[:-1]}", 401),
        (f"Basic {KEY}", 401),
        (KEY, 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("", 401),
    ],
)
def test_the_header_holds_the_whole_key(locked: TestClient, header: str, status: int) -> None:
    assert locked.get("/v1/models", headers={"authorization": header.encode()}).status_code == status


def test_without_a_key_nobody_is_asked_and_there_is_no_login() -> None:
    client = guarded()
    assert client.get("/", headers=BROWSER).text == "in"
    assert client.post("/auth", data={"key": "x"}).text == "in"


def test_a_browser_is_shown_a_form_that_needs_nothing_else(locked: TestClient) -> None:
    answer = locked.get("/", headers=BROWSER)
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/html")
    assert 'method="post" action="/auth"' in answer.text
    assert "src=" not in answer.text
    assert "://" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_the_right_key_opens_the_page_for_the_browser(locked: TestClient) -> None:
    answer = locked.post("/auth", data={"key": KEY})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
    assert cookie["httponly"] is True
    assert cookie["samesite"].lower() == "strict"
    assert not cookie["secure"]
    assert KEY not in cookie.value
    assert locked.get("/", headers=BROWSER).text == "in"
    assert locked.post("/gradio_api/run/predict").text == "in"
    assert locked.get("/auth", headers=BROWSER).headers["location"] == "/"


def test_the_cookie_outlives_a_restart_but_not_another_key(locked: TestClient) -> None:
    locked.post("/auth", data={"key": KEY})
    kept = {"cookie": "; ".join(f"{name}={value}" for name, value in locked.cookies.items())}
    assert guarded(LOCKED).get("/", headers=kept).text == "in"
    assert guarded(GuardPolicy(api_key="another")).get("/", headers=kept).status_code == 401
    assert guarded(GuardPolicy(api_key=KEY, port=7861)).get("/", headers=kept).status_code == 401


def test_over_https_the_cookie_stays_there() -> None:
    answer = guarded(LOCKED, base_url="https://localhost").post("/auth", data={"key": KEY})
    assert "secure" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize("form", [{"key": "wrong"}, {}, {"key": ""}, {"other": KEY}, {"key": "x" * 5000}])
def test_a_wrong_key_is_asked_for_again(locked: TestClient, form: dict[str, str]) -> None:
    answer = locked.post("/auth", data=form)
    assert answer.status_code == 401
    assert "not the key of this server" in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("cookie", ["millm_7860=", "millm_7860=x", f"millm_7860={KEY}".encode(), "other=1"])
def test_a_made_up_cookie_opens_nothing(locked: TestClient, cookie: str | bytes) -> None:
    assert locked.get("/", headers={"cookie": cookie}).status_code == 401


def test_another_site_cannot_post_the_form(locked: TestClient) -> None:
    answer = locked.post("/auth", data={"key": KEY}, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403


@pytest.mark.slow
def test_a_real_browser_logs_in(serve: Callable[[ASGIApp], str]) -> None:
    """Browsers decide by the referrer policy which Origin they send with a form."""
    from playwright.sync_api import sync_playwright

    url = serve(guarded(GuardPolicy(api_key="plain-key")).app)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = new_context(browser).new_page()
        page.goto(url)
        page.get_by_label("API key").fill("wrong")
        page.get_by_role("button").click()
        assert "not the key" in page.get_by_role("alert").inner_text()
        page.get_by_label("API key").fill("plain-key")
        page.get_by_role("button").click()
        page.wait_for_url(f"{url}/")
        assert page.locator("body").inner_text() == "in"
        browser.close()
    assert json.dumps("plain-key") not in page.url
