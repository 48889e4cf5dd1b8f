"""What a model really takes once it is loaded, to hold an estimate against. Small random models of many kinds.

python tests/allocated.py FOLDER Q4      # loads it and prints the bytes as JSON
"""

import json
import sys
from pathlib import Path
from typing import Any

WIDE = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 512,
    "vocab_size": 4096,
    "max_position_embeddings": 4096,
}
PLAIN = {key: value for key, value in WIDE.items() if key not in ("num_key_value_heads", "head_dim")}
EXPERTS = {**WIDE, "moe_intermediate_size": 128, "num_experts": 8, "num_experts_per_tok": 2, "decoder_sparse_step": 1}
KINDS: dict[str, dict[str, Any]] = {
    "llama": WIDE,
    "qwen2": WIDE,
    "qwen3": {**WIDE, "tie_word_embeddings": True},
    "qwen3_moe": EXPERTS,
    "mistral": {**WIDE, "sliding_window": 64},
    "mixtral": {**WIDE, "num_local_experts": 4},
    "gemma": {**WIDE, "tie_word_embeddings": True},
    "gemma2": {**WIDE, "sliding_window": 64},
    "gemma3_text": {**WIDE, "sliding_window": 64},
    "phi3": {**WIDE, "pad_token_id": 0},
    "gpt2": {"n_embd": 256, "n_layer": 4, "n_head": 8, "vocab_size": 4096},
    "opt": {**PLAIN, "ffn_dim": 512, "word_embed_proj_dim": 256},
    "gpt_neox": PLAIN,
    "bloom": {"hidden_size": 256, "n_layer": 4, "n_head": 8, "vocab_size": 4096},
    "falcon": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "vocab_size": 4096},
    "starcoder2": WIDE,
    "olmo2": WIDE,
    "granite": WIDE,
    "stablelm": {**PLAIN, "num_key_value_heads": 8},
    "cohere": WIDE,
    "mamba": {"hidden_size": 256, "num_hidden_layers": 4, "vocab_size": 4096, "state_size": 16},
}


WIDER = {
    "hidden_size": 4,
    "n_embd": 4,
    "intermediate_size": 4,
    "moe_intermediate_size": 4,
    "ffn_dim": 4,
    "head_dim": 2,
}
WIDER |= {"word_embed_proj_dim": 4, "num_hidden_layers": 3, "n_layer": 3, "vocab_size": 8}


def make(kind: str, folder: Path, large: bool = False) -> dict[str, Any]:
    """Saves a random model of this kind in bfloat16; returns its config. large: 50 to 300 million numbers."""
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    fields = {name: value * WIDER.get(name, 1) if large else value for name, value in KINDS[kind].items()}
    config = CONFIG_MAPPING[kind](**fields)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    written: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return written


def load(folder: Path, form: str, dtype: str = "bfloat16") -> Any:
    """The model in memory, in one of the three forms."""
    import torch
    import transformers

    quantized = {
        "FP16": None,
        "Q8": transformers.BitsAndBytesConfig(load_in_8bit=True),
        "Q4": transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
    }[form]
    more = {"quantization_config": quantized} if quantized else {}
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), **more).eval()


def weight_bytes(model: Any) -> int:
    """Bytes of all parameters and buffers, with what bitsandbytes keeps beside them; each storage once."""
    found: dict[int, int] = {}

    def count(tensor: Any) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr():
            found[storage.data_ptr()] = max(found.get(storage.data_ptr(), 0), tensor.numel() * tensor.element_size())

    for tensor in [*model.parameters(), *model.buffers()]:
        count(tensor)
        for beside in ("SCB", "CB"):
            if getattr(tensor, beside, None) is not None:
                count(getattr(tensor, beside))
        state = getattr(tensor, "quant_state", None)
        for holder in filter(None, (state, getattr(state, "state2", None))):
            for name in ("absmax", "code", "offset"):
                if getattr(holder, name, None) is not None:
                    count(getattr(holder, name))
    return sum(found.values())


def cache_bytes(model: Any, tokens: int) -> int:
    """Bytes of the cache that a conversation of so many tokens holds, after one step more."""
    import torch

    with torch.no_grad():
        out = model(input_ids=torch.zeros((1, tokens - 1), dtype=torch.long), use_cache=True)
        kept = out["past_key_values"] if "past_key_values" in out else out["cache_params"]
        again = {"past_key_values": kept} if "past_key_values" in out else {"cache_params": kept}
        model(input_ids=torch.zeros((1, 1), dtype=torch.long), use_cache=True, **again)
    total = 0
    for layer in kept.layers:
        for value in vars(layer).values():
            for tensor in (
                value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
            ):
                if isinstance(tensor, torch.Tensor) and tensor.ndim > 1:
                    total += tensor.numel() * tensor.element_size()
    return total


def prefill_bytes(model: Any, tokens: int) -> int:
    """Bytes at the peak of reading a prompt, its tensors counted one by one as they come and go."""
    import inspect

    import torch

    from millm.engines.meta_trace import Ledger

    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    with torch.no_grad(), Ledger() as ledger:
        out = model(input_ids=torch.zeros((1, tokens), dtype=torch.long), use_cache=True, **last)
    del out
    return ledger.peak


def running_bytes(model: Any) -> int:
    """Bytes of the weights once the model has run: for some processors 4-bit weights are packed anew then."""
    import torch

    from millm.engines import memory

    with torch.no_grad():
        model(input_ids=torch.zeros((1, 1), dtype=torch.long))
    return memory.weight_bytes(model)


def main() -> None:
    """Measures a saved model in a process of its own."""
    folder, form, tokens = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    sys.path.insert(0, str(Path(__file__).parent.parent))
    model = load(folder, form)
    measured = {"weights": weight_bytes(model)}
    if form == "FP16":
        measured |= {"cache": cache_bytes(model, tokens), "prefill": prefill_bytes(model, tokens)}
    model.save_pretrained(folder / form)
    measured["running"] = running_bytes(model)
    measured["saved"] = sum(path.stat().st_size for path in (folder / form).glob("*.safetensors"))
    print(json.dumps(measured))  # noqa: T201


if __name__ == "__main__":
    main()
