"""The manager with a real registry and store: every command, every state, every notice."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import CONFIG, FakeFetcher, FakeOpener, make_manager
from running import PATIENCE_S
from serving import AT_ONCE_S

from millm.engines.base import ChatRequest, Health, Message, Replica
from millm.errors import (
    Cancelled,
    HubUnavailable,
    InsufficientDisk,
    InsufficientMemory,
    InvalidRequest,
    LoadFailed,
    ModelAlreadyExists,
    ModelAlreadyLoaded,
    ModelBusy,
    ModelIsLoaded,
    ModelNotFound,
    ModelNotLoaded,
    QueueFull,
    RepoNotFound,
    UnsupportedModel,
)
from millm.estimate import Estimate, Estimator
from millm.manager import Manager
from millm.records import ModelRecord, ModelType, Quantization, Source, Status
from millm.registry import Registry
from millm.sources.base import Origin, Plan
from millm.tensors import TensorInfo

Make = Callable[..., Manager]


def hub(name: str = "one", **fields: object) -> Origin:
    return Origin(Source.HUGGINGFACE, f"acme/{name}", **fields)  # type: ignore[arg-type]


def ask(text: str = "hello big world") -> ChatRequest:
    return ChatRequest((Message("user", text),))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Manager] = []

    def build(**parts: object) -> Manager:
        made.append(make_manager(tmp_path, **parts))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for manager in made:
        assert manager.close(5)
    leftover = [t.name for t in threading.enumerate() if t.name.split("_")[0] in {"download", "gpu", "requests"}]
    assert not [name for name in leftover if not _gone(name)]


def _gone(name: str) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while name in {thread.name for thread in threading.enumerate()}:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def get(manager: Manager, name: str = "one") -> ModelRecord:
    """A downloaded model."""
    record = manager.download(hub(name))
    finish(manager, record)
    return manager.record(record.id)


def finish(manager: Manager, record: ModelRecord) -> None:
    job = manager.job(record.id)
    if job:
        job.result(PATIENCE_S)


def loaded(manager: Manager, name: str = "one") -> ModelRecord:
    record = get(manager, name)
    manager.load(record.id)
    finish(manager, record)
    return manager.record(record.id)


def kinds(manager: Manager) -> list[str]:
    manager.feed.close()
    return [notice.kind for notice in manager.feed.read() if notice]


def test_a_download_goes_from_queued_to_ready(make: Make, tmp_path: Path) -> None:
    manager = make(fetcher=FakeFetcher(pause_s=0.02))
    record = manager.download(hub())
    assert record.status in (Status.QUEUED, Status.DOWNLOADING)
    assert (record.params, record.architecture, record.context_length) == ("2K", "LlamaForCausalLM", 512)
    job = manager.job(record.id)
    assert job is not None
    stages = [event.stage for event in job.events() if event]
    assert stages[0] == "resolving"
    assert stages[-1] == "saving"
    ready = manager.record(record.id)
    assert (ready.status, ready.revision, ready.error_message) == (Status.READY, "c0ffee" + "0" * 34, None)
    assert Path(str(ready.cache_path)).parent == tmp_path / "huggingface"
    assert manager.job(record.id) is None
    assert kinds(manager)[-1] == "model:download:complete"


def test_downloads_queue_in_order(make: Make) -> None:
    manager = make(fetcher=FakeFetcher(pause_s=0.05))
    first, second = manager.download(hub("one")), manager.download(hub("two"))
    time.sleep(0.05)
    assert [r.status for r in manager.records()] == [Status.QUEUED, Status.DOWNLOADING]
    finish(manager, second)
    assert {manager.record(r.id).status for r in (first, second)} == {Status.READY}


@pytest.mark.parametrize("waiting", [False, True])
def test_cancelling_a_download_leaves_no_file_and_no_record(make: Make, tmp_path: Path, waiting: bool) -> None:
    manager = make(fetcher=FakeFetcher(chunks=1000, pause_s=0.01))
    running = manager.download(hub("one"))
    queued = manager.download(hub("two"))
    time.sleep(0.05)
    victim, other = (queued, running) if waiting else (running, queued)
    started = time.monotonic()
    manager.cancel(victim.id)
    assert time.monotonic() - started < AT_ONCE_S
    with pytest.raises(ModelNotFound):
        manager.record(victim.id)
    assert [r.id for r in manager.records()] == [other.id]
    manager.cancel(other.id)
    assert manager.records() == []
    assert list((tmp_path / ".staging").iterdir()) == []
    assert kinds(manager)[-1] == "model:deleted"


def test_cancelling_what_came_from_available_leaves_it_available(make: Make) -> None:
    manager = make(fetcher=FakeFetcher(chunks=1000, pause_s=0.01))
    record = manager.download(hub(), start=False)
    assert record.status is Status.AVAILABLE
    manager.start(record.id)
    manager.cancel(record.id)
    again = manager.record(record.id)
    assert (again.status, again.error_message) == (Status.AVAILABLE, None)


def test_a_failed_download_keeps_its_error_and_can_be_retried(make: Make, tmp_path: Path) -> None:
    fetcher = FakeFetcher(fail_with=RepoNotFound("gone meanwhile"))
    manager = make(fetcher=fetcher)
    record = manager.download(hub(), token="hf_secret")
    job = manager.job(record.id)
    if job:
        with pytest.raises(RepoNotFound):
            job.result(PATIENCE_S)
    failed = manager.record(record.id)
    assert (failed.status, failed.error_code, failed.error_message) == (
        Status.ERROR,
        "REPO_NOT_FOUND",
        "gone meanwhile",
    )
    assert list((tmp_path / ".staging").iterdir()) == []
    fetcher.fail_with = None
    manager.retry(record.id)
    finish(manager, record)
    assert manager.record(record.id).status is Status.READY
    assert "hf_secret" not in (tmp_path / "registry.json").read_text()


def test_a_killed_process_leaves_a_record_that_says_so(make: Make, tmp_path: Path) -> None:
    manager = make(fetcher=FakeFetcher(chunks=1000, pause_s=0.01))
    manager.download(hub())
    survivor = Registry(tmp_path / "registry.json", list)  # what the next process would read
    (record,) = survivor.all()
    assert (record.status, record.error_code) == (Status.ERROR, "MODEL_DOWNLOAD_FAILED")
    assert "interrupted" in str(record.error_message)
    survivor.close()


def test_what_cannot_be_downloaded_is_refused_and_not_recorded(make: Make) -> None:
    manager = make(fetcher=FakeFetcher(size=10**18))
    with pytest.raises(RepoNotFound):
        manager.download(Origin(Source.HUGGINGFACE, "nobody/none"))
    with pytest.raises(InsufficientDisk):
        manager.download(hub())
    with pytest.raises(InvalidRequest):
        manager.download(hub(), quantization=Quantization.Q4)
    with pytest.raises(InvalidRequest):
        manager.download(hub(), name="../evil")
    assert manager.records() == []


def test_the_same_model_twice_names_the_first(make: Make) -> None:
    manager = make()
    record = get(manager)
    with pytest.raises(ModelAlreadyExists) as refused:
        manager.download(hub())
    assert refused.value.details["id"] == record.id
    with pytest.raises(ModelAlreadyExists):
        manager.download(hub("two"), name="one")


def test_a_model_is_loaded_asked_and_unloaded(make: Make, tmp_path: Path) -> None:
    opener = FakeOpener()
    manager = make(opener=opener)
    record = loaded(manager)
    assert (record.status, record.measured_memory_mb) == (Status.LOADED, 1.0)
    assert record.loaded_at is not None
    assert manager.loaded() == record == manager.active(ModelType.LLM)
    job = manager.chat(ask())
    assert [event.text for event in job.events() if event] == ["hello", " big", " world"]
    assert job.result(PATIENCE_S).completion_tokens == 3
    manager.unload(record.id)
    finish(manager, record)
    assert manager.record(record.id).status is Status.READY
    assert opener.opened[0].closed
    with pytest.raises(ModelNotLoaded):
        manager.chat(ask())
    assert '"loaded"' not in (tmp_path / "registry.json").read_text()


def test_loading_another_model_closes_the_first_and_keeps_one(make: Make) -> None:
    opener = FakeOpener()
    manager = make(opener=opener)
    first = loaded(manager, "one")
    second = loaded(manager, "two")
    assert [engine.closed for engine in opener.opened] == [True, False]
    assert manager.record(first.id).status is Status.READY
    assert manager.loaded() == second


def test_a_failed_load_says_why_and_leaves_nothing_loaded(make: Make) -> None:
    manager = make(opener=FakeOpener(broken={"one"}))
    record = get(manager)
    manager.load(record.id)
    job = manager.job(record.id)
    if job:
        with pytest.raises(LoadFailed):
            job.result(PATIENCE_S)
    failed = manager.record(record.id)
    assert (failed.status, failed.error_code) == (Status.READY, "MODEL_LOAD_FAILED")
    assert manager.loaded() is None
    assert kinds(manager)[-1] == "model:load:error"


def test_cancelling_a_load_leaves_the_model_ready(make: Make) -> None:
    manager = make(opener=FakeOpener(pause_s=0.2))
    record = get(manager)
    assert manager.load(record.id).status is Status.LOADING
    job = manager.job(record.id)
    manager.cancel(record.id)
    assert job is not None
    assert isinstance(job.error, Cancelled)
    assert manager.record(record.id).status is Status.READY


def test_unloading_waits_for_what_runs_and_lets_nothing_new_in(make: Make) -> None:
    manager = make(opener=FakeOpener(engine_pause_s=0.1))
    record = loaded(manager)
    running = manager.chat(ask("a b c d"))
    next(running.events())
    manager.unload(record.id)
    job = manager.job(record.id)
    assert job is not None
    pending = next(event.pending for event in job.events() if event)
    with pytest.raises(ModelNotLoaded):
        manager.chat(ask())
    assert pending == 1
    assert running.result(PATIENCE_S).text == "a b c d"
    job.result(PATIENCE_S)
    assert manager.loaded() is None


def test_unloading_cancels_what_outlasts_the_drain(make: Make) -> None:
    manager = make(opener=FakeOpener(engine_pause_s=0.05), drain_s=0.2)
    record = loaded(manager)
    running = manager.chat(ask("word " * 1000))
    manager.unload(record.id)
    finish(manager, record)
    assert isinstance(running.error, Cancelled)


def test_cancelling_an_unload_keeps_the_model_serving(make: Make) -> None:
    manager = make(opener=FakeOpener(engine_pause_s=0.05))
    record = loaded(manager)
    running = manager.chat(ask("word " * 20))
    manager.unload(record.id)
    time.sleep(0.05)
    manager.cancel(record.id)
    assert manager.record(record.id).status is Status.LOADED
    assert manager.chat(ask()).result(PATIENCE_S).text == "hello big world"
    assert running.result(PATIENCE_S).completion_tokens == 20


def test_states_that_exclude_each_other(make: Make) -> None:
    manager = make(fetcher=FakeFetcher(chunks=1000, pause_s=0.01))
    busy = manager.download(hub("busy"))
    with pytest.raises(ModelBusy):
        manager.delete(busy.id)
    with pytest.raises(ModelBusy):
        manager.load(busy.id)
    manager.cancel(busy.id)
    with pytest.raises(ModelNotFound):
        manager.load(busy.id)
    idle = manager.download(hub("idle"), start=False)
    with pytest.raises(InvalidRequest):
        manager.load(idle.id)
    with pytest.raises(InvalidRequest):
        manager.retry(idle.id)
    with pytest.raises(InvalidRequest):
        manager.cancel(idle.id)
    with pytest.raises(ModelNotLoaded):
        manager.unload(idle.id)


def test_a_loaded_model_is_not_deleted_and_not_loaded_again(make: Make) -> None:
    manager = make()
    record = loaded(manager)
    with pytest.raises(ModelIsLoaded):
        manager.delete(record.id)
    with pytest.raises(ModelAlreadyLoaded):
        manager.load(record.id)
    manager.unload(record.id)
    finish(manager, record)
    manager.delete(record.id)
    assert manager.records() == []
    assert not Path(str(record.cache_path)).exists()


def test_too_little_memory_asks_first_and_force_goes_on(make: Make) -> None:
    manager = make(free_memory=1000)
    record = get(manager)
    with pytest.raises(InsufficientMemory, match=r"^Warning: Model requires ~.* GB memory, only .* GB available"):
        manager.load(record.id)
    assert manager.record(record.id).status is Status.READY
    manager.load(record.id, force=True)
    finish(manager, record)
    assert manager.loaded() is not None


def test_filters_and_names(make: Make) -> None:
    manager = make()
    one, two = loaded(manager, "one"), get(manager, "two")
    assert [r.id for r in manager.records()] == [two.id, one.id]
    assert manager.records(status=Status.LOADED) == [one]
    assert manager.records(q="ACME/TW") == [two]
    assert manager.records(model_type=ModelType.TTS) == []
    assert manager.records(source=Source.LOCAL) == []
    renamed = manager.update(two.id, name="better")
    assert manager.find("better") == renamed
    assert manager.find("two") is None
    assert manager.update(two.id, name="better", settings={"temperature": 0.1}).settings == {"temperature": 0.1}
    with pytest.raises(ModelAlreadyExists):
        manager.update(two.id, name="one")
    with pytest.raises(InvalidRequest):
        manager.update(two.id, name="a b")


def test_the_version_grows_with_every_change(make: Make) -> None:
    manager = make()
    before = manager.version
    record = get(manager)
    middle = manager.version
    manager.update(record.id, name="x")
    assert before < middle < manager.version


def test_auto_load_shows_a_failure_and_never_raises(make: Make) -> None:
    manager = make()
    manager.auto_load("nobody")
    assert manager.system().problems == ("AUTO_LOAD_MODEL: there is no model called 'nobody'.",)

    record = get(manager)
    manager.auto_load("one")
    finish(manager, record)
    assert manager.loaded() is not None


def test_a_model_that_runs_elsewhere_says_how_it_is(make: Make) -> None:
    replica, opener = Replica("one", "starting"), FakeOpener()
    manager = make(opener=opener)
    loaded(manager)
    opener.opened[-1].health = Health("It does not answer.", (replica,))
    system = manager.system()
    assert (system.problems, system.replicas) == (("It does not answer.",), (replica,))


def test_system_and_storage_tell_what_is_there(make: Make) -> None:
    manager = make(opener=FakeOpener(engine_pause_s=0.05))
    record = loaded(manager)
    running = manager.chat(ask("a b c d e f"))
    time.sleep(0.12)
    state = manager.system()
    assert state.loaded is not None
    assert state.loaded.name == "one"
    assert state.requests_running == 1
    assert state.tokens_per_s > 0
    assert state.process_bytes > 10_000_000
    manager.unload(record.id)  # which waits for the answer
    again = manager.system()
    assert [job.model_id for job in again.jobs] == [record.id], "what runs is never old"
    assert again.tokens_per_s == state.tokens_per_s, "figures are measured twice a second"
    running.result(PATIENCE_S)
    storage = manager.storage()
    assert storage.models[record.id] == storage.total_bytes == storage.by_type["llm"] > 4000


def test_closing_ends_what_runs_and_keeps_the_interrupted_download_for_a_retry(tmp_path: Path) -> None:
    fetcher = FakeFetcher(pause_s=0.01)
    manager = make_manager(tmp_path / "own", fetcher, FakeOpener(engine_pause_s=0.05))
    loaded(manager)
    answer = manager.chat(ask("word " * 1000))
    fetcher.chunks = 1000
    manager.download(hub("two"))
    started = time.monotonic()
    assert manager.close(0.3)
    assert time.monotonic() - started < AT_ONCE_S
    assert isinstance(answer.error, Cancelled)
    assert list((tmp_path / "own" / ".staging").iterdir()) == []
    again = make_manager(tmp_path / "own")
    two, one = again.records()
    assert (one.status, two.status, two.name) == (Status.READY, Status.ERROR, "two")
    assert "interrupted" in str(two.error_message)
    again.retry(two.id)
    finish(again, two)
    assert again.record(two.id).status is Status.READY
    assert again.close()


def test_unloading_one_model_never_closes_the_one_that_replaced_it(make: Make) -> None:
    manager = make(opener=FakeOpener(pause_s=0.1, engine_pause_s=0.05))
    first, second = loaded(manager, "one"), get(manager, "two")
    manager.chat(ask("word " * 10))
    manager.load(second.id)
    manager.unload(first.id)
    finish(manager, first)
    finish(manager, second)
    assert manager.loaded() is not None
    assert manager.loaded().id == second.id  # type: ignore[union-attr]


def test_a_model_that_another_replaced_is_told_of(make: Make) -> None:
    manager = make()
    first, second = loaded(manager, "one"), get(manager, "two")
    seen = manager.feed.number
    manager.load(second.id)
    finish(manager, second)
    manager.feed.close()
    told = [notice for notice in manager.feed.read(after=seen) if notice and notice.model_id == first.id]
    assert [notice.record.status for notice in told if notice.record] == [Status.READY]


def test_a_config_that_cannot_be_stored_is_refused(make: Make) -> None:
    manager = make(fetcher=FakeFetcher(config={**CONFIG, "x": "\ud800"}))
    with pytest.raises(UnsupportedModel):
        manager.download(hub())
    assert manager.records() == []


def test_the_type_of_a_loaded_model_stays(make: Make) -> None:
    manager = make()
    record = loaded(manager)
    with pytest.raises(ModelIsLoaded):
        manager.update(record.id, model_type=ModelType.TTS)


def test_questions_to_a_slow_hub_are_bounded(make: Make) -> None:
    gate = threading.Event()
    manager = make(fetcher=FakeFetcher(gate=gate))
    refused: list[Exception] = []

    def ask_the_hub() -> None:
        try:
            manager.plan(hub())
        except QueueFull as error:
            refused.append(error)

    threads = [threading.Thread(target=ask_the_hub) for _ in range(20)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(refused) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    gate.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(refused) == 4


def test_a_moved_cache_directory_is_found_again(make: Make, tmp_path: Path) -> None:
    manager = make_manager(tmp_path / "old")
    record = get(manager)
    manager.close()
    (tmp_path / "old").rename(tmp_path / "new")
    again = make_manager(tmp_path / "new")
    moved = again.record(record.id)
    assert (moved.status, moved.cache_path) == (
        Status.READY,
        str(tmp_path / "new" / "huggingface" / "acme--one--FP16"),
    )
    again.delete(record.id)
    assert again.close()


def test_the_estimate_of_a_new_record_is_made_exact_while_it_downloads(tmp_path: Path) -> None:
    class Exact(Estimator):
        def estimate(self, *args: Any, wait: bool = True, **given: Any) -> Estimate:
            rough = super().estimate(*args, wait=wait, **given)
            return replace(rough, weights=123_000_000, provenance="exact") if wait else rough

    manager = make_manager(tmp_path, FakeFetcher(pause_s=0.05), estimator=Exact(()))
    record = manager.download(hub())
    assert record.estimated_memory_mb < 100
    deadline = time.monotonic() + PATIENCE_S
    while (manager.record(record.id).estimated_memory_mb or 0) < 100:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    manager.close(1)


def test_headers_are_asked_for_where_a_model_cannot_be_built(tmp_path: Path) -> None:
    class Reader(FakeFetcher):
        def tensors(self, plan: Plan, token: str | None) -> dict[str, TensorInfo]:
            if self.fail_with:
                raise self.fail_with
            return {"model.layers.0.mlp.up_proj.weight": TensorInfo("BF16", (64, 64))}

    source = Reader()
    manager = make_manager(tmp_path, source)
    origin = Origin(Source.HUGGINGFACE, repo_id="acme/one")
    memory = manager.plan(origin).sizes[Quantization.FP16].memory
    assert (memory.weights, memory.provenance) == (2 * 64 * 64, "from file headers")
    source.fail_with = HubUnavailable("no")
    assert manager.plan(origin).sizes[Quantization.FP16].memory.provenance == "from parameter count"
    assert manager.close()
