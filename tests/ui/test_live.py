"""How pages follow the manager, and that no page holds a connection for it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import make_manager
from running import PATIENCE_S

from millm.manager import Manager
from millm.records import Source
from millm.sources.base import Origin
from millm.ui import build_ui
from millm.ui.gradio_import import import_gradio
from millm.views import StorageState

import_gradio()

import gradio as gr  # noqa: E402

from millm.ui.page import LOOK_S, SLEEP_S, Live  # noqa: E402

SHOWN_ONCE = 11
UNCHANGED = gr.skip()
ALL = ("", "All", "All types")
IDS = """tab-download tab-models tab-playground status-bar
    source-select repo-input path-input quant-select token-input trust-checkbox name-input preview-btn download-btn
    lookup-cancel-btn
    preview-card models-list filter-status filter-type sort search storage-summary
    url-input checksum-input ollama-input revision-input type-select catalog
    chat-input chat-log send-btn stop-btn system-prompt temperature max-tokens top-p top-k seed
    token-switch playground-mode compare-prompt compare-model-a compare-model-b compare-start compare-run"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = make_manager(tmp_path)
    yield manager
    manager.close(1)


def test_a_page_that_is_up_to_date_is_sent_nothing(manager: Manager) -> None:
    live = Live(manager)
    *_, stamp = live.draw(*ALL)
    assert live.poll(*ALL, stamp) == (UNCHANGED,) * SHOWN_ONCE


def test_a_page_that_is_behind_is_sent_everything(manager: Manager) -> None:
    live = Live(manager)
    *_, stamp = live.draw(*ALL)
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id="acme/tiny"))
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    drawn = live.poll(*ALL, stamp)
    assert "acme/tiny" in drawn[3]
    assert live.poll(*ALL, drawn[-1]) == (UNCHANGED,) * SHOWN_ONCE


def test_all_that_is_drawn_comes_from_one_look_at_the_disk(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id="acme/tiny"))
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    looks: list[StorageState] = []

    def storage() -> StorageState:
        looks.append(StorageState(3_000_000, 0, 0, {}, {record.id: 3_000_000}, {}, {}))
        return looks[-1]

    monkeypatch.setattr(manager, "storage", storage)
    drawn = Live(manager).draw(*ALL)
    assert len(looks) == 1
    assert "3 MB" in drawn[2]
    assert "This frees 3 MB" in drawn[3]


def test_a_status_bar_that_changed_alone_is_sent_alone(manager: Manager) -> None:
    live = Live(manager)
    bar, *_, stamp = live.draw(*ALL)
    version, _, comparison = stamp.split()
    drawn = live.poll(*ALL, f"{version} 0 {comparison}")
    assert (drawn[0], drawn[-1]) == (bar, stamp)
    assert drawn[1:-1] == (UNCHANGED,) * (SHOWN_ONCE - 2)


def test_a_comparison_that_goes_on_is_sent_without_the_cards(manager: Manager) -> None:
    live = Live(manager)
    *_, stamp = live.draw(*ALL)
    manager.side_by_side.version += 1
    drawn = live.poll(*ALL, stamp)
    assert drawn[1:5] == (UNCHANGED,) * 4
    assert "Nothing compared yet" in drawn[8] or "No model to ask yet" in drawn[8]
    assert live.poll(*ALL, drawn[-1]) == (UNCHANGED,) * SHOWN_ONCE


def test_a_page_of_an_earlier_process_is_drawn_anew(manager: Manager) -> None:
    assert "No model loaded" in Live(manager).poll(*ALL, "")[0]


def test_the_page_holds_no_connection_and_offers_no_endpoints(manager: Manager) -> None:
    config = build_ui(manager).get_config_file()
    assert config["connect_heartbeat"] is False
    for listener in config["dependencies"]:
        assert listener["api_visibility"] == "private", listener["targets"]
    for function in build_ui(manager).fns.values():
        assert function.concurrency_limit is None, function


def test_every_agreed_id_is_there_once(manager: Manager) -> None:
    config = build_ui(manager).get_config_file()
    ids = [component["props"].get("elem_id") for component in config["components"]]
    for wanted in IDS.split():
        assert ids.count(wanted) == 1, wanted


def test_the_timer_costs_no_queue_entry(manager: Manager) -> None:
    listeners = build_ui(manager).get_config_file()["dependencies"]
    queued = {name: listener["queue"] for listener in listeners for _, name in listener["targets"]}
    assert queued["tick"] is False
    assert queued["ask_manager"] is True, "toasts need the queue"


def test_gradio_looks_for_events_often_only_while_a_page_is_open(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build_ui(manager)
    assert built._queue.sleep_when_free == SLEEP_S
    poll = next(each.fn for each in built.fns.values() if any(event == "tick" for _, event in each.targets))
    poll(*ALL, "")
    assert built._queue.sleep_when_free == LOOK_S
    monkeypatch.setattr("millm.ui.page.GONE_S", 0)
    assert built._queue.sleep_when_free == SLEEP_S


def test_opening_the_page_makes_estimates_ready(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(manager, "warm_up", lambda: begun.append("counting"))
    built = build_ui(manager)
    assert begun == [], "a server of which nobody opens the page needs no process for it"
    built.present()
    assert begun == ["counting"]


def test_importing_the_room_brings_neither_gradio_nor_torch() -> None:
    code = "import sys, millm.ui; print({'gradio', 'torch', 'transformers'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
