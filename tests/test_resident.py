"""The one model in memory: requests and unloading never cross, whatever the timing."""

import threading
import time

import pytest
from fakes import FakeEngine, FakeOpener
from running import PATIENCE_S

from millm.engines.base import ChatRequest, Completion, EmbedRequest, LoadOptions, Message
from millm.errors import LoadFailed, ModelNotLoaded, QueueFull
from millm.events import Report
from millm.jobs import Job
from millm.records import ModelRecord
from millm.resident import REQUESTS_IN_ALL, Resident

RECORD = ModelRecord(id=1, name="one")
OPTIONS = LoadOptions(folder=None)  # type: ignore[arg-type]


class StrictEngine(FakeEngine):
    """Fails loudly when it is asked after it was closed."""

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        assert not self.closed, "asked after closing"
        answer = super().chat(request, report)
        assert not self.closed, "closed while answering"
        return answer


def test_requests_and_unloading_never_cross() -> None:
    """Chats from four threads against a model that is swapped twenty times: answered or refused, never broken."""
    engines: list[StrictEngine] = []

    def opener(record: ModelRecord, options: LoadOptions, report: Report) -> StrictEngine:
        engines.append(StrictEngine(pause_s=0.001))
        return engines[-1]

    resident, stop = Resident(opener), threading.Event()
    answered, refused, broken = [], [], []

    def ask() -> None:
        while not stop.is_set():
            try:
                answered.append(resident.chat(ChatRequest((Message("user", "a b c"),))).result(30))
            except ModelNotLoaded as error:
                refused.append(error)
            except AssertionError as error:
                broken.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        resident.open(RECORD, OPTIONS, Job())
        time.sleep(0.01)
    resident.empty(Job())
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert broken == []
    assert len(answered) > 20
    assert refused
    assert [engine.closed for engine in engines] == [True] * 20
    assert resident.close(1)


def test_a_failed_open_leaves_no_model_and_the_old_one_closed() -> None:
    opener = FakeOpener(broken={"two"})
    resident = Resident(opener)
    resident.open(RECORD, OPTIONS, Job())
    try:
        resident.open(ModelRecord(id=2, name="two"), OPTIONS, Job())
    except LoadFailed:
        assert resident.current is None
    else:
        raise AssertionError("a broken model was opened")
    assert opener.opened[0].closed
    assert resident.memory_bytes == 0
    resident.close(1)


def test_too_many_requests_are_refused_and_the_others_answered() -> None:
    resident = Resident(FakeOpener(engine_pause_s=0.2))
    resident.open(RECORD, OPTIONS, Job())
    request = ChatRequest((Message("user", "a b"),))
    jobs = [resident.chat(request) for _ in range(REQUESTS_IN_ALL)]
    try:
        resident.chat(request)
    except QueueFull as error:
        assert str(REQUESTS_IN_ALL) in error.message
    else:
        raise AssertionError("the queue has no end")
    assert {job.result(PATIENCE_S).text for job in jobs} == {"a b"}
    resident.close(1)


def test_embeddings_and_answers_share_their_places_and_their_end() -> None:
    opener = FakeOpener(engine_pause_s=0.01)
    resident = Resident(opener)
    resident.open(RECORD, OPTIONS, Job())
    jobs = [resident.embed(EmbedRequest(("one", "three"))) for _ in range(3)]
    jobs.append(resident.chat(ChatRequest((Message("user", "a b"),))))
    assert [job.kind for job in resident.requests] == ["embed", "embed", "embed", "chat"]
    resident.empty(Job())
    assert opener.opened[0].closed
    assert jobs[0].result(0).prompt_tokens == 8, "what runs is finished before the model goes"
    with pytest.raises(ModelNotLoaded):
        resident.embed(EmbedRequest(("one",)))
    resident.close(1)
