"""Which architectures answer in company exactly as `generate` does alone, and which are served in turn.

    python bench/architectures.py            # every causal language model that builds from small settings
    python bench/architectures.py llama bloom

Random weights in float32, greedy. Each architecture is one line; the sum is at the end.
"""

import argparse
import dataclasses
import gc
import logging
import resource
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402
import transformers  # noqa: E402
from small_networks import Numbers  # noqa: E402
from transformers.models.auto.configuration_auto import CONFIG_MAPPING  # noqa: E402
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES  # noqa: E402

from millm.engines.base import ChatRequest, Completion, Sampling  # noqa: E402
from millm.engines.loop import DecodeEngine  # noqa: E402
from millm.engines.rows import ending_tokens  # noqa: E402
from millm.jobs import Lane  # noqa: E402

SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2}
EXPERTS |= {"moe_intermediate_size": 32, "n_group": 1, "topk_group": 1, "n_shared_experts": 1}
MLA = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16}
STATES = {"mamba_d_state": 16, "mamba_n_heads": 8, "mamba_d_head": 16, "state_size": 16, "mamba_n_groups": 1}
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
WINDOW = {"sliding_window": 8}
NO_HEAD_DIM = {name: value for name, value in SMALL.items() if name != "head_dim"}
WAYS: tuple[dict[str, Any], ...] = (  # the first that builds is taken
    {**SMALL, **EXPERTS, **MLA, **STATES, **LINEAR, **WINDOW},
    {**SMALL, **EXPERTS, **LINEAR, "num_hidden_layers": 4},
    {**SMALL, "num_key_value_heads": 4},
    NO_HEAD_DIM,
    {"vocab_size": 512},
)
FURTHER: dict[str, dict[str, Any]] = {  # what one kind needs beside, or instead
    "axk1": {**SMALL, **EXPERTS, **MLA, "num_key_value_heads": 4},
    "bamba": {**SMALL, **STATES, "attn_layer_indices": [1]},
    "codegen": {**SMALL, "rotary_dim": 8},
    "deepseek_v2": {**SMALL, **EXPERTS, **MLA, "num_key_value_heads": 4},
    "gemma3n_text": {**SMALL, "num_kv_shared_layers": 0, "vocab_size_per_layer_input": 512, "laurel_rank": 8},
    "gemma4_text": {**SMALL, "vocab_size_per_layer_input": 512, "hidden_size_per_layer_input": 8},
    "gpt_neo": {**SMALL, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gptj": {**SMALL, "rotary_dim": 8},
    "granitemoehybrid": {**SMALL, **EXPERTS, **STATES, "layer_types": ["mamba", "attention"]},
    "jamba": {**SMALL, **EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8},
    "lfm2_moe": {**SMALL, **EXPERTS, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {**NO_HEAD_DIM, **EXPERTS, **MLA, "head_dim": 16, "num_layers": 2, "ffn_hidden_size": 64},
    "mamba2": {**SMALL, "num_heads": 8, "expand": 2, "n_groups": 1, "state_size": 16, "chunk_size": 8},
    "qwen4_exp_text": {**SMALL, **LINEAR, **EXPERTS, "layer_types": ["linear_attention", "full_attention"]},
    "youtu": {**SMALL, **MLA, "num_key_value_heads": 4},
    "zamba2": {**SMALL, **STATES, "layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1},
}
LARGEST = 60_000_000  # parameters; composite configurations ignore small settings
PROMPTS = ((40, 14), (3, 10), (21, 12))  # tokens of prompts and answers
MEMORY = 12 << 30


def build(kind: str) -> Any:
    """A small random network of this kind; raises what the first of all ways to build it raised."""
    errors: list[Exception] = []
    for way in (FURTHER[kind],) if kind in FURTHER else WAYS:
        try:
            config = CONFIG_MAPPING[kind](**_known(CONFIG_MAPPING[kind], way))
            with torch.device("meta"):
                empty = transformers.AutoModelForCausalLM.from_config(config)
            if empty.num_parameters() > LARGEST:
                raise RuntimeError(f"{empty.num_parameters():,} parameters")
            torch.manual_seed(1)
            network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
            network.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2, do_sample=False)
            return network
        except Exception as failed:  # noqa: BLE001  (it is told, or the next way works)
            errors.append(failed)
    raise errors[0]


def _known(config: type, way: dict[str, Any]) -> dict[str, Any]:
    """The settings that a kind of configuration has: others would be kept and misread by the cache."""
    names = {field.name for field in dataclasses.fields(config)} | set(config.attribute_map)
    return {name: value for name, value in way.items() if name in names}


def prompt(length: int, vocabulary: int) -> list[int]:
    return torch.randint(3, vocabulary, (length,), generator=torch.Generator().manual_seed(length)).tolist()


def alone(network: Any, tokens: list[int], count: int) -> list[int]:
    """What `generate` says, without the token that ends the turn."""
    said = network.generate(
        torch.tensor([tokens]), attention_mask=torch.ones(1, len(tokens)), max_new_tokens=count, do_sample=False
    )[0, len(tokens) :].tolist()
    return said[:-1] if said[-1] in ending_tokens(network, Numbers()) else said


def together(engine: DecodeEngine, prompts: list[list[int]]) -> list[list[int]]:
    lane = Lane("company", len(prompts))

    def ask(tokens: list[int], count: int) -> Completion:
        sampling = Sampling(temperature=0, max_tokens=count)
        return engine.chat(ChatRequest(prompts=(tuple(tokens),), sampling=sampling), lambda _: None)

    counts = [count for _, count in PROMPTS]
    jobs = [
        lane.submit(lambda _, t=tokens, n=count: ask(t, n)) for tokens, count in zip(prompts, counts, strict=True)
    ]
    answers = [[int(word) for word in job.result(120).text.split()] for job in jobs]
    lane.close()
    return answers


def _same(found: list[list[int]], expected: list[list[int]]) -> bool:
    """Whether answers are those of `generate`, which ends a full answer of some architectures by force."""
    return all(
        answer == said or (answer[:-1] == said and len(answer) == count)
        for answer, said, (_, count) in zip(found, expected, PROMPTS, strict=True)
    )


def outcome(kind: str) -> tuple[str, str]:
    """One of not built, together, in turn, WRONG; and more of it."""
    try:
        network = build(kind)
    except Exception as error:  # noqa: BLE001  (it is told)
        return "not built", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:90]
    vocabulary = network.get_input_embeddings().weight.shape[0]
    prompts = [prompt(length, vocabulary) for length, _ in PROMPTS]
    expected = [alone(network, tokens, count) for tokens, (_, count) in zip(prompts, PROMPTS, strict=True)]
    try:
        engine = DecodeEngine(network, Numbers(), 512)
    except Exception as error:  # noqa: BLE001  (it is told)
        return "refused", str(error)[:90]
    pieces = "" if engine.pieces else "prompts in one piece"
    try:
        found = together(engine, prompts)
        again = together(engine, prompts)
    except Exception as error:  # noqa: BLE001  (it is told)
        return "WRONG", f"{type(error).__name__}: {error}"[:120]
    finally:
        engine.close()
    for answers in (found, again):  # generate ends a full answer of some architectures by force
        expected = [
            said if said != answer[: len(said)] else answer for said, answer in zip(expected, answers, strict=True)
        ]
    if found != expected or again != expected:
        return "WRONG", f"batching {engine.batching}, {pieces}; {expected} {found} {again}"[:300]
    return ("together" if engine.batching else "in turn"), pieces


def main() -> None:
    """Runs all and prints a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sums: Counter[str] = Counter()
    for kind in parser.parse_args().kinds:
        result, more = outcome(kind)
        sums[result] += 1
        print(f"{kind:28} {result:10} {more}", flush=True)
        gc.collect()
    print(dict(sums))


if __name__ == "__main__":
    main()
