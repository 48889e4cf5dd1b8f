"""What comes from a server is read without trust; tests/engines/test_remote_engine.py asks over real HTTP."""

import pytest

from millm.engines.base import Usage
from millm.engines.relay import CallPart, Piece
from millm.engines.remote_wire import pieces, usage_of


def one(**choice: object) -> Piece:
    (piece,) = pieces({"choices": [choice]})
    return piece


@pytest.mark.parametrize(
    ("reason", "read"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("function_call", "tool_calls")]
    + [("content_filter", "stop"), ("eos", "stop"), (None, ""), ("", ""), (7, "")],
)
def test_why_an_answer_ended(reason: object, read: str) -> None:
    assert one(finish_reason=reason).reason == read


@pytest.mark.parametrize(
    "chunk",
    [
        {},
        {"choices": None},
        {"choices": 7},
        {"choices": [None, "x", []]},
        {"choices": [], "usage": None},
        {"choices": [], "usage": []},
    ],
)
def test_chunks_without_an_answer(chunk: dict[str, object]) -> None:
    assert list(pieces(chunk)) == []
    assert usage_of(chunk) is None


def test_parts_of_another_type_count_as_missing() -> None:
    assert one(index=None, delta={"content": 5, "tool_calls": "x", "reasoning": {}}, logprobs=[1]) == Piece()
    assert one(delta=None, text="plain") == Piece("plain")
    odd = {"tool_calls": [{"function": {"name": "add", "arguments": {}}}, {"index": "1", "function": None}]}
    assert one(delta=odd).calls == (CallPart(0, name="add"), CallPart(1))
    told = {"content": [{"token": "a", "logprob": None}, {"token": 5, "logprob": 1}, {"token": "b", "logprob": -1}]}
    assert [(chance.text, chance.raw) for chance in one(logprobs=told).chances] == [("b", b"b")]
    told = {
        "content": [{"token": "\ufffd", "logprob": -1, "bytes": [226]}, {"token": "c", "logprob": 0, "bytes": [999]}]
    }
    assert [chance.raw for chance in one(logprobs=told).chances] == [b"\xe2", b"c"]
    plain = {"tokens": ["a", "b"], "token_logprobs": [None, -2], "top_logprobs": [None, {"b": -2, "c": "x"}]}
    (chance,) = one(logprobs=plain).chances
    assert (chance.text, [other.text for other in chance.others]) == ("b", ["b"])


def test_counts_that_are_none() -> None:
    told = {"prompt_tokens": 3, "completion_tokens": -1, "prompt_tokens_details": None}
    assert usage_of({"usage": told}) == Usage(3, 0, 0)
