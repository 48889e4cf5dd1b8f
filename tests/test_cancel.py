"""Cancel in every stage of a download: within a second, and nothing is left."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stages import STAGES, Yard

from millm.records import Status

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with Yard(tmp_path_factory.mktemp("yard")) as yard:
        yield yard


@pytest.mark.parametrize("stage", STAGES)
def test_cancel_ends_within_a_second_and_leaves_nothing(yard: Yard, stage: str) -> None:
    assert any(cancelled(yard, stage) < 1 for _ in range(5)), "it takes 0.5 s at most, unless the machine stalls"


def cancelled(yard: Yard, stage: str) -> float:
    """Cancels in a stage and looks at what is left; returns how many seconds the cancelling took."""
    manager, record = yard.reach(stage)
    began = time.monotonic()
    manager.cancel(record.id)
    took = time.monotonic() - began
    left = [each for each in manager.records() if each.id == record.id]
    staging = [path.name for path in _root(manager).joinpath(".staging").iterdir()]
    yard.settle()
    assert [each.status for each in left] == ([Status.AVAILABLE] if stage == "resolving" else [])
    assert staging == (["huggingface--acme--big--FP16"] if stage == "queued" else []), "of the one that still runs"
    return took


def _root(manager: object) -> Path:
    root: Path = manager._store.root  # type: ignore[attr-defined]
    return root
