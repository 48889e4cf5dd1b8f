"""Patterns that stand for many sentences: `[a|b]` is one of two texts, `{name}` one of a list."""

import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

PART = re.compile(r"\[([^\]]*)\]|\{(\w+)\}")
Lists = dict[str, list[str]]


def normal(text: str) -> str:
    """A sentence without what does not make it another one: capitals, punctuation, spaces."""
    return " ".join(re.findall(r"\w+", text.lower()))


def read_lists(path: Path) -> Lists:
    """The lists of a file: lines of the form `name: a | b`."""
    lines = (line.split(":", 1) for line in _lines(path) if re.match(r"[a-z_ ]+: ", line))
    return {name: [value.strip() for value in values.split(" | ")] for name, values in lines}


def _lines(path: Path) -> list[str]:
    lines = path.read_text("utf-8").splitlines()
    return [line for line in lines if line and not re.match(r"#( |$)", line)]


@dataclass(frozen=True)
class Section:
    """One part of a file: what stands after `##`, the answer (after `>`) and the other lines."""

    title: str
    answer: str
    lines: tuple[str, ...]


def read_sections(path: Path) -> list[Section]:
    """The sections of a file, in its order; what stands before the first one is left out."""
    sections = []
    for part in re.split(r"^## ", "\n".join(_lines(path)), flags=re.MULTILINE)[1:]:
        title, *lines = part.strip("\n").split("\n")
        answer = "\n".join(line[1:].removeprefix(" ") for line in lines if line.startswith(">"))
        sections.append(Section(title.strip(), answer, tuple(line for line in lines if not line.startswith(">"))))
    return sections


def unfold(pattern: str, about: list[str]) -> list[str]:
    """A line as patterns: `@about x | y` becomes all ways to ask what x is."""
    if not pattern.startswith("@about "):
        return [pattern]
    subjects = "[" + "|".join(subject.strip() for subject in pattern.removeprefix("@about ").split(" | ")) + "]"
    return [way.replace("*", subjects) for way in about]


def draw(pattern: str, lists: Lists, rng: Random) -> str:
    """One of the sentences that a pattern stands for."""
    while found := PART.search(pattern):
        choices = lists[found[2]] if found[2] else found[1].split("|")
        pattern = pattern[: found.start()] + rng.choice(choices) + pattern[found.end() :]
    return pattern.strip()


def count(pattern: str, lists: Lists) -> int:
    """How many sentences a pattern stands for, the same one twice if two ways lead to it."""
    total = 1
    for found in PART.finditer(pattern):
        choices = set(lists[found[2]] if found[2] else found[1].split("|"))
        total *= sum(count(choice, lists) for choice in choices)
    return total


def expression(pattern: str, lists: Lists) -> str:
    """A regular expression for the sentences of a pattern, in their normal form."""
    parts, end = [], 0
    for found in PART.finditer(pattern):
        choices = lists[found[2]] if found[2] else found[1].split("|")
        parts.append(_literal(pattern[end : found.start()]))
        parts.append("(?:" + "|".join(sorted({expression(choice, lists) for choice in choices})) + ")")
        end = found.end()
    return "".join([*parts, _literal(pattern[end:])])


def _literal(text: str) -> str:
    return "".join(character if re.match(r"\w", character) else " ?" for character in text.lower())
