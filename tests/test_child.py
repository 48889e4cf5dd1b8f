"""A process of our own: what it says, what it complains of, and that it ends."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from millm.child import Child

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


def test_one_that_hangs_is_killed(child: Child) -> None:
    child.send({"do": "sleep"})
    assert child.read(0.1) is None
    before = time.monotonic()
    assert child.end(0.1)[0] == -9
    assert time.monotonic() - before < 5
