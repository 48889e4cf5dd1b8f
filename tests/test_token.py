"""Access tokens are in no file, no log, no answer, and reach no host but the hub's own."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hub import GRANTED, PLAIN, Hub
from running import PATIENCE_S, App, Client
from tiny_models import build

pytestmark = pytest.mark.slow
Run = Callable[..., App]

WRONG = "hf_wrong_7Qk3+x/Z"
SIGNED = "signature-9f2c1"
SECRETS = {name: [name, quote(name, safe=""), base64.b64encode(name.encode()).decode()] for name in (WRONG, SIGNED)}
SECRETS |= {name: [name, base64.b64encode(name.encode()).decode()] for name in (GRANTED, PLAIN)}
QUESTIONS = (
    *("/api/models", "/api/system", "/api/catalog", "/api/models/storage", "/api/hub/search?q=tiny", "/health"),
    *("/openapi.json", "/docs", "/v1/models", "/", "/config"),
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("repos")
    for name in ("open", "gated", "broken"):
        build("llama", root / "acme" / name)
    with Hub(root) as hub:
        hub.gated.add("acme/gated")
        yield hub


class Listener:
    """A client that keeps every byte it is answered, headers too."""

    def __init__(self, app: App) -> None:
        self.heard: list[str] = []
        self.client = Client(app)
        self.client.http.event_hooks = {"response": [self._keep]}
        self._app = app
        threading.Thread(target=self._follow, daemon=True).start()

    def _keep(self, response: httpx.Response) -> None:
        response.read()
        self.heard.append(f"{response.headers}\n{response.text}")

    def _follow(self) -> None:
        with httpx.stream("GET", f"{self._app.url}/api/events", timeout=PATIENCE_S) as stream:
            for line in stream.iter_lines():
                self.heard.append(line)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.http.post(path, json=body).json()
        return answer

    def download(self, body: dict[str, Any]) -> dict[str, Any]:
        """Starts a download and waits for its end, whatever it is."""
        answer = self.post("/api/models", body)
        while answer["success"] and answer["data"]["status"] in ("queued", "downloading"):
            time.sleep(0.05)
            answer = self.client.http.get(f"/api/models/{answer['data']['id']}").json()
        return answer


SLOW = ({"status": 500}, {"drop_after": 0, "reset": True})  # are tried again and again
FINAL = {"status": 401}


def go_everywhere(listener: Listener, hub: Hub, faults: tuple[dict[str, Any], ...]) -> None:
    """Every way a token can take, right and wrong, with everything that may fail on it."""
    gated = {"repo_id": "acme/gated"}
    assert listener.post("/api/models/preview", gated)["data"]["access"] == "granted", "the one of the environment"
    assert listener.post("/api/models/preview", {**gated, "hf_token": PLAIN})["data"]["access"] == "licence_needed"
    assert listener.post("/api/models", {**gated, "hf_token": PLAIN})["error"]["code"] == "GATED_MODEL_NO_TOKEN"
    for path in ("/api/models/preview", "/api/models"):
        assert listener.post(path, {**gated, "hf_token": WRONG})["error"]["code"] == "INVALID_HF_TOKEN"
        listener.post(path, {**gated, "hf_token": f"{WRONG}\r\nx"})
        listener.post(path, {"repo_id": f"https://user:{WRONG}@huggingface.co/acme/x"})
        listener.post(path, {"source": "url", "url": f"https://u:{WRONG}@x.example/m.safetensors"})
        listener.post(path, {"source": "url", "url": f"{hub.url}/none.safetensors?token={SIGNED}"})
        listener.post(path, {"repo_id": f"https://elsewhere.example/acme/x?token={SIGNED}"})
        listener.post(path, {**gated, "hf_token": {"no": WRONG}})
    assert listener.download({**gated, "hf_token": GRANTED, "quantization": "FP16"})["data"]["status"] == "ready"
    for fault in faults:
        hub.fault("*", "acme/broken/model.safetensors", **fault, times=None)
        failed = listener.download({"repo_id": "acme/broken", "hf_token": GRANTED, "custom_name": "broken"})
        assert failed["data"]["status"] == "error", fault
        hub.clear()
        again = listener.post(f"/api/models/{failed['data']['id']}/retry", {"hf_token": WRONG})
        assert again["success"]
        while listener.client.ask("GET", f"/api/models/{failed['data']['id']}", 200)["status"] != "error":
            time.sleep(0.05)
        listener.client.ask("DELETE", f"/api/models/{failed['data']['id']}", 200)
    for question in QUESTIONS:
        assert listener.client.http.get(question).status_code == 200, question


@pytest.mark.parametrize(("log", "faults"), [("console", (FINAL,)), ("json", (*SLOW, FINAL))])
def test_tokens_are_written_nowhere(run_app: Run, hub: Hub, log: str, faults: tuple[dict[str, Any], ...]) -> None:
    asked = len(hub.requests)
    app = run_app(HF_ENDPOINT=hub.url, HF_TOKEN=GRANTED, LOG_LEVEL="DEBUG", LOG_FORMAT=log)
    listener = Listener(app)
    go_everywhere(listener, hub, faults)
    assert app.stop() == 0
    files = [path for path in app.cache.rglob("*") if path.is_file() and path.stat().st_size < 1_000_000]
    assert any(path.name == ".millm_meta.json" for path in files)
    places = {"log": app.log, "answers": "\n".join(listener.heard)}
    places |= {str(path): path.read_text(errors="replace") for path in files if path.suffix != ".safetensors"}
    assert len(places["log"]) > 1000, "there is a log to look at"
    for place, text in places.items():
        for secret, forms in SECRETS.items():
            for form in forms:
                assert form not in text, f"{secret} is in {place}: {_around(text, form)}"
    seen = {(request.kind, request.auth) for request in hub.requests[asked:]}
    assert ("api", "granted") in seen
    assert {auth for kind, auth in seen if kind == "cdn"} == {"none"}


def _around(text: str, form: str) -> str:
    at = text.index(form)
    return json.dumps(text[max(0, at - 200) : at + 100])
