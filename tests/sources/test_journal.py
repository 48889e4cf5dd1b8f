"""The journal: what it told before a crash is told after it, and nothing more."""

from pathlib import Path

import pytest

from millm.meta import JOURNAL
from millm.sources.journal import Extent, Journal, kept_bytes, read_journal

ONE, TWO = Extent(0, 10, 111), Extent(20, 5, 222)


def test_what_was_noted_is_known_to_the_next_process(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add("a", "sha256:1", [ONE, TWO])
    journal.add("b", None, [ONE])
    journal.close()
    again = Journal(tmp_path)
    assert again.extents("a", "sha256:1") == [ONE, TWO]
    assert again.count("b", None) == 10
    assert again.extents("a", "sha256:other") == []
    again.close()
    assert kept_bytes(tmp_path) == 25


def test_a_file_that_started_over_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add("a", "x", [ONE])
    journal.forget("a")
    journal.add("a", "x", [TWO])
    journal.close()
    assert read_journal(tmp_path) == {("a", "x"): [TWO]}


def test_a_journal_without_ranges_keeps_nothing(tmp_path: Path) -> None:
    Journal(tmp_path).close()
    assert kept_bytes(tmp_path) == 0


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_line_that_a_crash_cut_short_is_ignored_and_the_next_ones_are_read(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path)
    journal.add("a", "x", [ONE, TWO])
    journal.close()
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole[:-cut])
    again = Journal(tmp_path)
    assert again.extents("a", "x") in ([ONE], [ONE, TWO], [])
    again.add("b", "y", [ONE])
    again.close()
    assert read_journal(tmp_path)[("b", "y")] == [ONE]
