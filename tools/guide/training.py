"""The guide's network and how it is trained: Muon and AdamW, one cosine, conversations of like length together."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn import functional

from .corpus import Corpus
from .tokens import CONTEXT, END, VOCABULARY, Encoder

SEED = 2026
STEPS, MINUTES = 6000, 55.0  # whichever is over first ends the training
TOKENS_A_STEP = 4096
POOL = 1536  # conversations that are sorted by length together
RATE, LAST_RATE, WARM_UP = 3e-3, 2e-5, 60
RATE_AGAIN = 1e-3  # of a network that goes on from weights that are there
DECAY, EMBEDDING_DECAY, DROPOUT, CLIP = 0.1, 0.01, 0.1, 1.0
QUESTION_WEIGHT = 0.1  # of the tokens that are not the model's own
SHORTENED, OPENING = 0.65, (6, 16)  # share of rows cut after so many tokens of the last answer: it is decided by then
COPY_STEPS, LONGEST_COPY = 500, 24  # first of all copying is learned: without it names and numbers come out wrong
VALIDATE_EVERY = 200
VALIDATION_SIZE = 400

SHAPE = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "intermediate_size": 448,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
}


@dataclass(frozen=True)
class Trained:
    """What training took. loss: of the answers in the validation set, at the step that was kept."""

    steps: int
    loss: float
    wall_s: float
    cpu_s: float


def make_network(tokenizer: Any) -> Any:
    """An untrained network for this tokenizer."""
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(END)]
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPE,
    )
    network = Qwen3ForCausalLM(config)
    network.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
    return network


def _opened(folder: Path) -> Any:
    """The network of a folder, to be trained on."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _drop_out(network: Any) -> None:
    """Dropout behind every attention and feed-forward part; nothing of it is saved."""
    for layer in network.model.layers:
        layer.self_attn.o_proj.register_forward_hook(_dropped)
        layer.mlp.down_proj.register_forward_hook(_dropped)


def _dropped(module: Any, _: Any, output: torch.Tensor) -> torch.Tensor:
    return functional.dropout(output, DROPOUT, module.training)


Row = tuple[list[int], list[bool]]
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def batches(corpus: Corpus, encoder: Encoder, rng: Random) -> Iterator[Batch]:
    """Endless batches of about `TOKENS_A_STEP` tokens: tokens, next tokens, and how much each one counts."""
    while True:
        pool = [_shortened(encoder.encode(_conversation(corpus, rng)), rng) for _ in range(POOL)]
        made, rows = [], []
        for row in sorted(pool, key=lambda row: len(row[0])):
            if rows and (len(rows) + 1) * len(row[0]) > TOKENS_A_STEP:
                made.append(_padded(rows))
                rows = []
            rows.append(row)
        made.append(_padded(rows))
        rng.shuffle(made)
        yield from made


def copies(encoder: Encoder, rng: Random) -> Iterator[Batch]:
    """Batches in which the answer is the question, in tokens drawn by chance: what looking back is learned from."""
    while True:
        length = rng.randint(2, LONGEST_COPY)
        rows = []
        for _ in range(TOKENS_A_STEP // (2 * length + 10)):
            said = [rng.randrange(4, VOCABULARY) for _ in range(length)]
            rows.append(encoder.turn(said, said))
        yield _padded(rows)


def _conversation(corpus: Corpus, rng: Random) -> list[dict[str, str]]:
    """Mostly short ones; one in fifty is long, so that positions far out are known too."""
    return corpus.dialogue(rng, rng.randrange(6, 12) if rng.random() < 0.02 else None)


def _shortened(row: Row, rng: Random) -> Row:
    """Often without the later part of the last answer, so that more questions fit into the same time."""
    ids, own = row
    last = len(own) - own[::-1].index(False, 1) if len(own) > 1 else 0
    if rng.random() > SHORTENED:
        return row
    end = last + rng.randint(*OPENING)
    return ids[:end], own[:end]


def _padded(rows: list[Row]) -> Batch:
    width = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    weights = torch.zeros(len(rows), width)
    for place, (row, own) in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        weights[place, : len(row)] = torch.where(torch.tensor(own), 1.0, QUESTION_WEIGHT)
    return ids[:, :-1], ids[:, 1:], weights[:, 1:]


def _losses(network: Any, batch: Batch) -> torch.Tensor:
    """The loss of every next token. Rows are padded on the right, where nothing earlier looks: no mask is needed."""
    ids, targets, _ = batch
    logits = network(input_ids=ids, use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)


@torch.no_grad()
def validation_loss(network: Any, held: list[Batch]) -> float:
    """The mean loss of the answers' tokens."""
    network.eval()
    total, tokens = 0.0, 0
    for batch in held:
        own = batch[2] == 1.0
        total += float(_losses(network, batch)[own].sum())
        tokens += int(own.sum())
    network.train()
    return total / tokens


def _rate(step: int, done: float, highest: float) -> float:
    """The learning rate. done: the share of the training that lies behind, 0-1."""
    if step < WARM_UP:
        return highest * (step + 1) / WARM_UP
    return LAST_RATE + (highest - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * done))


class _Optimizer:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""

    def __init__(self, network: Any) -> None:
        named = list(network.named_parameters())
        matrices = [weight for name, weight in named if weight.dim() == 2 and "embed" not in name]
        others = [weight for name, weight in named if weight.dim() != 2 or "embed" in name]
        self._parts = (
            torch.optim.Muon(matrices, lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=RATE, betas=(0.9, 0.98), weight_decay=EMBEDDING_DECAY),
        )

    def step(self, rate: float) -> None:
        """One step at this learning rate; the gradients are gone afterwards."""
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad()


def train(
    corpus: Corpus,
    tokenizer: Any,
    say: Callable[[str], None],
    steps: int,
    minutes: float,
    seed: int,
    start: Path | None = None,
) -> tuple[Any, Trained]:
    """Trains a network in float32 and returns it as it was at its best on the validation set.

    start: the folder of a network that has this tokenizer and knows most of the text already; None for a new one.

    It ends after so many steps or minutes, whichever come first; the learning rate falls accordingly. The validation
    set is more of the same text, made with another seed; held-out questions are in neither.
    """
    torch.manual_seed(seed)
    encoder = Encoder(tokenizer)
    network = _opened(start) if start else make_network(tokenizer)
    highest, copy_steps = (RATE_AGAIN, 0) if start else (RATE, COPY_STEPS)
    _drop_out(network)
    network.train()
    optimizer = _Optimizer(network)
    held = _validation_set(corpus, encoder, seed)
    begun, cpu = time.monotonic(), time.process_time()
    best, kept = math.inf, {}
    first = islice(copies(encoder, Random(seed)), copy_steps)
    for step, batch in enumerate(chain(first, batches(corpus, encoder, Random(seed))), 1):
        done = max(step / steps, (time.monotonic() - begun) / 60 / minutes)
        loss = (_losses(network, batch) * batch[2]).sum() / batch[2].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step(_rate(step, min(1.0, done), highest))
        if step <= copy_steps and step % 50 == 0:
            say(f"copy {step}: loss {loss.item():.3f}, {time.monotonic() - begun:.0f} s")
        if step % VALIDATE_EVERY == 0 or done >= 1:
            now = validation_loss(network, held)
            seconds = time.monotonic() - begun
            say(f"step {step} of {steps}: loss {loss.item():.3f}, validation {now:.4f}, {seconds:.0f} s")
            if now < best and step > copy_steps:
                best, kept = now, {name: value.detach().clone() for name, value in network.state_dict().items()}
        if done >= 1:
            break
    network.load_state_dict(kept)
    network.eval()
    return network, Trained(step, best, time.monotonic() - begun, time.process_time() - cpu)


def _validation_set(corpus: Corpus, encoder: Encoder, seed: int) -> list[Batch]:
    rng = Random(seed + 1)
    rows = sorted((encoder.encode(corpus.dialogue(rng)) for _ in range(VALIDATION_SIZE)), key=lambda row: len(row[0]))
    return [_padded(rows[start : start + 40]) for start in range(0, len(rows), 40)]
