"""Answers as they are written: asked for, followed, stopped."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import FakeEngine, FakeOpener, make_manager
from running import PATIENCE_S

from millm.engines.base import ChatRequest, Completion, LoadOptions, Message
from millm.errors import InvalidRequest, ModelNotLoaded
from millm.events import Event, Report, Stage
from millm.jobs import Job, Lane
from millm.manager import Manager
from millm.records import ModelRecord, Source
from millm.sources.base import Origin
from millm.ui.answers import Answers, Controls, History, Progress, chat_request

CONTROLS = Controls(system="", temperature=0.7, max_tokens=64, top_p=0.9, top_k=5, seed=None)
LONG = " ".join(f"w{number}" for number in range(60))


def asked(text: str) -> History:
    return [{"role": "user", "content": text}]


def load_tiny(manager: Manager) -> None:
    record = manager.download(Origin(Source.HUGGINGFACE, repo_id="acme/tiny"))
    job = manager.job(record.id)
    assert job is None or job.wait(PATIENCE_S)
    manager.load(record.id)
    loading = manager.job(record.id)
    assert loading is None or loading.wait(PATIENCE_S)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = make_manager(tmp_path, opener=FakeOpener(engine_pause_s=0.02))
    load_tiny(manager)
    yield manager
    manager.close(1)


def test_a_conversation_becomes_a_request() -> None:
    history: History = [
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": " more"}]},
        {"role": "assistant", "content": "hm", "metadata": {"title": "Reasoning"}},
        {"role": "assistant", "content": "two", "metadata": {"title": None}},
        {"role": "user", "content": "three"},
    ]
    request = chat_request(history, Controls(" Be brief. ", 0.5, 256.0, 0.9, 40.0, 7.0))
    assert request.messages == (
        Message("system", "Be brief."),
        Message("user", "one more"),
        Message("assistant", "two"),
        Message("user", "three"),
    )
    assert (request.sampling.max_tokens, request.sampling.top_k, request.sampling.seed) == (256, 40, 7)


def test_without_a_system_prompt_or_seed_none_is_sent() -> None:
    request = chat_request(asked("hello"), CONTROLS)
    assert request.messages == (Message("user", "hello"),)
    assert request.sampling.seed is None


def test_an_emptied_system_prompt_is_sent_where_the_model_brings_one() -> None:
    record = ModelRecord(name="kind", source=Source.HUGGINGFACE, settings={"system_prompt": "Be kind."})
    assert chat_request(asked("hello"), CONTROLS, record).messages[0] == Message("system", "")
    brief = replace(CONTROLS, system="Be brief.")
    assert chat_request(asked("hello"), brief, record).messages[0] == Message("system", "Be brief.")
    assert len(chat_request(asked("hello"), CONTROLS, replace(record, settings={})).messages) == 1


def test_a_model_in_ollama_is_not_asked_for_probabilities() -> None:
    record = ModelRecord(name="gemma", source=Source.OLLAMA)
    wanting = replace(CONTROLS, chances=True)
    assert chat_request(asked("hello"), wanting, record).sampling.logprobs is None
    assert chat_request(asked("hello"), wanting, replace(record, source=Source.LOCAL)).sampling.logprobs is not None


def test_every_control_reaches_the_request() -> None:
    controls = Controls(
        min_p=0.1,
        repetition_penalty=1.2,
        frequency_penalty=0.3,
        presence_penalty=-0.4,
        stops="END\n\n\\nQ:",
        max_tokens=None,
        structured=True,
        schema='{"type": "object"}',
    )
    request = chat_request(asked("hello"), controls)
    sampling = request.sampling
    assert (sampling.min_p, sampling.repetition_penalty) == (0.1, 1.2)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.3, -0.4)
    assert (sampling.stop, sampling.max_tokens) == (("END", "\nQ:"), None)
    assert request.schema == '{"type": "object"}'
    assert request.parsed
    assert chat_request(asked("hello"), replace(controls, structured=False)).schema is None
    assert chat_request(asked("hello"), replace(controls, schema=" ")).schema is None


class Thinker(FakeEngine):
    """Thinks with pauses, then answers; either tells its thoughts apart or leaves the marks in the text."""

    marked = False

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        thought, said = ("<think>", "hm ", "well</think>"), ("\n\nYes", ".")
        reasoning = "" if self.marked else "hm well"
        for count, piece in enumerate((*thought, *said)):
            time.sleep(0.1 if count < 4 else 1.2)
            apart = count < 3 and not self.marked
            bare = piece.replace("<think>", " ").replace("</think>", "")
            part = {"reasoning": bare} if apart else {"text": piece if self.marked else piece.strip()}
            report(Event(Stage.GENERATING, tokens=count + 1, **part))
        text = "".join((*thought, *said)) if self.marked else "Yes."
        return Completion(text, "stop", 3, 5, 0.1, 10.0, reasoning=reasoning)


@pytest.mark.parametrize("marked", [False, True], ids=["told-apart", "marks-in-the-text"])
def test_thoughts_are_told_apart_and_timed(tmp_path: Path, marked: bool) -> None:
    def opener(record: ModelRecord, options: LoadOptions, report: Report) -> Thinker:
        engine = Thinker()
        engine.marked = marked
        return engine

    manager = make_manager(tmp_path, opener=opener)
    load_tiny(manager)
    answers = Answers(manager)
    seen = list(answers.follow("page", answers.begin("page", asked("Well?"), CONTROLS)))
    assert seen[-1].thought == "hm well"
    assert seen[-1].said == "Yes."
    assert 0.2 <= seen[-1].thought_s < 1.2, "from the first thought to the first word of the answer"
    assert not any(progress.said for progress in seen if not progress.thought)
    manager.close(1)


def test_an_answer_grows_and_ends_with_its_numbers(manager: Manager) -> None:
    answers = Answers(manager)
    seen = list(answers.follow("page", answers.begin("page", asked("a b c d e f"), CONTROLS)))
    assert seen[0] == Progress()
    texts = [progress.text for progress in seen]
    assert texts == sorted(texts, key=len)
    assert seen[-1] == Progress("a b c d e f", 6, 0.01, 100.0, "stop", prompt_tokens=6)


def test_updates_come_at_most_25_times_a_second(manager: Manager) -> None:
    answers = Answers(manager)
    began = time.monotonic()
    seen = list(answers.follow("page", answers.begin("page", asked(LONG), CONTROLS)))
    assert len(seen) <= 25 * (time.monotonic() - began) + 3


def test_stopping_keeps_what_is_there(manager: Manager) -> None:
    answers = Answers(manager)
    last = Progress()
    for last in answers.follow("page", answers.begin("page", asked(LONG), CONTROLS)):
        if last.tokens >= 3:
            answers.stop("page")
    assert last.ended == "cancelled"
    assert 3 <= last.tokens < 60
    assert last.text.startswith("w0 w1 w2")


def test_a_page_that_goes_away_cancels_its_answer(manager: Manager) -> None:
    answers = Answers(manager)
    job = answers.begin("page", asked(LONG), CONTROLS)
    following = answers.follow("page", job)
    next(following)
    following.close()
    assert job.wait(PATIENCE_S)
    assert job.cancelling
    answers.begin("page", asked("next"), CONTROLS).cancel()  # the page is free again


def test_one_answer_at_a_time_for_a_page(manager: Manager) -> None:
    answers = Answers(manager)
    first = answers.begin("page", asked(LONG), CONTROLS)
    with pytest.raises(InvalidRequest, match="still being written"):
        answers.begin("page", asked("b"), CONTROLS)
    answers.begin("another page", asked("b"), CONTROLS)
    first.cancel()


def test_asking_twice_at_the_same_moment_gives_one_answer(manager: Manager) -> None:
    answers = Answers(manager)
    begun, refused = [], []

    def ask(job: Job[None]) -> None:
        try:
            begun.append(answers.begin("page", asked(LONG), CONTROLS))
        except InvalidRequest as error:
            refused.append(error)

    lane = Lane("askers", 8)
    for job in [lane.submit(ask) for _ in range(8)]:
        job.result(PATIENCE_S)
    assert (len(begun), len(refused)) == (1, 7)
    texts = [progress.text for progress in answers.follow("page", begun[0])]
    assert texts[-1] == LONG
    assert lane.close(1)


def test_an_answer_without_a_model_says_so(tmp_path: Path) -> None:
    manager = make_manager(tmp_path)
    with pytest.raises(ModelNotLoaded):
        Answers(manager).begin("page", asked("hello"), CONTROLS)
    manager.close(1)


def test_a_failure_is_a_sentence_and_the_part_stays(manager: Manager) -> None:
    answers = Answers(manager)
    job = answers.begin("page", asked(LONG), CONTROLS)
    last = Progress()
    for last in answers.follow("page", job):
        if last.tokens and not last.ended:
            job.fail(RuntimeError("a bug"))
    assert last.ended == "failed"
    assert last.text.startswith("w0")
    assert last.problem.startswith("Something went wrong inside miLLM")
