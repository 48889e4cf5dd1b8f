"""What the page at /docs shows as answers of the OpenAI API."""

from typing import Any

MODEL = {"id": "gemma-2-2b", "object": "model", "created": 1767268800, "owned_by": "miLLM"}
MODELS = {"object": "list", "data": [MODEL]}
USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 3,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 0},
}

CHAT = {
    "id": "chatcmpl-5f0e",
    "object": "chat.completion",
    "created": 1767268800,
    "model": "gemma-2-2b",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there!", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}
CHAT_STREAM = """data: {"id":"chatcmpl-5f0e","object":"chat.completion.chunk","created":1767268800,\
"model":"gemma-2-2b","choices":[{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}]}

data: [DONE]
"""

TEXT = {
    "id": "cmpl-5f0e",
    "object": "text_completion",
    "created": 1767268800,
    "model": "gemma-2-2b",
    "choices": [{"index": 0, "text": " there was", "logprobs": None, "finish_reason": "length"}],
    "usage": USAGE,
}
TEXT_STREAM = """data: {"id":"cmpl-5f0e","object":"text_completion","created":1767268800,"model":"gemma-2-2b",\
"choices":[{"index":0,"text":" there","logprobs":null,"finish_reason":null}]}

data: [DONE]
"""

EMBEDDINGS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.0521, -0.0113, 0.0368]}],
    "model": "all-MiniLM-L6-v2",
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
}

FAILED = {
    "error": {
        "message": "The model 'gpt-5' is not loaded here. 'gemma-2-2b' is loaded.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
}


def documented(example: object, stream: str | None = None) -> dict[str, Any]:
    """The part of a route's declaration that says what it answers."""
    content: dict[str, Any] = {"application/json": {"example": example}}
    if stream is not None:
        content["text/event-stream"] = {"example": stream}
    failed = {"description": "An error, in OpenAI's shape", "content": {"application/json": {"example": FAILED}}}
    return {"responses": {200: {"description": "Done", "content": content}, "default": failed}}
