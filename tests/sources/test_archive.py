import gzip
import io
import os
import random
import shutil
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from making import content

from millm.errors import Cancelled, DownloadFailed, UnsupportedModel
from millm.sources import archive as archive_module
from millm.sources.archive import ArchiveLimits, extract, is_archive

SMALL = ArchiveLimits(entries=10, total=10_000_000, entry=6_000_000, ratio=100, ratio_from=100_000)
MODEL = {"config.json": b"{}", "model.safetensors": content(300_000), "onnx/readme.txt": b""}
Make = Callable[[dict[str, bytes]], Path]


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name, data)
    return path


def make_tar(path: Path, files: dict[str, bytes]) -> Path:
    entries = []
    for name, data in files.items():
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode, entry.uid = len(data), 0o4777, 1234
        entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
        entries.append((entry, data))
    return make_odd_tar(path, *entries)


def make_odd_tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as out:
        for entry, data in entries:
            out.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture(params=["zip", "tar", "tar.gz", "TGZ"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes an archive of these files, of each kind in turn."""
    path = tmp_path / f"model.{request.param}"
    return lambda files: (make_zip if request.param == "zip" else make_tar)(path, files)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def unpacked(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(archive: Path, out: Path, limits: ArchiveLimits = SMALL) -> str:
    """Unpacks what must be refused; nothing may stay. Returns the message."""
    with pytest.raises((UnsupportedModel, DownloadFailed)) as caught:
        extract(archive, out, lambda: None, limits)
    assert sorted(path.name for path in out.parent.iterdir()) == [archive.name]
    return caught.value.message


def test_unpacks_every_file(make: Make, out: Path) -> None:
    extract(make(MODEL), out, lambda: None)
    assert unpacked(out) == MODEL


def test_everybody_may_read_what_was_unpacked(make: Make, out: Path) -> None:
    before = os.umask(0o027)
    try:
        extract(make(MODEL), out, lambda: None)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in out.rglob("*") if p.is_file()} == {0o644}


@pytest.mark.parametrize("mark", ["config.json", "model_index.json"])
def test_a_model_in_one_folder_is_moved_up(make: Make, out: Path, mark: str) -> None:
    files = {
        "tiny/": b"",
        f"tiny/{mark}": b"{}",
        "tiny/tiny": b"inner",
        "__MACOSX/._x": b"junk",
        "tiny/.git/HEAD": b"x",
    }
    extract(make(files), out, lambda: None)
    assert unpacked(out) == {mark: b"{}", "tiny": b"inner"}
    assert [path.name for path in out.parent.iterdir() if path.is_dir()] == ["out"]


@pytest.mark.parametrize(
    "files", [{"a/x.bin": b"1"}, {"a/config.json": b"{}", "b.txt": b""}, {"./a": b"", "./b/": b""}]
)
def test_other_folders_stay_where_they_are(make: Make, out: Path, files: dict[str, bytes]) -> None:
    extract(make(files), out, lambda: None)
    assert unpacked(out) == {name.removeprefix("./"): data for name, data in files.items() if not name.endswith("/")}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd", "absolute"),
        ("C:/x", "absolute"),
        ("c:x", "absolute"),
        ("../x", "leads out"),
        ("a/../../x", "leads out"),
        ("a\\..\\x", "backslash"),
        ("a\nb", "cannot be shown"),
    ],
)
def test_names_that_are_no_plain_paths(make: Make, out: Path, name: str, reason: str) -> None:
    message = refused(make({"config.json": b"{}", name: b"evil"}), out)
    assert reason in message
    assert f"'{name}'" in message


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names",
    [("a", "A"), ("a/x", "A/y"), ("a", "a/x"), ("a/x", "a"), ("é", "e\u0301"), ("a/b/x", "a/B/y"), ("a/x", "a/./x")],
)
def test_names_that_some_disk_takes_for_the_same(make: Make, out: Path, names: tuple[str, ...]) -> None:
    assert f"'{names[1]}'" in refused(make(dict.fromkeys(names, b"x")), out)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_same_name_twice(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("a", b"1")
        zipped.writestr("a", b"2")
    assert "'a' is there twice" in refused(path, out)
    path.unlink()
    twice = [(tarfile.TarInfo("a"), b""), (tarfile.TarInfo("a"), b"")]
    assert "'a' is there twice" in refused(make_odd_tar(tmp_path / "model.tar", *twice), out)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "neither"),
        (tarfile.BLKTYPE, "neither"),
        (tarfile.FIFOTYPE, "neither"),
        (tarfile.GNUTYPE_SPARSE, "neither"),
        (b"Z", "neither"),
    ],
)
def test_a_tar_holds_only_files_and_folders(tmp_path: Path, out: Path, kind: bytes, reason: str) -> None:
    odd = tarfile.TarInfo("odd")
    odd.type, odd.linkname = kind, "config.json"
    message = refused(make_odd_tar(tmp_path / "model.tar", (tarfile.TarInfo("config.json"), b""), (odd, b"")), out)
    assert "'odd'" in message
    assert reason in message


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK])
def test_a_zip_holds_only_files_and_folders(tmp_path: Path, out: Path, mode: int) -> None:
    odd = zipfile.ZipInfo("odd")
    odd.external_attr = (mode | 0o644) << 16
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("config.json", "{}")
        zipped.writestr(odd, "/etc/passwd")
    assert "'odd' is a link or a device" in refused(path, out)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_in_which_a_few_bytes_may_become_gigabytes(tmp_path: Path, out: Path, method: int) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w", method) as zipped:
        zipped.writestr("config.json", "{}")
    assert "compressed in a way" in refused(path, out)


def test_an_encrypted_zip(tmp_path: Path, out: Path) -> None:
    path = make_zip(tmp_path / "model.zip", {"config.json": b"{}"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    assert "'config.json' is encrypted" in refused(path, out)


def test_more_entries_than_allowed(make: Make, out: Path) -> None:
    assert "too many" in refused(make({f"{n}.txt": b"" for n in range(11)}), out)


@pytest.mark.parametrize("limits", [replace(SMALL, entry=299_999), replace(SMALL, total=300_001)])
def test_more_bytes_than_allowed(make: Make, out: Path, limits: ArchiveLimits) -> None:
    assert "more bytes than are allowed" in refused(make(MODEL), out, limits)
    extract(
        out.parent / next(out.parent.iterdir()).name, out, lambda: None, replace(limits, entry=300_000, total=300_002)
    )


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_a_bomb_is_stopped_while_it_unpacks(tmp_path: Path, out: Path, kind: str) -> None:
    make_it = make_zip if kind == "zip" else make_tar
    bomb = make_it(tmp_path / f"bomb.{kind}", {"config.json": b"{}", "model.bin": bytes(5_500_000)})
    biggest = 0

    def look() -> None:
        nonlocal biggest
        biggest = max([biggest, *(path.stat().st_size for path in out.rglob("*"))])

    with pytest.raises(UnsupportedModel, match="zip bomb"):
        extract(bomb, out, look, SMALL)
    assert biggest < 3_000_000
    assert not out.exists()


@pytest.mark.parametrize("size", [1000, 200_001])
def test_a_zip_that_lies_about_its_sizes(tmp_path: Path, out: Path, size: int) -> None:
    path = make_zip(tmp_path / "model.zip", {"model.bin": content(200_000)})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, size)
    path.write_bytes(data)
    assert "is damaged" in refused(path, out)


def test_a_long_tar_header_does_not_fill_the_memory(tmp_path: Path, out: Path) -> None:
    entry = tarfile.TarInfo("config.json")
    entry.pax_headers = {"comment": "x" * 2_000_000}
    assert "is damaged" in refused(make_odd_tar(tmp_path / "model.tgz", (entry, b"")), out)


def test_a_long_table_of_contents_does_not_fill_the_memory(tmp_path: Path, out: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        for number in range(40):
            entry = zipfile.ZipInfo(f"{number}")
            entry.comment = b"x" * 60_000
            zipped.writestr(entry, b"")
    assert "is damaged" in refused(path, out)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99, "the last byte"])
def test_an_archive_that_was_cut_short(make: Make, out: Path, share: float | str) -> None:
    path = make(MODEL)
    data = path.read_bytes()
    whole_end = data.rstrip(b"\0") if path.suffix == ".tar" else data  # a tar ends with zeros that mean nothing
    path.write_bytes(whole_end[:-1] if isinstance(share, str) else data[: int(len(whole_end) * share)])
    assert "damaged, cut short" in refused(path, out)


def test_a_tar_that_ends_between_two_files(tmp_path: Path, out: Path) -> None:
    path = make_tar(tmp_path / "model.tar", {"a": content(512), "b": content(512)})
    path.write_bytes(path.read_bytes()[:1024])
    assert "cut short" in refused(path, out)


def test_a_tar_with_a_bad_header_in_the_middle(tmp_path: Path, out: Path) -> None:
    path = make_tar(tmp_path / "model.tar", {"a": content(512), "b": content(512)})
    data = bytearray(path.read_bytes())
    data[1024] ^= 1
    path.write_bytes(data)
    assert "damaged" in refused(path, out)


def test_a_gzip_whose_checksum_is_wrong(tmp_path: Path, out: Path) -> None:
    path = make_tar(tmp_path / "model.tar.gz", MODEL)
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    assert "damaged" in refused(path, out)


@pytest.mark.parametrize("data", [b"<html>", b"PK", gzip.compress(b"no tar", mtime=0)])
def test_something_else(make: Make, out: Path, data: bytes) -> None:
    make(MODEL).write_bytes(data)
    assert "damaged" in refused(next(out.parent.iterdir()), out)


def test_an_archive_without_files(make: Make, out: Path) -> None:
    assert "no files" in refused(make({".hidden": b"x"}), out)


def test_bytes_that_make_no_sense_are_never_a_bug(make: Make, out: Path) -> None:
    path = make({"config.json": b"{}", "model.bin": content(3000)})
    good = path.read_bytes()
    dice = random.Random(5)
    for _ in range(150):
        data = bytearray(good)
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data)
        try:
            extract(path, out, lambda: None, SMALL)
        except (UnsupportedModel, DownloadFailed):
            assert not out.exists()
        else:
            shutil.rmtree(out)


def test_cancel_leaves_nothing(make: Make, out: Path) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if out.exists() and any(out.glob("model.bin")):
            raise Cancelled

    with pytest.raises(Cancelled):
        extract(make({"config.json": b"{}", "model.bin": content(5_000_000)}), out, check)
    assert not out.exists()
    assert calls >= 4


def test_what_is_unpacked_is_on_the_disk(make: Make, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(archive_module.os, "fsync", synced.append)
    monkeypatch.setattr(archive_module, "SYNC_BYTES", 2**20)
    extract(make({"config.json": b"{}", "model.bin": content(3_000_000)}), out, lambda: None)
    assert len(synced) >= 1 + 3


def test_which_names_are_archives() -> None:
    assert [n for n in ("a.ZIP", "a.tar", "a.tgz", "a.tar.gz", "a.gz", "a.bin", "zip") if is_archive(n)] == [
        "a.ZIP",
        "a.tar",
        "a.tgz",
        "a.tar.gz",
    ]
