"""What a model will need in memory: counted on an empty copy where that can be built, else worked out roughly."""

import hashlib
import json
import logging
import math
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from millm.child import Child
from millm.contexts import DEFAULT_CONTEXT, context_tokens, dimension, language_part, longest_context, unquantized
from millm.jobs import Lane
from millm.records import Quantization
from millm.tensors import TensorInfo, weight_bytes_of

log = logging.getLogger(__name__)

GPU_CONTEXT_BYTES = 450 * 1024**2  # what CUDA itself takes on a device before the first tensor
GPU_ROUNDING = 0.2  # of what comes and goes, that CUDA's allocator holds besides; simulated, no GPU was at hand
ANSWER_S = 8.0  # seconds that a question about one config may take
KEPT = 256  # answers
COPIES = 2  # of one weight that quantizing holds at once beside the result: as it was read, and in between
BYTES = {Quantization.FP16: 2.0, Quantization.Q8: 1.0, Quantization.Q4: 0.5 + 1 / 64}  # for a number, with its scale
EXACT = "exact"
LONGEST_TRACED = 32_768  # tokens; what is longer is worked out from this and shorter prompts
CONTEXT_STEP = 256  # tokens, in which the most that fits is told
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
CHILD = (sys.executable, "-m", "millm.engines.blueprint")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes by part, for one request that fills `context_length` tokens.

    provenance: "exact", "from file headers", "from parameter count" or "from file sizes". note: why quantizing
    hardly saves, or "". quantizing: bytes at the peak of making this form from half-precision files.
    most_context: tokens that fit in the memory that was named, up to what the model can; None where they cannot be
    worked out. stored: bytes that the weights take on disk.
    """

    weights: int
    kv_cache: int
    activations: int
    overhead: int
    context_length: int
    provenance: str
    note: str = ""
    quantizing: int = 0
    most_context: int | None = None
    stored: int = 0

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return self.weights + self.kv_cache + self.activations + self.overhead


class Estimator:
    """Estimates memory, asking a process of its own to build what it can from a config. Thread-safe.

    child: how that process is started; it says an object once it is ready, then answers a JSON object a line. ()
    means that every estimate is rough. answer_s: seconds for each answer, and to be ready. One that is still starting
    then, as on a busy machine, is left alone, and the estimate is rough meanwhile.
    """

    def __init__(self, child: tuple[str, ...] = CHILD, answer_s: float = ANSWER_S) -> None:
        self._command = child
        self._answer_s = answer_s
        self._lane = Lane("estimate")
        self._process: Child | None = None
        self._ready = False
        self._known: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    def warm_up(self) -> None:
        """Starts the process, so that the first estimate need not wait for it."""
        if self._command:
            self._lane.submit(lambda _: self._start())

    def estimate(
        self,
        config: Mapping[str, Any],
        quantization: Quantization,
        *,
        param_count: int | None,
        weight_file_bytes: int,
        on_gpu: bool,
        context_length: int | None = None,
        memory_free: int | None = None,
        tensors: Mapping[str, TensorInfo] | None = None,
        wait: bool = True,
    ) -> Estimate:
        """Estimates a model in one form, in the half precision that this device has, or float32.

        memory_free: bytes to work `most_context` out for. wait: False takes what is known already and is rough
        otherwise. A model that is stored quantized in a way of its own, or whose class cannot be built, is estimated
        by `rough_estimate`.
        """
        tokens = context_tokens(config, context_length)
        drawn = self._drawn(config, on_gpu, tokens, wait)
        if drawn is None:
            known = (config, quantization, param_count, weight_file_bytes, tensors)
            return rough_estimate(*known, on_gpu=on_gpu, context_length=tokens)
        found = _counted(drawn, quantization, tokens, on_gpu)
        if memory_free is None:
            return found
        left = memory_free - found.weights - (GPU_CONTEXT_BYTES if on_gpu else 0)
        return replace(found, most_context=_most_context(drawn, int(left / (1 + GPU_ROUNDING * on_gpu)), config))

    def along(
        self, config: Mapping[str, Any], form: Quantization, found: Estimate, contexts: Sequence[int], on_gpu: bool
    ) -> tuple[Estimate, ...]:
        """What was `found`, with other contexts: worked out from what was counted for it, close to counting anew."""
        tokens = found.context_length
        if found.provenance == EXACT and (drawn := self._drawn(config, on_gpu, tokens, wait=False)):
            return tuple(_counted(drawn, form, each, on_gpu) for each in contexts)
        cache, read = found.kv_cache / tokens, found.activations / tokens
        return tuple(
            replace(found, kv_cache=int(cache * n), activations=int(read * n), context_length=n) for n in contexts
        )

    def close(self, timeout: float = 1.0) -> bool:
        """Ends the process. Returns whether nothing was left running after `timeout` seconds."""
        ended = self._lane.close(timeout)
        self._end()
        return ended

    def _drawn(self, config: Mapping[str, Any], on_gpu: bool, tokens: int, wait: bool) -> Mapping[str, Any] | None:
        plain = unquantized(config)
        answer = self._ask(plain, on_gpu, tokens, wait) if self._command and plain else None
        return None if answer is None or "error" in answer else answer

    def _ask(self, config: Mapping[str, Any], on_gpu: bool, tokens: int, wait: bool) -> Mapping[str, Any] | None:
        device = "cuda" if on_gpu else "cpu"
        longest = min(longest_context(config) or DEFAULT_CONTEXT, LONGEST_TRACED)
        question = {"config": config, "device": device, "prompts": sorted({tokens, max(1, longest // 2), longest})}
        key = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()
        if key in self._known or not wait:
            return self._known.get(key)
        return self._lane.call(lambda: self._answer(key, question))

    def _answer(self, key: str, question: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if key in self._known:
            return self._known[key]
        try:
            try:
                answer = self._exchange(question)
            except BrokenPipeError:  # it had been idle and ended by itself
                self._end()
                answer = self._exchange(question)
        except (OSError, ValueError) as error:
            log.warning("no exact estimate: %s", error)
            if not isinstance(error, BlockingIOError):
                self._end()
            return None
        if "error" in answer:
            log.info("no exact estimate: %s", answer["error"])
        self._known[key] = answer
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return answer

    def _exchange(self, question: Mapping[str, Any]) -> dict[str, Any]:
        process = self._start()
        if not self._ready and process.read(self._answer_s) is None:
            raise BlockingIOError("its process is still starting")
        self._ready = True
        process.send(question)
        answer = process.read(self._answer_s)
        if answer is None:
            raise TimeoutError(f"no answer within {self._answer_s:.0f} s")
        return answer

    def _start(self) -> Child:
        if self._process is None or not self._process.alive:
            self._end()
            self._process = Child(self._command, {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"})
            self._ready = False
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process:
            process.end()


def _counted(drawn: Mapping[str, Any], quantization: Quantization, tokens: int, on_gpu: bool) -> Estimate:
    """What was counted, put together for one form."""
    kv_cache, moving = _cache_bytes(drawn, tokens), _moving_bytes(drawn, tokens)
    stored = drawn["weights"][quantization]
    return Estimate(
        weights=stored + (drawn["packing"] if quantization is Quantization.Q4 and not on_gpu else 0),
        stored=stored,
        kv_cache=kv_cache,
        activations=moving - kv_cache,
        overhead=GPU_CONTEXT_BYTES + int(GPU_ROUNDING * moving) if on_gpu else 0,
        context_length=tokens,
        provenance=EXACT,
        note=drawn["note"] if quantization is not Quantization.FP16 else "",
        quantizing=stored + COPIES * drawn["largest"],
    )


def _cache_bytes(drawn: Mapping[str, Any], tokens: int) -> int:
    cache = drawn["cache"]
    windows = sum(min(tokens, window) * size for window, size in cache["windows"])
    return int(cache["full"] * tokens + cache["constant"] + windows)


def _moving_bytes(drawn: Mapping[str, Any], tokens: int) -> int:
    """What comes beside the weights while a prompt of so many tokens is read and answered.

    It was traced for some lengths; between them it is the parabola through three, because attention may be quadratic.
    """
    traced = {int(length): size for length, size in drawn["prefill"].items()}
    prefill = traced.get(tokens)
    if prefill is None:
        points = sorted(traced.items())[-3:]
        points = [(0, 0), *points][-3:]
        prefill = round(sum(size * _weight(tokens, at, points) for at, size in points))
    return max(_cache_bytes(drawn, tokens), int(prefill))


def _weight(tokens: int, at: int, points: list[tuple[int, int]]) -> float:
    """How much the point `at` counts in the parabola's value for `tokens`; see Lagrange's interpolation."""
    return math.prod((tokens - other) / (at - other) for other, _ in points if other != at)


def _most_context(drawn: Mapping[str, Any], free: int, config: Mapping[str, Any]) -> int:
    """The most tokens whose cache and activations take no more than `free` bytes, in whole steps."""
    low, high = 0, longest_context(config) or DEFAULT_CONTEXT
    if _moving_bytes(drawn, high) <= free:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _moving_bytes(drawn, middle) <= free else (low, middle)
    return low // CONTEXT_STEP * CONTEXT_STEP


def rough_estimate(
    config: Mapping[str, Any],
    quantization: Quantization,
    param_count: int | None,
    weight_file_bytes: int,
    tensors: Mapping[str, TensorInfo] | None = None,
    *,
    on_gpu: bool,
    context_length: int | None = None,
) -> Estimate:
    """Estimates a model without building it. tensors: what the headers of its files say, if they were read.

    Weights: embedding and output head stay in half precision (2 bytes a number), and so does everything where there
    are experts, which bitsandbytes does not quantize; the rest takes what the form takes.
    KV cache: 2 (keys and values) x layers x KV heads x head size x 2 bytes for each token. Activations of
    reading a prompt: tokens x (3 x intermediate + 4 x hidden + 2 x head size) x 2 bytes, which is exact for
    Llama-shaped models. Without a parameter count the weights are taken to be as large as their files.
    """
    text = language_part(config)
    hidden = dimension(text, "hidden_size", "n_embd", "d_model")
    layers = dimension(text, "num_hidden_layers", "n_layer", "num_layers")
    heads = dimension(text, "num_attention_heads", "n_head", "num_heads") or 1
    kv_heads = dimension(text, "num_key_value_heads") or heads
    head_dim = dimension(text, "head_dim") or hidden // heads
    intermediate = dimension(text, "intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    tokens = context_tokens(config, context_length)
    weights, provenance = _rough_weights(config, quantization, param_count, weight_file_bytes, tensors)
    return Estimate(
        weights=weights,
        stored=weights,
        kv_cache=tokens * 2 * layers * kv_heads * head_dim * 2,
        activations=tokens * (3 * intermediate + 4 * hidden + 2 * head_dim) * 2,
        overhead=GPU_CONTEXT_BYTES if on_gpu else 0,
        context_length=tokens,
        provenance=provenance,
        quantizing=weights + weights // 4,
    )


def _rough_weights(
    config: Mapping[str, Any],
    quantization: Quantization,
    param_count: int | None,
    weight_file_bytes: int,
    tensors: Mapping[str, TensorInfo] | None,
) -> tuple[int, str]:
    if "quantization_config" in config or not (tensors or param_count or quantization is not Quantization.FP16):
        return weight_file_bytes, "from file sizes"
    text = language_part(config)
    tied = bool(text.get("tie_word_embeddings", True))
    if tensors:
        return weight_bytes_of(tensors, quantization, tied), "from file headers"
    count = param_count or weight_file_bytes // 2
    tables = (1 if tied else 2) * dimension(text, "hidden_size", "n_embd", "d_model") * dimension(text, "vocab_size")
    half = count if dimension(text, *EXPERTS) else min(count, tables)
    weights = 2 * half + int(BYTES[quantization] * (count - half))
    return weights, "from parameter count" if param_count else "from file sizes"
