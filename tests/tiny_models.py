"""Language models small enough to build in a moment: real architectures, random weights, a real tokenizer.

    python tests/tiny_models.py qwen3 some/folder --dtype bfloat16 --size bigger

Everything is seeded, so a model is the same bytes on every run. `size="bigger"` is for what must take seconds:
a throttled download, a load whose progress can be watched. Importing this file does not import torch.
"""

import argparse
import ast
import functools
import sysconfig
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2048
WINDOW = 32  # tokens: the sliding window of `mistral`
BOOKS = """argparse asyncio/tasks collections/__init__ datetime decimal difflib email/message http/client inspect
    json/__init__ logging/__init__ pathlib random statistics string subprocess tarfile textwrap threading typing
    unittest/case zipfile"""

PAD, END, START, TURN_END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}"
    f"{START}{{{{ message.role }}}}\n{{{{ message.content }}}}{TURN_END}\n"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{START}assistant\n{{% endif %}}"
)

SIZES = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128},
    "bigger": {"hidden_size": 512, "num_hidden_layers": 4, "intermediate_size": 1536},
}
SHARED = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", SHARED),
    "qwen3": ("Qwen3Config", {**SHARED, "tie_word_embeddings": True}),
    "gemma": ("GemmaConfig", {**SHARED, "num_key_value_heads": 1, "tie_word_embeddings": True}),
    "gpt2": ("GPT2Config", {"num_attention_heads": 4, "max_position_embeddings": 2048}),
    "mistral": ("MistralConfig", {**SHARED, "sliding_window": WINDOW}),
    "phi3": ("Phi3Config", {k: v for k, v in SHARED.items() if k != "head_dim"}),
}
NAMES = tuple(CONFIGS)


def build(
    name: str,
    folder: Path | str,
    dtype: str = "bfloat16",
    size: str = "tiny",
    shard_mb: float = 5000,
    **changes: Any,
) -> Path:
    """Saves the model `name` into `folder`, with its tokenizer, and returns the folder.

    dtype: of the weights on disk, as torch names it. size: tiny (under 1 MB) or bigger (about 25 MB in bfloat16).
    shard_mb: the weights are split into files of this size. changes: fields of its config.json.
    """
    import torch
    import transformers

    folder = Path(folder)
    tokenizer = make_tokenizer()
    kind, fields = CONFIGS[name]
    ids = {
        "vocab_size": VOCABULARY,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    # Wide random weights make logits that differ; the usual 0.02 gives nearly the same one to every token.
    config = getattr(transformers, kind)(**{**SIZES[size], **fields, **ids, "initializer_range": 0.2, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(NAMES.index(name))
        network = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(getattr(torch, dtype))
    network.generation_config = transformers.GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(END)],
        pad_token_id=tokenizer.pad_token_id,
    )
    network.save_pretrained(folder, max_shard_size=int(shard_mb * 1e6))
    tokenizer.save_pretrained(folder)
    return folder


@functools.cache
def make_tokenizer() -> Any:
    """The tokenizer of every model here, with its chat template."""
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=train(), eos_token=TURN_END, pad_token=PAD)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@functools.cache
def train() -> Tokenizer:
    """A byte-level BPE tokenizer of 2048 tokens, trained on the docstrings of the standard library."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(docstrings(), trainer)
    return core


def docstrings() -> list[str]:
    """English with some code in it, found on every machine with Python."""
    library = Path(sysconfig.get_path("stdlib"))
    texts = []
    for book in BOOKS.split():
        path = library / f"{book}.py"
        nodes = ast.walk(ast.parse(path.read_text("utf-8"))) if path.exists() else ()
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        texts += [ast.get_docstring(node) or "" for node in nodes if isinstance(node, documented)]
    return texts


def main() -> None:
    """Builds one model from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    parser.add_argument("--size", choices=tuple(SIZES), default="tiny")
    parser.add_argument("--shard-mb", type=float, default=5000)
    given = parser.parse_args()
    build(given.name, given.folder, given.dtype, given.size, given.shard_mb)


if __name__ == "__main__":
    main()
