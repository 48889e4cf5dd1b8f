import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path

import pytest
from making import Watcher, WebServer, nowhere
from ollama_server import Fault, Model, OllamaServer
from serving import AT_ONCE_S

from millm.errors import Cancelled, DownloadFailed, InvalidRequest, MiLLMError, OllamaUnavailable, RepoNotFound
from millm.events import Event, Stage
from millm.records import Source
from millm.sources.base import Origin, Plan
from millm.sources.ollama import Ollama, OllamaModel, model_name

pytestmark = pytest.mark.slow

OURS = "Ollama keeps this model's files itself."


@pytest.fixture
def server() -> Iterator[OllamaServer]:
    with OllamaServer(library={"llama3:8b": Model(), "gone:latest": Model()}) as running:
        yield running


def plan(server: OllamaServer, name: str = "llama3:8b") -> Plan:
    return Ollama(server.host).plan(Origin(Source.OLLAMA, repo_id=name), None)


def fetch(server: OllamaServer, folder: Path, report: Watcher | None = None, stall: float = 30) -> list[Event]:
    watcher, source = report or Watcher(), Ollama(server.host, stall=stall)
    source.fetch(source.plan(Origin(Source.OLLAMA, repo_id="llama3:8b"), None), None, folder, watcher)
    return watcher.events


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("llama3", "llama3:latest"),
        (" llama3:8b ", "llama3:8b"),
        ("someone/orca-mini:3b-q4_1", "someone/orca-mini:3b-q4_1"),
        ("hf.co/bartowski/Llama-3.2-1B-GGUF", "hf.co/bartowski/Llama-3.2-1B-GGUF:latest"),
        ("localhost:5000/library/tiny", "localhost:5000/library/tiny:latest"),
        ("registry.ollama.ai/library/llama3", "llama3:latest"),
        ("library/llama3:8b", "llama3:8b"),
    ],
)
def test_a_name_gets_its_tag(text: str, name: str) -> None:
    assert model_name(text) == name


@pytest.mark.parametrize(
    "text", ["", "a b", "../etc", "a/../b", "a..b", "a:b:c", "a//b", "/a", "a/", "a:", "a?b", "ä", "a\nb", "x" * 201]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="name:tag"):
        model_name(text)


def test_nothing_is_asked_of_the_server_for_what_is_no_name(server: OllamaServer) -> None:
    with pytest.raises(InvalidRequest):
        plan(server, "../x")
    assert server.seen == []


def test_plans_a_model_that_must_be_pulled(server: OllamaServer) -> None:
    found = plan(server)
    assert (found.title, found.suggested_name, found.origin.repo_id) == ("llama3:8b", "llama3-8b", "llama3:8b")
    assert (found.files, found.config, found.param_count, found.warnings) == ((), {}, None, (OURS,))
    assert found.link == "https://ollama.com/library/llama3:8b"
    assert not server.models


def test_plans_a_model_that_is_there(server: OllamaServer) -> None:
    server.models["llama3:latest"] = Model()
    found = plan(server, "llama3")
    assert (found.origin.repo_id, found.suggested_name, found.config) == ("llama3:latest", "llama3", {})
    assert found.total_bytes == Model().size
    assert found.param_count == 8_030_261_248
    assert found.warnings == (OURS, "Ollama has it already: llama, 8.0B, Q4_0, 0.0 GB, 8192 tokens of context.")


@pytest.mark.parametrize(
    ("size", "count"), [("8.0B", 8_000_000_000), ("137M", 137_000_000), ("1.5T", 1.5e12), ("7", 7), ("?", None)]
)
def test_a_rounded_count_is_better_than_none(server: OllamaServer, size: str, count: int | None) -> None:
    server.models["llama3:8b"] = Model(parameter_size=size, count=None)
    assert plan(server).param_count == count


def test_links_only_to_the_library(server: OllamaServer) -> None:
    assert plan(server, "someone/tiny").link == "https://ollama.com/someone/tiny:latest"
    assert plan(server, "hf.co/someone/tiny").link is None


def test_pulls_with_true_bytes(server: OllamaServer, tmp_path: Path) -> None:
    events = fetch(server, tmp_path)
    assert "llama3:8b" in server.models
    assert list(tmp_path.iterdir()) == []
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == [Stage.RESOLVING, Stage.DOWNLOADING, Stage.VERIFYING]
    done, progress = [event.bytes_done for event in events], [event.progress for event in events]
    assert done == sorted(done)
    assert progress == sorted(progress)
    assert {1_000_000, 4_000_000, 4_020_000, 4_020_500} <= set(done)
    assert all(event.progress < 100 and event.bytes_done <= event.bytes_total for event in events[:-1])
    assert events[-1] == Event(Stage.VERIFYING, 100.0, 4_020_500, 4_020_500)


def test_a_small_first_layer_is_not_the_end(server: OllamaServer, tmp_path: Path) -> None:
    server.library["llama3:8b"] = Model(layers=(500, 1_000_000, 2_000_000))
    progress = [event.progress for event in fetch(server, tmp_path)]
    assert progress == sorted(progress)
    assert all(percent <= 99 for percent in progress[:-1])
    assert progress[-1] == 100


def test_what_the_server_has_is_not_pulled(server: OllamaServer, tmp_path: Path) -> None:
    server.library.clear()  # made on this server: no library has it
    server.models["llama3:8b"] = Model()
    assert fetch(server, tmp_path)[-1] == Event(Stage.VERIFYING, 100.0, 4_020_500, 4_020_500)
    assert server.bodies("/api/pull") == []


def test_verifying_may_take_its_time_and_is_reported(server: OllamaServer, tmp_path: Path) -> None:
    server.fault = Fault("/api/pull", "slow", after=19, pause=1.5)  # before "success"
    at: list[float] = []
    fetch(server, tmp_path, Watcher(lambda: at.append(time.monotonic()) or False), stall=0.5)
    assert at[-1] - at[0] > 1.4  # three times the stall that would be an error elsewhere
    assert max(later - earlier for earlier, later in pairwise(at)) < 1.4, "nothing was said meanwhile"


@pytest.mark.parametrize("after", [0, 1, 3, 16], ids=["at once", "resolving", "downloading", "verifying"])
def test_a_cancel_ends_a_silent_pull(server: OllamaServer, tmp_path: Path, after: int) -> None:
    server.fault = Fault("/api/pull", "silent", after)
    with pytest.raises(Cancelled):
        fetch(server, tmp_path, Watcher(lambda: bool(server.silent)))
    assert time.monotonic() - server.silent[0] < AT_ONCE_S
    assert server.left()
    assert server.gone[0] - server.silent[0] < AT_ONCE_S
    assert "llama3:8b" not in server.models


def test_a_cancel_ends_a_pull_that_talks(server: OllamaServer, tmp_path: Path) -> None:
    server.fault = Fault("/api/pull", "slow", pause=0.02)
    seen = Watcher(lambda: len(seen.events) > 4)
    with pytest.raises(Cancelled):
        fetch(server, tmp_path, seen)
    assert len(seen.events) == 5
    assert "llama3:8b" not in server.models


def test_a_cancel_does_not_wait_for_the_list_of_models(server: OllamaServer, tmp_path: Path) -> None:
    planned = plan(server)
    server.fault = Fault("/api/tags", "silent")
    since = time.monotonic()
    with pytest.raises(Cancelled):
        Ollama(server.host).fetch(planned, None, tmp_path, Watcher(lambda: True))
    assert time.monotonic() - since < AT_ONCE_S


def test_a_silence_while_layers_arrive_is_an_error(server: OllamaServer, tmp_path: Path) -> None:
    server.fault = Fault("/api/pull", "silent", after=3)
    with pytest.raises(DownloadFailed, match="said nothing"):
        fetch(server, tmp_path, stall=1.0)
    assert server.left()


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (
            Fault("/api/pull", "error", 3, "max retries exceeded: EOF"),
            DownloadFailed,
            "says: max retries exceeded: EOF.",
        ),
        (Fault("/api/pull", "end", 3), DownloadFailed, "ended the download before it was complete"),
        (Fault("/api/pull", "drop", 0), OllamaUnavailable, "connection to Ollama at .* was lost"),
        (Fault("/api/pull", "drop", 3), OllamaUnavailable, "connection to Ollama at .* was lost"),
    ],
)
def test_a_pull_that_fails_says_why(
    server: OllamaServer, tmp_path: Path, fault: Fault, kind: type[MiLLMError], message: str
) -> None:
    server.fault = fault
    with pytest.raises(kind, match=message):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.fault = None
    assert fetch(server, tmp_path)[-1].progress == 100


def test_a_model_that_no_library_has(server: OllamaServer, tmp_path: Path) -> None:
    server.library.clear()
    with pytest.raises(RepoNotFound, match="'llama3:8b' does not exist in Ollama's library"):
        fetch(server, tmp_path)


def test_a_refusal_is_told_in_the_servers_words(server: OllamaServer, tmp_path: Path) -> None:
    server.refusals["/api/pull"] = (500, "no space left on device")
    with pytest.raises(DownloadFailed, match="Ollama says: no space left on device."):
        fetch(server, tmp_path)
    server.refusals["/api/tags"] = (403, "not for you")
    with pytest.raises(OllamaUnavailable, match="Ollama refuses: not for you."):
        plan(server)


def test_says_how_to_start_a_server_that_is_not_there(tmp_path: Path) -> None:
    host = nowhere()
    message = f"Ollama does not answer at {host}. Start it with `ollama serve`, or set OLLAMA_HOST."
    ollama = Ollama(host)
    fetched = Plan(Origin(Source.OLLAMA), "llama3:8b", "llama3-8b", ())
    for ask in (
        lambda: ollama.plan(Origin(Source.OLLAMA, repo_id="llama3"), None),
        lambda: ollama.fetch(fetched, None, tmp_path, Watcher()),
        ollama.list_models,
        lambda: ollama.delete("llama3"),
    ):
        with pytest.raises(OllamaUnavailable) as caught:
            ask()
        assert caught.value.message == message


def test_a_server_that_does_not_answer_in_time(server: OllamaServer) -> None:
    server.fault = Fault("/api/tags", "silent")
    with pytest.raises(OllamaUnavailable, match="does not answer"):
        Ollama(server.host, patience=0.1).list_models()
    assert server.left()


class Page(BaseHTTPRequestHandler):
    """Some other web server."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def test_another_server_is_no_ollama() -> None:
    with WebServer(Page) as web, pytest.raises(OllamaUnavailable, match="Ollama does not answer at"):
        Ollama(web.url()).list_models()


@pytest.mark.parametrize("host", ["http://127.0.0.1:port", "http://me:secret@127.0.0.1:1"])
def test_an_address_that_leads_nowhere(host: str) -> None:
    with pytest.raises(OllamaUnavailable) as caught:
        Ollama(host).list_models()
    assert "secret" not in caught.value.message
    assert "127.0.0.1" in caught.value.message


def test_a_proxy_is_not_asked_for_this_machine(server: OllamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", nowhere())
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert Ollama(server.host).list_models() == []


def test_lists_what_is_there(server: OllamaServer) -> None:
    server.models |= {"llama3:8b": Model(), "größe:1b": Model((7,), parameter_size="1B")}
    assert Ollama(server.host).list_models() == [
        OllamaModel("llama3:8b", 4_020_500, "8.0B", "llama", "Q4_0"),
        OllamaModel("größe:1b", 7, "1B", "llama", "Q4_0"),
    ]


def test_deletes_a_model_once(server: OllamaServer) -> None:
    server.models |= {"llama3:latest": Model(), "other:latest": Model()}
    for _ in range(2):
        Ollama(server.host).delete("llama3")
    assert list(server.models) == ["other:latest"]
    assert server.bodies("/api/delete") == [{"model": "llama3:latest"}]
