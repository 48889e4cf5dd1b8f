"""What failed, killed and cancelled downloads leave, and how records and disk are brought to agree at start."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fakes import FakeFetcher, make_manager
from hub import Hub
from making import CONFIG, FAST, content, make_repo, safetensors
from running import PATIENCE_S
from serving import AT_ONCE_S, until

from millm.errors import DownloadFailed, GatedModel, InvalidToken
from millm.events import Report
from millm.manager import Manager
from millm.records import ModelRecord, Source, Status
from millm.sources.base import Origin, Plan
from millm.sources.huggingface import HuggingFace
from millm.sources.journal import Extent, Journal, checksum

HALF = b"h" * 2000


class PartFetcher(FakeFetcher):
    """Brings half of the weights and fails, as often as `failures` says; then goes on with what is there."""

    failures = 1
    found: int = -1

    def fetch(self, plan: Plan, token: str | None, folder: Path, report: Report) -> None:
        journal = Journal(folder)
        self.found = journal.count("model.safetensors", None)
        if self.failures:
            self.failures -= 1
            (folder / "model.safetensors").write_bytes(HALF)
            journal.add("model.safetensors", None, [Extent(0, len(HALF), checksum(HALF))])
            journal.close()
            raise DownloadFailed("Download failed: Network error. Please check connection and try again.")
        journal.close()
        super().fetch(plan, token, folder, report)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Manager]]:
    made: list[Manager] = []

    def build(**parts: object) -> Manager:
        if made:
            made[-1].close(1)
        made.append(make_manager(tmp_path, **parts))  # type: ignore[arg-type]
        return made[-1]

    yield build
    made[-1].close(1)


def start(manager: Manager, name: str = "one") -> ModelRecord:
    record = manager.download(Origin(Source.HUGGINGFACE, f"acme/{name}"))
    return wait(manager, record)


def wait(manager: Manager, record: ModelRecord) -> ModelRecord:
    job = manager.job(record.id)
    if job:
        job.wait(PATIENCE_S)
    return manager.record(record.id)


def staged(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / ".staging").iterdir()]


def test_a_failed_download_keeps_what_came_and_a_retry_goes_on(make: Callable[..., Manager], tmp_path: Path) -> None:
    fetcher = PartFetcher()
    manager = make(fetcher=fetcher)
    failed = start(manager)
    assert (failed.status, failed.downloaded_bytes) == (Status.ERROR, len(HALF))
    assert staged(tmp_path) == ["huggingface--acme--one--FP16"]
    storage = manager.storage()
    assert storage.models[failed.id] == storage.unfinished[failed.id] == storage.staging_bytes >= len(HALF)
    assert storage.total_bytes == storage.staging_bytes, "deleting it frees that"
    manager.retry(failed.id)
    ready = wait(manager, failed)
    assert (ready.status, fetcher.found) == (Status.READY, len(HALF))
    assert staged(tmp_path) == []


def test_a_later_process_goes_on_too_and_sweeps_orphans(make: Callable[..., Manager], tmp_path: Path) -> None:
    failed = start(make(fetcher=PartFetcher()))
    (tmp_path / ".staging" / "orphan").mkdir()
    fetcher = PartFetcher()
    fetcher.failures = 0
    manager = make(fetcher=fetcher)
    assert staged(tmp_path) == ["huggingface--acme--one--FP16"]
    assert manager.record(failed.id).downloaded_bytes == len(HALF)
    manager.retry(failed.id)
    assert wait(manager, failed).status is Status.READY
    assert fetcher.found == len(HALF)


def test_deleting_a_failed_download_removes_what_it_kept(make: Callable[..., Manager], tmp_path: Path) -> None:
    manager = make(fetcher=PartFetcher())
    failed = start(manager)
    manager.delete(failed.id)
    assert staged(tmp_path) == []
    assert manager.records() == []


def test_cancelling_a_retry_removes_what_was_kept(make: Callable[..., Manager], tmp_path: Path) -> None:
    fetcher = PartFetcher()
    manager = make(fetcher=fetcher)
    failed = start(manager)
    fetcher.chunks, fetcher.pause_s = 1000, 0.01
    manager.retry(failed.id)
    manager.cancel(failed.id)
    assert staged(tmp_path) == []
    assert manager.records() == []


def test_a_folder_without_a_record_is_adopted(make: Callable[..., Manager], tmp_path: Path) -> None:
    ready = start(make())
    manager = make()
    manager._registry.remove(ready.id)
    again = make()
    (adopted,) = again.records()
    assert (adopted.status, adopted.name, adopted.cache_path) == (Status.READY, "one", ready.cache_path)


def test_a_crash_between_rename_and_registry_is_mended(make: Callable[..., Manager]) -> None:
    ready = start(make())
    manager = make()
    undone = {"status": Status.ERROR, "cache_path": None, "error_message": "interrupted", "downloaded_bytes": 0}
    manager._registry.update(ready.id, **undone)
    mended = make().record(ready.id)
    assert (mended.status, mended.cache_path, mended.error_message) == (Status.READY, ready.cache_path, None)
    assert mended.downloaded_bytes == ready.downloaded_bytes > 0


def test_a_record_whose_files_have_gone_says_so_and_can_be_retried(make: Callable[..., Manager]) -> None:
    ready = start(make())
    shutil.rmtree(str(ready.cache_path))
    manager = make()
    gone = manager.record(ready.id)
    assert gone.status is Status.ERROR
    assert "no longer" in str(gone.error_message)
    manager.retry(ready.id)
    assert wait(manager, ready).status is Status.READY


def test_a_retry_that_still_asks_the_source_can_be_cancelled(make: Callable[..., Manager], tmp_path: Path) -> None:
    fetcher = PartFetcher()
    manager = make(fetcher=fetcher)
    failed = start(manager)
    fetcher.gate = threading.Event()
    resolving = manager.retry(failed.id)
    assert resolving.status in (Status.QUEUED, Status.DOWNLOADING)
    began = time.monotonic()
    manager.cancel(failed.id)
    assert time.monotonic() - began < AT_ONCE_S
    assert (manager.records(), staged(tmp_path)) == ([], [])
    fetcher.gate.set()


def test_retries_that_wait_while_the_program_ends_stay_as_they_are(
    make: Callable[..., Manager], caplog: pytest.LogCaptureFixture
) -> None:
    held = threading.Event()

    class Held(PartFetcher):
        def fetch(self, plan: Plan, token: str | None, folder: Path, report: Report) -> None:
            if not self.failures:
                held.wait(20)
            super().fetch(plan, token, folder, report)

    fetcher = Held()
    fetcher.failures = 2
    manager = make(fetcher=fetcher)
    first, second = start(manager, "one"), start(manager, "two")
    for record in (first, second):
        manager.retry(record.id)
    until(lambda: not manager._inquiry._plans.jobs)
    fetcher.gate = threading.Event()
    caplog.clear()

    def go_on() -> None:
        until(lambda: asking[0].cancelling or manager.job(first.id).cancelling)
        held.set()

    with ThreadPoolExecutor(2) as aside:
        aside.submit(manager.plan, Origin(Source.HUGGINGFACE, "acme/silent"))
        until(lambda: manager._inquiry._plans.jobs)
        asking = manager._inquiry._plans.jobs
        aside.submit(go_on)
        again = make()  # which ends the one before
        fetcher.gate.set()
    for record in map(again.record, (first.id, second.id)):
        assert (record.status, record.error_message) == (Status.ERROR, "The download was interrupted.")
        assert record.downloaded_bytes == len(HALF)
    assert "bug" not in caplog.text


def test_what_the_source_says_to_a_retry_is_the_outcome_of_its_job(make: Callable[..., Manager]) -> None:
    fetcher = PartFetcher()
    manager = make(fetcher=fetcher)
    failed = start(manager)
    fetcher.refusal = GatedModel("It is gated.")
    manager.retry(failed.id)
    refused = wait(manager, failed)
    assert (refused.status, refused.error_code, refused.error_message) == (
        Status.ERROR,
        "GATED_MODEL_NO_TOKEN",
        "It is gated.",
    )
    assert refused.downloaded_bytes == len(HALF), "what came is kept"


def test_what_is_refused_is_shown_but_not_registered(make: Callable[..., Manager]) -> None:
    fetcher = PartFetcher()
    manager = make(fetcher=fetcher)
    fetcher.refusal = GatedModel("It is gated.", token_is_valid=True)
    origin = Origin(Source.HUGGINGFACE, "acme/one")
    assert manager.plan(origin).access == "licence_needed"
    with pytest.raises(GatedModel):
        manager.download(origin)
    assert manager.records() == []


def test_a_wrong_token_of_the_environment_is_named(tmp_path: Path) -> None:
    class Strict(FakeFetcher):
        def plan(self, origin: Origin, token: str | None) -> Plan:
            raise InvalidToken("HuggingFace does not accept this access token.")

    manager = make_manager(tmp_path, Strict(), token="hf_old")
    origin = Origin(Source.HUGGINGFACE, "acme/one")
    with pytest.raises(InvalidToken, match="It is the one in HF_TOKEN"):
        manager.plan(origin)
    with pytest.raises(InvalidToken, match=r"this access token\.$"):
        manager.plan(origin, "hf_mine")
    manager.close(1)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[Manager, Hub, ModelRecord]]:
    """A manager with a model that it brought from a real hub, in three parts and a config."""
    folder = tmp_path / "repos" / "acme" / "parts"
    parts = {f"model-0000{n}-of-00003__safetensors": safetensors(content(200_000 + n)) for n in (1, 2, 3)}
    make_repo(folder, config__json=CONFIG, **parts)
    with Hub(tmp_path / "repos") as hub:
        manager = make_manager(tmp_path / "home", HuggingFace(hub.url, FAST, cache=tmp_path / "none"))  # type: ignore[arg-type]
        record = wait(manager, manager.download(Origin(Source.HUGGINGFACE, "acme/parts")))
        assert record.status is Status.READY, record.error_message
        yield manager, hub, record
        manager.close(1)


def damage(manager: Manager, record: ModelRecord) -> Path:
    part = Path(str(record.cache_path)) / "model-00002-of-00003.safetensors"
    part.write_bytes(bytes(part.stat().st_size))
    manager.verify(record.id)
    damaged = wait(manager, record)
    assert (damaged.status, damaged.damaged) == (Status.READY, True)
    return part


def test_a_repair_brings_only_what_is_damaged(kept: tuple[Manager, Hub, ModelRecord]) -> None:
    manager, hub, record = kept
    part = damage(manager, record)
    (part.parent / "config.json").unlink()
    asked = len(hub.requests)
    manager.retry(record.id)
    mended = wait(manager, record)
    assert (mended.status, mended.error_message, mended.cache_path) == (Status.READY, None, record.cache_path)
    assert {each.target for each in hub.requests[asked:] if each.kind == "cdn"} == {f"acme/parts/{part.name}"}
    manager.verify(record.id)
    assert wait(manager, record).error_message is None


def test_a_repair_that_cannot_begin_changes_nothing(kept: tuple[Manager, Hub, ModelRecord]) -> None:
    manager, hub, record = kept
    part = damage(manager, record)
    hub.fault("api", status=500)
    manager.retry(record.id)
    after = wait(manager, record)
    assert (after.status, after.damaged, part.exists()) == (Status.READY, True, True)


def test_a_repair_that_fails_or_is_cancelled_keeps_the_rest(kept: tuple[Manager, Hub, ModelRecord]) -> None:
    manager, hub, record = kept
    part = damage(manager, record)
    hub.fault("cdn", status=503)
    manager.retry(record.id)
    failed = wait(manager, record)
    assert (failed.status, failed.error_code) == (Status.ERROR, "MODEL_DOWNLOAD_FAILED")
    assert failed.downloaded_bytes > 400_000
    hub.clear()
    hub.fault("cdn", hang_after=0, times=1)
    asked = len(hub.requests)
    manager.retry(record.id)
    assert hub.wait_for(lambda request: request.outcome == "hung")
    assert {each.target for each in hub.requests[asked:] if each.kind == "cdn"} == {f"acme/parts/{part.name}"}
    hub.clear()


def test_cancelling_a_repair_leaves_it_to_be_retried(kept: tuple[Manager, Hub, ModelRecord]) -> None:
    manager, hub, record = kept
    damage(manager, record)
    hub.fault("cdn", hang_after=0, times=1)
    manager.retry(record.id)
    assert hub.wait_for(lambda request: request.outcome == "hung")
    manager.cancel(record.id)
    left = manager.record(record.id)
    assert (left.status, left.downloaded_bytes > 400_000) == (Status.ERROR, True)
    manager.retry(record.id)
    assert wait(manager, record).status is Status.READY
