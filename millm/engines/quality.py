"""What a quantization costs in quality: two forms of a model read the same text, one after the other.

    python -m millm.engines.quality

is told what to do by one JSON object, {"reference": folder, "model": folder, "text": null, "trusted": false}, and
says how far it is and what it found; see `answer_errand`.
"""

import gc
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from millm.child import answer_errand
from millm.engines.base import ChatRequest, Sampling
from millm.engines.loader import load_weights, speed_up
from millm.engines.loop import DecodeEngine
from millm.engines.memory import out_of_memory, release_memory
from millm.errors import InvalidRequest
from millm.events import Event, Report, Stage
from millm.jobs import Lane

TEXT = Path(__file__).with_name("quality.txt")
MOST_TOKENS = 512  # that are read: a row of probabilities for each is kept, 300 MB where a vocabulary is large
FEWEST_TOKENS = 8
TIMED_TOKENS = 32


@dataclass(frozen=True)
class Reading:
    """How a form of a model read the text. tokens_per_s: written afterwards. memory_bytes: of its weights."""

    perplexity: float
    tokens_per_s: float
    memory_bytes: int


def compare(reference: Path, model: Path, text: str, trusted: bool, report: Report) -> dict[str, Any]:
    """Compares a form of a model with another one of it, the reference.

    Returns the perplexity of both (e to the mean negative log probability of each next token, in nats), the mean
    Kullback-Leibler divergence of the reference's next-token distribution from the model's (nats), the share of
    positions at which both find the same token most likely, the speed of both and the bytes of their weights.

    Raises:
        InvalidRequest: the text is too short.
    """
    code = {"trust_remote_code": trusted, "local_files_only": True}
    tokenizer = transformers.AutoTokenizer.from_pretrained(reference, **code)
    ids = tokenizer(text, return_tensors="pt").input_ids[:, : MOST_TOKENS + 1]
    if ids.shape[1] <= FEWEST_TOKENS:
        raise InvalidRequest(f"The text is too short: it has {ids.shape[1]} tokens.", field="text")
    report(Event(Stage.MEASURING, 0))
    with tempfile.TemporaryFile() as kept:
        first, divergence, agreement = _read(reference, tokenizer, ids, code, kept, None)
        report(Event(Stage.MEASURING, 50))
        second, divergence, agreement = _read(model, tokenizer, ids, code, None, kept)
    return {
        "tokens": ids.shape[1] - 1,
        "reference": vars(first),
        "model": vars(second),
        "kl_divergence": divergence,
        "top1_agreement": agreement,
    }


def _read(
    folder: Path, tokenizer: Any, ids: torch.Tensor, code: dict[str, Any], keep: Any, kept: Any
) -> tuple[Reading, float, float]:
    lane = Lane("open")  # ends before the speed is measured: see `open_model`
    try:
        network, perplexity, divergence, agreement = lane.call(lambda: _text_read(folder, ids, code, keep, kept))
    finally:
        lane.close()
    engine = DecodeEngine(network, tokenizer, ids.shape[1] + TIMED_TOKENS)
    written = engine.chat(
        ChatRequest(
            prompts=(tuple(ids[0, :FEWEST_TOKENS].tolist()),),
            sampling=Sampling(temperature=0, max_tokens=TIMED_TOKENS),
        ),
        lambda _: None,
    )
    memory = engine.memory_bytes
    engine.close()
    del network, engine
    gc.collect()
    release_memory()
    return Reading(round(perplexity, 4), round(written.tokens_per_s, 1), memory), divergence, agreement


def _text_read(
    folder: Path, ids: torch.Tensor, code: dict[str, Any], keep: Any, kept: Any
) -> tuple[Any, float, float, float]:
    """The network, its perplexity, and how far it is from what was `kept` of another one."""
    config = transformers.AutoConfig.from_pretrained(folder, **code)
    network = load_weights(folder, config, lambda _: None, **code)
    speed_up(network, folder, config)  # what is measured is what is served
    with torch.inference_mode():
        logits = network(input_ids=ids.to(network.device)).logits[0, :-1].float().cpu()
    said = logits.log_softmax(-1)
    perplexity = math.exp(-float(said.gather(1, ids[0, 1:, None]).mean()))
    divergence, agreement = 0.0, 1.0
    if keep:
        torch.save(said, keep)
    if kept:
        kept.seek(0)
        expected = torch.load(kept, weights_only=True)
        width = min(said.shape[1], expected.shape[1])  # a padded vocabulary may have been cut
        said, expected = said[:, :width], expected[:, :width]
        divergence = max(0.0, float((expected.exp() * (expected - said)).sum(-1).mean()))
        agreement = float((expected.argmax(-1) == said.argmax(-1)).float().mean())
    return network, perplexity, divergence, agreement


def work(asked: dict[str, Any], say: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Compares as it is asked."""
    transformers.logging.set_verbosity_error()
    text = asked["text"] or TEXT.read_text("utf-8")
    try:
        return compare(
            Path(asked["reference"]),
            Path(asked["model"]),
            text,
            asked["trusted"],
            lambda event: say({"stage": event.stage, "progress": event.progress}),
        )
    except Exception as error:
        if out_of_memory(error):
            raise MemoryError from error
        raise


if __name__ == "__main__":
    answer_errand(work)
