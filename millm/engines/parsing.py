"""What the parts of an answer are: the answer itself, the reasoning before it, calls of tools."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from transformers.utils.chat_parsing.response_parser import ResponseParser
from transformers.utils.chat_parsing.response_templates import load_response_template

from millm.engines.base import ChatRequest
from millm.errors import InvalidRequest
from millm.events import Call

CALLS = "tool_calls"
REASONING_FIELDS = {"reasoning_content", "thinking"}  # as templates on the hub call it
BROKEN = (ValueError, KeyError, TypeError)  # what the parser raises for what is marked wrongly
REASONING = {"open": "<think>", "close": "</think>", "content": "text"}
CALLED = {"type": "function", "function": "{content}"}
NAMED_CALL = {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}}
# For models whose chat template shows these marks but whose tokenizer has no `response_template`.
JSON_CALLS = {
    "open_pattern": r"\s*<tool_call>",
    "close": "</tool_call>",
    "repeats": True,
    "content": "json",
    "transform": CALLED,
}
TAGGED_CALLS = {
    "open_pattern": r"\s*<tool_call>\s*<function=(?P<name>[^>\n]+)>",
    "close_pattern": r"</function>\s*</tool_call>",
    "repeats": True,
    "content": "xml-inline",
    "content_args": {"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"},
    "transform": NAMED_CALL,
}
# The parser is told itself what the prompt began.
UNMARKED: dict[str, Any] = {"defaults": {"role": "assistant"}, "start_anchor_pattern": r"\A"}


@dataclass(frozen=True, slots=True)
class Part:
    """What a piece of text turned out to be."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()


class Parser(Protocol):
    """Takes the text of one answer piece by piece."""

    def push(self, text: str) -> Part:
        """What became certain with this piece."""
        ...

    def flush(self) -> Part:
        """The rest, at the end of the answer."""
        ...


class Plain:
    """All text is the answer."""

    def push(self, text: str) -> Part:
        """The piece as it is."""
        return Part(text)

    def flush(self) -> Part:
        """Nothing waits."""
        return Part()


@dataclass
class Forced:
    """The answer is one call as JSON, because its grammar allows nothing else."""

    text: str = ""

    def push(self, text: str) -> Part:
        """Waits for the end."""
        self.text += text
        return Part()

    def flush(self) -> Part:
        """The call; what was cut before its end is text."""
        try:
            return Part(calls=(_call(json.loads(self.text)),))
        except ValueError:
            return Part(self.text)


@dataclass
class Marked:
    """Marks in the text tell its parts, as the model's own template says. What is marked wrongly is text.

    parser: has read what the prompt began of the answer. ending: the pattern that ends a call, where what comes
    before it does not show by itself whether it is whole; else None. single: whether only the first call counts.
    """

    parser: Any
    ending: Any = None
    single: bool = False
    _call_at: int | None = None  # where the call began that is not complete
    _said: bool = False
    _called: bool = False
    _broken: bool = False

    def __post_init__(self) -> None:
        self._start = len(self.parser._buffer)

    def push(self, text: str) -> Part:
        """What became certain with this piece."""
        # One by one, because what is wrong must not take with it what came before it in the same piece.
        return _joined([self._read(partial(self.parser.feed, character), character) for character in text])

    def flush(self) -> Part:
        """The rest, at the end of the answer."""
        return self._read(self._last_events, "")

    def _read(self, events: Callable[[], list[dict[str, Any]]], text: str) -> Part:
        if self._broken:
            return Part(text)
        sure = self.parser._pos
        try:
            return self._sorted(events(), sure)
        except BROKEN:
            self._broken = True
            begin = sure if self._call_at is None else self._call_at
            return Part(self.parser._buffer[max(begin, self._start) :])

    def _last_events(self) -> list[dict[str, Any]]:
        sure = self.parser._pos
        events: list[dict[str, Any]] = self.parser.finalize()[1]
        called = self._call_at is not None or any(event["field"] == CALLS for event in events)
        if called and self.ending and not self.ending.search(self.parser._buffer, sure):
            raise ValueError("a call without its end")
        return events

    def _sorted(self, events: list[dict[str, Any]], sure: int) -> Part:
        text, reasoning, calls = "", "", []
        for event in events:
            kind, place = event["type"], event["field"]
            if place == CALLS and kind == "region_open":
                self._call_at = sure + len(text + reasoning)
            elif place == CALLS and kind == "region_close":
                calls += _calls(event["value"])
                self._call_at = None
            elif place in REASONING_FIELDS and kind == "region_chunk":
                reasoning += event["text"]
            elif place != CALLS and kind == "region_chunk":
                text += event["text"]
        if self.single:
            calls = [] if self._called else calls[:1]
        self._called = self._called or bool(calls)
        if not self._said:  # the lines between reasoning and answer belong to neither
            text = text.lstrip("\n")
            self._said = bool(text)
        return Part(text, reasoning, tuple(calls))


def _joined(parts: Sequence[Part]) -> Part:
    return Part(
        "".join(part.text for part in parts),
        "".join(part.reasoning for part in parts),
        tuple(call for part in parts for call in part.calls),
    )


def _calls(value: Any) -> list[Call]:
    calls = value if isinstance(value, list) else [value]
    return [_call(call.get("function", call) if isinstance(call, Mapping) else call) for call in calls]


def _call(function: Mapping[str, Any]) -> Call:
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError("no call of a function")
    arguments = function.get("arguments")
    told = json.loads(arguments) if isinstance(arguments, str) else arguments
    if not isinstance(told or {}, dict):
        raise ValueError("arguments without names")
    return Call(f"call_{uuid.uuid4().hex[:24]}", function["name"], json.dumps(told or {}, ensure_ascii=False))


def parser_for(tokenizer: Any, request: ChatRequest, prompt: Sequence[int]) -> Parser:
    """What takes one answer apart. prompt: its tokens, because templates may begin the answer."""
    if forced_schema(request):
        return Forced()
    free = request.parsed and request.messages and request.schema is None  # a schema leaves no room for marks
    template = _template(tokenizer, request) if free else None
    if template is None:
        return Plain()
    tools = [dict(tool) for tool in request.tools] or None
    try:
        loaded = load_response_template(template)
        parser = ResponseParser(loaded, prefix=_begun(tokenizer, prompt), tools=tools)
    except BROKEN:  # a template that came with the model
        return Plain()
    calls = loaded.fields.get(CALLS)
    return Marked(parser, calls.close_re if calls and calls.content != "json" else None, not request.parallel)


def _begun(tokenizer: Any, prompt: Sequence[int]) -> str:
    """What templates take the beginning of an answer from."""
    if getattr(tokenizer, "response_template", None):
        return str(tokenizer.decode(prompt))
    opened = tokenizer.decode(prompt[-8:]).rstrip().endswith(REASONING["open"])
    return REASONING["open"] if opened else ""


def _template(tokenizer: Any, request: ChatRequest) -> dict[str, Any] | None:
    """How the model marks the parts of its answers; None where nothing tells."""
    own: Mapping[str, Any] | None = getattr(tokenizer, "response_template", None)
    fields: dict[str, Any] = dict(own.get("fields", {})) if own else _shown_marks(str(tokenizer.chat_template))
    if not request.tools or request.tool_choice == "none":
        fields.pop(CALLS, None)
    if own or not fields:
        return {**own, "fields": fields} if own else None
    return {**UNMARKED, "fields": {**fields, "content": {"content": "text"}}}


def _shown_marks(template: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if REASONING["open"] in template:
        fields["reasoning_content"] = REASONING
    if "<tool_call>" in template:
        fields[CALLS] = TAGGED_CALLS if "<function=" in template else JSON_CALLS
    return fields


def forced_schema(request: ChatRequest) -> str | None:
    """The JSON schema of the call that a request wants; None where the model is free.

    Raises:
        InvalidRequest: the tool that must be called is not among the tools.
    """
    if not request.tools or request.tool_choice in ("auto", "none"):
        return None
    functions = [tool["function"] for tool in request.tools]
    wanted = [f for f in functions if request.tool_choice in ("required", f["name"])]
    if not wanted:
        raise InvalidRequest(f"There is no tool '{request.tool_choice}' to call.", field="tool_choice")
    return json.dumps({"anyOf": [_call_schema(function, place) for place, function in enumerate(wanted)]})


def _call_schema(function: Mapping[str, Any], place: int) -> dict[str, Any]:
    parameters = function.get("parameters") or {"type": "object"}
    return {
        "type": "object",
        "properties": {
            "name": {"const": function["name"]},
            "arguments": _moved(parameters, f"#/anyOf/{place}/properties/arguments"),
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, root: str) -> Any:
    """A schema whose references to its own parts hold below `root` too."""
    if isinstance(schema, list):
        return [_moved(part, root) for part in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref")
    moved = {key: _moved(part, root) for key, part in schema.items()}
    inner = isinstance(reference, str) and reference.startswith("#")
    return {**moved, "$ref": root + str(reference)[1:]} if inner else moved
