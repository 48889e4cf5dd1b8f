"""The form of a model's settings: what it shows, what it makes of what is typed."""

import json
import re
from pathlib import Path

import pytest

from millm.records import ModelRecord, ModelType, Source
from millm.ui.settings_form import read_form, settings_form

RECORD = ModelRecord(
    id=7,
    name="tiny",
    context_length=4096,
    settings={
        "context_length": 512,
        "fast_cpu": False,
        "generation": {"temperature": 0.5, "top_k": 40},
        "system_prompt": "Be <brief>.",
    },
)
SAME = {
    "name": "tiny",
    "context_length": "512",
    "temperature": "0.5",
    "top_k": "40",
    "top_p": "",
    "min_p": "",
    "max_tokens": "",
    "repetition_penalty": "",
    "system_prompt": "Be <brief>.",
    "adapter": "",
}


def values(html: str) -> dict[str, str]:
    return dict(re.findall(r'name="(\w+)" value="([^"]*)"', html))


def fields(html: str) -> set[str]:
    return set(re.findall(r'id="set-(\w+)" name', html))


def test_it_shows_what_is_set() -> None:
    html = settings_form(RECORD, {})
    assert values(html) == {name: value for name, value in SAME.items() if name != "system_prompt"}
    assert ">Be &lt;brief&gt;.</textarea>" in html
    assert "the model&#x27;s own, 4K" in html
    assert "Fill in" not in html
    for name in SAME:
        assert f'label for="set-{name}"' in html
        assert f'id="set-{name}-fault"' in html
        assert f'aria-describedby="set-{name}-hint set-{name}-fault"' in html


def test_only_what_a_type_obeys_is_asked_for() -> None:
    assert fields(settings_form(RECORD.with_(model_type=ModelType.MUSIC), {})) == {"name"}
    embedding = fields(settings_form(RECORD.with_(model_type=ModelType.EMBEDDING), {}))
    assert embedding == {"name", "context_length", "adapter"}
    assert "adapter" not in fields(settings_form(RECORD.with_(source=Source.OLLAMA), {}))
    remote = fields(settings_form(RECORD.with_(source=Source.REMOTE, model_type=ModelType.EMBEDDING), {}))
    assert remote == {"name", "server_key"}
    assert "as the server does it" in settings_form(RECORD.with_(source=Source.REMOTE, settings={}), {})


def test_what_its_makers_advise_can_be_filled_in() -> None:
    html = settings_form(RECORD, {"temperature": 0.6, "top_k": 20, "nonsense": 1, "top_p": 7})
    assert "Its makers advise temperature 0.6, top-k 20." in html
    assert 'data-fill data-temperature="0.6" data-top-k="20">' in html


def test_a_server_key_is_read_apart_from_the_settings() -> None:
    filled = read_form(RECORD.with_(source=Source.REMOTE), {"server_key": " sk-canary "})
    assert (filled.key, filled.changes, filled.reload) == ("sk-canary", {}, False)
    assert "sk-canary" not in repr(filled)
    assert read_form(RECORD, {"server_key": ""}).key is None


def test_an_unchanged_form_changes_nothing() -> None:
    filled = read_form(RECORD, SAME)
    assert (filled.changes, filled.faults, filled.reload) == ({}, {}, False)


def test_changes_keep_what_the_form_does_not_show() -> None:
    filled = read_form(
        RECORD, SAME | {"name": "small", "temperature": "0", "top_k": "", "max_tokens": "99", "system_prompt": " "}
    )
    assert filled.faults == {}
    assert filled.changes == {
        "name": "small",
        "settings": {"context_length": 512, "fast_cpu": False, "generation": {"temperature": 0.0, "max_tokens": 99}},
    }
    assert not filled.reload
    emptied = read_form(RECORD, dict.fromkeys(SAME, "") | {"name": "tiny"})
    assert emptied.changes == {"settings": {"fast_cpu": False}}
    assert emptied.reload


def test_context_and_adapter_want_a_reload(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    filled = read_form(RECORD, {"adapter": str(tmp_path)})
    assert filled.changes["settings"]["adapter"] == str(tmp_path)
    assert filled.reload
    assert read_form(RECORD, {"context_length": "1024"}).reload


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("name", "a b", "A name has 1 to 255 letters"),
        ("name", "", "A name has"),
        ("context_length", "many", "A whole number of tokens"),
        ("context_length", "0", "A whole number of tokens"),
        ("context_length", "9" * 5000, "A whole number of tokens"),
        ("temperature", "2.5", "Temperature is a number from 0 to 2."),
        ("temperature", "nan", "Temperature is a number from 0 to 2."),
        ("temperature", "warm", "Temperature is a number from 0 to 2."),
        ("top_k", "1.5", "Top-k is a whole number, 0 or more."),
        ("max_tokens", "0", "Max tokens is a whole number, 1 or more."),
        ("adapter", "/nowhere", "adapter_config.json"),
    ],
)
def test_what_is_wrong_is_said_of_its_field(name: str, text: str, sentence: str) -> None:
    filled = read_form(RECORD, SAME | {name: text})
    assert list(filled.faults) == [name]
    assert sentence in filled.faults[name]


def test_a_browser_may_send_anything() -> None:
    assert read_form(RECORD, {"status": "loaded", "temperature": {"a": 1}, "name": None}).changes == {}
    (settings,) = read_form(RECORD, {"system_prompt": "\ud800x"}).changes.values()
    assert settings["system_prompt"] == "?x"
