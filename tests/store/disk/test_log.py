"""The log: a chain of lines. What it shows, and the one thing that it cannot."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from store.disk import log
from store.disk.durable import Disk
from store.disk.log import (
    EVENTS,
    FIRST,
    LOG,
    LOG_LIMIT,
    MOVES,
    Event,
    append,
    before_damage,
    claims,
    events,
    hashes,
)
from store.disk.media import Media
from store.errors import Corrupt
from store.format.cbor import INT_MAX
from store.format.manifest import TIME_MAX

DISK = Disk()


@pytest.fixture
def media(tmp_path: Path) -> Iterator[Media]:
    with Media(tmp_path) as media:
        yield media


def write(media: Media, count: int) -> list[Event]:
    made = [
        Event(1000 + n, "published", {"mission": f"m{n}", "manifest": f"{n:064x}", "sequence": n + 1})
        for n in range(count)
    ]
    for event in made:
        append(media, DISK, event)
    return made


def lines_of(media: Media) -> list[bytes]:
    return Path(media.path, "log").read_bytes().splitlines(keepends=True)


def test_what_is_appended_is_read_in_order(media: Media) -> None:
    assert events(media) == []
    assert events(media) == write(media, 0)
    made = write(media, 4)
    assert events(media) == made
    assert all(json.loads(line)["previous"] for line in lines_of(media))


@pytest.mark.parametrize("tail", [b'{"at":1,"event":"publ', b"\x00\x00\x00", b"x"])
def test_a_torn_last_line_is_no_event_and_is_cut_by_the_next(media: Media, tail: bytes) -> None:
    made = write(media, 2)
    with Path(media.path, "log").open("ab") as file:
        file.write(tail)
    assert events(media) == made
    more = Event(2000, "signed", {})
    append(media, DISK, more)
    assert events(media) == [*made, more]
    assert len(lines_of(media)) == 3


def test_a_first_line_that_is_torn(media: Media) -> None:
    Path(media.path, "log").write_bytes(b'{"at":')
    assert events(media) == []
    made = write(media, 2)
    assert events(media) == made


DAMAGE: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "changed": lambda lines: [lines[0], lines[1].replace(b"m1", b"mX"), *lines[2:]],
    "reordered": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "cut out": lambda lines: [lines[0], *lines[2:]],
    "first cut off": lambda lines: lines[1:],
    "said twice": lambda lines: [lines[0], *lines],
    "no JSON": lambda lines: [lines[0], b"garbage\n", *lines[1:]],
    "empty line": lambda lines: [lines[0], b"\n", *lines[1:]],
    "not an object": lambda lines: [b"[]\n", *lines],
    "nested too deep": lambda lines: [b"[" * 100_000 + b"\n", *lines],
    "a number too long": lambda lines: [b"9" * 10_000 + b"\n", *lines],
    "unknown event": lambda lines: [lines[0].replace(b"published", b"flown"), *lines[1:]],
    "time is no integer": lambda lines: [lines[0].replace(b'"at":1000', b'"at":1e3'), *lines[1:]],
    "zero-filled": lambda lines: [bytes(len(lines[0]) - 1) + b"\n", *lines[1:]],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_line_that_was_tampered_with_is_found(media: Media, damage: str) -> None:
    write(media, 4)
    before = lines_of(media)
    after = DAMAGE[damage](before)
    assert after != before
    Path(media.path, "log").write_bytes(b"".join(after))
    with pytest.raises(Corrupt) as caught:
        events(media)
    assert caught.value.fields["kind"] == "bad-log"
    assert caught.value.fields["actual"] in (1, 2, 3)  # the line


def test_a_cut_at_the_end_cannot_be_found_by_the_chain_alone(media: Media) -> None:
    """Said here so that nobody relies on it: a shorter chain is a whole chain, and the last line has no successor
    that would hold its hash. What is current, the refs say; what may fly, signatures and sequence numbers."""
    made = write(media, 4)
    lines = lines_of(media)
    Path(media.path, "log").write_bytes(b"".join(lines[:2]))
    assert events(media) == made[:2]
    Path(media.path, "log").write_bytes(b"".join([*lines[:3], lines[3].replace(b"m3", b"m9")]))
    assert events(media)[3] != made[3]


def test_a_log_beyond_the_limit_is_refused_unread(media: Media) -> None:
    with Path(media.path, "log").open("wb") as file:
        file.truncate(LOG_LIMIT + 1)
    for use in (events, lambda media: append(media, DISK, Event(1, "signed", {}))):
        with pytest.raises(Corrupt):
            use(media)
    assert os.path.getsize(Path(media.path, "log")) == LOG_LIMIT + 1


def test_only_known_events_are_written(media: Media) -> None:
    with pytest.raises(AssertionError):
        append(media, DISK, Event(1, "flown", {}))


@pytest.mark.parametrize(
    "change",
    [
        {"sequence": "x"},
        {"sequence": True},
        {"sequence": 0},
        {"sequence": 2**63},
        {"mission": "../up"},
        {"mission": 7},
        {"manifest": "abc"},
        {"at": "now"},
        {"event": "flown"},
    ],
    ids=str,
)
def test_a_line_that_chains_and_says_what_it_may_not(media: Media, change: dict[str, Any]) -> None:
    """Whoever can write the log can chain it too; what it says is still held to its types."""
    value = {
        "at": 1,
        "event": "published",
        "previous": FIRST,
        "mission": "m",
        "manifest": "0" * 64,
        "sequence": 1,
        **change,
    }
    line = json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    with open(media.absolute(LOG), "wb") as file:
        file.write(line)
    with pytest.raises(Corrupt):
        events(media)


def test_a_line_in_another_spelling_is_malformed(media: Media) -> None:
    with open(media.absolute(LOG), "wb") as file:
        file.write(b'{"at": 1, "event": "signed", "previous": "' + FIRST.encode() + b'"}\n')
    with pytest.raises(Corrupt):
        events(media)


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_read_back(media: Media, event: str) -> None:
    facts = {"mission": "m", "manifest": "0" * 64, "sequence": INT_MAX} if event in MOVES else {"any": 1}
    made = [Event(0, event, facts), Event(TIME_MAX, event, facts)]
    for one in made:
        append(media, DISK, one)
    assert events(media) == made
    with open(media.absolute(LOG), "ab") as file:
        file.write(lines_of(media)[-1].replace(b'"at":253402300799', b'"at":253402300800'))
    with pytest.raises(Corrupt):
        events(media)


@pytest.mark.parametrize("at", [-1, TIME_MAX + 1, True])
@pytest.mark.parametrize("event", ["signed", "rotated"])
def test_a_time_of_no_calendar(media: Media, at: int, event: str) -> None:
    append(media, DISK, Event(at, event, {}))
    with pytest.raises(Corrupt, match="line 1 of the log is malformed"):
        events(media)
    assert (list(claims(media)), before_damage(media)) == ([], [])


def test_each_line_names_the_hash_of_the_line_before(media: Media) -> None:
    assert hashes(media) == []
    write(media, 3)
    assert hashes(media) == [blake3(line).hexdigest() for line in lines_of(media)]
    assert [json.loads(line)["previous"] for line in lines_of(media)] == [FIRST, *hashes(media)[:2]]


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_comes_before_a_damage_and_what_is_well_formed_after_it(media: Media, damage: str) -> None:
    assert (before_damage(media), list(claims(media))) == ([], [])
    made = write(media, 4)
    whole = lines_of(media)
    assert before_damage(media) == list(zip(made, whole, strict=True))
    assert list(claims(media)) == made
    damaged = DAMAGE[damage](whole)
    Path(media.path, "log").write_bytes(b"".join(damaged))
    held = before_damage(media)
    assert held == list(zip(made, whole, strict=True))[: len(held)]
    with pytest.raises(Corrupt) as caught:
        hashes(media)
    assert caught.value.fields["actual"] == len(held) + 1
    event_of = dict(zip(whole, made, strict=True))
    assert [event for event in claims(media) if event in made] == [event_of[line] for line in damaged if line in whole]


def test_no_reader_takes_more_than_the_limit(media: Media, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write(media, 3)
    first, second, _ = map(len, lines_of(media))
    monkeypatch.setattr(log, "LOG_LIMIT", first + second)
    assert list(claims(media)) == made[:2]
    assert [event for event, _ in before_damage(media)] == made[:2]
    monkeypatch.setattr(log, "LOG_LIMIT", first + second - 1)
    assert list(claims(media)) == made[:1]
