"""The form: which fields apply where, and what they ask for."""

from typing import Any

import pytest

from millm.catalog import Entry
from millm.records import ModelType, Source
from millm.sources.base import Origin
from millm.ui.gradio_import import import_gradio

import_gradio()

from millm.ui.download_form import Asked, filled, switch  # noqa: E402

SWITCHED = (
    "repo",
    "path",
    "url",
    "checksum",
    "ollama",
    "quantization",
    "token",
    "trust",
    "revision",
    "model_type",
    "more",
    "token_way",
    "trust_way",
    "server",
    "server_model",
    "server_key",
)
MORE = "revision model_type more"


def asked(source: str, **fields: Any) -> Asked:
    blank = {"repo": "", "path": "", "quantization": "FP16", "token": "", "name": "", "trust": False}
    return Asked(source, **{**blank, **fields})


@pytest.mark.parametrize(
    ("source", "fields", "origin"),
    [
        ("huggingface", {"repo": " acme/tiny ", "revision": " v1 "}, {"repo_id": "acme/tiny", "revision": "v1"}),
        ("huggingface", {"repo": "acme/tiny", "url": "https://x"}, {"repo_id": "acme/tiny"}),
        ("local", {"path": " /m ", "trust": True}, {"path": "/m", "trust_remote_code": True}),
        ("url", {"url": " https://x/m.zip "}, {"url": "https://x/m.zip"}),
        ("url", {"url": "https://x", "checksum": " md5:0f "}, {"url": "https://x", "checksum": "md5:0f"}),
        ("ollama", {"ollama": " llama3:8b ", "trust": True}, {"repo_id": "llama3:8b"}),
    ],
)
def test_only_what_applies_to_the_source_is_asked_for(
    source: str, fields: dict[str, Any], origin: dict[str, Any]
) -> None:
    assert asked(source, **fields).origin == Origin(Source(source), **origin)


def test_ollama_has_language_models_only() -> None:
    assert asked("huggingface", model_type="music").kind is ModelType.MUSIC
    assert asked("ollama", model_type="music").kind is ModelType.LLM


def test_a_servers_key_and_the_hubs_token_are_never_taken_for_each_other() -> None:
    assert asked("remote", server="http://box", token="hf_x", server_key=" k ").secret == "k"
    assert asked("remote", server="http://box", token="hf_x").secret is None
    assert asked("huggingface", repo="a/b", token="hf_x", server_key="k").secret == "hf_x"
    assert asked("huggingface", repo="a/b", server_key="k").secret is None


def test_the_title_is_what_was_typed() -> None:
    assert asked("url", url="https://x/m.zip").title == "https://x/m.zip"
    assert asked("ollama", ollama="llama3:8b").title == "llama3:8b"
    assert asked("url").title == "the model"


@pytest.mark.parametrize(
    ("source", "kind", "token", "trust", "shown", "button"),
    [
        (
            "huggingface",
            "llm",
            "",
            False,
            "repo quantization revision model_type more token_way trust_way",
            "Download",
        ),
        ("huggingface", "llm", "hf_x", True, f"repo quantization token trust {MORE}", "Download"),
        ("huggingface", "music", "", True, f"repo {MORE} token_way", "Download"),
        ("local", "llm", "hf_x", False, "path quantization model_type more trust_way", "Add"),
        ("url", "llm", "", True, "url checksum quantization trust model_type more", "Download"),
        ("ollama", "llm", "hf_x", True, "ollama", "Download"),
        ("remote", "llm", "hf_x", True, "model_type more server server_model server_key", "Add"),
    ],
)
def test_only_fields_that_apply_are_shown(
    source: str, kind: str, token: str, trust: bool, shown: str, button: str
) -> None:
    *fields, pressed = switch(source, kind, token, trust)
    assert [name for name, field in zip(SWITCHED, fields, strict=True) if field.visible] == shown.split()
    assert pressed.value == button


def test_a_suggestion_fills_the_form_and_clears_what_was_there() -> None:
    song = Entry("song", "Song", ModelType.MUSIC, Source.URL, "x", url="https://x/song.safetensors")
    form = filled(song, "FP16", "hf_mine")
    song_origin = Origin(Source.URL, url="https://x/song.safetensors", model_type=ModelType.MUSIC)
    assert (form.origin, form.kind) == (song_origin, ModelType.MUSIC)
    assert (form.token, form.name, form.trust, form.revision) == ("hf_mine", "", False, "")
    ollama = Entry("o", "O", ModelType.LLM, Source.OLLAMA, "x", ollama_name="llama3:8b")
    assert filled(ollama, "FP16", "").origin == Origin(Source.OLLAMA, repo_id="llama3:8b")
