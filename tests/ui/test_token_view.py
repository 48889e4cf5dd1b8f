"""An answer's tokens as HTML: tints, what opening one tells, and nothing that runs."""

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from fakes import FakeOpener, make_manager
from running import PATIENCE_S

from millm.events import Chance
from millm.records import Source
from millm.sources.base import Origin
from millm.ui import token_view
from millm.ui.answers import Answers, Controls
from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.answer_stats import draw_stats  # noqa: E402

PLAIN = Controls(system="", temperature=0.7, max_tokens=64, top_p=0.9, top_k=5, seed=None)


def chance(text: str, probability: float, *others: tuple[str, float], raw: bytes | None = None) -> Chance:
    beside = tuple(Chance(word, word.encode(), math.log(each)) for word, each in others)
    return Chance(text, text.encode() if raw is None else raw, math.log(probability), beside)


def buttons(drawn: str) -> list[str]:
    return re.findall(r"<button[^>]*>(.*?)</button>", drawn.split("mi-tokens-text")[1])


def told(drawn: str) -> Any:
    found = re.search(r"data-told='([^']*)'", drawn)
    assert found
    return json.loads(html.unescape(found[1]))


def test_each_token_can_be_opened_and_the_first_is_reached_by_tab() -> None:
    drawn = token_view.draw((chance("The", 0.93), chance(" cat", 0.4), chance("\n", 0.01)), 3)
    assert buttons(drawn) == ["The", "<i>·</i>cat", "<i>↵</i>"]
    assert re.findall(r'<button type="button" class="is-(\d)"( tabindex="-1")?>', drawn) == [
        ("0", ""),
        ("2", ' tabindex="-1"'),
        ("4", ' tabindex="-1"'),
    ]
    assert drawn.count("<br>") == 1


def test_tints_go_by_probability() -> None:
    levels = [token_view.level(math.log(each)) for each in (1, 0.91, 0.5, 0.49, 0.2, 0.1, 0.05, 0.04, 1e-9)]
    assert levels == [0, 0, 1, 2, 2, 3, 3, 4, 4]
    assert token_view.level(-math.inf) == 4


def test_opening_tells_the_others_but_not_the_token_itself_again() -> None:
    drawn = token_view.draw((chance(" a", 0.5, (" a", 0.5), (" the", 0.25)),), 1)
    assert told(drawn) == [[0.5, "·the", 0.25]]


def test_bytes_and_marks_that_cannot_be_seen_are_named() -> None:
    shown = [
        token_view.visible(chance("\ufffd", 0.5, raw=b"\xe2\x96")),
        token_view.visible(chance("\u200b", 0.5)),
        token_view.visible(chance("a\tb  c", 0.5)),
        token_view.visible(chance("", 0.5)),
    ]
    assert shown == ["⟨E2 96⟩", "⟨U+200B⟩", "a⇥b··c", "⟨empty⟩"]


def test_nothing_in_a_token_is_taken_for_html() -> None:
    evil = "<img src=x onerror=alert(1)>'\"${alert(1)}"
    drawn = token_view.draw((chance(evil, 0.5, (evil + "'", 0.2)),), 1)
    assert "<img" not in drawn
    assert told(drawn)[0][1] == evil.replace(" ", "·") + "'"


def test_a_long_answer_is_cut_and_says_so() -> None:
    many = (chance("a", 0.5),) * (token_view.MOST + 10)
    drawn = token_view.draw(many, len(many))
    assert len(buttons(drawn)) == len(told(drawn)) == token_view.MOST
    assert "The first 1,500 of 1510 tokens are shown." in drawn
    assert "are shown" not in token_view.draw(many[:3], 3)


def test_an_answer_without_probabilities_says_how_to_get_them() -> None:
    assert "ask again" in token_view.draw((), 5)
    assert "data-tokens-on" in token_view.draw((), 5)
    assert token_view.draw((), 0) == ""


def test_probabilities_are_asked_for_only_where_the_person_wants_them(tmp_path: Path) -> None:
    manager = make_manager(tmp_path, opener=FakeOpener(engine_pause_s=0.02))
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id="acme/tiny"))
    for order in (lambda: record, lambda: manager.load(record.id)):
        job = manager.job(order().id)
        assert job is None or job.wait(PATIENCE_S)
    answers, said = Answers(manager), [{"role": "user", "content": "a b c d e f g h"}]
    for wanted, count in ((True, 8), (False, 0)):
        controls = replace(PLAIN, chances=wanted)
        *_, last = answers.follow("page", answers.begin("page", said, controls))
        assert len(last.chances) == count
        assert ("mi-tokens-text" in draw_stats(last)) is wanted
    for stopped in answers.follow("page", answers.begin("page", said, replace(PLAIN, chances=True))):
        if stopped.tokens >= 2:
            answers.stop("page")
        elif not stopped.ended:
            assert "mi-tokens" not in draw_stats(stopped)
    assert stopped.ended == "cancelled"
    assert len(stopped.chances) == stopped.tokens
    manager.close(1)
