"""Where the node of a replica takes a model's files from."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hub import Hub

from millm import nearby
from millm.errors import ChecksumMismatch, LoadFailed, RepoNotFound
from millm.meta import META
from millm.nearby import folder_here
from millm.quantizing import CannotQuantize
from millm.records import ModelRecord, Quantization, Source

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "repos" / "acme" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    with Hub(tmp_path / "repos") as running:
        yield running


@pytest.fixture
def record(hub: Hub) -> ModelRecord:
    from millm.sources.base import Origin
    from millm.sources.huggingface import HuggingFace

    commit = HuggingFace(hub.url).plan(Origin(Source.HUGGINGFACE, "acme/tiny"), None).commit
    return ModelRecord(id=1, name="tiny", repo_id="acme/tiny", revision=commit)


def here(record: ModelRecord, hub: Hub, tmp_path: Path, shared: Path | None = None) -> Path:
    return folder_here(record, shared or tmp_path / "elsewhere", tmp_path / "node", hub.url, None)


def test_files_that_are_shared_are_read_where_they_are(hub: Hub, record: ModelRecord, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "config.json").write_text("{}")
    meta = {"name": "tiny", "source": "huggingface", "quantization": "FP16", "files": [], "revision": record.revision}
    (shared / META).write_text(json.dumps(meta))
    before = len(hub.requests)
    assert here(record, hub, tmp_path, shared) == shared
    assert len(hub.requests) == before
    (shared / META).write_text(json.dumps({**meta, "revision": "0" * 40}))
    assert here(record, hub, tmp_path, shared) != shared, "the same path holds another model there"


def test_others_are_fetched_once_at_the_pinned_commit(hub: Hub, record: ModelRecord, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:  # replicas that start together on one node
        found = {*pool.map(lambda _: here(record, hub, tmp_path), range(3))}
    (folder,) = found
    assert (folder / "model.safetensors").read_bytes() == b"weights" * 1000
    assert sum(request.target.endswith("model.safetensors") for request in hub.requests if request.kind == "cdn") == 1
    assert sorted(path.suffix for path in folder.parent.iterdir() if path != folder) == [".lock"]
    before = len(hub.requests)
    assert here(record, hub, tmp_path) == folder
    assert len(hub.requests) == before


def test_a_file_that_arrives_damaged_is_not_opened(hub: Hub, record: ModelRecord, tmp_path: Path) -> None:
    hub.fault("cdn", "*.safetensors", corrupt_at=5)
    with pytest.raises(ChecksumMismatch):
        here(record, hub, tmp_path)


def test_a_repository_that_is_gone_is_said(hub: Hub, record: ModelRecord, tmp_path: Path) -> None:
    with pytest.raises(RepoNotFound):
        here(record.with_(repo_id="acme/other"), hub, tmp_path)


@pytest.mark.parametrize("source", [Source.LOCAL, Source.URL])
def test_what_only_one_machine_has_is_refused(source: Source, hub: Hub, record: ModelRecord, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="disk that all nodes share"):
        here(record.with_(source=source), hub, tmp_path)


def test_a_quantized_copy_is_made_there(
    hub: Hub, record: ModelRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def quantize(source: Path, target: Path, form: Quantization, trusted: bool, report: object) -> None:
        asked.append((form, trusted))
        shutil.copy(source / "config.json", target)

    monkeypatch.setattr(nearby, "quantize", quantize)
    folder = here(record.with_(quantization=Quantization.Q4), hub, tmp_path)
    assert asked == [(Quantization.Q4, False)]
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert sorted(path.suffix for path in folder.parent.iterdir() if path != folder) == [".lock"]


def test_a_copy_that_cannot_be_made_is_said(
    hub: Hub, record: ModelRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quantize(*_: object) -> None:
        raise CannotQuantize("the layers are too odd")

    monkeypatch.setattr(nearby, "quantize", quantize)
    with pytest.raises(LoadFailed, match="too odd"):
        here(record.with_(quantization=Quantization.Q4), hub, tmp_path)
