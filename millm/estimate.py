"""What a model will need in memory, known from its config.json and parameter count alone."""

from dataclasses import dataclass
from typing import Any

from millm.records import is_dimension

DEFAULT_CONTEXT = 4096  # tokens; what a chat needs, rather than the model's maximum
GPU_CONTEXT_BYTES = 450 * 1024**2  # what CUDA itself takes on a device before the first tensor


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes by part, for one request that fills `context_length` tokens.

    provenance: "from parameter count" or "from file sizes".
    """

    weights: int
    kv_cache: int
    activations: int
    overhead: int
    context_length: int
    provenance: str

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return self.weights + self.kv_cache + self.activations + self.overhead


def estimate_memory(
    config: dict[str, Any],
    param_count: int | None,
    weight_file_bytes: int,
    *,
    on_gpu: bool,
    context_length: int | None = None,
) -> Estimate:
    """Estimates a model held in half precision (2 bytes a number).

    KV cache: 2 (keys and values) x layers x KV heads x head size x 2 bytes for each token. Activations of
    reading a prompt: tokens x (3 x intermediate + 4 x hidden + 2 x head size) x 2 bytes, which is exact for
    Llama-shaped models. Without a parameter count the weights are taken to be as large as their files.
    """
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    hidden = _int(text, "hidden_size", "n_embd", "d_model")
    layers = _int(text, "num_hidden_layers", "n_layer", "num_layers")
    heads = _int(text, "num_attention_heads", "n_head", "num_heads") or 1
    kv_heads = _int(text, "num_key_value_heads") or heads
    head_dim = _int(text, "head_dim") or hidden // heads
    intermediate = _int(text, "intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    longest = _int(text, "max_position_embeddings", "n_positions", "n_ctx", "max_seq_len") or DEFAULT_CONTEXT
    tokens = min(context_length or DEFAULT_CONTEXT, longest)
    return Estimate(
        weights=2 * param_count if param_count else weight_file_bytes,
        kv_cache=tokens * 2 * layers * kv_heads * head_dim * 2,
        activations=tokens * (3 * intermediate + 4 * hidden + 2 * head_dim) * 2,
        overhead=GPU_CONTEXT_BYTES if on_gpu else 0,
        context_length=tokens,
        provenance="from parameter count" if param_count else "from file sizes",
    )


def _int(config: dict[str, Any], *names: str) -> int:
    return next((config[n] for n in names if is_dimension(config.get(n))), 0)
