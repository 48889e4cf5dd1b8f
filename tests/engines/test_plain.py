"""What crosses to another process: as JSON and back, nothing is lost."""

import json
from array import array
from pathlib import Path
from typing import Any

import pytest

from millm.engines.base import (
    ChatRequest,
    Completion,
    Embeddings,
    EmbedRequest,
    LoadOptions,
    Message,
    Sampling,
)
from millm.engines.plain import plain, plain_error, restored, restored_error
from millm.errors import InsufficientDisk, InternalError, LoadFailed, MiLLMError, QueueFull
from millm.events import Call, Chance, Event, Stage

CALL = Call("call_1", "look", '{"at": "it"}')
CHANCE = Chance("ü", b"\xc3", -0.5, (Chance("u", b"u", -1.5),))
SAMPLING = Sampling(0.0, 0.5, 3, 7, ("a", "b"), 1, True, 0.1, 1.0, -1.0, 1.2, ((3, -100.0),), 2, 3)
OTHER = Completion("y", "length", 1, 2, 0.1, 9.0)
VALUES = {
    "chat": ChatRequest((Message("assistant", "x", (CALL,), "1"), Message("user", "ü")), sampling=SAMPLING),
    "prompts": ChatRequest(prompts=("text", (1, 2)), unsaid=frozenset({"top_p"}), schema='{"type": "object"}'),
    "tools": ChatRequest(tools=({"function": {"name": "look", "tags": ["a"]}},), tool_choice="look", parallel=False),
    "event": Event(Stage.GENERATING, eta=1.5, text="x", tokens=3, index=1, chances=(CHANCE,), calls=(CALL,)),
    "answer": Completion("x", "stop", 1, 2, 0.1, 9.0, (CHANCE,), (OTHER,), 1, "r"),
    "texts": EmbedRequest(("text", (1, 2)), 4),
    "vectors": Embeddings((array("f", [0.1, -2.5]), array("f", [1e-30, 3.0])), 7),
    "options": LoadOptions(Path("/models/x"), 2048, Path("/adapter"), None, False),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_comes_back_as_it_was(name: str) -> None:
    value: Any = VALUES[name]
    assert restored(type(value), json.loads(json.dumps(plain(value)))) == value


def test_what_is_at_its_default_is_not_sent() -> None:
    assert plain(Event(Stage.GENERATING, text="x")) == {"stage": "generating", "text": "x"}


@pytest.mark.parametrize("value", [{"stage": "unheard"}, {"nothing": 1}, {}], ids=str)
def test_what_is_no_such_value_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        restored(Event, value)


@pytest.mark.parametrize(
    "error", [LoadFailed("no", architecture="x"), QueueFull("full"), InsufficientDisk(5, 3)], ids=lambda e: e.code
)
def test_an_error_comes_back_as_its_own_kind(error: MiLLMError) -> None:
    found = restored_error(json.loads(json.dumps(plain_error(error))))
    assert (type(found), found.message, found.details) == (type(error), error.message, error.details)


def test_details_that_are_not_plain_stay_behind() -> None:
    assert plain_error(LoadFailed("no", path=Path("/x"), bytes=3))["details"] == {"bytes": 3}


def test_an_error_of_another_version_is_still_an_error() -> None:
    assert isinstance(restored_error({"code": "NEW", "message": "no", "details": {}}), InternalError)
