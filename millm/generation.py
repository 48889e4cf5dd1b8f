"""How a model answers where a request does not say: the defaults in its settings, checked and filled in.

`settings.generation` holds any of the names in `GENERATION`, `settings.system_prompt` a text. What neither the
request nor the settings say is as `engines.base.Sampling` has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from millm.engines.base import ChatRequest, Message
from millm.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Bounds:
    """The values that a default may have. whole: integers only."""

    low: float
    high: float
    whole: bool = False

    def admit(self, value: object) -> bool:
        """Whether a value of JSON is one of them."""
        kinds = (int,) if self.whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high

    @property
    def sentence(self) -> str:
        """What may be given: "a number from 0 to 2", "a whole number, 1 or more"."""
        kind = "a whole number" if self.whole else "a number"
        return f"{kind}, {self.low:g} or more" if self.high >= MANY else f"{kind} from {self.low:g} to {self.high:g}"


MANY = 2**31 - 1
GENERATION: Mapping[str, Bounds] = MappingProxyType(
    {
        "temperature": Bounds(0, 2),
        "top_p": Bounds(0, 1),
        "top_k": Bounds(0, MANY, whole=True),
        "min_p": Bounds(0, 1),
        "max_tokens": Bounds(1, MANY, whole=True),
        "repetition_penalty": Bounds(0.01, 10),
    }
)
"""What a model's settings may say about choosing tokens: fields of `Sampling`, within the bounds of /v1."""


def generation_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that are set, numbers by name, without what a hand wrote into the registry and cannot be one."""
    given = settings.get("generation")
    known = given if isinstance(given, Mapping) else {}
    return {name: known[name] for name, bounds in GENERATION.items() if bounds.admit(known.get(name))}


def system_prompt_of(settings: Mapping[str, Any]) -> str:
    """The text that a conversation without a system message begins with; "" for none."""
    text = settings.get("system_prompt")
    return text.strip() if isinstance(text, str) else ""


def check_generation(settings: Mapping[str, Any]) -> None:
    """Raises `InvalidRequest` for defaults that no request could obey; null is the same as nothing."""
    given, text = settings.get("generation"), settings.get("system_prompt")
    if text is not None and not isinstance(text, str):
        raise InvalidRequest("settings.system_prompt is a text.", field="settings.system_prompt")
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise InvalidRequest("settings.generation is an object.", field="settings.generation")
    for name, value in given.items():
        if name not in GENERATION:
            known = ", ".join(GENERATION)
            raise InvalidRequest(
                f"settings.generation has no '{name}'; it may hold {known}.", field=f"settings.generation.{name}"
            )
        if value is not None and not GENERATION[name].admit(value):
            raise InvalidRequest(
                f"settings.generation.{name} is {GENERATION[name].sentence}.", field=f"settings.generation.{name}"
            )


def completed(request: ChatRequest, settings: Mapping[str, Any]) -> ChatRequest:
    """The request with what it leaves open filled in from a model's settings.

    A default of max_tokens is a wish: where the context has no room for it, the answer gets what there is. The
    default system prompt goes before a conversation that has no system message, never before a plain text.
    """
    wanted = {name: value for name, value in generation_of(settings).items() if name in request.unsaid}
    sampling = replace(request.sampling, **wanted) if wanted else request.sampling
    if "max_tokens" in wanted:
        sampling = replace(sampling, clip=True)
    text, messages = system_prompt_of(settings), request.messages
    if text and messages and all(message.role != "system" for message in messages):
        messages = (Message("system", text), *messages)
    return replace(request, messages=messages, sampling=sampling, unsaid=request.unsaid.difference(wanted))
