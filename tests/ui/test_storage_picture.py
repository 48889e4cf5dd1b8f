"""Where the disk goes: every byte once, largest first, in words too."""

import re

from millm.records import ModelRecord
from millm.ui.storage_picture import storage_picture
from millm.views import StorageState

RECORDS = [ModelRecord(id=number, name=f"model-{number}") for number in range(1, 9)]


def storage(**changes: object) -> StorageState:
    fields = {
        "total_bytes": 4_100_000_000,
        "free_bytes": 10_000_000_000,
        "staging_bytes": 300_000_000,
        "by_type": {"llm": 3_600_000_000},
        "models": {number: number * 100_000_000 + (200_000_000 if number == 2 else 0) for number in range(1, 9)},
        "unfinished": {2: 200_000_000},
        "orphans": {".staging/lost": 100_000_000, "huggingface/lost": 200_000_000},
    }
    return StorageState(**(fields | changes))  # type: ignore[arg-type]


def rows(html: str) -> list[tuple[str, str]]:
    return re.findall(r"<span>([^<]+)</span><b>([^<]+)</b>", html)


def test_every_byte_stands_there_once() -> None:
    html = storage_picture(storage(), RECORDS, 8)
    assert rows(html) == [
        ("model-8", "800 MB"),
        ("model-7", "700 MB"),
        ("model-6", "600 MB"),
        ("model-5", "500 MB"),
        ("model-4", "400 MB"),
        ("3 more", "600 MB"),
        ("Unfinished downloads", "200 MB"),
        ("Left-overs", "300 MB"),
        ("Free", "10.0 GB"),
    ]
    widths = sum(float(width) for width in re.findall(r"width:([\d.]+)%", html))
    assert round(widths) == 100
    assert "8 models · 4.1 GB on disk · 10.0 GB free" in html
    assert 'data-act="clean"' in html


def test_what_takes_nothing_is_not_shown() -> None:
    html = storage_picture(storage(models={1: 5_000_000}, unfinished={}, orphans={}, staging_bytes=0), RECORDS[:2], 2)
    assert [name for name, _ in rows(html)] == ["model-1", "Free"]
    assert "clean-btn" not in html


def test_an_empty_disk_has_no_picture() -> None:
    html = storage_picture(storage(models={}, unfinished={}, orphans={}, staging_bytes=0, total_bytes=0), [], 0)
    assert "mi-stack" not in html
    assert "0 models" in html


def test_left_overs_are_named_as_text() -> None:
    html = storage_picture(storage(orphans={"<img src=x>": 5}), RECORDS, 8)
    assert "<img" not in html
