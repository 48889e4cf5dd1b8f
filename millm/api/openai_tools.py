"""What OpenAI clients may ask of an answer's form: a JSON schema, or calls of tools."""

import json
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from millm.events import Call

MAX_TOOLS = 128
NAME = r"^[a-zA-Z0-9_.-]{1,64}$"
STRICT = ConfigDict(extra="forbid", strict=True)


class JsonSchema(BaseModel):
    """A named JSON schema. It is always followed, whether `strict` is set or not."""

    model_config = STRICT

    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """text, json_object (any JSON object), or json_schema (an answer that follows a schema)."""

    model_config = STRICT

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") is (self.json_schema is None):
            wrong = "is missing" if self.json_schema is None else f"does not go with type '{self.type}'"
            raise PydanticCustomError("conflict", f"it {wrong}", {"param": "json_schema"})
        return self

    def schema_text(self) -> str | None:
        """The JSON schema to follow; None for free text."""
        if self.json_schema:
            return json.dumps(self.json_schema.schema_)
        return json.dumps({"type": "object"}) if self.type == "json_object" else None


class Function(BaseModel):
    """What may be called. parameters: a JSON schema of its arguments."""

    model_config = STRICT

    name: str = Field(pattern=NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """A function the model may ask to have called."""

    model_config = STRICT

    type: Literal["function"]
    function: Function

    def told(self) -> dict[str, Any]:
        """The tool as chat templates show it."""
        function = self.function.model_dump(exclude_none=True, exclude={"strict"})
        return {"type": "function", "function": {"parameters": {"type": "object"}, **function}}


def _choice(choice: object) -> object:
    """A word, or the name of the one function that must be called."""
    if not isinstance(choice, dict):
        if choice not in (None, "none", "auto", "required"):
            raise PydanticCustomError("tool_choice", "it must be none, auto, required, or name one function")
        return choice
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if choice.get("type") != "function" or not isinstance(name, str):
        raise PydanticCustomError("tool_choice", "it must be none, auto, required, or name one function")
    return name


ToolChoice = Annotated[
    str,
    BeforeValidator(_choice),
    WithJsonSchema({"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}]}),
]


def _json(text: str) -> str:
    try:
        wrong = not isinstance(json.loads(text), dict)
    except ValueError:
        wrong = True
    if wrong:
        raise PydanticCustomError("json", "it must be a JSON object as text")
    return text


class Called(BaseModel):
    """What was called, and with which arguments."""

    model_config = ConfigDict(extra="ignore", strict=True)

    name: str
    arguments: Annotated[str, AfterValidator(_json)]


class ToolCall(BaseModel):
    """A call that an earlier answer asked for."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: str
    type: Literal["function"] = "function"
    function: Called

    def call(self) -> Call:
        """The call as engines take it."""
        return Call(self.id, self.function.name, self.function.arguments)


def written(call: Call, index: int | None = None) -> dict[str, Any]:
    """A call as OpenAI's answers show it. index: its place among the calls of a streamed answer."""
    function = {"name": call.name, "arguments": call.arguments}
    shown: dict[str, Any] = {"id": call.id, "type": "function", "function": function}
    return shown if index is None else {"index": index, **shown}
