"""A running miLLM process, for tests and for trying by hand."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


def start_app(cache: Path, log_path: Path, *arguments: str, **environ: str) -> App:
    """Runs app.py and returns at once."""
    port = free_port()
    base = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "MILLM_")) and k not in ("HOST", "PORT")}
    process = subprocess.Popen(
        [sys.executable, "app.py", "--model-cache-dir", str(cache), "--port", str(port), *arguments],
        cwd=ROOT,
        env={**base, **environ},
        stdout=log_path.open("w"),
        stderr=subprocess.STDOUT,
        text=True,
    )
    return App(process, f"http://127.0.0.1:{port}", cache, log_path)


def wait_until_up(app: App, seconds: float = 30) -> App:
    """Waits for /health."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert app.process.poll() is None, app.log
        try:
            with urllib.request.urlopen(f"{app.url}/health", timeout=2):
                return app
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"miLLM did not come up: {app.log}")
