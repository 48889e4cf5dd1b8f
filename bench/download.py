"""Our downloads, verified, against the library's followed by hashing; and how fast a cancel is.

    python bench/download.py [--rounds 3] [--folder DIR]

Serves one 1 GB file and a repository of 200 small files from a local hub in a process of its own, and brings each
with miLLM (plan, parallel ranges, digest while writing, fsync) and with `snapshot_download` followed by computing the
same digests. In turn, in one run; prints medians and ratios. Then cancels 50 downloads, in every stage there is.
"""

import argparse
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import huggingface_hub

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from running import free_port  # noqa: E402
from stages import STAGES, Yard  # noqa: E402

from millm.records import Source  # noqa: E402
from millm.sources.base import Origin  # noqa: E402
from millm.sources.huggingface import HuggingFace  # noqa: E402

GB = 10**9


def make_repos(root: Path) -> None:
    big, small = root / "acme" / "big", root / "acme" / "small"
    for folder in (big, small):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"model_type": "llama"}')
    block = random.Random(0).randbytes(GB // 100)
    with (big / "model.safetensors").open("wb") as out:
        out.write((8).to_bytes(8, "little") + b"{}      ")
        for _ in range(100):
            out.write(block)
    (small / "model.safetensors").write_bytes((8).to_bytes(8, "little") + b"{}      " + block[:1000])
    for number in range(200):
        (small / f"tokenizer{number}.json").write_bytes(block[number : number + 4000])


def ours(url: str, repo: str, folder: Path) -> None:
    source = HuggingFace(url, cache=folder / "no-cache")
    plan = source.plan(Origin(Source.HUGGINGFACE, repo_id=repo), None)
    source.fetch(plan, None, folder / "ours", lambda event: None)


def theirs(url: str, repo: str, folder: Path) -> None:
    snapshot = huggingface_hub.snapshot_download(
        repo, endpoint=url, local_dir=folder / "theirs", cache_dir=folder / "cache", token=False
    )
    for path in Path(snapshot).rglob("*"):
        if path.is_file() and ".cache" not in path.parts:
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")


def timed(way: object, url: str, repo: str, scratch: Path) -> float:
    folder = Path(tempfile.mkdtemp(dir=scratch))
    started = time.perf_counter()
    way(url, repo, folder)  # type: ignore[operator]
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds


def cancels(scratch: Path, count: int) -> dict[str, list[float]]:
    """Seconds from asking to cancel to the end of the clean-up, by the stage that the download was in."""
    latencies: dict[str, list[float]] = {stage: [] for stage in STAGES}
    with Yard(scratch / "yard") as yard:
        for stage in islice(cycle(STAGES), count):
            manager, record = yard.reach(stage)
            began = time.perf_counter()
            manager.cancel(record.id)
            latencies[stage].append(time.perf_counter() - began)
            yard.settle()
    return latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="where files go; a disk or memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        scratch, port = Path(name), free_port()
        make_repos(scratch / "repos")
        hub = subprocess.Popen([sys.executable, ROOT / "tests" / "hub.py", scratch / "repos", str(port)])
        try:
            time.sleep(1.5)
            url = f"http://127.0.0.1:{port}"
            for repo in ("acme/big", "acme/small"):
                pairs = [
                    (timed(ours, url, repo, scratch), timed(theirs, url, repo, scratch))
                    for _ in range(options.rounds + 1)
                ][1:]
                mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
                ratio = statistics.median(b / a for a, b in pairs)
                print(f"{repo}: miLLM {mine:.2f} s, snapshot_download + hash {other:.2f} s, ratio {ratio:.2f}")
        finally:
            hub.terminate()
            hub.wait(10)
        latencies = cancels(scratch, 50)
        for stage, seconds in latencies.items():
            print(f"cancel while {stage}: median {_ms(statistics.median(seconds))}, worst {_ms(max(seconds))}")
        every = [each for seconds in latencies.values() for each in seconds]
        print(f"cancel, all {len(every)}: median {_ms(statistics.median(every))}, worst {_ms(max(every))}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"


if __name__ == "__main__":
    main()
