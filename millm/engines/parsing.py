"""What the parts of an answer are: the answer itself, the reasoning before it, calls of tools."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from transformers.utils.chat_parsing.response_parser import ResponseParser

from millm.engines.base import ChatRequest
from millm.errors import InvalidRequest
from millm.events import Call

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
    """Marks in the text tell its parts, as the model's own template says. What is marked wrongly is text."""

    parser: Any
    single: bool = False
    _tail: str = ""  # since the beginning of a call that is not complete
    _said: bool = False
    _called: bool = False
    _broken: bool = field(default=False)

    def push(self, text: str) -> Part:
        """What became certain with this piece."""
        if self._broken:
            return Part(text)
        self._tail += text
        try:
            return self._sorted(self.parser.feed(text))
        except ValueError:
            return self._give_up()

    def flush(self) -> Part:
        """The rest, at the end of the answer."""
        if self._broken:
            return Part()
        try:
            return self._sorted(self.parser.finalize()[1])
        except ValueError:
            return self._give_up()

    def _give_up(self) -> Part:
        self._broken = True
        return Part(self._tail)

    def _sorted(self, events: list[dict[str, Any]]) -> Part:
        text, reasoning, calls, inside = "", "", [], False
        for event in events:
            kind, place = event["type"], event["field"]
            inside = place == "tool_calls" and kind != "region_close"
            if kind == "region_close" and place == "tool_calls":
                calls.append(_call(event["value"]["function"]))
            elif kind == "region_chunk" and place == "content":
                text += event["text"]
            elif kind == "region_chunk" and place == "reasoning_content":
                reasoning += event["text"]
        if events and not inside:
            self._tail = ""
        if self.single:
            calls = [] if self._called else calls[:1]
        self._called = self._called or bool(calls)
        if not self._said:  # the lines between reasoning and answer belong to neither
            text = text.lstrip("\n")
            self._said = bool(text)
        return Part(text, reasoning, tuple(calls))


def _call(function: Mapping[str, Any]) -> Call:
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError("no call of a function")
    arguments = function.get("arguments", {})
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return Call(f"call_{uuid.uuid4().hex[:24]}", function["name"], written)


def parser_for(tokenizer: Any, request: ChatRequest, prompt: Sequence[int]) -> Parser:
    """What takes one answer apart. prompt: its tokens, because templates may begin the answer."""
    if forced_schema(request):
        return Forced()
    template = _template(tokenizer) if request.parsed and request.messages else None
    if template is None:
        return Plain()
    parser = ResponseParser(template, prefix="", tools=[dict(tool) for tool in request.tools] or None)
    if tokenizer.decode(prompt[-8:]).rstrip().endswith(REASONING["open"]):
        parser.feed(REASONING["open"])
    return Marked(parser, single=not request.parallel)


def _template(tokenizer: Any) -> Mapping[str, Any] | None:
    """How the model marks the parts of its answers; None where nothing tells."""
    own: Mapping[str, Any] | None = getattr(tokenizer, "response_template", None)
    shown = str(tokenizer.chat_template)
    fields: dict[str, Any] = {}
    if REASONING["open"] in shown:
        fields["reasoning_content"] = REASONING
    if "<tool_call>" in shown:
        fields["tool_calls"] = TAGGED_CALLS if "<function=" in shown else JSON_CALLS
    if own or not fields:
        return own
    return {"defaults": {"role": "assistant"}, "fields": {**fields, "content": {"content": "text"}}}


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
    return json.dumps({"anyOf": [_call_schema(function) for function in wanted]})


def _call_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"const": function["name"]},
            "arguments": function.get("parameters") or {"type": "object"},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
