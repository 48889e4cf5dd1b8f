"""What OpenAI clients may ask for here. What cannot be honoured is an error that names the field, never ignored.

Fields of OpenAI's API that are not honoured yet are accepted with the value that means "leave it off".
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from millm.engines.base import ChatRequest, Message, Sampling

MAX_STOPS = 16
COMPLETION_TOKENS = 16  # the default of OpenAI's /v1/completions

# Say who asks or how to bill; there is nothing here that they could change.
HARMLESS = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key"})

# field -> the values that ask for nothing; null asks for nothing in every field
SHARED_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
}
CHAT_NEUTRAL: dict[str, tuple[object, ...]] = SHARED_NEUTRAL | {
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
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
COMPLETION_NEUTRAL: dict[str, tuple[object, ...]] = SHARED_NEUTRAL | {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (),
}
# what a client may send back of an earlier answer
MESSAGE_NEUTRAL: dict[str, tuple[object, ...]] = dict.fromkeys(("refusal", "audio", "function_call", "name"), ()) | {
    "tool_calls": ([],),
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


def _one_prompt(prompt: object) -> object:
    if isinstance(prompt, list):
        if any(not isinstance(part, str) for part in prompt):
            raise PydanticCustomError("unsupported_prompt", "token ids are not supported; send the text itself")
        if len(prompt) != 1:
            raise PydanticCustomError("unsupported_prompt", "send one prompt in each request")
        return prompt[0]
    return prompt


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
Prompt = Annotated[
    str, BeforeValidator(_one_prompt), WithJsonSchema({"anyOf": [{"type": "string"}, STRINGS | {"maxItems": 1}]})
]
Stop = Annotated[
    tuple[str, ...],
    BeforeValidator(_stops),
    WithJsonSchema({"anyOf": [{"type": "string"}, STRINGS | {"maxItems": MAX_STOPS}, {"type": "null"}]}),
]


class ChatMessage(BaseModel):
    """One turn. `developer` is another word for `system`."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Text

    def message(self) -> Message:
        """The turn as engines take it."""
        return Message("system" if self.role == "developer" else self.role, self.content)


class StreamOptions(BaseModel):
    """Only with `stream: true`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = Field(None, description="send one more chunk, with the token counts")


class Generation(BaseModel):
    """What chat and plain completions have in common."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = SHARED_NEUTRAL

    model: str = Field(description="the name of the loaded model")
    temperature: float | None = Field(None, ge=0, le=2, description="0 is greedy; default 1")
    top_p: float | None = Field(None, ge=0, le=1, description="default 1, which is off")
    top_k: int | None = Field(None, ge=0, description="default 0, which is off")
    max_tokens: int | None = Field(None, ge=1, description="the most tokens to answer with")
    stop: Stop = Field((), description="strings that end the answer and are not part of it")
    seed: int | None = Field(None, description="the same seed gives the same answer")
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

    def sampling(self, max_tokens: int | None) -> Sampling:
        """How to choose tokens; what is not given or null is OpenAI's default."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            max_tokens=max_tokens,
            stop=self.stop,
            seed=self.seed,
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

    @model_validator(mode="after")
    def _is_plain(self) -> Self:
        for number, message in enumerate(self.messages):
            refuse_extras(message.model_extra or {}, MESSAGE_NEUTRAL, f"messages[{number}].")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise PydanticCustomError("conflict", "give this or 'max_completion_tokens'", {"param": "max_tokens"})
        return self

    def request(self) -> ChatRequest:
        """The request as engines take it."""
        sampling = self.sampling(self.max_completion_tokens or self.max_tokens)
        return ChatRequest(tuple(message.message() for message in self.messages), sampling=sampling)


class CompletionBody(Generation):
    """A text to go on with as it stands."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "gemma-2-2b", "prompt": "Once upon a time", "max_tokens": 50}]}
    )
    neutral: ClassVar[Mapping[str, tuple[object, ...]]] = COMPLETION_NEUTRAL

    prompt: Prompt

    def request(self) -> ChatRequest:
        """The request as engines take it."""
        return ChatRequest(prompt=self.prompt, sampling=self.sampling(self.max_tokens or COMPLETION_TOKENS))
