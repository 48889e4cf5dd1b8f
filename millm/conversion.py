"""The last part of a download: half-precision files become a quantized copy, or stay what they are with a warning."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from millm.devices import Device
from millm.errors import InsufficientMemory
from millm.estimate import Estimator
from millm.events import Event, Report, Stage
from millm.jobs import Job, Lane
from millm.planning import estimate_record, on_gpu, stored_form, weight_bytes
from millm.quantizing import CannotQuantize, Quantizer
from millm.records import ModelRecord, Quantization
from millm.sources.base import Plan

log = logging.getLogger(__name__)

COPY = ".quantized"  # below the folder of the files that it is made from
PROCESS_BYTES = 400 * 2**20  # what the process that quantizes takes before it reads a weight


@dataclass(frozen=True, slots=True)
class Converted:
    """What a download has become. folder: where the files to publish are. warning: why they are not quantized."""

    folder: Path
    quantization: Quantization
    warning: str | None = None


class Converter:
    """Quantizes what was downloaded. lane: the one that owns the devices, so that loads wait meanwhile."""

    def __init__(
        self,
        quantizer: Quantizer | None,
        lane: Lane,
        estimator: Estimator,
        devices: Callable[[], tuple[Device, ...]],
    ) -> None:
        self._quantizer = quantizer
        self._lane = lane
        self._estimator = estimator
        self._devices = devices

    def copy_bytes(self, plan: Plan, form: Quantization) -> int:
        """Bytes on disk that a quantized copy takes beside the files of a plan; 0 where none is made."""
        if not is_converted(plan, form):
            return 0
        found = self._estimator.estimate(
            plan.config,
            form,
            param_count=plan.param_count,
            weight_file_bytes=weight_bytes(plan),
            on_gpu=on_gpu(self._devices()),
            wait=False,
        )
        return plan.total_bytes - weight_bytes(plan) + found.stored

    def convert(self, job: Job[ModelRecord], record: ModelRecord, folder: Path, report: Report) -> Converted:
        """Makes the quantized copy of the half-precision model in a folder, as soon as the devices are free.

        What turns out to be no whole model, or quantized already, stays as it is.

        Raises:
            InsufficientMemory: there is not enough for it now; the files stay for another try.
            Cancelled: the job was asked to stop.
        """
        assert self._quantizer is not None
        if (found := _as_it_is(folder)) is not None:
            return Converted(folder, found)
        quantizer, target = self._quantizer, folder / COPY
        report(Event(Stage.QUANTIZING))
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()

        def work(inner: Job[None]) -> None:
            self._check_room(record)
            quantizer(folder, target, record.quantization, record.trust_remote_code, inner.report)

        inner = self._lane.submit(work)
        try:
            for event in inner.events():
                job.check() if event is None else report(event)
            inner.result()
        except CannotQuantize as error:
            log.warning("'%s' stays in half precision: %s", record.name, error)
            shutil.rmtree(target)
            why = f"{record.quantization} failed, so the half-precision files were kept: {error}"
            return Converted(folder, Quantization.FP16, why)
        finally:
            inner.cancel()
            inner.wait()
        return Converted(target, record.quantization)

    def _check_room(self, record: ModelRecord) -> None:
        devices = self._devices()
        needed = estimate_record(record, devices, self._estimator).quantizing + PROCESS_BYTES
        free = sum(device.free for device in devices)
        if needed > free:
            raise InsufficientMemory(
                f"Quantizing requires ~{needed / 1e9:.1f} GB memory, only {free / 1e9:.1f} GB available. "
                "The downloaded files are kept: unload the present model or close other programs, then press Retry.",
                needed_bytes=needed,
                free_bytes=free,
            )


def _as_it_is(folder: Path) -> Quantization | None:
    """The form of what came where that cannot be changed: no whole model, or quantized already; else None."""
    try:
        return stored_form(json.loads((folder / "config.json").read_text("utf-8")))
    except (OSError, ValueError):
        return Quantization.FP16


def is_converted(plan: Plan, form: Quantization) -> bool:
    """Whether the files of a plan have to be quantized to be a model in this form."""
    return form is not Quantization.FP16 and "quantization_config" not in plan.config


def in_part(report: Report, start: float, end: float, total: int | None = None) -> Report:
    """A report for a part of the way, from percent `start` to `end`. total: bytes that are brought already."""

    def report_part(event: Event) -> None:
        event = replace(event, progress=start + event.progress * (end - start) / 100)
        report(event if total is None else replace(event, bytes_done=total, bytes_total=total))

    return report_part
