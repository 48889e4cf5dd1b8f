"""What is wrong with a JSON schema, said under its field."""

import pytest

from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.schema_field import PLACEHOLDER, draw, problem  # noqa: E402


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"type": "object",}', "line 1, column 19"),
        ("[1]", "begins with {"),
        ('{"type": "text"}', '"text" is no type'),
        ('{"properties": {"age": {"items": {"type": ["string", 3]}}}}', "3 is no type"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_a_bad_schema_is_a_sentence(text: str, sentence: str) -> None:
    assert sentence in problem(text)
    assert "mi-note" in draw(text)


def test_what_is_typed_is_escaped() -> None:
    assert "<img" not in draw('{"type": "<img src=x>"}')


@pytest.mark.parametrize("text", ["", "  ", "{}", PLACEHOLDER, '{"type": ["object", "null"]}', '{"properties": 3}'])
def test_a_good_one_or_none_is_silent(text: str) -> None:
    assert problem(text) == ""
    assert draw(text, structured=False) == ""


def test_a_switch_without_a_schema_says_what_is_missing() -> None:
    assert "Write a schema" in draw("", structured=True)
