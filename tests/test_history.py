"""What is remembered of the last ten minutes."""

from millm.history import KEPT_S, History


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_speed_is_what_came_between_two_samples() -> None:
    clock = Clock()
    history = History(clock)
    assert history.points() == ()
    history.add(tokens=100, ended=0, requests=0, process_bytes=5, device_bytes=7)
    clock.now += 5
    history.add(tokens=350, ended=0, requests=2, process_bytes=6, device_bytes=8)
    clock.now += 1
    (point,) = history.points()
    assert (point.ago, point.tokens_per_s, point.requests) == (1, 50, 2)
    assert (point.process_bytes, point.device_bytes) == (6, 8)


def test_measurements_of_one_step_are_one_sample_with_the_most_requests() -> None:
    clock = Clock()
    history = History(clock)
    history.add(0, 0, 0, 1, 1)
    for tokens, requests in ((10, 3), (20, 1), (30, 0)):
        clock.now += 6 if tokens == 10 else 1
        history.add(tokens, 0, requests, 1, 1)
    (point,) = history.points()
    assert point.requests == 3
    assert point.tokens_per_s == 30 / 8


def test_a_request_between_two_samples_is_not_lost() -> None:
    clock = Clock()
    history = History(clock)
    history.add(0, 4, 0, 1, 1)
    clock.now += 5
    history.add(9, 5, 0, 1, 1)
    assert history.points()[0].requests == 1


def test_ten_minutes_are_kept() -> None:
    clock = Clock()
    history = History(clock)
    for _ in range(500):
        history.add(0, 0, 0, 1, 1)
        clock.now += 5
    assert len(history.points()) == KEPT_S / 5
    assert max(point.ago for point in history.points()) <= KEPT_S
    clock.now += KEPT_S
    assert history.points() == ()
