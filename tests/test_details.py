"""What a model's folder tells beyond its record, however little is there."""

import json
from pathlib import Path

import pytest

from millm import details
from millm.details import Details, FileOnDisk, read_details
from millm.meta import write_meta
from millm.records import ModelRecord


def test_a_finished_folder_tells_files_digests_and_who_made_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    record = ModelRecord(id=1, name="one", cache_path=str(tmp_path), updated_at="2026-01-02T03:04:05Z")
    write_meta(tmp_path, record, {"model.safetensors": "sha256:abc"})
    found = read_details(record)
    assert found.files[1] == FileOnDisk("model.safetensors", 7, "abc")
    assert [(file.path, file.size) for file in found.files] == [("config.json", 2), ("model.safetensors", 7)]
    assert found.made_at == "2026-01-02T03:04:05Z"
    assert "transformers" in found.versions


def test_a_directory_that_nobody_listed_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    found = read_details(ModelRecord(cache_path=str(tmp_path)))
    assert found.files == (FileOnDisk("model.safetensors", 7, None),)
    assert (found.made_at, found.versions) == (None, {})


def test_no_folder_and_a_broken_one_tell_nothing(tmp_path: Path) -> None:
    assert read_details(ModelRecord()) == Details()
    assert read_details(ModelRecord(cache_path=str(tmp_path / "gone"))) == Details()
    (tmp_path / ".millm_meta.json").write_text("[")
    assert read_details(ModelRecord(cache_path=str(tmp_path))).made_at is None


def test_what_its_makers_advise_is_read(tmp_path: Path) -> None:
    def advised(**config: object) -> dict[str, float]:
        (tmp_path / "generation_config.json").write_text(json.dumps(config))
        return read_details(ModelRecord(cache_path=str(tmp_path))).suggested

    assert advised(temperature=0.6, top_k=20, eos_token_id=7, do_sample=True) == {"temperature": 0.6, "top_k": 20}
    assert advised(do_sample=False, temperature=None) == {"temperature": 0}
    assert advised(temperature="warm") == {}


def test_advice_that_cannot_be_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "generation_config.json"
    for text in ("{", "[" * 100_000, '["temperature"]'):
        path.write_text(text)
        assert read_details(ModelRecord(cache_path=str(tmp_path))).suggested == {}
    path.write_text('{"temperature": 1}')
    monkeypatch.setattr(details, "MOST_BYTES", 5)
    assert read_details(ModelRecord(cache_path=str(tmp_path))).suggested == {}
