"""What is done with what the process that quantizes says, with one that plays its part."""

import os
import sys
import time
from pathlib import Path

import pytest
from making import Watcher

from millm.errors import Cancelled, InsufficientMemory
from millm.events import Stage
from millm.quantizing import CannotQuantize, quantize
from millm.records import Quantization

SCRIPT = """
import json, os, signal, sys, time
asked = json.loads(sys.stdin.readline())
target = asked["target"]
say = lambda **value: print(json.dumps(value), flush=True)
how = asked["source"]
say(stage="quantizing", progress=50.0, bytes_done=1, bytes_total=2)
open(target + "/being written", "w").write(str(os.getpid()))
os.rename(target + "/being written", target + "/pid")
if how == "hangs": time.sleep(60)
if how == "killed": os.kill(os.getpid(), signal.SIGKILL)
if how == "crashes": sys.exit("segments were violated")
if how == "refuses": say(error="no such layer", memory=False)
if how == "full": say(error="can't allocate memory", memory=True)
if how == "works": say(done=True)
"""


def run(how: str, target: Path, watcher: Watcher) -> None:
    child = (sys.executable, "-c", SCRIPT)
    quantize(Path(how), target, Quantization.Q4, False, watcher, child)


def test_stages_are_reported(tmp_path: Path) -> None:
    watcher = Watcher()
    run("works", tmp_path, watcher)
    assert (watcher.events[-1].stage, watcher.events[-1].progress) == (Stage.QUANTIZING, 50)


@pytest.mark.parametrize(("how", "why"), [("refuses", "no such layer"), ("crashes", "segments were violated")])
def test_a_failure_says_why(tmp_path: Path, how: str, why: str) -> None:
    with pytest.raises(CannotQuantize, match=why):
        run(how, tmp_path, Watcher())


@pytest.mark.parametrize("how", ["full", "killed"])
def test_memory_that_runs_out_is_told_apart(tmp_path: Path, how: str) -> None:
    with pytest.raises(InsufficientMemory, match="Out of memory while quantizing"):
        run(how, tmp_path, Watcher())


def test_a_cancelled_one_is_gone_at_once(tmp_path: Path) -> None:
    watcher = Watcher(lambda: (tmp_path / "pid").exists())
    before = time.monotonic()
    with pytest.raises(Cancelled):
        run("hangs", tmp_path, watcher)
    assert time.monotonic() - before < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
