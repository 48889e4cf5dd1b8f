"""A Python process of our own that speaks JSON, an object a line: for work that must not touch this process."""

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

ERRAND = {
    "GOMP_SPINCOUNT": "2000",  # waiting threads leave the cores to who answers meanwhile
    "MALLOC_MMAP_THRESHOLD_": "1048576",  # glibc gives a large tensor back at once, and keeps none for later
}
BEAT_S = 0.25  # between two looks at whether a process is still wanted
LAST_WORDS_S = 2.0  # for a process that has closed its mouth to end by itself
KILLED = -9  # how the system ends a process when memory runs out
KINDNESS = 10  # how far an errand stands back behind the process that answers people
SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
SAID = 4000  # of what it wrote to stderr, the last bytes are kept for an error


class Child:
    """Runs from the beginning on; for one thread at a time. environment: what it sees beside this process's own."""

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `end`)
        self._line = b""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
            start_new_session=True,  # Ctrl-C in a terminal is for the parent, which ends it
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def send(self, value: Mapping[str, Any]) -> None:
        """Gives it one object. Raises `BrokenPipeError` if it has ended, or was told to."""
        if self._process.stdin is None:
            raise BrokenPipeError("the process was told to leave")
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        self._process.stdin.flush()

    def read(self, timeout: float) -> dict[str, Any] | None:
        """Its next object; None if there is none within `timeout` seconds.

        Raises:
            BrokenPipeError: it has ended.
            ValueError: what it wrote is no JSON.
        """
        assert self._process.stdout is not None
        while b"\n" not in self._line:
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                return None
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            if not piece:
                raise BrokenPipeError("the process ended")
            self._line += piece
        line, _, self._line = self._line.partition(b"\n")
        value: dict[str, Any] = json.loads(line)
        return value

    def kill(self) -> None:
        """Kills it at once; `end` is still to be called."""
        self._process.kill()

    def leave(self, patience: float) -> tuple[int, str]:
        """Closes its standard input, upon which it is to end by itself; then as `end`."""
        stdin, self._process.stdin = self._process.stdin, None
        assert stdin is not None
        with suppress(OSError):
            stdin.close()
        return self.end(patience)

    def end(self, patience: float = 0) -> tuple[int, str]:
        """Kills it unless it ends within `patience` seconds; returns its exit status and the last it complained of.

        The status is negative where a signal ended it: -9 is this kill, or the system's when memory ran out.
        """
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self._process.kill()
        self._process.communicate()
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - SAID))
        said = self._said.read().decode(errors="replace")
        self._said.close()
        return self._process.returncode, said.strip()


class ErrandFailed(Exception):
    """A process did not finish what it was asked. memory: whether that is what ran out. The text says why."""

    def __init__(self, why: str, memory: bool) -> None:
        super().__init__(why)
        self.memory = memory


def run_errand(
    command: tuple[str, ...],
    asked: Mapping[str, Any],
    hear: Callable[[dict[str, Any]], None],
    check: Callable[[], None],
) -> Any:
    """Has a process do one thing: it is told what, says how far it is, and at last {"done": value} or {"error": why}.

    check: called four times a second; what it or `hear` raises ends the process.

    Raises:
        ErrandFailed: it said so, or ended without a word.
    """
    child = Child(command, ERRAND)
    said: dict[str, Any] = {}
    patience = 0.0
    try:
        child.send(asked)
        while not said.keys() & {"done", "error"}:
            check()
            said = child.read(BEAT_S) or {}
            if "stage" in said:
                hear(said)
    except BrokenPipeError:
        patience = LAST_WORDS_S
    finally:
        status, complaint = child.end(patience)
    if "done" in said:
        return said["done"]
    last = complaint.splitlines()[-1] if complaint else f"the process ended with status {status}"
    ran_out = bool(said.get("memory")) if "error" in said else status == KILLED
    raise ErrandFailed(str(said.get("error") or last), ran_out)


def answer_errand(work: Callable[[dict[str, Any], Callable[[Mapping[str, Any]], None]], Any]) -> None:
    """For the process itself: does what its standard input asks, once. work: gets what is asked and a way to say."""
    say = voice()
    os.nice(KINDNESS)
    _end_with_parent()
    asked = json.loads(sys.stdin.readline())
    try:
        done = work(asked, say)
    except Exception as error:  # noqa: BLE001  (the parent decides what to do)
        say({"error": str(error) or type(error).__name__, "memory": isinstance(error, MemoryError)})
    else:
        say({"done": done})


def _end_with_parent() -> None:
    """Has the system kill this process when the one that started it is gone, killed perhaps."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGKILL)


def voice() -> Callable[[Mapping[str, Any]], None]:
    """For the process itself: a function that says an object. Whatever else is printed goes to stderr from now on."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(value: Mapping[str, Any]) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    return say
