"""From a request to the tokens of its prompt."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any

from jinja2.exceptions import TemplateError

from millm.engines.base import ChatRequest, Message
from millm.errors import InvalidRequest

TEMPLATE_S = 5.0  # seconds that a chat template may take; a long conversation takes milliseconds
TEMPLATE_CODE = "<template>"  # what Jinja calls the file of a template that came as text


def prompt_tokens(tokenizer: Any, request: ChatRequest) -> list[list[int]]:
    """The tokens of every prompt: the conversation in the model's own format, or the plain texts as they stand.

    Raises:
        InvalidRequest: the model has no chat template, or its template refuses the conversation; or there
            is nothing to answer.
    """
    if request.prompts:
        prompts = [plain_tokens(tokenizer, prompt) for prompt in request.prompts]
    else:
        prompts = [_conversation_tokens(tokenizer, request)]
    if not all(prompts):
        raise InvalidRequest("The prompt is empty.")
    return prompts


def plain_tokens(tokenizer: Any, prompt: str | tuple[int, ...]) -> list[int]:
    """The tokens of a text as it stands, or what is tokens already."""
    tokens: list[int] = tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else list(prompt)
    return tokens


def _conversation_tokens(tokenizer: Any, request: ChatRequest) -> list[int]:
    messages = request.messages
    tools = [dict(tool) for tool in request.tools] if request.tool_choice != "none" else []
    if not messages:
        raise InvalidRequest("The conversation is empty: send at least one message.")
    if not tokenizer.chat_template:
        raise InvalidRequest(
            "This model has no chat template, so it cannot answer a conversation. "
            "It can continue a text: send a prompt to /v1/completions."
        )
    if tools and "tools" not in str(tokenizer.chat_template):
        raise InvalidRequest(
            "This model's chat template has no place for tools, so it cannot call any.", field="tools"
        )
    try:
        return _render(tokenizer, messages, tools)
    except InvalidRequest:
        folded = fold_system(messages)
        if folded == messages:
            raise
        return _render(tokenizer, folded, tools)


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.loads(call.arguments)},
            }
            for call in message.calls
        ]
    return turn | ({"tool_call_id": message.call_id} if message.call_id else {})


def _render(tokenizer: Any, messages: tuple[Message, ...], tools: list[dict[str, Any]]) -> list[int]:
    turns = [_turn(message) for message in messages]
    more = {"tools": tools} if tools else {}
    try:
        with _limited():
            tokens: list[int] = tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=False, **more
            )
    except (TemplateError, ValueError, TypeError) as error:
        raise InvalidRequest(f"The model's chat template refuses this conversation: {error}") from error
    return tokens


@contextmanager
def _limited() -> Iterator[None]:
    """Raises `TemplateError` in a template that runs for too long: it is a program that came with the model.

    The thread's own trace asks for the time at each line of templates; other code goes on untraced.
    """
    deadline = monotonic() + TEMPLATE_S

    def watch(frame: FrameType, _: str, __: Any) -> Any:
        if frame.f_code.co_filename != TEMPLATE_CODE:
            return None
        if monotonic() > deadline:
            raise TemplateError(f"it takes more than {TEMPLATE_S:g} seconds")
        return watch

    earlier = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(earlier)


def fold_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The conversation without system turns: their text stands before that of the first user turn."""
    system = "\n\n".join(message.content for message in messages if message.role == "system")
    turns = [message for message in messages if message.role != "system"]
    if not system:
        return tuple(turns)
    first = next((n for n, message in enumerate(turns) if message.role == "user"), None)
    if first is None:
        return (Message("user", system), *turns)
    turns[first] = Message("user", f"{system}\n\n{turns[first].content}")
    return tuple(turns)
