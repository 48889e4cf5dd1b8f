"""Small plots and the sentences that say the same."""

import re

from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.plots import plot  # noqa: E402


def said(value: float) -> str:
    return f"{value:.1f} <b>"


def lines(html: str) -> list[str]:
    return re.findall(r'mi-plot-line" d="([^"]+)"', html)


def test_a_plot_says_in_words_what_it_shows() -> None:
    html = plot("Speed", [(130, 10), (125, 30), (0, 20)], said)
    assert 'aria-label="Speed in the last 3 minutes: 20.0 &lt;b&gt; now, 30.0 &lt;b&gt; at most, 20.0' in html
    assert "<b>20.0 &lt;b&gt;</b>" in html


def test_the_newest_value_is_at_the_right_and_the_highest_below_the_upper_edge() -> None:
    (line,) = lines(plot("Speed", [(10, 0), (5, 50), (0, 25)], said))
    places = [tuple(map(float, place.split())) for place in re.findall(r"[ML]([^ML]+)", line)]
    assert places[-1][0] == 600
    assert places[1] == (590, 100)
    assert 0 < places[2][1] < 10
    assert places[3][1] > 50


def test_where_nothing_was_measured_the_line_is_open() -> None:
    assert len(lines(plot("Speed", [(300, 1), (295, 1), (20, 1), (15, 1)], said))) == 2


def test_nothing_and_nothing_but_zeros_can_be_drawn() -> None:
    assert "not measured yet" in plot("Speed", [], said)
    (line,) = lines(plot("Speed", [(5, 0)], said))
    assert line == "M590 100.0L595 100.0"
