"""A model of another server behind our own API: attached, loaded, asked by OpenAI's client."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient
from remote_server import Fault, RemoteServer
from serving import serving, until

import app
from millm.api import GuardPolicy, create_app
from millm.manager import Manager
from millm.settings import Settings

pytestmark = pytest.mark.slow

HELLO: Any = [{"role": "user", "content": "hello there"}]
KEY = "sk-canary-43"


@pytest.fixture
def server() -> Iterator[RemoteServer]:
    with RemoteServer() as running:
        yield running


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """The manager as app.py makes it, without the model that ships with it."""
    (tmp_path / "registry.json").write_text("{}")
    manager = app.make_manager(Settings(model_cache_dir=tmp_path, hf_token="hf_canary"))
    yield manager
    assert manager.close(60)


@pytest.fixture
def client(manager: Manager) -> TestClient:
    return TestClient(create_app(manager, GuardPolicy()), base_url="http://localhost")


def post(client: TestClient, path: str, status: int, **body: object) -> Any:
    answer = client.post(f"/api/models{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()["data" if status < 400 else "error"]


def arrive(client: TestClient, model_id: int, status: str) -> dict[str, Any]:
    def now() -> dict[str, Any]:
        return dict(client.get(f"/api/models/{model_id}").json()["data"])

    until(lambda: now()["status"] == status)
    return now()


def attach(client: TestClient, server: RemoteServer, **body: object) -> dict[str, Any]:
    record = post(client, "", 202, source="remote", url=server.url, **body)
    return arrive(client, record["id"], "ready")


@pytest.fixture
def program(client: TestClient, server: RemoteServer) -> Iterator[openai.OpenAI]:
    record = attach(client, server, custom_name="mine")
    post(client, f"/{record['id']}/load", 202)
    arrive(client, record["id"], "loaded")
    with serving(client.app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as program:
        yield program


def test_a_server_is_looked_at_and_attached(client: TestClient, server: RemoteServer) -> None:
    seen = post(client, "/preview", 200, source="remote", url=f"http://127.0.0.1:{server.port}/")
    assert seen["name"] == "tiny"
    assert "It has: tiny." in seen["warnings"]
    assert seen["estimated_sizes"]["FP16"]["memory_mb"] == seen["estimated_sizes"]["FP16"]["disk_mb"] == 0
    record = attach(client, server)
    assert (record["source"], record["url"], record["repo_id"]) == ("remote", server.url, "tiny")
    assert (record["quantization"], record["disk_size_mb"], record["cache_path"]) == ("FP16", 0, None)
    assert post(client, "", 409, source="remote", url=server.url)["code"] == "MODEL_ALREADY_EXISTS"
    needs = client.get(f"/api/models/{record['id']}/compatibility").json()["data"]
    assert (needs["fits"], needs["warnings"], needs["requirements"]["packages"]) == (True, [], ["openai"])
    assert client.delete(f"/api/models/{record['id']}").status_code == 200
    assert all("Authorization" not in sent for sent in server.headers), "the hub's token is for the hub"


def test_what_a_body_must_hold(client: TestClient, server: RemoteServer) -> None:
    for field, body in {
        "url": {"source": "remote"},
        "server_key": {"repo_id": "acme/x", "server_key": "k"},
        "hf_token": {"source": "remote", "url": server.url, "hf_token": "k"},
    }.items():
        assert [each["field"] for each in post(client, "", 422, **body)["details"]["errors"]] == [field]
    assert post(client, "", 400, source="remote", url=f"http://u:{KEY}@box")["code"] == "INVALID_URL"
    server.models = ["a", "b"]
    error = post(client, "", 422, source="remote", url=server.url)
    assert error["message"].endswith("has 2 models. Name one. It has: a, b.")
    assert client.get("/api/models").json()["data"] == []


def test_a_key_that_was_lost_is_given_with_the_load(client: TestClient, server: RemoteServer) -> None:
    record = attach(client, server)
    server.key = KEY
    post(client, f"/{record['id']}/load", 202)
    until(lambda: client.get(f"/api/models/{record['id']}").json()["data"]["error_code"])
    failed = client.get(f"/api/models/{record['id']}").json()["data"]
    assert failed["error_code"] == "REMOTE_UNAVAILABLE"
    assert "asks for a key. Give it as the server key: on the page, or as server_key" in failed["error_message"]
    post(client, f"/{record['id']}/load", 202, server_key=KEY)
    assert arrive(client, record["id"], "loaded")["error_message"] is None
    assert post(client, f"/{record['id']}/load", 422, server_key="no key")["details"]["field"] == "server_key"


def test_a_model_without_a_server_takes_no_key(client: TestClient) -> None:
    record = post(client, "/guide", 200)
    error = post(client, f"/{record['id']}/load", 422, server_key=KEY)
    assert error["message"] == "'millm-guide' runs at no server that takes a key."


def test_whole_answers_and_streams(program: openai.OpenAI, server: RemoteServer) -> None:
    whole = program.chat.completions.create(model="mine", messages=HELLO)
    assert whole.choices[0].message.content == "You said: hello there"
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (2, 4)
    asked = server.asked("/chat/completions")[-1]
    assert asked["model"] == "tiny"
    assert not {"temperature", "top_p", "max_tokens"} & asked.keys(), "the server's own defaults hold"
    stream = program.chat.completions.create(model="mine", messages=HELLO, stream=True, temperature=0)
    said = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert said[1:-1] == ["You", " said:", " hello", " there"]
    assert server.asked("/chat/completions")[-1]["temperature"] == 0
    text = program.completions.create(model="mine", prompt=["one", "two"], n=2, logprobs=1)
    assert [choice.text for choice in text.choices] == ["You said: one"] * 2 + ["You said: two"] * 2
    assert text.choices[0].logprobs.tokens == ["You", " said:", " one"]
    vectors = program.embeddings.create(model="mine", input=["a", "abc"])
    assert [each.embedding[0] for each in vectors.data] == [1.0, 3.0]


def test_the_models_settings_hold_for_a_server_too(
    program: openai.OpenAI, client: TestClient, server: RemoteServer
) -> None:
    settings = {"generation": {"temperature": 0.25, "top_k": 9, "max_tokens": 2}, "system_prompt": "Be brief."}
    client.patch("/api/models/1", json={"settings": settings})
    assert program.chat.completions.create(model="mine", messages=HELLO).choices[0].finish_reason == "length"
    asked = server.asked("/chat/completions")[-1]
    assert (asked["temperature"], asked["top_k"], asked["max_tokens"]) == (0.25, 9, 2)
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}


def test_tools_go_there_and_calls_come_back(program: openai.OpenAI, server: RemoteServer) -> None:
    first = {"index": 0, "id": "c1", "function": {"name": "add", "arguments": '{"a"'}}
    server.answers["add"] = [{"reasoning_content": "Hm."}, {"tool_calls": [first]}]
    server.answers["add"].append({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]})
    tool: Any = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    messages: Any = [{"role": "user", "content": "add"}]
    whole = program.chat.completions.create(model="mine", messages=messages, tools=[tool], tool_choice="required")
    called = whole.choices[0].message.tool_calls[0]
    assert (called.id, called.function.name, called.function.arguments) == ("c1", "add", '{"a": 1}')
    assert whole.choices[0].finish_reason == "tool_calls"
    assert whole.choices[0].message.reasoning_content == "Hm."
    assert server.asked("/chat/completions")[-1]["tool_choice"] == "required"
    chunks = list(program.chat.completions.create(model="mine", messages=messages, tools=[tool], stream=True))
    streamed = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert [call.function.arguments for call in streamed] == ['{"a": 1}']


@pytest.mark.parametrize(
    ("status", "said", "kind", "code"),
    [
        (400, "too hot", openai.BadRequestError, "invalid_value"),
        (400, "maximum context length is 8", openai.BadRequestError, "context_length_exceeded"),
        (404, "no such model", openai.NotFoundError, "model_not_found"),
        (429, "later", openai.InternalServerError, "queue_full"),
        (401, "who", openai.InternalServerError, "remote_unavailable"),
        (500, "broken", openai.InternalServerError, "remote_unavailable"),
    ],
)
def test_errors_keep_their_meaning(
    program: openai.OpenAI, server: RemoteServer, status: int, said: str, kind: type[openai.APIError], code: str
) -> None:
    server.refusals["/v1/chat/completions"] = (status, {"error": {"message": said}})
    with pytest.raises(kind) as caught:
        program.chat.completions.create(model="mine", messages=HELLO)
    assert caught.value.code == code


def test_a_stream_that_breaks_off_ends_with_an_error(program: openai.OpenAI, server: RemoteServer) -> None:
    server.fault = Fault("drop", after=2)
    heard: list[str] = []

    def read() -> None:
        for chunk in program.chat.completions.create(model="mine", messages=HELLO, stream=True):
            heard.extend(choice.delta.content or "" for choice in chunk.choices)

    with pytest.raises(openai.APIError, match="broke off"):
        read()
    assert "".join(heard) == "You said:"


def test_a_client_that_leaves_takes_the_request_along(program: openai.OpenAI, server: RemoteServer) -> None:
    server.fault = Fault("silent", after=2)
    stream = program.chat.completions.create(model="mine", messages=HELLO, stream=True)
    assert len([next(iter(stream)) for _ in range(2)]) == 2
    stream.close()
    until(lambda: server.gone)


def test_a_server_that_goes_away_is_a_problem_until_it_is_back(client: TestClient) -> None:
    def problems() -> list[str]:
        return list(client.get("/api/system").json()["data"]["problems"])

    with RemoteServer() as server:
        record = attach(client, server)
        post(client, f"/{record['id']}/load", 202)
        arrive(client, record["id"], "loaded")
        assert problems() == []
    until(problems)
    assert "does not answer" in problems()[0]
    with RemoteServer(port=server.port):
        until(lambda: not problems())
