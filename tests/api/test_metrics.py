"""/metrics, read as Prometheus reads it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx
import pytest
from asking import Make, chat, holding
from fakes import FakeEngine, FakeOpener
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from running import PATIENCE_S
from serving import load, until
from starlette.types import ASGIApp

from millm import __version__
from millm.api import GuardPolicy, create_app
from millm.api.metrics import own_registry
from millm.devices import Device
from millm.engines.base import ChatRequest, Completion, Message
from millm.errors import QueueFull, UnsupportedModel
from millm.events import Report
from millm.figures import Figures
from millm.manager import Manager
from millm.records import ModelRecord
from millm.resident import REQUESTS_AT_ONCE, REQUESTS_IN_ALL
from millm.views import SystemState

Samples = dict[str, float]
FRESH_S = 0.55  # after which the machine is looked at again
SLOW = ChatRequest((Message("user", "word " * 1000),))


class Counting(FakeEngine):
    """Says how many tokens of a prompt it knew; fails where it is asked to."""

    def chat(self, request: ChatRequest, report: Report) -> Completion:
        if request.messages[-1].content == "fail":
            raise UnsupportedModel("The model computes no valid probabilities.")
        return replace(super().chat(request, report), cached_tokens=2)


class Silent(FakeEngine):
    """Does not say how many answers it makes."""

    def rows(self) -> None:  # type: ignore[override]
        return None


def samples(text: str) -> Samples:
    """Every sample by its name and labels; the text must be well-formed."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found
            found[key] = sample.value
    return found


def scrape(client: TestClient) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return samples(answer.text)


@pytest.fixture
def counted(make: Make) -> tuple[Manager, TestClient]:
    return holding(make, Counting())


def test_without_a_model_everything_is_there_and_zero(client: TestClient) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = samples(answer.text)
    for outcome in ("ok", "error", "cancelled", "refused"):
        assert found[f"millm_requests_total{{outcome={outcome}}}"] == 0
    for name in (
        *("millm_requests_running", "millm_requests_waiting", "millm_batch_width", "millm_rows_waiting"),
        *("millm_prompt_tokens_total", "millm_prompt_tokens_reused_total", "millm_generated_tokens_total"),
        *("millm_time_to_first_token_seconds_count", "millm_inter_token_latency_seconds_count"),
        *("millm_request_duration_seconds_count", "millm_model_memory_bytes"),
    ):
        assert found[name] == 0, name
    assert found[f"millm_build_info{{version={__version__}}}"] == 1
    assert not [name for name in found if name.startswith("millm_model_info")]
    assert found["millm_process_memory_bytes"] > 10_000_000
    assert found["millm_device_memory_free_bytes{device=0,kind=cpu,name=RAM}"] == 8 << 30
    assert found["millm_device_memory_bytes{device=0,kind=cpu,name=RAM}"] == 16 << 30


def test_what_was_answered_is_counted(counted: tuple[Manager, TestClient]) -> None:
    _, client = counted
    assert chat(client).status_code == 200
    assert chat(client, stream=True).status_code == 200
    assert chat(client, messages=[{"role": "user", "content": "fail"}]).status_code == 422
    found = scrape(client)
    assert found["millm_requests_total{outcome=ok}"] == 2
    assert found["millm_requests_total{outcome=error}"] == 1
    assert found["millm_prompt_tokens_total"] == 6
    assert found["millm_prompt_tokens_reused_total"] == 4
    assert found["millm_generated_tokens_total"] == 6
    assert found["millm_time_to_first_token_seconds_count"] == 2
    assert found["millm_inter_token_latency_seconds_count"] == 4
    assert found["millm_request_duration_seconds_count"] == 3
    for name in ("time_to_first_token", "inter_token_latency", "request_duration"):
        assert found[f"millm_{name}_seconds_bucket{{le=+Inf}}"] == found[f"millm_{name}_seconds_count"]
        assert 0 < found[f"millm_{name}_seconds_sum"] < 60
    assert "millm_model_info{name=tiny,quantization=FP16,source=huggingface}" in found


def test_several_answers_to_a_prompt_read_it_once(counted: tuple[Manager, TestClient]) -> None:
    _, client = counted
    usage = chat(client, n=3).json()["usage"]
    found = scrape(client)
    assert found["millm_prompt_tokens_total"] == usage["prompt_tokens"] == 3
    assert found["millm_generated_tokens_total"] == usage["completion_tokens"] == 9
    assert found["millm_requests_total{outcome=ok}"] == 1


def test_what_is_going_on_is_told_and_then_counted_as_cancelled_or_refused(make: Make) -> None:
    manager, client = holding(make, FakeEngine(pause_s=0.01))
    jobs = [manager.chat(SLOW) for _ in range(REQUESTS_IN_ALL)]
    with pytest.raises(QueueFull):
        manager.chat(SLOW)
    until(lambda: manager.figures().generated_tokens > 2 * REQUESTS_AT_ONCE)
    time.sleep(FRESH_S)
    found = scrape(client)
    assert found["millm_requests_running"] == found["millm_batch_width"] == REQUESTS_AT_ONCE
    assert found["millm_requests_waiting"] == REQUESTS_IN_ALL - REQUESTS_AT_ONCE
    assert found["millm_model_memory_bytes"] == 1_000_000
    assert found["millm_generated_tokens_total"] > 2 * REQUESTS_AT_ONCE  # of answers that still run
    assert found["millm_requests_total{outcome=refused}"] == 1
    assert found["millm_requests_total{outcome=cancelled}"] == 0
    system = client.get("/api/system").json()["data"]
    assert system["requests_running"] == system["batch_width"] == REQUESTS_AT_ONCE
    assert system["tokens_per_s"] > 0
    for job in jobs:
        job.cancel()
    for job in jobs:
        assert job.wait(PATIENCE_S)
    time.sleep(FRESH_S)
    found = scrape(client)
    assert found["millm_requests_total{outcome=cancelled}"] == REQUESTS_IN_ALL
    assert found["millm_requests_running"] == found["millm_requests_waiting"] == found["millm_batch_width"] == 0
    assert client.get("/api/system").json()["data"]["tokens_per_s"] == 0


def test_an_engine_that_does_not_know_its_batch_tells_no_figure(make: Make) -> None:
    _, client = holding(make, Silent())
    found = scrape(client)
    assert "millm_batch_width" not in found
    assert "millm_rows_waiting" not in found
    assert client.get("/api/system").json()["data"]["batch_width"] is None


class Strange:
    """A machine whose names hold whatever text formats are made of."""

    name = 'a"b\\c\nd{e="f"} ü 1'

    def system(self) -> SystemState:
        devices = (Device("cuda", self.name, 2, 1), Device("cuda", self.name, 4, 3))
        model = ModelRecord(name=self.name)
        return SystemState("1", devices, 5, model, 0, 0, 0.0, (), 6, (), batch_width=2, rows_waiting=3)

    def figures(self) -> Figures:
        return Figures()


def test_names_of_strangers_are_labels_and_nothing_else() -> None:
    text = generate_latest(own_registry(Strange())).decode()
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    (model,) = families["millm_model_info"]
    assert model.labels["name"] == Strange.name
    free = families["millm_device_memory_free_bytes"]
    assert [(sample.labels["device"], sample.labels["name"], sample.value) for sample in free] == [
        ("0", Strange.name, 1),
        ("1", Strange.name, 3),
    ]
    assert samples(text)["millm_rows_waiting"] == 3


def test_the_key_covers_it(manager: Manager) -> None:
    client = TestClient(create_app(manager, GuardPolicy(api_key="k")), base_url="http://localhost")
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"authorization": "Bearer k"}).status_code == 200


def test_two_apps_in_one_process_share_nothing(make: Make) -> None:
    (_, busy), (_, idle) = holding(make, FakeEngine()), holding(make, FakeEngine())
    chat(busy)
    assert scrape(busy)["millm_requests_total{outcome=ok}"] == 1
    assert scrape(idle)["millm_requests_total{outcome=ok}"] == 0
    assert b"millm" not in generate_latest(REGISTRY)


@pytest.fixture
def real(make: Make, serve: Callable[[ASGIApp], str]) -> Iterator[tuple[Manager, httpx.Client]]:
    manager = make(opener=FakeOpener(engine_pause_s=0.002))
    load(manager)
    with httpx.Client(base_url=serve(create_app(manager, GuardPolicy()))) as client:
        yield manager, client


def test_over_real_http_while_others_are_answered(real: tuple[Manager, httpx.Client]) -> None:
    manager, client = real
    job = manager.chat(ChatRequest((Message("user", "word " * 200),)))
    answers = [client.get("/metrics") for _ in range(20)]
    assert job.result(PATIENCE_S).completion_tokens == 200
    counts = [samples(answer.text)["millm_generated_tokens_total"] for answer in answers]
    assert counts[0] < counts[-1]
    assert counts == sorted(counts)  # a counter never goes back
    assert samples(client.get("/metrics").text)["millm_generated_tokens_total"] == 200
