"""Defaults of answers: which there can be, and what a request leaves them to decide."""

from typing import Any

import pytest

from millm.engines.base import ChatRequest, Message, Sampling
from millm.errors import InvalidRequest
from millm.generation import GENERATION, check_generation, completed, generation_of, system_prompt_of

ALL = frozenset(GENERATION)
SETTINGS = {"generation": {"temperature": 0.3, "top_k": 40, "max_tokens": 99}, "system_prompt": "  Be brief. "}
HELLO = (Message("user", "hello"),)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"system_prompt": 5}, "settings.system_prompt"),
        ({"generation": []}, "settings.generation"),
        ({"generation": {"seed": 1}}, "settings.generation.seed"),
        ({"generation": {"temperature": 2.1}}, "settings.generation.temperature"),
        ({"generation": {"temperature": -0.1}}, "settings.generation.temperature"),
        ({"generation": {"temperature": True}}, "settings.generation.temperature"),
        ({"generation": {"temperature": float("nan")}}, "settings.generation.temperature"),
        ({"generation": {"top_p": "1"}}, "settings.generation.top_p"),
        ({"generation": {"top_k": 1.5}}, "settings.generation.top_k"),
        ({"generation": {"min_p": 1.01}}, "settings.generation.min_p"),
        ({"generation": {"max_tokens": 0}}, "settings.generation.max_tokens"),
        ({"generation": {"repetition_penalty": 0}}, "settings.generation.repetition_penalty"),
    ],
    ids=str,
)
def test_what_no_request_could_obey_is_refused_with_its_field(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_generation(settings)
    assert refused.value.details["field"] == field


def test_what_may_be_given_is_said() -> None:
    assert GENERATION["temperature"].sentence == "a number from 0 to 2"
    assert GENERATION["max_tokens"].sentence == "a whole number, 1 or more"


def test_nothing_and_null_are_fine() -> None:
    check_generation({})
    check_generation({"generation": None, "system_prompt": None})
    check_generation({"generation": dict.fromkeys(GENERATION)})
    check_generation({"generation": {"temperature": 0, "top_k": 0, "repetition_penalty": 10}})


def test_what_a_hand_wrote_into_the_registry_is_left_out() -> None:
    assert generation_of({"generation": {"temperature": "hot", "top_p": 0.5, "nonsense": 1}}) == {"top_p": 0.5}
    assert generation_of({"generation": "hot"}) == {}
    assert system_prompt_of({"system_prompt": ["x"]}) == ""


def test_what_a_request_leaves_open_is_filled_in() -> None:
    request = completed(ChatRequest(HELLO, unsaid=ALL), SETTINGS)
    assert request.sampling == Sampling(temperature=0.3, top_k=40, max_tokens=99, clip=True)
    assert request.messages == (Message("system", "Be brief."), *HELLO)
    assert request.unsaid == ALL - {"temperature", "top_k", "max_tokens"}, "what is nobody's wish"
    assert isinstance(request.unsaid, frozenset), "as it is declared: it may go to another process"


def test_what_a_request_says_wins() -> None:
    said = Sampling(temperature=1.0, max_tokens=5)
    request = completed(ChatRequest(HELLO, sampling=said, unsaid=ALL - {"temperature", "max_tokens"}), SETTINGS)
    assert request.sampling == Sampling(temperature=1.0, top_k=40, max_tokens=5)
    own = (Message("system", ""), *HELLO)
    assert completed(ChatRequest(own), SETTINGS).messages == own


def test_a_plain_text_gets_no_system_prompt() -> None:
    request = completed(ChatRequest(prompts=("Once",), unsaid=ALL), SETTINGS)
    assert (request.messages, request.sampling.temperature) == ((), 0.3)


def test_without_defaults_a_request_stays_as_it_is() -> None:
    request = ChatRequest(HELLO, sampling=Sampling(seed=1), unsaid=ALL)
    assert completed(request, {}) == request
