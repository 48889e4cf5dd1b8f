"""What a model takes in memory, counted on an empty copy of it: built from its config.json on the meta device.

Nothing here is a formula for one architecture. The modules themselves say which parameters there are, transformers
says which of them bitsandbytes replaces, and a forward pass without data says what the cache and a prompt take.

    python -m millm.engines.blueprint

answers questions, a JSON object a line: {"config": {...}, "device": "cpu", "prompts": [4096]}. It is a process of its
own because a config is input from strangers, and because building on the meta device changes torch for everybody.
"""

import inspect
import json
import math
import re
import select
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from millm.child import voice
from millm.engines.bnb import quantized_layers
from millm.engines.loader import half_dtype
from millm.engines.meta_trace import traced_peak
from millm.records import Quantization
from millm.tensors import nf4_bytes

PROBE = 5  # tokens of the forward pass that shows what the cache is made of
LARGEST = {"num_hidden_layers": 1000, "num_experts": 4096, "num_local_experts": 4096, "n_routed_experts": 4096}
LARGEST_DIMENSION = 2**24
HARDLY = 0.9  # a quantized form that takes more of the half-precision one than this is hardly worth it
IDLE_S = 300.0  # seconds without a question after which this process ends, for it takes 300 MB
NOT_ASKED = ("auto_map", "_attn_implementation")  # what a repository would have run
MOST_MEMORY = 6 * 2**30  # bytes that this process may have of its own
SCANNED = 256  # tokens that a layer which loops over its input is traced with; more would take minutes


class NotBuildable(Exception):
    """transformers cannot make this model from its config alone."""


@dataclass(frozen=True)
class Cache:
    """What the key-value cache takes, in bytes. full: for each token. windows: (tokens that are kept, for each)."""

    full: int = 0
    windows: tuple[tuple[int, int], ...] = ()
    constant: int = 0


@dataclass(frozen=True)
class Blueprint:
    """What a model takes. weights: bytes by form ("FP16", "Q8", "Q4"). note: why quantizing hardly saves, or "".

    largest: bytes of the largest weight in half precision, which quantizing holds beside its copies.
    packing: bytes that Q4 takes more than stored once this CPU has packed it for its kernels; 0 where it does not.
    prefill: bytes at the peak of reading a prompt, with the cache, by its tokens.
    """

    weights: dict[str, int]
    largest: int
    packing: int
    cache: Cache
    note: str = ""
    prefill: dict[int, int] = field(default_factory=dict)


def draw(config: Mapping[str, Any], dtype: torch.dtype, prompts: tuple[int, ...] = ()) -> Blueprint:
    """Builds a model without weights and counts. prompts: lengths to work the prefill out for.

    Raises:
        NotBuildable: its class is unknown, needs its own code, or does not go together with the config.
    """
    _check(config)
    try:
        # as large as float16, and experts know it without data too
        model = _build(config, torch.bfloat16 if dtype is torch.float16 else dtype)
        weights = _weights(model, dtype)
        return Blueprint(
            weights={form: sum(parts.values()) for form, parts in weights.items()},
            packing=_packing(model) if torch.cpu._is_avx512_bf16_supported() else 0,
            largest=max(weights["FP16"].values(), default=0),
            cache=_cache(model),
            note=_note(model, weights),
            prefill={tokens: _prefill(model, tokens) for tokens in prompts},
        )
    except NotBuildable:
        raise
    except Exception as error:  # strangers write these files, and any line of any model may stumble over them
        raise NotBuildable(f"{type(error).__name__}: {error}"[:300]) from error


def _check(config: Mapping[str, Any]) -> None:
    """Refuses what would take minutes or all memory to build."""
    for name, value in _numbers(config):
        if not 0 <= value <= LARGEST.get(name, LARGEST_DIMENSION) and not name.endswith(("_id", "_ids", "theta")):
            raise NotBuildable(f"{name} is {value}")


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool) and ("size" in name or name in LARGEST):
            yield name, value


def _build(config: Mapping[str, Any], dtype: torch.dtype) -> transformers.PreTrainedModel:
    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise NotBuildable(f"transformers has no model type '{kind}'")
    parsed = CONFIG_MAPPING[kind].from_dict({k: _number(v) for k, v in config.items() if k not in NOT_ASKED})
    for part in (parsed, parsed.get_text_config(decoder=True)):
        part.pad_token_id = None  # some classes look for it among the tokens, which are not there
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(parsed, dtype=dtype)
    return model.eval()


def _number(value: Any) -> Any:
    """A value of a config.json in which transformers has written infinite numbers as objects."""
    if isinstance(value, list):
        return [_number(each) for each in value]
    if isinstance(value, Mapping):
        return (
            float(value["__float__"]) if value.keys() == {"__float__"} else {k: _number(v) for k, v in value.items()}
        )
    return value


def _weights(model: transformers.PreTrainedModel, dtype: torch.dtype) -> dict[str, dict[str, int]]:
    """Bytes of every parameter and buffer by its name, for each form."""
    plan = model._get_dtype_plan(dtype)
    kept_fp32 = re.compile("|".join(rf"(^|\.){re.escape(key)}(\.|$)" for key in plan) or r"(?!)")
    q8, q4 = (quantized_layers(model, form) for form in (Quantization.Q8, Quantization.Q4))
    tied = set(model.all_tied_weights_keys)
    forms: dict[str, dict[str, int]] = {"FP16": {}, "Q8": {}, "Q4": {}}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in tied:
            continue
        count = parameter.numel()
        plain = count * (4 if kept_fp32.search(name) else parameter.element_size())
        layer = name.removesuffix(".weight")
        forms["FP16"][name] = plain
        forms["Q8"][name] = count + 4 * q8[layer] if layer in q8 and layer != name else plain
        forms["Q4"][name] = nf4_bytes(count) if layer in q4 and layer != name else plain
    for name, buffer in model.named_buffers():
        for parts in forms.values():
            parts[name] = buffer.numel() * buffer.element_size()
    return forms


def _packing(model: transformers.PreTrainedModel) -> int:
    """What `_convert_weight_packed_for_cpu` of bitsandbytes does to the scales: one bfloat16 for each block of 64."""
    layers = quantized_layers(model, Quantization.Q4)
    counts = [
        parameter.numel() for name, parameter in model.named_parameters() if name.removesuffix(".weight") in layers
    ]
    return sum(math.ceil(count / 2) + 64 + 4 + 2 * math.ceil(count / 64) - nf4_bytes(count) for count in counts)


def _note(model: transformers.PreTrainedModel, weights: Mapping[str, Mapping[str, int]]) -> str:
    """Why quantizing saves little, in a sentence; "" where it does save."""
    half, small = sum(weights["FP16"].values()), sum(weights["Q4"].values())
    if small < HARDLY * half:
        return ""
    experts = any(parameter.ndim == 3 for parameter in model.parameters())
    why = "the experts of this architecture" if experts else "the layers of this architecture"
    return f"Quantizing hardly saves memory: bitsandbytes leaves {why} as they are (Q4 takes {small / half:.0%})."


@torch.no_grad()  # type: ignore[untyped-decorator]
def _cache(model: transformers.PreTrainedModel) -> Cache:
    full, constant, windows = 0, 0, dict[int, int]()
    for layer in _forward(model, PROBE).layers:
        window = getattr(layer, "sliding_window", None)
        grows = [each for each in (getattr(layer, "keys", None), getattr(layer, "values", None)) if each is not None]
        size = sum(each.numel() * each.element_size() for each in grows)
        if window:
            kept = int(window) - 1
            windows[kept] = windows.get(kept, 0) + size // max(1, min(PROBE, kept))
        else:
            full += size // PROBE
        states = [value for name, value in vars(layer).items() if name not in ("keys", "values")]
        constant += sum(_bytes(value) for value in states)
    return Cache(full, tuple(sorted(windows.items())), constant)


def _bytes(value: object) -> int:
    """Bytes of the tensors in a state; a lone number that a layer remembers is none."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size() if value.ndim > 1 else 0
    if isinstance(value, (list, tuple)):
        return sum(_bytes(each) for each in value)
    return sum(_bytes(each) for each in value.values()) if isinstance(value, dict) else 0


@torch.no_grad()  # type: ignore[untyped-decorator]
def _prefill(model: transformers.PreTrainedModel, tokens: int) -> int:
    if tokens <= SCANNED or not _scans(model):
        return traced_peak(lambda: _forward(model, tokens))
    half, whole = (traced_peak(partial(_forward, model, length)) for length in (SCANNED // 2, SCANNED))
    return whole + (whole - half) * (tokens - SCANNED) // (SCANNED - SCANNED // 2)


def _scans(model: transformers.PreTrainedModel) -> bool:
    """Whether a layer goes through its input in a loop, as recurrent ones do without kernels of their own."""
    return any("Linear" in type(layer).__name__ for layer in _forward(model, 1).layers)


def _forward(model: transformers.PreTrainedModel, tokens: int) -> Any:
    """The cache after a forward pass over so many tokens."""
    ids = torch.zeros((1, tokens), dtype=torch.long, device="meta")
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    out = model(input_ids=ids, use_cache=True, **last_only)
    return out["past_key_values"] if "past_key_values" in out else out["cache_params"]


def answer(question: str) -> dict[str, Any]:
    """What `draw` says to a question, or {"error": why it cannot}."""
    try:
        asked = json.loads(question)
        config = asked["config"]
        drawn = draw(config, half_dtype(_stored(config), asked["device"]), tuple(asked["prompts"]))
    except NotBuildable as error:
        return {"error": str(error)}
    return asdict(drawn)


def _stored(config: Mapping[str, Any]) -> torch.dtype:
    """What the weights are stored as, to believe the config."""
    text = config.get("text_config")
    named = config.get("dtype") or config.get("torch_dtype") or (text if isinstance(text, dict) else {}).get("dtype")
    stored = getattr(torch, named, None) if isinstance(named, str) else None
    return stored if isinstance(stored, torch.dtype) else torch.float16


def main() -> None:
    """Says that it is ready and answers until its input ends or is silent for long; other prints go to stderr."""
    say = voice()
    _limit_memory()
    say({"ready": True})
    while select.select([sys.stdin], [], [], IDLE_S)[0] and (question := sys.stdin.readline()):
        say(answer(question))


def _limit_memory() -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))


if __name__ == "__main__":
    main()
