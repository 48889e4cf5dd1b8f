"""The text that millm-guide learns from."""

import json
import re
from pathlib import Path
from random import Random

import pytest

from millm import errors
from millm.settings import OPTIONS
from tools.guide.corpus import OUTSIDE, Corpus
from tools.guide.evaluation import held_out, is_right
from tools.guide.noise import as_typed, reworded
from tools.guide.patterns import count, draw, expression, normal, read_lists, unfold
from tools.guide.tasks import COUNT_LIMIT, SUM_LIMIT, TASKS, held_ranges, json_task, sum_task, values, ways

ROOT = Path(__file__).parent.parent
CAPITALS = re.compile(r"\b[A-Z]{2,}(?:_[A-Z]+)+\b")  # settings and error codes


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus()


def every_error() -> set[str]:
    def below(kind: type[errors.MiLLMError]) -> set[str]:
        return {kind.code}.union(*(below(child) for child in kind.__subclasses__()))

    return below(errors.MiLLMError)


def test_a_pattern_draws_only_what_it_stands_for_and_its_expression_knows_it() -> None:
    lists = {"get": ["get", "fetch it {when}"], "when": ["now", "later"]}
    pattern = "[please|] {get} [a|b c]"
    drawn = {draw(pattern, lists, Random(seed)) for seed in range(200)}
    assert len(drawn) == count(pattern, lists) == 12
    assert all(re.fullmatch(expression(pattern, lists), normal(sentence)) for sentence in drawn)
    assert not re.fullmatch(expression(pattern, lists), normal("please get a b"))


def test_about_becomes_every_way_to_ask_what_a_thing_is() -> None:
    assert unfold("@about Q4 | four bits", ["what is *", "*"]) == ["what is [Q4|four bits]", "[Q4|four bits]"]
    assert unfold("what is Q4", ["*"]) == ["what is Q4"]


def test_no_pattern_makes_a_held_out_question(corpus: Corpus) -> None:
    asked = [(item.answers[-1], normal(item.questions[-1])) for item in corpus.held_out]
    intents = [*corpus.intents.values(), *corpus.outside.values()]
    patterns = {intent.answer: list(intent.patterns) for intent in intents}
    for follow_up in corpus.follow_ups:
        patterns[corpus.answer(follow_up.after)] += follow_up.patterns
    made = {
        answer: re.compile("|".join(f"(?:{expression(pattern, corpus.lists)})" for pattern in known))
        for answer, known in patterns.items()
    }
    assert [question for answer, question in asked if made[answer].fullmatch(question)] == []


def test_no_dialogue_holds_a_held_out_question(corpus: Corpus) -> None:
    rng = Random(0)
    for _ in range(5000):
        for message in corpus.dialogue(rng):
            if message["role"] == "user":
                assert normal(message["content"]) not in corpus.held_sentences


def test_a_held_out_question_that_a_pattern_makes_is_not_used(corpus: Corpus) -> None:
    strict = Corpus()
    known = normal(strict.question(strict.intents["goodbye"], Random(4)))
    strict.__dict__["held_sentences"] = frozenset({known})
    rng = Random(4)
    assert all(normal(strict.question(strict.intents["goodbye"], rng)) != known for _ in range(300))


def test_every_intent_has_many_phrasings_and_three_held_out(corpus: Corpus) -> None:
    asked = [item.answers[-1] for item in corpus.held_out if len(item.questions) == 1]
    assert len(corpus.intents) >= 70
    for intent in corpus.intents.values():
        assert sum(count(pattern, corpus.lists) for pattern in intent.patterns) >= 20, intent.name
        assert asked.count(intent.answer) >= 3, intent.name
    assert all(asked.count(corpus.answer(kind)) >= 3 for kind in OUTSIDE)


def test_no_two_intents_have_the_same_answer(corpus: Corpus) -> None:
    given = [intent.answer for intent in [*corpus.intents.values(), *corpus.outside.values()]]
    assert all(given)
    assert len(set(given)) == len(given)


def test_answers_name_only_errors_and_settings_that_exist(corpus: Corpus) -> None:
    known = every_error() | {variable for _, variable, _, _ in OPTIONS}
    for intent in corpus.intents.values():
        named = set(CAPITALS.findall(intent.answer))
        assert named <= known, intent.name


def test_every_error_with_a_code_is_explained(corpus: Corpus) -> None:
    explained = {name for name, intent in corpus.intents.items() if intent.group == "errors"}
    assert explained == every_error() - {"MILLM_ERROR", "STARTUP_ERROR"}


def test_every_setting_is_named_in_the_answer_about_settings(corpus: Corpus) -> None:
    answer = corpus.answer("settings")
    assert all(variable in answer for _, variable, _, _ in OPTIONS)


def test_code_in_answers_is_whole(corpus: Corpus) -> None:
    for intent in corpus.intents.values():
        assert intent.answer.count("```") in (0, 2), intent.name
    python = corpus.answer("v1_python").removeprefix("```python\n").removesuffix("\n```")
    compile(python, "answer", "exec")
    body = re.search(r"-d '(.*)'", corpus.answer("v1_curl"))
    assert body
    assert json.loads(body[1])["messages"]


def test_tasks_have_right_answers_and_keep_the_held_out_values_apart() -> None:
    rng = Random(1)
    kept = {value for key in ("held name", "held city") for value in values()[key]}
    for _ in range(2000):
        given = json.loads(json_task(rng).answer)
        assert given
        assert not kept & {value for value in given.values() if isinstance(value, str)}
        a, sign, b, _, result = sum_task(rng).answer.split()
        assert int(result) == (int(a) + int(b) if sign == "+" else int(a) - int(b))
        assert 0 <= int(result) <= 2 * SUM_LIMIT
        numbers = [int(number) for number in TASKS["counting"](rng).answer.split(", ")]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert numbers[-1] <= COUNT_LIMIT
        assert (numbers[0], numbers[-1]) not in held_ranges()
        spelling = TASKS["spelling"](rng)
        assert spelling.answer.replace("-", "") in spelling.question
        assert not kept & set(TASKS["repeating"](rng).answer.split())


def test_held_out_tasks_have_only_values_that_were_kept_apart() -> None:
    rng = Random(2)
    kept = {value for key in ("held name", "held city") for value in values()[key]}
    for _ in range(200):
        assert kept & set(json.loads(json_task(rng, held=True).answer).values())
        first, *_, last = (int(number) for number in TASKS["counting"](rng, held=True).answer.split(", "))
        assert (first, last) in held_ranges()


def test_what_is_learned_by_heart_is_asked_in_ways_that_were_kept_apart() -> None:
    rng = Random(3)
    numbers = [*map(str, range(COUNT_LIMIT + 1)), *values()["numbers"]]
    lists = values() | {"a": numbers, "b": numbers}
    for kind, learned in (("spelling", ["spell"]), ("sums", ["sum", "difference"])):
        known = [re.compile(expression(way, lists)) for name in learned for way in ways()[name]]
        for _ in range(200):
            kept, trained = (normal(TASKS[kind](rng, held=held).question) for held in (True, False))
            assert not any(way.fullmatch(kept) for way in known)
            assert any(way.fullmatch(trained) for way in known)


def test_noise_keeps_the_sentence_recognisable() -> None:
    rng = Random(8)
    typed = [as_typed("how do i unload the model", rng) for _ in range(300)]
    assert len(set(typed)) > 30
    assert sum("unload" in text.lower() for text in typed) > 250
    assert any(text.endswith("?") for text in typed)
    assert any(text.islower() for text in typed)


def test_synonyms_replace_words_by_words_of_their_line() -> None:
    same = {"press": ["press", "click"]}
    drawn = {reworded("press Load", same, Random(seed)) for seed in range(200)}
    assert drawn == {"press Load", "click Load"}


def test_judging(corpus: Corpus) -> None:
    items = held_out(corpus)
    asked_for_json = next(item for item in items if item.kind == "json")
    outside = next(item for item in items if item.kind == "outside")
    greeting = next(item for item in items if item.kind == "chat")
    assert is_right(asked_for_json, asked_for_json.answers[0].replace(": ", ":"), corpus)
    assert not is_right(asked_for_json, asked_for_json.answers[0][:-1], corpus)
    assert is_right(outside, corpus.answer("writing"), corpus)
    assert not is_right(outside, corpus.answer("greeting"), corpus)
    assert is_right(greeting, corpus.answer("greeting") + "\n", corpus)
    assert not is_right(greeting, corpus.answer("greeting")[:-2], corpus)


def test_lists_are_read_without_comments() -> None:
    lists = read_lists(ROOT / "tools" / "guide" / "words.txt")
    assert "a model" in lists["model"]
    assert all(value for choices in lists.values() for value in choices)
