from dataclasses import replace

import pytest

from millm import errors
from millm.engines.base import Usage
from millm.engines.relay import Answers, CallPart, Piece, refusal
from millm.events import Call, Event, Stage


def collected(*pieces: Piece, parsed: bool = True, usage: Usage | None = None) -> tuple[Answers, list[Event]]:
    events: list[Event] = []
    answers = Answers(events.append, parsed)
    for piece in pieces:
        answers.hear(piece)
    return answers, events


def test_the_counts_of_the_server_are_told_once() -> None:
    pieces = [Piece("a"), Piece("b", index=1), Piece("c", index=1), *(Piece(index=i, reason="stop") for i in (0, 1))]
    answers, _ = collected(*pieces)
    whole = answers.completion(Usage(7, 2, 9))
    assert [answer.completion_tokens for answer in (whole, *whole.others)] == [7, 2]
    assert whole.usage(2) == Usage(7, 2, 9)
    assert answers.completion(None).usage(2) == Usage(0, 0, 3)


def test_calls_are_reported_when_they_are_whole_and_get_an_id() -> None:
    parts = (CallPart(0, name="add", arguments='{"a"'), CallPart(0, arguments=": 1}"))
    answers, events = collected(*(Piece(calls=(part,)) for part in parts), Piece(reason="stop"))
    whole = answers.completion(None)
    assert (whole.finish_reason, len(whole.calls)) == ("tool_calls", 1)
    assert replace(whole.calls[0], id="") == Call("", "add", '{"a": 1}')
    assert whole.calls[0].id.startswith("call_")
    assert [event.calls for event in events] == [(), (), whole.calls]


def test_a_piece_that_says_nothing_is_reported_so_that_a_cancel_is_heard() -> None:
    _, events = collected(Piece(), Piece("a"), Piece(reason="stop"))
    assert [(event.stage, event.tokens) for event in events] == [
        (Stage.READING_PROMPT, 0),
        (Stage.GENERATING, 1),
        (Stage.GENERATING, 1),
    ]


def test_an_answer_cut_short_in_a_call_says_length() -> None:
    answers, _ = collected(Piece(calls=(CallPart(0, "c", "add", "{"),)), Piece(reason="length"))
    assert answers.completion(None).finish_reason == "length"


def test_what_has_ended_and_what_goes_on() -> None:
    answers, _ = collected(Piece("a"), Piece("b", index=1, reason="stop"))
    assert (answers.begun, answers.ended, answers.going) == (True, 1, 1)
    assert not collected(Piece())[0].begun


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (400, "the prompt exceeds the context window", errors.ContextLengthExceeded),
        (400, "bad", errors.InvalidRequest),
        (404, "gone", errors.ModelNotFound),
        (429, "later", errors.QueueFull),
        (500, "the context length is fine", errors.OllamaUnavailable),
    ],
)
def test_what_a_refusal_means(status: int, said: str, kind: type[errors.MiLLMError]) -> None:
    error = refusal("Ollama", "m", status, said, errors.OllamaUnavailable, "Get it again.", "input")
    assert type(error) is kind
