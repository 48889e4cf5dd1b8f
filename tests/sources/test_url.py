import hashlib
import re
import socket
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from making import FAST, Watcher, WebServer, content
from serving import AT_ONCE_S

from millm.errors import (
    Cancelled,
    ChecksumMismatch,
    DownloadFailed,
    InvalidRequest,
    InvalidUrl,
    MiLLMError,
    UnsupportedModel,
)
from millm.events import Event, Stage
from millm.meta import JOURNAL
from millm.records import Source
from millm.sources import partfile
from millm.sources.archive import ArchiveLimits
from millm.sources.base import Origin, Plan
from millm.sources.journal import kept_bytes
from millm.sources.url import Url, parse_address

DATA = content(300_000)
MODEL = {"config.json": b"{}", "model.safetensors": DATA}


class Site(WebServer):
    """files: body by path. headers: more of every answer. breaks: the body of so many next GETs stops half way."""

    def __init__(self) -> None:
        super().__init__(Answers)
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        self.breaks = 0
        self.refuses_head = False
        self.ignores_ranges = False
        self.status = 0
        self.throttle = 0.0

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.seen]


class Answers(BaseHTTPRequestHandler):
    """Serves the site's files; `/to/<address>` redirects there."""

    server: Site

    def do_HEAD(self) -> None:
        if self.server.refuses_head:
            return self._empty(405)
        return self.do_GET()

    def do_GET(self) -> None:
        self.server.seen.append((f"{self.command} {self.path}", dict(self.headers)))
        path = self.path.partition("?")[0]
        if path.startswith("/to/"):
            return self._empty(302, Location=self.path.removeprefix("/to/"))
        data = self.server.files.get(path)
        if self.server.status or data is None:
            return self._empty(self.server.status or 404)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        changed = self.headers.get("If-Range") not in (None, self.server.headers.get("ETag"))
        if asked and not self.server.ignores_ranges and not changed:
            start, end = int(asked[1]), min(int(asked[2]) + 1, len(data))
            return self._send(206, data[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})
        return self._send(200, data, {})

    def _send(self, status: int, body: bytes, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **more, **self.server.headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.breaks and len(body) > 1:
            self.server.breaks -= 1
            body = body[: len(body) // 2]
        for at in range(0, len(body), 10_000):
            self.wfile.write(body[at : at + 10_000])
            if self.server.throttle:
                time.sleep(self.server.throttle)

    def _empty(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as running:
        yield running


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def origin(address: str, checksum: str | None = None) -> Origin:
    return Origin(Source.URL, url=address, checksum=checksum)


@pytest.fixture
def plan(site: Site) -> Callable[..., Plan]:
    """Plans a path of the site."""
    return lambda path, checksum=None: Url(True, FAST).plan(origin(site.url() + path, checksum), "hf_secret")


@pytest.fixture
def bring(site: Site, plan: Callable[..., Plan], out: Path) -> Callable[..., list[Event]]:
    """Plans and fetches a path of the site; returns what was reported."""

    def run(path: str, checksum: str | None = None, watcher: Watcher | None = None) -> list[Event]:
        watcher = watcher or Watcher()
        Url(True, FAST).fetch(plan(path, checksum), "hf_secret", out, watcher)
        return watcher.events

    return run


def zipped(path: Path, files: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w") as out:
        for name, data in files.items():
            out.writestr(name, data)
    return path.read_bytes()


def tarred(path: Path, files: dict[str, bytes]) -> bytes:
    sources = path.parent / "sources"
    for name, data in files.items():
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_bytes(data)
    with tarfile.open(path, "w:gz") as out:
        out.add(sources, ".")
    return path.read_bytes()


def held(folder: Path) -> dict[str, bytes]:
    """The files in a folder but for the journal, which stays until they are published."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != JOURNAL
    }


def test_a_plan_tells_name_and_size(plan: Callable[..., Plan], site: Site) -> None:
    site.files["/some/vits.pth"] = DATA
    found = plan("/some/vits.pth?signature=secret")
    assert (found.title, found.suggested_name) == (f"{site.url()}/some/vits.pth", "vits")
    assert [(file.path, file.size, file.digest) for file in found.files] == [("vits.pth", 300_000, None)]
    assert [warning.split()[0] for warning in found.warnings] == ["No", "Files"]
    assert [request for request, _ in site.seen] == ["HEAD /some/vits.pth?signature=secret"]


def test_a_safe_type_with_a_checksum_needs_no_warning(plan: Callable[..., Plan], site: Site) -> None:
    site.files["/x.safetensors"] = DATA
    found = plan("/x.safetensors", " SHA256:" + "AB" * 32)
    assert found.warnings == ()
    assert found.files[0].digest == "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    "checksum", ["sha256:12", "md5:" + "0" * 64, "0" * 64, "sha1:" + "0" * 40, "sha256:" + "g" * 64]
)
def test_a_malformed_checksum(plan: Callable[..., Plan], site: Site, checksum: str) -> None:
    with pytest.raises(InvalidRequest, match="Invalid checksum"):
        plan("/x.safetensors", checksum)
    assert not site.seen


@pytest.mark.parametrize("ignores_ranges", [False, True])
def test_a_server_that_refuses_head_is_asked_for_a_byte(
    plan: Callable[..., Plan], site: Site, ignores_ranges: bool
) -> None:
    site.files["/x.bin"], site.refuses_head, site.ignores_ranges = DATA, True, ignores_ranges
    assert plan("/x.bin").total_bytes == 300_000
    assert site.ranges() == ["bytes=0-0"]


@pytest.mark.parametrize(
    ("path", "given", "name"),
    [
        ("/get/17", 'attachment; filename="a model.zip"', "a_model.zip"),
        ("/get/17", "attachment; filename*=UTF-8''m%C3%B6del.bin", "m_del.bin"),
        ("/get/17", 'attachment; filename="../../.bashrc.bin"', "bashrc.bin"),
        ("/get/17", 'attachment; filename="C:\\\\x\\\\y.ckpt"', "y.ckpt"),
        ("/x.TAR.GZ", "", "x.TAR.GZ"),
        ("/m%20x.gguf", "inline", "m_x.gguf"),
        ("/" + "l" * 300 + ".onnx", "", "l" * 200 + ".onnx"),
        ("/x.pt", "attachment; filename=download", "x.pt"),
    ],
)
def test_the_name_is_made_safe(plan: Callable[..., Plan], site: Site, path: str, given: str, name: str) -> None:
    site.files[path], site.headers["Content-Disposition"] = DATA, given
    assert plan(path).files[0].path == name


@pytest.mark.parametrize("path", ["/model.exe", "/", "/.zip", "/x.tar.xz", "/zip"])
def test_other_files_are_refused(plan: Callable[..., Plan], site: Site, path: str) -> None:
    site.files[path] = DATA
    with pytest.raises(UnsupportedModel, match="neither a file of weights nor an archive"):
        plan(path)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [({"Content-Type": "text/html; charset=utf-8"}, "web page"), ({"Content-Length": ""}, "how large")],
)
def test_answers_that_are_no_files(
    plan: Callable[..., Plan], site: Site, headers: dict[str, str], reason: str
) -> None:
    site.files["/x.zip"], site.headers, site.ignores_ranges = DATA, headers, True
    with pytest.raises(UnsupportedModel, match=reason):
        plan("/x.zip")


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, InvalidUrl), (410, InvalidUrl), (401, InvalidUrl), (403, InvalidUrl), (500, DownloadFailed)],
)
def test_error_answers(plan: Callable[..., Plan], site: Site, status: int, error: type[MiLLMError]) -> None:
    site.files["/x.zip"], site.status = DATA, status
    with pytest.raises(error, match=f"HTTP {status}"):
        plan("/x.zip")


def test_a_server_that_is_not_there_or_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip?secret"
        start = time.monotonic()
        with pytest.raises(DownloadFailed, match=r"'127.0.0.1' does not answer") as caught:
            Url(True, replace(FAST, connect=30, stall=30), plan_s=0.1).plan(origin(address), None)
        assert time.monotonic() - start < AT_ONCE_S
    with pytest.raises(DownloadFailed):
        Url(True, FAST).plan(origin(address), None)
    assert "secret" not in f"{caught.value} {caught.value.details}"


@pytest.mark.parametrize(
    "address",
    [
        "", "x.zip", "ftp://a.example/x.zip", "file:///etc/passwd", "http:///x.zip", "http://", "//a.example/x.zip",
        "http://user@a.example/x.zip", "http://user:word@a.example/x.zip", "http://:@a.example/x.zip",
        "http://a.example/x.zip#part", "http://a.example:99999/x.zip", "http://a.example:0/x.zip", "http://a\\b/x.zip",
        "http://[::1/x.zip", "http://ä.example/x.zip",
    ],
)  # fmt: skip
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(InvalidUrl):
        Url(True).plan(origin(address), None)


def test_an_address_is_requested_as_it_stands() -> None:
    assert parse_address(" HTTPS://A.example/a%2Fb~%7E?s=%2f+ ") == "HTTPS://A.example/a%2Fb~%7E?s=%2f+"
    assert parse_address("http://a.example/ä b.zip") == "http://a.example/%C3%A4%20b.zip"


def test_a_file_is_kept_as_it_is(bring: Callable[..., list[Event]], site: Site, out: Path) -> None:
    site.files["/vits.pth"] = DATA
    events = bring("/vits.pth", "md5:" + hashlib.md5(DATA).hexdigest())
    assert held(out) == {"vits.pth": DATA}
    assert (events[-1].progress, events[-1].bytes_done, events[-1].bytes_total) == (100.0, 300_000, 300_000)


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_checksum(bring: Callable[..., list[Event]], site: Site, kind: str) -> None:
    site.files["/x.bin"] = DATA
    with pytest.raises(ChecksumMismatch):
        bring("/x.bin", f"{kind}:{hashlib.new(kind, b'other').hexdigest()}")


@pytest.mark.parametrize("below", ["", "tiny/"])
@pytest.mark.parametrize(("name", "pack"), [("tiny.zip", zipped), ("tiny.tar.gz", tarred)])
def test_an_archive_is_unpacked(
    bring: Callable[..., list[Event]],
    site: Site,
    out: Path,
    tmp_path: Path,
    below: str,
    name: str,
    pack: Callable[..., bytes],
) -> None:
    site.files[f"/{name}"] = packed = pack(tmp_path / name, {below + path: data for path, data in MODEL.items()})
    events = bring(f"/{name}", "sha256:" + hashlib.sha256(packed).hexdigest())
    assert held(out) == MODEL
    assert events[-1].stage is Stage.SAVING
    assert (events[-1].progress, events[-1].bytes_done) == (100.0, len(packed))


def test_an_archive_may_hold_a_file_of_its_own_name(
    bring: Callable[..., list[Event]], site: Site, out: Path, tmp_path: Path
) -> None:
    site.files["/a.zip"] = zipped(tmp_path / "a.zip", {"a.zip": b"1", ".journal": b"2", ".unpacked/x": b"3"})
    bring("/a.zip")
    assert held(out) == {"a.zip": b"1"}


@pytest.mark.parametrize("broken", ["link", "bomb", "damaged"])
def test_a_bad_archive_leaves_nothing_unpacked(
    plan: Callable[..., Plan], site: Site, out: Path, tmp_path: Path, broken: str
) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as bad:
        bad.writestr("config.json", bytes(1_000_000) if broken == "bomb" else b"{}")
        bad.writestr(link if broken == "link" else "end", b"/etc")
    data = (tmp_path / "x.zip").read_bytes()
    site.files["/x.zip"] = data[:-50] if broken == "damaged" else data
    with pytest.raises((UnsupportedModel, DownloadFailed), match=r"x\.zip"):
        Url(True, FAST, ArchiveLimits(ratio_from=1000)).fetch(plan("/x.zip"), None, out, Watcher())
    assert list(held(out)) == ["x.zip"]


def test_goes_on_where_the_connection_broke(plan: Callable[..., Plan], site: Site, out: Path) -> None:
    site.files["/x.bin"], site.breaks = DATA, 2
    Url(True, replace(FAST, segment=2**30)).fetch(plan("/x.bin"), None, out, Watcher())
    assert held(out) == {"x.bin": DATA}
    assert site.ranges() == [None, None, "bytes=150000-299999", "bytes=225000-299999"]


def test_a_server_without_ranges(bring: Callable[..., list[Event]], site: Site, out: Path) -> None:
    site.files["/x.bin"], site.ignores_ranges, site.breaks = DATA, True, 1
    bring("/x.bin")
    assert held(out) == {"x.bin": DATA}


def interrupt(bring: Callable[..., list[Event]], site: Site, out: Path, checksum: str | None) -> int:
    """Cancels a download of /x.bin half way; returns how much of it is kept on disk."""
    site.files["/x.bin"], site.throttle = DATA, 0.01
    watcher = Watcher()
    watcher._stop = lambda: watcher.events[-1].bytes_done > 150_000
    with pytest.raises(Cancelled):
        bring("/x.bin", checksum, watcher)
    site.seen.clear()
    site.throttle = 0
    return kept_bytes(out)


@pytest.mark.parametrize("proof", ["checksum", "ETag", "Last-Modified"])
def test_a_later_try_uses_what_is_on_disk(
    bring: Callable[..., list[Event]], site: Site, out: Path, monkeypatch: pytest.MonkeyPatch, proof: str
) -> None:
    monkeypatch.setattr(partfile, "SYNC_BYTES", 20_000)
    checksum = "md5:" + hashlib.md5(DATA).hexdigest() if proof == "checksum" else None
    site.headers = {} if checksum else {proof: '"one"'}
    kept = interrupt(bring, site, out, checksum)
    assert kept > 50_000
    assert bring("/x.bin", checksum)[0].bytes_done == kept
    assert held(out) == {"x.bin": DATA}


@pytest.mark.parametrize(("first", "then"), [('"one"', '"two"'), ("", ""), ('W/"one"', 'W/"one"')])
def test_what_may_be_of_another_version_is_not_used(
    bring: Callable[..., list[Event]],
    site: Site,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    then: str,
) -> None:
    monkeypatch.setattr(partfile, "SYNC_BYTES", 20_000)
    site.headers["ETag"] = first
    assert interrupt(bring, site, out, None)
    site.headers["ETag"], site.files["/x.bin"] = then, DATA[::-1]
    site.throttle = 0
    Url(True, FAST).fetch(Url(True, FAST).plan(origin(f"{site.url()}/x.bin"), None), None, out, Watcher())
    assert held(out) == {"x.bin": DATA[::-1]}


def test_a_file_that_changes_while_it_comes_is_not_mixed(plan: Callable[..., Plan], site: Site, out: Path) -> None:
    site.files["/x.bin"], site.headers["ETag"], site.throttle = DATA, '"one"', 0.01
    planned = plan("/x.bin")

    def change() -> bool:
        if watcher.events[-1].bytes_done > 100_000:
            site.files["/x.bin"], site.headers["ETag"] = DATA[::-1], '"two"'
        return False

    watcher = Watcher(change)
    Url(True, replace(FAST, connections=1)).fetch(planned, None, out, watcher)
    assert held(out) == {"x.bin": DATA[::-1]}


def test_what_a_killed_process_left_is_cleaned_up(
    bring: Callable[..., list[Event]], site: Site, out: Path, tmp_path: Path
) -> None:
    site.files["/a.zip"] = zipped(tmp_path / "a.zip", MODEL)
    (out / ".unpacked" / "deep").mkdir(parents=True)
    (out / "old.txt").write_text("of another try")
    bring("/a.zip")
    assert held(out) == MODEL


@pytest.mark.parametrize("status", [401, 404, 410, 416])
def test_a_file_that_has_gone_is_not_asked_for_again(
    plan: Callable[..., Plan], site: Site, out: Path, status: int
) -> None:
    site.files["/x.bin"] = content(1000)
    planned = plan("/x.bin")
    site.status = status
    with pytest.raises(DownloadFailed, match=f"HTTP {status}"):
        Url(True, FAST).fetch(planned, None, out, Watcher())
    assert len(site.seen) == 2


def test_cancel_while_it_downloads(bring: Callable[..., list[Event]], site: Site, out: Path, tmp_path: Path) -> None:
    site.files["/a.zip"], site.throttle = zipped(tmp_path / "a.zip", MODEL), 0.5
    start = time.monotonic()
    with pytest.raises(Cancelled):
        bring("/a.zip", None, Watcher(lambda: time.monotonic() - start > 0.2))
    assert time.monotonic() - start < AT_ONCE_S
    assert not [name for name in held(out) if name not in ("a.zip", ".journal", ".version")]


@pytest.mark.parametrize(("name", "pack"), [("a.zip", zipped), ("a.tgz", tarred)])
def test_cancel_while_it_unpacks(
    bring: Callable[..., list[Event]], site: Site, out: Path, tmp_path: Path, name: str, pack: Callable[..., bytes]
) -> None:
    many = {f"{number}.txt": b"x" for number in range(3000)}
    site.files[f"/{name}"] = pack(tmp_path / name, many | {"model.bin": content(3_000_000)})
    watcher = Watcher()
    watcher._stop = lambda: sum(event.stage is Stage.SAVING for event in watcher.events) > 2
    start = time.monotonic()
    with pytest.raises(Cancelled):
        bring(f"/{name}", None, watcher)
    assert time.monotonic() - start < AT_ONCE_S
    assert list(held(out)) == [name]
    assert {path.name for path in out.iterdir()} == {name, JOURNAL}


def test_five_redirects_are_followed_and_no_sixth(plan: Callable[..., Plan], site: Site) -> None:
    site.files["/x.zip"] = DATA
    assert plan("/to/" * 5 + "/x.zip").files[0].path == "x.zip"
    with pytest.raises(InvalidUrl, match="more than 5 redirects"):
        plan("/to/" * 6 + "/x.zip")


def test_a_redirect_names_the_file_if_nothing_else_does(plan: Callable[..., Plan], site: Site) -> None:
    site.files["/0a1b2c.zip"] = DATA
    assert plan("/to//0a1b2c.zip?").files[0].path == "0a1b2c.zip"


def test_no_credentials_are_sent_anywhere(bring: Callable[..., list[Event]], site: Site) -> None:
    site.files["/x.bin"] = DATA
    bring(f"/to/{site.url('localhost')}/x.bin")
    assert not [name for _, headers in site.seen for name in headers if name in ("Authorization", "Cookie")]
    with pytest.raises(InvalidUrl, match="credentials"):
        bring(f"/to/http://user:word@localhost:{site.server_port}/x.bin")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "[::ffff:127.0.0.1]"])
def test_private_hosts_are_refused_unless_allowed(site: Site, out: Path, host: str) -> None:
    site.files["/x.bin"] = DATA
    there = origin(f"{site.url(host)}/x.bin")
    with pytest.raises(InvalidUrl, match="not on the public internet"):
        Url(False, FAST).plan(there, None)
    planned = Url(True, FAST).plan(origin(f"{site.url()}/x.bin"), None)
    before = len(site.seen)
    with pytest.raises(InvalidUrl, match="not on the public internet"):
        Url(False, FAST).fetch(replace(planned, origin=there), None, out, Watcher())
    assert len(site.seen) == before


@pytest.fixture
def outside(site: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """The site as a host of the public internet, which it is behind a proxy on this machine."""
    monkeypatch.setenv("http_proxy", site.url("localhost"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return "http://93.184.216.34"


def test_public_hosts_are_fetched_from_also_through_a_proxy(site: Site, outside: str, out: Path) -> None:
    site.files[f"{outside}/x.bin"] = DATA
    fetcher = Url(False, FAST)
    fetcher.fetch(fetcher.plan(origin(f"{outside}/x.bin"), None), None, out, Watcher())
    assert held(out) == {"x.bin": DATA}


def test_a_redirect_into_the_private_network_is_refused(
    site: Site, outside: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.files[f"{outside}/x.bin"] = DATA
    fetcher = Url(False, FAST)
    planned = fetcher.plan(origin(f"{outside}/x.bin"), None)
    site.seen.clear()

    def lead_on(self: Answers) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        self._empty(302, Location=f"http://127.0.0.1:{self.server.server_port}/inside.bin")

    monkeypatch.setattr(Answers, "do_GET", lead_on)
    for work in (lambda: fetcher.plan(planned.origin, None), lambda: fetcher.fetch(planned, None, out, Watcher())):
        with pytest.raises(InvalidUrl, match=r"'127.0.0.1' is not on the public internet"):
            work()
    assert {path for path, _ in site.seen} == {f"{outside}/x.bin"}


def test_a_name_that_changes_its_address_meanwhile_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["93.184.216.34"])

    def rebound(*_: object, **__: object) -> list[object]:
        return [(socket.AF_INET, 1, 6, "", (next(answers, "127.0.0.1"), site.server_port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    with pytest.raises(InvalidUrl, match="not on the public internet"):
        Url(False, FAST).plan(origin(f"http://evil.example:{site.server_port}/x.bin"), None)
    assert not site.seen
