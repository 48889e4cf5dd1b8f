"""What requests are counted as, on a clock that the test turns."""

import weakref
from dataclasses import dataclass

import pytest

from millm.errors import Cancelled, InvalidRequest, QueueFull
from millm.events import Event, Stage
from millm.figures import Outcome
from millm.traffic import SHORTEST_S, TICK_S, WINDOW, Tally, Traffic


@dataclass
class Clock:
    """Seconds that pass when it is told so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def said(tokens: int, index: int = 0) -> Event:
    return Event(Stage.GENERATING, text="x", tokens=tokens, index=index)


def generate(tally: Tally, clock: Clock, count: int, pause_s: float) -> None:
    for number in range(1, count + 1):
        tally.hear(said(number))
        clock.now += pause_s


def test_one_answer_from_its_request_to_its_end(clock: Clock) -> None:
    traffic = Traffic(clock)
    tally = traffic.begin()
    tally.hear(Event(Stage.READING_PROMPT, 50.0))
    clock.now += 2.0
    generate(tally, clock, 5, 0.1)
    tally.answered(7, 3, 5)
    tally.end(None)
    figures = traffic.figures()
    assert figures.outcomes == {Outcome.OK: 1}
    assert (figures.prompt_tokens, figures.cached_tokens, figures.generated_tokens) == (7, 3, 5)
    assert dict(figures.first_token.cumulated())[2.5] == 1
    assert figures.first_token.total == pytest.approx(2.0)
    assert list(figures.next_token.cumulated())[-1][1] == 4
    assert figures.next_token.total == pytest.approx(0.4)
    assert figures.whole.total == pytest.approx(2.5)


def test_of_several_answers_each_has_its_own_pace_and_all_have_one_first_token(clock: Clock) -> None:
    traffic = Traffic(clock)
    tally = traffic.begin()
    for step in (1, 2, 3):
        for index in (0, 1):
            tally.hear(said(step, index))
        clock.now += 0.5
    figures = traffic.figures()
    assert figures.generated_tokens == 6
    assert list(figures.first_token.cumulated())[-1][1] == 1
    assert list(figures.next_token.cumulated())[-1][1] == 4
    assert figures.next_token.total == pytest.approx(2.0)


def test_what_runs_is_counted_once_before_and_after_its_end(clock: Clock) -> None:
    traffic = Traffic(clock)
    tally = traffic.begin()
    tally.hear(said(1))
    tally.hear(said(1))  # a silent beat
    assert traffic.figures().generated_tokens == 1
    assert traffic.figures().outcomes == {}
    tally.hear(said(4))
    tally.end(Cancelled())
    for _ in range(3):  # each of which puts aside what has ended
        assert traffic.figures().generated_tokens == 4
        assert traffic.figures().outcomes == {Outcome.CANCELLED: 1}
        assert traffic.figures().whole.total == 0
        traffic.begin()


def test_tallies_of_requests_that_ended_are_not_kept() -> None:
    traffic = Traffic()
    tally = traffic.begin()
    tally.end(None)
    gone = weakref.ref(tally)
    del tally
    traffic.begin()
    assert gone() is None


def test_an_engine_that_reports_pieces_says_at_the_end_how_many_tokens_they_were() -> None:
    traffic = Traffic()
    tally = traffic.begin()
    tally.hear(said(2))
    tally.answered(1, 0, 9)
    assert traffic.figures().generated_tokens == 9


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.OK),
        (Cancelled(), Outcome.CANCELLED),
        (QueueFull("x"), Outcome.REFUSED),
        (InvalidRequest("x"), Outcome.ERROR),
        (ZeroDivisionError(), Outcome.ERROR),
    ],
)
def test_how_a_request_ended(error: BaseException | None, outcome: Outcome) -> None:
    traffic = Traffic()
    traffic.begin().end(error)
    assert traffic.figures().outcomes == {outcome: 1}
    timed = list(traffic.figures().whole.cumulated())[-1][1]
    assert timed == (0 if outcome is Outcome.REFUSED else 1)


def test_the_speed_is_of_all_requests_over_the_last_seconds(clock: Clock) -> None:
    traffic = Traffic(clock)
    early, late = traffic.begin(), traffic.begin()
    generate(early, clock, 100, 0.1)  # ten seconds; the first half is out of the window
    early.end(None)
    generate(late, clock, 50, 0.02)
    assert traffic.speed() == pytest.approx((40 + 50) / 5, rel=0.06)
    traffic.begin()  # puts the first one aside
    assert traffic.speed() == pytest.approx((40 + 50) / 5, rel=0.06)


def test_without_an_answer_in_the_making_there_is_no_speed(clock: Clock) -> None:
    traffic = Traffic(clock)
    assert traffic.speed() == 0
    tally = traffic.begin()
    generate(tally, clock, 20, 0.1)
    assert traffic.speed() > 0
    tally.end(None)
    assert traffic.speed() == 0
    traffic.begin()  # which still reads its prompt
    assert traffic.speed() == 0


def test_a_stalled_answer_has_no_speed_and_the_first_tokens_are_no_storm(clock: Clock) -> None:
    traffic = Traffic(clock)
    tally = traffic.begin()
    tally.hear(said(1))
    assert traffic.speed() == pytest.approx(1 / SHORTEST_S)
    clock.now += WINDOW * TICK_S + 1
    assert traffic.speed() == 0


def test_a_long_answer_is_remembered_by_its_last_seconds_only(clock: Clock) -> None:
    tally = Tally(clock)
    generate(tally, clock, 1000, 0.1)
    assert len(tally.pace) == WINDOW
    assert max(tally.pace) == int((clock.now - 0.1) / TICK_S)
