"""A running miLLM process, for tests and for trying by hand."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
PATIENCE_S = 180.0  # for what takes seconds: a shared machine may stand still for a minute


def free_ports(count: int) -> list[int]:
    """So many different ports that nobody listens on just now."""
    with ExitStack() as open_until_all_are_found:
        probes = [open_until_all_are_found.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def free_port() -> int:
    """A port nobody listens on just now."""
    return free_ports(1)[0]


@dataclass
class App:
    """A miLLM process of its own, with the log it writes."""

    process: subprocess.Popen[str]
    url: str
    cache: Path
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def threads(self) -> str:
        """Ends it; what each of its threads was doing, at the end of its log."""
        self.process.send_signal(signal.SIGABRT)
        self.process.wait(PATIENCE_S)
        return self.log

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


def start_app(
    cache: Path, log_path: Path, *arguments: str, first: bool = False, port: int = 0, **environ: str
) -> App:
    """Runs app.py and returns at once. first: on a machine that had no miLLM; else its list is empty.

    port: 0 takes a free one.
    """
    port = port or free_port()
    cache.mkdir(exist_ok=True)
    if not first and not any(cache.iterdir()):
        (cache / "registry.json").write_text("{}")
    base = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "MILLM_")) and k not in ("HOST", "PORT")}
    process = subprocess.Popen(
        [sys.executable, "app.py", "--model-cache-dir", str(cache), "--port", str(port), *arguments],
        cwd=ROOT,
        env={**base, "PYTHONFAULTHANDLER": "1", **environ},
        stdout=log_path.open("w"),
        stderr=subprocess.STDOUT,
        text=True,
    )
    return App(process, f"http://127.0.0.1:{port}", cache, log_path)


def wait_until_up(app: App, seconds: float = PATIENCE_S) -> App:
    """Waits for /health."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert app.process.poll() is None, app.log
        try:
            with urllib.request.urlopen(f"{app.url}/health", timeout=PATIENCE_S):
                return app
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"miLLM did not come up: {app.log}")


class Client:
    """The management API with its envelope taken off."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.http = httpx.Client(base_url=app.url, timeout=PATIENCE_S)

    def ask(self, method: str, path: str, status: int, body: dict[str, Any] | None = None) -> Any:
        answer = self.http.request(method, path, json=body)
        envelope = answer.json()
        assert answer.status_code == status, envelope
        assert envelope["success"] is (status < 400)
        return envelope["data"] if status < 400 else envelope["error"]

    def wait(self, model_id: int, status: str, seconds: float = PATIENCE_S) -> dict[str, Any]:
        """The record once it has this status; an error that it had before is not minded."""
        before = self.ask("GET", f"/api/models/{model_id}", 200)["error_message"]
        deadline = time.monotonic() + seconds
        while (record := self.ask("GET", f"/api/models/{model_id}", 200))["status"] != status:
            assert time.monotonic() < deadline, f"{record}\n{self._app.threads()}"
            assert record["error_message"] in (None, before), record
            time.sleep(0.05)
        return dict(record)

    def settle(self, model_id: int, seconds: float = PATIENCE_S) -> dict[str, Any]:
        """The record once nothing is done with it any more."""
        deadline = time.monotonic() + seconds
        while any(job["model_id"] == model_id for job in self.ask("GET", "/api/system", 200)["jobs"]):
            assert time.monotonic() < deadline, self._app.threads()
            time.sleep(0.05)
        return dict(self.ask("GET", f"/api/models/{model_id}", 200))
