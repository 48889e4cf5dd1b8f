"""Requests and answers as OpenAI's API writes them, to and from what engines speak of.

A field that stands for nothing, or that nobody gave, is not sent: the server's own default holds. What comes is read
without trust: a part of another type than the API's counts as missing.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from millm.engines.base import ChatRequest, Message, Sampling, Usage
from millm.engines.relay import CallPart, Piece
from millm.events import Chance

Json = dict[str, Any]
ANY_OBJECT = {"type": "object"}
# Not OpenAI's own, but known to vLLM, SGLang, llama-server, miLLM and others: sent only where they change something.
FURTHER = ("top_k", "min_p", "repetition_penalty")
FREE = Sampling()
ENDS = {"length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls"}


def chat_fields(request: ChatRequest, name: str) -> Json:
    """What is asked of /chat/completions for a conversation. name: of the model there."""
    sampling = request.sampling
    chances: Json = {} if sampling.logprobs is None else {"logprobs": True}
    if sampling.logprobs:
        chances["top_logprobs"] = sampling.logprobs
    return {
        "model": name,
        "messages": [_message(message) for message in request.messages],
        **_sampled(request),
        **chances,
        **_form(request.schema),
        **_tools(request),
    }


def text_fields(request: ChatRequest, name: str) -> Json:
    """What is asked of /completions for texts to go on with."""
    prompts = [prompt if isinstance(prompt, str) else list(prompt) for prompt in request.prompts]
    chances = {} if request.sampling.logprobs is None else {"logprobs": request.sampling.logprobs}
    prompt = prompts[0] if len(prompts) == 1 else prompts
    return {"model": name, "prompt": prompt, **_sampled(request), **chances}


def pieces(chunk: Json) -> Iterator[Piece]:
    """What a chunk of a streamed answer holds of each answer."""
    for choice in _list(chunk.get("choices")):
        delta = _object(choice.get("delta"))
        index, reason = choice.get("index"), choice.get("finish_reason")
        yield Piece(
            text=_text(delta.get("content")) or _text(choice.get("text")),
            thought=_text(delta.get("reasoning_content")) or _text(delta.get("reasoning")),
            index=index if isinstance(index, int) else 0,
            chances=tuple(_chances(_object(choice.get("logprobs")))),
            calls=tuple(_call(part, place) for place, part in enumerate(_list(delta.get("tool_calls")))),
            reason=ENDS.get(reason, "stop") if isinstance(reason, str) and reason else "",
        )


def usage_of(chunk: Json) -> Usage | None:
    """The token counts in a chunk; None where it has none."""
    told = _object(chunk.get("usage"))
    if not told:
        return None
    cached = _object(told.get("prompt_tokens_details")).get("cached_tokens")
    return Usage(_count(told.get("prompt_tokens")), _count(cached), _count(told.get("completion_tokens")))


def _message(message: Message) -> Json:
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.calls
    ]
    return {
        "role": message.role,
        "content": message.content if message.content or not calls else None,
        **({"tool_calls": calls} if calls else {}),
        **({"tool_call_id": message.call_id} if message.call_id else {}),
    }


def _sampled(request: ChatRequest) -> Json:
    """How tokens are chosen. Temperature and top-p are sent where anybody said them, even as the API's default."""
    sampling = request.sampling
    said = {name: getattr(sampling, name) for name in ("temperature", "top_p") if name not in request.unsaid}
    changed = {
        "frequency_penalty": sampling.frequency_penalty or None,
        "presence_penalty": sampling.presence_penalty or None,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "stop": list(sampling.stop) or None,
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
        "n": sampling.count if sampling.count > 1 else None,
    }
    further = {name: getattr(sampling, name) for name in FURTHER if getattr(sampling, name) != getattr(FREE, name)}
    given = said | {name: value for name, value in changed.items() if value is not None}
    return given | ({"extra_body": further} if further else {})


def _form(schema: str | None) -> Json:
    if schema is None:
        return {}
    wanted = json.loads(schema)
    if wanted == ANY_OBJECT:
        return {"response_format": {"type": "json_object"}}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted}}}


def _tools(request: ChatRequest) -> Json:
    if not request.tools:
        return {}
    choice: Json = {"tool_choice": request.tool_choice} if request.tool_choice != "auto" else {}
    if request.tool_choice not in ("auto", "none", "required"):
        choice = {"tool_choice": {"type": "function", "function": {"name": request.tool_choice}}}
    alone = {} if request.parallel else {"parallel_tool_calls": False}
    return {"tools": [dict(tool) for tool in request.tools], **choice, **alone}


def _call(part: Json, place: int) -> CallPart:
    function, index = _object(part.get("function")), part.get("index")
    return CallPart(
        index if isinstance(index, int) else place,
        _text(part.get("id")),
        _text(function.get("name")),
        _text(function.get("arguments")),
    )


def _chances(logprobs: Mapping[str, Any]) -> Iterator[Chance]:
    """How likely the tokens were, as chat answers tell it, or text completions."""
    for told in _list(logprobs.get("content")):
        yield from _chance(told, tuple(other for each in _list(told.get("top_logprobs")) for other in _chance(each)))
    beside = logprobs.get("top_logprobs")
    numbers = logprobs.get("token_logprobs")
    if not isinstance(numbers, list):
        return
    for place, (token, number) in enumerate(zip(_all(logprobs.get("tokens")), numbers, strict=False)):
        likely = _object(beside[place]) if isinstance(beside, list) and place < len(beside) else {}
        others = tuple(other for each in likely.items() for other in _chance({"token": each[0], "logprob": each[1]}))
        yield from _chance({"token": token, "logprob": number}, others)


def _chance(told: Json, others: tuple[Chance, ...] = ()) -> Iterator[Chance]:
    token, number, raw = told.get("token"), told.get("logprob"), told.get("bytes")
    if isinstance(token, str) and isinstance(number, int | float):
        whole = isinstance(raw, list) and all(isinstance(each, int) and 0 <= each < 256 for each in raw)
        yield Chance(token, bytes(raw) if whole and raw else token.encode(errors="replace"), float(number), others)


def _all(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _list(value: object) -> list[Json]:
    return [each for each in _all(value) if isinstance(each, dict)]


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
