"""The API's own documentation: every route in it, with examples, and a page that needs no other server."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from browsing import launch, new_context
from fastapi.testclient import TestClient
from starlette.types import ASGIApp

from millm import __version__
from millm.api import GuardPolicy, create_app
from millm.manager import Manager

ROUTES = {
    ("get", "/health"),
    ("get", "/metrics"),
    ("get", "/api/system"),
    ("get", "/api/events"),
    ("get", "/api/models"),
    ("post", "/api/models"),
    ("post", "/api/models/preview"),
    ("get", "/api/models/storage"),
    ("post", "/api/models/guide"),
    ("post", "/api/models/storage/clean"),
    ("get", "/api/models/active/{model_type}"),
    ("get", "/api/models/{model_id}"),
    ("patch", "/api/models/{model_id}"),
    ("delete", "/api/models/{model_id}"),
    ("post", "/api/models/{model_id}/download"),
    ("post", "/api/models/{model_id}/retry"),
    ("post", "/api/models/{model_id}/cancel"),
    ("post", "/api/models/{model_id}/load"),
    ("post", "/api/models/{model_id}/switch"),
    ("post", "/api/models/{model_id}/reload"),
    ("post", "/api/models/{model_id}/quality"),
    ("post", "/api/models/{model_id}/unload"),
    ("post", "/api/models/{model_id}/verify"),
    ("post", "/api/models/{model_id}/activate"),
    ("post", "/api/models/{model_id}/deactivate"),
    ("get", "/api/models/{model_id}/requirements"),
    ("get", "/api/models/{model_id}/compatibility"),
    ("get", "/api/catalog"),
    ("get", "/api/hub/search"),
    ("get", "/api/models/{model_id}/events"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{name}"),
    ("post", "/v1/chat/completions"),
    ("post", "/v1/completions"),
    ("post", "/v1/embeddings"),
}


@pytest.fixture
def schema(client: TestClient) -> dict[str, Any]:
    return dict(client.get("/openapi.json").json())


def test_every_route_is_described(schema: dict[str, Any]) -> None:
    assert schema["info"]["title"] == "miLLM"
    assert schema["info"]["version"] == __version__
    told = {(method, path): what for path, methods in schema["paths"].items() for method, what in methods.items()}
    assert told.keys() == ROUTES
    for route, what in told.items():
        assert what["summary"], route
        assert what["description"], route
        (good,) = (answer for status, answer in what["responses"].items() if status.startswith("2"))
        assert all("example" in content for content in good["content"].values()), route
        assert "example" in what["responses"]["default"]["content"]["application/json"], route


def test_every_body_has_a_schema_with_what_may_be_sent(schema: dict[str, Any]) -> None:
    shapes = schema["components"]["schemas"]
    assert {"repo_id", "hf_token", "quantization", "custom_name", "start"} <= shapes["DownloadBody"][
        "properties"
    ].keys()
    assert {"messages", "temperature", "max_tokens", "stop", "seed"} <= shapes["ChatBody"]["properties"].keys()
    assert shapes["DownloadBody"]["examples"]
    assert shapes["ModelRecord"]["properties"].keys() >= {"id", "name", "status", "config"}
    assert "default" not in shapes["PatchBody"]["properties"]["name"]


def test_the_page_and_its_files_come_from_here(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 3
    for link in links:
        assert link.startswith("/docs/")
        assert len(client.get(link).content) > 500
    assert "://" not in page.text
    assert '"validatorUrl": null' in page.text  # else every look at the page is told to another server
    assert client.get("/docs/swagger-ui.css").headers["content-type"].startswith("text/css")
    assert client.get("/docs/../pyproject.toml").status_code == 404
    assert client.get("/docs/index.html").status_code == 404


@pytest.mark.slow
def test_the_page_works_in_a_browser_under_our_policy(manager: Manager, serve: Callable[[ASGIApp], str]) -> None:
    from playwright.sync_api import expect, sync_playwright

    url = serve(create_app(manager, GuardPolicy()))
    complaints: list[str] = []
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = new_context(browser).new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{url}/docs")
        expect(page.get_by_text("Load a model", exact=True)).to_be_visible()
        page.get_by_text("Ask for a sign of life").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table tbody .response-col_status").first).to_have_text(re.compile("200"))
        browser.close()
    assert complaints == []
    assert [address for address in asked if not address.startswith((url, "data:"))] == []
