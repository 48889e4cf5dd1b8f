"""Choosing the next token, with the meaning OpenAI gives to temperature and top_p."""

import math
from typing import Any

import torch

from millm.engines.base import Sampling
from millm.errors import InvalidRequest, UnsupportedModel

CANDIDATES = 256  # tokens tried before a nucleus is looked for in the whole vocabulary, which needs a full sort
COLDEST = 1e-6  # temperatures below it would divide by zero in float32; at it the likeliest token is certain
SEEDS = range(-(2**63), 2**64)  # what torch.Generator takes


def check(sampling: Sampling) -> None:
    """Raises `InvalidRequest` if a value is out of range."""
    wrong = [
        sentence
        for fine, sentence in (
            (0 <= sampling.temperature <= 2, "temperature must be between 0 and 2"),
            (0 <= sampling.top_p <= 1, "top_p must be between 0 and 1"),
            (sampling.top_k >= 0, "top_k must be 0 or more"),
            (sampling.max_tokens is None or sampling.max_tokens >= 1, "max_tokens must be 1 or more"),
            (all(sampling.stop), "stop must not hold an empty string"),
            (sampling.seed is None or sampling.seed in SEEDS, "seed must fit into 64 bits"),
        )
        if not fine
    ]
    if wrong:
        raise InvalidRequest(f"Invalid sampling: {'; '.join(wrong)}.")


class Sampler:
    """Chooses the tokens of one answer.

    It has its own random generator, on the CPU: the same seed gives the same answer, whatever else runs and
    whichever device computed the logits.
    """

    def __init__(self, sampling: Sampling) -> None:
        """Raises `InvalidRequest` if a value is out of range."""
        check(sampling)
        self._sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def choose(self, logits: Any) -> int:
        """The next token, given one logit for each token of the vocabulary.

        Raises:
            UnsupportedModel: the logits are not numbers.
        """
        best = logits.argmax()
        peak = float(logits[best])  # NaN and infinity win every argmax, so this one value tells about all
        if not math.isfinite(peak):
            raise UnsupportedModel(
                "The model computed no valid probabilities (NaN or infinity): "
                "its weights are damaged, or too large for this number format."
            )
        if self._sampling.temperature == 0:
            return int(best)
        logits = (logits.float() - peak) / max(self._sampling.temperature, COLDEST)
        tokens, chances = candidates(logits, self._sampling)
        return int(tokens[self._draw(chances)])

    def _draw(self, chances: Any) -> int:
        heights = chances.double().cumsum(0)
        point = torch.rand((), dtype=torch.float64, generator=self._generator) * heights[-1]
        return min(int(torch.searchsorted(heights, point, right=True)), len(heights) - 1)


def candidates(logits: Any, sampling: Sampling) -> tuple[Any, Any]:
    """The tokens that may be drawn and their relative chances, on the CPU, after top_k and then top_p.

    logits: float32, already divided by the temperature.
    """
    if sampling.top_k:
        return _largest(logits, sampling.top_k, sampling.top_p)
    if sampling.top_p == 1:
        return torch.arange(len(logits)), logits.softmax(0).cpu()
    return _nucleus(logits, sampling.top_p)


def _largest(logits: Any, count: int, top_p: float) -> tuple[Any, Any]:
    values, tokens = logits.topk(min(count, len(logits)))
    return _cut(tokens.cpu(), values.cpu().softmax(0), top_p)


def _nucleus(logits: Any, top_p: float) -> tuple[Any, Any]:
    mass = logits.logsumexp(0)
    values, tokens = logits.topk(min(CANDIDATES, len(logits)))
    chances = (values - mass).exp()
    if float(chances.double().sum()) < top_p:
        values, tokens = logits.sort(descending=True)
        chances = (values - mass).exp()
    return _cut(tokens.cpu(), chances.cpu(), top_p)


def _cut(tokens: Any, chances: Any, top_p: float) -> tuple[Any, Any]:
    """Keeps the fewest tokens, most likely first, that hold `top_p` together: at least one."""
    before = chances.double().cumsum(0) - chances
    kept = max(1, int((before < top_p).sum()))
    return tokens[:kept], chances[:kept]
