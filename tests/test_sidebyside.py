"""The same prompt through two models: what is loaded when, cancelled where, and what comes back."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import FakeOpener, make_manager
from running import PATIENCE_S

from millm.engines.base import Sampling
from millm.errors import InvalidRequest, ModelNotFound
from millm.manager import Manager
from millm.records import ModelRecord, Source, Status
from millm.sources.base import Origin
from millm.views import Contest, Entry, Phase, Run

PROMPT = "one two three four five six"
GREEDY = Sampling(temperature=0, max_tokens=100, clip=True, seed=0)


@pytest.fixture
def opener() -> FakeOpener:
    return FakeOpener()


@pytest.fixture
def manager(tmp_path: Path, opener: FakeOpener) -> Iterator[Manager]:
    manager = make_manager(tmp_path, opener=opener)
    yield manager
    assert manager.close(2)


def get(manager: Manager, name: str) -> ModelRecord:
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id=f"acme/{name}"))
    settle(manager, record)
    return record


def settle(manager: Manager, record: ModelRecord) -> None:
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)


def load(manager: Manager, record: ModelRecord) -> None:
    manager.load(record.id)
    settle(manager, record)


def loaded(manager: Manager) -> str:
    record = manager.loaded()
    return record.name if record else ""


def begin(manager: Manager, *records: ModelRecord, prompt: str = PROMPT, system: str = "") -> None:
    first, second = (Entry(record.id, GREEDY) for record in records)
    manager.side_by_side.begin(Contest(prompt, (first, second), system))


def until(manager: Manager, arrived: Callable[[Run], bool]) -> Run:
    deadline = time.monotonic() + PATIENCE_S
    while (run := manager.side_by_side.run) is None or not arrived(run):
        assert time.monotonic() < deadline, run
        time.sleep(0.002)
    return run


def ended(manager: Manager) -> Run:
    return until(manager, lambda run: not run.running)


def test_both_are_loaded_asked_and_measured_and_the_one_before_comes_back(
    manager: Manager, opener: FakeOpener
) -> None:
    one, two, before = (get(manager, name) for name in ("one", "two", "before"))
    manager.load(before.id, context_length=64)
    settle(manager, before)
    begin(manager, one, two)
    run = ended(manager)
    assert [side.phase for side in run.sides] == [Phase.DONE, Phase.DONE]
    for side in run.sides:
        assert (side.text, side.tokens, side.finish_reason) == (PROMPT, 6, "stop")
        assert (side.first_token_s, side.tokens_per_s, side.memory_bytes) == (0.01, 100.0, 1_000_000)
        assert side.load_s > 0
        assert side.event is None
    assert [(span.found_in, span.words) for span in run.spans] == [("both", 6)]
    assert run.before
    assert (run.before.name, run.returned, run.problem, loaded(manager)) == ("before", True, "", "before")
    assert [options.context_length for options in opener.asked] == [64, None, None, 64]


def test_what_is_loaded_already_stays_and_one_model_can_stand_on_both_sides(
    manager: Manager, opener: FakeOpener
) -> None:
    one = get(manager, "one")
    load(manager, one)
    short = Sampling(temperature=0, max_tokens=2, clip=True)
    manager.side_by_side.begin(Contest(PROMPT, (Entry(one.id, GREEDY), Entry(one.id, short))))
    run = ended(manager)
    assert [(side.text, side.finish_reason, side.load_s) for side in run.sides] == [
        (PROMPT, "stop", 0.0),
        ("one two", "length", 0.0),
    ]
    assert [(span.found_in, span.words) for span in run.spans] == [("both", 2), ("first", 4)]
    assert (len(opener.opened), run.returned, loaded(manager)) == (1, False, "one")


def test_without_a_model_before_the_second_stays(manager: Manager) -> None:
    one, two = get(manager, "one"), get(manager, "two")
    begin(manager, one, two, system="Be brief.")
    assert ended(manager).before is None
    assert loaded(manager) == "two"


@pytest.mark.parametrize("broken", ["one", "two"])
def test_a_side_that_cannot_be_loaded_says_so_and_the_other_answers(
    manager: Manager, opener: FakeOpener, broken: str
) -> None:
    one, two, before = (get(manager, name) for name in ("one", "two", "before"))
    load(manager, before)
    opener.broken = {broken}
    begin(manager, one, two)
    run = ended(manager)
    failed, other = sorted(run.sides, key=lambda side: side.model.name != broken)
    assert (failed.phase, failed.event, failed.text) == (Phase.FAILED, None, "")
    assert "Out of memory" in failed.problem
    assert (other.phase, other.text, run.spans) == (Phase.DONE, PROMPT, ())
    assert (loaded(manager), run.returned) == ("before", True)


def test_a_side_that_does_not_fit_is_refused_as_by_any_load(tmp_path: Path) -> None:
    opener = FakeOpener()
    manager = make_manager(tmp_path, opener=opener, free_memory=1)
    one = get(manager, "one")
    manager.load(one.id, force=True)
    settle(manager, one)
    opener.opened[0].memory_bytes = 0  # so that unloading it frees nothing
    begin(manager, one, get(manager, "two"))
    run = ended(manager)
    assert [side.phase for side in run.sides] == [Phase.DONE, Phase.FAILED]
    assert "Model requires" in run.sides[1].problem
    assert loaded(manager) == "one"
    manager.close(1)


def test_an_error_in_the_middle_of_an_answer_keeps_what_came(manager: Manager, opener: FakeOpener) -> None:
    one, two = get(manager, "one"), get(manager, "two")
    opener.engine_pause_s = 0.05
    begin(manager, one, two)
    until(manager, lambda run: run.sides[0].tokens >= 2)
    for request in manager._resident.requests:
        request.fail(RuntimeError("a bug"))
    run = ended(manager)
    assert run.sides[0].phase is Phase.FAILED
    assert run.sides[0].problem.startswith("Something went wrong inside miLLM")
    assert run.sides[0].text.startswith("one two")
    assert (run.sides[1].phase, run.sides[1].text) == (Phase.DONE, PROMPT)


PHASES: dict[str, Callable[[Run], bool]] = {
    "loading A": lambda run: run.sides[0].phase is Phase.LOADING and run.sides[0].event is not None,
    "asking A": lambda run: run.sides[0].tokens >= 2,
    "loading B": lambda run: run.sides[1].phase is Phase.LOADING,
    "asking B": lambda run: run.sides[1].tokens >= 2,
}


@pytest.mark.parametrize("phase", PHASES)
def test_cancelling_keeps_what_is_there_and_brings_the_one_before_back(
    manager: Manager, opener: FakeOpener, phase: str
) -> None:
    one, two, before = (get(manager, name) for name in ("one", "two", "before"))
    load(manager, before)
    opener.pause_s, opener.engine_pause_s = 0.03, 0.03
    begin(manager, one, two)
    there = until(manager, PHASES[phase])
    manager.side_by_side.cancel()
    run = ended(manager)
    assert run.sides[1].phase is Phase.CANCELLED
    assert run.sides[0].phase is (Phase.DONE if phase.endswith("B") else Phase.CANCELLED)
    for side, known in zip(run.sides, there.sides, strict=True):
        assert side.text.startswith(known.text)
        assert side.event is None
    assert loaded(manager) == "before"
    begin(manager, before, before)  # the next one may begin
    assert ended(manager).sides[1].phase is Phase.DONE


def test_a_load_that_is_cancelled_from_elsewhere_fails_its_side_only(manager: Manager, opener: FakeOpener) -> None:
    one, two = get(manager, "one"), get(manager, "two")
    opener.pause_s = 0.05
    begin(manager, one, two)
    until(manager, lambda run: run.sides[0].event is not None and run.sides[0].event.progress > 0)
    manager.cancel(one.id)
    run = ended(manager)
    assert (run.sides[0].phase, run.sides[0].problem) == (Phase.FAILED, "It was cancelled from elsewhere.")
    assert run.sides[1].phase is Phase.DONE


def test_loading_again_can_be_cancelled_and_can_fail(manager: Manager, opener: FakeOpener) -> None:
    one, before = get(manager, "one"), get(manager, "before")
    load(manager, before)
    opener.pause_s = 0.05
    begin(manager, one, one)
    until(manager, lambda run: run.returning is not None and run.returning.progress > 0)
    manager.side_by_side.cancel()
    run = ended(manager)
    assert [side.phase for side in run.sides] == [Phase.DONE, Phase.DONE]
    assert (run.returned, run.problem, loaded(manager)) == (False, "'before' was not loaded again.", "")

    opener.pause_s = 0
    load(manager, before)
    opener.broken = {"before"}
    begin(manager, one, one)
    run = ended(manager)
    assert run.sides[1].text == PROMPT
    assert run.problem.startswith("'before' was not loaded again: Out of memory")


def test_a_model_that_somebody_else_has_chosen_meanwhile_stays(manager: Manager, opener: FakeOpener) -> None:
    one, before, chosen = (get(manager, name) for name in ("one", "before", "chosen"))
    load(manager, before)
    opener.engine_pause_s = 0.05
    begin(manager, one, one)
    until(manager, PHASES["asking B"])
    manager.load(chosen.id)
    assert not ended(manager).returned
    settle(manager, chosen)
    assert loaded(manager) == "chosen"

    begin(manager, chosen, one)
    until(manager, PHASES["asking A"])
    manager.load(before.id)
    run = ended(manager)
    assert run.sides[1].problem.endswith("this comparison gives way.")
    settle(manager, before)
    assert loaded(manager) == "before"


def test_one_at_a_time_and_only_what_can_be_asked(manager: Manager, opener: FakeOpener) -> None:
    one = get(manager, "one")
    absent = manager.download(Origin(Source.HUGGINGFACE, repo_id="acme/two"), start=False)
    with pytest.raises(InvalidRequest, match="prompt"):
        begin(manager, one, one, prompt="  ")
    with pytest.raises(InvalidRequest, match="ready to be asked"):
        begin(manager, one, absent)
    with pytest.raises(ModelNotFound):
        manager.side_by_side.begin(Contest(PROMPT, (Entry(one.id), Entry(99))))
    manager.side_by_side.cancel()  # nothing runs: nothing to do
    assert (manager.side_by_side.run, manager.side_by_side.version) == (None, 0)
    opener.pause_s = opener.engine_pause_s = 0.5
    begin(manager, one, one)
    until(manager, lambda _: manager.record(one.id).status is Status.LOADING)
    with pytest.raises(InvalidRequest, match="Cancel it first"):
        begin(manager, one, one)
    manager.side_by_side.cancel()
    ended(manager)


def test_a_manager_that_closes_loads_nothing_again(tmp_path: Path) -> None:
    opener = FakeOpener(engine_pause_s=0.05)
    manager = make_manager(tmp_path, opener=opener)
    one, before = get(manager, "one"), get(manager, "before")
    load(manager, before)
    begin(manager, one, one)
    until(manager, PHASES["asking A"])
    assert manager.close(2)
    run = ended(manager)
    assert (run.sides[0].phase, run.returned, run.problem) == (Phase.CANCELLED, False, "")
    assert len(opener.opened) == 2
