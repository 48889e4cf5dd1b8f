import json
import struct
from pathlib import Path

import pytest
from making import CONFIG, Watcher, content, make_repo, safetensors

from millm.errors import InvalidLocalPath
from millm.records import Source
from millm.sources.base import Origin, Plan
from millm.sources.local import Local

MESSAGE = "Invalid model path: Directory does not exist or does not contain valid model files."


def plan(path: Path | str, code: bool = False) -> Plan:
    return Local().plan(Origin(Source.LOCAL, path=str(path), trust_remote_code=code), None)


def reason(path: Path | str) -> str:
    with pytest.raises(InvalidLocalPath) as caught:
        plan(path)
    assert caught.value.message == MESSAGE
    assert caught.value.details["path"]
    return str(caught.value.details["reason"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_repo(tmp_path / "my-model", config__json=CONFIG, model__safetensors=safetensors(content(2000)))


def test_plans_what_is_there(folder: Path) -> None:
    make_repo(folder, tokenizer__json="{}", notes__txt="mine", model__gguf=b"x")
    found = plan(folder)
    assert [file.path for file in found.files] == ["config.json", "tokenizer.json", "model.safetensors"]
    assert found.total_bytes == sum((folder / file.path).stat().st_size for file in found.files)
    assert (found.path, found.suggested_name, found.config) == (folder, "my-model", CONFIG)
    assert found.param_count == 1000


def test_links_are_resolved(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert plan(tmp_path / "link").path == folder
    assert plan(f"{folder}/../my-model/").path == folder


def test_parameters_of_all_parts_are_counted(tmp_path: Path) -> None:
    folder = make_repo(tmp_path / "parts", config__json=CONFIG)
    for number in (1, 2):
        (folder / f"model-0000{number}-of-00002.safetensors").write_bytes(safetensors(content(2000)))
    assert plan(folder).param_count == 2000


def test_bin_weights_are_taken_where_there_is_nothing_better(tmp_path: Path) -> None:
    found = plan(make_repo(tmp_path / "old", config__json=CONFIG, pytorch_model__bin=b"pickle"))
    assert [file.path for file in found.files] == ["config.json", "pytorch_model.bin"]
    assert found.param_count is None


def test_a_model_with_its_own_code_says_so(folder: Path) -> None:
    make_repo(folder, config__json={**CONFIG, "auto_map": {"AutoModel": "mine.M"}}, mine__py="")
    assert plan(folder).code_files == ("mine.py",)
    assert "mine.py" not in [file.path for file in plan(folder).files]
    assert "mine.py" in [file.path for file in plan(folder, code=True).files]


def test_fetch_copies_nothing(folder: Path, tmp_path: Path) -> None:
    watcher, out = Watcher(), tmp_path / "out"
    out.mkdir()
    Local().fetch(plan(folder), None, out, watcher)
    assert list(out.iterdir()) == []
    assert [event.progress for event in watcher.events] == [100.0]


def test_paths_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to(tmp_path / "round")
    assert reason("my-model") == "not an absolute path"
    assert reason("") == "not an absolute path"
    assert reason("~/my-model") == "not an absolute path"
    assert reason(tmp_path / "missing") == "does not exist"
    assert reason(f"{tmp_path}/nul\0") == "does not exist"
    assert reason(tmp_path / "round") == "does not exist"
    assert reason(folder / "config.json") == "not a directory"


def test_directories_that_are_no_model(folder: Path) -> None:
    def without_config(text: str) -> str:
        (folder / "config.json").write_text(text)
        return reason(folder)

    assert without_config("{") == "config.json is not JSON"
    assert without_config("[" * 100_000) == "config.json is not JSON"
    assert without_config("[]") == "config.json is not a JSON object"
    assert without_config("{}" + 10_000_000 * " ") == "config.json is too large"
    (folder / "config.json").unlink()
    assert reason(folder) == "no config.json"
    make_repo(folder, config__json=CONFIG)
    (folder / "model.safetensors").unlink()
    assert reason(folder) == "no .safetensors or .bin weights"


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"short",
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"no",
        struct.pack("<Q", 13) + json.dumps({"weight": 1}).encode(),
        struct.pack("<Q", 30) + json.dumps({"weight": {"shape": ["a", "b"]}}).encode().ljust(30),
    ],
)
def test_damaged_weights_are_refused(folder: Path, damaged: bytes) -> None:
    (folder / "model.safetensors").write_bytes(damaged)
    assert reason(folder) == "model.safetensors is not a safetensors file"
