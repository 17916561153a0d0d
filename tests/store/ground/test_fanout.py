"""A reading for several takers: once, in one order, and none of them stops another."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.disk.media import CHUNK, Media, object_path
from store.errors import FlightbagError, NotFound, Unavailable
from store.format.ids import ObjectId
from store.ground import fanout
from store.ground.fanout import Fanout, Feed, Item

LARGE = bytes(range(256)) * (3 * CHUNK // 256) + b"end"
CONTENTS = [b"", b"one", b"two" * 9, LARGE, *(b"%d" % n for n in range(20))]
WAIT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    for data in CONTENTS:
        (path := folder / object_path(ObjectId.of(data))).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def items(contents: Sequence[bytes]) -> list[Item]:
    return [(ObjectId.of(data), len(data)) for data in contents]


def take_all(feed: Feed) -> list[bytes]:
    return [b"".join(feed.chunks(*item, None)) for item in feed.items]


def run(one: Fanout, *takers: Callable[[Feed], object]) -> list[object]:
    """Read for these takers, and return what each of them returns or raises."""
    results: list[object] = [None] * len(takers)

    def work(number: int) -> None:
        try:
            results[number] = takers[number](one.feeds[number])
        except FlightbagError as error:
            results[number] = error
        finally:
            one.feeds[number].close()

    threads = [Thread(target=work, args=(number,), daemon=True) for number in range(len(takers))]
    for thread in threads:
        thread.start()
    one.read()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    return results


@settings(max_examples=30, deadline=None)
@given(lacking=st.lists(st.sets(st.sampled_from(CONTENTS)), min_size=1, max_size=4))
def test_each_taker_gets_what_it_lacks_and_each_object_is_read_once(folder: Path, lacking: list[set[bytes]]) -> None:
    with Media(folder) as media:
        reads = count_reads(media)
        one = Fanout(media, [items(sorted(some)) for some in lacking], frozenset())
        got = run(one, *[take_all] * len(lacking))
    assert [sorted(some) for some in got] == [sorted(some) for some in lacking]  # type: ignore[call-overload]
    assert sorted(reads) == sorted({object_path(ObjectId.of(data)) for some in lacking for data in some})


def count_reads(media: Media) -> list[str]:
    """The names of the files that are read from now on, in their order."""
    names: list[str] = []
    real = media.chunks
    media.chunks = lambda name, *rest: names.append(name) or real(name, *rest)  # type: ignore[method-assign,func-returns-value,misc,assignment]
    return names


def test_the_last_ones_come_last(folder: Path) -> None:
    last = frozenset(id_ for id_, _ in items(CONTENTS[:2]))
    with Media(folder) as media:
        one = Fanout(media, [items(CONTENTS), items(CONTENTS[1:6])], last)
        for feed in one.feeds:
            order = [id_ in last for id_, _ in feed.items]
            assert order == sorted(order)


def test_one_that_fails_stops_no_other(folder: Path) -> None:
    def fails(feed: Feed) -> None:
        for item in feed.items:
            for _ in feed.chunks(*item, None):
                raise Unavailable("the stick is full")

    with Media(folder) as media:
        failed, whole = run(Fanout(media, [items(CONTENTS)] * 2, frozenset()), fails, take_all)
    assert isinstance(failed, Unavailable)
    assert len(whole) == len(CONTENTS)  # type: ignore[arg-type]


def test_an_object_that_cannot_be_read_fails_those_that_lack_it(folder: Path) -> None:
    absent = (ObjectId.of(b"absent"), 6)
    with Media(folder) as media:
        one = Fanout(media, [[*items(CONTENTS), absent], items(CONTENTS)], frozenset())
        failed, whole = run(one, take_all, take_all)
    assert isinstance(failed, NotFound)
    assert len(whole) == len(CONTENTS)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [0, 1, 3 * CHUNK])
def test_one_that_stands_still_is_left_behind_and_reads_the_rest_for_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Wherever it stands: between objects, and within one."""
    monkeypatch.setattr(fanout, "_PATIENCE", 0.05)
    monkeypatch.setattr(fanout, "_QUEUE_BYTES", CHUNK)
    monkeypatch.setattr(fanout, "_QUEUE_ITEMS", 4)
    others = Event()

    def slow(feed: Feed) -> list[bytes]:
        contents = []
        for item in feed.items:
            data = b""
            for chunk in feed.chunks(*item, None):
                if len(data) >= at or not chunk:
                    assert others.wait(WAIT)
                data += chunk
            contents.append(data)
        return contents

    def fast(feed: Feed) -> list[bytes]:
        try:
            return take_all(feed)
        finally:
            others.set()

    with Media(folder) as media:
        reads = count_reads(media)
        one = Fanout(media, [items(CONTENTS)] * 2, frozenset())
        late, whole = run(one, slow, fast)
    assert late == whole
    assert sorted(late) == sorted(CONTENTS)  # type: ignore[call-overload]
    assert one.feeds[0].alone
    assert not one.feeds[1].alone
    assert len(CONTENTS) < len(reads) <= 2 * len(CONTENTS)


def test_one_is_left_behind_for_what_it_holds_up_others_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits with nobody for it for as long as it likes, and that counts against what it holds up later."""
    now = [100.0]
    monkeypatch.setattr(fanout, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with Media(folder) as media:
        one = Fanout(media, [items(CONTENTS)] * 2, frozenset())
    slow, other = one.feeds

    def wait(seconds: float, *, hungry: bool) -> float:
        other.hungry = hungry
        now[0] += seconds
        with one._changed:
            one._count([slow], seconds)
        return slow.debt

    assert wait(1000, hungry=False) == 0
    assert wait(6, hungry=True) == 6
    assert wait(1, hungry=False) == 5
    now[0] += 2  # the reading goes on
    assert wait(1, hungry=True) == 4
    assert wait(fanout._PATIENCE - 4, hungry=True) == fanout._PATIENCE
    assert not slow.alone
    wait(0.1, hungry=True)
    assert slow.alone
    assert not other.alone


def test_a_taker_that_is_gone_keeps_no_bytes(folder: Path) -> None:
    with Media(folder) as media:
        one = Fanout(media, [items(CONTENTS)], frozenset())
        one.feeds[0].put(b"bytes")
        one.feeds[0].close()
        one.read()
    assert not one.feeds[0]._queue


def test_a_queue_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "_QUEUE_BYTES", 2 * CHUNK)
    most = [0]

    def watching(feed: Feed) -> None:
        for item in feed.items:
            for _ in feed.chunks(*item, None):
                most[0] = max(most[0], feed._bytes)

    with Media(folder) as media:
        run(Fanout(media, [items(CONTENTS)] * 2, frozenset()), watching, watching)
    assert 0 < most[0] <= 3 * CHUNK


@pytest.mark.parametrize("limit", ["_QUEUE_ITEMS", "_QUEUE_BYTES"])
def test_the_reader_goes_on_as_soon_as_there_is_room(folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    """And not at the next tick, which never comes here."""
    monkeypatch.setattr(fanout, "_TICK", 3600)
    monkeypatch.setattr(fanout, limit, 1)
    with Media(folder) as media:
        run(Fanout(media, [items(CONTENTS)] * 3, frozenset()), take_all, take_all, take_all)


def test_nothing_is_read_for_nobody(folder: Path) -> None:
    def fails(feed: Feed) -> None:
        raise Unavailable("the stick is full")

    with Media(folder) as media:
        one = Fanout(media, [items(CONTENTS)] * 2, frozenset())
        one.stop()
        reads = count_reads(media)
        run(one, fails, fails)
    assert reads == []


def test_when_it_is_stopped_every_taker_ends(folder: Path) -> None:
    with Media(folder) as media:
        one = Fanout(media, [items(CONTENTS)] * 2, frozenset())
        one.stop()
        assert [type(one) for one in run(one, take_all, take_all)] == [Unavailable, Unavailable]


def test_progress_counts_each_byte_once(folder: Path) -> None:
    counts: list[int] = []

    def counting(feed: Feed) -> None:
        for item in feed.items:
            for _ in feed.chunks(*item, counts.append):
                pass

    with Media(folder) as media:
        run(Fanout(media, [items(CONTENTS), []], frozenset()), counting, take_all)
    assert sum(counts) == sum(map(len, CONTENTS))


def test_no_descriptor_stays_open(folder: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with Media(folder) as media:
        run(Fanout(media, [items(CONTENTS)] * 3, frozenset()), take_all, take_all, take_all)
    assert len(os.listdir("/proc/self/fd")) == len(before)
