"""What more than one room of the tests needs."""

import gc
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import App, start_app, wait_until_up

# Two files of tests run at the same time: each takes one core, so that neither waits for the threads of the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")


HERE = Path(__file__).parent
# Files of few tests that take long; at the end one of them would run alone.
FIRST = ("ui/", "engines/test_ray.py", "test_way.py", "test_crash.py", "test_token.py")
SLOW_AS_A_WHOLE = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.slow", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The fast part does not even import files of which all is slow: torch alone takes seconds, in each process."""
    if config.getoption("markexpr") != "not slow" or collection_path.suffix != ".py":
        return None
    return bool(SLOW_AS_A_WHOLE.search(collection_path.read_text())) or None


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Fast tests mostly wait for each other; of the others one keeps a core busy."""
    return 3 if config.getoption("markexpr") == "not slow" else 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with what takes longest."""
    items.sort(key=lambda item: not item.path.relative_to(HERE).as_posix().startswith(FIRST))


@pytest.fixture(scope="module", autouse=True)
def _nothing_old_to_collect() -> None:
    """What is there by now stays: engines that are closed collect garbage, which would look at all of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def run_app(tmp_path: Path) -> Iterator[Callable[..., App]]:
    """Starts miLLM processes that are gone when the test is."""
    started: list[App] = []

    def run(*arguments: str, cache: Path | None = None, **options: Any) -> App:
        log_path = tmp_path / f"app{len(started)}.log"
        started.append(start_app(cache or tmp_path / "cache", log_path, *arguments, **options))
        return wait_until_up(started[-1])

    yield run
    for app in started:
        app.process.kill()
        app.process.wait(10)
