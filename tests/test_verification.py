"""Verifying what is on disk: damage found by name, progress told, nothing changed."""

import json
from pathlib import Path

import pytest
from making import Watcher

from millm import store, verification
from millm.errors import Cancelled, InvalidRequest
from millm.events import Event, Stage
from millm.records import ModelRecord
from millm.verification import VerifyResult, verify_folder

SIZE = 3 * 2**20


@pytest.fixture
def model(tmp_path: Path):
    """A model's folder as the store publishes it: a config, and weights in a folder of their own."""
    with_store = store.Store(tmp_path)
    with_store.open()
    staging = with_store.staging("job")
    (staging / "config.json").write_text("{}")
    (staging / "unet").mkdir()
    (staging / "unet" / "model.safetensors").write_bytes(b"w" * SIZE)
    record = ModelRecord(id=1, name="tiny", repo_id="acme/tiny")
    yield with_store.publish(staging, record, {"config.json": None, "unet/model.safetensors": None})
    with_store.close()


def ignore(event: Event) -> None:
    """A report that nobody reads."""


def test_an_untouched_model_is_intact(model: Path) -> None:
    before = {path: path.stat() for path in model.rglob("*")}
    result = verify_folder(model, ignore)
    assert result == VerifyResult(checked=2)
    assert result.intact
    assert {path: path.stat().st_mtime_ns for path in before} == {p: s.st_mtime_ns for p, s in before.items()}


def test_one_changed_bit_is_damage(model: Path) -> None:
    with (model / "unet" / "model.safetensors").open("r+b") as file:
        file.seek(SIZE - 1)
        file.write(b"v")
    result = verify_folder(model, ignore)
    assert result == VerifyResult(checked=2, damaged=("unet/model.safetensors",))
    assert not result.intact


def test_a_file_of_another_length_is_damaged_and_not_read(model: Path) -> None:
    with (model / "unet" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    seen = Watcher()
    assert verify_folder(model, seen, tick_s=0).damaged == ("unet/model.safetensors",)
    assert len(seen.events) < 6
    assert seen.events[-1].progress == 100.0


def test_missing_and_extra_files_are_named(model: Path) -> None:
    (model / "unet" / "model.safetensors").rename(model / "unet" / "renamed.safetensors")
    (model / "note.txt").symlink_to("nowhere")
    result = verify_folder(model, ignore)
    assert result == VerifyResult(
        checked=1, missing=("unet/model.safetensors",), extra=("note.txt", "unet/renamed.safetensors")
    )
    assert not result.intact
    (model / "unet" / "renamed.safetensors").rename(model / "unet" / "model.safetensors")
    assert verify_folder(model, ignore).intact, "extra files do no harm"


def test_a_file_that_is_no_file_is_missing(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "config.json").mkdir()
    assert verify_folder(model, ignore).missing == ("config.json",)


def test_progress_counts_every_byte_and_never_goes_back(model: Path) -> None:
    seen = Watcher()
    verify_folder(model, seen, tick_s=0)
    done = [event.bytes_done for event in seen.events]
    assert {event.stage for event in seen.events} == {Stage.VERIFYING}
    assert {event.bytes_total for event in seen.events} == {SIZE + 2}
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, SIZE + 2)
    assert len(set(done)) >= 4, "one report for each block"
    assert (seen.events[0].progress, seen.events[-1].progress) == (0.0, 100.0)
    assert verification.TICK_S <= 0.5


def test_reports_are_spread_over_time(model: Path) -> None:
    seen = Watcher()
    verify_folder(model, seen, tick_s=60)
    assert [event.bytes_done for event in seen.events] == [0, SIZE + 2]


def test_a_cancel_ends_it_in_the_middle_of_a_file(model: Path) -> None:
    seen = Watcher(lambda: seen.events[-1].bytes_done > 2**20)
    with pytest.raises(Cancelled):
        verify_folder(model, seen, tick_s=0)
    assert seen.events[-1].bytes_done < SIZE


def test_an_empty_list_is_done_at_once(model: Path) -> None:
    (model / store.META).write_text('{"files": []}')
    seen = Watcher()
    assert verify_folder(model, seen).extra == ("config.json", "unet/model.safetensors")
    assert seen.events[-1].progress == 100.0


def test_a_local_model_has_nothing_to_be_checked_against(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(InvalidRequest, match=r"^A local model has no digests to check against\.$"):
        verify_folder(tmp_path / "link", ignore)
    with pytest.raises(InvalidRequest, match=r"^This model has no digests to check against\.$"):
        verify_folder(tmp_path / "mine", ignore)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": [{}]}', '{"files": [["config.json", 2]]}', "\xff"])
def test_a_damaged_meta_file_is_said_to_be_one(model: Path, content: str) -> None:
    (model / store.META).write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidRequest, match="is damaged. Download the model again"):
        verify_folder(model, ignore)


@pytest.mark.parametrize("path", ["/etc/hostname", "../registry.json", "unet/../../x"])
def test_no_file_outside_the_folder_is_read(model: Path, path: str) -> None:
    (model / store.META).write_text(json.dumps({"files": [{"path": path, "size": 1, "sha256": "0"}]}))
    with pytest.raises(InvalidRequest, match="outside the model's folder"):
        verify_folder(model, ignore)


def test_it_looks_for_the_file_that_the_store_writes() -> None:
    assert verification.META == store.META
