"""Random networks of architectures that `tiny_models` has not, in float32 and in memory only; their tokenizer."""

from typing import Any

VOCABULARY = 512
WINDOW = 8  # tokens: the sliding window of every second layer of `gemma2`, and of `gemma3n_text`

SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {**SHARED, "num_key_value_heads": 2, "head_dim": 16}
MAMBA = {"mamba_d_state": 16, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
KINDS: dict[str, dict[str, Any]] = {
    "bert": SHARED,  # every token sees all others
    "bloom": SHARED,  # ALiBi
    "gemma2": {**GROUPED, "sliding_window": WINDOW},
    "gemma3n_text": {  # the last layer looks at the keys of an earlier one
        **GROUPED,
        "num_hidden_layers": 3,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
        "num_kv_shared_layers": 1,
        "activation_sparsity_pattern": [0.0] * 3,
        "vocab_size_per_layer_input": VOCABULARY,
        "laurel_rank": 8,
        "sliding_window": WINDOW,
    },
    "jamba": {**GROUPED, **EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8},
    "lfm2": {**GROUPED, "layer_types": ["conv", "full_attention"]},
    "openai-gpt": {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4},  # knows no cache
    "qwen3_next": {**GROUPED, **LINEAR, **EXPERTS, "layer_types": ["linear_attention", "full_attention"]},
    "rwkv": {**SHARED, "attention_hidden_size": 64},  # has a cache of its own kind
    "zamba2": {**GROUPED, **MAMBA, "layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1},
}


def small(kind: str, **changes: Any) -> Any:
    """A network of this kind, the same weights every time. changes: fields of its configuration."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(kind, **{**KINDS[kind], **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


class Numbers:
    """A tokenizer whose text is the token numbers, so that a text tells exactly which tokens were chosen."""

    chat_template = None
    eos_token_id: int | None = None

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}

    def decode(self, tokens: list[int], **_: Any) -> str:
        return "".join(f"{token} " for token in tokens)
