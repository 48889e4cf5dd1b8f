"""Measuring a quantization: what it is compared with, what is kept, and what is refused."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import make_manager
from running import PATIENCE_S
from test_conversion import FakeQuantizer

from millm.comparison import measure
from millm.errors import InsufficientMemory, InvalidRequest, LoadFailed
from millm.events import Event, Report, Stage
from millm.manager import Manager
from millm.records import ModelRecord, Quantization, Source, Status
from millm.sources.base import Origin

ONE = Origin(Source.HUGGINGFACE, repo_id="acme/one")
READING = {"perplexity": 9.5, "tokens_per_s": 20.0, "memory_bytes": 1000}


class FakeMeasure:
    """Says the same of every model; `asked` is what it was given."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.fail_with: Exception | None = None

    def __call__(self, reference: str, model: str, text: str | None, trusted: bool, report: Report) -> dict[str, Any]:
        self.asked.append((Path(reference).name, Path(model).name, text, trusted))
        report(Event(Stage.MEASURING, 50))
        if self.fail_with:
            raise self.fail_with
        return {
            "tokens": 512,
            "reference": dict(READING),
            "model": dict(READING),
            "kl_divergence": 0.01,
            "top1_agreement": 0.9,
        }


@pytest.fixture
def fake() -> FakeMeasure:
    return FakeMeasure()


@pytest.fixture
def manager(tmp_path: Path, fake: FakeMeasure) -> Iterator[Manager]:
    manager = make_manager(tmp_path, quantizer=FakeQuantizer(), measure=fake)
    yield manager
    assert manager.close()


def wait(manager: Manager, record: ModelRecord) -> ModelRecord:
    job = manager.job(record.id)
    if job:
        job.wait(PATIENCE_S)
    return manager.record(record.id)


def get(manager: Manager, form: Quantization, repo: str = "acme/one") -> ModelRecord:
    return wait(manager, manager.download(Origin(Source.HUGGINGFACE, repo_id=repo), quantization=form))


def test_the_most_precise_other_form_is_the_reference(manager: Manager, fake: FakeMeasure) -> None:
    q4, _, half = (get(manager, form) for form in Quantization)
    measured = wait(manager, manager.compare(q4.id)).quality
    assert measured
    assert fake.asked == [("acme--one--FP16", "acme--one--Q4", None, False)]
    assert (measured["reference"]["id"], measured["reference"]["quantization"]) == (half.id, "FP16")
    assert (measured["text"], measured["top1_agreement"], measured["model"]) == ("built-in", 0.9, READING)
    assert wait(manager, manager.compare(q4.id, text="Hello")).quality["text"] == "given"


def test_another_model_can_be_named(manager: Manager, fake: FakeMeasure) -> None:
    q4, other = get(manager, Quantization.Q4), get(manager, Quantization.Q8, "acme/two")
    wait(manager, manager.compare(q4.id, other.id))
    assert fake.asked[0][:2] == ("acme--two--Q8", "acme--one--Q4")


def test_what_cannot_be_compared_is_refused(manager: Manager, fake: FakeMeasure) -> None:
    q4 = get(manager, Quantization.Q4)
    absent = manager.download(Origin(Source.HUGGINGFACE, repo_id="acme/two"), start=False)
    with pytest.raises(InvalidRequest, match="Download it in FP16 too"):
        manager.compare(q4.id)
    with pytest.raises(InvalidRequest, match="with itself"):
        manager.compare(q4.id, q4.id)
    with pytest.raises(InvalidRequest, match="no language model on disk"):
        manager.compare(q4.id, absent.id)
    assert fake.asked == []


def test_a_comparison_that_fails_keeps_the_one_before(manager: Manager, fake: FakeMeasure) -> None:
    q4, _ = get(manager, Quantization.Q4), get(manager, Quantization.FP16)
    before = wait(manager, manager.compare(q4.id)).quality
    fake.fail_with = LoadFailed("no")
    after = wait(manager, manager.compare(q4.id))
    assert (after.status, after.quality, after.error_code) == (Status.READY, before, None)


SCRIPT = """
import json, sys
asked = json.loads(sys.stdin.readline())
print(json.dumps({"stage": "measuring", "progress": 50.0}), flush=True)
print(json.dumps({"full": {"error": "x", "memory": True}, "bad": {"error": "no tokens"}}.get(
    asked["text"], {"done": asked})), flush=True)
"""


def test_the_process_that_measures_is_told_what_and_its_errors_are_told() -> None:
    heard: list[Event] = []

    def ask(text: str | None) -> dict[str, Any]:
        return measure("/a", "/b", text, True, heard.append, (sys.executable, "-c", SCRIPT))

    assert ask(None) == {"reference": "/a", "model": "/b", "text": None, "trusted": True}
    assert heard[-1] == Event(Stage.MEASURING, 50)
    with pytest.raises(LoadFailed, match="no tokens"):
        ask("bad")
    with pytest.raises(InsufficientMemory):
        ask("full")
