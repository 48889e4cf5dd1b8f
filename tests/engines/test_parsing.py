"""Reasoning, text and calls are told apart alike wherever pieces are cut, and what is no call stays as written."""

import functools
import json
from collections.abc import Sequence
from typing import Any

import pytest
import tiny_models
import transformers

from millm.engines.base import ChatRequest, Message
from millm.engines.parsing import Forced, Marked, Parser, Plain, forced_schema, parser_for
from millm.errors import InvalidRequest

pytestmark = pytest.mark.slow

THINKING = "{# <think> #}"
JSON_MARKS = "{# <think> tools <tool_call> #}"
TAGS = "{# <think> tools <tool_call><function=name><parameter=key> #}"
OWN = {
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "thinking": {"open": "[[", "close": "]]", "content": "text"},
        "tool_calls": {"open_pattern": r"@(?P<name>\w+)", "close": ";", "repeats": True, "content": "json"}
        | {"transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}},
        "content": {"content": "text"},
    },
}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS = (
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}},
)
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln", "days": 2}}\n</tool_call>'
CLOCK = '<tool_call>{"name": "time"}</tool_call>'
TAGGED = (
    "<tool_call>\n<function=weather>\n<parameter=city>\nKöln\n</parameter>\n<parameter=days>\n2\n</parameter>\n"
    "</function>\n</tool_call>"
)
CALLED = ("weather", {"city": "Köln", "days": 2})

Told = tuple[str, str, list[tuple[str, Any]]]


@functools.cache
def tokenizer() -> Any:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tiny_models.train())


def parser(template: str, prompt: str = "", own: Any = None, **asked: Any) -> Parser:
    tokenizer().chat_template = tiny_models.TEMPLATE + template
    tokenizer().response_template = own
    request = ChatRequest((Message("user", "Hello"),), **{"parsed": True, "tools": TOOLS, **asked})
    return parser_for(tokenizer(), request, tokenizer()(f"<|im_start|>assistant\n{prompt}")["input_ids"])


def told(parser: Parser, pieces: Sequence[str]) -> Told:
    parts = [*(parser.push(piece) for piece in pieces), parser.flush()]
    calls = [(call.name, json.loads(call.arguments)) for part in parts for call in part.calls]
    return "".join(part.text for part in parts), "".join(part.reasoning for part in parts), calls


def everywhere(said: str, template: str, **asked: Any) -> Told:
    """What is told of an answer, after making sure that it is the same in pieces of every size."""
    whole = told(parser(template, **asked), [said])
    for size in range(1, len(said)):
        pieces = [said[at : at + size] for at in range(0, len(said), size)]
        assert told(parser(template, **asked), pieces) == whole, size
    return whole


@pytest.mark.parametrize(
    ("said", "prompt", "text", "reasoning"),
    [
        ("<think>It is 4.</think>\n\nFour < five.", "", "Four < five.", "It is 4."),
        ("It is 4.</think>\n\nFour.", "<think>\n", "Four.", "It is 4."),
        ("It is 4.</think>Four.", "<think>", "Four.", "It is 4."),
        ("Four.", "<think>\n\n</think>\n\n", "Four.", ""),
        ("Four.\n\nOr five.\n", "", "Four.\n\nOr five.\n", ""),
        ("<think>cut in the mid", "", "", "cut in the mid"),
        ("<think>a < b </thin", "", "", "a < b </thin"),
        ("<think></think>", "", "", ""),
        ("", "", "", ""),
        ("Say <thin", "", "Say <thin", ""),
    ],
    ids=str,
)
def test_reasoning_is_told_from_the_answer(said: str, prompt: str, text: str, reasoning: str) -> None:
    assert everywhere(said, THINKING, prompt=prompt) == (text, reasoning, [])


def test_reasoning_is_told_as_it_comes() -> None:
    asked = parser(THINKING, "<think>\n")
    assert [asked.push(piece).reasoning for piece in ("It", " is", "</thi", "nk>4")] == ["It", " is", "", ""]


@pytest.mark.parametrize(("template", "call"), [(JSON_MARKS, CALL), (TAGS, TAGGED)], ids=["json", "tagged"])
@pytest.mark.parametrize(
    ("said", "text", "reasoning", "calls"),
    [
        ("{}", "", "", 1),
        ("<think>Look.</think>\n\n{}", "", "Look.", 1),
        ("I will look.\n{}", "I will look.", "", 1),
        ("<think>Look.</think>Now:\n{}\n{}", "Now:", "Look.", 2),
        ("{}{}{}\n", "", "", 3),
        ("I < you <tool <tool_cal{}", "I < you <tool <tool_cal", "", 1),
    ],
    ids=str,
)
def test_calls_are_told_from_the_text(
    template: str, call: str, said: str, text: str, reasoning: str, calls: int
) -> None:
    assert everywhere(said.replace("{}", call), template) == (text, reasoning, [CALLED] * calls)


def test_calls_of_several_functions_have_names_of_their_own() -> None:
    parts = parser(JSON_MARKS).push(CALL + CLOCK)
    assert [call.name for call in parts.calls] == ["weather", "time"]
    assert len({call.id for call in parts.calls}) == 2
    assert parts.calls[1].arguments == "{}"
    assert everywhere(f"{CALL}\n{CLOCK}", JSON_MARKS)[2] == [CALLED, ("time", {})]


def test_a_call_whose_last_mark_is_missing_is_one_if_its_json_is_whole() -> None:
    assert everywhere(CALL.removesuffix("</tool_call>"), JSON_MARKS) == ("", "", [CALLED])


def test_arguments_may_be_json_in_a_string() -> None:
    said = '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Köln\\", \\"days\\": 2}"}</tool_call>'
    assert everywhere(said, JSON_MARKS)[2] == [CALLED]


@pytest.mark.parametrize(("template", "call"), [(JSON_MARKS, CALL), (TAGS, TAGGED)], ids=["json", "tagged"])
def test_without_parallel_calls_only_the_first_one_counts(template: str, call: str) -> None:
    assert everywhere(f"Two:\n{call}\n{call}", template, parallel=False) == ("Two:", "", [CALLED])


@pytest.mark.parametrize(
    "wrong",
    [
        '<tool_call>{"name": "weather", "arguments": {"city"</tool_call> and more',
        "<tool_call>weather(Köln)</tool_call>",
        '<tool_call>{"arguments": {}}</tool_call>.',
        "<tool_call>[1, 2]</tool_call>\n",
        '<tool_call>{"name": "weather", "arguments": [1]}</tool_call>',
        '<tool_call>{"name": "weather", "arguments": "Köln"}</tool_call>',
        '<tool_call>{"name": 7}</tool_call>',
        "<tool_call>",
        "\n <tool_call>\n",
        '<tool_call>{"name": "weather", "arguments": {"city": "Kö',
        "<tool_call></tool_call><tool_call>",
    ],
    ids=str,
)
@pytest.mark.parametrize("before", ["", "Now:\n\n", "<think>Hm.</think>Now: <"])
def test_what_is_no_call_is_text_to_the_last_character(wrong: str, before: str) -> None:
    thought = "Hm." if "Hm." in before else ""
    assert everywhere(before + wrong, JSON_MARKS) == (before.split("</think>")[-1] + wrong, thought, [])


def test_what_came_before_a_wrong_call_stays_as_it_was_told() -> None:
    wrong = "\n<tool_call>{]</tool_call> over"
    assert everywhere(f"<think>Hm.</think>Now:{CALL}{wrong}", JSON_MARKS) == (f"Now:{wrong}", "Hm.", [CALLED])


@pytest.mark.parametrize("length", range(len("<tool_call>\n<function=weather>"), len(TAGGED)))
def test_a_tagged_call_that_was_cut_is_text(length: int) -> None:
    assert told(parser(TAGS), TAGGED[:length]) == (TAGGED[:length], "", [])


@pytest.mark.parametrize("asked", [{"tools": ()}, {"tool_choice": "none"}], ids=str)
@pytest.mark.parametrize(("template", "call"), [(JSON_MARKS, CALL), (TAGS, TAGGED)], ids=["json", "tagged"])
def test_nothing_is_called_where_no_tool_may_be(template: str, call: str, asked: dict[str, Any]) -> None:
    assert everywhere(f"<think>Hm.</think>{call}", template, **asked) == (call, "Hm.", [])


def test_a_template_of_the_tokenizers_own_wins() -> None:
    said = '[[Hm.]]Look: @weather{"city": "Köln", "days": 2};<think>'
    assert everywhere(said, JSON_MARKS, own=OWN) == ("Look: <think>", "Hm.", [CALLED])
    assert everywhere("Hm.]]Four.", JSON_MARKS, own=OWN, prompt="[[") == ("Four.", "Hm.", [])
    assert everywhere("a @weather{;b", JSON_MARKS, own=OWN) == ("a @weather{;b", "", [])


def test_a_template_of_the_tokenizers_own_that_is_wrong_is_none() -> None:
    assert isinstance(parser(JSON_MARKS, own={"fields": OWN["fields"]}), Plain)


@pytest.mark.parametrize(
    ("template", "asked"),
    [("", {}), (JSON_MARKS, {"parsed": False}), ("{# <tool_call> #}", {"tools": ()})],
    ids=str,
)
def test_where_nothing_is_marked_or_asked_for_all_is_text(template: str, asked: dict[str, Any]) -> None:
    assert isinstance(parser(template, **asked), Plain)
    said = f"<think>Hm.</think>{CALL}"
    assert everywhere(said, template, **asked) == (said, "", [])
    assert isinstance(parser(JSON_MARKS), Marked)


def test_an_answer_that_follows_a_schema_is_no_reasoning_though_the_prompt_began_some() -> None:
    said = '{"tag": "<think>"}'
    assert everywhere(said, JSON_MARKS, prompt="<think>\n", schema='{"type": "object"}') == (said, "", [])


@pytest.mark.parametrize("choice", ["required", "weather"])
def test_a_forced_answer_is_its_call(choice: str) -> None:
    said = '{"name": "weather", "arguments": {"city": "Köln", "days": 2}}'
    assert isinstance(parser("", tool_choice=choice), Forced)
    assert everywhere(said, JSON_MARKS, tool_choice=choice) == ("", "", [CALLED])


@pytest.mark.parametrize("cut", ["", '{"name": "weather", "argu', "{"])
def test_a_forced_answer_that_was_cut_is_text(cut: str) -> None:
    assert everywhere(cut, JSON_MARKS, tool_choice="required") == (cut, "", [])


def test_only_the_named_tool_may_be_forced() -> None:
    def forced(choice: str) -> list[str]:
        schema = json.loads(forced_schema(ChatRequest(tools=TOOLS, tool_choice=choice)) or '{"anyOf": []}')
        return [one["properties"]["name"]["const"] for one in schema["anyOf"]]

    assert [forced(choice) for choice in ("auto", "none", "time", "required")] == [
        [],
        [],
        ["time"],
        ["weather", "time"],
    ]
    with pytest.raises(InvalidRequest, match="no tool 'sing'") as refused:
        forced("sing")
    assert refused.value.details["field"] == "tool_choice"


def test_references_inside_parameters_still_hold() -> None:
    parameters = {
        "type": "object",
        "properties": {"at": {"$ref": "#/$defs/Place"}, "again": {"$ref": "#"}},
        "$defs": {"Place": {"type": "string"}},
    }
    function = {"name": "go", "parameters": parameters}
    schema = json.loads(forced_schema(ChatRequest(tools=({"function": function},), tool_choice="go")) or "")
    arguments = schema["anyOf"][0]["properties"]["arguments"]
    place = "#/anyOf/0/properties/arguments"
    assert [arguments["properties"][name]["$ref"] for name in ("at", "again")] == [f"{place}/$defs/Place", place]
