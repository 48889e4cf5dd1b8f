"""Every route of the management API against a real manager with a fake source and fake engines."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeFetcher, FakeOpener, make_manager
from fastapi.testclient import TestClient
from serving import load, until
from test_comparison import FakeMeasure
from test_conversion import FakeQuantizer

from millm import __version__
from millm.api import GuardPolicy, create_app
from millm.api.management_schema import OriginBody
from millm.errors import DownloadFailed, InsufficientDisk
from millm.manager import Manager
from millm.records import FIELD_NAMES, Source, Status
from millm.sources.base import Origin

Make = Callable[..., Manager]
MS = 1000


def connect(manager: Manager) -> TestClient:
    return TestClient(create_app(manager, GuardPolicy()), base_url="http://localhost")


def ask(client: TestClient, method: str, path: str, status: int = 200, body: object = None) -> Any:
    """The data of a good answer or the error of a failed one, after a look at the envelope."""
    answer = client.request(method, path, json=body) if body is not None else client.request(method, path)
    envelope = answer.json()
    assert answer.status_code == status, envelope
    assert list(envelope) == ["success", "data", "error"]
    assert envelope["success"] is (status < 400)
    if status < 400:
        assert envelope["error"] is None
        return envelope["data"]
    assert envelope["data"] is None
    assert list(envelope["error"]) == ["code", "message", "details"]
    return envelope["error"]


def wait(manager: Manager, model_id: int, status: Status) -> None:
    until(lambda: manager.record(model_id).status is status and manager.job(model_id) is None)


# the way of a model


def test_from_download_to_delete(client: TestClient, manager: Manager) -> None:
    record = ask(client, "POST", "/api/models", 202, {"repo_id": "acme/tiny", "custom_name": "mine"})
    assert list(record) == list(FIELD_NAMES)
    assert (record["name"], record["quantization"]) == ("mine", "FP16")
    assert record["status"] in ("queued", "downloading")
    here = f"/api/models/{record['id']}"
    wait(manager, record["id"], Status.READY)
    assert ask(client, "POST", f"{here}/load", 202)["status"] in ("loading", "loaded")
    wait(manager, record["id"], Status.LOADED)
    assert ask(client, "GET", here)["measured_memory_mb"] == 1.0
    assert ask(client, "GET", "/api/models/active/llm")["name"] == "mine"
    assert ask(client, "DELETE", here, 409)["code"] == "MODEL_LOADED"
    assert ask(client, "POST", f"{here}/load", 400)["code"] == "MODEL_ALREADY_LOADED"
    ask(client, "POST", f"{here}/unload", 202)
    wait(manager, record["id"], Status.READY)
    assert ask(client, "POST", f"{here}/unload", 400)["code"] == "MODEL_NOT_LOADED"
    assert ask(client, "GET", "/api/models/active/llm", 404)["code"] == "MODEL_NOT_FOUND"
    assert ask(client, "DELETE", here) is None
    assert ask(client, "GET", here, 404)["code"] == "MODEL_NOT_FOUND"


def test_a_model_can_be_registered_now_and_downloaded_later(client: TestClient, manager: Manager) -> None:
    record = ask(client, "POST", "/api/models", 202, {"repo_id": "acme/tiny", "start": False})
    assert record["status"] == "available"
    ask(client, "POST", f"/api/models/{record['id']}/download", 202)
    wait(manager, record["id"], Status.READY)
    assert ask(client, "POST", f"/api/models/{record['id']}/download", 422)["code"] == "VALIDATION_ERROR"


def test_cancel_and_retry(make: Make) -> None:
    fetcher = FakeFetcher(chunks=100, pause_s=0.02)
    manager = make(fetcher=fetcher)
    client = connect(manager)
    first = ask(client, "POST", "/api/models", 202, {"repo_id": "acme/tiny"})["id"]
    assert ask(client, "POST", f"/api/models/{first}/cancel", 202) is None
    assert ask(client, "GET", "/api/models") == []
    fetcher.chunks, fetcher.fail_with = 1, DownloadFailed("Download failed: Network error.")
    second = ask(client, "POST", "/api/models", 202, {"repo_id": "acme/tiny"})["id"]
    wait(manager, second, Status.ERROR)
    failed = ask(client, "GET", f"/api/models/{second}")
    assert (failed["error_code"], failed["error_message"]) == (
        "MODEL_DOWNLOAD_FAILED",
        "Download failed: Network error.",
    )
    fetcher.fail_with = None
    ask(client, "POST", f"/api/models/{second}/retry", 202, {"hf_token": "hf_retry"})
    wait(manager, second, Status.READY)
    assert fetcher.tokens[-1] == "hf_retry"
    assert ask(client, "POST", f"/api/models/{second}/cancel", 422)["code"] == "VALIDATION_ERROR"


def test_what_is_asked_reaches_the_manager(make: Make) -> None:
    fetcher = FakeFetcher()
    opener = FakeOpener()
    options: list[Any] = []

    def opening(record: Any, given: Any, report: Any) -> Any:
        options.append(given)
        return opener(record, given, report)

    manager = make(fetcher=fetcher, opener=opening, free_memory=10)
    client = connect(manager)
    body = {
        "source": "huggingface",
        "repo_id": "acme/tiny",
        "revision": "v1",
        "quantization": "FP16",
        "trust_remote_code": True,
        "hf_token": "hf_secret",
        "model_type": "llm",
    }
    record = ask(client, "POST", "/api/models", 202, body)
    assert (record["requested_revision"], record["trust_remote_code"]) == ("v1", True)
    assert fetcher.tokens == ["hf_secret"]
    wait(manager, record["id"], Status.READY)
    refused = ask(client, "POST", f"/api/models/{record['id']}/load", 507)
    assert refused["code"] == "INSUFFICIENT_MEMORY"
    assert refused["details"]["free_bytes"] == 10
    ask(client, "POST", f"/api/models/{record['id']}/load", 202, {"force": True, "context_length": 64})
    wait(manager, record["id"], Status.LOADED)
    assert options[0].context_length == 64
    everything = json.dumps(ask(client, "GET", "/api/models") + [ask(client, "GET", "/api/system")])
    assert "hf_secret" not in everything


def test_a_local_directory_is_asked_for_by_its_path() -> None:
    body = OriginBody.model_validate({"source": "local", "local_path": "/x", "trust_remote_code": True})
    assert body.origin() == Origin(Source.LOCAL, path="/x", trust_remote_code=True)


def test_a_record_can_be_changed(client: TestClient, manager: Manager) -> None:
    record = manager.download(Origin(Source.HUGGINGFACE, "acme/tiny"), start=False)
    other = manager.download(Origin(Source.HUGGINGFACE, "acme/other"), start=False)
    here = f"/api/models/{record.id}"
    changed = ask(client, "PATCH", here, 200, {"name": "new", "settings": {"system_prompt": "Hi"}})
    assert (changed["name"], changed["settings"]) == ("new", {"system_prompt": "Hi"})
    kept = ask(client, "PATCH", here, 200, {"model_type": "tts"})
    assert (kept["name"], kept["settings"], kept["model_type"]) == ("new", {"system_prompt": "Hi"}, "tts")
    assert ask(client, "PATCH", here, 409, {"name": other.name})["code"] == "MODEL_ALREADY_EXISTS"
    for bad in ({"name": "a/b"}, {"name": None}, {"settings": []}, {"status": "loaded"}, {"id": 7}, {"name": ""}):
        assert ask(client, "PATCH", here, 422, bad)["code"] == "VALIDATION_ERROR"
    assert ask(client, "PATCH", "/api/models/99", 404, {"name": "x"})["code"] == "MODEL_NOT_FOUND"


# lists and looks


def test_the_list_can_be_filtered(client: TestClient, manager: Manager) -> None:
    old = manager.download(Origin(Source.HUGGINGFACE, "acme/old"), start=False)
    new = manager.download(Origin(Source.HUGGINGFACE, "acme/new"), start=False)
    ready = load(manager)

    def ids(query: str) -> list[int]:
        return [record["id"] for record in ask(client, "GET", f"/api/models?{query}")]

    assert ids("") == [ready.id, new.id, old.id]
    assert ids("status=available") == [new.id, old.id]
    assert ids("status=loaded") == [ready.id]
    assert ids("q=OL") == [old.id]
    assert ids("type=llm&source=huggingface&status=&q=") == [ready.id, new.id, old.id]
    assert ids("type=tts") == ids("source=local") == []
    for bad in ("status=great", "type=x", "source=ftp", "typo=1"):
        assert ask(client, "GET", f"/api/models?{bad}", 422)["code"] == "VALIDATION_ERROR"


def test_a_preview_shows_sizes_and_moves_nothing(client: TestClient) -> None:
    preview = ask(client, "POST", "/api/models/preview", 200, {"repo_id": "acme/tiny"})
    assert preview["name"] == "acme/tiny"
    assert (preview["params"], preview["architecture"], preview["num_layers"]) == ("2K", "LlamaForCausalLM", 2)
    assert preview["files"] == [{"path": "config.json", "size": 2}, {"path": "model.safetensors", "size": 4000}]
    assert (preview["is_gated"], preview["requires_trust_remote_code"], preview["warnings"]) == (False, False, [])
    (sizes,) = preview["estimated_sizes"].values()
    assert list(preview["estimated_sizes"]) == ["FP16"]
    assert sizes["fits"] is True
    assert sizes["download_mb"] == 0.0
    assert sum(sizes["memory_parts"].values()) == pytest.approx(sizes["memory_mb"] * 1e6, abs=1e4)
    assert sizes["context_length"] == 512
    assert sizes["provenance"]
    assert ask(client, "GET", "/api/models") == []
    assert ask(client, "POST", "/api/models/preview", 404, {"repo_id": "other/x"})["code"] == "REPO_NOT_FOUND"


def test_storage_and_system(client: TestClient, manager: Manager) -> None:
    record = load(manager)
    storage = ask(client, "GET", "/api/models/storage")
    assert storage["models"][str(record.id)] >= 4002
    assert storage["by_type"] == {"llm": storage["models"][str(record.id)]}
    assert storage["total_bytes"] >= storage["by_type"]["llm"] > storage["staging_bytes"] == 0
    system = ask(client, "GET", "/api/system")
    assert system["version"] == __version__
    assert system["devices"] == [{"kind": "cpu", "name": "RAM", "total": 16 << 30, "free": 8 << 30}]
    assert system["loaded"]["name"] == "tiny"
    assert system["process_bytes"] > 0
    assert system["jobs"] == [] == system["problems"]
    for name in ("requests_running", "requests_waiting", "batch_width", "rows_waiting", "tokens_per_s"):
        assert system[name] == 0, name
    assert system["model_bytes"] == 1_000_000
    assert system["ram"] == system["devices"][0]


def test_health_needs_no_manager_work(client: TestClient) -> None:
    assert ask(client, "GET", "/health") == {"status": "ok", "version": __version__}


# what is refused


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "repo_id"),
        ({"repo_id": 5}, "repo_id"),
        ({"repo_id": None}, "repo_id"),
        ({"source": "local"}, "local_path"),
        ({"source": "local", "local_path": "/x", "revision": "v1"}, "revision"),
        ({"repo_id": "acme/x", "local_path": "/x"}, "local_path"),
        ({"source": "ftp", "repo_id": "acme/x"}, "source"),
        ({"repo_id": "acme/x", "quantization": "Q5"}, "quantization"),
        ({"repo_id": "acme/x", "start": "false"}, "start"),
        ({"repo_id": "acme/x", "start": 0}, "start"),
        ({"repo_id": "acme/x", "trust_remote_code": "yes"}, "trust_remote_code"),
        ({"repo_id": "acme/x", "repo": "acme/x"}, "repo"),
        ({"repo_id": "acme/x", "model_type": "chat"}, "model_type"),
        ([], "body"),
        ("acme/x", "body"),
    ],
)
def test_a_body_that_is_not_understood_names_the_field(client: TestClient, body: object, field: str) -> None:
    error = ask(client, "POST", "/api/models", 422, body)
    assert error["code"] == "VALIDATION_ERROR"
    assert field in [fault["field"] for fault in error["details"]["errors"]]
    assert field in error["message"]
    assert ask(client, "GET", "/api/models") == []


@pytest.mark.parametrize(
    "body", [{"force": "true"}, {"force": 1}, {"context_length": 0}, {"context_length": 1.5}, {"x": 1}]
)
def test_load_refuses_what_it_does_not_know(client: TestClient, manager: Manager, body: dict[str, object]) -> None:
    record = manager.download(Origin(Source.HUGGINGFACE, "acme/tiny"), start=False)
    assert ask(client, "POST", f"/api/models/{record.id}/load", 422, body)["code"] == "VALIDATION_ERROR"


def test_a_refusal_never_repeats_a_token(client: TestClient) -> None:
    for token in (["hf_secret"], {"hf_secret": 1}, "hf_secret" * 100):
        answer = client.post("/api/models", json={"repo_id": "acme/x", "hf_token": token})
        assert answer.status_code == 422
        assert "hf_secret" not in answer.text


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "application/json"),
        (b'{"repo_id": "acme/x"}', "text/plain"),
        (b"repo_id=acme/x", None),
        (b"\xff", None),
    ],
)
def test_a_body_that_is_not_json_is_refused_in_the_envelope(
    client: TestClient, content: bytes, kind: str | None
) -> None:
    headers = {"content-type": kind} if kind else {}
    answer = client.post("/api/models", content=content, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "VALIDATION_ERROR"
    assert "JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api"),
        ("GET", "/api/nothing"),
        ("GET", "/api/models/abc"),
        ("GET", "/api/models/-1"),
        ("PUT", "/api/models/1"),
        ("DELETE", "/api/models"),
        ("POST", "/api/models/1/explode"),
    ],
)
def test_a_path_that_is_not_there_is_refused_in_the_envelope(client: TestClient, method: str, path: str) -> None:
    error = ask(client, method, path, 404)
    assert error["code"] == "NOT_FOUND"
    assert f"{method} {path}" in error["message"]


@pytest.mark.parametrize("action", ["download", "retry", "cancel", "load", "unload"])
def test_jobs_on_a_model_that_is_not_there(client: TestClient, action: str) -> None:
    assert ask(client, "POST", f"/api/models/7/{action}", 404)["code"] == "MODEL_NOT_FOUND"


def test_a_job_on_a_busy_model_is_refused(make: Make) -> None:
    manager = make(fetcher=FakeFetcher(chunks=100, pause_s=0.02))
    client = connect(manager)
    record = ask(client, "POST", "/api/models", 202, {"repo_id": "acme/tiny"})
    for method, path in (("POST", "/load"), ("POST", "/retry"), ("DELETE", "")):
        assert ask(client, method, f"/api/models/{record['id']}{path}", 409)["code"] == "MODEL_BUSY"
    assert ask(client, "POST", "/api/models", 409, {"repo_id": "acme/tiny"})["code"] == "MODEL_ALREADY_EXISTS"
    ask(client, "POST", f"/api/models/{record['id']}/cancel", 202)


def test_a_download_that_cannot_fit_is_refused(make: Make) -> None:
    client = connect(make(fetcher=FakeFetcher(size=1 << 60)))
    error = ask(client, "POST", "/api/models", 507, {"repo_id": "acme/tiny"})
    assert error["code"] == InsufficientDisk.code
    assert error["message"].startswith("Insufficient disk space. Need ")


@pytest.fixture
def quantizing(tmp_path: Path) -> Iterator[Manager]:
    """A manager that quantizes and measures, in play."""
    manager = make_manager(
        tmp_path / "quantizing", opener=FakeOpener(), quantizer=FakeQuantizer(), measure=FakeMeasure()
    )
    yield manager
    assert manager.close()


def get(client: TestClient, manager: Manager, repo_id: str, **more: object) -> dict[str, Any]:
    record = ask(client, "POST", "/api/models", 202, {"repo_id": repo_id, **more})
    wait(manager, record["id"], Status.READY)
    return dict(ask(client, "GET", f"/api/models/{record['id']}"))


def test_q4_is_made_where_nothing_else_is_asked_for(quantizing: Manager) -> None:
    client = connect(quantizing)
    sizes = ask(client, "POST", "/api/models/preview", 200, {"repo_id": "acme/one"})["estimated_sizes"]
    assert list(sizes) == ["Q4", "Q8", "FP16"]
    assert sizes["Q4"]["peak_disk_mb"] > sizes["FP16"]["peak_disk_mb"]
    assert {"fit", "largest_context", "note", "fits"} <= sizes["Q4"].keys()
    record = get(client, quantizing, "acme/one")
    assert (record["quantization"], record["cache_path"].rsplit("/", 1)[1]) == ("Q4", "acme--one--Q4")
    assert get(client, quantizing, "acme/one", quantization="Q8")["quantization"] == "Q8"
    assert ask(client, "POST", "/api/models", 409, {"repo_id": "acme/one"})["code"] == "MODEL_ALREADY_EXISTS"


def test_a_switch_and_a_reload_over_http(quantizing: Manager) -> None:
    client = connect(quantizing)
    one, two = (get(client, quantizing, repo) for repo in ("acme/one", "acme/two"))
    assert ask(client, "POST", f"/api/models/{one['id']}/reload", 400)["code"] == "MODEL_NOT_LOADED"
    for record in (one, two):
        ask(client, "POST", f"/api/models/{record['id']}/switch", 202, {"context_length": 100})
        wait(quantizing, record["id"], Status.LOADED)
    ask(client, "PATCH", f"/api/models/{two['id']}", 200, {"settings": {"context_length": 64}})
    ask(client, "POST", f"/api/models/{two['id']}/reload", 202)
    wait(quantizing, two["id"], Status.LOADED)
    assert ask(client, "PATCH", f"/api/models/{two['id']}", 422, {"settings": {"context_length": -1}})["code"]


def test_quality_over_http(quantizing: Manager) -> None:
    client = connect(quantizing)
    q4 = get(client, quantizing, "acme/one")
    here = f"/api/models/{q4['id']}"
    assert "FP16" in ask(client, "POST", f"{here}/quality", 422)["message"]
    half = get(client, quantizing, "acme/one", quantization="FP16")
    ask(client, "POST", f"{here}/quality", 202, {"against": half["id"], "text": "Some words."})
    until(lambda: quantizing.job(q4["id"]) is None)
    quality = ask(client, "GET", here)["quality"]
    assert (quality["reference"]["id"], quality["text"], quality["top1_agreement"]) == (half["id"], "given", 0.9)
    assert ask(client, "POST", f"{here}/quality", 422, {"text": ""})["code"] == "VALIDATION_ERROR"
    assert ask(client, "POST", f"{here}/quality", 404, {"against": 99})["code"] == "MODEL_NOT_FOUND"
