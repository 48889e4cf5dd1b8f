"""What a model will need in memory: counted on an empty copy where that can be built, else worked out roughly."""

import hashlib
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from millm.jobs import Lane
from millm.records import Quantization, is_dimension

log = logging.getLogger(__name__)

DEFAULT_CONTEXT = 4096  # tokens; what a chat needs, rather than the model's maximum
GPU_CONTEXT_BYTES = 450 * 1024**2  # what CUDA itself takes on a device before the first tensor
GPU_ROUNDING = 0.2  # of what comes and goes, that CUDA's allocator holds besides; simulated, no GPU was at hand
ANSWER_S = 8.0  # seconds that a question about one config may take
KEPT = 256  # answers
EXACT = "exact"
CHILD = (sys.executable, "-m", "millm.engines.blueprint")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes by part, for one request that fills `context_length` tokens.

    provenance: "exact", "from parameter count" or "from file sizes". note: why quantizing hardly saves, or "".
    """

    weights: int
    kv_cache: int
    activations: int
    overhead: int
    context_length: int
    provenance: str
    note: str = ""

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return self.weights + self.kv_cache + self.activations + self.overhead


class Estimator:
    """Estimates memory, asking a process of its own to build what it can from a config. Thread-safe.

    child: how that process is started; it answers a JSON object a line. () means that every estimate is rough.
    answer_s: seconds for each answer.
    """

    def __init__(self, child: tuple[str, ...] = CHILD, answer_s: float = ANSWER_S) -> None:
        self._command = child
        self._answer_s = answer_s
        self._lane = Lane("estimate")
        self._process: subprocess.Popen[bytes] | None = None
        self._known: OrderedDict[str, Mapping[str, Any]] = OrderedDict()

    def warm_up(self) -> None:
        """Starts the process, so that the first estimate need not wait for it."""
        if self._command:
            self._lane.submit(lambda _: self._started())

    def estimate(
        self,
        config: Mapping[str, Any],
        quantization: Quantization,
        *,
        param_count: int | None,
        weight_file_bytes: int,
        on_gpu: bool,
        context_length: int | None = None,
        wait: bool = True,
    ) -> Estimate:
        """Estimates a model in one form, in the half precision that this device has, or float32.

        wait: False takes what is known already and is rough otherwise. A model that is quantized as it is stored, or
        whose class cannot be built, is estimated by `rough_estimate`.
        """
        tokens = context_tokens(config, context_length)
        plain = bool(config) and "quantization_config" not in config
        drawn = self._ask(config, on_gpu, tokens, wait) if self._command and plain else None
        if drawn is None or "error" in drawn:
            return rough_estimate(
                config, param_count, weight_file_bytes, on_gpu=on_gpu, context_length=context_length
            )
        cache = drawn["cache"]
        kv_cache = cache["full"] * tokens + cache["constant"]
        kv_cache += sum(min(tokens, window) * size for window, size in cache["windows"])
        moving = max(kv_cache, drawn["prefill"][str(tokens)])
        return Estimate(
            weights=drawn["weights"][quantization],
            kv_cache=kv_cache,
            activations=moving - kv_cache,
            overhead=GPU_CONTEXT_BYTES + int(GPU_ROUNDING * moving) if on_gpu else 0,
            context_length=tokens,
            provenance=EXACT,
            note=drawn["note"] if quantization is not Quantization.FP16 else "",
        )

    def close(self, timeout: float = 1.0) -> bool:
        """Ends the process. Returns whether nothing was left running after `timeout` seconds."""
        ended = self._lane.close(timeout)
        self._end()
        return ended

    def _ask(self, config: Mapping[str, Any], on_gpu: bool, tokens: int, wait: bool) -> Mapping[str, Any] | None:
        device = "cuda" if on_gpu else "cpu"
        question = json.dumps({"config": config, "device": device, "prompts": [tokens]}, sort_keys=True)
        key = hashlib.sha256(question.encode()).hexdigest()
        if key in self._known or not wait:
            return self._known.get(key)
        return self._lane.call(lambda: self._answer(key, question))

    def _answer(self, key: str, question: str) -> Mapping[str, Any] | None:
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
            self._end()
            return None
        if "error" in answer:
            log.info("no exact estimate: %s", answer["error"])
        self._known[key] = answer
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return answer

    def _exchange(self, question: str) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(question.encode() + b"\n")
        process.stdin.flush()
        line, deadline = b"", time.monotonic() + self._answer_s
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise TimeoutError(f"no answer within {self._answer_s:.0f} s")
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                raise BrokenPipeError("the process that builds models ended")
            line += piece
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            offline = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **offline},
                start_new_session=True,  # Ctrl-C in a terminal is for the parent, which ends it
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process:
            process.kill()
            process.communicate()


def context_tokens(config: Mapping[str, Any], asked: int | None) -> int:
    """The tokens to count with: what was asked for, else what a chat needs, within what the model can."""
    return min(asked or DEFAULT_CONTEXT, longest_context(config) or DEFAULT_CONTEXT)


def longest_context(config: Mapping[str, Any]) -> int | None:
    """The tokens that a model was made for, if its config says."""
    return _int(_text(config), "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len") or None


def rough_estimate(
    config: Mapping[str, Any],
    param_count: int | None,
    weight_file_bytes: int,
    *,
    on_gpu: bool,
    context_length: int | None = None,
) -> Estimate:
    """Estimates a model held in half precision (2 bytes a number) without building it.

    KV cache: 2 (keys and values) x layers x KV heads x head size x 2 bytes for each token. Activations of
    reading a prompt: tokens x (3 x intermediate + 4 x hidden + 2 x head size) x 2 bytes, which is exact for
    Llama-shaped models. Without a parameter count the weights are taken to be as large as their files.
    """
    text = _text(config)
    hidden = _int(text, "hidden_size", "n_embd", "d_model")
    layers = _int(text, "num_hidden_layers", "n_layer", "num_layers")
    heads = _int(text, "num_attention_heads", "n_head", "num_heads") or 1
    kv_heads = _int(text, "num_key_value_heads") or heads
    head_dim = _int(text, "head_dim") or hidden // heads
    intermediate = _int(text, "intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    tokens = context_tokens(config, context_length)
    return Estimate(
        weights=2 * param_count if param_count else weight_file_bytes,
        kv_cache=tokens * 2 * layers * kv_heads * head_dim * 2,
        activations=tokens * (3 * intermediate + 4 * hidden + 2 * head_dim) * 2,
        overhead=GPU_CONTEXT_BYTES if on_gpu else 0,
        context_length=tokens,
        provenance="from parameter count" if param_count else "from file sizes",
    )


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _int(config: Mapping[str, Any], *names: str) -> int:
    return next((config[n] for n in names if is_dimension(config.get(n))), 0)
