"""The end of a download reaches every page once, wherever on it a person is."""

import json
from pathlib import Path

import pytest
from fakes import FakeFetcher, make_manager
from running import PATIENCE_S

from millm.errors import DownloadFailed
from millm.manager import Manager
from millm.records import ModelRecord, Source
from millm.sources.base import Origin
from millm.ui.gradio_import import import_gradio
from millm.views import StorageState

import_gradio()

from millm.ui import news  # noqa: E402
from millm.ui.live import Drawn, Live  # noqa: E402
from millm.ui.models_tab import Filters  # noqa: E402

ALL = Filters()


def bring(manager: Manager, name: str) -> ModelRecord:
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id=f"acme/{name}"))
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    return record


def told(drawn: Drawn) -> list[list[object]]:
    return list(json.loads(drawn[-2]["props"]["items"])["told"]) if drawn[-2] else []


def stamp(drawn: Drawn) -> str:
    assert drawn[-1]
    return str(drawn[-1]["value"])


def test_what_ended_is_told_once_to_every_page_that_was_there(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    live = Live(manager)
    first = stamp(live.draw(ALL))
    record = bring(manager, "tiny")
    drawn = live.draw(ALL, first)
    assert told(drawn) == [[news.COMPLETE, record.id]]
    assert told(live.draw(ALL, first)) == told(drawn), "a second page that showed the same"
    assert told(live.draw(ALL, stamp(drawn).replace(" ", " 0"))) == [], "once"
    assert told(live.draw(ALL)) == [], "nothing after a reload"
    assert told(live.draw(ALL, "12 0")) == [], "nor after a restart"
    manager.close(1)


def test_what_ends_while_a_page_is_drawn_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = make_manager(tmp_path)
    live, storage = Live(manager), manager.storage
    new = stamp(live.draw(ALL))
    early = bring(manager, "early")

    def slow() -> StorageState:
        monkeypatch.undo()
        late.append(bring(manager, "late").id)
        return storage()

    late: list[int] = []
    monkeypatch.setattr(manager, "storage", slow)
    first = live.draw(ALL, new)
    second = live.draw(ALL, stamp(first))
    assert told(first) == [[news.COMPLETE, early.id]]
    assert told(second) == [[news.COMPLETE, late[0]]]
    manager.close(1)


def test_the_toast_says_what_happened_and_what_can_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(news, "done", said.append)
    monkeypatch.setattr(news, "warn", said.append)
    fetcher = FakeFetcher()
    manager = make_manager(tmp_path, fetcher)
    good = bring(manager, "good")
    fetcher.fail_with = DownloadFailed("No network.")
    bad = bring(manager, "bad")
    news.say(manager, [[news.COMPLETE, good.id], [news.FAILED, bad.id], [news.FAILED, 99], [news.FAILED, good.id]])
    assert said == ["good is ready. Load it to chat with it and to serve it.", "bad: No network."]
    manager.close(1)


@pytest.mark.parametrize("nonsense", [None, "x", [["rm", 1]], [[news.COMPLETE]], [{}], [[news.COMPLETE, "1"]]])
def test_nonsense_of_a_browser_is_not_news(tmp_path: Path, nonsense: object, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(news, "done", said.append)
    monkeypatch.setattr(news, "warn", said.append)
    manager = make_manager(tmp_path)
    bring(manager, "tiny")
    news.say(manager, nonsense)
    assert said == []
    manager.close(1)
