"""A model that an Ollama server runs: requests are passed on to it, answers streamed back."""

import asyncio
import json
import logging
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from millm import errors
from millm.engines.base import WELL, ChatRequest, Completion, Embeddings, EmbedRequest, Engine, LoadOptions
from millm.events import Event, Report, Stage
from millm.loops import attend
from millm.ollama_client import CONNECT_S, OllamaClient
from millm.records import ModelRecord, ModelType

if TYPE_CHECKING:  # importing it takes a quarter of a second and reads OLLAMA_HOST, so it waits for its first use
    import ollama

    Part = ollama.ChatResponse | ollama.GenerateResponse

log = logging.getLogger(__name__)

T = TypeVar("T")
Failed = Callable[[str, int, str], errors.MiLLMError]
"""The error for what Ollama says: of which model, with which status, in which words."""

GOODBYE_S = 0.3  # what the server gets for unloading a model that nobody waits for
FOREVER = -1  # keep_alive: the model stays in the server's memory until it is unloaded here
LOADED = 90.0  # percent of the load when the server holds the weights


def open_ollama(record: ModelRecord, options: LoadOptions, report: Report, host: str) -> Engine:
    """Has the server at `host` load a model and keep it until the engine is closed; see `Opener`.

    Raises:
        LoadFailed: the server does not have the model, or cannot load it.
        UnsupportedModel: it generates no text, or, where it is to embed, cannot do that.
        OllamaUnavailable: the server does not answer.
    """
    server = _Server(host, str(record.repo_id), options.context_length, record.model_type)
    sizes: list[int] = []

    def tick() -> None:
        report(Event(Stage.WARMING_UP, LOADED) if sizes else Event(Stage.LOADING_WEIGHTS))

    try:
        tick()
        server.run(lambda client: attend(server.load(client), sizes.append, tick), _load_error)
        report(Event(Stage.WARMING_UP, 100.0))
    except errors.Cancelled:
        server.unload()
        raise
    return OllamaEngine(server, sizes[-1])


class OllamaEngine:
    """A model in an Ollama server. It is an `Engine`; the server decides how many answers it makes at once.

    memory_bytes: what the server says that the model takes, 0 if it does not say.
    """

    batching = True  # Ollama sees to that itself
    health = WELL

    def __init__(self, server: "_Server", memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self._server = server
        self._closed = False

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        """Answers; see `Engine.chat`. A model's reasoning comes before its answer, between think tags.

        Raises:
            ModelNotLoaded: the engine was closed.
            ModelNotFound: the model is no longer in Ollama.
            QueueFull: the server has too many requests waiting.
            OllamaUnavailable: the server does not answer, or broke off.
        """
        if self._closed:
            raise errors.ModelNotLoaded("The model was unloaded.")
        _check(request)
        answer, server = _Answer(report), self._server
        server.run(lambda client: attend(server.answer(client, request), answer.hear, answer.tick), _answer_error)
        return answer.completion()

    def rows(self) -> None:
        """The server does not say how many answers it makes."""

    def embed(self, request: EmbedRequest, report: Report) -> Embeddings:
        """Embeds; see `Engine.embed`. Raises what `chat` raises, and for tokens `InvalidRequest`."""
        if self._closed:
            raise errors.ModelNotLoaded("The model was unloaded.")
        if not all(isinstance(text, str) for text in request.inputs):
            raise errors.InvalidRequest("A model in Ollama cannot be asked for tokens to be embedded.", field="input")
        found: list[ollama.EmbedResponse] = []

        def tick() -> None:
            report(Event(Stage.READING_PROMPT))

        tick()
        server = self._server
        server.run(lambda client: attend(server.embed(client, request), found.append, tick), _embed_error)
        vectors = tuple(array("f", vector) for vector in found[-1].embeddings)
        return Embeddings(vectors, found[-1].prompt_eval_count or 0)

    def close(self) -> None:
        """Has the server give the memory back."""
        self._closed = True
        self._server.unload(CONNECT_S)


class _Server:
    """One model of an Ollama server, with one context length (None: the server's own)."""

    def __init__(self, host: str, name: str, context_length: int | None, kind: ModelType) -> None:
        self._server = OllamaClient(host)
        self._name = name
        self._embeds = kind is ModelType.EMBEDDING
        self._context = {"num_ctx": context_length} if context_length else {}

    def run(self, work: "Callable[[ollama.AsyncClient], Coroutine[Any, Any, T]]", failed: Failed) -> T:
        """Runs work with a client of its own; `failed` makes the error for what the server says itself."""
        return self._server.run(work, lambda status, said: failed(self._name, status, said))

    async def load(self, client: "ollama.AsyncClient") -> AsyncIterator[int]:
        """Yields 0 when the model is in the server's memory, then how many bytes it takes there."""
        if self._embeds:
            await client.embed(self._name, "", options=self._context, keep_alive=FOREVER)
        else:
            async for _ in await client.generate(self._name, stream=True, options=self._context, keep_alive=FOREVER):
                yield 0
        yield 0
        async with asyncio.timeout(CONNECT_S):
            running = (await client.ps()).models
        yield next((int(model.size or 0) for model in running if model.model == self._name), 0)

    async def answer(self, client: "ollama.AsyncClient", request: ChatRequest) -> "AsyncIterator[Part]":
        """The pieces of an answer as the server sends them."""
        sampling = request.sampling
        options = {
            **self._context,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "num_predict": -1 if sampling.max_tokens is None else sampling.max_tokens,
            "min_p": sampling.min_p,
            "frequency_penalty": sampling.frequency_penalty,
            "presence_penalty": sampling.presence_penalty,
            "repeat_penalty": sampling.repetition_penalty,
            "stop": list(sampling.stop),
            **({} if sampling.seed is None else {"seed": sampling.seed}),
        }
        name, prompt = self._name, str(request.prompts[0]) if request.prompts else None
        form = None if request.schema is None else json.loads(request.schema)
        messages = [{"role": message.role, "content": message.content} for message in request.messages]
        parts: AsyncIterator[Part] = (
            await client.chat(name, messages, stream=True, options=options, format=form, keep_alive=FOREVER)
            if prompt is None
            else await client.generate(
                name, prompt, raw=True, stream=True, options=options, format=form, keep_alive=FOREVER
            )
        )
        async for part in parts:
            yield part

    async def embed(
        self, client: "ollama.AsyncClient", request: EmbedRequest
    ) -> "AsyncIterator[ollama.EmbedResponse]":
        """The vectors of texts, all at once."""
        yield await client.embed(
            self._name,
            [str(text) for text in request.inputs],
            truncate=False,
            options=self._context,
            keep_alive=FOREVER,
            dimensions=request.dimensions,
        )

    def unload(self, patience_s: float = GOODBYE_S) -> None:
        """Has the server drop the model. That it could not be told is logged and no error."""

        async def drop(client: "ollama.AsyncClient") -> None:
            async with asyncio.timeout(patience_s):
                if self._embeds:
                    await client.embed(self._name, "", keep_alive=0)
                else:
                    await client.generate(self._name, keep_alive=0)

        try:
            self.run(drop, _load_error)
        except errors.MiLLMError as error:
            log.warning("'%s' may still be in Ollama's memory: %s", self._name, error.message)


class _Answer:
    """An answer as its pieces come in."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._asked_at = perf_counter()
        self._first_at = 0.0
        self._text: list[str] = []
        self._count = 0
        self._thinking = False
        self._last: Part | None = None

    def hear(self, part: "Part") -> None:
        """Takes in one piece and reports its text."""
        self._last = part
        thought, said = _texts(part)
        if not (thought or said):
            return
        self._first_at = self._first_at or perf_counter()
        self._count += 1
        text = self._tagged(thought, said)
        self._text.append(text)
        self._report(Event(Stage.GENERATING, text=text, tokens=self._count))

    def tick(self) -> None:
        """Reports in a silence, so that a cancel is heard."""
        self._report(Event(Stage.GENERATING if self._count else Stage.READING_PROMPT, tokens=self._count))

    def completion(self) -> Completion:
        """The whole answer. Raises OllamaUnavailable if the server broke off before the end."""
        last = self._last
        if last is None or not last.done:
            raise errors.OllamaUnavailable("Ollama broke off in the middle of the answer.")
        count, nanoseconds = last.eval_count or self._count, last.eval_duration or 0
        return Completion(
            text="".join(self._text),
            finish_reason="length" if last.done_reason == "length" else "stop",
            prompt_tokens=last.prompt_eval_count or 0,
            completion_tokens=count,
            first_token_s=(self._first_at or perf_counter()) - self._asked_at,
            tokens_per_s=count * 1e9 / nanoseconds if nanoseconds else 0.0,
        )

    def _tagged(self, thought: str, said: str) -> str:
        """The text of a piece, with the tags that other models put around their reasoning themselves."""
        opening = "<think>" if thought and not self._thinking else ""
        self._thinking = self._thinking or bool(thought)
        closing = "</think>" if said and self._thinking else ""
        self._thinking = self._thinking and not said
        return opening + thought + closing + said


def _check(request: ChatRequest) -> None:
    """Raises `InvalidRequest` if there is nothing to answer, or something is asked for that Ollama does not do."""
    if not any(request.prompts or request.messages):
        raise errors.InvalidRequest("There is nothing to answer: the prompt or conversation is empty.")
    sampling = request.sampling
    beyond = {
        "more than one answer": sampling.count > 1 or len(request.prompts) > 1,
        "a prompt of token numbers": any(not isinstance(prompt, str) for prompt in request.prompts),
        "logit_bias": sampling.logit_bias,
        "logprobs": sampling.logprobs is not None,
        "tools": request.tools,
    }
    if asked := [name for name, wanted in beyond.items() if wanted]:
        raise errors.InvalidRequest(f"A model in Ollama cannot be asked for {' and '.join(asked)}.")


def _texts(part: "Part") -> tuple[str, str]:
    """What a piece holds of the reasoning and of the answer."""
    if hasattr(part, "message"):
        return part.message.thinking or "", part.message.content or ""
    return part.thinking or "", part.response or ""


def _load_error(name: str, status: int, said: str) -> errors.MiLLMError:
    if status == 404:
        return errors.LoadFailed(f"Ollama no longer has the model '{name}'. Download it again.")
    if status == 400:
        return errors.UnsupportedModel(f"Ollama cannot use '{name}' like that: {said}.")
    return errors.LoadFailed(f"Ollama could not load '{name}': {said}.")


def _answer_error(name: str, status: int, said: str) -> errors.MiLLMError:
    if status == 404:
        return errors.ModelNotFound(f"Ollama no longer has the model '{name}'. Download it again.")
    if status == 400:
        return errors.InvalidRequest(f"Ollama refuses the request: {said}.")
    if status == 503:
        return errors.QueueFull("Too many requests are waiting in Ollama. Try again shortly.")
    return errors.OllamaUnavailable(f"Ollama could not answer: {said}.")


def _embed_error(name: str, status: int, said: str) -> errors.MiLLMError:
    if "context length" in said:
        return errors.ContextLengthExceeded(f"Ollama refuses the request: {said}.", field="input")
    return _answer_error(name, status, said)
