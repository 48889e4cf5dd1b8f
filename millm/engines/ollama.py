"""A model that an Ollama server runs: requests are passed on to it, answers streamed back."""

import asyncio
import json
import logging
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from millm import errors
from millm.engines.base import ChatRequest, Completion, Embeddings, EmbedRequest, Engine, Health, LoadOptions, Usage
from millm.engines.pulse import EVERY_S, Pulse
from millm.engines.relay import Answers, Piece, RelayEngine, check_asked, refusal, waited_for
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


def open_ollama(
    record: ModelRecord, options: LoadOptions, report: Report, host: str, every_s: float = EVERY_S
) -> Engine:
    """Has the server at `host` load a model and keep it until the engine is closed; see `Opener`.

    every_s: see `Pulse`.

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
    return OllamaEngine(server, sizes[-1], every_s)


class OllamaEngine(RelayEngine):
    """A model in an Ollama server. It is an `Engine`; the server decides how many answers it makes at once.

    memory_bytes: what the server says that the model takes, 0 if it does not say.
    """

    def __init__(self, server: "_Server", memory_bytes: int, every_s: float) -> None:
        super().__init__(memory_bytes)
        self._server = server
        self._pulse = Pulse(server.look, every_s)

    @property
    def health(self) -> Health:
        """Whether the server answers and has the model, as far as is known."""
        return self._pulse.read()

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        """Answers; see `Engine.chat`. Where reasoning is not told apart it comes first, between think tags.

        Raises:
            ModelNotLoaded: the engine was closed.
            ModelNotFound: the model is no longer in Ollama.
            QueueFull: the server has too many requests waiting.
            OllamaUnavailable: the server does not answer, or broke off.
        """
        self._check_open()
        _check(request)
        answers, parts, server = Answers(report, request.parsed), list[Any](), self._server

        def hear(part: "Part") -> None:
            self._pulse.beat()
            parts[:] = [part]
            answers.hear(_piece(part))

        self._run(lambda client: attend(server.answer(client, request), hear, answers.tick), _answer_error)
        if not answers.ended:
            self._pulse.doubt()
            raise errors.OllamaUnavailable("Ollama broke off in the middle of the answer.")
        return answers.completion(*_counts(parts[-1]))

    def embed(self, request: EmbedRequest, report: Report) -> Embeddings:
        """Embeds; see `Engine.embed`. Raises what `chat` raises, and for tokens `InvalidRequest`."""
        self._check_open()
        if not all(isinstance(text, str) for text in request.inputs):
            raise errors.InvalidRequest("A model in Ollama cannot be asked for tokens to be embedded.", field="input")
        server = self._server

        def ask(hear: "Callable[[ollama.EmbedResponse], None]", tick: Callable[[], None]) -> None:
            self._run(lambda client: attend(server.embed(client, request), hear, tick), _embed_error)

        found = waited_for(ask, report)
        return Embeddings(tuple(array("f", vector) for vector in found.embeddings), found.prompt_eval_count or 0)

    def close(self) -> None:
        """Has the server give the memory back."""
        self._closed = True
        self._pulse.close()
        self._server.unload(CONNECT_S)

    def _run(self, work: "Callable[[ollama.AsyncClient], Coroutine[Any, Any, T]]", failed: Failed) -> None:
        try:
            self._server.run(work, failed)
        except (errors.OllamaUnavailable, errors.ModelNotFound):
            self._pulse.doubt()
            raise


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

    def look(self, check: Callable[[], None]) -> None:
        """Asks the server for the model; `check` is called meanwhile.

        Raises:
            ModelNotFound: it no longer has it.
            OllamaUnavailable: it does not answer in time, or fails.
        """

        async def show(client: "ollama.AsyncClient") -> AsyncIterator[object]:
            async with asyncio.timeout(CONNECT_S):
                yield await client.show(self._name)

        self.run(lambda client: attend(show(client), lambda _: None, check), _answer_error)

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


def _check(request: ChatRequest) -> None:
    """Raises `InvalidRequest` if there is nothing to answer, or something is asked for that Ollama does not do."""
    sampling = request.sampling
    beyond: dict[str, object] = {
        "more than one answer": sampling.count > 1 or len(request.prompts) > 1,
        "a prompt of token numbers": any(not isinstance(prompt, str) for prompt in request.prompts),
        "logit_bias": sampling.logit_bias,
        "logprobs": sampling.logprobs is not None,
        "tools": request.tools,
    }
    check_asked(request, "in Ollama", beyond)


def _piece(part: "Part") -> Piece:
    """What a piece holds of the reasoning and of the answer."""
    said = part.message if hasattr(part, "message") else part
    text = said.content if hasattr(said, "content") else said.response
    reason = ("length" if part.done_reason == "length" else "stop") if part.done else ""
    return Piece(text or "", said.thinking or "", reason=reason)


def _counts(last: "Part") -> tuple[Usage | None, float | None]:
    """What the server says of an answer at its end: tokens, and how many a second; None where it does not say."""
    count, nanoseconds = last.eval_count, last.eval_duration
    usage = None if count is None else Usage(last.prompt_eval_count or 0, 0, count)
    return usage, count * 1e9 / nanoseconds if count and nanoseconds else None


def _load_error(name: str, status: int, said: str) -> errors.MiLLMError:
    if status == 404:
        return errors.LoadFailed(f"Ollama no longer has the model '{name}'. Download it again.")
    if status == 400:
        return errors.UnsupportedModel(f"Ollama cannot use '{name}' like that: {said}.")
    return errors.LoadFailed(f"Ollama could not load '{name}': {said}.")


def _answer_error(name: str, status: int, said: str, field: str | None = None) -> errors.MiLLMError:
    return refusal("Ollama", name, status, said, errors.OllamaUnavailable, "Download it again.", field)


def _embed_error(name: str, status: int, said: str) -> errors.MiLLMError:
    return _answer_error(name, status, said, "input")
