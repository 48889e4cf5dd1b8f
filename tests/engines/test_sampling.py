"""Tokens are chosen with exactly the chances that temperature, top_k and top_p mean."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from millm.engines.base import Sampling
from millm.engines.sampling import CANDIDATES, Sampler, candidates
from millm.errors import InvalidRequest, UnsupportedModel

pytestmark = pytest.mark.slow

LOGITS = torch.tensor([1.0, 3.0, 0.5, 2.9, -1.0, 2.0, 0.0, -math.inf])


def logits_of(spread: float, count: int = 2000) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(1)) * spread


def expected(logits: torch.Tensor, sampling: Sampling) -> dict[int, float]:
    """The chances by definition: temperature, then the k likeliest, then the fewest that hold top_p."""
    heights = [math.exp((float(x) - float(logits.max())) / sampling.temperature) for x in logits]
    order = sorted(range(len(heights)), key=lambda token: -heights[token])
    order = order[: sampling.top_k or len(order)]
    total, held, kept = sum(heights[token] for token in order), 0.0, []
    for token in order:
        if kept and held >= sampling.top_p:
            break
        kept.append(token)
        held += heights[token] / total
    mass = sum(heights[token] for token in kept)
    return {token: heights[token] / mass for token in kept if heights[token]}


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(temperature=2.0, top_p=0.8),
        Sampling(top_k=3),
        Sampling(temperature=1.3, top_k=4, top_p=0.7),
    ],
    ids=str,
)
def test_drawn_tokens_have_their_chances(sampling: Sampling) -> None:
    sampler, draws = Sampler(replace(sampling, seed=5)), 8000
    counts = Counter(sampler.choose(LOGITS) for _ in range(draws))
    chances = expected(LOGITS, sampling)
    assert counts.keys() <= chances.keys()
    for token, chance in chances.items():
        sigma = math.sqrt(draws * chance * (1 - chance))
        assert abs(counts[token] - draws * chance) <= 4.5 * sigma + 1, (token, chance)


@pytest.mark.parametrize("spread", [0.1, 3.0], ids=["flat", "peaked"])
@pytest.mark.parametrize("top_p", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("top_k", [0, 1, 40, 5000])
def test_candidates_are_exact(spread: float, top_p: float, top_k: int) -> None:
    logits, sampling = logits_of(spread), Sampling(top_p=top_p, top_k=top_k)
    tokens, chances = candidates(logits, sampling)
    found = dict(zip(tokens.tolist(), (chances / chances.sum()).tolist(), strict=True))
    assert found == pytest.approx(expected(logits, sampling), rel=1e-4)


def test_a_nucleus_is_no_larger_than_it_must_be() -> None:
    tokens, _ = candidates(torch.zeros(4), Sampling(top_k=4, top_p=0.5))
    assert len(tokens) == 2


class Calls(TorchFunctionMode):
    """Notes which torch functions are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("spread", "limits", "sorts"),
    [
        (3.0, {"top_p": 0.9}, False),
        (0.1, {"top_p": 0.9}, True),
        (0.1, {"top_p": 0.9, "top_k": 40}, False),
        (0.1, {}, False),
    ],
    ids=["peaked", "flat", "top_k", "no limits"],
)
def test_the_vocabulary_is_sorted_only_where_it_must_be(spread: float, limits: dict[str, Any], sorts: bool) -> None:
    assert len(logits_of(spread)) > CANDIDATES
    with Calls() as calls:
        candidates(logits_of(spread), Sampling(**limits))
    assert ("sort" in calls.names) is sorts


def test_a_seed_repeats_and_another_does_not() -> None:
    logits = logits_of(1.0)

    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(seed=seed))
        torch.rand(3)  # other users of the global generator change nothing
        return [sampler.choose(logits) for _ in range(12)]

    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)
    assert draw(-1) == draw(-1)


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    Sampler(Sampling()).choose(LOGITS)
    assert torch.equal(state, torch.get_rng_state())


def test_temperature_zero_takes_the_likeliest_token() -> None:
    assert Sampler(Sampling(temperature=0, top_k=3, top_p=0.1)).choose(LOGITS) == 1
    assert Sampler(Sampling(temperature=0)).choose(LOGITS.bfloat16()) == 1


def test_a_very_small_temperature_is_nearly_greedy() -> None:
    assert {Sampler(Sampling(temperature=1e-300)).choose(LOGITS) for _ in range(20)} == {1}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_error(bad: float, temperature: float) -> None:
    logits = LOGITS.clone()
    logits[3] = bad
    with pytest.raises(UnsupportedModel, match="no valid probabilities"):
        Sampler(Sampling(temperature=temperature)).choose(logits)
    with pytest.raises(UnsupportedModel):
        Sampler(Sampling(temperature=temperature)).choose(torch.full((8,), -math.inf))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": 2.1},
        {"temperature": math.nan},
        {"top_p": -0.1},
        {"top_p": 1.1},
        {"top_k": -1},
        {"max_tokens": 0},
        {"stop": ("a", "")},
        {"seed": 2**64},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        Sampler(Sampling(**wrong))
