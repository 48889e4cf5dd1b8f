"""The list of running downloads, and how each of them ends."""

from pathlib import Path

from fakes import FakeFetcher, make_manager
from running import PATIENCE_S

from millm.errors import DownloadFailed
from millm.manager import Manager
from millm.records import ModelRecord, ModelType, Source
from millm.sources.base import Origin
from millm.ui.downloads_list import draw_downloads, draw_ending


def begin(manager: Manager, name: str) -> ModelRecord:
    return manager.download(Origin(Source.HUGGINGFACE, repo_id=f"acme/{name}"))


def finish(manager: Manager, record: ModelRecord) -> None:
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)


def test_the_running_download_comes_first_and_alone_has_the_ids(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, FakeFetcher(chunks=100, pause_s=0.02))
    assert draw_downloads(manager, manager.storage()) == ""
    begin(manager, "first")
    second = begin(manager, "second")
    html = draw_downloads(manager, manager.storage())
    assert html.count('id="download-progress"') == html.count('id="cancel-btn"') == 1
    assert html.index("first") < html.index('id="download-progress"') < html.index("second")
    assert html.count('data-act="cancel"') == 2
    assert "Waiting for its turn" in html
    third = begin(manager, "third")
    html = draw_downloads(manager, manager.storage())
    assert html.index("Next in line.") < html.index("third") < html.index("2 downloads before it.")
    manager.cancel(third.id)
    manager.cancel(second.id)
    assert "second" not in draw_downloads(manager, manager.storage())
    manager.close(2)


def test_a_finished_download_can_be_loaded(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    record = begin(manager, "tiny")
    finish(manager, record)
    html = draw_ending(manager, record)
    assert "tiny is ready" in html
    assert f'data-act="load" data-model="{record.id}"' in html
    assert ' id="' not in html  # the card in the models tab has the ids
    manager.close(1)


def test_a_model_for_other_programs_can_be_activated(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id="acme/song", model_type=ModelType.MUSIC))
    finish(manager, record)
    html = draw_ending(manager, record)
    assert f'data-act="activate" data-model="{record.id}"' in html
    assert "Activate it" in html
    manager.close(1)


def test_a_failed_download_stays_in_the_list_with_what_retry_has_to_bring(tmp_path: Path) -> None:
    sentence = "Download failed: Network error. Please check connection and try again."
    manager = make_manager(tmp_path, FakeFetcher(fail_with=DownloadFailed(sentence)))
    record = begin(manager, "tiny")
    finish(manager, record)
    assert draw_ending(manager, record) == "", "it stands in the list, on every page and after a reload"
    html = draw_downloads(manager, manager.storage())
    assert "Did not arrive" in html
    assert sentence in html
    assert f'data-act="retry" data-model="{record.id}"' in html
    assert f'data-act="delete" data-model="{record.id}"' in html
    assert ' id="' not in html  # the card in the models tab has the ids
    assert "resumes" not in html
    manager.close(1)


def test_a_retry_queues_behind_what_came_before_it(tmp_path: Path) -> None:
    fetcher = FakeFetcher(fail_with=DownloadFailed("No."))
    manager = make_manager(tmp_path, fetcher)
    failed = begin(manager, "older")
    finish(manager, failed)
    fetcher.fail_with, fetcher.chunks, fetcher.pause_s = None, 100, 0.02
    begin(manager, "newer")
    manager.retry(failed.id)
    html = draw_downloads(manager, manager.storage())
    assert html.index("newer") < html.index("older")
    assert "Did not arrive" not in html
    manager.close(2)


def test_a_cancelled_download_says_that_nothing_was_kept(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, FakeFetcher(chunks=200, pause_s=0.02))
    record = begin(manager, "tiny")
    manager.cancel(record.id)
    html = draw_ending(manager, record)
    assert "tiny was cancelled" in html
    assert "None of its files were kept." in html
    manager.close(1)
