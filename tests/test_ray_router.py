"""Which replica gets a request, with Ray's own counting and no replica behind it."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray.serve", reason="Ray is not installed")
from ray.serve._private.common import DeploymentHandleSource, DeploymentID

from millm.ray_router import FewestFirst

pytestmark = pytest.mark.slow


class Named(str):
    """The id of a replica."""

    @property
    def unique_id(self) -> str:
        return str(self)


REPLICAS: list[Any] = [SimpleNamespace(replica_id=Named(name), max_ongoing_requests=20) for name in ("one", "two")]


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> FewestFirst:
    made = FewestFirst(DeploymentID(name="model"), DeploymentHandleSource.UNKNOWN, use_replica_queue_len_cache=True)
    monkeypatch.setattr(made, "_update_router_queue_len_gauge", lambda *_: None)  # a metric, of replicas that exist
    return made


def choose(router: FewestFirst, count: int) -> list[str]:
    """The first choices for so many requests that come at once."""

    async def go() -> list[str]:
        return [(await router.choose_replicas(REPLICAS))[0][0].replica_id for _ in range(count)]

    return asyncio.run(go())


def test_requests_that_come_at_once_are_shared_evenly(router: FewestFirst) -> None:
    assert Counter(choose(router, 32)) == {"one": 16, "two": 16}


def test_what_a_replica_says_of_itself_meanwhile_changes_nothing(router: FewestFirst) -> None:
    for replica in choose(router, 8):
        router.on_send_request(replica)
    router.on_new_queue_len_info("one", 1)
    assert Counter(choose(router, 8)) == {"one": 4, "two": 4}


def test_the_one_that_has_fewer_comes_first(router: FewestFirst) -> None:
    for replica in choose(router, 16):
        router.on_send_request(replica)
    for _ in range(6):
        router.decrement_queue_len_cache("two")
    assert choose(router, 6) == ["two"] * 6


def test_full_replicas_are_not_counted_on(router: FewestFirst) -> None:
    for replica in choose(router, 40):
        router.on_send_request(replica)
    choose(router, 1)  # which Ray repeats until one has room
    for replica in ("one", "two"):
        router.decrement_queue_len_cache(replica)
    assert choose(router, 1) == ["one"]


def test_who_wants_to_listen_gets_the_replica_it_names(router: FewestFirst) -> None:
    router.on_send_request("two")
    asked: Any = SimpleNamespace(
        args=["two"], metadata=SimpleNamespace(call_method="listen"), routing_context=SimpleNamespace()
    )
    chosen = asyncio.run(router.choose_replicas(REPLICAS, asked))
    assert [[each.replica_id for each in them] for them in chosen] == [["two"]]
    assert asked.routing_context.should_backoff
    assert asyncio.run(router.choose_replicas(REPLICAS[:1], asked)) == [], "it is gone, and no other will do"


def test_requests_that_were_never_sent_are_forgotten_after_a_lull(
    router: FewestFirst, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose(router, 1) == ["one"]
    monkeypatch.setattr("millm.ray_router.LULL_S", 0.0)
    assert choose(router, 1) == ["one"]
