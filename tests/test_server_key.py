"""A server's key is in no file, no log and no answer, and reaches no server but its own."""

import base64
import time
from collections.abc import Callable

import pytest
from remote_server import RemoteServer
from running import App
from test_token import QUESTIONS, Listener

pytestmark = pytest.mark.slow

KEY, WRONG = "sk-canary-7Qk3+x/Z", "sk-wrong-9f2c1"
SECRETS = [form for key in (KEY, WRONG) for form in (key, base64.b64encode(key.encode()).decode())]
HELLO = [{"role": "user", "content": "hello"}]


def settled(listener: Listener, model_id: int) -> str:
    """The status of a model once no job runs on it."""
    while (status := listener.client.ask("GET", f"/api/models/{model_id}", 200)["status"]) in ("queued", "loading"):
        time.sleep(0.02)
    return str(status)


def go_everywhere(listener: Listener, server: RemoteServer) -> None:
    """Every way a key can take, right and wrong, with everything that may fail on it."""
    body = {"source": "remote", "url": server.url}
    for path in ("/api/models/preview", "/api/models"):
        assert "does not accept the key" in listener.post(path, {**body, "server_key": WRONG})["error"]["message"]
        for wrong in (f"{WRONG} {KEY}", f"{KEY}\r\nx: y", {"no": KEY}, KEY * 50):
            assert not listener.post(path, {**body, "server_key": wrong})["success"]
        assert not listener.post(path, {**body, "url": f"http://me:{KEY}@127.0.0.1:{server.port}"})["success"]
        assert not listener.post(path, {**body, "url": f"{server.url}?key={KEY}"})["success"]
        assert not listener.post(path, {"repo_id": "acme/x", "server_key": KEY})["success"]
    record = listener.download({**body, "server_key": KEY, "custom_name": "mine"})["data"]
    assert record["status"] == "ready"
    load = f"/api/models/{record['id']}/load"
    listener.post(load, {"server_key": WRONG})
    assert settled(listener, record["id"]) == "ready"
    listener.post(load, {"server_key": KEY})
    assert settled(listener, record["id"]) == "loaded"
    asked = {"model": "mine", "messages": HELLO}
    for status, said in ((200, None), (400, KEY), (500, f"Bearer {KEY}"), (401, KEY), (404, KEY)):
        if said:
            server.refusals["/v1/chat/completions"] = (status, {"error": {"message": f"not with {said}!"}})
        for stream in (False, True):
            listener.client.http.post("/v1/chat/completions", json={**asked, "stream": stream}).read()
    for question in (each for each in QUESTIONS if "/hub/" not in each):
        assert listener.client.http.get(question).status_code == 200, question


@pytest.mark.parametrize("log", ["console", "json"])
def test_keys_are_written_nowhere(run_app: Callable[..., App], log: str) -> None:
    with RemoteServer(key=KEY) as server, RemoteServer() as other:
        app = run_app(LOG_LEVEL="DEBUG", LOG_FORMAT=log, HF_TOKEN="hf_canary")
        listener = Listener(app)
        go_everywhere(listener, server)
        listener.download({"source": "remote", "url": other.url})
        assert app.stop() == 0
    files = [path for path in app.cache.rglob("*") if path.is_file()]
    assert any(path.name == "registry.json" for path in files)
    places = {"log": app.log, "answers": "\n".join(listener.heard)}
    places |= {str(path): path.read_text(errors="replace") for path in files}
    assert len(places["log"]) > 1000, "there is a log to look at"
    for place, text in places.items():
        for secret in SECRETS:
            at = text.find(secret)
            assert at < 0, f"{secret} is in {place}: {text[max(0, at - 200) : at + 100]}"
    assert {sent.get("Authorization") for sent in server.headers} == {f"Bearer {KEY}", f"Bearer {WRONG}"}
    assert {sent.get("Authorization") for sent in other.headers} == {None}
