"""The sums over requests: bounds, and adding up."""

from math import inf

import pytest

from millm.figures import Figures, Histogram, Outcome


def test_a_bound_counts_what_does_not_exceed_it() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(seconds)
    histogram.observe(0.2, times=3)
    assert list(histogram.cumulated()) == [(0.1, 2), (1.0, 6), (inf, 7)]
    assert histogram.total == pytest.approx(8.25)


def test_figures_add_up_and_what_was_added_stays_as_it_is() -> None:
    first, second = Figures(), Figures()
    for figures, outcome, tokens in ((first, Outcome.OK, 3), (second, Outcome.ERROR, 4)):
        figures.outcomes[outcome] += 1
        figures.prompt_tokens, figures.cached_tokens, figures.generated_tokens = tokens, tokens - 1, 10 * tokens
        for histogram in (figures.first_token, figures.next_token, figures.whole):
            histogram.observe(float(tokens))
    first.add(second)
    assert first.outcomes == {Outcome.OK: 1, Outcome.ERROR: 1}
    assert (first.prompt_tokens, first.cached_tokens, first.generated_tokens) == (7, 5, 70)
    assert [each.total for each in (first.first_token, first.next_token, first.whole)] == [7.0, 7.0, 7.0]
    assert (second.outcomes, second.generated_tokens, second.whole.total) == ({Outcome.ERROR: 1}, 40, 4.0)
