"""What tensors take, told by their names and shapes."""

from millm.records import Quantization
from millm.tensors import TensorInfo, nf4_bytes, weight_bytes_of

LAYER = TensorInfo("BF16", (128, 64))
TENSORS = {
    "model.embed_tokens.weight": TensorInfo("F32", (1000, 64)),
    "model.layers.0.self_attn.q_proj.weight": LAYER,
    "model.layers.0.self_attn.q_proj.bias": TensorInfo("BF16", (128,)),
    "model.layers.0.mlp.experts.0.up_proj.weight": LAYER,
    "model.layers.0.odd_proj.weight": TensorInfo("BF16", (100, 60)),
    "model.norm.weight": TensorInfo("BF16", (64,)),
    "lm_head.weight": TensorInfo("BF16", (1000, 64)),
    "ids": TensorInfo("I64", (10,)),
}
HALF = 2 * (1000 * 64 + 128 + 128 * 64 + 6000 + 64) + 10


def test_tables_heads_norms_experts_and_odd_matrices_stay_in_half_precision() -> None:
    for form, layer in (
        (Quantization.FP16, 2 * 8192),
        (Quantization.Q8, 8192 + 4 * 128),
        (Quantization.Q4, nf4_bytes(8192)),
    ):
        assert weight_bytes_of(TENSORS, form, tied=True) == HALF + layer
        assert weight_bytes_of(TENSORS, form, tied=False) == HALF + layer + 2 * 64_000


def test_numbers_that_are_not_whole_blocks() -> None:
    assert nf4_bytes(64) == 32 + 64 + 1 + 4 + 1028
    assert nf4_bytes(65) == 33 + 64 + 2 + 4 + 1028
