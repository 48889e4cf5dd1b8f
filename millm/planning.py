"""From a source's plan to what a person decides on and what the registry will hold."""

from collections.abc import Mapping
from typing import Any

from millm.contexts import DEFAULT_CONTEXT, context_steps, longest_context
from millm.devices import Device
from millm.errors import InsufficientMemory, InvalidRequest, UnsupportedModel
from millm.estimate import EXACT, Estimate, Estimator
from millm.generation import check_generation
from millm.records import (
    ELSEWHERE,
    NAME,
    ModelRecord,
    ModelType,
    Quantization,
    Source,
    Status,
    architecture_facts,
    is_dimension,
    is_plain,
    safe_name,
    short_count,
)
from millm.sources.base import Origin, Plan
from millm.sources.selection import is_weights
from millm.views import Fit, Preview, Sizes

TIGHT = 0.85  # share of the free memory from which on a model just fits
NO_ERROR = {"error_code": None, "error_message": None}
NOTHING_HERE = Estimate(0, 0, 0, 0, DEFAULT_CONTEXT, EXACT)
"""What a model takes here that another server runs."""


def preview_plan(
    plan: Plan,
    quantizations: tuple[Quantization, ...],
    disk_free: int,
    devices: tuple[Device, ...],
    reclaimable: int,
    estimator: Estimator,
    context_length: int | None = None,
    wait: bool = True,
) -> Preview:
    """Adds to a plan what it would cost here.

    reclaimable: bytes that unloading the present model would free. wait: see `Estimator.estimate`.
    """
    memory_free = sum(device.free for device in devices) + reclaimable
    elsewhere = plan.origin.source in ELSEWHERE | {Source.LOCAL}
    download, peak = (0, 0) if elsewhere else (plan.total_bytes, plan.peak_bytes)
    longest = longest_context(plan.config)
    steps = context_steps(longest) if longest else ()
    gpu = on_gpu(devices)
    sizes = {}
    for quantization in dict.fromkeys(form_of(plan, asked) for asked in quantizations):
        memory = (
            NOTHING_HERE
            if plan.origin.source is Source.REMOTE
            else estimator.estimate(
                plan.config,
                quantization,
                param_count=_half_precision_count(plan.origin.source, plan.param_count),
                weight_file_bytes=weight_bytes(plan),
                on_gpu=gpu,
                context_length=context_length,
                memory_free=memory_free,
                tensors=plan.tensors,
                wait=wait,
            )
        )
        wait = wait and memory.provenance == EXACT  # what was no use for one form is none for the others
        kept, most = download, peak
        if quantization is not Quantization.FP16 and not quantized_as(plan):
            kept = download - weight_bytes(plan) + memory.stored
            most = peak + kept
        fit = fit_of(memory.total, memory_free)
        fits = fit != "exceeds" and most <= disk_free
        along = estimator.along(plan.config, quantization, memory, steps, gpu)
        sizes[quantization] = Sizes(download, kept, most, memory, fits, fit, along)
    return Preview(plan, sizes, disk_free, memory_free, quantized_as=quantized_as(plan), on_gpu=gpu)


def fit_of(needed: int, free: int) -> Fit:
    """How well what is needed goes into what is free, both in bytes."""
    if needed > free:
        return "exceeds"
    return "tight" if needed > TIGHT * free else "ok"


def quantized_as(plan: Plan) -> str | None:
    """How a repository's config.json says that its weights are quantized; None if they are not."""
    own = plan.config.get("quantization_config")
    return str(own.get("quant_method") or "unknown") if isinstance(own, dict) else None


def form_of(plan: Plan, asked: Quantization) -> Quantization:
    """The form that a plan's files will have: what was asked for, unless they are taken as they are.

    That are directories, the models of servers, the models of other programs, and what is quantized already.
    """
    origin = plan.origin
    if origin.source in ELSEWHERE | {Source.LOCAL} or origin.model_type is not ModelType.LLM:
        return Quantization.FP16
    return stored_form(plan.config) or asked


def stored_form(config: Mapping[str, Any]) -> Quantization | None:
    """The form of files whose config.json says that they are quantized already; None if it does not.

    `FP16` stands for every method that is not bitsandbytes': the files are taken as they are.
    """
    stored = config.get("quantization_config")
    if not isinstance(stored, Mapping):
        return None
    if stored.get("load_in_4bit"):
        return Quantization.Q4
    return Quantization.Q8 if stored.get("load_in_8bit") else Quantization.FP16


def facts_of(plan: Plan) -> dict[str, Any]:
    """The fields of a record that tell what its files are."""
    return {
        "params": short_count(plan.param_count),
        "param_count": plan.param_count,
        **architecture_facts(plan.config),
        "disk_size_mb": round(plan.total_bytes / 1e6, 2),
        "size_bytes": plan.total_bytes,
        "config": plan.config,
        "fingerprint": plan.fingerprint,
    }


def draft_record(preview: Preview, quantization: Quantization, name: str | None) -> ModelRecord:
    """The record that a planned model starts with.

    Raises:
        UnsupportedModel: its config.json holds what cannot be stored.
    """
    plan, sizes = preview.plan, preview.sizes[quantization]
    if not is_plain(plan.config):
        raise UnsupportedModel(f"'{plan.title}' cannot be used: its config.json is not plain JSON.")
    return ModelRecord(
        name=name or safe_name(plan.suggested_name),
        model_type=plan.origin.model_type,
        source=plan.origin.source,
        repo_id=plan.origin.repo_id,
        revision=plan.commit,
        requested_revision=plan.origin.revision,
        local_path=str(plan.path) if plan.path else None,
        url=plan.origin.url,
        checksum=plan.origin.checksum,
        license=plan.license,
        **facts_of(plan),
        quantization=quantization,
        **estimated(sizes.memory),
        trust_remote_code=plan.origin.trust_remote_code,
        status=Status.AVAILABLE,
    )


def check_name(name: str | None) -> None:
    """Raises `InvalidRequest` for what cannot be a record's name; None is left to be chosen."""
    if name is not None and not NAME.fullmatch(name):
        raise InvalidRequest("A name has 1 to 255 letters, digits, '-', '_' or '.'.", field="name")


def check_settings(settings: Mapping[str, Any] | None) -> None:
    """Raises `InvalidRequest` for settings that a load or a request could not obey; further ones are fine."""
    given = settings or {}
    tokens, adapter, fast = (given.get(name) for name in ("context_length", "adapter", "fast_cpu"))
    if tokens is not None and not is_dimension(tokens):
        raise InvalidRequest("settings.context_length is a whole number of tokens, 1 or more.", field="settings")
    if adapter is not None and not isinstance(adapter, str):
        raise InvalidRequest("settings.adapter is the path of a directory.", field="settings")
    if fast is not None and not isinstance(fast, bool):
        raise InvalidRequest("settings.fast_cpu is true or false.", field="settings")
    check_generation(given)


def origin_of(record: ModelRecord) -> Origin:
    """Where a recorded model comes from, at the commit that was chosen first."""
    return Origin(
        source=record.source,
        repo_id=record.repo_id,
        revision=record.revision or record.requested_revision,
        path=record.local_path,
        trust_remote_code=record.trust_remote_code,
        url=record.url,
        checksum=record.checksum,
        model_type=record.model_type,
    )


def estimate_record(
    record: ModelRecord,
    devices: tuple[Device, ...],
    estimator: Estimator,
    context_length: int | None = None,
    memory_free: int | None = None,
) -> Estimate:
    """Estimates a recorded model on these devices. Takes seconds where its class must be built first.

    memory_free: bytes to work `most_context` out for.
    """
    if record.source is Source.REMOTE:
        return NOTHING_HERE
    return estimator.estimate(
        record.config,
        record.quantization,
        param_count=_half_precision_count(record.source, record.param_count),
        weight_file_bytes=record.size_bytes or 0,
        on_gpu=on_gpu(devices),
        context_length=context_length,
        memory_free=memory_free,
    )


def estimated(estimate: Estimate) -> dict[str, Any]:
    """The fields of a record that hold an estimate."""
    return {
        "estimated_memory_mb": round(estimate.total / 1e6, 2),
        "estimated_weights_mb": round(estimate.weights / 1e6, 2),
    }


def check_memory(estimate: Estimate, devices: tuple[Device, ...], reclaimable: int) -> None:
    """Refuses what needs more than is free. reclaimable: bytes that unloading the present model would free.

    Raises:
        InsufficientMemory: with the sentence a person decides on, and the parts in its details.
    """
    free = sum(device.free for device in devices) + reclaimable
    if estimate.total > free:
        kind = "VRAM" if on_gpu(devices) else "memory"
        raise InsufficientMemory(
            f"Warning: Model requires ~{estimate.total / 1e9:.1f} GB {kind}, only {free / 1e9:.1f} GB available. "
            "Loading may fail or cause system instability.",
            needed_bytes=estimate.total,
            free_bytes=free,
            weights=estimate.weights,
            kv_cache=estimate.kv_cache,
            activations=estimate.activations,
            overhead=estimate.overhead,
            context_length=estimate.context_length,
        )


def weight_bytes(plan: Plan) -> int:
    """Bytes of the weight files of a plan."""
    return sum(file.size for file in plan.files if is_weights(file.path))


def _half_precision_count(source: Source, count: int | None) -> int | None:
    return None if source in ELSEWHERE else count  # whose copies are quantized


def on_gpu(devices: tuple[Device, ...]) -> bool:
    """Whether models run on a GPU here."""
    return any(device.kind == "cuda" for device in devices)
