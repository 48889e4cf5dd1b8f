"""The two shapes of the log."""

import json
import logging
from collections.abc import Iterator

import pytest

from millm.logs import REQUEST_ID, set_up_logging


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


@pytest.mark.parametrize("style", ["console", "json"])
def test_what_belongs_to_a_request_carries_its_id(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("INFO", style)
    before = REQUEST_ID.set("r-1")
    logging.getLogger("millm.x").error("inside", exc_info=ValueError("why"))
    REQUEST_ID.reset(before)
    logging.getLogger("millm.x").info("outside")
    inside, *_, outside = capsys.readouterr().err.splitlines()
    assert "r-1" not in outside
    if style == "json":
        assert json.loads(inside)["request_id"] == "r-1"
    else:
        assert inside.endswith("inside [request r-1]")
