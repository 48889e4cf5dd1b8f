"""Where two texts differ."""

import pytest

from millm.word_diff import Span, word_diff


def test_what_was_put_in_taken_out_and_replaced_is_told() -> None:
    assert word_diff("a b c d", "a x c d e") == (
        Span("both", "a", 1),
        Span("first", " b", 1),
        Span("second", " x", 1),
        Span("both", " c d", 2),
        Span("second", " e", 1),
    )


@pytest.mark.parametrize(
    ("first", "second"), [("", ""), ("same words", "same words"), ("only here", ""), ("", "only there"), ("x", "y")]
)
def test_every_word_of_both_texts_is_there_once(first: str, second: str) -> None:
    spans = word_diff(first, second)
    for text, other in ((first, "second"), (second, "first")):
        assert "".join(span.text for span in spans if span.found_in != other) == text
    assert all(span.words == len(span.text.split()) for span in spans)


def test_spaces_make_no_difference() -> None:
    assert {span.found_in for span in word_diff("one two\nthree", "one  two three\n")} == {"both"}


def test_frequent_words_of_long_texts_count_too() -> None:
    long = "the " * 400
    spans = word_diff(f"start {long}", long)
    assert [(span.found_in, span.words) for span in spans] == [("first", 1), ("both", 400)]
