"""Answers that must follow a schema follow it, however wild the model is, and disturb nobody beside them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from millm.engines.base import ChatRequest, Completion, Message, Sampling
from millm.engines.grammar import Grammars
from millm.engines.loop import DecodeEngine
from millm.errors import InvalidRequest
from millm.events import Event
from millm.jobs import Lane

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[2] / "models" / "millm-guide"
CONTEXT = 1000
ASK = "Tell me about a person and a place."

SCHEMAS: dict[str, dict[str, Any]] = {
    "nested": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "home": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "maxLength": 8},
                    "floor": {"type": "integer", "minimum": 0, "maximum": 9999},
                },
                "required": ["city", "floor"],
                "additionalProperties": False,
            },
        },
        "required": ["name", "home"],
        "additionalProperties": False,
    },
    "enum": {"enum": ["red", "green", 7, None, {"a": [1]}]},
    "array": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    "either": {
        "anyOf": [{"type": "string", "maxLength": 6}, {"type": "array", "items": {"const": 1}, "maxItems": 3}]
    },
    "numbers": {
        "type": "object",
        "properties": {
            "whole": {"type": "integer", "minimum": -5, "maximum": 120},
            "real": {"type": "number", "minimum": 0, "maximum": 2},
        },
        "required": ["whole", "real"],
        "additionalProperties": False,
    },
    "unicode": {
        "type": "object",
        "properties": {"größe": {"enum": ["klein", "groß", "巨大", "🙂"]}, "x": {"type": "string", "maxLength": 5}},
        "required": ["größe", "x"],
        "additionalProperties": False,
    },
    "pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"},
    "referred": {
        "type": "array",
        "items": {"$ref": "#/$defs/pair"},
        "minItems": 1,
        "maxItems": 2,
        "$defs": {"pair": {"type": "array", "items": {"type": "null"}, "maxItems": 2}},
    },
}
NAMED = SCHEMAS["nested"]
ENDLESS = {"type": "string", "minLength": 500}


def silent(event: Event) -> None:
    pass


def ask(schema: Any = None, text: str = ASK, **sampling: Any) -> ChatRequest:
    wish = Sampling(**{"max_tokens": 200, **sampling})
    return ChatRequest((Message("user", text),), sampling=wish, schema=None if schema is None else json.dumps(schema))


def engine_of(folder: Path) -> DecodeEngine:
    network = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return DecodeEngine(network, transformers.AutoTokenizer.from_pretrained(folder), CONTEXT)


@pytest.fixture(scope="module")
def guide() -> Iterator[DecodeEngine]:
    engine = engine_of(GUIDE)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def noise(tiny: Callable[..., Path]) -> Iterator[DecodeEngine]:
    """A model of random weights."""
    engine = engine_of(tiny("qwen3"))
    yield engine
    engine.close()


@pytest.fixture(params=["guide", "noise"])
def engine(request: pytest.FixtureRequest) -> DecodeEngine:
    found: DecodeEngine = request.getfixturevalue(request.param)
    return found


def all_of(answer: Completion) -> list[Completion]:
    return [answer, *answer.others]


def together(engine: DecodeEngine, requests: list[ChatRequest]) -> list[Completion | BaseException]:
    """Asks at the same time."""
    lane = Lane("together", len(requests))
    jobs = [lane.submit(lambda job, request=request: engine.chat(request, silent)) for request in requests]
    assert lane.idle(60)
    lane.close()
    return [job.error or job.result() for job in jobs]


@pytest.mark.parametrize("name", SCHEMAS)
def test_answers_drawn_wildly_always_follow_the_schema(engine: DecodeEngine, name: str) -> None:
    schema = SCHEMAS[name]
    for seed in (0, 100):
        answers = all_of(engine.chat(ask(schema, temperature=1.5, seed=seed, count=12), silent))
        for answer in answers:
            assert answer.finish_reason == "stop", answer.text
            jsonschema.validate(json.loads(answer.text), schema)
    assert name != "nested" or len({answer.text for answer in answers}) > 1


@pytest.mark.parametrize("name", SCHEMAS)
def test_greedy_answers_follow_it_and_end_by_themselves(engine: DecodeEngine, name: str) -> None:
    answer = engine.chat(ask(SCHEMAS[name], temperature=0), silent)
    assert answer.finish_reason == "stop"
    jsonschema.validate(json.loads(answer.text), SCHEMAS[name])


def test_penalties_and_biases_cannot_break_it(noise: DecodeEngine) -> None:
    forbidden = noise._admission._tokenizer.convert_tokens_to_ids(["{", "}", '"'])
    wild = {"frequency_penalty": 2.0, "repetition_penalty": 5.0, "logit_bias": tuple((t, -100.0) for t in forbidden)}
    answers = all_of(noise.chat(ask(NAMED, temperature=1.5, seed=1, count=8, **wild), silent))
    assert len(answers) == 8
    for answer in answers:
        jsonschema.validate(json.loads(answer.text), NAMED)


def test_an_answer_that_is_cut_says_so(engine: DecodeEngine) -> None:
    answer = engine.chat(ask(ENDLESS, temperature=1.5, seed=2, max_tokens=20), silent)
    assert (answer.finish_reason, answer.completion_tokens) == ("length", 20)
    assert answer.text.startswith('"')
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.text)


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "nothing"}',
        '{"type": "string", "pattern": "("}',
        '{"$ref": "#/$defs/absent"}',
        '{"type": "integer", "minimum": 5, "maximum": 4}',
        '{"type": "array", "minItems": 3, "maxItems": 2}',
        '{"not": {"type": "string"}}',
        "false",
        "[1]",
        "{",
    ],
)
def test_a_schema_that_cannot_be_followed_is_refused(noise: DecodeEngine, schema: str) -> None:
    with pytest.raises(InvalidRequest, match="JSON schema") as refused:
        noise.chat(ChatRequest((Message("user", ASK),), schema=schema), silent)
    assert refused.value.details["field"] == "response_format"


def test_parameters_of_a_tool_that_cannot_be_followed_are_refused_by_their_name(noise: DecodeEngine) -> None:
    function = {"name": "go", "parameters": {"type": "nothing"}}
    request = ChatRequest(prompts=("Go",), tools=({"type": "function", "function": function},), tool_choice="go")
    with pytest.raises(InvalidRequest) as refused:
        noise.chat(request, silent)
    assert refused.value.details["field"] == "tools"


def test_a_forced_call_with_references_follows_its_parameters(noise: DecodeEngine) -> None:
    place = {"type": "object", "properties": {"city": {"enum": ["Köln"]}}, "required": ["city"]}
    parameters = {
        "type": "object",
        "properties": {"to": {"$ref": "#/$defs/Place"}},
        "required": ["to"],
        "additionalProperties": False,
        "$defs": {"Place": {**place, "additionalProperties": False}},
    }
    function = {"name": "go", "parameters": parameters}
    request = ChatRequest(
        prompts=("Go",),
        sampling=Sampling(temperature=1.5, seed=3, max_tokens=100),
        tools=({"type": "function", "function": function},),
        tool_choice="required",
    )
    answer = noise.chat(request, silent)
    assert answer.finish_reason == "tool_calls"
    assert [(call.name, json.loads(call.arguments)) for call in answer.calls] == [("go", {"to": {"city": "Köln"}})]


@pytest.mark.parametrize(
    ("schema", "said", "ends"),
    [
        ({"type": "integer"}, "-12", [False, True, True]),
        ({"enum": ["a", "ab"]}, '"ab"', [False, False, False, True]),
        ({"type": "array", "items": {"const": 1}, "maxItems": 2}, "[1]", [False, False, True]),
    ],
    ids=str,
)
def test_it_may_end_only_where_it_is_complete(guide: DecodeEngine, schema: Any, said: str, ends: list[bool]) -> None:
    tokenizer = guide._admission._tokenizer
    grammar = Grammars(tokenizer, len(tokenizer), guide._endings).make(json.dumps(schema))
    found = []
    for character in said:
        grammar.accept(tokenizer.convert_tokens_to_ids(character))
        logits = torch.zeros(len(tokenizer))
        if not grammar.complete:
            grammar.restrict(logits)
        found.append(grammar.complete or bool(torch.isfinite(logits[list(guide._endings)]).any()))
    assert found == ends


def test_a_token_that_may_not_stand_there_is_an_error(guide: DecodeEngine) -> None:
    tokenizer = guide._admission._tokenizer
    grammar = Grammars(tokenizer, len(tokenizer), guide._endings).make('{"type": "integer"}')
    with pytest.raises(InvalidRequest, match="cannot follow") as refused:
        grammar.accept(tokenizer.convert_tokens_to_ids("a"))
    assert "\n" not in refused.value.message


def test_rows_with_different_grammars_do_not_change_each_other(engine: DecodeEngine) -> None:
    schemas = [NAMED, SCHEMAS["array"], None, SCHEMAS["unicode"]]
    requests = [ask(schema, temperature=1.5, seed=7, max_tokens=60) for schema in schemas]
    alone = [engine.chat(request, silent).text for request in requests]
    answers = together(engine, requests)
    assert [answer.text for answer in answers if isinstance(answer, Completion)] == alone
    for schema, text in zip(schemas, alone, strict=True):
        if schema:
            jsonschema.validate(json.loads(text), schema)


def few_letters() -> Any:
    """A tokenizer that knows no colon, so that no object with a name in it can be written."""
    known = ["<|pad|>", "<|end|>", "x", "<|turn|>", "{", "}", '"', "a", "b"]  # the network's turns end with 1 and 3
    vocabulary = {token: place for place, token in enumerate(known)}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>")


def test_a_grammar_that_leads_nowhere_ends_its_own_row_only(tiny: Callable[..., Path]) -> None:
    network = transformers.AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32).eval()
    engine = DecodeEngine(network, few_letters(), CONTEXT)
    stuck = {"type": "object", "properties": {"a": {"const": "a"}}, "required": ["a"], "additionalProperties": False}
    wish = Sampling(temperature=1.5, seed=5, max_tokens=30)
    requests = [
        ChatRequest(prompts=("ab",), sampling=wish, schema=schema and json.dumps(schema))
        for schema in ({"enum": ["aaabbb", "bbbaaa"]}, stuck, None)
    ]
    alone = [engine.chat(requests[place], silent).text for place in (0, 2)]
    first, lost, third = together(engine, requests)
    assert isinstance(lost, InvalidRequest), lost
    assert [answer.text for answer in (first, third) if isinstance(answer, Completion)] == alone
    assert json.loads(alone[0]) in ("aaabbb", "bbbaaa")
    engine.close()
