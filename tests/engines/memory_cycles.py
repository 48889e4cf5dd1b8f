"""Opens, closes, cancels and fails loads over and over; prints the memory held after each round.

    python tests/engines/memory_cycles.py FOLDER BROKEN_FOLDER

Run in a process of its own with MALLOC_ARENA_MAX=1: with more arenas, glibc keeps up to 64 MB of each thread's freed
memory, which would hide a leak of this size.
"""

import json
import sys
from pathlib import Path

from millm.engines.base import ChatRequest, LoadOptions, Sampling
from millm.engines.loader import open_model
from millm.errors import Cancelled, LoadFailed
from millm.events import Event
from millm.records import ModelRecord

RECORD = ModelRecord(id=1, name="tiny")
HELLO = ChatRequest(prompts=("Hello",), sampling=Sampling(temperature=0, max_tokens=5))


def anonymous_mb() -> float:
    """MB of this process that no file backs. What is measured must have given them back by itself."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


def open_and_close(folder: Path) -> tuple[float, float]:
    """The memory held while the model is open, and by its weights."""
    engine = open_model(RECORD, LoadOptions(folder), lambda event: None)
    engine.chat(HELLO, lambda event: None)
    held = anonymous_mb()
    engine.close()
    return held, engine.memory_bytes / 1e6


def cancel(folder: Path) -> BaseException:
    """The error of a load that is cancelled late."""

    def report(event: Event) -> None:
        if event.progress > 80:
            raise Cancelled

    try:
        open_model(RECORD, LoadOptions(folder), report)
    except Cancelled as error:
        return error
    raise AssertionError("the load was not cancelled")


def fail(folder: Path) -> BaseException:
    """The error of a load that fails at its end."""
    try:
        open_model(RECORD, LoadOptions(folder), lambda event: None)
    except LoadFailed as error:
        return error
    raise AssertionError("the load did not fail")


def main() -> None:
    """Measures; whoever keeps the errors must not keep the weights with them."""
    folder, broken = Path(sys.argv[1]), Path(sys.argv[2])
    open_and_close(folder)  # what the first round leaves is code and thread stacks
    before = anonymous_mb()
    opened, closed = [], []
    for _ in range(5):
        held, weights = open_and_close(folder)
        opened.append(held - before)
        closed.append(anonymous_mb() - before)
    kept = [failure for _ in range(4) for failure in (cancel(folder), fail(broken))]
    failed = anonymous_mb() - before
    answer = {"weights": weights, "opened": opened, "closed": closed, "failed": failed, "errors": len(kept)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
