"""The numbers of an answer, as a line under it and as text that is kept with it."""

import pytest

from millm.ui.answer_stats import draw_stats, line
from millm.ui.answers import Progress

WHOLE = Progress("Yes.", 184, 0.213, 46.24, "stop", prompt_tokens=23)


def test_a_whole_answer_has_all_of_them() -> None:
    assert line(WHOLE) == "46.2 tok/s · 0.21 s to first token · 184 answer tokens · 23 prompt tokens"
    assert "<b>46.2</b> tok/s" in draw_stats(WHOLE)
    assert "<b>23</b> prompt tokens" in draw_stats(WHOLE)


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (Progress("Ye", 2, 0.2, 9, "cancelled"), "stopped"),
        (Progress("Ye", 2, 0.2, 9, "length"), "cut at max tokens"),
        (Progress("", 1, 0.2, 0, "stop"), "the model said nothing"),
    ],
)
def test_how_it_ended_is_one_of_them(progress: Progress, said: str) -> None:
    assert line(progress).endswith(f" · {said}")
    assert said in draw_stats(progress)
    assert "prompt tokens" not in line(progress), "nobody knows them before the end"


def test_before_the_first_token_the_prompt_is_read_and_a_failure_is_a_sentence() -> None:
    assert "Reading the prompt" in draw_stats(Progress())
    assert "stopped" in draw_stats(Progress(ended="cancelled"))
    assert "&lt;b&gt; failed" in draw_stats(Progress(ended="failed", problem="<b> failed"))
