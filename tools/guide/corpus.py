"""The text that the guide learns from: dialogues drawn from patterns, without any question that was held out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from .noise import as_typed, reworded
from .patterns import Lists, Section, count, draw, normal, read_lists, read_sections, unfold
from .tasks import TASKS, made_up

FOLDER = Path(__file__).parent
OUTSIDE = ("knowledge", "writing", "arithmetic")
SMALL_TALK = "chat"
BLIND = "blind"
MIX = {"intent": 0.53, "error": 0.02, "outside": 0.13, "task": 0.32}
TASK_MIX = {"json": 0.3, "counting": 0.17, "sums": 0.17, "spelling": 0.16, "repeating": 0.2}
TURNS = (1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4)
HOW_LAST = "{how_last}"  # "load a model, how?" beside "how do I load a model?"
WITH_SYSTEM, FOLLOWED = 0.15, 0.5

Turn = tuple[str, str]
Message = dict[str, str]


@dataclass(frozen=True)
class Intent:
    """What somebody may want to know, how it may be asked, and its one answer. group: the file it stands in."""

    name: str
    group: str
    answer: str
    patterns: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class FollowUp:
    """A question that needs the turn before it: which intents may come before, and which one is meant."""

    before: tuple[str, ...]
    after: str
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class HeldOut:
    """A conversation to examine the model with: the questions, the answers expected, and of which kind it is."""

    kind: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]


class Corpus:
    """Everything that is written for the guide."""

    def __init__(self) -> None:
        self.lists: Lists = read_lists(FOLDER / "words.txt") | read_lists(FOLDER / "outside.txt")
        self.lists["num"] = [str(number) for number in range(2, 21)]
        self.lists["teen"] = [str(number) for number in range(11, 21)]
        self.lists["big"] = [str(number) for number in range(21, 1000)]
        self.intents = {intent.name: intent for intent in self._read_intents()}
        self.outside = {part.title: self._intent(part, "outside") for part in read_sections(FOLDER / "outside.txt")}
        self.follow_ups = [_follow_up(part) for part in read_sections(FOLDER / "follow_ups.txt")]
        self.systems = [line for line in (FOLDER / "systems.txt").read_text("utf-8").splitlines() if line[0] != "#"]
        self._synonyms = _read_synonyms(FOLDER / "synonyms.txt")
        self._errors = [name for name, intent in self.intents.items() if intent.group == "errors"]
        self._topics = [name for name, intent in self.intents.items() if intent.group != "errors"]

    def _read_intents(self) -> Iterator[Intent]:
        for path in sorted((FOLDER / "intents").glob("*.txt")):
            parts = read_sections(path)
            shared = [part for part in parts if part.title == "all"]
            for part in parts:
                if part.title != "all":
                    yield self._intent(part, path.stem, shared)

    def _intent(self, part: Section, group: str, shared: list[Section] | None = None) -> Intent:
        lines = list(part.lines)
        if shared:
            spoken = part.title.lower().replace("_", " ")
            code = f"[{part.title}|{part.title}|{part.title}|{spoken}]"
            lines += [line.replace("{code}", code) for line in shared[0].lines]
        patterns, weights = [], []
        for line in lines:
            ways = unfold(line, self.lists["about"])
            weight = math.sqrt(min(400, sum(count(way, self.lists) for way in ways)))
            ways += [way.removeprefix("{how} ") + HOW_LAST for way in ways if way.startswith("{how} ")]
            patterns += ways
            weights += [weight / len(ways) if HOW_LAST not in way else weight / 6 for way in ways]
        return Intent(part.title, group, part.answer, tuple(patterns), tuple(weights))

    def answer(self, name: str) -> str:
        """The right answer to an intent, or to a kind of question that is not for the guide."""
        return (self.intents.get(name) or self.outside[name]).answer

    def question(self, intent: Intent, rng: Random) -> str:
        """A question of this intent as somebody might type it; never one that was held out."""
        for _ in range(100):
            sentence = draw(rng.choices(intent.patterns, intent.weights)[0], self.lists, rng)
            if intent.group == "outside":
                sentence = _with_a_strange_word(sentence, rng)
            else:
                sentence = reworded(sentence, self._synonyms, rng)
            if intent.group not in (SMALL_TALK, "outside") or rng.random() < 0.2:
                sentence = self._wrapped(sentence, rng)
            typed = as_typed(sentence, rng)
            if normal(typed) not in self.held_sentences:
                return typed
        raise ValueError(f"{intent.name}: every sentence of its patterns is held out")

    def _wrapped(self, sentence: str, rng: Random) -> str:
        """With words before or after it that do not change what is asked."""
        if rng.random() < 0.22:
            sentence = f"{rng.choice(self.lists['before'])} {sentence}"
        if rng.random() < 0.16 and not sentence.endswith((",", ":")):
            word = rng.choice(self.lists["after"])
            sentence += word if word.startswith(",") else f" {word}"
        return sentence

    def _unknown(self, rng: Random) -> Turn:
        """A question about a thing that does not exist."""
        sentence = rng.choice(self.lists["about"]).replace("*", made_up(rng))
        return as_typed(self._wrapped(sentence, rng), rng), self.outside["knowledge"].answer

    def turn(self, rng: Random) -> tuple[str, Turn]:
        """A question with its answer, and the name of what was asked."""
        kind = rng.choices(list(MIX), list(MIX.values()))[0]
        if kind == "task":
            task = TASKS[rng.choices(list(TASK_MIX), list(TASK_MIX.values()))[0]](rng)
            question = task.question
            if rng.random() < 0.8:
                question = question[:1].upper() + question[1:] + rng.choice(("", "", ".", "?"))
            return task.kind, (question, task.answer)
        if kind == "outside":
            name = rng.choices(OUTSIDE, (0.6, 0.32, 0.08))[0]
            if name == "knowledge" and rng.random() < 0.1:
                return name, self._unknown(rng)
            return name, (self.question(self.outside[name], rng), self.outside[name].answer)
        name = rng.choice(self._errors if kind == "error" else self._topics)
        return name, (self.question(self.intents[name], rng), self.intents[name].answer)

    def _next(self, before: str, rng: Random) -> tuple[str, Turn]:
        """A turn that goes on from the one before it, or changes the subject."""
        choices = self._followed.get(before, [])
        if not choices or rng.random() > FOLLOWED:
            return self.turn(rng)
        chosen = rng.choice(choices)
        for _ in range(100):
            typed = as_typed(draw(rng.choice(chosen.patterns), self.lists, rng), rng)
            if normal(typed) not in self.held_sentences:
                return chosen.after, (typed, self.answer(chosen.after))
        raise ValueError(f"{chosen.after}: every second question is held out")

    @cached_property
    def _followed(self) -> dict[str, list[FollowUp]]:
        names = {name for follow_up in self.follow_ups for name in follow_up.before}
        return {name: [one for one in self.follow_ups if name in one.before] for name in names}

    def _first_of_a_follow_up(self, rng: Random) -> tuple[str, Turn]:
        name = rng.choice(rng.choice(self.follow_ups).before)
        return name, (self.question(self.intents[name], rng), self.intents[name].answer)

    def dialogue(self, rng: Random, turns: int | None = None) -> list[Message]:
        """A conversation to learn from, with a system message now and then. turns: questions; None draws."""
        turns = turns or rng.choice(TURNS)
        starts = turns > 1 and rng.random() < 0.6
        name, turn = self._first_of_a_follow_up(rng) if starts else self.turn(rng)
        messages = self._system(rng) + _messages(turn)
        for _ in range(turns - 1):
            name, turn = self._next(name, rng)
            messages += _messages(turn)
        return messages

    def _system(self, rng: Random) -> list[Message]:
        if rng.random() > WITH_SYSTEM:
            return []
        text = rng.choice(self.systems)
        if rng.random() < 0.3:
            text += " " + rng.choice(self.systems)
        return [{"role": "system", "content": text}]

    @cached_property
    def held_out(self) -> list[HeldOut]:
        """The conversations that were kept apart, without the tasks."""
        sections = read_sections(FOLDER / "held_out.txt")
        first = {part.title: part.lines[0] for part in sections}
        items = []
        for part in sections:
            before, _, name = part.title.rpartition(" -> ")
            if before:
                answers = (self.answer(before), self.answer(name))
                items += [HeldOut("two turns", (first[before], line), answers) for line in part.lines]
            elif name == "errors":
                filled = ((code, line.replace("{code}", code)) for code in self._errors for line in part.lines)
                items += [HeldOut("errors", (line,), (self.answer(code),)) for code, line in filled]
            else:
                group = (self.intents.get(name) or self.outside[name]).group
                items += [HeldOut(group, (line,), (self.answer(name),)) for line in part.lines]
        return items + self._blind

    @property
    def _blind(self) -> list[HeldOut]:
        """Questions by somebody who did not know the patterns."""
        parts = read_sections(FOLDER / "blind.txt")
        return [HeldOut(BLIND, (line,), (self.answer(part.title),)) for part in parts for line in part.lines]

    @cached_property
    def held_sentences(self) -> frozenset[str]:
        """The held-out questions in their normal form."""
        return frozenset(normal(question) for item in self.held_out for question in item.questions)


def _with_a_strange_word(sentence: str, rng: Random) -> str:
    """Now and then with a made-up word in it: what the guide has never heard of is outside its domain."""
    words = sentence.split(" ")
    places = [place for place, word in enumerate(words) if len(word) > 3 and word.isalpha() and place > 0]
    if places and rng.random() < 0.2:
        words[rng.choice(places)] = made_up(rng)
    return " ".join(words)


def _read_synonyms(path: Path) -> Lists:
    """For each word the words that may stand for it."""
    lines = [line.split(" | ") for line in path.read_text("utf-8").splitlines() if line[0] != "#"]
    return {word: line for line in lines for word in line}


def _follow_up(part: Section) -> FollowUp:
    before, after = part.title.split(" -> ")
    return FollowUp(tuple(before.split()), after, part.lines)


def _messages(turn: Turn) -> list[Message]:
    question, answer = turn
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
