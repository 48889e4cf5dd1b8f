"""A process of our own: what it says, what it complains of, and that it ends."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import PATIENCE_S

from millm.child import Child, ErrandFailed, run_errand

ROOT = Path(__file__).parent.parent
SCRIPT = """
import json, os, sys, time
from millm.child import voice
say = voice()
print("to nobody")
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "end": print("last words", file=sys.stderr); sys.exit(3)
    if asked["do"] == "sleep": time.sleep(60)
    if asked["do"] == "noise": os.write(1, b"x"); sys.stderr.write("loud"); say({"heard": 1}); continue
    say({"heard": asked["do"], "see": os.environ.get("SEEN")})
"""


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child((sys.executable, "-c", SCRIPT), {"SEEN": "yes", "PYTHONPATH": str(ROOT)})
    yield child
    if child.alive:
        child.end()
    assert not child.alive


def test_objects_go_both_ways_and_prints_go_nowhere(child: Child) -> None:
    child.send({"do": "that"})
    child.send({"do": "noise"})
    assert child.read(10) == {"heard": "that", "see": "yes"}
    assert child.read(10) == {"heard": 1}
    assert child.read(0.05) is None


def test_one_that_has_ended_says_so(child: Child) -> None:
    child.send({"do": "end"})
    with pytest.raises(BrokenPipeError):
        child.read(10)
    assert child.end(5) == (3, "to nobody\nlast words")


def test_one_that_is_to_leave_ends_by_itself_and_hears_nothing_more(child: Child) -> None:
    assert child.leave(20)[0] == 0, "its standard input ended"
    with pytest.raises(BrokenPipeError):
        child.send({"do": "that"})


def test_one_that_hangs_is_killed(child: Child) -> None:
    child.send({"do": "sleep"})
    assert child.read(0.1) is None
    before = time.monotonic()
    assert child.end(0.1)[0] == -9
    assert time.monotonic() - before < 30


PARENT = """
import sys
from millm.child import run_errand
command = (sys.executable, "-c", sys.argv[1])
run_errand(command, {}, lambda said: print(said["stage"], flush=True), lambda: None)
"""
LONG = """
import os, time
from millm.child import answer_errand
answer_errand(lambda asked, say: (say({"stage": str(os.getpid())}), time.sleep(60)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_an_errand_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, LONG],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + PATIENCE_S
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("work", "why", "memory"), [("1 / 0", "division by zero", False), ("bytearray(10**15)", "MemoryError", True)]
)
def test_an_errand_that_fails_says_why(work: str, why: str, memory: bool) -> None:
    script = f"from millm.child import answer_errand; answer_errand(lambda asked, say: {work})"
    with pytest.raises(ErrandFailed, match=why) as failed:
        run_errand((sys.executable, "-c", script), {}, lambda _: None, lambda: None)
    assert failed.value.memory is memory
