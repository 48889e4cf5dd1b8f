import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from hub import Hub, Request
from making import FAST, Watcher, WebServer, announced, content
from serving import AT_ONCE_S

from millm.errors import Cancelled, ChecksumMismatch, DownloadFailed, InsufficientDisk, MiLLMError, RepoNotFound
from millm.events import Event
from millm.meta import JOURNAL
from millm.sources import partfile
from millm.sources.base import PlannedFile
from millm.sources.http import Limits, download
from millm.sources.journal import kept_bytes

WEIGHTS = "*.safetensors"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def fetch(hub: Hub, repo: Path, out: Path) -> Callable[..., Watcher]:
    """Downloads files of acme/tiny (its weights, unless named) and returns what was reported."""

    def run(*names: str, limits: Limits = FAST, watcher: Watcher | None = None) -> Watcher:
        watcher = watcher or Watcher()
        files = [announced(repo / name) for name in names or ("model.safetensors",)]
        urls = {f"{hub.url}/acme/tiny/resolve/main/{file.path}": file for file in files}
        download(urls, out, watcher, {"Authorization": "Bearer hf_granted"}, lambda *_: None, limits)
        return watcher

    return run


def arrived(out: Path, repo: Path, name: str = "model.safetensors") -> bool:
    return (out / name).read_bytes() == (repo / name).read_bytes()


def ranges(hub: Hub) -> list[str | None]:
    return [request.range for request in hub.requests if request.kind == "cdn"]


def test_brings_every_file(fetch: Callable[..., Watcher], out: Path, repo: Path) -> None:
    (repo / "merges.txt").write_bytes(b"")
    names = ("config.json", "model.safetensors", "README.md", "merges.txt")
    fetch(*names)
    assert all(arrived(out, repo, name) for name in names)


def test_every_finished_file_is_on_the_disk(
    fetch: Callable[..., Watcher], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda fd: synced.add(os.fstat(fd).st_ino))
    fetch("config.json", "model.safetensors")
    assert synced == {path.stat().st_ino for path in out.iterdir() if path.name != JOURNAL}


def test_few_files_are_open_at_a_time(fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path) -> None:
    names = [f"vocab{number}.txt" for number in range(20)]
    for name in names:
        (repo / name).write_text(name)
    hub.fault("resolve", hang_after=0)
    with pytest.raises(Cancelled):
        fetch(*names, watcher=Watcher(lambda: sum(request.outcome == "hung" for request in hub.requests) >= 4))
    assert len(list(out.glob("*.txt"))) == FAST.connections


def test_checks_the_digests_that_git_announces(hub: Hub, repo: Path, out: Path) -> None:
    data = (repo / "README.md").read_bytes()
    url = f"{hub.url}/acme/tiny/resolve/main/README.md"
    right = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    download(
        {url: PlannedFile("README.md", len(data), f"git-sha1:{right}")}, out, Watcher(), {}, lambda *_: None, FAST
    )
    with pytest.raises(ChecksumMismatch):
        wrong = PlannedFile("README.md", len(data), f"git-sha1:{'0' * 40}")
        download({url: wrong}, out, Watcher(), {}, lambda *_: None, FAST)


def test_asks_for_ranges_over_four_connections(
    fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path
) -> None:
    hub.fault("cdn", WEIGHTS, throttle=500_000)
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, sum(request.kind == "cdn" and request.outcome == "running" for request in hub.requests))
        return False

    fetch(watcher=Watcher(look))
    assert arrived(out, repo)
    assert most == 4
    size = (repo / "model.safetensors").stat().st_size
    assert sorted(ranges(hub), key=str) == sorted(
        (f"bytes={at}-{min(at + FAST.segment, size) - 1}" for at in range(0, size, FAST.segment)), key=str
    )


def test_goes_on_at_the_byte_where_the_connection_closed(
    fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path
) -> None:
    hub.fault("cdn", WEIGHTS, drop_after=200_000, times=1)
    fetch(limits=replace(FAST, segment=2**30))
    assert arrived(out, repo)
    size = (repo / "model.safetensors").stat().st_size
    assert ranges(hub) == [None, f"bytes=200000-{size - 1}"]


def test_goes_on_after_a_reset(fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path) -> None:
    hub.fault("cdn", WEIGHTS, drop_after=12_345, reset=True, times=3)
    fetch()
    assert arrived(out, repo)


def test_a_try_that_brought_bytes_does_not_count(
    fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path
) -> None:
    hub.fault("cdn", WEIGHTS, drop_after=30_000)
    fetch(limits=replace(FAST, backoff=(0.001,), segment=2**30))
    assert arrived(out, repo)


@pytest.mark.parametrize("kind", ["resolve", "cdn"])
@pytest.mark.parametrize("status", [503, 403, 408])
def test_tries_again_after_an_error_answer(
    fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path, kind: str, status: int
) -> None:
    hub.fault(kind, WEIGHTS, status=status, times=3)
    fetch(limits=replace(FAST, segment=2**30))
    assert arrived(out, repo)


def test_an_expired_link_is_resolved_anew(fetch: Callable[..., Watcher], hub: Hub) -> None:
    hub.fault("cdn", WEIGHTS, status=403, times=1)
    fetch(limits=replace(FAST, segment=2**30))
    assert [request.kind for request in hub.requests] == ["resolve", "cdn", "resolve", "cdn"]


@pytest.mark.parametrize("asked", [1000, "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_waits_as_long_as_the_server_asks_up_to_a_limit(
    fetch: Callable[..., Watcher], hub: Hub, asked: object
) -> None:
    hub.fault("resolve", WEIGHTS, status=429, retry_after=asked, times=1)
    start = time.monotonic()
    fetch(limits=replace(FAST, longest_wait=0.3))
    assert time.monotonic() - start >= 0.3


@pytest.mark.parametrize("asked", ["Wed, 21 Oct 2015 07:28:00 GMT", "soon", "²"])
def test_a_wait_that_makes_no_sense_is_not_obeyed(
    fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path, asked: str
) -> None:
    hub.fault("resolve", WEIGHTS, status=503, retry_after=asked, times=1)
    start = time.monotonic()
    fetch(limits=replace(FAST, longest_wait=60))
    assert time.monotonic() - start < 30
    assert arrived(out, repo)


@pytest.mark.parametrize("segment", [FAST.segment, 2**30])
def test_a_server_without_ranges_sends_the_whole_file(
    fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path, segment: int
) -> None:
    hub.fault("cdn", WEIGHTS, no_range=True, drop_after=200_000, times=1)
    hub.fault("cdn", WEIGHTS, no_range=True)
    fetch(limits=replace(FAST, segment=segment))
    assert arrived(out, repo)


def test_a_server_that_stops_knowing_ranges_starts_the_file_over(
    fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path
) -> None:
    hub.fault("cdn", WEIGHTS, times=2)
    hub.fault("cdn", WEIGHTS, no_range=True)
    events = fetch(limits=replace(FAST, connections=1)).events
    assert arrived(out, repo)
    assert max(event.progress for event in events) == 100.0


def test_a_server_without_ranges_that_always_breaks_off_is_given_up(fetch: Callable[..., Watcher], hub: Hub) -> None:
    hub.fault("cdn", WEIGHTS, no_range=True, drop_after=200_000)
    with pytest.raises(DownloadFailed):
        fetch()


def test_a_damaged_file_is_fetched_once_more(fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path) -> None:
    hub.fault("cdn", WEIGHTS, corrupt_at=5, times=1)
    fetch(limits=replace(FAST, segment=2**30))
    assert arrived(out, repo)
    assert len(ranges(hub)) == 2


def test_a_file_that_stays_damaged_is_refused(fetch: Callable[..., Watcher], hub: Hub, repo: Path) -> None:
    hub.fault("cdn", WEIGHTS, corrupt_at=200_000)
    with pytest.raises(ChecksumMismatch) as caught:
        fetch()
    assert caught.value.details["file"] == "model.safetensors"
    assert caught.value.details["expected"] == announced(repo / "model.safetensors").digest


@pytest.mark.parametrize("after", [0, 1000])
def test_silence_counts_as_an_error(
    fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path, after: int
) -> None:
    hub.fault("cdn", WEIGHTS, hang_after=after, times=2)
    fetch(limits=replace(FAST, stall=0.2))
    assert arrived(out, repo)


def test_gives_up_after_the_last_try(fetch: Callable[..., Watcher], hub: Hub) -> None:
    hub.fault("resolve", WEIGHTS, status=503)
    with pytest.raises(DownloadFailed) as caught:
        fetch(limits=replace(FAST, segment=2**30))
    assert caught.value.message == "Download failed: Network error. Please check connection and try again."
    assert caught.value.details["reason"] == "HTTP 503"
    assert len(hub.requests) == 1 + len(FAST.backoff)


def test_gives_up_when_nobody_listens(repo: Path, out: Path) -> None:
    with Hub(repo) as gone:
        url = f"{gone.url}/x"
    with pytest.raises(DownloadFailed, match="Network error"):
        download({url: PlannedFile("x", 1)}, out, Watcher(), {}, lambda *_: None, FAST)


def test_a_final_refusal_is_not_tried_again(hub: Hub, out: Path) -> None:
    def refuse(status: int, headers: object) -> MiLLMError | None:
        return RepoNotFound("gone") if status == 404 else None

    with pytest.raises(RepoNotFound):
        url = f"{hub.url}/acme/tiny/resolve/main/nothing"
        download({url: PlannedFile("nothing", 5)}, out, Watcher(), {}, refuse, FAST)
    assert len(hub.requests) == 1


def test_what_comes_beyond_the_announced_size_is_left_out(hub: Hub, repo: Path, out: Path) -> None:
    start = (repo / "model.safetensors").read_bytes()[:100_000]
    file = PlannedFile("model.safetensors", len(start), f"sha256:{hashlib.sha256(start).hexdigest()}")
    url = f"{hub.url}/acme/tiny/resolve/main/model.safetensors"
    download({url: file}, out, Watcher(), {}, lambda *_: None, replace(FAST, segment=2**30))
    assert (out / "model.safetensors").read_bytes() == start


def test_a_file_shorter_than_announced_is_an_error(hub: Hub, out: Path) -> None:
    url = f"{hub.url}/acme/tiny/resolve/main/model.safetensors"
    with pytest.raises(DownloadFailed):
        download({url: PlannedFile("model.safetensors", 500_000)}, out, Watcher(), {}, lambda *_: None, FAST)


class AnotherRange(BaseHTTPRequestHandler):
    """Answers every range with the first byte."""

    def do_GET(self) -> None:
        self.send_response(206)
        self.send_header("Content-Range", "bytes 0-0/200000")
        self.send_header("Content-Length", "1")
        self.end_headers()
        self.wfile.write(b"x")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_another_range_than_the_one_asked_for_is_an_error(out: Path) -> None:
    file = PlannedFile("file", 200_000)
    with WebServer(AnotherRange) as server, pytest.raises(DownloadFailed) as caught:
        download({f"{server.url()}/file": file}, out, Watcher(), {}, lambda *_: None, FAST)
    assert caught.value.details["reason"] == "another range than the one asked for"


def test_a_full_disk_is_said(fetch: Callable[..., Watcher], out: Path) -> None:
    out.mkdir()
    (out / "model.safetensors").symlink_to("/dev/full")
    with pytest.raises(InsufficientDisk, match=r"Need 0\.0 GB, only \d+\.\d GB available\."):
        fetch()


def test_a_folder_that_cannot_be_written_is_said(fetch: Callable[..., Watcher], out: Path) -> None:
    out.write_text("not a folder")
    with pytest.raises(DownloadFailed, match="cannot write 'out'"):
        fetch()


def broken_off(fetch: Callable[..., Watcher], hub: Hub, after: int) -> None:
    """A download that fails for good once `after` bytes have come."""
    hub.fault("cdn", WEIGHTS, drop_after=after, times=1)
    hub.fault("cdn", WEIGHTS, status=503, times=4)
    with pytest.raises(DownloadFailed):
        fetch(limits=replace(FAST, segment=1_000_000, connections=1))


def test_a_later_try_goes_on_from_what_is_on_the_disk(
    fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partfile, "SYNC_BYTES", 50_000)
    broken_off(fetch, hub, after=150_000)
    kept = kept_bytes(out)
    assert 50_000 <= kept <= 150_000
    before = len(hub.requests)
    events = fetch().events
    assert arrived(out, repo)
    assert events[0].bytes_done == kept
    size = (repo / "model.safetensors").stat().st_size
    assert sum(request.sent for request in hub.requests[before:] if request.kind == "cdn") == size - kept
    assert {path.name for path in out.iterdir()} == {"model.safetensors", JOURNAL}


def test_kept_bytes_that_changed_meanwhile_are_fetched_again(
    fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partfile, "SYNC_BYTES", 50_000)
    broken_off(fetch, hub, after=150_000)
    with (out / "model.safetensors").open("r+b") as file:
        file.write(b"?")
    fetch()
    assert arrived(out, repo)


def test_what_was_kept_of_another_commit_is_not_used(
    fetch: Callable[..., Watcher], hub: Hub, out: Path, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partfile, "SYNC_BYTES", 50_000)
    broken_off(fetch, hub, after=150_000)
    (repo / "model.safetensors").write_bytes(content(100_000)[::-1])
    assert fetch().events[0].bytes_done == 0
    assert arrived(out, repo)


def test_reports_true_bytes_that_never_go_back(fetch: Callable[..., Watcher], hub: Hub, repo: Path) -> None:
    hub.fault("cdn", WEIGHTS, throttle=1_000_000, corrupt_at=250_000, times=5)
    hub.fault("cdn", WEIGHTS, throttle=1_000_000)
    events = fetch().events
    size = (repo / "model.safetensors").stat().st_size
    done = [event.bytes_done for event in events]
    assert done == sorted(done)
    assert (done[0], done[-1], events[-1].progress, events[-1].bytes_total) == (0, size, 100.0, size)
    middle = events[len(events) // 4]
    assert 0 < middle.bytes_done < size
    assert middle.progress == pytest.approx(100 * middle.bytes_done / size)
    assert middle.speed > 0
    assert middle.eta is not None
    assert middle.eta > 0


def test_the_first_report_comes_before_the_first_request(fetch: Callable[..., Watcher], hub: Hub) -> None:
    with pytest.raises(Cancelled):
        fetch(watcher=Watcher(lambda: True))
    assert not hub.requests


PATIENT = replace(FAST, stall=30, backoff=(30,), segment=2**30)
STATES: dict[str, tuple[dict[str, int], Callable[[Request], bool]]] = {
    "streaming": ({"throttle": 50_000_000}, lambda r: r.sent > 1_000_000),
    "throttled": ({"throttle": 50_000}, lambda r: r.sent > 1_000),
    "silent before the headers": ({"hang_after": 0}, lambda r: r.outcome == "hung"),
    "silent in the body": ({"hang_after": 1000}, lambda r: r.outcome == "hung"),
    "waiting to try again": ({"status": 503}, lambda r: r.outcome == "refused"),
}


@pytest.mark.parametrize("state", STATES)
def test_cancel_ends_the_traffic_at_once(fetch: Callable[..., Watcher], hub: Hub, repo: Path, state: str) -> None:
    (repo / "model.safetensors").write_bytes(content(10_000_000))
    fault, reached = STATES[state]
    hub.fault("cdn", WEIGHTS, **fault)
    asked = 0.0

    def stop() -> bool:
        nonlocal asked
        asked = time.monotonic()
        return any(request.kind == "cdn" and reached(request) for request in hub.requests)

    with pytest.raises(Cancelled):
        fetch(limits=PATIENT, watcher=Watcher(stop))
    assert time.monotonic() - asked < AT_ONCE_S
    ending = "refused" if state.startswith("waiting") else "client_gone"
    assert hub.wait_for(lambda r: r.outcome == ending, AT_ONCE_S)
    assert hub.wait_for(lambda _: all(r.outcome not in ("running", "hung") for r in hub.requests), AT_ONCE_S)


def test_what_the_report_raises_is_what_the_caller_gets(fetch: Callable[..., Watcher], hub: Hub) -> None:
    hub.fault("cdn", WEIGHTS, throttle=10_000)

    class Odd(Watcher):
        def __call__(self, event: Event) -> None:
            super().__call__(event)
            if event.bytes_done:
                raise KeyError("a bug")

    with pytest.raises(KeyError):
        fetch(watcher=Odd())
