"""Estimates from config and counts."""

import pytest

from millm.estimate import GPU_CONTEXT_BYTES, estimate_memory

LLAMA_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
}


def test_known_figures_of_a_known_model() -> None:
    """131,072 bytes of KV cache a token, and 932 MiB of activations for 8k tokens, as measured for this model."""
    estimate = estimate_memory(LLAMA_8B, 8_030_261_248, 0, on_gpu=True, context_length=8192)
    assert estimate.kv_cache == 131072 * 8192
    assert estimate.activations / 2**20 == pytest.approx(932, rel=0.01)
    assert estimate.weights == 2 * 8_030_261_248
    assert estimate.overhead == GPU_CONTEXT_BYTES
    assert estimate.total == estimate.weights + estimate.kv_cache + estimate.activations + estimate.overhead


def test_head_size_is_not_always_hidden_by_heads() -> None:
    plain = estimate_memory({**LLAMA_8B, "head_dim": 256}, 1, 0, on_gpu=False)
    assert plain.kv_cache == 2 * 131072 * 4096
    assert plain.overhead == 0


def test_the_context_stops_at_what_the_model_can_do() -> None:
    short = {**LLAMA_8B, "max_position_embeddings": 512}
    assert estimate_memory(short, 1, 0, on_gpu=False).context_length == 512
    assert estimate_memory({"text_config": short}, 1, 0, on_gpu=False, context_length=9999).context_length == 512


def test_without_a_count_the_files_are_the_measure() -> None:
    estimate = estimate_memory({}, None, 12345, on_gpu=False)
    assert (estimate.weights, estimate.provenance) == (12345, "from file sizes")
