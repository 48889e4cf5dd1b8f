"""A download whose files are quantized at its end: what stays, what goes, and what is said when it fails."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fakes import FakeFetcher, FakeOpener, make_manager
from running import PATIENCE_S

from millm.conversion import COPY, in_part
from millm.errors import InsufficientDisk, InsufficientMemory
from millm.events import Event, Report, Stage
from millm.manager import Manager
from millm.meta import META
from millm.quantizing import CannotQuantize
from millm.records import ModelRecord, ModelType, Quantization, Source, Status
from millm.sources.base import Origin

ONE = Origin(Source.HUGGINGFACE, repo_id="acme/one")


@dataclass
class FakeQuantizer:
    """Writes a copy of a quarter of the size. fail_with: what it raises instead, at half of the way."""

    fail_with: Exception | None = None
    pause_s: float = 0.0
    asked: list[tuple[Quantization, bool]] = field(default_factory=list)

    def __call__(self, source: Path, target: Path, form: Quantization, trusted: bool, report: Report) -> None:
        self.asked.append((form, trusted))
        for percent in (0, 25, 50, 75, 100):
            report(Event(Stage.QUANTIZING, percent, 1, 2))
            time.sleep(self.pause_s)
            if percent == 50 and self.fail_with:
                raise self.fail_with
        config = json.loads((source / "config.json").read_text()) | {"quantization_config": {"load_in_4bit": True}}
        (target / "config.json").write_text(json.dumps(config))
        (target / "model.safetensors").write_bytes(bytes((source / "model.safetensors").stat().st_size // 4))


@pytest.fixture
def quantizer() -> FakeQuantizer:
    return FakeQuantizer()


@pytest.fixture
def fetcher() -> FakeFetcher:
    return FakeFetcher()


@pytest.fixture
def manager(tmp_path: Path, quantizer: FakeQuantizer, fetcher: FakeFetcher) -> Iterator[Manager]:
    manager = make_manager(tmp_path, fetcher, quantizer=quantizer)
    yield manager
    assert manager.close()


def wait(manager: Manager, record: ModelRecord) -> ModelRecord:
    job = manager.job(record.id)
    if job:
        job.wait(PATIENCE_S)
    return manager.record(record.id)


def files(tmp_path: Path) -> list[str]:
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.safetensors"))


def test_what_is_asked_for_by_nobody_is_the_recommended_form(manager: Manager, tmp_path: Path) -> None:
    record = wait(manager, manager.download(ONE))
    assert (record.status, record.quantization, record.warning) == (Status.READY, Quantization.Q4, None)
    assert (record.size_bytes or 0) < 2000
    assert "quantization_config" in record.config
    assert files(tmp_path) == ["huggingface/acme--one--Q4/model.safetensors"]
    meta = json.loads((Path(str(record.cache_path)) / META).read_text())
    weights = (Path(str(record.cache_path)) / "config.json").stat().st_size + 1000
    assert (meta["original_size_bytes"], meta["quantized_size_bytes"]) == (4002, weights)
    assert list((tmp_path / ".staging").iterdir()) == []


def test_progress_goes_on_from_fetching_to_quantizing(manager: Manager, quantizer: FakeQuantizer) -> None:
    record = manager.download(ONE)
    job = manager.job(record.id)
    assert job
    events = [event for event in job.events() if event]
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages[-3:] == [Stage.DOWNLOADING, Stage.QUANTIZING, Stage.SAVING]
    percents = [event.progress for event in events]
    assert percents == sorted(percents)
    assert all(event.bytes_done == 4002 for event in events if event.stage is Stage.QUANTIZING and event.bytes_total)
    assert quantizer.asked == [(Quantization.Q4, False)]


def test_what_cannot_be_quantized_is_kept_as_it_is_with_a_warning(manager: Manager, quantizer: FakeQuantizer) -> None:
    quantizer.fail_with = CannotQuantize("no such layer")
    record = wait(manager, manager.download(ONE))
    assert (record.status, record.quantization) == (Status.READY, Quantization.FP16)
    assert record.warning == "Q4 failed, so the half-precision files were kept: no such layer"
    folder = Path(str(record.cache_path))
    assert folder.name == "acme--one--FP16"
    assert (folder / "model.safetensors").stat().st_size == 4000
    assert not (folder / COPY).exists()
    verified = wait(manager, manager.verify(record.id))
    assert verified.error_code is None


def test_where_the_half_precision_model_is_there_already_nothing_is_kept_twice(
    manager: Manager, quantizer: FakeQuantizer
) -> None:
    half = wait(manager, manager.download(ONE, quantization=Quantization.FP16))
    assert quantizer.asked == []
    quantizer.fail_with = CannotQuantize("no such layer")
    record = wait(manager, manager.download(ONE))
    assert (record.status, record.error_code) == (Status.ERROR, "UNSUPPORTED_MODEL")
    assert f"as '{half.name}'" in str(record.error_message)


def test_too_little_memory_keeps_the_files_for_another_try(
    manager: Manager, quantizer: FakeQuantizer, tmp_path: Path
) -> None:
    quantizer.fail_with = InsufficientMemory("Out of memory while quantizing.")
    record = wait(manager, manager.download(ONE))
    assert (record.status, record.error_code) == (Status.ERROR, "INSUFFICIENT_MEMORY")
    quantizer.fail_with = None
    assert wait(manager, manager.retry(record.id)).quantization is Quantization.Q4
    assert list((tmp_path / ".staging").iterdir()) == []


def test_memory_is_looked_at_before_quantizing(tmp_path: Path, quantizer: FakeQuantizer) -> None:
    manager = make_manager(tmp_path, quantizer=quantizer, free_memory=100 << 20)
    record = wait(manager, manager.download(ONE))
    assert (record.error_code, quantizer.asked) == ("INSUFFICIENT_MEMORY", [])
    assert "Quantizing requires ~0.4 GB memory, only 0.1 GB available." in str(record.error_message)
    assert manager.close()


def test_the_disk_has_to_hold_both(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = manager.plan(ONE).sizes[Quantization.Q4]
    assert sizes.peak_disk_bytes == 4002 + sizes.disk_bytes > 4002
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 4500))
    with pytest.raises(InsufficientDisk):
        manager.download(ONE)
    assert manager.records() == []
    manager.download(ONE, quantization=Quantization.FP16)


def test_cancelling_while_it_quantizes_leaves_nothing(
    manager: Manager, quantizer: FakeQuantizer, tmp_path: Path
) -> None:
    quantizer.pause_s = 0.2
    record = manager.download(ONE)
    while not quantizer.asked:
        time.sleep(0.01)
    manager.cancel(record.id)
    assert manager.records() == []
    assert files(tmp_path) == []


def test_a_load_waits_for_the_devices(manager: Manager, quantizer: FakeQuantizer) -> None:
    half = wait(manager, manager.download(ONE, quantization=Quantization.FP16))
    quantizer.pause_s = 0.1
    quantized = manager.download(ONE)
    while not quantizer.asked:
        time.sleep(0.01)
    manager.load(half.id)
    assert wait(manager, half).status is Status.LOADED
    assert manager.record(quantized.id).status is not Status.QUEUED
    assert wait(manager, quantized).status is Status.READY


def test_a_damaged_copy_is_made_anew(manager: Manager, quantizer: FakeQuantizer) -> None:
    record = wait(manager, manager.download(ONE))
    weights = Path(str(record.cache_path)) / "model.safetensors"
    weights.write_bytes(b"x" * weights.stat().st_size)
    assert wait(manager, manager.verify(record.id)).damaged
    repaired = wait(manager, manager.retry(record.id))
    assert (repaired.status, repaired.damaged) == (Status.READY, False)
    assert len(quantizer.asked) == 2
    assert weights.read_bytes() == bytes(1000)


@pytest.mark.parametrize(
    ("config", "form"),
    [
        ({"load_in_4bit": True, "quant_method": "bitsandbytes"}, Quantization.Q4),
        ({"load_in_8bit": True, "quant_method": "bitsandbytes"}, Quantization.Q8),
        ({"quant_method": "gptq", "bits": 4}, Quantization.FP16),
    ],
)
def test_what_is_quantized_already_is_taken_as_it_is(
    manager: Manager, fetcher: FakeFetcher, quantizer: FakeQuantizer, config: dict[str, object], form: Quantization
) -> None:
    fetcher.config = {**fetcher.config, "quantization_config": config}
    assert list(manager.plan(ONE).sizes) == [form]
    record = wait(manager, manager.download(ONE))
    assert (record.quantization, record.status, quantizer.asked) == (form, Status.READY, [])


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"quantization_config": {"load_in_8bit": true}}', Quantization.Q8),
        ('{"quantization_config": {"quant_method": "awq"}}', Quantization.FP16),
        (None, Quantization.FP16),
    ],
)
def test_what_is_seen_only_when_it_is_here_decides_then(
    manager: Manager, fetcher: FakeFetcher, quantizer: FakeQuantizer, text: str | None, form: Quantization
) -> None:
    """An archive of the web says nothing of what is in it before it is unpacked."""
    fetcher.config, fetcher.written = {}, text
    record = wait(manager, manager.download(ONE))
    assert (record.quantization, record.status, record.warning, quantizer.asked) == (form, Status.READY, None, [])
    assert Path(str(record.cache_path)).name == f"acme--one--{form}"


def test_models_of_other_programs_are_taken_as_they_are(manager: Manager, quantizer: FakeQuantizer) -> None:
    record = wait(manager, manager.download(Origin(Source.HUGGINGFACE, repo_id="acme/m", model_type=ModelType.TTS)))
    assert (record.quantization, quantizer.asked) == (Quantization.FP16, [])


def test_a_quantized_model_is_found_again_from_its_folder(
    tmp_path: Path, quantizer: FakeQuantizer, fetcher: FakeFetcher
) -> None:
    manager = make_manager(tmp_path, fetcher, quantizer=quantizer)
    before = wait(manager, manager.download(ONE))
    assert manager.close()
    (tmp_path / "registry.json").unlink()
    again = make_manager(tmp_path, fetcher, FakeOpener(), quantizer=quantizer)
    (after,) = again.records()
    assert after.original_size_mb == before.original_size_mb
    assert (after.quantization, after.size_bytes, after.status) == (before.quantization, before.size_bytes, "ready")
    assert again.close()


def test_a_part_of_the_way_keeps_the_bytes_that_are_done() -> None:
    heard: list[Event] = []
    in_part(heard.append, 70, 100, 500)(Event(Stage.QUANTIZING, 50, 1, 2))
    in_part(heard.append, 0, 70)(Event(Stage.DOWNLOADING, 50, 1, 2))
    assert [(e.progress, e.bytes_done, e.bytes_total) for e in heard] == [(85, 500, 500), (35, 1, 2)]
