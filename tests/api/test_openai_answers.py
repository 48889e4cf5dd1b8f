"""Several answers to a request, how likely their tokens were, repeated prompts, and what all of it counts."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import openai
import pytest
from asking import HELLO, Make, chat, chunks, complete, holding
from fakes import FakeEngine
from fastapi.testclient import TestClient
from openai.types import Completion as Text
from openai.types.chat import ChatCompletionChunk

from millm.engines.base import ChatRequest, Completion
from millm.errors import InsufficientMemory
from millm.events import Chance, Event, Report, Stage

COUNTED: Any = {"include_usage": True}
TURNED = ["hello big world", "big world hello", "world hello big"]


def said(pieces: Iterable[ChatCompletionChunk | Text]) -> dict[int, str]:
    """What the pieces of a stream say, answer by answer."""
    texts: dict[int, str] = {}
    for piece in pieces:
        for choice in piece.choices:
            text = choice.text if isinstance(piece, Text) else choice.delta.content
            texts[choice.index] = texts.get(choice.index, "") + (text or "")
    return texts


def ends(pieces: Iterable[ChatCompletionChunk | Text]) -> list[tuple[int, str]]:
    """Which answers ended, and why, in the order in which a stream tells it."""
    choices = [choice for piece in pieces for choice in piece.choices]
    return [(choice.index, choice.finish_reason) for choice in choices if choice.finish_reason]


# several answers


@pytest.mark.slow
def test_several_answers_come_whole(program: openai.OpenAI) -> None:
    answer = program.chat.completions.create(model="tiny", messages=HELLO, n=3)
    assert [choice.message.content for choice in answer.choices] == TURNED
    assert [(choice.index, choice.finish_reason) for choice in answer.choices] == [
        (0, "stop"),
        (1, "stop"),
        (2, "stop"),
    ]
    assert {choice.message.role for choice in answer.choices} == {"assistant"}


@pytest.mark.slow
def test_several_answers_come_side_by_side(program: openai.OpenAI) -> None:
    got = list(program.chat.completions.create(model="tiny", messages=HELLO, n=3, stream=True))
    assert [(piece.choices[0].index, piece.choices[0].delta.role) for piece in got[:4]] == [
        (0, "assistant"),
        (1, "assistant"),
        (2, "assistant"),
        (0, None),
    ]
    assert said(got) == dict(enumerate(TURNED))
    assert [piece.choices[0].index for piece in got[3:6]] == [0, 1, 2]
    assert ends(got) == [(0, "stop"), (1, "stop"), (2, "stop")]


@pytest.mark.slow
def test_the_clients_own_reader_of_streams_puts_several_answers_together(program: openai.OpenAI) -> None:
    wish: Any = {"model": "tiny", "messages": HELLO, "n": 2, "logprobs": True}
    with program.chat.completions.stream(**wish) as stream:
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == TURNED[:2]
    for choice, text in zip(final.choices, TURNED, strict=False):
        assert choice.logprobs
        assert choice.logprobs.content
        assert "".join(token.token for token in choice.logprobs.content) == text


PROMPTS = ["a b c", "d"]
ANSWERS = [("a b", "length"), ("b c", "length"), ("d", "stop"), ("d", "stop")]


@pytest.mark.slow
def test_all_answers_to_the_first_prompt_come_first(program: openai.OpenAI) -> None:
    choices = program.completions.create(model="tiny", prompt=PROMPTS, n=2, max_tokens=2, logprobs=0).choices
    assert [(choice.text, choice.finish_reason) for choice in choices] == ANSWERS
    assert [choice.index for choice in choices] == [0, 1, 2, 3]
    assert ["".join(choice.logprobs.tokens or []) for choice in choices if choice.logprobs] == [
        text for text, _ in ANSWERS
    ]


@pytest.mark.slow
def test_streamed_answers_to_several_prompts_have_the_same_numbers(program: openai.OpenAI) -> None:
    got = list(program.completions.create(model="tiny", prompt=PROMPTS, n=2, max_tokens=2, stream=True))
    assert said(got) == {index: text for index, (text, _) in enumerate(ANSWERS)}
    assert ends(got) == [(index, reason) for index, (_, reason) in enumerate(ANSWERS)]


class Breaking(FakeEngine):
    """Says all of its first answer and a word of the second, and fails."""

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        for index, word in ((0, "whole"), (1, "half")):
            report(Event(Stage.GENERATING, text=word, tokens=1, index=index))
        raise InsufficientMemory("No room for the second one.")


def test_a_request_fails_with_any_of_its_answers(make: Make) -> None:
    _, client = holding(make, Breaking())
    answer = chat(client, n=2)
    assert answer.status_code == 507
    assert list(answer.json()) == ["error"]
    *frames, last = chunks(chat(client, n=2, stream=True).text)
    assert last["error"]["message"] == "No room for the second one."
    assert [frame["choices"][0]["delta"].get("content") for frame in frames] == ["", "", "whole", "half"]
    assert {frame["choices"][0]["finish_reason"] for frame in frames} == {None}


# counts


@pytest.mark.slow
def test_a_prompt_with_several_answers_is_counted_once(program: openai.OpenAI) -> None:
    usage = program.chat.completions.create(model="tiny", messages=HELLO, n=3).usage
    assert usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 9, 12)
    usage = program.completions.create(model="tiny", prompt=PROMPTS, n=2).usage
    assert usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 8, 12)
    *_, last = program.completions.create(
        model="tiny", prompt=PROMPTS, n=2, max_tokens=2, stream=True, stream_options=COUNTED
    )
    assert last.usage
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (4, 6, 10)


class Remembering(FakeEngine):
    """Had read one token of the first answer's prompt before, two of the second one's, and so on."""

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        whole = super().chat(request, report)
        known = (replace(answer, cached_tokens=place) for place, answer in enumerate((whole, *whole.others), 1))
        first, *others = known
        return replace(first, others=tuple(others))


@pytest.mark.parametrize(("wish", "cached"), [({}, 1), ({"n": 3}, 1), ({"prompt": PROMPTS, "n": 2}, 1 + 3)], ids=str)
def test_tokens_that_were_read_before_are_told(make: Make, wish: dict[str, Any], cached: int) -> None:
    _, client = holding(make, Remembering())
    details = {"cached_tokens": cached}
    assert complete(client, **wish).json()["usage"]["prompt_tokens_details"] == details
    *_, last, _ = chunks(complete(client, **wish, stream=True, stream_options=COUNTED).text)
    assert last["usage"]["prompt_tokens_details"] == details


# how likely tokens were


@pytest.mark.slow
def test_a_chat_tells_how_likely_its_tokens_were(program: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "é b"}]
    answer = program.chat.completions.create(model="tiny", messages=messages, logprobs=True, top_logprobs=2)
    assert answer.choices[0].logprobs
    tokens = answer.choices[0].logprobs.content
    assert tokens
    assert [(token.token, token.bytes, token.logprob) for token in tokens] == [
        ("é", [0xC3, 0xA9], -0.5),
        (" b", [0x20, 0x62], -0.5),
    ]
    assert [(other.token, other.bytes, other.logprob) for other in tokens[0].top_logprobs] == [
        ("é0", [0xC3, 0xA9, 0x30], -1.0),
        ("é1", [0xC3, 0xA9, 0x31], -2.0),
    ]


@pytest.mark.slow
def test_a_streamed_chat_tells_it_token_by_token(program: openai.OpenAI) -> None:
    stream = program.chat.completions.create(model="tiny", messages=HELLO, logprobs=True, top_logprobs=1, stream=True)
    choices = [piece.choices[0] for piece in stream]
    told = [choice.logprobs.content or [] for choice in choices[1:-1] if choice.logprobs]
    assert [[(token.token, token.logprob, len(token.top_logprobs)) for token in tokens] for tokens in told] == [
        [("hello", -0.5, 1)],
        [(" big", -0.5, 1)],
        [(" world", -0.5, 1)],
    ]
    assert choices[0].logprobs is choices[-1].logprobs is None


@pytest.mark.parametrize(
    ("wish", "others"), [({}, []), ({"top_logprobs": 1}, [{"token": "a0", "logprob": -1.0, "bytes": [0x61, 0x30]}])]
)
def test_the_others_are_told_only_to_those_who_ask(
    loaded: TestClient, wish: dict[str, Any], others: list[dict[str, Any]]
) -> None:
    answer = chat(loaded, messages=[{"role": "user", "content": "a"}], logprobs=True, **wish)
    told = {"token": "a", "logprob": -0.5, "bytes": [0x61], "top_logprobs": others}
    assert answer.json()["choices"][0]["logprobs"] == {"content": [told], "refusal": None}


@pytest.mark.slow
def test_a_completion_tells_it_in_four_lists(program: openai.OpenAI) -> None:
    told = program.completions.create(model="tiny", prompt="é bc d", logprobs=2).choices[0].logprobs
    assert told
    assert told.tokens == ["é", " bc", " d"]
    assert told.token_logprobs == [-0.5, -0.5, -0.5]
    assert told.top_logprobs == [
        {"é0": -1.0, "é1": -2.0},
        {" bc0": -1.0, " bc1": -2.0},
        {" d0": -1.0, " d1": -2.0},
    ]
    assert told.text_offset == [0, 1, 4]


@pytest.mark.slow
def test_a_streamed_completion_tells_it_for_every_answer(program: openai.OpenAI) -> None:
    stream = program.completions.create(model="tiny", prompt="a b", n=2, logprobs=0, stream=True)
    choices = [piece.choices[0] for piece in stream]
    told = [(choice.index, choice.logprobs.tokens) for choice in choices if choice.logprobs]
    assert told == [(0, ["a"]), (1, ["b"]), (0, [" b"]), (1, [" a"])]


@pytest.mark.parametrize("ask", [chat, complete])
def test_nothing_is_told_where_nobody_asked(loaded: TestClient, ask: Callable[..., Any]) -> None:
    assert ask(loaded).json()["choices"][0]["logprobs"] is None
    frames = chunks(ask(loaded, stream=True).text)[:-1]
    assert [frame["choices"][0]["logprobs"] for frame in frames] == [None] * len(frames)


class Halving(FakeEngine):
    """Says a character in two tokens; only the second one brings text."""

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        first, second = Chance("�", b"\xc3", -0.1), Chance("�", b"\xa9", -0.2)
        report(Event(Stage.GENERATING, tokens=1, chances=(first,)))
        report(Event(Stage.GENERATING, tokens=2, chances=(second,), text="é"))
        return Completion("é", "stop", 1, 2, 0.01, 100.0, (first, second))


def test_a_token_without_a_text_of_its_own_is_told_at_once(make: Make) -> None:
    _, client = holding(make, Halving())
    frames = chunks(chat(client, logprobs=True, stream=True).text)
    choices = [frame["choices"][0] for frame in frames[1:3]]
    assert [choice["delta"] for choice in choices] == [{}, {"content": "é"}]
    assert [choice["logprobs"]["content"][0]["bytes"] for choice in choices] == [[0xC3], [0xA9]]


# repeated prompts, and prompts in numbers


@pytest.mark.slow
def test_each_answer_can_begin_with_its_prompt(program: openai.OpenAI) -> None:
    wish: Any = {"model": "tiny", "prompt": ["a b", "c"], "n": 2, "echo": True}
    texts = ["a ba b", "a bb a", "cc", "cc"]
    assert [choice.text for choice in program.completions.create(**wish).choices] == texts
    pieces = list(program.completions.create(**wish, stream=True))
    assert [piece.choices[0].text for piece in pieces[:4]] == ["a b", "a b", "c", "c"]
    assert said(pieces) == dict(enumerate(texts))


@pytest.mark.slow
def test_a_repeated_prompt_counts_as_read_and_not_as_said(program: openai.OpenAI) -> None:
    usage = program.completions.create(model="tiny", prompt="a b", echo=True, max_tokens=1).usage
    assert usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (2, 1)


@pytest.mark.slow
def test_the_client_may_send_prompts_in_numbers(program: openai.OpenAI) -> None:
    answer = program.completions.create(model="tiny", prompt=[[5, 0], [7]])
    assert [choice.text for choice in answer.choices] == ["(5, 0)", "(7,)"]
    assert program.completions.create(model="tiny", prompt=[5, 0]).choices[0].text == "(5, 0)"
