"""/v1/embeddings; the name of tests/engines/test_embeddings.py is taken, and pytest wants two."""

import base64
import struct
import time
from typing import Any

import openai
import pytest
from asking import Listening, Make, Serve, holding
from fakes import FakeEngine, FakeOpener
from fastapi.testclient import TestClient
from serving import AT_ONCE_S, call, load, until

from millm.api import GuardPolicy, create_app
from millm.api.embeddings import MAX_INPUTS
from millm.engines.base import Embeddings, EmbedRequest
from millm.errors import ContextLengthExceeded
from millm.events import Report


def embed(client: TestClient, **fields: Any) -> Any:
    return client.post("/v1/embeddings", json={"model": "tiny", "input": "hello"} | fields)


def refusal(answer: Any) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


@pytest.mark.slow
def test_the_client_gets_the_same_from_base64_as_from_numbers(program: openai.OpenAI) -> None:
    packed = program.embeddings.create(model="tiny", input=["hello", "big"], user="me")
    plain = program.embeddings.create(model="tiny", input=["hello", "big"], encoding_format="float")
    assert [each.embedding for each in packed.data] == [each.embedding for each in plain.data]
    assert plain.data[0].embedding == pytest.approx([5 / 3, -0.25, 1e-3, 0])
    assert [each.index for each in plain.data] == [0, 1]
    assert (plain.object, plain.data[0].object, plain.model) == ("list", "embedding", "tiny")
    assert plain.usage == openai.types.create_embedding_response.Usage(prompt_tokens=8, total_tokens=8)


def test_base64_is_little_endian_float32(loaded: TestClient) -> None:
    (found,) = embed(loaded, encoding_format="base64").json()["data"]
    (plain,) = embed(loaded).json()["data"]
    assert list(struct.unpack("<4f", base64.b64decode(found["embedding"]))) == plain["embedding"]


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("hello", ("hello",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        ([[1], "a"], ((1,), "a")),
        (["a"] * MAX_INPUTS, ("a",) * MAX_INPUTS),
    ],
)
def test_inputs_of_every_kind_reach_the_engine(make: Make, given: object, inputs: Any) -> None:
    engine = Listening()
    client = holding(make, engine)[1]
    assert embed(client, input=given, dimensions=3).status_code == 200
    assert engine.asked == [EmbedRequest(inputs, 3)]


def test_fields_that_are_null_are_not_given(loaded: TestClient) -> None:
    nulls = dict.fromkeys(("dimensions", "encoding_format", "user"))
    assert embed(loaded, **nulls).json() == embed(loaded).json()
    assert len(embed(loaded, dimensions=2).json()["data"][0]["embedding"]) == 2


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": ""}, "invalid_value", "input"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": ["a", ""]}, "invalid_value", "input"),
        ({"input": [[]]}, "invalid_type", "input"),
        ({"input": None}, "invalid_type", "input"),
        ({"input": [1, "a"]}, "invalid_type", "input"),
        ({"input": [-1]}, "invalid_type", "input"),
        ({"input": [1.5]}, "invalid_type", "input"),
        ({"input": {"text": "a"}}, "invalid_type", "input"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "invalid_value", "input"),
        ({"dimensions": 0}, "invalid_value", "dimensions"),
        ({"dimensions": "3"}, "invalid_type", "dimensions"),
        ({"encoding_format": "hex"}, "invalid_value", "encoding_format"),
        ({"model": None}, "invalid_type", "model"),
        ({"truncate": True}, "unknown_parameter", "truncate"),
    ],
)
def test_what_is_wrong_is_refused_by_name(loaded: TestClient, fields: Any, code: str, param: str) -> None:
    assert refusal(embed(loaded, **fields)) == (400, code, param)


def test_what_is_missing_is_named(loaded: TestClient) -> None:
    for given, param in (({"model": "tiny"}, "input"), ({"input": "a"}, "model")):
        answer = loaded.post("/v1/embeddings", json=given)
        assert refusal(answer) == (400, "missing_required_parameter", param)


def test_the_model_must_be_the_loaded_one(loaded: TestClient, client: TestClient) -> None:
    assert refusal(embed(loaded, model="gpt-5")) == (404, "model_not_found", "model")
    assert refusal(embed(client)) == (503, "model_not_loaded", None)


def test_a_text_that_is_too_long_is_refused_as_openai_does(make: Make) -> None:
    class Short(FakeEngine):
        def embed(self, request: EmbedRequest, report: Report) -> Embeddings:
            raise ContextLengthExceeded("This model reads 256 tokens at most.", field="input")

    client = holding(make, Short())[1]
    assert refusal(embed(client)) == (400, "context_length_exceeded", "input")


@pytest.mark.slow
def test_a_client_that_leaves_ends_its_work(make: Make, serve: Serve) -> None:
    opener = FakeOpener(engine_pause_s=0.02)
    manager = make(opener=opener)
    load(manager)
    url = serve(create_app(manager, GuardPolicy()))
    connection = call(url, "/v1/embeddings", {"model": "tiny", "input": ["a"] * MAX_INPUTS})
    until(lambda: opener.opened[0].running)
    connection.close()
    left = time.monotonic()
    until(lambda: not opener.opened[0].running)
    assert time.monotonic() - left < AT_ONCE_S
