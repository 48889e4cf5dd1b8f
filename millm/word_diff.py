"""Where two texts differ, word by word."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

WORD = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class Span:
    """Words in a row that both texts have, or one of them only. words: how many; text: with the space before each."""

    found_in: Literal["both", "first", "second"]
    text: str
    words: int


def word_diff(first: str, second: str) -> tuple[Span, ...]:
    """The words of both texts in reading order, those of the first before those of the second where they differ.

    What both have is written as in the second; how words are spaced makes no difference. Takes a second for texts
    of some thousand words.
    """
    ours, theirs = WORD.findall(first), WORD.findall(second)
    return tuple(span for span in _spans(ours, theirs) if span.words)


def _spans(ours: list[str], theirs: list[str]) -> Iterator[Span]:
    # autojunk would take the frequent words of a long text for noise
    matcher = SequenceMatcher(None, [*map(str.strip, ours)], [*map(str.strip, theirs)], autojunk=False)
    for kind, our_start, our_end, their_start, their_end in matcher.get_opcodes():
        mine, other = ours[our_start:our_end], theirs[their_start:their_end]
        if kind == "equal":
            yield Span("both", "".join(other), len(other))
        else:
            yield Span("first", "".join(mine), len(mine))
            yield Span("second", "".join(other), len(other))
