"""A model of an OpenAI-compatible server: requests are passed on to it, answers streamed back."""

from array import array
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from millm import errors
from millm.engines.base import ChatRequest, Completion, Embeddings, EmbedRequest, Engine, Health, LoadOptions, Usage
from millm.engines.pulse import EVERY_S, Pulse
from millm.engines.relay import Answers, RelayEngine, check_asked, refusal, waited_for
from millm.engines.remote_wire import Json, chat_fields, pieces, text_fields, usage_of
from millm.events import Event, Report, Stage
from millm.loops import attend
from millm.records import ModelRecord
from millm.remote_client import Servers

if TYPE_CHECKING:
    import openai

AGAIN = "See which models it has, and add the one you want on the Download tab."
TOO_LONG = "context_length_exceeded"  # as OpenAI calls it
PATIENCE_S = 5.0  # for the sign of life that `health` waits for in the background


def open_remote(
    record: ModelRecord, options: LoadOptions, report: Report, servers: Servers, every_s: float = EVERY_S
) -> Engine:
    """Makes sure that a server answers; see `Opener`. every_s: see `Pulse`.

    Raises:
        LoadFailed: the settings ask for what only the server decides.
        RemoteUnavailable: it does not answer, or wants another key.
    """
    engine = RemoteEngine(servers, str(record.url), str(record.repo_id), every_s)
    beyond = {"a context length": options.context_length, "an adapter": options.adapter}
    if asked := [name for name, wanted in beyond.items() if wanted]:
        raise errors.LoadFailed(
            f"'{record.name}' runs at a server, which decides itself about {' and '.join(asked)}. Leave it out."
        )
    loading = Event(Stage.LOADING_WEIGHTS)
    report(loading)
    import openai  # noqa: F401  (takes half a second: better now than in the first answer)

    engine.look(lambda: report(loading))
    report(Event(Stage.WARMING_UP, 100.0))
    return engine


class RemoteEngine(RelayEngine):
    """The model `name` of the server at `address`. It is an `Engine`; the server decides what it does at once."""

    def __init__(self, servers: Servers, address: str, name: str, every_s: float = EVERY_S) -> None:
        super().__init__(memory_bytes=0)
        self._servers = servers
        self._address = address
        self._name = name
        self._listed = False
        self._pulse = Pulse(partial(self.look, seconds=PATIENCE_S), every_s)

    @property
    def health(self) -> Health:
        """Whether the server answers, as far as is known."""
        return self._pulse.read()

    def look(self, check: Callable[[], None], seconds: float | None = None) -> None:
        """Asks the server for a sign of life; `check` is called meanwhile.

        Raises:
            LoadFailed: it has listed the model before, and lists it no longer.
            RemoteUnavailable: it does not answer, within `seconds`, or wants another key.
        """
        client = self._servers.client(self._address)
        names = client.names(check) if seconds is None else client.names(check, seconds)
        listed = names is not None and self._name in names
        if self._listed and not listed:
            raise errors.LoadFailed(f"{client.who} no longer has the model '{self._name}'. {AGAIN}")
        self._listed = listed

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        """Answers; see `Engine.chat`. Of what is asked for, the server may refuse anything.

        Raises:
            ModelNotLoaded: the engine was closed.
            ModelNotFound: the server no longer has the model.
            InvalidRequest: the server refuses the request, in its own words.
            QueueFull: it has too many requests waiting.
            RemoteUnavailable: it does not answer, broke off, or wants another key.
        """
        self._check_open()
        check_asked(request, "at a server", {"a schema for plain texts": request.prompts and request.schema})
        answers = Answers(report, request.parsed)
        try:
            return self._answered(request, answers)
        except errors.ContextLengthExceeded:
            if answers.begun or not request.sampling.clip or request.sampling.max_tokens is None:
                raise
        # fewer tokens will do: without a number the server gives what its context has room for
        return self._answered(replace(request, sampling=replace(request.sampling, max_tokens=None)), answers)

    def embed(self, request: EmbedRequest, report: Report) -> Embeddings:
        """Embeds; see `Engine.embed`. Raises what `chat` raises, and UnsupportedModel where it does not embed."""
        self._check_open()

        def ask(hear: Callable[[Json], None], tick: Callable[[], None]) -> None:
            self._run(lambda client: attend(self._vectors(client, request), hear, tick), "embed")

        return self._embeddings(waited_for(ask, report), len(request.inputs))

    def close(self) -> None:
        """Lets the server be."""
        self._closed = True
        self._pulse.close()

    def _answered(self, request: ChatRequest, answers: Answers) -> Completion:
        usage: list[Usage] = []

        def hear(chunk: Json) -> None:
            self._pulse.beat()
            usage.extend(filter(None, [usage_of(chunk)]))
            for piece in pieces(chunk):
                answers.hear(piece)

        self._run(lambda client: attend(self._chunks(client, request), hear, answers.tick))
        wanted = request.sampling.count * max(1, len(request.prompts))
        if answers.going or not answers.ended:
            self._pulse.doubt()
            raise errors.RemoteUnavailable(f"{self._who} broke off in the middle of the answer.")
        if answers.ended < wanted:
            raise errors.InvalidRequest(
                f"{self._who} gave {answers.ended} of {wanted} answers: it does not give several at once.", field="n"
            )
        return answers.completion(usage[-1] if usage else None)

    async def _chunks(self, client: "openai.AsyncOpenAI", request: ChatRequest) -> AsyncIterator[Json]:
        """The chunks of an answer as the server sends them."""
        told: Any = {"stream": True, "stream_options": {"include_usage": True}}
        create: Any = client.completions.create if request.prompts else client.chat.completions.create
        fields = text_fields(request, self._name) if request.prompts else chat_fields(request, self._name)
        async with await create(**fields, **told) as stream:
            async for chunk in stream:
                yield self._plain(chunk)

    async def _vectors(self, client: "openai.AsyncOpenAI", request: EmbedRequest) -> AsyncIterator[Json]:
        inputs: Any = [text if isinstance(text, str) else list(text) for text in request.inputs]
        wanted: Any = {} if request.dimensions is None else {"dimensions": request.dimensions}
        yield self._plain(
            await client.embeddings.create(model=self._name, input=inputs, encoding_format="float", **wanted)
        )

    def _embeddings(self, told: Json, count: int) -> Embeddings:
        try:
            entries = sorted(told["data"], key=lambda entry: int(entry["index"]))
            vectors = tuple(array("f", entry["embedding"]) for entry in entries)
        except (KeyError, TypeError, ValueError) as error:
            raise self._servers.client(self._address).strange() from error
        if len(vectors) != count:
            raise errors.RemoteUnavailable(f"{self._who} gave {len(vectors)} vectors for {count} texts.")
        usage = usage_of(told)
        return Embeddings(vectors, usage.prompt_tokens if usage else 0)

    def _run(self, work: Callable[["openai.AsyncOpenAI"], Any], kind: str = "chat") -> None:
        try:
            self._servers.client(self._address).run(work, partial(self._refused, kind))
        except errors.RemoteUnavailable:
            self._pulse.doubt()
            raise

    def _refused(self, kind: str, status: int, said: str, code: str) -> errors.MiLLMError:
        if kind == "embed" and status in (404, 405, 501) and self._name not in said:
            return errors.UnsupportedModel(f"{self._who} makes no embeddings with '{self._name}': {said}.")
        field = "input" if kind == "embed" else None
        if code == TOO_LONG:
            return errors.ContextLengthExceeded(
                f"{self._who} refuses the request: {said}.", **({"field": field} if field else {})
            )
        return refusal(self._who, self._name, status, said, errors.RemoteUnavailable, AGAIN, field)

    def _plain(self, answer: Any) -> Json:
        """An answer of the client as plain JSON values, whatever the server sent."""
        made = answer.to_dict(warnings=False) if hasattr(answer, "to_dict") else answer
        if not isinstance(made, dict):
            raise self._servers.client(self._address).strange()
        return made

    @property
    def _who(self) -> str:
        return self._servers.client(self._address).who
