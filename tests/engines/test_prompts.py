"""Prompts come out in the model's own format, or with a sentence that says why not."""

import sys
from typing import Any

import pytest
import tiny_models

from millm.engines import prompts
from millm.engines.base import ChatRequest, Message
from millm.engines.prompts import fold_system, prompt_tokens
from millm.errors import InvalidRequest

TALK = (Message("system", "Be brief."), Message("user", "What is a list?"))
NO_SYSTEM = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ raise_exception('no system turns here') }}{% endif %}"
    "<{{ message.role }}>{{ message.content }}"
    "{% endfor %}"
)


@pytest.fixture
def tokenizer() -> Any:
    """A copy that a test may change."""
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tiny_models.train())
    tokenizer.chat_template = tiny_models.TEMPLATE
    return tokenizer


def shown(tokenizer: Any, *messages: Message) -> str:
    return tokenizer.decode(prompt_tokens(tokenizer, ChatRequest(messages=messages))[0])


@pytest.mark.slow
def test_a_conversation_is_written_by_the_template(tokenizer: Any) -> None:
    assert shown(tokenizer, *TALK) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhat is a list?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    turn = prompt_tokens(tokenizer, ChatRequest(messages=TALK))[0][0]
    assert turn == tokenizer.convert_tokens_to_ids("<|im_start|>"), "control tokens must be single tokens"


@pytest.mark.slow
def test_a_text_stays_as_it_is(tokenizer: Any) -> None:
    assert prompt_tokens(tokenizer, ChatRequest(prompts=("A list is",))) == [tokenizer("A list is")["input_ids"]]


@pytest.mark.slow
def test_system_text_moves_into_the_user_turn_where_the_template_refuses_it(tokenizer: Any) -> None:
    tokenizer.chat_template = NO_SYSTEM
    assert shown(tokenizer, *TALK) == "<user>Be brief.\n\nWhat is a list?"
    assert shown(tokenizer, *TALK[1:]) == "<user>What is a list?"


@pytest.mark.slow
@pytest.mark.parametrize(
    "template", ["{{ raise_exception('turns must alternate') }}", "{{ 1 + 'turns must' }}", "{% x"]
)
def test_a_template_that_refuses_says_why(tokenizer: Any, template: str) -> None:
    tokenizer.chat_template = template
    with pytest.raises(InvalidRequest, match=r"chat template refuses this conversation: \w+"):
        shown(tokenizer, *TALK)


@pytest.mark.slow
def test_a_template_that_runs_for_ever_is_stopped(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "TEMPLATE_S", 0.2)
    loop = "{% for n in range(90000) %}"
    tokenizer.chat_template = loop * 3 + "{{ n }}" + "{% endfor %}" * 3
    before = sys.gettrace()
    with pytest.raises(InvalidRequest, match=r"takes more than 0\.2 seconds"):
        prompt_tokens(tokenizer, ChatRequest(messages=TALK))
    assert sys.gettrace() is before


@pytest.mark.slow
def test_without_a_template_only_texts_can_be_continued(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(InvalidRequest, match=r"no chat template.*/v1/completions"):
        shown(tokenizer, *TALK)
    assert prompt_tokens(tokenizer, ChatRequest(prompts=("A list is",)))


@pytest.mark.slow
def test_nothing_to_answer_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InvalidRequest, match="^The conversation is empty"):
        prompt_tokens(tokenizer, ChatRequest())
    with pytest.raises(InvalidRequest, match="^The prompt is empty"):
        prompt_tokens(tokenizer, ChatRequest(prompts=("",)))


def test_folding_keeps_order_and_finds_the_first_user_turn() -> None:
    turns = (Message("assistant", "hi"), Message("system", "a"), Message("user", "q"), Message("system", "b"))
    assert fold_system(turns) == (Message("assistant", "hi"), Message("user", "a\n\nb\n\nq"))
    assert fold_system((Message("system", "a"),)) == (Message("user", "a"),)
    assert fold_system((Message("user", "q"),)) == (Message("user", "q"),)
