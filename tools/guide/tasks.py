"""The simple tasks: small JSON objects, counting, spelling, sums. Each question has exactly one right answer."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from .patterns import Lists, draw, read_lists, read_sections

FOLDER = Path(__file__).parent
COUNT_LIMIT, SUM_LIMIT = 20, 10
HELD_RANGES = 30

BY_HEART = ("spell", "sum", "difference")

FIELDS = {
    "name": "name", "city": "city", "colour": "colour", "animal": "animal", "fruit": "fruit", "age": "number",
    "count": "number", "price": "number", "year": "year", "size": "number", "id": "number", "port": "year",
    "active": "truth", "ready": "truth", "score": "number", "owner": "name", "place": "city", "first_name": "name",
    "weight": "number", "home": "city", "pet": "animal", "level": "number", "user": "name", "total": "year",
    "open": "truth", "author": "name", "rooms": "number", "town": "city",
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A question, its only right answer, and of which kind it is."""

    kind: str
    question: str
    answer: str


@cache
def values() -> Lists:
    """Names, cities, words and so on; the key `held ...` stands for those kept apart."""
    return read_lists(FOLDER / "names.txt")


@cache
def ways() -> dict[str, tuple[str, ...]]:
    """The patterns of the questions; the key `... held` stands for those kept apart."""
    return {part.title: part.lines for part in read_sections(FOLDER / "tasks.txt")}


@cache
def held_ranges() -> frozenset[tuple[int, int]]:
    """The ranges of numbers, first and last, that are never counted in training."""
    ranges = [(a, b) for a in range(2, COUNT_LIMIT) for b in range(a + 2, COUNT_LIMIT + 1)]
    return frozenset(Random(11).sample(ranges, HELD_RANGES))


@cache
def _pieces() -> tuple[str, ...]:
    """Beginnings and endings of words, of two to four letters."""
    words = [word for name in ("word", "animal", "fruit", "colour") for word in values()[name] if len(word) > 3]
    return tuple(sorted({part for word in words for n in (2, 3, 4) for part in (word[:n], word[-n:])}))


def made_up(rng: Random) -> str:
    """A word that does not exist, or at least is none of those held out."""
    parts = values()["syllables"] if rng.random() < 0.5 else _pieces()
    word = "".join(rng.choice(parts) for _ in range(rng.choice((2, 2, 3))))
    kept = values()["held name"] + values()["held city"]
    return made_up(rng) if word.capitalize() in kept else word


def _value(kind: str, rng: Random, held: bool) -> object:
    if kind == "number":
        return rng.randrange(100) if rng.random() < 0.7 else rng.randrange(1000)
    if kind == "year":
        return rng.randrange(1000, 10000)
    if kind == "truth":
        return rng.random() < 0.5
    if kind in ("name", "city") and held:
        return rng.choice(values()[f"held {kind}"])
    if kind in ("name", "city") and rng.random() < 0.75:
        return made_up(rng).capitalize()
    return rng.choice(values()[kind])


def json_task(rng: Random, held: bool = False) -> Task:
    """An object of one to three fields, to be written as JSON."""
    names = rng.sample(sorted(FIELDS), rng.choice((1, 2, 2, 2, 3)))
    if held and not {FIELDS[name] for name in names} & {"name", "city"}:
        names[0] = "name"
    given = {name: _value(FIELDS[name], rng, held) for name in names}
    form = rng.choice(("{} {}", "{} {}", "{} {}", "{}: {}", "{} = {}", "{} is {}"))
    fields = [form.format(name, json.dumps(value).strip('"')) for name, value in given.items()]
    glue = rng.choice((" and ", " and ", ", "))
    text = ", ".join(fields[:-2] + [glue.join(fields[-2:])])
    return Task("json", _asked("json", {"fields": [text]}, rng, held), json.dumps(given))


def _asked(kind: str, given: Lists, rng: Random, held: bool) -> str:
    """A question of this kind with the given values.

    Of the questions held out, those whose answers are learned by heart all have a phrasing held out, of the others,
    whose values are held out too, two in three.
    """
    unusual = held and (kind in BY_HEART or rng.random() < 0.66)
    patterns = ways()[f"{kind} held" if unusual else kind]
    return draw(rng.choice(patterns), values() | given, rng)


def _number(value: int, rng: Random) -> str:
    return values()["numbers"][value] if value <= COUNT_LIMIT and rng.random() < 0.08 else str(value)


def count_task(rng: Random, held: bool = False) -> Task:
    """The numbers from a to b; b may be 1 to 20."""
    kept = sorted(held_ranges())
    if held:
        kind, (a, b) = "count", rng.choice(kept)
    else:
        kind = rng.choice(("count", "count to"))
        a = 1 if kind == "count to" else rng.randrange(COUNT_LIMIT)
        b = rng.randrange(a + 1, COUNT_LIMIT + 1)
        if (a, b) in kept:
            return count_task(rng)
    given = {"a": [_number(a, rng)], "b": [_number(b, rng)]}
    return Task("counting", _asked(kind, given, rng, held), ", ".join(map(str, range(a, b + 1))))


def sum_task(rng: Random, held: bool = False) -> Task:
    """A sum or a difference of numbers from 0 to 10, learned by heart. In differences the larger one comes first."""
    minus = rng.random() < 0.4
    a, b = rng.randrange(SUM_LIMIT + 1), rng.randrange(SUM_LIMIT + 1)
    if minus:
        a, b = max(a, b), min(a, b)
    given = {"a": [_number(a, rng)], "b": [_number(b, rng)]}
    question = _asked("difference" if minus else "sum", given, rng, held)
    return Task("sums", question, f"{a} - {b} = {a - b}" if minus else f"{a} + {b} = {a + b}")


def spell_task(rng: Random, held: bool = False) -> Task:
    """The letters of a word with hyphens between them, learned by heart."""
    word = rng.choice(values()["word"])
    return Task("spelling", _asked("spell", {"word": [word]}, rng, held), "-".join(word))


def repeat_task(rng: Random, held: bool = False) -> Task:
    """One to four names and numbers, to be said once more."""
    kinds = [rng.choice(("name", "name", "city", "number")) for _ in range(rng.randint(1, 4))]
    text = " ".join(str(_value(kind, rng, held)) for kind in kinds)
    return Task("repeating", _asked("repeat", {"words": [text]}, rng, held), text)


TASKS = {
    "json": json_task,
    "counting": count_task,
    "sums": sum_task,
    "spelling": spell_task,
    "repeating": repeat_task,
}
