"""The fields of OpenAI's API as they reach the engine."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from asking import Listening, chat, complete, holding
from fakes import make_manager
from fastapi.testclient import TestClient

from millm.engines.base import ChatRequest, Message, Sampling


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Listening, TestClient]]:
    engine = Listening()
    manager, client = holding(partial(make_manager, tmp_path_factory.mktemp("held")), engine)
    yield engine, client
    assert manager.close()


@pytest.fixture
def listening(held: tuple[Listening, TestClient]) -> tuple[Listening, TestClient]:
    """An engine that was asked nothing yet, and the door to it."""
    held[0].asked.clear()
    return held


def test_fields_become_a_request(listening: tuple[Listening, TestClient]) -> None:
    engine, client = listening
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "assistant", "content": "ok", "refusal": None, "tool_calls": None, "annotations": []},
        {"role": "user", "content": parts},
    ]
    wish = {"temperature": 0, "top_p": 0.5, "top_k": 40, "max_completion_tokens": 9, "stop": ["a", "b"], "seed": 7}
    assert chat(client, messages=messages, **wish).status_code == 200
    assert engine.asked == [
        ChatRequest(
            (Message("system", "be brief"), Message("assistant", "ok"), Message("user", "one\ntwo")),
            sampling=Sampling(0.0, 0.5, 40, 9, ("a", "b"), 7),
            parsed=True,
            unsaid=frozenset({"min_p", "repetition_penalty"}),
        )
    ]


def test_what_is_left_out_or_null_is_openais_default(listening: tuple[Listening, TestClient]) -> None:
    engine, client = listening
    left_out = (
        "temperature top_p top_k max_tokens stop seed stream stream_options n tools min_p frequency_penalty "
        "presence_penalty repetition_penalty logit_bias logprobs top_logprobs"
    )
    nulls = dict.fromkeys(left_out.split())
    assert chat(client).status_code == chat(client, **nulls).status_code == 200
    assert engine.asked[0].sampling == engine.asked[1].sampling == Sampling(1.0, 1.0, 0, None, (), None)
    assert chat(client, max_tokens=5, stop="x").status_code == 200
    assert engine.asked[2].sampling == Sampling(max_tokens=5, stop=("x",))


@pytest.mark.parametrize(
    ("fields", "sampling"),
    [
        ({"n": 3}, Sampling(count=3)),
        ({"frequency_penalty": 2}, Sampling(frequency_penalty=2.0)),
        ({"presence_penalty": -2}, Sampling(presence_penalty=-2.0)),
        ({"repetition_penalty": 1.1}, Sampling(repetition_penalty=1.1)),
        ({"min_p": 0.1}, Sampling(min_p=0.1)),
        ({"logit_bias": {"5": -100, "0": 99.5}}, Sampling(logit_bias=((5, -100.0), (0, 99.5)))),
        ({"n": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "repetition_penalty": 1}, Sampling()),
        ({"min_p": 0, "logit_bias": {}}, Sampling()),
    ],
    ids=str,
)
def test_fields_become_a_sampling_in_both_routes(
    listening: tuple[Listening, TestClient], fields: dict[str, Any], sampling: Sampling
) -> None:
    engine, client = listening
    assert chat(client, **fields).status_code == 200
    assert complete(client, **fields).status_code == 200
    assert [request.sampling for request in engine.asked] == [sampling, replace(sampling, max_tokens=16)]


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 0}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
        ({"logprobs": False}, None),
        ({"top_logprobs": 0}, None),
    ],
    ids=str,
)
def test_a_chat_asks_for_chances_with_two_fields(
    listening: tuple[Listening, TestClient], fields: dict[str, Any], asked: int | None
) -> None:
    engine, client = listening
    assert chat(client, **fields).status_code == 200
    assert engine.asked[0].sampling == Sampling(logprobs=asked)


@pytest.mark.parametrize("asked", [None, 0, 20])
def test_a_completion_asks_for_chances_with_one(listening: tuple[Listening, TestClient], asked: int | None) -> None:
    engine, client = listening
    assert complete(client, logprobs=asked).status_code == 200
    assert engine.asked[0].sampling == Sampling(max_tokens=16, logprobs=asked)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("Once upon", ("Once upon",)),
        (["Once upon"], ("Once upon",)),
        (["b", "a"], ("b", "a")),
        ([3, 0, 3], ((3, 0, 3),)),
        ([[3, 0], [7]], ((3, 0), (7,))),
        (["a", [1]], ("a", (1,))),
        pytest.param(["a"] * 16, ("a",) * 16, id="sixteen"),
        ([""], ("",)),
    ],
    ids=str,
)
def test_a_plain_completion_takes_prompts_as_they_stand(
    listening: tuple[Listening, TestClient], prompt: Any, prompts: Any
) -> None:
    engine, client = listening
    assert complete(client, prompt=prompt).status_code == 200
    unsaid = frozenset({"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens"})
    assert engine.asked == [ChatRequest(prompts=prompts, sampling=Sampling(max_tokens=16), unsaid=unsaid)]
