"""`kill -9` at random moments of a download: what the next start finds, and whether Retry completes.

    python bench/crash.py [--times 20] [--seed 1]

For each moment: a download from a local hub, SIGKILL after a random time (before the first byte, after the last,
anywhere between), a new process on the same directory. Then whatever is listed as ready must pass `verify` and equal
the hub's bytes, Retry must complete what is not, and nothing may lie about that no record knows; then the model is
deleted, and that process is the next to be killed. Prints a line for each moment; ends with 1 if anything was not so.
"""

import argparse
import filecmp
import math
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from hub import Hub  # noqa: E402
from running import App, Client, start_app, wait_until_up  # noqa: E402

REPO = "acme/parts"
PARTS, PART_BYTES = 3, 40_000_000
RATE = 40_000_000  # bytes a second of each file; the whole takes about a second
LONGEST_S = 2.0


@dataclass(frozen=True)
class Outcome:
    """What one crash left. kept: bytes that were on disk. fetched: bytes of weights that came again."""

    after_s: float
    found: str
    kept: int
    fetched: int


def make_repo(root: Path) -> None:
    """A repository of three parts of weights, 120 MB in all."""
    folder = root / REPO
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    source = random.Random(0)
    for number in range(1, PARTS + 1):
        name = f"model-{number:05}-of-{PARTS:05}.safetensors"
        (folder / name).write_bytes((8).to_bytes(8, "little") + b"{}      " + source.randbytes(PART_BYTES))


def crash(hub: Hub, root: Path, first: App, after_s: float) -> tuple[Outcome, App]:
    """Kills a miLLM so many seconds after a download was asked for, and lets the next one mend what it finds.

    first: its list is empty. after_s: infinity stands for as soon as the model is ready. Gives the next one, too,
    whose list is empty again.
    """
    asked = time.monotonic()
    record = Client(first).ask("POST", "/api/models", 202, {"repo_id": REPO, "quantization": "FP16"})
    if after_s == math.inf:
        Client(first).wait(record["id"], "ready")
    else:
        time.sleep(max(0.0, after_s - (time.monotonic() - asked)))
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait(10)
    second = begin(hub, first.cache)
    try:
        return _mend(hub, root, second, after_s), second
    except BaseException:
        second.stop()
        raise


def begin(hub: Hub, cache: Path) -> App:
    """A miLLM process on this directory."""
    log = cache.with_suffix(f".{time.monotonic_ns()}.log")
    return wait_until_up(start_app(cache, log, HF_ENDPOINT=hub.url))


def _mend(hub: Hub, root: Path, app: App, after_s: float) -> Outcome:
    client, before = Client(app), len(hub.requests)
    (record,) = client.ask("GET", "/api/models", 200)
    assert record["status"] in ("ready", "error"), record
    found, kept = record["status"], record["downloaded_bytes"]
    if found == "error":
        client.ask("POST", f"/api/models/{record['id']}/retry", 202)
    settled = client.settle(record["id"])
    assert settled["status"] == "ready", settled
    client.ask("POST", f"/api/models/{record['id']}/verify", 202)
    verified = client.settle(record["id"])
    assert (verified["status"], verified["error_message"]) == ("ready", None), verified
    for path in (root / REPO).iterdir():
        assert filecmp.cmp(path, Path(verified["cache_path"]) / path.name, shallow=False), path.name
    assert not list((app.cache / ".staging").iterdir()), "nothing unfinished is left"
    fetched = sum(request.sent for request in hub.requests[before:] if request.kind == "cdn")
    assert fetched <= PARTS * PART_BYTES - kept + PARTS * 100, "what was kept is not fetched again"
    client.ask("DELETE", f"/api/models/{record['id']}", 200)
    return Outcome(after_s, found, kept, fetched)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    failures = 0
    with tempfile.TemporaryDirectory() as name, Hub(root := Path(name) / "repos") as hub:
        make_repo(root)
        hub.fault("cdn", throttle=RATE)
        app = begin(hub, Path(name) / "cache0")
        for number in range(1, options.times + 1):
            after = moments.uniform(0, LONGEST_S)
            try:
                done, app = crash(hub, root, app, after)
            except AssertionError as error:
                failures += 1
                print(f"{number:3}  {after:5.2f} s  FAILED: {error}", flush=True)
                app = begin(hub, Path(name) / f"cache{number}")
            else:
                print(
                    f"{number:3}  {after:5.2f} s  found {done.found:5}  kept {done.kept / 1e6:5.1f} MB  "
                    f"fetched by Retry {done.fetched / 1e6:5.1f} MB",
                    flush=True,
                )
        app.stop()
    print(f"{options.times - failures} of {options.times} kills left nothing that does not verify; Retry completed")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
