"""A local Hugging Face Hub over real HTTP, for tests, benches and trying by hand.

    with Hub(folder) as hub:  # folder/acme/tiny/config.json, ...
        hub.fault("cdn", "*.safetensors", drop_after=5000, times=2)
        HfApi(endpoint=hub.url).model_info("acme/tiny")
        assert hub.requests[-1].outcome == "complete"

`folder/owner/name` is a repository's main branch, `folder/owner/name@v1` its revision "v1". Weights and files over
10 MB are "large": the hub sends the client on to another origin for them, as the real one does to its CDN.

    python tests/hub.py FOLDER PORT
"""

import fnmatch
import http
import json
import os
import re
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, Self, cast
from urllib.parse import quote, unquote

from hub_repos import Repos
from running import PATIENCE_S

GRANTED = "hf_granted"  # an access token that may read every repository
PLAIN = "hf_plain"  # a valid one whose owner was granted nothing

BLOCK = 8 * 2**20
BEAT = 0.02
ROUTES = {
    "whoami": r"/api/whoami-v2()()()",
    "search": r"/api/models()()()",
    "info": r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?()",
    "tree": r"/api/models/([^/]+/[^/]+)/tree/([^/]+)()",
    "resolve": r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)",
    "cdn": r"/cdn/([^/]+/[^/]+)/([^/]+)/(.+)",
    "missing": r".*()()()",
}


@dataclass(frozen=True)
class Fault:
    """What goes wrong with requests of `kind` ("api", "resolve", "cdn", "*") for targets that match `pattern`.

    throttle: bytes a second of each answer. drop_after: close after so many bytes of body; with `reset` by TCP reset.
    status, retry_after: answer this instead. hang_after: go silent after so many bytes, 0 means before the headers.
    corrupt_at: flip the byte at this offset of the file. no_range: ignore Range. times: how often, None: always.
    """

    kind: str = ""
    pattern: str = "*"
    throttle: int | None = None
    drop_after: int | None = None
    reset: bool = False
    status: int | None = None
    retry_after: int | None = None
    hang_after: int | None = None
    corrupt_at: int | None = None
    no_range: bool = False
    times: int | None = None


@dataclass
class Request:
    """One request as the hub saw it.

    kind: api, resolve or cdn. target: "owner/name" or "owner/name/path". revision: a branch, tag or commit.
    auth: none, granted, plain or invalid. sent: bytes of body. outcome: running, hung, complete, refused, dropped or
    client_gone.
    """

    kind: str
    target: str
    revision: str
    method: str
    range: str | None
    auth: str
    sent: int = 0
    status: int = 0
    outcome: str = "running"


class Refused(Exception):
    """An error answer, with the headers that huggingface_hub knows it by."""

    def __init__(self, status: int, code: str = "", message: str = "", retry_after: int | None = None) -> None:
        self.status = status
        named = {"X-Error-Code": code, "X-Error-Message": message, "Retry-After": retry_after}
        self.headers = {name: value for name, value in named.items() if value not in ("", None)}


class Hub:
    """Serves the repositories below `root` at `url`, their large files at `cdn_url`.

    Repositories named in `gated` and `private` open to the granted token only. `requests` is the log.
    """

    def __init__(self, root: Path | str, port: int = 0) -> None:
        self.repos = Repos(Path(root))
        self.gated, self.private = self.repos.gated, self.repos.private
        self.requests: list[Request] = []
        self.closing = False
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._servers = [_Server(self, port), _Server(self, 0)]
        self.url = f"http://127.0.0.1:{self._servers[0].server_port}"
        self.cdn_url = f"http://localhost:{self._servers[1].server_port}"

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(BEAT,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing = True
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fault(self, kind: str, pattern: str = "*", **what: Any) -> None:
        """Adds a `Fault`. The oldest one that matches a request and is not used up applies to it."""
        with self._lock:
            self._faults.append(Fault(kind, pattern, **what))

    def clear(self) -> None:
        """Takes all faults back."""
        with self._lock:
            self._faults.clear()

    def take_fault(self, kind: str, target: str) -> Fault:
        """The fault that applies to a request, counted as used once more; an empty one if there is none."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.kind in ("*", kind) and fault.times != 0 and fnmatch.fnmatch(target, fault.pattern):
                    self._faults[index] = replace(fault, times=fault.times and fault.times - 1)
                    return fault
        return Fault()

    def wait_for(self, seen: Callable[[Request], bool], timeout: float = PATIENCE_S) -> bool:
        """Waits until a request in the log fits; False if none did in time."""
        end = time.monotonic() + timeout
        while not (found := any(map(seen, list(self.requests)))) and time.monotonic() < end:
            time.sleep(0.005)
        return found

    def open(self, repo: str, revision: str, auth: str) -> tuple[Path, str]:
        """The folder and commit of a revision, for whoever asks; `Refused` as the real hub does."""
        if not self.repos.exists(repo) or (repo in self.private and auth != "granted"):
            raise Refused(401 if auth == "none" else 404, "RepoNotFound", "Repository not found")
        if found := self.repos.open(repo, revision):
            return found
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: Hub, port: int) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.hub = cast(_Server, self.server).hub
        path = self.path.partition("?")[0]
        route, match = next((name, m) for name, r in ROUTES.items() if (m := re.fullmatch(r, path)))
        repo, revision, file = (unquote(group or "") for group in match.groups())
        header = self.headers.get("Authorization")
        auth = {None: "none", f"Bearer {GRANTED}": "granted", f"Bearer {PLAIN}": "plain"}.get(header, "invalid")
        kind = route if route in ("resolve", "cdn") else "api"
        target = f"{repo}/{file}" if file else repo or path
        self.seen = Request(kind, target, revision, self.command, self.headers.get("Range"), auth)
        self.hub.requests.append(self.seen)
        self.fault = self.hub.take_fault(kind, target)
        try:
            self._answer(route, repo, revision or "main", file)
        except Refused as refused:
            self._send(refused.status, refused.headers, outcome="refused")
        except ConnectionError:
            self.seen.outcome = "client_gone"
            self.close_connection = True

    do_HEAD = do_GET

    def _answer(self, route: str, repo: str, revision: str, file: str) -> None:
        if self.fault.hang_after == 0:
            self._hang()
        if self.fault.status:
            raise Refused(self.fault.status, retry_after=self.fault.retry_after)
        if (auth := self.seen.auth) == "invalid":
            raise Refused(401, message="Invalid credentials in Authorization header")
        if route == "missing" or (route == "whoami" and auth == "none"):
            raise Refused(404 if route == "missing" else 401)
        if route in ("whoami", "search"):
            return self._send_json(self.hub.repos.search(self.path) if route == "search" else {"name": auth})
        folder, commit = self.hub.open(repo, revision, "granted" if route == "cdn" else auth)
        if route == "info":
            return self._send_json(self.hub.repos.info(repo, folder))
        if route == "tree":
            return self._send_json(self.hub.repos.tree(folder))
        return self._send_file(route, repo, folder, commit, file)

    def _send_file(self, route: str, repo: str, folder: Path, commit: str, file: str) -> None:
        if route == "resolve" and repo in self.hub.gated and self.seen.auth != "granted":
            message = f"Access to model {repo} is restricted."
            raise Refused(401 if self.seen.auth == "none" else 403, "GatedRepo", message)
        if ".." in file.split("/") or not (folder / file).is_file():
            raise Refused(404, "EntryNotFound", "Entry not found")
        blob = self.hub.repos.blob(folder / file)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if route == "resolve" and "lfs" in blob:
            headers |= {"X-Linked-Etag": f'"{blob["lfs"]["oid"]}"', "X-Linked-Size": blob["size"]}
            headers["Location"] = f"{self.hub.cdn_url}/cdn/{quote(repo)}/{commit}/{quote(file)}?signature=a%2Fb%7E"
            return self._send(302, headers, outcome="complete")
        headers["ETag"] = f'"{blob["oid"]}"'
        with (folder / file).open("rb") as content:
            return self._send_body(content, blob["size"], headers)

    def _send_body(self, content: BinaryIO, size: int, headers: dict[str, Any]) -> None:
        asked = None if self.fault.no_range else re.fullmatch(r"bytes=(\d+)-(\d*)", self.seen.range or "")
        start, end = 0, size
        if asked:
            start, end = int(asked[1]), min(int(asked[2] or size - 1) + 1, size)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._send(206 if asked else 200, {**headers, "Content-Length": end - start}, outcome="running")
        while self.seen.method == "GET" and start < end:
            if not (count := self._allowed(start, end)):
                return
            if start == self.fault.corrupt_at:
                sent = self.connection.send(bytes([os.pread(content.fileno(), 1, start)[0] ^ 1]))
            else:
                sent = os.sendfile(self.connection.fileno(), content.fileno(), start, count)
            start += sent
            self.seen.sent += sent
        self.seen.outcome = "complete"

    def _allowed(self, start: int, end: int) -> int:
        """How many bytes may go out next; 0 once the connection was dropped."""
        fault, count = self.fault, min(BLOCK, end - start)
        if fault.hang_after is not None:
            if self.seen.sent >= fault.hang_after:
                self._hang()
            count = min(count, fault.hang_after - self.seen.sent)
        if fault.drop_after is not None:
            if self.seen.sent >= fault.drop_after:
                return self._drop()
            count = min(count, fault.drop_after - self.seen.sent)
        if fault.throttle:
            self._pause()
            count = min(count, max(1, int(fault.throttle * BEAT)))
        if fault.corrupt_at is not None and start <= fault.corrupt_at < start + count:
            count = fault.corrupt_at - start or 1
        return count

    def _drop(self) -> int:
        if self.fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.seen.outcome = "dropped"
        self.close_connection = True
        return 0

    def _hang(self) -> None:
        self.seen.outcome = "hung"
        while True:
            self._pause()

    def _pause(self) -> None:
        """Waits a beat; raises once the client has gone."""
        if select.select([self.connection], [], [], BEAT)[0] or self.hub.closing:
            raise ConnectionAbortedError

    def _send_json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self._send(200, {"Content-Type": "application/json"}, body, outcome="complete")

    def _send(self, status: int, headers: dict[str, Any], body: bytes = b"", *, outcome: str) -> None:
        head = {"Content-Length": len(body), **headers}
        lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in head.items())]
        self.seen.status, self.seen.outcome, self.seen.sent = status, outcome, len(body)
        self.wfile.write("\r\n".join([*lines, "", ""]).encode() + (b"" if self.seen.method == "HEAD" else body))


if __name__ == "__main__":
    with Hub(sys.argv[1], int(sys.argv[2])) as served:
        print(f"HF_ENDPOINT={served.url}  tokens: {GRANTED}, {PLAIN}", flush=True)  # noqa: T201
        threading.Event().wait()
