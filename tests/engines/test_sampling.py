"""Tokens are chosen with exactly the chances that the settings mean, whatever other rows are chosen with them."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from millm.engines.base import Sampling
from millm.engines.sampling import CANDIDATES, Choice, Sampler, candidates, choose
from millm.errors import InvalidRequest, UnsupportedModel

pytestmark = pytest.mark.slow

LOGITS = torch.tensor([1.0, 3.0, 0.5, 2.9, -1.0, 2.0, 0.0, -math.inf])
GREEDY = Sampling(temperature=0)


def logits_of(spread: float, count: int = 2000, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) * spread


def chosen(samplers: Sequence[Sampler], logits: torch.Tensor) -> list[Choice]:
    choices = choose(samplers, logits)
    assert len(choices) == len(samplers)
    return [choice for choice in choices if isinstance(choice, Choice)]


def token_of(sampler: Sampler, logits: torch.Tensor) -> int:
    return chosen([sampler], logits[None])[0].token


def found_candidates(logits: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    values, tokens = logits.topk(min(sampling.top_k or CANDIDATES, len(logits)))
    return candidates(sampling, logits, logits.logsumexp(0), values, tokens)


def expected(logits: torch.Tensor, sampling: Sampling) -> dict[int, float]:
    """The chances by definition: temperature, then the k likeliest, then the fewest that hold top_p, then min_p."""
    heights = [math.exp((float(x) - float(logits.max())) / sampling.temperature) for x in logits]
    order = sorted(range(len(heights)), key=lambda token: -heights[token])
    order = order[: sampling.top_k or len(order)]
    total, held, kept = sum(heights[token] for token in order), 0.0, []
    for token in order:
        if kept and held >= sampling.top_p:
            break
        kept.append(token)
        held += heights[token] / total
    kept = [token for token in kept if heights[token] >= sampling.min_p * heights[order[0]]]
    mass = sum(heights[token] for token in kept)
    return {token: heights[token] / mass for token in kept if heights[token]}


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0, "top_p": 0.8},
        {"top_k": 3},
        {"temperature": 1.3, "top_k": 4, "top_p": 0.7},
        {"min_p": 0.3},
        {"temperature": 1.5, "top_k": 5, "top_p": 0.9, "min_p": 0.25},
    ],
    ids=str,
)
def test_drawn_tokens_have_their_chances(limits: dict[str, Any]) -> None:
    sampling, draws = Sampling(**limits, seed=5), 8000
    counts = Counter(choice.token for choice in chosen([Sampler(sampling)] * draws, LOGITS.repeat(draws, 1)))
    chances = expected(LOGITS, sampling)
    assert counts.keys() <= chances.keys()
    for token, chance in chances.items():
        sigma = math.sqrt(draws * chance * (1 - chance))
        assert abs(counts[token] - draws * chance) <= 4.5 * sigma + 1, (token, chance)


@pytest.mark.parametrize("spread", [0.1, 3.0], ids=["flat", "peaked"])
@pytest.mark.parametrize("top_p", [0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 40, 5000])
@pytest.mark.parametrize("min_p", [0.0, 0.02, 0.7, 1.0])
def test_candidates_are_exact(spread: float, top_p: float, top_k: int, min_p: float) -> None:
    logits, sampling = logits_of(spread), Sampling(top_p=top_p, top_k=top_k, min_p=min_p)
    tokens, chances = found_candidates(logits, sampling)
    found = dict(zip(tokens.tolist(), (chances / chances.sum()).tolist(), strict=True))
    assert found == pytest.approx(expected(logits, sampling), rel=1e-4)


def test_min_p_lets_more_tokens_through_than_are_tried_first() -> None:
    sampling = Sampling(min_p=0.7)
    assert len(found_candidates(logits_of(0.1), sampling)[0]) > CANDIDATES
    counts = Counter(
        choice.token for choice in chosen([Sampler(replace(sampling, seed=1))] * 5000, logits_of(0.1).repeat(5000, 1))
    )
    chances = expected(logits_of(0.1), sampling)
    assert counts.keys() <= chances.keys()
    assert len(counts) > CANDIDATES


def test_a_nucleus_is_no_larger_than_it_must_be() -> None:
    tokens, _ = found_candidates(torch.zeros(4), Sampling(top_k=4, top_p=0.5))
    assert len(tokens) == 2


def test_tokens_as_likely_as_the_likeliest_are_above_every_min_p() -> None:
    tokens, _ = found_candidates(torch.zeros(4), Sampling(min_p=1.0))
    assert len(tokens) == 4


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
        (3.0, {"min_p": 0.1}, False),
        (0.1, {"min_p": 0.1}, True),
        (0.1, {"top_p": 0.9, "min_p": 0.95}, False),
        (0.1, {}, False),
    ],
    ids=str,
)
def test_the_vocabulary_is_sorted_only_where_it_must_be(spread: float, limits: dict[str, Any], sorts: bool) -> None:
    assert len(logits_of(spread)) > CANDIDATES
    with Calls() as calls:
        token_of(Sampler(Sampling(**limits)), logits_of(spread))
    assert ("sort" in calls.names) is sorts


def draw(seed: int | None, number: int = 0, count: int = 12) -> list[int]:
    sampler = Sampler(Sampling(seed=seed), number=number)
    torch.rand(3)  # other users of the global generator change nothing
    return [token_of(sampler, logits_of(1.0)) for _ in range(count)]


def test_a_seed_repeats_and_another_does_not() -> None:
    assert draw(7) == draw(7)
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)
    assert draw(-1) == draw(-1)


@pytest.mark.parametrize("seed", [7, -1, 2**64 - 1])
def test_each_of_several_answers_has_its_own_draws(seed: int) -> None:
    answers = [draw(seed, number) for number in range(3)]
    assert answers == [draw(seed, number) for number in range(3)]
    assert answers[0] == draw(seed)
    assert len(set(map(tuple, answers))) == 3


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    token_of(Sampler(Sampling()), LOGITS)
    assert torch.equal(state, torch.get_rng_state())


def test_temperature_zero_takes_the_likeliest_token() -> None:
    assert token_of(Sampler(Sampling(temperature=0, top_k=3, top_p=0.1)), LOGITS) == 1
    assert token_of(Sampler(GREEDY), LOGITS.bfloat16()) == 1


def test_a_very_small_temperature_is_nearly_greedy() -> None:
    assert {token_of(Sampler(Sampling(temperature=1e-300)), LOGITS) for _ in range(20)} == {1}


SAID = (4, 4, 4, 2)
TIMES = torch.tensor([0.0, 0, 1, 0, 3, 0, 0, 0])  # that each token stands in the answer
KNOWN = torch.tensor([0, 1, 1, 0, 1, 1, 0, 0]).bool()  # in the answer or in the prompt
PROMPT = [1, 1, 5, 4]


def adjusted(**settings: Any) -> torch.Tensor:
    """What becomes of the logits in the middle of an answer."""
    sampler, logits = Sampler(Sampling(**settings), PROMPT), LOGITS.clone()
    for token in SAID:
        sampler.said(token)
    sampler.adjust(logits)
    return logits


@pytest.mark.parametrize(("frequency", "presence"), [(0.5, 0.0), (0.0, 0.7), (2.0, 2.0), (-1.5, 0.25), (0.5, -2.0)])
def test_frequency_and_presence_penalties_are_those_of_openai(frequency: float, presence: float) -> None:
    found = adjusted(frequency_penalty=frequency, presence_penalty=presence)
    torch.testing.assert_close(found, LOGITS - TIMES * frequency - (TIMES > 0) * presence)


@pytest.mark.parametrize("penalty", [1.3, 0.5, 10.0])
def test_repetition_penalty_weakens_what_prompt_and_answer_hold(penalty: float) -> None:
    weaker = torch.where(LOGITS > 0, LOGITS / penalty, LOGITS * penalty)
    torch.testing.assert_close(adjusted(repetition_penalty=penalty), torch.where(KNOWN, weaker, LOGITS))


def test_penalties_come_before_the_bias_and_repetition_before_the_others() -> None:
    settings = {"frequency_penalty": 0.5, "presence_penalty": 0.25, "repetition_penalty": 2.0}
    weaker = torch.where(KNOWN, torch.where(LOGITS > 0, LOGITS / 2, LOGITS * 2), LOGITS)
    wanted = weaker - TIMES * 0.5 - (TIMES > 0) * 0.25
    wanted[[2, 6]] += torch.tensor([1.5, -4.0])
    torch.testing.assert_close(adjusted(**settings, logit_bias=((2, 1.5), (6, -4.0))), wanted)


def test_a_penalty_changes_what_is_chosen_next() -> None:
    sampler, said = Sampler(Sampling(temperature=0, presence_penalty=2.0)), []
    for _ in range(3):
        said.append(token_of(sampler, LOGITS))
        sampler.said(said[-1])
    assert said == [1, 3, 5]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 2.0])
def test_a_bias_of_a_hundred_forces_a_token_and_forbids_one(temperature: float) -> None:
    def drawn(bias: tuple[int, float]) -> set[int]:
        sampler = Sampler(Sampling(temperature=temperature, logit_bias=(bias,), seed=1))
        return {choice.token for choice in chosen([sampler] * 500, LOGITS.repeat(500, 1))}

    assert drawn((4, 100)) == {4}
    assert 1 not in drawn((1, -100))
    assert 3 in drawn((1, -100))


@pytest.mark.parametrize("settings", [{}, {"logit_bias": ((4, 2.0),)}, {"repetition_penalty": 1.2}], ids=str)
def test_only_settings_that_need_it_adjust(settings: dict[str, Any]) -> None:
    assert Sampler(Sampling(top_p=0.5, temperature=0.3, **settings)).adjusts is bool(settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("asked", [0, 1, 5])
def test_logprobs_are_those_of_the_model_before_any_setting(asked: int, dtype: torch.dtype) -> None:
    logits = logits_of(2.0, 50).to(dtype)
    settings = {"temperature": 0.4, "top_k": 3, "frequency_penalty": 2.0, "logit_bias": ((11, 100.0),)}
    choice = chosen([Sampler(Sampling(**settings, logprobs=asked))], logits[None])[0]
    chances = logits.float().log_softmax(0)
    order = chances.argsort(descending=True)[:asked].tolist()
    assert choice.token == 11
    assert choice.logprob == pytest.approx(float(chances[11]), abs=1e-5)
    assert [token for token, _ in choice.likeliest] == order
    assert [value for _, value in choice.likeliest] == pytest.approx(chances[order].tolist(), abs=1e-5)


def test_chances_are_told_only_where_they_are_asked_for() -> None:
    asked, unasked = chosen([Sampler(Sampling(temperature=0, logprobs=2)), Sampler(GREEDY)], LOGITS.repeat(2, 1))
    assert len(asked.likeliest) == 2
    assert unasked == Choice(1)


MIXED = (
    GREEDY,
    Sampling(seed=1),
    Sampling(seed=2, temperature=0.3, top_p=0.7),
    Sampling(seed=3, top_k=5, min_p=0.1),
    Sampling(seed=4, top_k=1500, temperature=1.7),
    Sampling(seed=5, min_p=0.6, frequency_penalty=1.0, presence_penalty=0.5),
    Sampling(seed=6, repetition_penalty=1.5, logprobs=3),
    Sampling(temperature=0, logit_bias=((17, 100.0),), logprobs=1),
    Sampling(seed=7, top_p=0.99, temperature=2.0),
)


def test_rows_with_different_settings_do_not_change_each_other() -> None:
    company, alone = ([Sampler(sampling, [3, 4]) for sampling in MIXED] for _ in range(2))
    for step in range(20):
        logits = torch.stack([logits_of(1.5, seed=100 * step + row) for row in range(len(MIXED))])
        together = chosen(company, logits)
        one_by_one = [chosen([sampler], row[None])[0] for sampler, row in zip(alone, logits, strict=True)]
        assert together == one_by_one
        for sampler, choice in zip((*company, *alone), (*together, *one_by_one), strict=True):
            sampler.said(choice.token)


def test_equally_likely_tokens_are_drawn_alike_in_any_company() -> None:
    wide = Sampler(Sampling(top_k=1500))
    for seed in range(100):  # logits in bfloat16 are often the same
        logits, own = logits_of(2.0, seed=seed).bfloat16(), Sampling(seed=seed, top_k=40)
        together = chosen([Sampler(own), wide], logits.repeat(2, 1))[0]
        assert together.token == token_of(Sampler(own), logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_logits_themselves_are_not_changed(dtype: torch.dtype) -> None:
    samplers = [Sampler(sampling, [3, 4]) for sampling in MIXED]
    for sampler in samplers:
        sampler.said(5)
    logits = logits_of(1.0).repeat(len(MIXED), 1).to(dtype)
    before = logits.clone()
    choose(samplers, logits)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("settings", [{"temperature": 0}, {"seed": 1}, {"seed": 1, "presence_penalty": 1.0}], ids=str)
def test_logits_that_are_no_numbers_are_an_error_of_their_row_alone(settings: dict[str, Any], bad: float) -> None:
    logits = LOGITS.repeat(4, 1)
    logits[1, 3] = bad
    logits[2] = -math.inf
    first, spoilt, empty, last = choose([Sampler(Sampling(**settings)) for _ in range(4)], logits)
    assert first == last == Choice(token_of(Sampler(Sampling(**settings)), LOGITS))
    for error in (spoilt, empty):
        assert isinstance(error, UnsupportedModel)
        assert "no valid probabilities" in str(error)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 1.1}, "min_p"),
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"frequency_penalty": math.nan}, "frequency_penalty"),
        ({"presence_penalty": -2.1}, "presence_penalty"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": 10.1}, "repetition_penalty"),
        ({"logit_bias": ((1, 5.0), (2, 101.0))}, "logit_bias"),
        ({"logprobs": 21}, "at most 20 logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"count": 0}, "between 1 and 16 answers"),
        ({"count": 17}, "between 1 and 16 answers"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ("a", "")}, "stop"),
        ({"seed": 2**64}, "seed"),
        ({"top_p": 2.0, "seed": -(2**63) - 1}, "top_p.*; seed"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        Sampler(Sampling(**wrong))


def test_values_at_the_ends_of_their_ranges_are_accepted() -> None:
    for ends in (
        {"temperature": 2, "top_p": 0, "min_p": 1, "frequency_penalty": 2, "presence_penalty": 2, "logprobs": 20},
        {"repetition_penalty": 10, "logit_bias": ((0, 100), (1, -100)), "count": 16, "seed": -(2**63)},
        {"frequency_penalty": -2, "presence_penalty": -2, "logprobs": 0, "count": 1, "seed": 2**64 - 1},
    ):
        logits = logits_of(1.0)
        assert token_of(Sampler(Sampling(**ends)), logits) < len(logits)
