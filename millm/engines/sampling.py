"""Choosing the next tokens of many rows, with the meaning OpenAI gives to the settings."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from millm.engines.base import Sampling
from millm.engines.grammar import Grammar
from millm.errors import InvalidRequest, MiLLMError, UnsupportedModel

CANDIDATES = 256  # tokens tried before a nucleus is looked for in the whole vocabulary, which needs a full sort
COLDEST = 1e-6  # temperatures below it would divide by zero in float32; at it the likeliest token is certain
SEEDS = range(-(2**63), 2**64)  # what torch.Generator takes
MOST_CHANCES = 20  # alternatives that can be told for each token, as OpenAI's API allows
MOST_ANSWERS = 16


def check(sampling: Sampling) -> None:
    """Raises `InvalidRequest` if a value is out of range."""
    wrong = [
        sentence
        for fine, sentence in (
            (0 <= sampling.temperature <= 2, "temperature must be between 0 and 2"),
            (0 <= sampling.top_p <= 1, "top_p must be between 0 and 1"),
            (sampling.top_k >= 0, "top_k must be 0 or more"),
            (0 <= sampling.min_p <= 1, "min_p must be between 0 and 1"),
            (abs(sampling.frequency_penalty) <= 2, "frequency_penalty must be between -2 and 2"),
            (abs(sampling.presence_penalty) <= 2, "presence_penalty must be between -2 and 2"),
            (0.01 <= sampling.repetition_penalty <= 10, "repetition_penalty must be between 0.01 and 10"),
            (all(abs(bias) <= 100 for _, bias in sampling.logit_bias), "logit_bias must be between -100 and 100"),
            (0 <= (sampling.logprobs or 0) <= MOST_CHANCES, f"at most {MOST_CHANCES} logprobs can be told"),
            (1 <= sampling.count <= MOST_ANSWERS, f"between 1 and {MOST_ANSWERS} answers can be given"),
            (sampling.max_tokens is None or sampling.max_tokens >= 1, "max_tokens must be 1 or more"),
            (all(sampling.stop), "stop must not hold an empty string"),
            (sampling.seed is None or sampling.seed in SEEDS, "seed must fit into 64 bits"),
        )
        if not fine
    ]
    if wrong:
        raise InvalidRequest(f"Invalid sampling: {'; '.join(wrong)}.")


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token. logprob and likeliest (tokens with theirs) are given where they were asked for.

    Logarithms are natural, of the chances before any setting.
    """

    token: int
    logprob: float = 0.0
    likeliest: tuple[tuple[int, float], ...] = ()


class Sampler:
    """What decides on the tokens of one answer: its settings, what it said so far, and its own random numbers.

    The generator is on the CPU: the same seed gives the same answer, whatever else runs and whichever device computed
    the logits.
    """

    def __init__(
        self, sampling: Sampling, prompt: Sequence[int] = (), number: int = 0, grammar: Grammar | None = None
    ) -> None:
        """number: which of several answers; each has random numbers of its own. grammar: what the answer must follow.

        Raises `InvalidRequest` if a value is out of range.
        """
        check(sampling)
        self.sampling = sampling
        self._grammar = grammar
        self._said: Counter[int] = Counter()
        self._repeated = set(prompt) if sampling.repetition_penalty != 1 else set()
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed((sampling.seed + number) % 2**64)

    @property
    def adjusts(self) -> bool:
        """Whether logits are changed before anything is chosen."""
        asked = self.sampling
        penalties = asked.frequency_penalty or asked.presence_penalty or asked.repetition_penalty != 1
        return bool(penalties or asked.logit_bias or self._grammar)

    @property
    def complete(self) -> bool:
        """Whether the answer is whole by its grammar."""
        return self._grammar is not None and self._grammar.complete

    def adjust(self, logits: Any) -> None:
        """Applies repetition, frequency and presence penalties, bias and grammar to one row's logits, in place.

        Raises:
            InvalidRequest: the grammar lets nothing through.
        """
        asked = self.sampling
        if asked.repetition_penalty != 1 and (known := sorted(self._repeated | self._said.keys())):
            values = logits[known]
            weaker = torch.where(values > 0, values / asked.repetition_penalty, values * asked.repetition_penalty)
            logits[known] = weaker
        if self._said and (asked.frequency_penalty or asked.presence_penalty):
            times = torch.tensor(list(self._said.values()), device=logits.device, dtype=logits.dtype)
            logits[list(self._said)] -= times * asked.frequency_penalty + asked.presence_penalty
        if asked.logit_bias:
            tokens, biases = zip(*asked.logit_bias, strict=True)
            logits[list(tokens)] += torch.tensor(biases, device=logits.device, dtype=logits.dtype)
        if self._grammar:
            self._grammar.restrict(logits)

    def said(self, token: int) -> None:
        """Takes note of a token that became part of the answer."""
        if self.adjusts:
            self._said[token] += 1
        if self._grammar:
            self._grammar.accept(token)

    def draw(self, chances: Any) -> int:
        """A place in a list of relative chances, by chance."""
        heights = chances.double().cumsum(0)
        point = torch.rand((), dtype=torch.float64, generator=self._generator) * heights[-1]
        return min(int(torch.searchsorted(heights, point, right=True)), len(heights) - 1)


def choose(samplers: Sequence[Sampler], logits: Any) -> list[Choice | MiLLMError]:
    """The next token of every row, or the error that ends the row. logits: of shape [rows, vocabulary]."""
    adjusted = logits.float()
    if any(sampler.adjusts for sampler in samplers) and adjusted is logits:
        adjusted = logits.clone()
    failed = _adjust(samplers, adjusted)
    peaks, best = (part.tolist() for part in adjusted.max(-1))  # NaN and infinity win every maximum
    warm = [row for row, sampler in enumerate(samplers) if sampler.sampling.temperature and math.isfinite(peaks[row])]
    if warm:
        for row, token in zip(warm, _drawn([samplers[row] for row in warm], adjusted[warm]), strict=True):
            best[row] = token
    return [
        failed.get(row) or (_choice(sampler, token, logits[row]) if math.isfinite(peak) else _no_numbers())
        for row, (sampler, token, peak) in enumerate(zip(samplers, best, peaks, strict=True))
    ]


def _adjust(samplers: Sequence[Sampler], logits: Any) -> dict[int, MiLLMError]:
    """Adjusts all rows in place; returns those whose answer cannot go on, and why."""
    failed = {}
    for row, sampler in enumerate(samplers):
        if sampler.adjusts:
            try:
                sampler.adjust(logits[row])
            except MiLLMError as error:
                failed[row] = error
    return failed


def _no_numbers() -> UnsupportedModel:
    return UnsupportedModel(
        "The model computed no valid probabilities (NaN or infinity): "
        "its weights are damaged, or too large for this number format."
    )


def _choice(sampler: Sampler, token: int, logits: Any) -> Choice:
    if sampler.sampling.logprobs is None:
        return Choice(token)
    logits = logits.float()
    mass = logits.logsumexp(0)
    values, tokens = logits.topk(sampler.sampling.logprobs)
    likeliest = zip(tokens.tolist(), (values - mass).tolist(), strict=True)
    return Choice(token, float(logits[token] - mass), tuple(likeliest))


def _drawn(samplers: list[Sampler], logits: Any) -> list[int]:
    """A token for each row, drawn after temperature, top_k, top_p and min_p, in this order."""
    heats = torch.tensor([max(sampler.sampling.temperature, COLDEST) for sampler in samplers], device=logits.device)
    logits = (logits - logits.amax(-1, keepdim=True)) / heats[:, None]
    most = max((_tried(sampler.sampling) for sampler in samplers), default=0)
    values, tokens = logits.topk(min(most, logits.shape[-1])) if most else (logits, logits)
    masses = logits.logsumexp(-1)
    return [
        _draw(sampler, logits[row], masses[row], values[row], tokens[row]) for row, sampler in enumerate(samplers)
    ]


def _tried(sampling: Sampling) -> int:
    """How many of the likeliest tokens are enough, or are tried first; 0 where all may be drawn."""
    if sampling.top_k:
        return sampling.top_k
    return CANDIDATES if sampling.top_p < 1 or sampling.min_p > 0 else 0


def _draw(sampler: Sampler, logits: Any, mass: Any, values: Any, tokens: Any) -> int:
    kept, chances = candidates(sampler.sampling, logits, mass, values, tokens)
    return int(kept[sampler.draw(chances)])


def candidates(sampling: Sampling, logits: Any, mass: Any, values: Any, tokens: Any) -> tuple[Any, Any]:
    """The tokens that may be drawn and their relative chances, on the CPU.

    logits: of one row, divided by the temperature. mass: the logarithm of the sum of their exponentials.
    values, tokens: its likeliest tokens, at least as many as `_tried` tells.
    """
    if not _tried(sampling):
        return torch.arange(len(logits)), (logits - mass).exp().cpu()
    if sampling.top_k:
        values, tokens = values[: sampling.top_k], tokens[: sampling.top_k]
        chances = values.softmax(0)
    else:
        chances = (values - mass).exp()
        if len(values) < len(logits) and _more_are_needed(sampling, chances):
            values, tokens = logits.sort(descending=True)
            chances = (values - mass).exp()
    return _cut(tokens.cpu(), chances.cpu(), sampling)


def _more_are_needed(sampling: Sampling, chances: Any) -> bool:
    """Whether tokens behind the likeliest ones might be drawn too."""
    enough = float(chances.double().sum()) >= sampling.top_p and sampling.top_p < 1
    return not enough and not float(chances[-1]) < sampling.min_p * float(chances[0])


def _cut(tokens: Any, chances: Any, sampling: Sampling) -> tuple[Any, Any]:
    """Keeps the fewest tokens, likeliest first, that hold `top_p` together, and then those that `min_p` lets through.

    At least one is kept.
    """
    before = chances.double().cumsum(0) - chances
    nucleus = int((before < sampling.top_p).sum()) if sampling.top_p < 1 else len(chances)
    likely = int((chances >= sampling.min_p * chances[0]).sum())
    kept = max(1, min(nucleus, likely))
    return tokens[:kept], chances[:kept]
