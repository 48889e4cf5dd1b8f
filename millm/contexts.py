"""What a model's config tells: the tokens it can take, its dimensions, what it was before it was quantized."""

from collections.abc import Mapping
from typing import Any

from millm.records import is_dimension

DEFAULT_CONTEXT = 4096  # tokens; what a chat needs, rather than the model's maximum
SHORTEST_STEP = 256  # tokens


def context_tokens(config: Mapping[str, Any], asked: int | None) -> int:
    """The tokens to count with: what was asked for, else what a chat needs, within what the model can."""
    return min(asked or DEFAULT_CONTEXT, longest_context(config) or DEFAULT_CONTEXT)


def longest_context(config: Mapping[str, Any]) -> int | None:
    """The tokens that a model was made for, if its config says."""
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
    return dimension(language_part(config), *names) or None


def context_steps(longest: int) -> tuple[int, ...]:
    """Lengths to choose from: powers of two, from 2048 on one between each two, and the longest itself."""
    steps, step = [], SHORTEST_STEP
    while step < longest:
        steps += [step, step * 3 // 2] if step >= 2048 else [step]
        step *= 2
    return (*(each for each in steps if each < longest), longest)


def language_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the language model: composite models keep it under `text_config`."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def dimension(config: Mapping[str, Any], *names: str) -> int:
    """The first of these values that can be a size, 0 where none is."""
    return next((config[name] for name in names if is_dimension(config.get(name))), 0)


def unquantized(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the model as it was before bitsandbytes; {} if it was quantized in another way than ours."""
    stored = config.get("quantization_config")
    if stored is None:
        return config
    own = isinstance(stored, Mapping) and (stored.get("bnb_4bit_use_double_quant") or stored.get("load_in_8bit"))
    return {name: value for name, value in config.items() if name != "quantization_config"} if own else {}
