"""Having a model quantized, in a process of its own that can be stopped at any moment."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from millm.child import ErrandFailed, run_errand
from millm.errors import InsufficientMemory
from millm.events import Event, Report, Stage
from millm.records import Quantization

CHILD = (sys.executable, "-m", "millm.engines.quantize")


class CannotQuantize(Exception):
    """A model could not be quantized; the text says why, for people."""


Quantizer = Callable[[Path, Path, Quantization, bool, Report], None]
"""Makes a quantized copy; see `quantize`."""


def quantize(
    source: Path, target: Path, form: Quantization, trusted: bool, report: Report, command: tuple[str, ...] = CHILD
) -> None:
    """Quantizes the model in `source` into the empty folder `target`, and has the copy tried out.

    Raises:
        CannotQuantize: bitsandbytes or transformers fail, or the copy does not answer as it should.
        InsufficientMemory: memory ran out.
        Cancelled: `report` raised it; then nothing runs any more.
    """
    asked = {"source": str(source), "target": str(target), "form": form, "trusted": trusted}
    try:
        run_staged(command, asked, report, Event(Stage.QUANTIZING))
    except ErrandFailed as error:
        if error.memory:
            raise InsufficientMemory(
                "Out of memory while quantizing. Close other programs, or choose a smaller model."
            ) from error
        raise CannotQuantize(str(error)) from error


def run_staged(command: tuple[str, ...], asked: dict[str, Any], report: Report, first: Event) -> Any:
    """Runs an errand that says its stages, and reports them; see `run_errand`."""
    latest = first

    def hear(said: dict[str, Any]) -> None:
        nonlocal latest
        latest = Event(Stage(said.pop("stage")), **said)
        report(latest)

    return run_errand(command, asked, hear, lambda: report(latest))
