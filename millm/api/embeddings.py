"""/v1/embeddings: texts to vectors, as OpenAI's API gives them."""

import base64
import sys
from array import array
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from millm.api import openai_examples as examples
from millm.api.openai import asked_of
from millm.api.openai_schema import PROMPT, are_tokens, refuse_extras
from millm.api.parts import TheManager
from millm.api.streams import JobAnswer
from millm.api.wire import Json, openai_failure
from millm.engines.base import Embeddings, EmbedRequest

MAX_INPUTS = 2048

router = APIRouter(prefix="/v1", tags=["OpenAI"])


def _inputs(given: Any) -> object:
    """One or several texts, each as a string or the numbers of its tokens, as a tuple."""
    several = given if isinstance(given, list) and not are_tokens(given) else [given]
    if not all(isinstance(part, str) or are_tokens(part) for part in several):
        raise PydanticCustomError("string_type", "it must be a string, a list of token numbers, or a list of these")
    if not several or "" in several:
        raise PydanticCustomError("empty", "it must not be empty, and no text in it")
    if len(several) > MAX_INPUTS:
        raise PydanticCustomError("too_long", f"at most {MAX_INPUTS} inputs are supported")
    return tuple(part if isinstance(part, str) else tuple(part) for part in several)


Inputs = Annotated[
    tuple[str | tuple[int, ...], ...],
    BeforeValidator(_inputs),
    WithJsonSchema({"anyOf": [*PROMPT["anyOf"], {"type": "array", "items": PROMPT, "maxItems": MAX_INPUTS}]}),
]


class EmbeddingsBody(BaseModel):
    """Texts to embed."""

    model_config = ConfigDict(
        extra="allow",
        strict=True,
        json_schema_extra={"examples": [{"model": "all-MiniLM-L6-v2", "input": "A cat sits on the mat."}]},
    )

    model: str = Field(description="the name of the loaded model")
    input: Inputs = Field(description="one text or several, each a string or the numbers of its tokens")
    dimensions: int | None = Field(None, ge=1, description="how many values of each vector to keep; default all")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="numbers, or base64 of little-endian float32; default float"
    )
    user: str | None = Field(None, description="accepted, and changes nothing")

    @model_validator(mode="after")
    def _asks_for_nothing_else(self) -> "EmbeddingsBody":
        refuse_extras(self.model_extra or {}, {})
        return self

    def request(self) -> EmbedRequest:
        """The request as engines take it."""
        return EmbedRequest(self.input, self.dimensions)


@router.post("/embeddings", summary="Turn texts into vectors", **examples.documented(examples.EMBEDDINGS))
def embed(manager: TheManager, body: EmbeddingsBody) -> Response:
    """With a model of type `embedding` as its files say, with a language model by the mean of its last hidden
    states. A text with more tokens than the model reads is an error; `dimensions` keeps the first values, made to
    length 1 again."""
    job = asked_of(manager, body.model, lambda: manager.embed(body.request()))
    return JobAnswer(job, lambda found: Json(_answer(body, found)), openai_failure)


def _answer(body: EmbeddingsBody, found: Embeddings) -> dict[str, Any]:
    written = _base64 if body.encoding_format == "base64" else array.tolist
    data = [
        {"object": "embedding", "index": index, "embedding": written(vector)}
        for index, vector in enumerate(found.vectors)
    ]
    usage = {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens}
    return {"object": "list", "data": data, "model": body.model, "usage": usage}


def _base64(vector: "array[float]") -> str:
    little = array("f", vector)
    if sys.byteorder == "big":
        little.byteswap()
    return base64.b64encode(little.tobytes()).decode()
