"""What a plan costs this machine, and the record it starts."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fakes import CONFIG

from millm.devices import Device
from millm.errors import InsufficientMemory
from millm.estimate import Estimate, Estimator
from millm.planning import check_memory, draft_record, estimate_record, preview_plan
from millm.records import Quantization, Source, Status
from millm.sources.base import Origin, Plan, PlannedFile

FP16 = Quantization.FP16
ROUGH = Estimator(())
FILES = (PlannedFile("config.json", 100, None), PlannedFile("model.safetensors", 9_000_000, "sha256:0"))


def plan(source: Source = Source.HUGGINGFACE, **fields: object) -> Plan:
    origin = Origin(source, repo_id="acme/one", revision="v1", trust_remote_code=True)
    return Plan(origin, "acme/one", "one", FILES, commit="c0", config=CONFIG, **fields)  # type: ignore[arg-type]


def preview(memory: int = 1 << 30, disk: int = 1 << 30, kind: str = "cpu", **fields: object):
    devices = (Device(kind, "x", 1 << 40, memory),)
    return preview_plan(plan(**fields), (FP16,), disk, devices, 0, ROUGH)


def test_a_preview_counts_disk_and_memory() -> None:
    seen = preview(param_count=4_500_000)
    sizes = seen.sizes[FP16]
    assert (sizes.download_bytes, sizes.peak_disk_bytes) == (9_000_100, 9_000_100)
    assert sizes.memory.weights == 9_000_000
    assert sizes.fits
    assert preview().sizes[FP16].memory.provenance == "from file sizes"
    assert preview().sizes[FP16].memory.weights == 9_000_000
    assert not preview(memory=1_000_000).sizes[FP16].fits
    assert not preview(disk=1_000_000).sizes[FP16].fits


def test_memory_is_worked_out_for_the_context_asked_for() -> None:
    devices = (Device("cpu", "x", 1 << 40, 1 << 40),)
    short, whole = (
        preview_plan(plan(), (FP16,), 1 << 40, devices, 0, ROUGH, tokens).sizes[FP16].memory for tokens in (100, None)
    )
    assert (short.context_length, whole.context_length) == (100, 512)
    assert short.kv_cache * 512 == whole.kv_cache * 100


def test_every_length_that_can_be_chosen_is_worked_out() -> None:
    sizes = preview().sizes[FP16]
    assert [each.context_length for each in sizes.along] == [256, 512]
    assert sizes.along[-1] == sizes.memory
    config = {key: value for key, value in CONFIG.items() if key != "max_position_embeddings"}
    devices = (Device("cpu", "x", 1 << 40, 1 << 40),)
    unsaid = preview_plan(replace(plan(), config=config), (FP16,), 1 << 40, devices, 0, ROUGH)
    assert unsaid.sizes[FP16].along == ()


def test_a_process_that_does_not_answer_is_waited_for_once() -> None:
    class Silent(Estimator):
        waited: ClassVar[list[object]] = []

        def estimate(self, *given: Any, wait: bool = True, **known: Any) -> Estimate:
            self.waited.append(wait)
            return super().estimate(*given, wait=wait, **known)

    devices = (Device("cpu", "x", 1 << 40, 1 << 40),)
    preview_plan(plan(), tuple(Quantization), 1 << 40, devices, 0, Silent(()))
    assert Silent.waited == [True, False, False]


def test_a_local_model_downloads_nothing() -> None:
    sizes = preview(source=Source.LOCAL, disk=0).sizes[FP16]
    assert sizes.download_bytes == sizes.peak_disk_bytes == 0
    assert sizes.fits


def test_the_draft_of_a_record_states_what_the_plan_knows() -> None:
    draft = draft_record(preview(param_count=4_500_000, path=Path("/m")), FP16, None)
    assert (draft.name, draft.params, draft.revision, draft.requested_revision) == ("one", "4M", "c0", "v1")
    assert (draft.size_bytes, draft.disk_size_mb, draft.status) == (9_000_100, 9.0, Status.AVAILABLE)
    assert draft.trust_remote_code
    assert draft.local_path == "/m"
    assert draft_record(preview(), FP16, "mine").name == "mine"


def test_memory_is_refused_with_numbers_and_counts_what_a_swap_frees() -> None:
    record = draft_record(preview(param_count=4_500_000), FP16, None)
    devices = (Device("cuda", "x", 1 << 40, 2_000_000),)
    estimate = estimate_record(record, devices, ROUGH)
    with pytest.raises(InsufficientMemory, match=r"^Warning: Model requires ~0\.5 GB VRAM, only 0\.0 GB") as refused:
        check_memory(estimate, devices, reclaimable=0)
    assert refused.value.details["weights"] == 9_000_000
    check_memory(estimate, devices, reclaimable=1 << 30)
    assert estimate.context_length == 512
