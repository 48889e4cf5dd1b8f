"""What fits into the context is answered and what does not is refused; a row reports how far it is."""

from typing import Any

import pytest
import tiny_models

from millm.engines.base import ChatRequest, Message, Sampling
from millm.engines.parsing import Plain
from millm.engines.rows import LONGEST_TOKEN, Row, check_length, room
from millm.engines.sampling import Choice, Sampler
from millm.engines.text import AnswerText
from millm.errors import Cancelled, ContextLengthExceeded
from millm.events import Event, Stage

pytestmark = pytest.mark.slow

CONTEXT = 10
MOST = CONTEXT * LONGEST_TOKEN  # characters


@pytest.mark.parametrize(
    "request_of",
    [
        lambda length: ChatRequest(prompts=("x" * length,)),
        lambda length: ChatRequest(prompts=("short", "x" * length, "x" * (length - 1))),
        lambda length: ChatRequest(messages=(Message("system", "x" * 50), Message("user", "x" * (length - 50)))),
    ],
    ids=["prompt", "the longest of several", "all turns together"],
)
def test_a_prompt_with_too_many_characters_is_refused_unread(request_of: Any) -> None:
    check_length(request_of(MOST), CONTEXT)
    with pytest.raises(
        ContextLengthExceeded, match=rf"is 10 tokens, but the prompt has {MOST + 1} characters"
    ) as caught:
        check_length(request_of(MOST + 1), CONTEXT)
    assert caught.value.details == {"context_length": CONTEXT, "characters": MOST + 1}


@pytest.mark.parametrize(
    ("prompt", "asked", "clip", "given"),
    [
        (4, None, False, 6),
        (9, None, False, 1),
        (4, 6, False, 6),
        (4, 3, True, 3),
        (4, 7, True, 6),
        (9, 1000, True, 1),
    ],
)
def test_room_is_what_was_asked_for_or_what_is_left(prompt: int, asked: int | None, clip: bool, given: int) -> None:
    assert room(prompt, CONTEXT, Sampling(max_tokens=asked, clip=clip)) == given


@pytest.mark.parametrize(
    ("prompt", "asked", "clip"), [(10, None, False), (4, 7, False), (10, 1, True), (11, 5, True)]
)
def test_without_room_a_prompt_is_refused(prompt: int, asked: int | None, clip: bool) -> None:
    with pytest.raises(ContextLengthExceeded, match=f"the prompt has {prompt} tokens") as caught:
        room(prompt, CONTEXT, Sampling(max_tokens=asked, clip=clip))
    assert caught.value.details["prompt_tokens"] == prompt


def row(events: list[Event], limit: int = 10, **sampling: Any) -> Row:
    asked = Sampling(**sampling)
    text = AnswerText(tiny_models.make_tokenizer(), asked.stop)
    return Row(list(range(20)), limit, Sampler(asked), text, Plain(), events.append)


def tokens(text: str) -> list[int]:
    found: list[int] = tiny_models.make_tokenizer()(text)["input_ids"]
    return found


def test_reading_tells_how_much_of_the_prompt_is_read() -> None:
    events: list[Event] = []
    answer = row(events)
    answer.reading()
    answer.begin(5, "a cache")
    answer.reading()
    assert answer.unread == list(range(5, 20))
    assert [(event.stage, event.progress) for event in events] == [
        (Stage.READING_PROMPT, 0),
        (Stage.READING_PROMPT, 25),
    ]


def test_a_finished_row_tells_what_was_said_and_how_much_was_known() -> None:
    events: list[Event] = []
    said = tokens("two words")
    answer = row(events, limit=len(said))
    answer.begin(16, "a cache")
    for token in said:
        assert not answer.done.done
        answer.accept(Choice(token), ends=False)
    completion = answer.done.result()
    assert (completion.text, completion.finish_reason) == ("two words", "length")
    assert (completion.prompt_tokens, completion.cached_tokens, completion.completion_tokens) == (20, 16, len(said))
    assert answer.length == 20 + len(said)
    assert "".join(event.text for event in events) == "two words"
    assert completion.chances == ()


def test_chances_are_told_for_every_token_but_the_one_that_ends_the_turn() -> None:
    events: list[Event] = []
    said, answer = tokens("two words"), row(events, logprobs=0)
    for place, token in enumerate([*said, 3]):
        answer.accept(Choice(token, -float(place)), ends=token == 3)
    completion = answer.done.result()
    assert completion.finish_reason == "stop"
    assert b"".join(chance.raw for chance in completion.chances) == b"two words"
    assert [chance.logprob for chance in completion.chances] == [-float(place) for place in range(len(said))]
    assert tuple(chance for event in events for chance in event.chances) == completion.chances


def test_a_row_that_nobody_wants_any_more_takes_no_token() -> None:
    answer = row([])
    answer.done.cancel()
    with pytest.raises(Cancelled):
        answer.accept(Choice(5), ends=False)
    with pytest.raises(Cancelled):
        answer.reading()
    assert answer.tokens == []
