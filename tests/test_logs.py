"""The two shapes of the log."""

import json
import logging
from collections.abc import Iterator

import pytest

from millm.logs import set_up_logging


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_gives_one_object_a_line_with_the_traceback_inside(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("INFO", "json")
    logging.getLogger("millm.x").info("two\nlines %s", "ü")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("millm.x").exception("failed")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["message"], first["level"], first["logger"]) == ("two\nlines ü", "INFO", "millm.x")
    assert first["time"].endswith("Z")
    assert "ValueError: broken" in second["traceback"]


def test_console_is_for_people_and_levels_hold(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("WARNING", "console")
    logging.getLogger("millm.x").info("quiet")
    logging.getLogger("millm.x").warning("heard")
    logging.getLogger("httpx2").info("https://cdn.example/?signature=secret")
    err = capsys.readouterr().err
    assert "WARNING millm.x: heard" in err
    assert "quiet" not in err
    assert "signature" not in err
