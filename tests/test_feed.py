"""Feeds: late and many readers, what is merged and what is forgotten, watchers that are told and not blocked."""

import time

from serving import AT_ONCE_S

from millm.feed import Feed


def test_a_late_reader_reads_the_same_as_an_early_one() -> None:
    feed: Feed[int] = Feed()
    for number in (1, 2, 3):
        feed.push(number)
    early = feed.read()
    assert [next(early) for _ in range(3)] == [1, 2, 3]
    feed.push(4)
    feed.close()
    assert list(early) == [4]
    assert list(feed.read()) == [1, 2, 3, 4]
    assert list(feed.read(after=2)) == [3, 4]


def test_a_merged_item_takes_the_place_of_the_newest_but_not_of_what_was_read() -> None:
    feed: Feed[int] = Feed()
    feed.push(1)
    reader = feed.read()
    assert next(reader) == 1
    feed.push(2, merge=lambda newest: newest == 1)
    feed.push(3, merge=lambda newest: newest == 1)
    feed.close()
    assert list(reader) == [2, 3]
    assert list(feed.read()) == [2, 3]


def test_a_silent_feed_yields_none_every_beat() -> None:
    feed: Feed[int] = Feed()
    reader = feed.read(beat=0.05)
    started = time.monotonic()
    assert [next(reader) for _ in range(10)] == [None] * 10
    assert 0.4 < time.monotonic() - started < AT_ONCE_S, "at the usual beat they would take 5 s"


def test_a_bounded_feed_forgets_the_oldest() -> None:
    feed: Feed[int] = Feed(keep=2)
    for number in range(5):
        feed.push(number)
    feed.close()
    assert list(feed.read()) == [3, 4]
    assert feed.number == 5


def test_watchers_are_called_after_each_change_until_they_are_forgotten() -> None:
    feed: Feed[int] = Feed()
    heard: list[str] = []
    forget_first = feed.watch(lambda: heard.append(f"first {feed.newest}"))
    forget_second = feed.watch(lambda: heard.append(f"second {feed.newest}"))
    feed.push(1)
    forget_first()
    feed.push(2)
    feed.close()
    forget_second()
    feed.close()
    assert heard == ["first 1", "second 1", "second 2", "second 2"]


def test_a_reader_that_must_not_block_is_told_that_nothing_is_there() -> None:
    feed: Feed[int] = Feed()
    feed.push(1)
    reader = feed.read(beat=0)
    assert [next(reader), next(reader), next(reader)] == [1, None, None]
    feed.close()
    assert list(reader) == []
