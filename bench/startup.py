"""How long a person waits for the first page.

    python bench/startup.py [--runs 5]

Starts app.py on an empty cache directory and asks for "/" until it answers, against the same app with torch and
transformers imported first (what happens when nobody takes care). Prints medians and the ratio; also the times of
a stop by SIGTERM and the memory of the idle process.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
EAGER = "import torch, transformers; from transformers import AutoModelForCausalLM; import runpy; "
START = "runpy.run_path('app.py', run_name='__main__')"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def first_page(code: str) -> dict[str, float]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "PORT": str(port), "MODEL_CACHE_DIR": folder, "LOG_LEVEL": "WARNING"}
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL)
        try:
            seconds = wait_for(f"http://127.0.0.1:{port}/", started)
            time.sleep(6)  # let what goes on in the background come to rest
            memory = psutil.Process(process.pid).memory_info().rss / 1e6
            stopped = time.perf_counter()
            process.send_signal(signal.SIGTERM)
            code_of_exit = process.wait(15)
            return {"page": seconds, "stop": time.perf_counter() - stopped, "exit": code_of_exit, "memory": memory}
        finally:
            process.kill()


def wait_for(address: str, started: float) -> float:
    while time.perf_counter() - started < 60:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                answer.read()
                return time.perf_counter() - started
        except OSError:
            time.sleep(0.02)
    raise TimeoutError(address)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    first_page("import runpy; " + START)  # warms the disk cache
    lazy, eager = [], []
    for _ in range(runs):
        lazy.append(first_page("import runpy; " + START))
        eager.append(first_page(EAGER + START))
    for name, rows in (("miLLM", lazy), ("torch first", eager)):
        page = [row["page"] for row in rows]
        stop = statistics.median(row["stop"] for row in rows)
        memory = statistics.median(row["memory"] for row in rows)
        print(
            f"{name:12} first page {statistics.median(page):.2f} s (min {min(page):.2f}, max {max(page):.2f}), "
            f"stop {stop:.2f} s, exit codes {sorted({int(row['exit']) for row in rows})}, {memory:.0f} MB after 6 s"
        )
    ratios = [b["page"] / a["page"] for a, b in zip(lazy, eager, strict=True)]
    print(f"torch first / miLLM: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
