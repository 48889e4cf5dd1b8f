"""What OpenAI clients may ask for here. What cannot be honoured is an error that names the field, never ignored.

Fields of OpenAI's API that are not honoured yet are accepted with the value that means "leave it off".
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from millm.api.openai_tools import MAX_TOOLS, ResponseFormat, Tool, ToolCall, ToolChoice
from millm.engines.base import ChatRequest, Message, Sampling
from millm.generation import GENERATION

MAX_STOPS = 16
MAX_PROMPTS = 16
MAX_ANSWERS = 16
MAX_LOGPROBS = 20
COMPLETION_TOKENS = 16  # the default of OpenAI's /v1/completions

# Say who asks or how to bill; there is nothing here that they could change.
HARMLESS = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})

# field -> the values that ask for nothing; null asks for nothing in every field
CHAT_NEUTRAL: dict[str, tuple[object, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "audio": (),
    "prediction": (),
    "prompt_cache_retention": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
}
COMPLETION_NEUTRAL: dict[str, tuple[object, ...]] = {"best_of": (1,), "suffix": ("",)}
# what a client may send back of an earlier answer
MESSAGE_NEUTRAL: dict[str, tuple[object, ...]] = dict.fromkeys(("refusal", "audio", "function_call", "name"), ()) | {
    "reasoning_content": (),
    "annotations": ([],),
}


def refuse_extras(given: Mapping[str, object], neutral: Mapping[str, tuple[object, ...]], place: str = "") -> None:
    """Raises an error that names the first field which is unknown, or asks for something that is not supported."""
    for name, value in given.items():
        param = {"param": place + name}
        if name not in neutral:
            raise PydanticCustomError("unknown_parameter", "unknown", param)
        if value is not None and not any(_same(value, allowed) for allowed in neutral[name]):
            raise PydanticCustomError("unsupported_parameter", "not supported", param)


def _same(value: object, allowed: object) -> bool:
    """Equality for which 0 is not False."""
    return value == allowed and isinstance(value, bool) is isinstance(allowed, bool)


def _text(content: object) -> str:
    """The text of a message: a string, or a list of text parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise PydanticCustomError("string_type", "it must be a string or a list of text parts")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise PydanticCustomError("unsupported_content", "only parts of type 'text' are supported")
    return "\n".join(part["text"] for part in content)


def _prompts(prompt: Any) -> object:
    """One or several prompts, each a text or the numbers of its tokens, as a tuple."""
    several = prompt if isinstance(prompt, list) and not are_tokens(prompt) else [prompt]
    if not several or not all(isinstance(part, str) or are_tokens(part) for part in several):
        raise PydanticCustomError("string_type", "it must be a string, a list of token numbers, or a list of these")
    if len(several) > MAX_PROMPTS:
        raise PydanticCustomError("too_long", f"at most {MAX_PROMPTS} prompts are supported")
    return tuple(part if isinstance(part, str) else tuple(part) for part in several)


def are_tokens(value: object) -> bool:
    """Whether a value of JSON is the numbers of tokens."""
    return isinstance(value, list) and bool(value) and all(type(part) is int and part >= 0 for part in value)


def _biases(biases: dict[str, float]) -> dict[str, float]:
    if not all(re.fullmatch(r"0|[1-9][0-9]{0,8}", token) for token in biases):
        raise PydanticCustomError("token_number", "its keys must be token numbers")
    return biases


def _stops(stop: object) -> object:
    if stop is None:
        return ()
    stops = (stop,) if isinstance(stop, str) else stop
    if not isinstance(stops, list | tuple) or not all(isinstance(text, str) and text for text in stops):
        raise PydanticCustomError("string_type", "it must be a string or a list of strings, none of them empty")
    if len(stops) > MAX_STOPS:
        raise PydanticCustomError("too_long", f"at most {MAX_STOPS} strings are supported")
    return tuple(stops)


TEXT_PARTS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
        "required": ["type", "text"],
    },
}
STRINGS = {"type": "array", "items": {"type": "string"}}
Text = Annotated[str, BeforeValidator(_text), WithJsonSchema({"anyOf": [{"type": "string"}, TEXT_PARTS]})]
TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
PROMPT = {"anyOf": [{"type": "string"}, TOKENS]}
Prompts = Annotated[
    tuple[str | tuple[int, ...], ...],
    BeforeValidator(_prompts),
    WithJsonSchema({"anyOf": [*PROMPT["anyOf"], {"type": "array", "items": PROMPT, "maxItems": MAX_PROMPTS}]}),
]
Biases = Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], AfterValidator(_biases)]
Stop = Annotated[
    tuple[str, ...],
    BeforeValidator(_stops),
    WithJsonSchema({"anyOf": [{"type": "string"}, STRINGS | {"maxItems": MAX_STOPS}, {"type": "null"}]}),
]


class ChatMessage(BaseModel):
    """One turn. `developer` is another word for `system`."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise PydanticCustomError("missing", "a message needs content", {"param": "content"})
        if self.role == "tool" and not self.tool_call_id:
            raise PydanticCustomError("missing", "it must name the call it answers", {"param": "tool_call_id"})
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError("conflict", "only an assistant calls tools", {"param": "tool_calls"})
        return self

    def message(self) -> Message:
        """The turn as engines take it."""
        calls = tuple(call.call() for call in self.tool_calls or ())
        role = "system" if self.role == "developer" else self.role
        return Message(role, self.content or "", calls, self.tool_call_id or "")


class StreamOptions(BaseModel):
    """Only with `stream: true`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = Field(None, description="send one more chunk, with the token counts")


class Generation(BaseModel):
    """What chat and plain completions have in common."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = {}

    model: str = Field(description="the name of the loaded model")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy; default 1")
    top_p: float | None = Field(None, ge=0, le=1, description="default 1, which is off")
    top_k: int | None = Field(None, ge=0, description="default 0, which is off")
    max_tokens: int | None = Field(None, ge=1, description="the most tokens to answer with")
    n: int | None = Field(None, ge=1, le=MAX_ANSWERS, description="how many answers; default 1")
    min_p: float | None = Field(None, ge=0, le=1, description="least chance, in parts of the likeliest token's")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="for every time a token was said")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="for a token that was said at all")
    repetition_penalty: float | None = Field(None, ge=0.01, le=10, description="default 1, which is off")
    logit_bias: Biases | None = Field(None, description="token numbers and what is added to their logits")
    stop: Stop = Field((), description="strings that end the answer and are not part of it")
    seed: int | None = Field(None, ge=-(2**63), lt=2**64, description="the same seed gives the same answer")
    stream: bool | None = Field(None, description="send the answer piece by piece, as server-sent events")
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _asks_for_nothing_else(self) -> Self:
        given = {name: value for name, value in (self.model_extra or {}).items() if name not in HARMLESS}
        refuse_extras(given, self.neutral)
        if self.stream_options and not self.stream:
            raise PydanticCustomError("conflict", "it needs 'stream': true", {"param": "stream_options"})
        return self

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def unsaid(self) -> frozenset[str]:
        """What is not given or null, and so is as the model's settings say."""
        return frozenset(name for name in GENERATION if getattr(self, name) is None)

    def sampling(self, max_tokens: int | None, logprobs: int | None) -> Sampling:
        """How to choose tokens; what is not given or null is OpenAI's default, for now."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            max_tokens=max_tokens,
            stop=self.stop,
            seed=self.seed,
            min_p=self.min_p or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            repetition_penalty=self.repetition_penalty or 1.0,
            logit_bias=tuple((int(token), bias) for token, bias in (self.logit_bias or {}).items()),
            logprobs=logprobs,
            count=self.n or 1,
        )


class ChatBody(Generation):
    """A conversation to go on with."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "gemma-2-2b", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 50}
            ]
        }
    )
    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = CHAT_NEUTRAL

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="the newer name of max_tokens")
    logprobs: bool | None = Field(None, description="tell how likely each token was")
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS, description="functions that may be called")
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = Field(None, description="false: one call at most")
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS, description="and the likeliest in its place")

    @model_validator(mode="after")
    def _is_plain(self) -> Self:
        for number, message in enumerate(self.messages):
            refuse_extras(message.model_extra or {}, MESSAGE_NEUTRAL, f"messages[{number}].")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise PydanticCustomError("conflict", "give this or 'max_completion_tokens'", {"param": "max_tokens"})
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            raise PydanticCustomError("conflict", "there are no tools to choose from", {"param": "tool_choice"})
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError("conflict", "it needs 'logprobs': true", {"param": "top_logprobs"})
        return self

    def request(self) -> ChatRequest:
        """The request as engines take it."""
        logprobs = self.top_logprobs or 0 if self.logprobs else None
        sampling = self.sampling(self.max_completion_tokens or self.max_tokens, logprobs)
        return ChatRequest(
            tuple(message.message() for message in self.messages),
            sampling=sampling,
            schema=self.response_format.schema_text() if self.response_format else None,
            tools=tuple(tool.told() for tool in self.tools or ()),
            tool_choice=self.tool_choice or "auto",
            parallel=self.parallel_tool_calls is not False,
            parsed=True,
            unsaid=self.unsaid - {"max_tokens" if self.max_completion_tokens else ""},
        )


class CompletionBody(Generation):
    """A text to go on with as it stands."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "gemma-2-2b", "prompt": "Once upon a time", "max_tokens": 50}]}
    )
    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = COMPLETION_NEUTRAL

    prompt: Prompts
    echo: bool | None = Field(None, description="let each answer begin with its prompt")
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS, description="tell the likeliest tokens in each place")

    @model_validator(mode="after")
    def _can_be_echoed(self) -> Self:
        if self.echo and not all(isinstance(prompt, str) for prompt in self.prompt):
            raise PydanticCustomError("conflict", "token numbers cannot be echoed", {"param": "echo"})
        if self.echo and self.logprobs is not None:
            raise PydanticCustomError("conflict", "it does not go with 'echo'", {"param": "logprobs"})
        return self

    def request(self) -> ChatRequest:
        """The request as engines take it."""
        sampling = self.sampling(self.max_tokens or COMPLETION_TOKENS, self.logprobs)
        return ChatRequest(prompts=self.prompt, sampling=sampling, unsaid=self.unsaid)
