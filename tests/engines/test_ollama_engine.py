"""The engine of millm/engines/ollama.py; the name of tests/sources/test_ollama.py is taken, and pytest wants two."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from ollama_server import Fault, Model, OllamaServer
from serving import AT_ONCE_S, until

from millm.engines.base import WELL, ChatRequest, Completion, EmbedRequest, Engine, LoadOptions, Message, Sampling
from millm.engines.ollama import open_ollama
from millm.errors import (
    Cancelled,
    ContextLengthExceeded,
    InvalidRequest,
    LoadFailed,
    MiLLMError,
    ModelNotFound,
    ModelNotLoaded,
    OllamaUnavailable,
    QueueFull,
    UnsupportedModel,
)
from millm.events import Event, Stage
from millm.records import ModelRecord, ModelType, Source

pytestmark = pytest.mark.slow

RECORD = ModelRecord(name="llama3-8b", source=Source.OLLAMA, repo_id="llama3:8b")


class Watcher:
    """A report that keeps what it is told, and cancels as soon as `stop` says so."""

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self.events: list[Event] = []
        self._stop = stop

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if self._stop():
            raise Cancelled


@pytest.fixture
def server() -> Iterator[OllamaServer]:
    with OllamaServer(models={"llama3:8b": Model()}) as running:
        yield running


def load(server: OllamaServer, report: Watcher | None = None, context_length: int | None = None) -> Engine:
    options = LoadOptions(Path("nowhere"), context_length)
    return open_ollama(RECORD, options, report or Watcher(), server.host)


def ask(text: str, **sampling: object) -> ChatRequest:
    return ChatRequest((Message("user", text),), sampling=Sampling(**sampling))


def test_a_load_warms_the_model_and_keeps_it(server: OllamaServer) -> None:
    watcher = Watcher()
    engine = load(server, watcher, context_length=2048)
    assert server.memory == {"llama3:8b": -1}
    assert server.bodies("/api/generate")[0]["options"] == {"num_ctx": 2048}
    assert engine.memory_bytes == Model().size
    assert engine.rows() is None  # which the server does not tell
    assert watcher.events[0].stage is Stage.LOADING_WEIGHTS
    assert watcher.events[-1] == Event(Stage.WARMING_UP, 100.0)


def test_health_follows_the_server_and_the_model(server: OllamaServer) -> None:
    engine = open_ollama(RECORD, LoadOptions(Path("nowhere")), Watcher(), server.host, every_s=0.05)
    until(lambda: engine.health == WELL and server.bodies("/api/show"))
    model = server.models.pop("llama3:8b")
    until(lambda: "no longer has the model 'llama3:8b'" in str(engine.health.problem))
    server.models["llama3:8b"] = model
    until(lambda: engine.health == WELL)
    server.refusals["/api/show"] = (500, "the disk is broken")
    until(lambda: "the disk is broken" in str(engine.health.problem))
    engine.close()
    asked = len(server.bodies("/api/show"))
    for _ in range(4):
        time.sleep(0.06)
        assert engine.health.problem
    assert len(server.bodies("/api/show")) == asked, "somebody asks on"


def test_what_an_answer_shows_of_the_server_counts_at_once(server: OllamaServer) -> None:
    engine = open_ollama(RECORD, LoadOptions(Path("nowhere")), Watcher(), server.host, every_s=3600)
    server.refusals = {"/api/chat": (500, "out of order"), "/api/show": (500, "out of order")}
    assert engine.health == WELL, "nothing is known yet"
    with pytest.raises(OllamaUnavailable, match="out of order"):
        engine.chat(ask("Hello!"), Watcher())
    until(lambda: engine.health.problem)
    del server.refusals["/api/chat"]
    engine.chat(ask("Hello!"), Watcher())
    assert engine.health == WELL
    assert len(server.bodies("/api/show")) == 1
    engine.close()


def test_a_server_that_went_away_is_said_before_anybody_asks_it() -> None:
    with OllamaServer(models={"llama3:8b": Model()}) as running:
        engine = open_ollama(RECORD, LoadOptions(Path("nowhere")), Watcher(), running.host, every_s=0.05)
    until(lambda: "Ollama does not answer" in str(engine.health.problem))
    engine.close()


def test_closing_gives_the_memory_back(server: OllamaServer) -> None:
    engine = load(server)
    engine.close()
    assert server.memory == {}
    assert "llama3:8b" in server.models
    with pytest.raises(ModelNotLoaded):
        engine.chat(ask("hello"), Watcher())


def test_closing_is_no_error_when_the_server_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    with OllamaServer(models={"llama3:8b": Model()}) as server:
        engine = load(server)
    engine.close()
    assert "may still be in Ollama's memory" in caplog.text


def test_a_chat_streams_its_pieces(server: OllamaServer) -> None:
    watcher = Watcher()
    answer = load(server).chat(ask("hello there"), watcher)
    assert answer == Completion("You said: hello there", "stop", 2, 4, answer.first_token_s, 100.0)
    assert 0 < answer.first_token_s < AT_ONCE_S
    pieces = [(event.text, event.tokens) for event in watcher.events if event.text]
    assert pieces == [("You", 1), (" said:", 2), (" hello", 3), (" there", 4)]
    assert {event.stage for event in watcher.events} == {Stage.GENERATING}


def test_the_request_is_passed_on(server: OllamaServer) -> None:
    engine = load(server, context_length=1024)
    turns = tuple(Message(role, f"{role} says") for role in ("system", "user", "assistant", "user"))
    sampling = Sampling(temperature=0.3, top_p=0.8, top_k=20, max_tokens=9, stop=("###",), seed=7)
    sampling = replace(sampling, min_p=0.1, frequency_penalty=0.5, presence_penalty=-0.5, repetition_penalty=1.1)
    engine.chat(ChatRequest(turns, sampling=sampling), Watcher())
    sent = server.bodies("/api/chat")[0]
    assert sent["messages"] == [{"role": turn.role, "content": turn.content} for turn in turns]
    assert (sent["model"], sent["stream"], sent["keep_alive"]) == ("llama3:8b", True, -1)
    assert sent["options"] == {
        "num_ctx": 1024,
        "temperature": 0.3,
        "top_p": 0.8,
        "top_k": 20,
        "min_p": 0.1,
        "frequency_penalty": 0.5,
        "presence_penalty": -0.5,
        "repeat_penalty": 1.1,
        "num_predict": 9,
        "stop": ["###"],
        "seed": 7,
    }


def test_what_was_not_chosen_is_not_made_up(server: OllamaServer) -> None:
    load(server).chat(ask("hello"), Watcher())
    options = server.bodies("/api/chat")[0]["options"]
    assert options["num_predict"] == -1
    assert not {"seed", "num_ctx"} & set(options)


def test_a_prompt_is_gone_on_with_as_it_stands(server: OllamaServer) -> None:
    server.answers["Once upon"] = [" a", " time"]
    answer = load(server).chat(ChatRequest(prompts=("Once upon",)), Watcher())
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == (" a time", 2, 2)
    sent = server.bodies("/api/generate")[-1]
    assert (sent["prompt"], sent["raw"]) == ("Once upon", True)


def test_stop_and_length_end_an_answer(server: OllamaServer) -> None:
    engine = load(server)
    stopped = engine.chat(ask("one STOP two", stop=("STOP",)), Watcher())
    assert (stopped.text.strip(), stopped.finish_reason) == ("You said: one", "stop")
    short = engine.chat(ask("one two three", max_tokens=3), Watcher())
    assert (short.text, short.finish_reason, short.completion_tokens) == ("You said: one", "length", 3)


def test_every_script_comes_through(server: OllamaServer) -> None:
    server.answers["日本?"] = pieces = ["Grüße", " 👩‍👩‍👧", " 日本", "\N{NO-BREAK SPACE}", ' "\\n\t', "\n"]
    watcher = Watcher()
    answer = load(server).chat(ask("日本?"), watcher)
    assert answer.text == "".join(pieces)
    assert [event.text for event in watcher.events if event.text] == pieces


def test_reasoning_stands_in_tags_before_the_answer(server: OllamaServer) -> None:
    server.thoughts = ["Let me", " see."]
    engine = load(server)
    assert engine.chat(ask("hi"), Watcher()).text == "<think>Let me see.</think>You said: hi"
    assert engine.chat(ask("hi", max_tokens=1), Watcher()).text == "<think>Let me"


def test_an_answer_may_be_empty(server: OllamaServer) -> None:
    assert load(server).chat(ask("hello", max_tokens=0), Watcher()).text == ""


def test_many_chats_at_once(server: OllamaServer) -> None:
    engine = load(server)
    server.fault = Fault("/api/chat", "slow", pause=0.3)
    since = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: engine.chat(ask(f"number {n}"), Watcher()).text, range(8)))
    assert answers == [f"You said: number {n}" for n in range(8)]
    assert time.monotonic() - since < 8  # one after the other they would take 12 s


@pytest.mark.parametrize("after", [0, 2], ids=["before the first token", "between tokens"])
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_a_cancel_ends_a_silent_answer(server: OllamaServer, path: str, after: int) -> None:
    engine = load(server)
    server.fault = Fault(path, "silent", after)
    request = ask("hello") if path == "/api/chat" else ChatRequest(prompts=("hello",))
    said = "You said:" if after else ""
    watcher = Watcher(lambda: bool(server.silent) and "".join(event.text for event in watcher.events) == said)
    with pytest.raises(Cancelled):
        engine.chat(request, watcher)
    assert time.monotonic() - server.silent[0] < AT_ONCE_S
    assert server.left()
    assert server.gone[0] - server.silent[0] < AT_ONCE_S


def test_a_cancel_ends_an_answer_that_talks(server: OllamaServer) -> None:
    engine = load(server)
    server.fault = Fault("/api/chat", "slow", pause=0.02)
    watcher = Watcher(lambda: len(watcher.events) > 2)
    with pytest.raises(Cancelled):
        engine.chat(ask("a b c d e f"), watcher)
    assert len(watcher.events) == 3


def test_one_cancel_leaves_the_others_alone(server: OllamaServer) -> None:
    engine = load(server)
    server.fault = Fault("/api/chat", "slow", pause=0.05)
    with ThreadPoolExecutor(2) as threads:
        gone = threads.submit(engine.chat, ask("first"), Watcher(lambda: True))
        kept = threads.submit(engine.chat, ask("second"), Watcher())
    assert kept.result().text == "You said: second"
    assert isinstance(gone.exception(), Cancelled)


@pytest.mark.parametrize("path", ["/api/generate", "/api/ps"])
def test_a_cancel_ends_a_load(server: OllamaServer, path: str) -> None:
    server.fault = Fault(path, "silent")
    with pytest.raises(Cancelled):
        load(server, Watcher(lambda: bool(server.silent)))
    assert time.monotonic() - server.silent[0] < AT_ONCE_S
    assert server.left()
    assert server.memory == {}


@pytest.mark.parametrize(
    ("refusal", "kind", "message"),
    [
        ((404, "model 'llama3:8b' not found"), LoadFailed, "Ollama no longer has the model 'llama3:8b'"),
        ((400, '"llama3:8b" does not support generate'), UnsupportedModel, "does not support generate"),
        ((500, "model requires more system memory"), LoadFailed, "could not load .* more system memory"),
    ],
)
def test_a_load_that_fails_says_why(
    server: OllamaServer, refusal: tuple[int, str], kind: type[MiLLMError], message: str
) -> None:
    server.refusals["/api/generate"] = refusal
    with pytest.raises(kind, match=message):
        load(server)


def test_models_that_cannot_be_loaded(server: OllamaServer) -> None:
    server.models["llama3:8b"] = Model(generates=False)
    with pytest.raises(UnsupportedModel):
        load(server)
    server.models.clear()
    with pytest.raises(LoadFailed, match="Download it again"):
        load(server)


@pytest.mark.parametrize(
    ("refusal", "kind", "message"),
    [
        ((404, "model not found"), ModelNotFound, "no longer has"),
        ((400, '"llama3:8b" does not support chat'), InvalidRequest, "refuses the request: .*support chat"),
        ((503, "server busy"), QueueFull, "Try again shortly"),
        ((500, "llama runner process has terminated"), OllamaUnavailable, "runner process has terminated"),
    ],
)
def test_a_chat_that_fails_says_why(
    server: OllamaServer, refusal: tuple[int, str], kind: type[MiLLMError], message: str
) -> None:
    engine = load(server)
    server.refusals["/api/chat"] = refusal
    with pytest.raises(kind, match=message):
        engine.chat(ask("hello"), Watcher())


@pytest.mark.parametrize(
    ("kind", "message"),
    [("drop", "connection to Ollama .* lost"), ("error", "something broke"), ("end", "broke off")],
)
def test_an_answer_that_breaks_off_is_an_error(server: OllamaServer, kind: str, message: str) -> None:
    engine = load(server)
    server.fault = Fault("/api/chat", kind, after=2)
    with pytest.raises(OllamaUnavailable, match=message):
        engine.chat(ask("hello"), Watcher())
    server.fault = None
    assert engine.chat(ask("hello"), Watcher()).text == "You said: hello"


@pytest.mark.parametrize("request_", [ChatRequest(), ChatRequest(prompts=("",))], ids=["no turn", "no text"])
def test_nothing_to_answer(server: OllamaServer, request_: ChatRequest) -> None:
    engine = load(server)
    server.seen.clear()
    with pytest.raises(InvalidRequest):
        engine.chat(request_, Watcher())
    assert server.seen == []


def test_says_how_to_start_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(OllamaUnavailable) as caught:
        open_ollama(RECORD, LoadOptions(Path("nowhere")), Watcher(), host)
    assert caught.value.message == (
        f"Ollama does not answer at {host}. Start it with `ollama serve`, or set OLLAMA_HOST."
    )


def embedder(server: OllamaServer) -> Engine:
    record = RECORD.with_(model_type=ModelType.EMBEDDING)
    return open_ollama(record, LoadOptions(Path("nowhere"), 512), Watcher(), server.host)


def test_a_model_that_only_embeds_is_loaded_and_unloaded_by_embedding(server: OllamaServer) -> None:
    server.models["llama3:8b"] = Model(generates=False)
    engine = embedder(server)
    assert server.memory == {"llama3:8b": -1}
    assert engine.memory_bytes == Model().size
    engine.close()
    assert server.memory == {}
    assert [body["options"] for body in server.bodies("/api/embed")[:1]] == [{"num_ctx": 512}]
    with pytest.raises(ModelNotLoaded):
        engine.embed(EmbedRequest(("a",)), Watcher())


def test_embeddings_come_in_the_order_of_the_texts(server: OllamaServer) -> None:
    for engine in (embedder(server), load(server)):
        found = engine.embed(EmbedRequest(("hello", "hello big world"), 3), Watcher())
        assert [list(vector) for vector in found.vectors] == [[5.0, 0.5, -2.0], [15.0, 0.5, -2.0]]
        assert found.prompt_tokens == 4
        sent = server.bodies("/api/embed")[-1]
        assert (sent["input"], sent["truncate"]) == (["hello", "hello big world"], False)
        assert (sent["dimensions"], sent["keep_alive"]) == (3, -1)


def test_embeddings_that_ollama_cannot_make_say_why(server: OllamaServer) -> None:
    engine = load(server)
    with pytest.raises(ContextLengthExceeded, match="exceeds maximum context length"):
        engine.embed(EmbedRequest(("one two three four five",)), Watcher())
    with pytest.raises(InvalidRequest, match="tokens"):
        engine.embed(EmbedRequest(((1, 2),)), Watcher())
    server.models["llama3:8b"] = Model(embeds=False)
    with pytest.raises(OllamaUnavailable, match="does not support embeddings"):
        engine.embed(EmbedRequest(("a",)), Watcher())


def test_embeddings_can_be_cancelled_while_the_server_is_silent(server: OllamaServer) -> None:
    engine = load(server)
    server.fault = Fault("/api/embed", "silent")
    watcher = Watcher(lambda: len(watcher.events) > 1)
    with pytest.raises(Cancelled):
        engine.embed(EmbedRequest(("a",)), watcher)
    assert server.left()
