"""A log of several files is one chain: full ones become parts, whatever fails between two steps."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from store.disk import log
from store.disk.durable import Disk
from store.disk.log import LOG, MAX_PARTS, Event, append, before_damage, claims, events, files, hashes, mended
from store.disk.media import Media
from store.errors import Corrupt, FlightbagError, Refused
from tests.faults.disks import Medium, PowerCut, PowerFails, Recorded, digest_of, write_tree

LINE = len(log._line(Event(1000, "signed", {}), log.FIRST))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LOG_LIMIT", 3 * LINE)


@pytest.fixture
def media(tmp_path: Path) -> Iterator[Media]:
    (tmp_path / "store").mkdir()
    with Media(tmp_path / "store") as media:
        yield media


def write(media: Media, count: int, disk: Disk | None = None, first: int = 1000) -> list[Event]:
    made = [Event(first + number, "signed", {}) for number in range(count)]
    for event in made:
        append(media, disk or Disk(), event)
    return made


def path_of(media: Media, name: str) -> Path:
    return Path(media.absolute(name))


def test_one_chain_over_all_files(media: Media) -> None:
    made = write(media, 8)
    assert files(media) == ["log.1", "log.2", LOG]
    assert [len(path_of(media, name).read_bytes()) // LINE for name in files(media)] == [3, 3, 2]
    assert events(media) == made == list(claims(media)) == [event for event, _ in before_damage(media)]
    assert len(set(hashes(media))) == 8
    assert mended(media) == ([], path_of(media, LOG).read_bytes())


@pytest.mark.parametrize(
    "look", [events, lambda media: list(claims(media)), lambda media: [e for e, _ in before_damage(media)]]
)
@pytest.mark.parametrize("had", [2, 3, 6])
def test_a_reader_while_the_log_becomes_a_part(
    media: Media, monkeypatch: pytest.MonkeyPatch, look: Callable[[Media], list[Event]], had: int
) -> None:
    """It is listed, then a writer makes a part of it, then it is read: nothing is lost, and nothing is damage."""
    made = write(media, had)
    real, more = log.files, [5, 4]

    def listed(media: Media) -> list[str]:
        names = real(media)
        if more:
            count = more.pop()
            monkeypatch.setattr(log, "files", real)
            made.extend(write(media, count, first=2000 + 100 * count))
            monkeypatch.setattr(log, "files", listed)
        return names

    monkeypatch.setattr(log, "files", listed)
    seen = look(media)
    assert seen == made[: len(seen)]
    assert len(seen) >= had + 4


def test_a_log_that_was_copied_and_not_begun_anew(media: Media) -> None:
    made = write(media, 6)
    shutil.copy(path_of(media, LOG), path_of(media, "log.2"))
    assert events(media) == made == list(claims(media)) == [event for event, _ in before_damage(media)]
    assert len(hashes(media)) == 6
    made += write(media, 1, first=2000)
    assert events(media) == made
    assert files(media) == ["log.1", "log.2", LOG]


def test_full_to_the_last_byte_and_no_further(media: Media) -> None:
    write(media, 3)
    assert files(media) == [LOG]
    assert path_of(media, LOG).stat().st_size == log.LOG_LIMIT
    write(media, 1)
    assert files(media) == ["log.1", LOG]


def test_a_torn_line_is_cut_before_the_file_becomes_a_part(media: Media) -> None:
    made = write(media, 2)
    with path_of(media, LOG).open("ab") as file:
        file.write(b'{"at":')
    made.append(Event(2000, "signed", {"why": "x" * LINE}))
    append(media, Disk(), made[-1])
    assert files(media) == ["log.1", LOG]
    assert path_of(media, "log.1").stat().st_size == 2 * LINE
    assert events(media) == made


def test_a_line_without_room_is_refused_and_changes_nothing(media: Media) -> None:
    for kept in (0, 1):
        write(media, kept)
        before = events(media)
        with pytest.raises(Refused) as refused:
            append(media, Disk(), Event(1, "signed", {"why": "x" * 4 * LINE}))
        assert (refused.value.kind, bool(refused.value.remedy)) == ("log-full", True)
        assert events(media) == before


def test_the_last_part(media: Media) -> None:
    made = write(media, 3 * (MAX_PARTS + 1))
    assert files(media)[-2:] == [f"log.{MAX_PARTS}", LOG]
    with pytest.raises(Refused):
        write(media, 1)
    assert events(media) == made


@pytest.mark.parametrize("lost", ["log.1", "log.2"])
def test_a_part_that_is_lost(media: Media, lost: str) -> None:
    write(media, 8)
    path_of(media, lost).unlink()
    with pytest.raises(Corrupt) as caught:
        events(media)
    assert caught.value.kind == "bad-log"


def test_parts_in_another_order(media: Media, tmp_path: Path) -> None:
    write(media, 8)
    shutil.move(path_of(media, "log.1"), tmp_path / "x")
    shutil.move(path_of(media, "log.2"), path_of(media, "log.1"))
    shutil.move(tmp_path / "x", path_of(media, "log.2"))
    with pytest.raises(Corrupt):
        hashes(media)


def test_a_part_with_a_torn_line(media: Media) -> None:
    write(media, 4)
    path = path_of(media, "log.1")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Corrupt, match="line 3 of the log is cut"):
        events(media)


@pytest.mark.parametrize(
    ("damaged", "later", "lines"), [("log.1", ["log.1", "log.2"], 1), ("log.2", ["log.2"], 1), (LOG, [], 1)]
)
def test_what_holds_of_a_damaged_log(media: Media, damaged: str, later: list[str], lines: int) -> None:
    write(media, 8)
    path = path_of(media, damaged)
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(whole[0] + whole[1].replace(b"event", b"evenT", 1) + b"".join(whole[2:]))
    found, kept = mended(media)
    assert (found, kept.count(b"\n")) == (later, lines)
    # Put in the place of what is damaged, it is a log again, and goes on.
    path_of(media, LOG).write_bytes(kept)
    for name in found:
        path_of(media, name).unlink()
    before = events(media)
    assert events(media) == before
    write(media, 5, first=3000)
    assert len(events(media)) == len(before) + 5


def test_something_else_in_the_place_of_a_part(media: Media) -> None:
    write(media, 4)
    path_of(media, "log.2").mkdir()
    with pytest.raises(FlightbagError):
        events(media)


def test_a_power_cut_at_any_operation(media: Media, tmp_path: Path) -> None:
    """Every line that was durable stays, and the line is there or can be appended again."""
    made = write(media, 3)

    def line(store: Path, disk: Disk) -> None:
        with Media(store) as one:
            append(one, disk, Event(5000, "signed", {}))

    counted = Recorded()
    line(Path(shutil.copytree(media.path, tmp_path / "counted")), counted)
    assert len(counted.operations) >= 4
    for stop in range(len(counted.operations)):
        store = Path(shutil.copytree(media.path, tmp_path / str(stop)))
        with pytest.raises(PowerFails):
            line(store, PowerCut(stop))
        with Media(store) as one:
            assert events(one)[:3] == made
            again = len(events(one)) == 3
        if again:
            line(store, Disk())
        with Media(store) as one:
            assert [event.at for event in events(one)] == [1000, 1001, 1002, 5000]


@pytest.mark.parametrize("had", [0, 2])
def test_on_every_medium_that_a_power_cut_leaves(media: Media, tmp_path: Path, had: int) -> None:
    """Whatever of what was not synced has arrived: no line that was told as durable is lost, and the chain holds."""
    made = write(media, had)
    store, seen = Path(media.path), set[bytes]()
    told = [len(made)]

    def look(medium: Medium) -> None:
        for _, tree in medium.cuts(Random(7), subsets=8):
            if digest_of(tree) in seen:
                continue
            seen.add(digest_of(tree))
            image = tmp_path / f"image-{len(seen)}"
            write_tree(tree, image)
            with Media(image) as one:
                assert len(events(one)) >= told[0]
                write(one, 1, first=9000)

    medium = Medium(store, look)
    for number in range(5 - had):
        write(media, 1, medium, first=2000 + number)
        told[0] += 1
    assert files(media) == ["log.1", LOG]
    assert len(seen) > 5
