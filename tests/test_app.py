"""The process: it starts, says what is wrong in one line, and ends cleanly."""

import asyncio
import gc
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import make_manager
from running import PATIENCE_S, ROOT, App

import app
from millm.settings import Settings

pytestmark = pytest.mark.slow
Run = Callable[..., App]


def failed_start(*arguments: str) -> list[str]:
    """The lines of a start that must fail with exit code 2."""
    run = subprocess.run(
        [sys.executable, "app.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert run.returncode == 2, run.stderr
    return (run.stdout + run.stderr).splitlines()


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        (line,) = failed_start("--port", port, "--model-cache-dir", str(tmp_path))
    assert line.startswith(f"miLLM cannot start: Cannot listen on 127.0.0.1:{port}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_directory_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (line,) = failed_start("--port", "0" * 0 + "17861", "--model-cache-dir", str(tmp_path / "file" / "x"))
    assert "Cannot write to the cache directory" in line


def test_a_second_process_on_the_same_cache_directory_is_one_line(run_app: Run) -> None:
    first = run_app()
    (line,) = failed_start("--port", "17862", "--model-cache-dir", str(first.cache))
    assert "Another miLLM is using the cache directory" in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_even_while_events_are_read(run_app: Run, number: signal.Signals) -> None:
    app = run_app()
    events = urllib.request.urlopen(f"{app.url}/api/events", timeout=PATIENCE_S)
    started = time.monotonic()
    assert app.stop(number) == 0
    assert time.monotonic() - started < 20
    events.read()
    assert "Traceback" not in app.log
    assert "stopped" in app.log
    assert list((app.cache / ".staging").iterdir()) == []


def test_the_page_the_docs_and_health_answer(run_app: Run) -> None:
    app = run_app()
    for path, part in (("/", "miLLM"), ("/health", "ok"), ("/docs", "swagger"), ("/openapi.json", "/api/models")):
        with urllib.request.urlopen(app.url + path, timeout=PATIENCE_S) as answer:
            assert part in answer.read().decode()
    config = json.load(urllib.request.urlopen(f"{app.url}/config", timeout=PATIENCE_S))
    assert config["connect_heartbeat"] is False


def test_the_server_looks_at_itself_while_nobody_asks(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    looks: list[int] = []
    manager.system = lambda: looks.append(1)  # type: ignore[assignment, return-value]
    config = app.make_server(Settings(model_cache_dir=tmp_path), manager, None).config
    assert config.timeout_notify <= 5
    assert config.callback_notify
    asyncio.run(config.callback_notify())
    deadline = time.monotonic() + PATIENCE_S
    while not looks:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    manager.close(1)


def test_a_key_that_was_made_counts_as_set() -> None:
    shown = {each.variable: each for each in app.with_key(Settings(), "secret").shown()}
    assert (shown["MILLM_API_KEY"].value, shown["MILLM_API_KEY"].given_by) == ("set", "made at this start")
    given = Settings(api_key="mine", given_by={"api_key": "flag"})
    assert app.with_key(given, "mine") is given


def test_what_was_imported_is_no_work_for_later_collections(tmp_path: Path) -> None:
    before = gc.get_freeze_count()
    kept = [[number] for number in range(1000)]
    manager = make_manager(tmp_path)
    app.begin(Settings(engine="ray", model_cache_dir=tmp_path), manager)
    manager.close(1)
    assert gc.get_freeze_count() >= before + len(kept)


def test_json_logs_are_json_line_by_line(run_app: Run) -> None:
    app = run_app("--log-format", "json", "--auto-load-model", "nobody")
    app.stop()
    lines = [json.loads(line) for line in app.log.splitlines() if line.startswith("{")]
    assert any("there is no model called 'nobody'" in line["message"] for line in lines)
    assert len(lines) >= len(app.log.splitlines()) - 1


def test_others_can_connect_only_with_the_printed_key(run_app: Run) -> None:
    app = run_app("--host", "0.0.0.0")
    (line,) = (line for line in app.log.splitlines() if "key" in line.lower())
    key = line.split()[-1]
    request = urllib.request.Request(f"{app.url}/v1/models")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=PATIENCE_S)
    request.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert json.load(answer) == {"object": "list", "data": []}
