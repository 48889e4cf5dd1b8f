"""`kill -9` at three moments of a download; `bench/crash.py` tries as many as one likes."""

import math
import sys
from pathlib import Path

import pytest
from hub import Hub
from running import ROOT

sys.path.append(str(ROOT / "bench"))

import crash

pytestmark = pytest.mark.slow


def test_after_kill_9_only_what_verifies_is_listed_and_retry_completes(tmp_path: Path) -> None:
    crash.make_repo(tmp_path / "repos")
    with Hub(tmp_path / "repos") as hub:
        hub.fault("cdn", throttle=crash.RATE)
        app = crash.begin(hub, tmp_path / "cache")
        early, app = crash.crash(hub, tmp_path / "repos", app, 0.1)
        late, app = crash.crash(hub, tmp_path / "repos", app, math.inf)
        # how long it takes until bytes are safe depends on what else the machine does
        for after_s in (0.9, 1.2, 1.6, 2.0, 3.0, 4.5):
            middle, app = crash.crash(hub, tmp_path / "repos", app, after_s)
            if middle.kept:
                break
        app.stop()
    assert (early.found, middle.found, late.found) == ("error", "error", "ready")
    assert 0 < middle.kept < middle.kept + middle.fetched <= crash.PARTS * (crash.PART_BYTES + 100)
    assert late.fetched == 0
