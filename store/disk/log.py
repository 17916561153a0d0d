"""The log of a store (FORMAT.md 2.3): one JSON line an event, each line with the BLAKE3 of the line before.
Append-only.

The log records what happened; the refs name what is current. A power cut may leave a torn last line (no newline): the
next append cuts it. Every other line that does not continue the one before is Corrupt. The chain is not signed: nothing
that flies rests on it. This module reads and writes lines; it derives no history from them.

A log that a line would bring beyond its limit is copied to a part, `log.1` and so on, and then begins anew with that
line. The chain goes on from file to file, and every reader reads all of them. It is copied and not renamed, because a
power cut may take a name away and not bring the other. A crash between the two steps leaves a `log` that has the lines
of the last part, which count once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from blake3 import blake3

from store.disk.durable import Disk, replace_file
from store.disk.media import Media
from store.disk.staging import Staging
from store.errors import Corrupt, NotFound, Refused
from store.format.cbor import INT_MAX
from store.format.ids import is_hex
from store.format.manifest import MISSION_ID, TIME_MAX
from store.values import dataclass

LOG = "log"
LOG_LIMIT = 64 * 2**20
MAX_PARTS = 9
PART = re.compile(rf"{LOG}\.[1-{MAX_PARTS}]")
FIRST = "0" * 64
# The events that move a ref; their facts are mission, manifest and sequence.
MOVES = ("published", "received", "rolled-back")
EVENTS = (*MOVES, "removed", "signed", "rotated", "ordered", "withdrawn", "repaired", "collected")


@dataclass(frozen=True, slots=True)
class Event:
    """One line: `at` (unix seconds), `event` (one of EVENTS), and the facts that belong to that event."""

    at: int
    event: str
    facts: dict[str, Any]


def _line(event: Event, previous: str) -> bytes:
    value = {"at": event.at, "event": event.event, "previous": previous, **event.facts}
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _hash(line: bytes) -> str:
    return blake3(line).hexdigest()


def _whole_lines(data: bytes) -> Iterator[bytes]:
    end = data.rfind(b"\n") + 1
    return iter(data[:end].splitlines(keepends=True))


def files(media: Media) -> list[str]:
    """Return the names of the files of the log, the oldest first; the last one, `log`, also where it is not there."""
    names = []
    for number in range(1, MAX_PARTS + 1):
        with suppress(NotFound):
            media.file_type(name := f"{LOG}.{number}")
            names.append(name)
    return [*names, LOG]


def append(media: Media, disk: Disk, event: Event) -> None:
    """Append a line. It is durable when this returns. The caller holds the lock `log`.

    Raises Refused (kind log-full) where all parts are full.
    """
    assert event.event in EVENTS
    *parts, _ = files(media)
    part = _lines_of_file(media, parts[-1]) if parts else []
    lines = _lines_of_file(media, LOG)
    last = lines or part
    line = _line(event, _hash(last[-1]) if last else FIRST)
    keep = sum(map(len, lines))
    is_copied = bool(lines) and lines == part
    if not is_copied and keep + len(line) <= LOG_LIMIT:
        disk.append(media.absolute(LOG), line, keep)
        if not lines:
            disk.sync_directory(media.path)
        return
    with Staging(media, disk) as staging:
        if not is_copied:
            name = _next_part(media, parts, len(line))
            # Without the torn line, which no reader of a part allows.
            replace_file(disk, media.absolute(name), b"".join(lines), staging.folder())
        replace_file(disk, media.absolute(LOG), line, staging.folder())


def _next_part(media: Media, parts: list[str], more: int) -> str:
    number = int(parts[-1].rpartition(".")[2]) + 1 if parts else 1
    if number > MAX_PARTS or more > LOG_LIMIT:
        raise Refused(
            f"the log of {media.path} has no room for a line of {more} bytes",
            remedy="sync the store to a new folder, whose log begins anew, and keep this one for its log",
            kind="log-full",
        )
    return f"{LOG}.{number}"


def _lines_of_file(media: Media, name: str) -> list[bytes]:
    return list(_whole_lines(_whole(media, name)))


def _whole(media: Media, name: str) -> bytes:
    """Return the bytes of a file of the log; none where it is not there. Raises Corrupt for too many."""
    try:
        return media.read(name, LOG_LIMIT)
    except NotFound:
        return b""


def rendered(events: Iterable[Event]) -> bytes:
    """Return the bytes of a log that has these events alone."""
    lines: list[bytes] = []
    for event in events:
        assert event.event in EVENTS
        lines.append(_line(event, _hash(lines[-1]) if lines else FIRST))
    return b"".join(lines)


def events(media: Media) -> list[Event]:
    """Return every event, oldest first.

    Raises Corrupt (kind bad-log) for a line that is malformed or does not chain.
    """
    return [event for _, event, _ in _lines(media, _whole)]


def hashes(media: Media) -> list[str]:
    """Return the hash of each line, in hex, oldest first: the `previous` of the next line.

    Raises Corrupt as `events` does.
    """
    return [_hash(line) for _, _, line in _lines(media, _whole)]


def before_damage(media: Media) -> list[tuple[Event, bytes]]:
    """Return the events before the first line that is malformed or does not chain, each with its line."""
    items: list[tuple[Event, bytes]] = []
    with suppress(Corrupt, NotFound):
        for _, event, line in _lines(media, _first_bytes):
            items.append((event, line))
    return items


def mended(media: Media) -> tuple[list[str], bytes]:
    """Return the parts from the first damage on, and what the file `log` has to hold in their place: the lines of the
    first of them that hold. Parts before the damage stay. Without one that is damaged: the lines of `log` that hold."""
    names = files(media)
    held: dict[str, list[bytes]] = {name: [] for name in names}
    seen: list[str] = []

    def read(media: Media, name: str) -> bytes:
        seen.append(name)
        return _first_bytes(media, name)

    damaged = LOG
    try:
        for name, _, line in _lines(media, read):
            held[name].append(line)
    except (Corrupt, NotFound):
        damaged = seen[-1]
    return names[names.index(damaged) : -1], b"".join(held[damaged])


def claims(media: Media) -> Iterator[Event]:
    """Yield the event of every line that is well-formed by itself, also after a damaged line.

    Nothing vouches for these events: they are for callers that check the signatures of what an event names.
    """
    before: list[bytes] = []
    for name, data in _read_files(media, _readable_bytes):
        lines = list(_whole_lines(data))
        if name == LOG and lines == before:
            return
        before = lines
        for line in lines:
            parsed = _parsed(line)
            if parsed is not None:
                yield parsed[0]


def _readable_bytes(media: Media, name: str) -> bytes:
    try:
        return _first_bytes(media, name)
    except Corrupt:
        return b""


def _read_files(media: Media, read: Callable[[Media, str], bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the log, the oldest first, each with its bytes. No reader has the lock: a part that a writer
    made of `log` since the files were listed comes before it, and `log` is read again."""
    done: set[str] = set()
    left = files(media)
    while left:
        name = left.pop(0)
        data = read(media, name)
        if name == LOG and (new := [one for one in files(media) if one not in done and one != LOG]):
            left = [*new, LOG]
            continue
        done.add(name)
        yield name, data


def _first_bytes(media: Media, name: str) -> bytes:
    """The first LOG_LIMIT bytes of a file of the log, none of one that is not there: no reader takes more."""
    try:
        return b"".join(media.chunks(name, LOG_LIMIT))[:LOG_LIMIT]
    except NotFound:
        return b""


def _lines(media: Media, read: Callable[[Media, str], bytes]) -> Iterator[tuple[str, Event, bytes]]:
    """Yield the lines of all files, the oldest first, each with the name of its file and its event."""
    previous, number = FIRST, 0
    before: list[bytes] = []
    for name, data in _read_files(media, read):
        lines = list(_whole_lines(data))
        if name == LOG and lines == before:
            return  # the log was copied to the last part, and not begun anew yet
        before = lines
        for line in lines:
            number += 1
            parsed = _parsed(line)
            if parsed is None:
                raise _bad(media, name, number, "is malformed")
            event, claimed = parsed
            if claimed != previous:
                raise _bad(media, name, number, "does not continue the line before")
            previous = _hash(line)
            yield name, event, line
        if name != LOG and not data.endswith(b"\n"):
            raise _bad(media, name, number + 1, "is cut")


def _parsed(line: bytes) -> tuple[Event, str] | None:
    """The event of a line and the hash that it claims for the line before; None for a malformed line."""
    try:
        value = json.loads(line)
        event, claimed = Event(value.pop("at"), value.pop("event"), value), value.pop("previous")
        return (event, claimed) if _line(event, claimed) == line and _is_event(event) else None
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None


def _is_event(event: Event) -> bool:
    """Whether an event is one of EVENTS, with a valid time and, if it moves a ref, with valid facts."""
    if type(event.at) is not int or not 0 <= event.at <= TIME_MAX or event.event not in EVENTS:
        return False
    if event.event not in MOVES:
        return True
    mission, manifest, sequence = (event.facts.get(key) for key in ("mission", "manifest", "sequence"))
    return (
        type(mission) is str
        and MISSION_ID.fullmatch(mission) is not None
        and type(manifest) is str
        and is_hex(manifest)
        and type(sequence) is int
        and 0 < sequence <= INT_MAX
    )


def _bad(media: Media, name: str, number: int, why: str) -> Corrupt:
    return Corrupt(
        f"line {number} of the log {why}",
        remedy="the refs hold without the log: find out who changed it, then run store-fsck --repair",
        kind="bad-log",
        path=media.absolute(name),
        actual=number,
    )
