"""A comparison as HTML: each side's own state, figures, differences, and nothing that runs."""

from dataclasses import replace

from millm.engines.base import Sampling
from millm.events import Event, Stage
from millm.records import ModelRecord, ModelType, Quantization, Source
from millm.ui.compare_view import draw_run, draw_warning
from millm.views import Contest, Entry, Phase, Run, Side
from millm.word_diff import word_diff


def record(number: int, name: str) -> ModelRecord:
    made = ModelRecord(name=name, model_type=ModelType.LLM, source=Source.LOCAL, quantization=Quantization.Q4)
    return made.with_(id=number)


ONE, TWO, EVIL = record(1, "one"), record(2, "two"), "<script>alert(1)</script>"
GREEDY = Sampling(temperature=0, max_tokens=9, seed=0)
DONE = Side(ONE, GREEDY, Phase.DONE, None, "a b c", "", 3, 0.25, 12.5, "stop", memory_bytes=2_600_000_000, load_s=1.5)


def run(first: Side, second: Side, **more: object) -> Run:
    spans = word_diff(first.text, second.text) if first.phase is second.phase is Phase.DONE else ()
    contest = Contest("Say it", (Entry(1, GREEDY), Entry(2, GREEDY)))
    return replace(Run(contest, (first, second), spans=spans, running=False), **more)


def test_both_sides_show_their_figures_and_the_words_that_differ() -> None:
    drawn = draw_run(run(DONE, replace(DONE, model=TWO, text="a x c", finish_reason="length", load_s=0.0)), True)
    for said in (
        "12.5 tok/s",
        "0.25 s",
        "2.6 GB",
        "1.5 s",
        "3, cut at the limit",
        "temperature 0",
        "seed 0",
        "Done.",
    ):
        assert said in drawn, said
    assert '<del><span class="mi-hidden">only in A: </span>b</del>' in drawn
    assert '<ins><span class="mi-hidden">only in B: </span>x</ins>' in drawn
    assert "67% of the words are in both. 1 only in A, 1 only in B." in drawn
    assert "compare-cancel" not in drawn


def test_equal_answers_are_said_to_be_equal() -> None:
    drawn = draw_run(run(DONE, replace(DONE, model=TWO)), True)
    assert "the same, word for word" in drawn
    assert "<del>" not in drawn


def test_while_it_runs_it_says_where_it_is_and_can_be_cancelled() -> None:
    loading = replace(DONE, phase=Phase.LOADING, event=Event(Stage.LOADING_WEIGHTS, 40), text="", tokens=0)
    drawn = draw_run(run(loading, Side(TWO, GREEDY), running=True), True)
    for said in ("1 of 2: A is getting ready", 'aria-valuenow="40"', "Loading weights", "Waiting", "stop-comparing"):
        assert said in drawn, said
    writing = replace(DONE, model=TWO, phase=Phase.ANSWERING)
    drawn = draw_run(run(DONE, writing, running=True), True)
    assert "2 of 2: B is writing" in drawn
    assert 'id="compare-diff"' not in drawn


def test_an_error_stands_on_its_side_and_the_other_answer_stays() -> None:
    failed = Side(TWO, GREEDY, Phase.FAILED, problem="Out of memory.")
    drawn = draw_run(run(DONE, failed), True)
    assert "Ended with an error." in drawn
    first, second = drawn.split('id="compare-side-b"')
    assert "a b c" in first
    assert "Out of memory." in second


def test_what_comes_back_is_told() -> None:
    back = run(DONE, DONE, running=True, before=TWO, returning=Event(Stage.LOADING_WEIGHTS, 70))
    assert "Loading two again…" in draw_run(back, True)
    assert "Done. two is loaded again." in draw_run(run(DONE, DONE, before=TWO, returned=True), True)
    lost = run(DONE, DONE, before=TWO, problem="'two' was not loaded again.")
    assert "&#x27;two&#x27; was not loaded again." in draw_run(lost, True)


def test_before_the_first_one_it_says_what_it_is_for() -> None:
    assert "Nothing compared yet" in draw_run(None, True)
    assert 'data-tab="download"' in draw_run(None, False)


def test_what_starting_does_to_the_loaded_model_is_said_before() -> None:
    assert "This unloads one while it runs, and loads it again" in draw_warning(ONE, [ONE, TWO])
    assert "one is loaded and stays loaded." in draw_warning(ONE, [ONE, ONE])
    assert "two stays loaded afterwards." in draw_warning(None, [ONE, TWO])
    assert draw_warning(ONE, []) == ""


def test_nothing_in_names_prompts_and_answers_is_taken_for_html() -> None:
    named = record(3, EVIL)
    evil = replace(DONE, model=named, text=EVIL, reasoning=EVIL)
    whole = run(evil, replace(evil, text=f"{EVIL} {EVIL}"), before=named, returned=True, problem=EVIL)
    whole = replace(whole, contest=replace(whole.contest, prompt=EVIL))
    failed = replace(whole, sides=(replace(evil, phase=Phase.FAILED, problem=EVIL), evil))
    for drawn in (draw_run(whole, True), draw_run(failed, True), draw_warning(named, [named, ONE])):
        assert "<script" not in drawn
        assert "&lt;script&gt;" in drawn
