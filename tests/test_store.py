"""The cache directory: final names only for finished folders, nothing left over, nothing touched that is not ours."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from millm.errors import Cancelled, InsufficientDisk, StartupError
from millm.meta import JOURNAL, META, folder_bytes, folder_name, write_meta
from millm.records import ModelRecord, Quantization, Source, Status
from millm.store import Store

RECORD = ModelRecord(id=3, name="tiny", repo_id="acme/tiny", revision="c0ffee", param_count=2_500_000_000)


@pytest.fixture
def store(tmp_path: Path):
    store = Store(tmp_path / "cache")
    store.open()
    yield store
    store.close()


def fill(folder: Path) -> dict[str, str | None]:
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"], "hidden_size": 64}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return {"config.json": "git-sha1:0", "model.safetensors": f"sha256:{hashlib.sha256(b'weights').hexdigest()}"}


def publish(store: Store, record: ModelRecord = RECORD) -> ModelRecord:
    folder = store.staging("job")
    path = store.publish(folder, record, fill(folder))
    return record.with_(cache_path=str(path))


def test_a_finished_folder_gets_its_final_name_and_a_meta_file(store: Store) -> None:
    record = publish(store)
    path = store.root / "huggingface" / "acme--tiny--FP16"
    assert record.cache_path == str(path)
    meta = json.loads((path / META).read_text())
    assert (meta["model_id"], meta["repo_id"], meta["revision"]) == (3, "acme/tiny", "c0ffee")
    assert meta["original_size_bytes"] == (path / "config.json").stat().st_size + 7
    for file in meta["files"]:
        assert file["sha256"] == hashlib.sha256((path / file["path"]).read_bytes()).hexdigest()
    assert list((store.root / ".staging").iterdir()) == []


def test_staging_keeps_what_is_unfinished_until_it_is_dropped(store: Store) -> None:
    (store.staging("one") / "part").write_bytes(b"half")
    assert (store.staging("one") / "part").read_bytes() == b"half"
    assert store.staging_bytes() == 4
    store.drop_staging("one")
    store.drop_staging("one")
    assert store.staging_bytes() == 0
    assert not (store.root / "huggingface").exists()


def test_the_sweep_keeps_what_somebody_goes_on_with(store: Store) -> None:
    for name in ("kept", "orphan"):
        (store.staging(name) / "model.safetensors").write_bytes(b"half")
    store.sweep({"kept"})
    assert [path.name for path in (store.root / ".staging").iterdir()] == ["kept"]


def test_files_that_others_link_to_free_nothing(store: Store, tmp_path: Path) -> None:
    record = publish(store)
    before = store.usage(record)
    (tmp_path / "blob").hardlink_to(Path(str(record.cache_path)) / "model.safetensors")
    assert store.usage(record) == before - 7


def test_a_record_is_held_while_its_folder_is_there(store: Store, tmp_path: Path) -> None:
    record = publish(store)
    assert store.holds(record)
    assert not store.holds(RECORD)
    store.delete(record)
    assert not store.holds(record)


def test_one_process_at_a_time(store: Store) -> None:
    script = (
        "import sys; from pathlib import Path; from millm.store import Store; from millm.errors import StartupError\n"
        "try: Store(Path(sys.argv[1])).open()\n"
        "except StartupError as error: print(error.message)"
    )
    other = subprocess.run(
        [sys.executable, "-c", script, str(store.root)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert other.stdout == f"Another miLLM is using the cache directory {store.root}.\n"


def test_a_place_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="Cannot write to the cache directory"):
        Store(tmp_path / "file" / "cache").open()


def test_publishing_over_an_unregistered_folder_replaces_it_whole(store: Store) -> None:
    stale = store.root / "huggingface" / "acme--tiny--FP16" / "stale.bin"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    publish(store)
    assert not stale.exists()
    assert (stale.parent / META).exists()


def test_deleting_frees_what_usage_said(store: Store) -> None:
    record = publish(store)
    assert store.usage(record) == folder_bytes(Path(str(record.cache_path))) > 0
    store.delete(record)
    assert not Path(str(record.cache_path)).exists()
    assert list((store.root / ".staging").iterdir()) == []
    store.delete(record)


@pytest.mark.parametrize("path", ["/etc", "{root}", "{root}/local/x", "{root}/huggingface/../../x"])
def test_only_paths_this_store_gave_out_are_deleted(store: Store, path: str) -> None:
    with pytest.raises(ValueError, match="is not in"):
        store.delete(RECORD.with_(cache_path=path.format(root=store.root)))


def test_a_local_model_is_linked_and_its_files_survive_deletion(store: Store, tmp_path: Path) -> None:
    there = tmp_path / "mine"
    there.mkdir()
    fill(there)
    record = ModelRecord(name="mine", source=Source.LOCAL, local_path=str(there))
    link = store.link(record)
    assert link.is_symlink()
    assert link.resolve() == there
    record = record.with_(cache_path=str(link))
    assert store.usage(record) == 0
    store.delete(record)
    assert not link.exists()
    assert (there / "model.safetensors").read_bytes() == b"weights"


def test_every_finished_model_can_be_read_back_from_disk(store: Store, tmp_path: Path) -> None:
    publish(store)
    there = tmp_path / "mine"
    there.mkdir()
    fill(there)
    store.link(ModelRecord(name="mine", source=Source.LOCAL, local_path=str(there)))
    broken = store.root / "huggingface" / "broken--FP16"
    broken.mkdir()
    (broken / META).write_text("{")
    hub, local = store.published()
    assert (hub.name, hub.repo_id, hub.params, hub.status) == ("tiny", "acme/tiny", "2.5B", Status.READY)
    assert (hub.architecture, hub.hidden_size) == ("LlamaForCausalLM", 64)
    assert (local.source, local.local_path, local.quantization) == (Source.LOCAL, str(there), Quantization.FP16)


def test_too_little_disk_is_said_in_gigabytes_before_anything_is_written(store: Store) -> None:
    store.check_space(1)
    with pytest.raises(
        InsufficientDisk, match=r"^Insufficient disk space. Need \d+\.\d GB, only \d+\.\d GB available\.$"
    ):
        store.check_space(10**18)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "acme--tiny--FP16"),
        ({"quantization": Quantization.Q4}, "acme--tiny--Q4"),
        ({"requested_revision": "v1"}, "acme--tiny--v1--FP16"),
        ({"requested_revision": "feature/../x"}, "acme--tiny--feature_.._x--FP16--14d6aafb"),
        ({"repo_id": None}, "tiny--FP16"),
    ],
)
def test_folder_names(fields: dict[str, object], name: str) -> None:
    assert folder_name(RECORD.with_(**fields)) == name


def test_models_with_names_that_run_together_have_folders_of_their_own(store: Store) -> None:
    alike = [
        ("a/b--c", None), ("a--b/c", None), ("a/b", "c"), ("a/b", "c/d"), ("a/b", "c_d"), ("A/B", "c"),
    ]  # fmt: skip
    records = [publish(store, RECORD.with_(repo_id=repo, requested_revision=rev)) for repo, rev in alike]
    folders = {str(record.cache_path).lower() for record in records[:-1]}
    assert len(folders) == 5
    for record, (repo, _) in zip(records, alike, strict=True):
        assert json.loads((Path(str(record.cache_path)) / META).read_text())["repo_id"] == repo


def test_a_renamed_models_link_is_not_taken_by_another(store: Store, tmp_path: Path) -> None:
    one, two = tmp_path / "x" / "tiny", tmp_path / "y" / "tiny"
    links = []
    for number, folder in enumerate((one, two)):
        folder.mkdir(parents=True)
        fill(folder)
        links.append(store.link(ModelRecord(id=number, name="tiny", source=Source.LOCAL, local_path=str(folder))))
    assert [link.resolve() for link in links] == [one, two]


def test_what_a_crash_left_in_staging_is_not_published(store: Store) -> None:
    record = ModelRecord(name="x", repo_id="acme/x", source=Source.HUGGINGFACE)
    folder = store.staging("huggingface--acme--x--FP16")
    (folder / "config.json").write_text("{}")
    write_meta(folder, record, {})
    assert list(store.published()) == []
    assert [found.name for found in (store.publish(folder, record, {}), *store.published())][1:] == ["x"]


def test_the_journal_stays_until_the_folder_is_final(store: Store) -> None:
    record = ModelRecord(name="x", repo_id="acme/x", source=Source.HUGGINGFACE)
    folder = store.staging("x")
    for name in ("config.json", JOURNAL, META):
        (folder / name).write_text("{}")

    def stop() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        store.publish(folder, record, {}, stop)
    assert (folder / JOURNAL).exists()
    final = store.publish(folder, record, {})
    assert not (final / JOURNAL).exists()
    listed = [row["path"] for row in json.loads((final / META).read_text())["files"]]
    assert listed == ["config.json"], "neither its own older version nor the journal"
