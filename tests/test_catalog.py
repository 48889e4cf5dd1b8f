"""Suggested models: complete, sound, and sorted for the machine at hand."""

import json
from pathlib import Path

import pytest

from millm.catalog import Entry, load_catalog, sort_for
from millm.records import ModelType, Quantization, Source
from millm.requirements import PACKAGES

GB = 10**9
HALF = (Quantization.FP16,)
LLM = {
    "id": "one",
    "title": "One",
    "model_type": "llm",
    "source": "huggingface",
    "repo_id": "acme/one",
    "good_for": "x",
}


def entry(name: str, model_type: ModelType = ModelType.LLM, **fields: object) -> Entry:
    return Entry(name, name, model_type, Source.HUGGINGFACE, "tests", repo_id=f"acme/{name}", **fields)  # type: ignore[arg-type]


def test_every_type_has_a_suggestion() -> None:
    entries = load_catalog()
    assert {entry.model_type for entry in entries} == set(ModelType)
    assert sum(entry.model_type is ModelType.LLM for entry in entries) >= 10


def test_what_the_specification_names_is_there() -> None:
    found = {entry.id: entry for entry in load_catalog()}
    assert found["ollama-llama3-8b"].ollama_name == "llama3:8b"
    assert found["musicgen-small"].repo_id == "facebook/musicgen-small"
    assert found["sdxl-base-1.0"].model_type is ModelType.IMAGE_GEN
    assert found["coqui-vits-ljspeech"].model_type is ModelType.TTS
    assert {"animatediff-v1-5-2", "wav2lip-gan"} <= found.keys()


@pytest.mark.parametrize("entry", load_catalog(), ids=lambda entry: entry.id)
def test_an_entry_says_what_a_person_wants_to_know(entry: Entry) -> None:
    assert entry.title
    assert 0 < len(entry.good_for) < 60
    if entry.param_count and entry.source is Source.HUGGINGFACE:
        weights_mb = entry.param_count * 2 / 1e6
        assert 0.98 * weights_mb < (entry.download_mb or 0) < 2.6 * weights_mb
    if entry.model_type is ModelType.LLM:
        assert entry.params
    elif entry.model_type is not ModelType.EMBEDDING:
        assert entry.requires == PACKAGES[entry.model_type]


def test_a_url_leads_to_the_hub_in_use() -> None:
    urls = [entry for entry in load_catalog() if entry.source is Source.URL]
    assert urls
    for found in urls:
        assert (found.url or "").startswith("{hub}/")
        assert (found.address("http://127.0.0.1:9/") or "").startswith("http://127.0.0.1:9/")
        assert "/resolve/main/" in (found.address("https://hub") or "")
    assert entry("one").address("https://hub") is None


def test_the_largest_that_fits_comes_first_and_the_smallest_that_does_not_follows() -> None:
    entries = [
        entry("voice", ModelType.TTS, download_mb=100),
        entry("unknown", ModelType.MUSIC),
        entry("small", param_count=10**9),
        entry("huge", param_count=70 * 10**9),
        entry("medium", param_count=8 * 10**9),
        entry("large", param_count=14 * 10**9),
    ]
    suggestions = sort_for(entries, 20 * GB, 900 * GB, HALF)
    assert [s.entry.id for s in suggestions] == ["medium", "small", "voice", "unknown", "large", "huge"]
    assert [s.fits for s in suggestions] == [True] * 4 + [False] * 2
    assert [s.entry.id for s in sort_for(entries, 0, 900 * GB, HALF) if s.fits] == ["unknown"]


def test_what_fits_is_judged_by_the_form_that_is_recommended() -> None:
    entries = [entry("large", param_count=14 * 10**9), entry("song", ModelType.MUSIC, download_mb=14_000)]
    large, song = sort_for(entries, 15 * GB, 900 * GB, tuple(Quantization))
    assert (large.fits, large.form, large.fitting) == (True, Quantization.Q4, (Quantization.Q4,))
    assert large.memory == 14 * GB * 0.7 * 1.2
    assert (song.fits, song.form, song.memory) == (False, None, 14_000 * 1.2e6)
    assert [s.fits for s in sort_for(entries, 15 * GB, 900 * GB, HALF)] == [False, False]
    assert sort_for(entries[:1], 90 * GB, 900 * GB, tuple(Quantization))[0].fitting == tuple(Quantization)


def test_what_the_disk_cannot_take_does_not_fit() -> None:
    found = sort_for([entry("one", param_count=10**9, download_mb=2000)], 90 * GB, GB, HALF)[0]
    assert (found.fits, found.lacks_disk) == (False, True)


def test_memory_is_two_bytes_a_parameter_and_a_fifth_or_that_of_the_files() -> None:
    assert entry("one", param_count=10**9, download_mb=9_000).memory_bytes() == 2.4 * GB
    assert entry("one", download_mb=1000).memory_bytes() == 1.2 * GB
    assert entry("one").memory_bytes() is None
    ollama = Entry("o", "O", ModelType.LLM, Source.OLLAMA, "x", param_count=8 * 10**9, download_mb=4700)
    assert ollama.memory_bytes() == 5.64 * GB


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([LLM, LLM], "more than one entry is called one"),
        ([{**LLM, "model_type": "poetry"}], "poetry"),
        ([{**LLM, "source": "floppy"}], "floppy"),
        ([{**LLM, "colour": "red"}], "unknown colour"),
        ([{key: value for key, value in LLM.items() if key != "title"}], "title"),
        ([{**LLM, "source": "ollama"}], "source ollama with repo_id"),
        ([{**LLM, "repo_id": None}], "no origin"),
        ([{**LLM, "url": "{hub}/x"}], "with repo_id, url"),
        ([{**LLM, "source": "local"}], "source local"),
    ],
)
def test_a_catalogue_with_a_mistake_is_refused(tmp_path: Path, rows: list[object], message: str) -> None:
    path = tmp_path / "catalog.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=message):
        load_catalog(path)
