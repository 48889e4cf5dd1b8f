"""The OpenAI API, asked by OpenAI's own client over a real port, and field by field in this process."""

import asyncio
import threading
import time
from datetime import datetime
from typing import Any

import openai
import pytest
from asking import HELLO, Make, Serve, chat, chunks, complete, holding
from fakes import FakeEngine, FakeOpener
from fastapi.testclient import TestClient
from openai.types import CompletionUsage
from openai.types.completion_usage import PromptTokensDetails
from running import PATIENCE_S
from serving import AT_ONCE_S, call, load, until

from millm.api import GuardPolicy, create_app
from millm.engines.base import ChatRequest, Completion
from millm.errors import ContextLengthExceeded, LoadFailed
from millm.events import Event, Report, Stage
from millm.manager import Manager
from millm.records import Source, Status
from millm.sources.base import Origin

WORDS = "many words " * 500


class Failing(FakeEngine):
    """Fails after some words, with something of our own or with a bug."""

    def __init__(self, words: int, error: Exception) -> None:
        super().__init__()
        self.words, self.error = words, error

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        for number in range(self.words):
            report(Event(Stage.GENERATING, text=f"w{number} ", tokens=number + 1))
        raise self.error


# OpenAI's own client


USAGE = CompletionUsage(
    prompt_tokens=3,
    completion_tokens=3,
    total_tokens=6,
    prompt_tokens_details=PromptTokensDetails(cached_tokens=0),
)


@pytest.mark.slow
def test_the_client_gets_whole_answers(program: openai.OpenAI) -> None:
    assert [model.id for model in program.models.list()] == ["tiny"]
    assert program.models.retrieve("tiny").owned_by == "miLLM"
    answer = program.chat.completions.create(model="tiny", messages=HELLO)
    assert answer.id.startswith("chatcmpl-")
    assert abs(answer.created - time.time()) < PATIENCE_S
    assert (answer.model, answer.object) == ("tiny", "chat.completion")
    assert answer.choices[0].message.content == "hello big world"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage == USAGE
    assert answer._request_id
    text = program.completions.create(model="tiny", prompt="hello big world", max_tokens=2)
    assert (text.choices[0].text, text.choices[0].finish_reason) == ("hello big", "length")
    assert text.object == "text_completion"


@pytest.mark.slow
def test_the_client_gets_streams(program: openai.OpenAI) -> None:
    stream = program.chat.completions.create(
        model="tiny", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    got = list(stream)
    assert len({chunk.id for chunk in got}) == 1
    assert got[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in got if chunk.choices) == "hello big world"
    assert [chunk.choices[0].finish_reason for chunk in got if chunk.choices] == [None] * (len(got) - 2) + ["stop"]
    assert got[-1].choices == []
    assert got[-1].usage == USAGE
    pieces = list(program.completions.create(model="tiny", prompt="a b", stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == "a b"
    with program.chat.completions.stream(model="tiny", messages=HELLO) as helper:
        assert helper.get_final_completion().choices[0].message.content == "hello big world"


@pytest.mark.slow
def test_the_async_client_and_many_at_once(make: Make, serve: Serve) -> None:
    manager = make(opener=FakeOpener(engine_pause_s=0.02))
    load(manager)
    url = serve(create_app(manager, GuardPolicy()))

    async def one(client: openai.AsyncOpenAI, text: str) -> str:
        stream = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": text}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def many() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
            return await asyncio.gather(*(one(client, f"answer to {number}") for number in range(30)))

    assert asyncio.run(many()) == [f"answer to {number}" for number in range(30)]


@pytest.mark.slow
def test_the_client_raises_the_right_errors(make: Make, serve: Serve) -> None:
    manager = make()
    url = serve(create_app(manager, GuardPolicy(api_key="key")))
    with openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            stranger.models.list()
        assert refused.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=f"{url}/v1", api_key="key", max_retries=0) as program:
        create = program.chat.completions.create
        with pytest.raises(openai.InternalServerError) as nothing:
            create(model="tiny", messages=HELLO)
        assert (nothing.value.status_code, nothing.value.code) == (503, "model_not_loaded")
        load(manager)
        with pytest.raises(openai.NotFoundError) as unknown:
            create(model="gpt-5", messages=HELLO)
        assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.NotFoundError):
            program.models.retrieve("owner/other")
        with pytest.raises(openai.BadRequestError) as unsupported:
            create(model="tiny", messages=HELLO, store=True)
        assert (unsupported.value.code, unsupported.value.param) == ("unsupported_parameter", "store")
        with pytest.raises(openai.BadRequestError) as wrong:
            create(model="tiny", messages=HELLO, n=17)
        assert (wrong.value.code, wrong.value.param) == ("invalid_value", "n")
        assert create(model="tiny", messages=HELLO).usage == USAGE


@pytest.mark.slow
def test_the_client_raises_an_error_that_comes_late(make: Make, serve: Serve) -> None:
    manager, _ = holding(make, Failing(2, LoadFailed('the "engine"\nbroke')))
    url = serve(create_app(manager, GuardPolicy()))
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as program:
        heard = []
        with pytest.raises(openai.APIError, match="broke"):
            for chunk in program.chat.completions.create(model="tiny", messages=HELLO, stream=True):
                heard.append(chunk.choices[0].delta.content)
        assert heard == ["", "w0 ", "w1 "]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_its_answer(make: Make, serve: Serve, stream: bool) -> None:
    opener = FakeOpener(engine_pause_s=0.05)
    manager = make(opener=opener)
    load(manager)
    url = serve(create_app(manager, GuardPolicy()))
    body = {"model": "tiny", "messages": [{"role": "user", "content": WORDS}], "stream": stream}
    connection = call(url, "/v1/chat/completions", body)
    until(lambda: opener.opened[0].running == 1)
    if stream:
        assert b"200 OK" in connection.recv(64)
    connection.close()
    assert until(lambda: opener.opened[0].running == 0) < AT_ONCE_S
    until(lambda: manager.system().requests_running == 0)


# streams, frame by frame


def test_the_frames_of_a_chat(loaded: TestClient) -> None:
    answer = chat(loaded, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    frames = chunks(answer.text)
    assert frames[-1] == "[DONE]"
    choices = [frame["choices"][0] for frame in frames[:-1]]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"content": "hello"},
        {"content": " big"},
        {"content": " world"},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None] * 4 + ["stop"]
    assert {frame["object"] for frame in frames[:-1]} == {"chat.completion.chunk"}
    assert not any("usage" in frame for frame in frames[:-1])


def test_the_frames_of_a_completion_with_counts(loaded: TestClient) -> None:
    wish = {"prompt": "a b c", "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}
    answer = complete(loaded, **wish)
    *frames, done = chunks(answer.text)
    assert done == "[DONE]"
    assert [frame["choices"][0]["text"] for frame in frames[:-1]] == ["a", " b", ""]
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    details = {"prompt_tokens_details": {"cached_tokens": 0}}
    assert [frame["usage"] for frame in frames] == [None] * 3 + [usage | details]
    assert frames[-1]["choices"] == []
    assert frames[2]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_before_the_first_word_has_its_status(make: Make, stream: bool) -> None:
    _, client = holding(make, Failing(0, ContextLengthExceeded("Too long.", limit=512)))
    answer = chat(client, stream=stream)
    assert answer.status_code == 400
    error = {"message": "Too long.", "type": "invalid_request_error", "param": None}
    assert answer.json() == {"error": error | {"code": "context_length_exceeded"}}


def test_an_error_after_the_first_word_is_the_last_frame(make: Make) -> None:
    _, client = holding(make, Failing(1, LoadFailed('a "quote"\nand more')))
    frames = chunks(chat(client, stream=True).text)
    assert frames[-1]["error"]["message"] == 'a "quote"\nand more'
    assert frames[-1]["error"]["type"] == "server_error"
    assert "[DONE]" not in frames


@pytest.mark.parametrize("stream", [True, False])
def test_a_bug_in_the_engine_is_told_by_its_id_only(make: Make, stream: bool) -> None:
    _, client = holding(make, Failing(0, KeyError("/home/me/secret")))
    answer = chat(client, stream=stream)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text


def test_while_the_first_model_comes_that_is_said(make: Make) -> None:
    opener = FakeOpener(pause_s=0.2)
    manager = make(opener=opener)
    client = TestClient(create_app(manager, GuardPolicy()), base_url="http://localhost")
    record = manager.download(Origin(Source.HUGGINGFACE, "acme/tiny"))
    until(lambda: manager.record(record.id).status is Status.READY)
    assert "No model is loaded" in chat(client).json()["error"]["message"]
    manager.load(record.id)
    answer = chat(client)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_loaded")
    assert answer.json()["error"]["message"] == "'tiny' is still being loaded. Ask again in a moment."
    until(lambda: manager.loaded())
    assert chat(client).status_code == 200


def test_an_answer_cut_short_by_an_unload_says_so(make: Make) -> None:
    opener = FakeOpener(engine_pause_s=0.02)
    manager = make(opener=opener, drain_s=0.1)
    record = load(manager)
    client = TestClient(create_app(manager, GuardPolicy()), base_url="http://localhost")
    frames: list[Any] = []
    wish = {"messages": [{"role": "user", "content": WORDS}], "stream": True}
    reader = threading.Thread(target=lambda: frames.extend(chunks(chat(client, **wish).text)))
    reader.start()
    until(lambda: opener.opened[0].running == 1)
    manager.unload(record.id)
    until(lambda: manager.record(record.id).status is Status.READY)
    reader.join(PATIENCE_S)
    assert "unloaded" in frames[-1]["error"]["message"]
    assert chat(client).status_code == 503


def test_a_full_queue_says_when_to_come_back(make: Make) -> None:
    opener = FakeOpener(engine_pause_s=0.2)
    manager = make(opener=opener)
    load(manager)
    client = TestClient(create_app(manager, GuardPolicy()), base_url="http://localhost")
    waiting = [manager.chat(ChatRequest(prompts=("a " * 100,))) for _ in range(128)]
    answer = chat(client)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "queue_full"
    assert int(answer.headers["retry-after"]) > 0
    for job in waiting:
        job.cancel()


# what is refused, and what is not

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
NEUTRAL: dict[str, list[Any]] = {
    "response_format": [{"type": "text"}],
    "tools": [[]],
    "tool_choice": ["none", "auto"],
    "parallel_tool_calls": [True, False],
    "functions": [[]],
    "modalities": [["text"]],
    "service_tier": ["auto", "default"],
    "store": [False],
    "user": ["me"],
    "metadata": [{"a": "b"}],
    "safety_identifier": ["me"],
    "prompt_cache_key": ["me"],
    "audio": [None],
    "reasoning_effort": [None],
}
ASKING: dict[str, list[Any]] = {
    "functions": [[{}]],
    "modalities": [["audio"]],
    "store": [True],
    "audio": [{"voice": "x"}],
    "reasoning_effort": ["low"],
    "web_search_options": [{}],
    "prediction": [{}],
}


@pytest.mark.parametrize(("field", "value"), [(k, v) for k, values in NEUTRAL.items() for v in values], ids=str)
def test_fields_that_ask_for_nothing_are_accepted(loaded: TestClient, field: str, value: Any) -> None:
    answer = chat(loaded, **{field: value})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("field", "value"), [(k, v) for k, values in ASKING.items() for v in values], ids=str)
def test_fields_that_cannot_be_honoured_are_named(loaded: TestClient, field: str, value: Any) -> None:
    answer = chat(loaded, **{field: value})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", field)
    assert error["code"] == "unsupported_parameter"
    assert field in error["message"]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"model": None}, "model", "invalid_type"),
        ({"messages": None}, "messages", "invalid_type"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
        ({"messages": [{"role": "me", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "invalid_value"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "nosuch", "tools": [WEATHER]}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "function"}, "tools": [WEATHER]}, "tool_choice", "invalid_value"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [*HELLO, {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[1].content",
            "invalid_value",
        ),
        ({"messages": [{"role": "user", "content": "x", "name": "me"}]}, "messages[0].name", "unsupported_parameter"),
        ({"messages": [{"role": "user", "content": "x", "foo": 1}]}, "messages[0].foo", "unknown_parameter"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_type"),
        ({"top_p": 1.5}, "top_p", "invalid_value"),
        ({"top_k": -1}, "top_k", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens", "invalid_value"),
        ({"stop": [""]}, "stop", "invalid_type"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"stop": ["x"] * 17}, "stop", "invalid_value"),
        ({"seed": "7"}, "seed", "invalid_type"),
        ({"stream": "true"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"foo": 1}}, "stream_options.foo", "unknown_parameter"),
        ({"max_token": 5}, "max_token", "unknown_parameter"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 17}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_type"),
        ({"frequency_penalty": 2.1}, "frequency_penalty", "invalid_value"),
        ({"frequency_penalty": -2.1}, "frequency_penalty", "invalid_value"),
        ({"frequency_penalty": False}, "frequency_penalty", "invalid_type"),
        ({"presence_penalty": 2.1}, "presence_penalty", "invalid_value"),
        ({"presence_penalty": -2.1}, "presence_penalty", "invalid_value"),
        ({"presence_penalty": True}, "presence_penalty", "invalid_type"),
        ({"min_p": 2}, "min_p", "invalid_value"),
        ({"min_p": -0.1}, "min_p", "invalid_value"),
        ({"min_p": True}, "min_p", "invalid_type"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"repetition_penalty": 10.1}, "repetition_penalty", "invalid_value"),
        ({"repetition_penalty": "1"}, "repetition_penalty", "invalid_type"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"-1": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "invalid_value"),
        ({"logit_bias": {"1": -101}}, "logit_bias.1", "invalid_value"),
        ({"logit_bias": {"1": True}}, "logit_bias.1", "invalid_type"),
        ({"logit_bias": [1]}, "logit_bias", "invalid_type"),
        ({"logprobs": 1}, "logprobs", "invalid_type"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": True}, "top_logprobs", "invalid_type"),
        ({"top_logprobs": 1}, "top_logprobs", "invalid_value"),
        ({"logprobs": False, "top_logprobs": 1}, "top_logprobs", "invalid_value"),
        ({"echo": True}, "echo", "unknown_parameter"),
    ],
    ids=str,
)
def test_what_is_not_understood_is_named(loaded: TestClient, fields: dict[str, Any], param: str, code: str) -> None:
    answer = chat(loaded, **fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert param in error["message"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a"] * 17}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [[1], []]}, "prompt"),
        ({"prompt": [["a"]]}, "prompt"),
        ({"echo": 1}, "echo"),
        ({"echo": True, "logprobs": 0}, "logprobs"),
        ({"echo": True, "prompt": [1, 2]}, "echo"),
        ({"echo": True, "prompt": ["a", [1]]}, "echo"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"n": 17}, "n"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "y"}, "suffix"),
        ({"messages": []}, "messages"),
    ],
    ids=str,
)
def test_completions_refuse_likewise(loaded: TestClient, fields: dict[str, Any], param: str) -> None:
    answer = complete(loaded, **fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert param in error["message"]


def test_a_completion_needs_a_prompt_and_no_more(loaded: TestClient) -> None:
    answer = loaded.post("/v1/completions", json={"model": "tiny"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "missing_required_parameter")
    neutral = {"echo": False, "best_of": 1, "suffix": "", "logprobs": None, "user": "me"}
    assert complete(loaded, **neutral).status_code == 200


def test_a_body_that_is_not_json_is_refused_in_openais_shape(client: TestClient) -> None:
    for content, kind in (("{", "application/json"), ("{}", "text/plain"), ("[]", "application/json")):
        answer = client.post("/v1/chat/completions", content=content, headers={"content-type": kind})
        assert answer.status_code == 400
        assert "JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1"), ("POST", "/v1/images"), ("DELETE", "/v1/models/x")])
def test_a_path_that_is_not_there_is_refused_in_openais_shape(client: TestClient, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
    assert answer.json()["error"]["type"] == "invalid_request_error"


# the list of models


def test_only_the_loaded_model_is_listed(client: TestClient, manager: Manager) -> None:
    manager.download(Origin(Source.HUGGINGFACE, "acme/other"), start=False)
    assert client.get("/v1/models").json() == {"object": "list", "data": []}
    assert client.get("/v1/models/other").status_code == 404
    record = load(manager)
    created = int(datetime.fromisoformat(record.created_at).timestamp())
    entry = {"id": "tiny", "object": "model", "created": created, "owned_by": "miLLM"}
    assert client.get("/v1/models").json() == {"object": "list", "data": [entry]}
    assert client.get("/v1/models/tiny").json() == entry
    for name in ("other", "acme/tiny"):
        answer = client.get(f"/v1/models/{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
