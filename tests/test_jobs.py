"""Jobs and lanes: late and many readers, cancel in every state, nothing lost and nothing left running."""

import threading
import time
from collections.abc import Iterator

import pytest
from running import PATIENCE_S

from millm.errors import Cancelled, QueueFull
from millm.events import Event, Stage
from millm.jobs import Job, Lane


@pytest.fixture
def lane() -> Iterator[Lane]:
    lane = Lane("test")
    yield lane
    assert lane.close(5)


def event(percent: float, text: str = "") -> Event:
    return Event(Stage.GENERATING if text else Stage.DOWNLOADING, percent, text=text)


def test_many_readers_on_many_threads_all_read_everything(lane: Lane) -> None:
    gate = threading.Event()

    def work(job: Job[int]) -> int:
        gate.wait(5)
        for number in range(200):
            job.report(event(number, text=f"{number} "))
        return 200

    job = lane.submit(work)
    heard: list[str] = []
    readers = [
        threading.Thread(target=lambda: heard.append("".join(e.text for e in job.events() if e))) for _ in range(8)
    ]
    for reader in readers:
        reader.start()
    gate.set()
    for reader in readers:
        reader.join(PATIENCE_S)
    assert heard == ["".join(f"{number} " for number in range(200))] * 8
    assert job.result() == 200


def test_progress_is_merged_and_text_is_not() -> None:
    job: Job[None] = Job()
    for percent in range(100):
        job.report(event(percent))
    job.report(event(0, "a"))
    job.report(event(0, "b"))
    job.finish(None)
    assert [(e.progress, e.text) for e in job.events() if e] == [(99, ""), (0, "a"), (0, "b")]


def test_an_error_reaches_every_reader_of_the_result(lane: Lane) -> None:
    def work(job: Job[int]) -> int:
        job.report(event(1))
        raise KeyError("gone")

    job = lane.submit(work)
    for _ in range(2):
        with pytest.raises(KeyError, match="gone"):
            job.result(PATIENCE_S)
    assert len([e for e in job.events() if e]) == 1
    assert isinstance(job.error, KeyError)


def test_a_failed_job_keeps_no_local_variables_alive(lane: Lane) -> None:
    class Weights:
        pass

    alive: list[int] = []

    def work(job: Job[None]) -> None:
        weights = Weights()
        finalizer(weights, alive.append, 1)
        try:
            raise OSError("disk")
        except OSError as error:
            raise ValueError("load") from error

    from weakref import finalize as finalizer

    with pytest.raises(ValueError, match="load"):
        lane.submit(work).result(PATIENCE_S)
    assert alive == [1]


def test_cancelling_running_work_raises_at_its_next_report_and_runs_its_finally(lane: Lane) -> None:
    cleaned, begun = threading.Event(), threading.Event()

    def work(job: Job[None]) -> None:
        try:
            while True:
                job.report(event(1))
                begun.set()
                time.sleep(0.01)
        finally:
            cleaned.set()

    job = lane.submit(work)
    assert begun.wait(PATIENCE_S)
    job.cancel()
    with pytest.raises(Cancelled):
        job.result(PATIENCE_S)
    assert cleaned.is_set()


def test_cancelling_a_waiting_job_ends_it_at_once_and_never_runs_it(lane: Lane) -> None:
    gate, ran, ended = threading.Event(), [], []
    first = lane.submit(lambda job: gate.wait(5))
    waiting: Job[None] = Job(on_end=lambda job, error: ended.append(type(error)))
    lane.submit(lambda job: ran.append(1), waiting)
    waiting.cancel()
    assert waiting.done
    assert ended == [Cancelled]
    gate.set()
    assert first.result(PATIENCE_S) is True
    assert lane.call(lambda: "next") == "next"
    assert ran == []


def test_on_end_has_run_before_the_result_can_be_read(lane: Lane) -> None:
    order: list[str] = []

    def on_end(job: Job[str], error: BaseException | None) -> None:
        assert not job.done
        time.sleep(0.05)
        order.append("on_end")

    job = lane.submit(lambda job: "x", Job(on_end=on_end))
    job.result(PATIENCE_S)
    order.append("result")
    assert order == ["on_end", "result"]


def test_a_broken_on_end_does_not_hide_the_result(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    def on_end(job: Job[int], error: BaseException | None) -> None:
        raise RuntimeError("broken on_end")

    assert lane.submit(lambda job: 7, Job(on_end=on_end)).result(PATIENCE_S) == 7
    assert "broken on_end" in caplog.text


def test_a_lane_of_width_one_never_runs_two_jobs_together_and_keeps_their_order(lane: Lane) -> None:
    running, most, order = 0, 0, []

    def work(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.002)
        order.append(number)
        running -= 1

    jobs = [lane.submit(lambda job, n=n: work(n)) for n in range(20)]
    for job in jobs:
        job.result(PATIENCE_S)
    assert most == 1
    assert order == list(range(20))


def test_a_full_lane_refuses_instead_of_queueing_without_end() -> None:
    lane, gate = Lane("narrow", limit=2), threading.Event()
    jobs = [lane.submit(lambda job: gate.wait(5)) for _ in range(2)]
    with pytest.raises(QueueFull):
        lane.submit(lambda job: None)
    gate.set()
    for job in jobs:
        job.result(PATIENCE_S)
    lane.idle(30)
    assert lane.call(lambda: 1) == 1
    assert lane.close(5)


def test_closing_a_lane_cancels_what_runs_and_ends_its_threads() -> None:
    lane = Lane("closing", width=3)

    def work(job: Job[None]) -> None:
        while True:
            job.check()
            time.sleep(0.01)

    jobs = [lane.submit(work) for _ in range(6)]
    assert lane.close(5)
    assert all(isinstance(job.error, Cancelled) for job in jobs)
    deadline = time.monotonic() + PATIENCE_S
    while any(thread.name.startswith("closing") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_closed_lane_takes_nothing_and_does_not_wait_for_it() -> None:
    lane = Lane("closed")
    assert lane.close(5)
    with pytest.raises(Cancelled):
        lane.submit(lambda job: None)
    assert lane.jobs == []
    assert lane.close(5)


def test_closing_gives_up_on_work_that_does_not_obey() -> None:
    lane, gate = Lane("stubborn"), threading.Event()
    lane.submit(lambda job: gate.wait(PATIENCE_S))
    assert lane.close(0.05) is False
    gate.set()
