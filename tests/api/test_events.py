"""The event stream: names and data as specified, the present state first, nothing lost or doubled, an end."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from fakes import FakeFetcher, FakeOpener
from fastapi.testclient import TestClient
from running import PATIENCE_S
from serving import AT_ONCE_S, call, load, serving, until
from starlette.types import ASGIApp

from millm.api import GuardPolicy, create_app
from millm.api.events import event_data, frames, present
from millm.errors import DownloadFailed
from millm.events import Event, Stage
from millm.manager import Manager
from millm.records import Source, Status
from millm.sources.base import Origin
from millm.views import Notice

Make = Callable[..., Manager]
Seen = list[tuple[str, dict[str, Any]]]


def hub(name: str) -> Origin:
    return Origin(Source.HUGGINGFACE, f"acme/{name}")


class Watching:
    """Reads a manager's stream in the background until the feed is closed."""

    def __init__(self, manager: Manager, model_id: int | None = None) -> None:
        self.seen: Seen = []
        self._lines = frames(manager, model_id)
        self._feed = manager.feed
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for frame in self._lines:
            if frame:
                name, data = frame.decode().strip().split("\n")
                self.seen.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))

    def until(self, name: str) -> Seen:
        """What was told up to and with the first event of this name."""
        until(lambda: name in [told for told, _ in self.seen])
        return self.seen[: [told for told, _ in self.seen].index(name) + 1]

    def end(self) -> Seen:
        """All that was told until the feed was closed."""
        self._feed.close()
        self._thread.join(PATIENCE_S)
        return self.seen


def test_the_whole_life_of_a_model_is_told(manager: Manager) -> None:
    watching = Watching(manager)
    record = load(manager)
    watching.until("model:load:complete")
    manager.unload(record.id)
    watching.until("model:unload:complete")
    manager.update(record.id, name="other")
    manager.delete(record.id)
    seen = watching.end()
    names = list(dict.fromkeys(name for name, _ in seen))
    assert {data["model_id"] for _, data in seen} == {record.id}
    assert [name for name in names if name != "model:changed"] == [
        "model:download:progress",
        "model:download:complete",
        "model:load:progress",
        "model:load:complete",
        "model:unload:progress",
        "model:unload:complete",
        "model:deleted",
    ]
    last = dict(seen)
    assert last["model:load:complete"]["model"]["status"] == "loaded"
    assert last["model:changed"]["model"]["name"] == "other"
    assert last["model:deleted"] == {"model_id": record.id}


def test_data_of_each_kind_of_progress() -> None:
    event = Event(Stage.DOWNLOADING, 12.345, bytes_done=5, bytes_total=9, speed=2_500_000, eta=3.21, pending=4)
    assert event_data(Notice("model:download:progress", 1, event)) == {
        "model_id": 1,
        "stage": "downloading",
        "progress": 12.3,
        "bytes_downloaded": 5,
        "total_bytes": 9,
        "speed_mbps": 2.5,
        "eta_s": 3.2,
    }
    load = {"model_id": 1, "stage": "downloading", "progress": 12.3}
    assert event_data(Notice("model:load:progress", 1, event)) == load
    assert event_data(Notice("model:unload:progress", 1, event)) == {"model_id": 1, "pending_requests": 4}
    assert event_data(Notice("model:download:progress", 1, Event(Stage.RESOLVING)))["eta_s"] is None


def test_an_error_brings_its_code_and_sentence(make: Make) -> None:
    manager = make(fetcher=FakeFetcher(fail_with=DownloadFailed("Download failed: Network error.", tries=3)))
    watching = Watching(manager)
    manager.download(hub("x"))
    _, data = watching.until("model:download:error")[-1]
    assert data["error"] == {
        "code": "MODEL_DOWNLOAD_FAILED",
        "message": "Download failed: Network error.",
        "details": {"tries": 3},
    }


def test_one_that_comes_late_sees_the_state_of_every_running_job(make: Make) -> None:
    fetcher, opener = FakeFetcher(), FakeOpener()
    manager = make(fetcher=fetcher, opener=opener)
    finished = load(manager, "zero")
    fetcher.chunks, fetcher.pause_s = 50, 0.05
    first, second = manager.download(hub("one")), manager.download(hub("two"))
    until(lambda: manager.record(first.id).downloaded_bytes > 0)
    manager.unload(finished.id)
    until(lambda: manager.job(finished.id) is None)
    started = present(manager)[1]
    assert [(notice.kind, notice.model_id) for notice in started] == [
        ("model:download:progress", first.id),
        ("model:download:progress", second.id),
    ]
    assert [notice.event and notice.event.stage for notice in started] == [Stage.DOWNLOADING, Stage.QUEUED]
    opener.pause_s = 0.1
    manager.load(finished.id)
    assert {notice.model_id for notice in present(manager)[1]} == {first.id, second.id, finished.id}
    for record in (second, first, finished):
        manager.cancel(record.id)
    assert present(manager)[1] == []


def test_a_job_so_quiet_that_the_feed_forgot_it_is_still_shown(make: Make) -> None:
    manager = make(fetcher=FakeFetcher(chunks=2, pause_s=0.4))
    first, waiting = manager.download(hub("one")), manager.download(hub("two"))
    until(lambda: any(state.model_id == waiting.id for state in manager.system().jobs))
    for _ in range(1500):
        manager.feed.push(Notice("model:changed", 99))
    shown = {notice.model_id: notice for notice in present(manager)[1]}
    assert shown[waiting.id].event == Event(Stage.QUEUED)
    manager.cancel(waiting.id)
    manager.cancel(first.id)


def test_nothing_is_lost_or_doubled_between_the_state_and_what_follows(make: Make) -> None:
    """One thread reports 200 steps that cannot be merged while others subscribe again and again."""

    subscribed = threading.Event()

    class Counting(FakeFetcher):
        def fetch(self, plan: Any, token: Any, folder: Any, report: Any) -> None:
            for step in range(200):
                if step == 150:
                    assert subscribed.wait(PATIENCE_S)
                report(Event((Stage.DOWNLOADING, Stage.VERIFYING)[step % 2], bytes_done=step))
                time.sleep(0.0003)
            super().fetch(plan, token, folder, report)

    manager = make(fetcher=Counting())
    record = manager.download(hub("x"))
    until(lambda: manager.record(record.id).downloaded_bytes > 0)
    watching = [Watching(manager) for _ in range(30)]
    subscribed.set()
    until(lambda: manager.job(record.id) is None)
    for one in watching:
        one.until("model:download:complete")
    for seen in [one.end() for one in watching]:
        steps = [data["bytes_downloaded"] for name, data in seen if name == "model:download:progress"]
        steps = steps[: steps.index(199) + 1]
        assert steps == list(range(steps[0], 200))
        assert [name for name, _ in seen].count("model:download:complete") == 1


def test_one_model_can_be_followed_alone(make: Make) -> None:
    manager = make(fetcher=FakeFetcher(chunks=2, pause_s=0.05))
    one, two = manager.download(hub("one")), manager.download(hub("two"))
    watching = Watching(manager, two.id)
    seen = watching.until("model:download:complete")
    assert {data["model_id"] for _, data in seen} == {two.id}
    assert manager.record(one.id).status is Status.READY


def test_following_a_model_that_is_not_there_is_an_error(client: TestClient) -> None:
    answer = client.get("/api/models/7/events")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "MODEL_NOT_FOUND"


@pytest.mark.slow
def test_over_http_it_is_an_event_stream_that_ends_when_the_server_does(manager: Manager) -> None:
    with serving(create_app(manager, GuardPolicy())) as url:
        connection = call(url, "/api/events")
        head = connection.recv(4096)
        assert b"200 OK" in head
        assert b"content-type: text/event-stream" in head
        manager.feed.push(Notice("model:deleted", 3))
        assert b'event: model:deleted\ndata: {"model_id":3}\n\n' in connection.recv(4096)
        manager.feed.close()
        rest = connection.recv(4096)
        assert rest.endswith(b"0\r\n\r\n")
        connection.close()


@pytest.mark.slow
def test_a_reader_that_leaves_is_forgotten(manager: Manager, serve: Callable[[ASGIApp], str]) -> None:
    app = create_app(manager, GuardPolicy())
    url = serve(app)
    connection = call(url, "/api/events")
    connection.recv(64)
    until(lambda: manager.feed._watchers)
    connection.close()
    until(lambda: not manager.feed._watchers, AT_ONCE_S)
