import threading
from collections.abc import Callable

from serving import until

from millm.engines.base import WELL
from millm.engines.pulse import Pulse
from millm.errors import RemoteUnavailable


class Asked:
    """A server that is asked: how often, and what is wrong with it."""

    def __init__(self) -> None:
        self.count = 0
        self.wrong: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, check: Callable[[], None]) -> None:
        self.count += 1
        while not self.gate.wait(0.01):
            check()
        if self.wrong:
            raise self.wrong


def test_it_asks_only_when_somebody_reads_and_what_is_known_is_old() -> None:
    server = Asked()
    pulse = Pulse(server, every_s=60)
    assert (pulse.read(), pulse.read(), server.count) == (WELL, WELL, 0)
    pulse.doubt()
    pulse.read()
    until(lambda: server.count == 1)
    until(lambda: not pulse._lane.jobs)
    assert (pulse.read(), server.count) == (WELL, 1)
    pulse.close()


def test_what_is_wrong_is_told_until_it_is_over() -> None:
    server = Asked()
    pulse = Pulse(server, every_s=0)
    server.wrong = RemoteUnavailable("The server at box does not answer.")
    until(lambda: pulse.read().problem == "The server at box does not answer.")
    server.wrong = KeyError("secret internals")
    until(lambda: "Something went wrong inside miLLM" in str(pulse.read().problem))
    server.wrong = None
    until(lambda: pulse.read() == WELL)
    pulse.close()


def test_what_the_server_says_is_a_sign_of_life() -> None:
    server = Asked()
    server.wrong = RemoteUnavailable("gone")
    pulse = Pulse(server, every_s=60)
    pulse.doubt()
    until(lambda: pulse.read().problem)
    pulse.beat()
    assert pulse.read() == WELL
    pulse.close()


def test_it_asks_one_question_at_a_time_and_none_after_the_end() -> None:
    server = Asked()
    server.gate.clear()
    pulse = Pulse(server, every_s=0)
    for _ in range(20):
        assert pulse.read() == WELL
    until(lambda: server.count == 1)
    pulse.close()
    assert not pulse._lane.jobs, "the question was broken off"
    pulse.read()
    assert server.count == 1
