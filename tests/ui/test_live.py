"""How pages follow the manager, and that no page holds a connection for it."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import make_manager
from fastapi.testclient import TestClient
from running import PATIENCE_S

from millm.api import create_app
from millm.api.guard import GuardPolicy
from millm.manager import Manager
from millm.records import ModelRecord, Source
from millm.sources.base import Origin
from millm.ui import build_ui, mount
from millm.ui.gradio_import import import_gradio
from millm.views import StorageState

import_gradio()

from millm.ui.framed import Message  # noqa: E402
from millm.ui.live import UNCHANGED, Live  # noqa: E402
from millm.ui.models_tab import Filters  # noqa: E402

ALL = Filters()
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


def bring(manager: Manager) -> ModelRecord:
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id="acme/tiny"))
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    return record


def value(props: Mapping[str, Any] | None) -> str:
    """What a part shows from now on."""
    assert props
    return str(props["value"])


def test_a_page_that_is_up_to_date_is_sent_nothing(manager: Manager) -> None:
    live = Live(manager)
    stamp = value(live.draw(ALL)[-1])
    assert live.draw(ALL, stamp) == UNCHANGED
    assert len(live.draw(ALL)) == len(UNCHANGED)


def test_a_page_that_is_behind_is_sent_everything(manager: Manager) -> None:
    live = Live(manager)
    stamp = value(live.draw(ALL)[-1])
    bring(manager)
    drawn = live.draw(ALL, stamp)
    assert "acme/tiny" in value(drawn[3])
    assert live.draw(ALL, value(drawn[-1])) == UNCHANGED


def test_all_that_is_drawn_comes_from_one_look_at_the_disk(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bring(manager)
    looks: list[StorageState] = []

    def storage() -> StorageState:
        looks.append(StorageState(3_000_000, 0, 0, {}, {record.id: 3_000_000}, {}, {}))
        return looks[-1]

    monkeypatch.setattr(manager, "storage", storage)
    drawn = Live(manager).draw(ALL)
    assert len(looks) == 1
    assert "3 MB" in value(drawn[2])
    assert "This frees 3 MB" in value(drawn[3])


def test_a_status_bar_that_changed_alone_is_sent_alone(manager: Manager) -> None:
    live = Live(manager)
    bar, *_, stamp = live.draw(ALL)
    version, _, *others = value(stamp).split()
    drawn = live.draw(ALL, " ".join([version, "0", *others]))
    assert (drawn[0], drawn[-1]) == (bar, stamp)
    assert drawn[1:-1] == UNCHANGED[1:-1]


def test_a_comparison_that_goes_on_is_sent_without_the_cards(manager: Manager) -> None:
    live = Live(manager)
    stamp = value(live.draw(ALL)[-1])
    manager.side_by_side.version += 1
    drawn = live.draw(ALL, stamp)
    assert drawn[1:5] == UNCHANGED[1:5]
    assert "Nothing compared yet" in value(drawn[8]) or "No model to ask yet" in value(drawn[8])
    assert live.draw(ALL, value(drawn[-1])) == UNCHANGED


def test_a_page_with_other_filters_is_sent_their_cards(manager: Manager) -> None:
    live = Live(manager)
    bring(manager)
    stamp = value(live.draw(ALL)[-1])
    drawn = live.draw(Filters(search="nothing like it"), stamp)
    assert "No model matches" in value(drawn[3])
    assert [place for place, props in enumerate(drawn) if props] == [2, 3, len(UNCHANGED) - 1]
    assert live.draw(Filters(search="nothing like it"), value(drawn[-1])) == UNCHANGED
    assert live.draw(ALL, value(drawn[-1]))[3] is not None, "a page that missed them is sent them again"


def test_answers_of_each_kind_have_a_place_for_every_part(manager: Manager) -> None:
    live = Live(manager)
    whole = live.draw(ALL)
    version, bar, filters, comparison = value(whole[-1]).split()
    behind = [f"{int(version) - 1} {bar} {filters} {comparison}", f"{version} 0 {filters} {comparison}"]
    behind += [f"{version} {bar} 0 {comparison}", f"{version} {bar} {filters} 0", f"{version}", ""]
    assert {len(live.draw(ALL, shown)) for shown in behind} == {len(UNCHANGED)} == {len(whole)}


def test_a_page_of_an_earlier_process_is_drawn_anew(manager: Manager) -> None:
    assert "No model loaded" in value(Live(manager).draw(ALL, "")[0])


@pytest.fixture
def client(manager: Manager) -> TestClient:
    """What a browser asks."""
    return TestClient(mount(create_app(manager, GuardPolicy()), manager), base_url="http://localhost")


def test_a_page_asks_by_its_stamp_and_its_filters(manager: Manager, client: TestClient) -> None:
    bring(manager)
    answer = client.get("/page/live", params={"stamp": "of another process"})
    assert answer.headers["cache-control"] == "no-store"
    drawn = answer.json()
    assert "acme/tiny" in value(drawn[3])
    stamp = value(drawn[-1])
    shown = {"stamp": stamp, "search": "", "status": "All", "model_type": "All types", "sort": "Newest first"}
    assert client.get("/page/live", params=shown).json() == UNCHANGED
    others = client.get("/page/live", params={**shown, "status": "Loaded"}).json()
    assert "No model matches" in value(others[3])
    assert "acme/tiny" in value(client.get("/page/live", params={"status": "<b>", "colour": "red"}).json()[3])


def test_what_is_sent_is_small_where_the_browser_takes_it(client: TestClient) -> None:
    small = client.get("/page/live", headers={"accept-encoding": "gzip"})
    whole = client.get("/page/live", headers={"accept-encoding": "identity"})
    assert small.json()[1:9] == whole.json()[1:9]
    assert int(small.headers["content-length"]) < int(whole.headers["content-length"]) / 2


def test_a_drawing_that_fails_is_said_on_the_page_and_made_up_for(
    manager: Manager, client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def vanished() -> StorageState:
        raise FileNotFoundError("somebody deleted it just now")

    stamp = value(client.get("/page/live").json()[-1])
    bring(manager)
    with monkeypatch.context() as patched:
        patched.setattr(manager, "storage", vanished)
        bar, *others, stamp_then = client.get("/page/live", params={"stamp": stamp}).json()
    assert "could not be brought up to date" in value(bar)
    assert others == UNCHANGED[1:-1]
    assert "somebody deleted it just now" in caplog.text
    after = client.get("/page/live", params={"stamp": value(stamp_then)}).json()
    assert "No model loaded" in value(after[0])
    assert "acme/tiny" in value(after[3])
    assert "model:download:complete" in after[-2]["props"]["items"], "news is not lost"


def test_left_overs_with_names_that_are_no_text_are_shown(
    manager: Manager, client: TestClient, tmp_path: Path
) -> None:
    left = Path(os.fsdecode(bytes(tmp_path / "huggingface") + b"/mod\xe8le"))
    left.mkdir(parents=True)
    (left / "weights").write_bytes(b"12345")
    assert "huggingface/mod?le" in value(client.get("/page/live").json()[2])
    assert client.get("/api/models/storage").json()["data"]["orphans"] == {"huggingface/mod?le": 5}
    manager.clean()
    assert not left.exists()


@pytest.mark.parametrize(
    "query", [b"stamp=\xc2\xb2", b"stamp=%C2%B2", b"search=\xe8", b"search=%ED%A0%80", b"stamp=1 2 3 4 5"]
)
def test_any_question_has_an_answer(manager: Manager, caplog: pytest.LogCaptureFixture, query: bytes) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {}

    asyncio.run(Live(manager)({"query_string": query, "headers": []}, receive, send))
    assert sent[0]["status"] == 200
    assert len(json.loads(sent[1]["body"])) == len(UNCHANGED)
    assert "bug" not in caplog.text


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


def test_what_the_page_asks_every_second_is_no_event_of_gradio(manager: Manager) -> None:
    listeners = build_ui(manager).get_config_file()["dependencies"]
    on_server = {name: each["backend_fn"] for each in listeners for _, name in each["targets"] if name != "change"}
    assert on_server["tick"] is False
    assert on_server["ask_manager"] is True, "toasts need the queue"


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
