"""The engine of millm/engines/remote.py; the name of tests/sources/test_remote.py is taken, and pytest wants two."""

import socket
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from making import nowhere
from remote_server import Fault, RemoteServer
from running import PATIENCE_S
from serving import AT_ONCE_S, until

from millm.engines.base import ChatRequest, EmbedRequest, Engine, LoadOptions, Message, Sampling
from millm.engines.remote import open_remote
from millm.errors import (
    Cancelled,
    ContextLengthExceeded,
    InvalidRequest,
    LoadFailed,
    MiLLMError,
    ModelNotFound,
    ModelNotLoaded,
    QueueFull,
    RemoteUnavailable,
    UnsupportedModel,
)
from millm.events import Call, Event, Stage
from millm.records import ModelRecord, Source
from millm.remote_client import Servers

pytestmark = pytest.mark.slow

CHAT = "/chat/completions"
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


class Watcher:
    """A report that keeps what it is told, and cancels as soon as `stop` says so."""

    def __init__(self, stop: Callable[["Watcher"], bool] = lambda _: False) -> None:
        self.events: list[Event] = []
        self._stop = stop

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if self._stop(self):
            raise Cancelled


@pytest.fixture
def server() -> Iterator[RemoteServer]:
    with RemoteServer() as running:
        yield running


@pytest.fixture
def load() -> Iterator[Callable[..., Engine]]:
    opened: list[Engine] = []

    def open_one(server: RemoteServer, key: str = "", every_s: float = 60, **options: Any) -> Engine:
        servers = Servers(allow_private=True)
        if key:
            servers.keep_key(server.url, key)
        record = ModelRecord(name="mine", source=Source.REMOTE, url=server.url, repo_id="tiny")
        opened.append(open_remote(record, LoadOptions(Path("nowhere"), **options), Watcher(), servers, every_s))
        return opened[-1]

    yield open_one
    for engine in opened:
        engine.close()


def ask(text: str = "hello there", **sampling: object) -> ChatRequest:
    return ChatRequest((Message("user", text),), sampling=Sampling(**sampling))


def test_an_answer_comes_in_pieces_and_as_a_whole(server: RemoteServer, load: Callable[..., Engine]) -> None:
    watcher = Watcher()
    completion = load(server).chat(ask(), watcher)
    assert completion.text == "You said: hello there"
    assert (completion.finish_reason, completion.prompt_tokens, completion.completion_tokens) == ("stop", 2, 4)
    assert completion.cached_tokens == 1
    said = [event for event in watcher.events if event.text]
    assert [event.text for event in said] == ["You", " said:", " hello", " there"]
    assert [event.tokens for event in said] == [1, 2, 3, 4]


def test_a_server_that_counts_no_tokens_has_its_pieces_counted(
    server: RemoteServer, load: Callable[..., Engine]
) -> None:
    server.usage = False
    completion = load(server).chat(ask(), Watcher())
    assert (completion.prompt_tokens, completion.completion_tokens) == (0, 4)


def test_what_nobody_said_is_not_sent(server: RemoteServer, load: Callable[..., Engine]) -> None:
    request = replace(ask(), unsaid=frozenset({"temperature", "top_p", "top_k", "max_tokens"}))
    load(server).chat(request, Watcher())
    assert server.asked(CHAT) == [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "hello there"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_what_was_said_is_sent_and_what_is_not_of_openai_only_where_it_changes_something(
    server: RemoteServer, load: Callable[..., Engine]
) -> None:
    engine = load(server)
    engine.chat(ask(), Watcher())
    assert server.asked(CHAT)[-1] | {"temperature": 1.0, "top_p": 1.0} == server.asked(CHAT)[-1]
    assert not {"top_k", "min_p", "repetition_penalty"} & server.asked(CHAT)[-1].keys()
    wanted = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.5, "max_tokens": 3}
    wanted |= {"frequency_penalty": 0.25, "presence_penalty": -0.5, "seed": 11}
    engine.chat(ask(**wanted, stop=("a", "b"), logit_bias=((5, -1.0),), logprobs=2), Watcher())
    body = server.asked(CHAT)[-1]
    assert {name: body[name] for name in wanted} == wanted
    assert (body["stop"], body["logit_bias"], body["logprobs"], body["top_logprobs"]) == (
        ["a", "b"],
        {"5": -1.0},
        True,
        2,
    )


def test_tools_and_what_was_called_before_are_passed_on(server: RemoteServer, load: Callable[..., Engine]) -> None:
    turns = (
        Message("user", "1 and 2?"),
        Message("assistant", "", (Call("c1", "add", '{"a": 1}'),)),
        Message("tool", "3", call_id="c1"),
    )
    request = ChatRequest(turns, tools=(TOOL,), tool_choice="add", parallel=False, parsed=True)
    engine = load(server)
    engine.chat(request, Watcher())
    body = server.asked(CHAT)[0]
    called = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    assert body["messages"][1:] == [
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
    ]
    assert (body["tools"], body["parallel_tool_calls"]) == ([TOOL], False)
    assert body["tool_choice"] == {"type": "function", "function": {"name": "add"}}
    engine.chat(replace(request, tool_choice="required", parallel=True), Watcher())
    assert server.asked(CHAT)[1]["tool_choice"] == "required"
    assert "parallel_tool_calls" not in server.asked(CHAT)[1]


@pytest.mark.parametrize(
    ("schema", "form"),
    [
        ('{"type": "object"}', {"type": "json_object"}),
        (
            '{"type": "array"}',
            {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "array"}}},
        ),
    ],
    ids=["any", "schema"],
)
def test_a_schema_is_passed_on(server: RemoteServer, load: Callable[..., Engine], schema: str, form: object) -> None:
    load(server).chat(replace(ask(), schema=schema), Watcher())
    assert server.asked(CHAT)[0]["response_format"] == form


def test_calls_are_put_together(server: RemoteServer, load: Callable[..., Engine]) -> None:
    server.answers["add"] = [
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "add", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]},
        {"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "sub", "arguments": "{}"}}]},
    ]
    watcher = Watcher()
    completion = load(server).chat(replace(ask("add"), tools=(TOOL,), parsed=True), watcher)
    assert completion.calls == (Call("c1", "add", '{"a": 1}'), Call("c2", "sub", "{}"))
    assert completion.finish_reason == "tool_calls"
    assert [event.calls for event in watcher.events if event.calls] == [completion.calls]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_told_apart_where_that_is_asked_for(
    server: RemoteServer, load: Callable[..., Engine], field: str
) -> None:
    server.answers["why"] = [{field: "Hm"}, {field: "m."}, {"content": "So."}]
    engine, watcher = load(server), Watcher()
    parsed = engine.chat(replace(ask("why"), parsed=True), watcher)
    assert (parsed.reasoning, parsed.text) == ("Hmm.", "So.")
    assert "".join(event.reasoning for event in watcher.events) == "Hmm."
    assert engine.chat(ask("why"), Watcher()).text == "<think>Hmm.</think>So."


def test_several_answers_keep_their_places(server: RemoteServer, load: Callable[..., Engine]) -> None:
    request = ChatRequest(prompts=("one", "two words"), sampling=Sampling(count=2, logprobs=1))
    watcher = Watcher()
    completion = load(server).chat(request, watcher)
    whole = (completion, *completion.others)
    assert [answer.text for answer in whole] == ["You said: one"] * 2 + ["You said: two words"] * 2
    assert [[chance.text for chance in answer.chances] for answer in whole][2] == ["You", " said:", " two", " words"]
    assert [other.text for other in completion.chances[0].others] == ["You", "x"]
    usage = completion.usage(2)
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 14)
    assert {event.index for event in watcher.events if event.text} == {0, 1, 2, 3}
    assert server.asked("/completions")[0]["prompt"] == ["one", "two words"]


def test_chances_of_a_chat_and_a_prompt_of_tokens(server: RemoteServer, load: Callable[..., Engine]) -> None:
    engine = load(server)
    chances = engine.chat(ask(logprobs=1), Watcher()).chances
    assert (chances[0].text, chances[0].raw, chances[0].logprob) == ("You", b"You", -0.5)
    assert [len(each.others) for each in chances] == [1] * 4
    assert engine.chat(ChatRequest(prompts=((5, 6),)), Watcher()).text == "You said: [5, 6]"


def test_where_fewer_tokens_will_do_the_server_says_how_many(
    server: RemoteServer, load: Callable[..., Engine]
) -> None:
    engine = load(server)
    said = {"error": {"message": "This model's maximum context length is 8 tokens."}}
    server.refusals["/v1/chat/completions"] = (400, said)
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 8 tokens"):
        engine.chat(ask(max_tokens=5000), Watcher())
    with pytest.raises(ContextLengthExceeded):
        engine.chat(ask(max_tokens=5000, clip=True), Watcher())
    assert [body.get("max_tokens") for body in server.asked(CHAT)] == [5000, 5000, None]


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (
            400,
            {"error": {"message": "temperature is too hot"}},
            InvalidRequest,
            "refuses the request: temperature is",
        ),
        (422, {"detail": "no such field"}, InvalidRequest, "no such field"),
        (404, {"error": {"message": "no such model"}}, ModelNotFound, "no longer has the model 'tiny'"),
        (429, {"error": {"message": "slow down"}}, QueueFull, "too many requests"),
        (503, "busy", QueueFull, "too many requests"),
        (500, {"error": {"message": "out of memory"}}, RemoteUnavailable, "could not answer: out of memory"),
        (502, "", RemoteUnavailable, "could not answer: HTTP 502"),
        (307, "", RemoteUnavailable, "leads elsewhere"),
        (401, {"error": {"message": "no"}}, RemoteUnavailable, "asks for a key. Give it as the server key"),
    ],
)
def test_what_the_server_says_no_with(
    server: RemoteServer, load: Callable[..., Engine], status: int, body: object, kind: type[MiLLMError], message: str
) -> None:
    engine = load(server)
    server.refusals["/v1/chat/completions"] = (status, body)
    with pytest.raises(kind, match=message):
        engine.chat(ask(), Watcher())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("drop", after=2), "broke off the connection"),
        (Fault("end", after=2), "broke off in the middle of the answer"),
        (Fault("end"), "broke off in the middle of the answer"),
        (Fault("error", after=2), "could not answer: something broke"),
        (Fault("odd", after=1, text="{not json"), "does not answer as the OpenAI API does"),
        (Fault("odd", after=1, text='["a list"]'), "does not answer as the OpenAI API does"),
        (Fault("odd", after=1, text='{"choices": [{"delta": 7, "index": "x", "logprobs": []}, 5]}'), "broke off"),
    ],
    ids=["cut", "ended", "ended-at-once", "error", "no-json", "list", "nonsense"],
)
def test_an_answer_that_does_not_come_to_its_end_says_so(
    server: RemoteServer, load: Callable[..., Engine], fault: Fault, message: str
) -> None:
    engine = load(server)
    server.fault = fault
    with pytest.raises(RemoteUnavailable, match=message):
        engine.chat(ask(), Watcher())


def test_a_server_that_gives_one_answer_only_is_found_out(server: RemoteServer, load: Callable[..., Engine]) -> None:
    engine = load(server)
    server.fault = Fault(
        "odd", text='{"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}'
    )
    with pytest.raises(InvalidRequest, match="gave 1 of 2 answers"):
        engine.chat(ask(count=2), Watcher())


def test_a_cancel_is_heard_in_a_silence_and_the_server_is_left(
    server: RemoteServer, load: Callable[..., Engine]
) -> None:
    engine = load(server)
    server.fault = Fault("silent", after=2)
    began: list[float] = []

    def stop(watcher: Watcher) -> bool:
        if len([event for event in watcher.events if event.text]) == 2 and not began:
            began.append(time.monotonic())
            return False
        return bool(began)

    with pytest.raises(Cancelled):
        engine.chat(ask(), Watcher(stop))
    assert time.monotonic() - began[0] < AT_ONCE_S
    until(lambda: server.gone)


def test_nothing_to_answer_and_a_closed_engine(server: RemoteServer, load: Callable[..., Engine]) -> None:
    engine = load(server)
    with pytest.raises(InvalidRequest, match="nothing to answer"):
        engine.chat(ChatRequest(), Watcher())
    engine.close()
    for question in (lambda: engine.chat(ask(), Watcher()), lambda: engine.embed(EmbedRequest(("a",)), Watcher())):
        with pytest.raises(ModelNotLoaded):
            question()


def test_embeddings_are_in_the_order_of_their_texts(server: RemoteServer, load: Callable[..., Engine]) -> None:
    found = load(server).embed(EmbedRequest(("a", "abc"), dimensions=2), Watcher())
    assert [list(vector) for vector in found.vectors] == [[1.0, 0.5], [3.0, 0.5]]
    assert found.prompt_tokens == 2
    body = server.asked("/embeddings")[0]
    assert (body["input"], body["dimensions"], body["encoding_format"]) == (["a", "abc"], 2, "float")


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (404, {"detail": "Not Found"}, UnsupportedModel, "makes no embeddings with 'tiny'"),
        (501, {"error": {"message": "not here"}}, UnsupportedModel, "not here"),
        (404, {"error": {"message": "The model `tiny` does not exist"}}, ModelNotFound, "no longer"),
        (400, {"error": {"message": "maximum context length is 8"}}, ContextLengthExceeded, "maximum"),
        (200, {"data": "none"}, RemoteUnavailable, "as the OpenAI API does"),
        (200, {"data": []}, RemoteUnavailable, "0 vectors for 1 texts"),
    ],
)
def test_what_may_be_wrong_with_embeddings(
    server: RemoteServer, load: Callable[..., Engine], status: int, body: object, kind: type[MiLLMError], message: str
) -> None:
    engine = load(server)
    server.refusals["/v1/embeddings"] = (status, body)
    with pytest.raises(kind, match=message):
        engine.embed(EmbedRequest(("a",)), Watcher())


def test_the_key_is_shown_to_the_server_and_to_nobody_else(
    server: RemoteServer, load: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "sk-of-openai")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Gateway: sk-of-openai")
    load(server).chat(ask(), Watcher())
    assert all("Authorization" not in sent for sent in server.headers)
    server.key = "sesame"
    engine = load(server, key="sesame")
    assert engine.chat(ask(), Watcher()).text == "You said: hello there"
    assert server.headers[-1]["Authorization"] == "Bearer sesame"
    assert "sk-of-openai" not in str(server.headers)
    server.key = "another"
    with pytest.raises(RemoteUnavailable, match="does not accept the key") as caught:
        engine.chat(ask(), Watcher())
    assert "sesame" not in f"{caught.value} {caught.value.details}"
    server.refusals["/v1/chat/completions"] = (400, {"error": {"message": "bad key 'sesame' in header"}})
    with pytest.raises(InvalidRequest, match=r"bad key '\*\*\*' in header"):
        engine.chat(ask(), Watcher())


def test_opening_says_what_is_wrong(server: RemoteServer, load: Callable[..., Engine]) -> None:
    with pytest.raises(LoadFailed, match="a context length"):
        load(server, context_length=4096)
    server.key = "sesame"
    with pytest.raises(RemoteUnavailable, match="asks for a key.*needed again after a restart"):
        load(server)
    server.key = ""
    server.refusals["/v1/models"] = (200, "<html>Hello</html>")
    with pytest.raises(RemoteUnavailable, match="does not answer as the OpenAI API does"):
        load(server)
    server.refusals["/v1/models"] = (503, {"error": {"message": "Loading model"}})
    with pytest.raises(RemoteUnavailable, match="HTTP 503"):
        load(server)


def test_a_server_that_lists_nothing_can_be_used(server: RemoteServer, load: Callable[..., Engine]) -> None:
    server.models = None
    assert load(server).chat(ask(), Watcher()).text == "You said: hello there"


def test_health_follows_the_server_and_nobody_waits_for_it(load: Callable[..., Engine]) -> None:
    with RemoteServer() as server:
        engine, port = load(server, every_s=0.05), server.port
        assert engine.health.problem is None
    began = time.monotonic()
    away = f"The server at 127.0.0.1:{port} does not answer"
    until(lambda: away in str(engine.health.problem))  # a look that was under way was broken off
    with pytest.raises(RemoteUnavailable, match="does not answer"):
        engine.chat(ask(), Watcher())
    assert time.monotonic() - began < PATIENCE_S
    with RemoteServer(port=port) as server:
        until(lambda: engine.health.problem is None)
        server.models = ["another"]
        until(lambda: engine.health.problem)
        assert "no longer has the model 'tiny'" in str(engine.health.problem)
        server.models = ["tiny"]
        until(lambda: engine.health.problem is None)


def test_what_a_request_meets_is_known_at_once(server: RemoteServer, load: Callable[..., Engine]) -> None:
    engine = load(server)  # which would ask again in a minute
    server.fault, server.refusals["/v1/models"] = Fault("end", after=2), (503, {"error": {"message": "leaving"}})
    with pytest.raises(RemoteUnavailable):
        engine.chat(ask(), Watcher())
    until(lambda: engine.health.problem)
    assert "HTTP 503" in str(engine.health.problem)
    server.fault = None
    engine.chat(ask(), Watcher())
    assert engine.health.problem is None, "it has just answered"
    server.refusals["/v1/chat/completions"] = (500, "")
    with pytest.raises(RemoteUnavailable):
        engine.chat(ask(), Watcher())
    until(lambda: engine.health.problem)


def test_a_read_of_health_never_waits_and_a_close_ends_the_question(load: Callable[..., Engine]) -> None:
    with RemoteServer() as server:
        engine = load(server, every_s=0.01)
    with socket.socket() as deaf:  # takes connections and never answers
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deaf.bind(("127.0.0.1", server.port))
        deaf.listen()
        time.sleep(0.02)
        reads = []
        for _ in range(50):
            began = time.monotonic()
            assert engine.health.problem is None
            reads.append(time.monotonic() - began)
        assert statistics.median(reads) < 0.1
        began = time.monotonic()
        engine.close()
        assert time.monotonic() - began < AT_ONCE_S


def test_an_address_where_nobody_is(load: Callable[..., Engine]) -> None:
    server = RemoteServer(port=int(nowhere().rpartition(":")[2]))
    with pytest.raises(RemoteUnavailable, match="does not answer. Is it running"):
        load(server)


def test_the_stages_of_opening(server: RemoteServer) -> None:
    watcher, servers = Watcher(), Servers(allow_private=True)
    record = ModelRecord(name="mine", source=Source.REMOTE, url=server.url, repo_id="tiny")
    engine = open_remote(record, LoadOptions(Path("nowhere")), watcher, servers)
    assert watcher.events[0].stage is Stage.LOADING_WEIGHTS
    assert watcher.events[-1] == Event(Stage.WARMING_UP, 100.0)
    assert (engine.memory_bytes, engine.rows(), engine.batching) == (0, None, True)
    engine.close()
