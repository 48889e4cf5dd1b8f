"""The tree of errors."""

import logging

import pytest

from millm import errors
from millm.errors import Cancelled, InternalError, MiLLMError, ModelNotFound, explain


def leaves(kind: type[MiLLMError]) -> list[type[MiLLMError]]:
    below = kind.__subclasses__()
    return [leaf for sub in below for leaf in leaves(sub)] if below else [kind]


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    text = errors.__doc__ or ""
    for leaf in leaves(MiLLMError):
        assert leaf.__name__ in text
        if leaf.code not in ("STARTUP_ERROR", "INTERNAL_ERROR"):
            line = next(line for line in text.splitlines() if leaf.__name__ in line.split())
            assert line.split()[-1] == leaf.code


def test_codes_are_unique() -> None:
    codes = [leaf.code for leaf in leaves(MiLLMError)]
    assert len(codes) == len(set(codes))


def test_what_was_raised_on_purpose_stays_what_it_is() -> None:
    error = ModelNotFound("no", id=3)
    assert explain(error) is error
    assert error.details == {"id": 3}


def test_a_bug_is_logged_under_the_id_that_people_see(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        shown = explain(KeyError("secret internals"))
    assert isinstance(shown, InternalError)
    assert str(shown.details["id"]) in shown.message
    assert str(shown.details["id"]) in caplog.text
    assert "secret internals" not in shown.message


def test_cancelled_is_not_swallowed_by_a_libraries_except_exception() -> None:
    assert not issubclass(Cancelled, Exception)
