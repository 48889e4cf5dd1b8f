"""The defaults of answers, through the public API: set with PATCH, obeyed by every request that says nothing else."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from asking import Listening, chat, complete, holding
from fakes import make_manager
from fastapi.testclient import TestClient

from millm.engines.base import Message, Sampling

DEFAULTS = {
    "temperature": 0.2,
    "top_p": 0.9,
    "top_k": 7,
    "min_p": 0.05,
    "max_tokens": 2,
    "repetition_penalty": 1.2,
}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Listening, TestClient]]:
    engine = Listening()
    manager, client = holding(partial(make_manager, tmp_path_factory.mktemp("held")), engine)
    yield engine, client
    assert manager.close()


@pytest.fixture
def door(held: tuple[Listening, TestClient]) -> tuple[Listening, TestClient]:
    held[0].asked.clear()
    return held


def set_defaults(client: TestClient, settings: dict[str, Any], status: int = 200) -> Any:
    answer = client.patch("/api/models/1", json={"settings": settings})
    assert answer.status_code == status, answer.json()
    return answer.json()


def test_they_hold_at_once_for_both_routes_and_go_as_they_came(door: tuple[Listening, TestClient]) -> None:
    engine, client = door
    set_defaults(client, {"generation": DEFAULTS})
    assert chat(client).json()["choices"][0]["message"]["content"] == "hello big"
    assert complete(client).json()["choices"][0]["text"] == "hello big"
    expected = Sampling(**DEFAULTS, clip=True)
    assert [request.sampling for request in engine.asked] == [expected, expected]
    set_defaults(client, {})
    assert chat(client).status_code == complete(client).status_code == 200
    assert [request.sampling for request in engine.asked[2:]] == [Sampling(), Sampling(max_tokens=16)]


def test_a_request_that_says_something_wins_in_that(door: tuple[Listening, TestClient]) -> None:
    engine, client = door
    set_defaults(client, {"generation": DEFAULTS})
    said = {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1}
    assert chat(client, **said, max_completion_tokens=9).status_code == 200
    assert complete(client, **said, max_tokens=9).status_code == 200
    assert chat(client, top_p=None, max_tokens=9).status_code == 200
    plain = Sampling(temperature=0.0, max_tokens=9)
    assert [request.sampling for request in engine.asked[:2]] == [plain, plain]
    assert engine.asked[2].sampling == Sampling(**DEFAULTS | {"max_tokens": 9})


def test_a_system_prompt_stands_before_conversations_without_one(door: tuple[Listening, TestClient]) -> None:
    engine, client = door
    set_defaults(client, {"system_prompt": "Be brief."})
    own = [{"role": "developer", "content": "Be long."}, {"role": "user", "content": "hi"}]
    assert chat(client).status_code == chat(client, messages=own).status_code == complete(client).status_code == 200
    assert engine.asked[0].messages == (Message("system", "Be brief."), Message("user", "hello big world"))
    assert [message.content for message in engine.asked[1].messages] == ["Be long.", "hi"]
    assert engine.asked[2].messages == ()


@pytest.mark.parametrize(
    "settings",
    [{"system_prompt": 5}, {"generation": {"temperature": 3}}, {"generation": {"top_q": 1}}, {"generation": [1]}],
    ids=str,
)
def test_what_cannot_be_obeyed_is_a_422_and_changes_nothing(
    door: tuple[Listening, TestClient], settings: dict[str, Any]
) -> None:
    _, client = door
    set_defaults(client, {"generation": {"top_k": 3}})
    error = set_defaults(client, settings, 422)["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert error["details"]["field"].startswith("settings.")
    assert client.get("/api/models/1").json()["data"]["settings"] == {"generation": {"top_k": 3}}
