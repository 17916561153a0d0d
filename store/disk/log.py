"""The log of a store (FORMAT.md 2.3): one JSON line an event, each line with the BLAKE3 of the line before.
Append-only.

The log records what happened; the refs name what is current. A power cut may leave a torn last line (no newline): the
next append cuts it. Every other line that does not continue the one before is Corrupt. The chain is not signed: nothing
that flies rests on it. This module reads and writes lines; it derives no history from them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from store.disk.durable import Disk
from store.disk.media import Media
from store.errors import Corrupt, NotFound
from store.format.cbor import INT_MAX
from store.format.ids import is_hex
from store.format.manifest import MISSION_ID, TIME_MAX

LOG = "log"
LOG_LIMIT = 64 * 2**20
FIRST = "0" * 64
# The events that move a ref; their facts are mission, manifest and sequence.
MOVES = ("published", "received", "rolled-back")
EVENTS = (*MOVES, "signed", "rotated", "ordered", "withdrawn", "repaired", "collected")


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


def append(media: Media, disk: Disk, event: Event) -> None:
    """Append a line. It is durable when this returns. The caller holds the lock `log`."""
    assert event.event in EVENTS
    try:
        data = media.read(LOG, LOG_LIMIT)
    except NotFound:
        data = b""
    lines = list(_whole_lines(data))
    previous = _hash(lines[-1]) if lines else FIRST
    disk.append(media.absolute(LOG), _line(event, previous), sum(map(len, lines)))
    if not lines:
        disk.sync_directory(media.path)


def events(media: Media) -> list[Event]:
    """Return every event, oldest first.

    Raises Corrupt (kind bad-log) for a line that is malformed or does not chain.
    """
    try:
        data = media.read(LOG, LOG_LIMIT)
    except NotFound:
        return []
    return [event for event, _ in _lines(media, data)]


def hashes(media: Media) -> list[str]:
    """Return the hash of each line, in hex, oldest first: the `previous` of the next line.

    Raises Corrupt as `events` does.
    """
    try:
        data = media.read(LOG, LOG_LIMIT)
    except NotFound:
        return []
    return [_hash(line) for _, line in _lines(media, data)]


def before_damage(media: Media) -> list[tuple[Event, bytes]]:
    """Return the events before the first line that is malformed or does not chain, each with its line."""
    items: list[tuple[Event, bytes]] = []
    with suppress(Corrupt, NotFound):
        for item in _lines(media, _first_bytes(media)):
            items.append(item)
    return items


def claims(media: Media) -> Iterator[Event]:
    """Yield the event of every line that is well-formed by itself, also after a damaged line.

    Nothing vouches for these events: they are for callers that check the signatures of what an event names.
    """
    with suppress(Corrupt, NotFound):
        for line in _whole_lines(_first_bytes(media)):
            parsed = _parsed(line)
            if parsed is not None:
                yield parsed[0]


def _first_bytes(media: Media) -> bytes:
    """The first LOG_LIMIT bytes of the log: no reader takes more."""
    return b"".join(media.chunks(LOG, LOG_LIMIT))[:LOG_LIMIT]


def _lines(media: Media, data: bytes) -> Iterator[tuple[Event, bytes]]:
    previous = FIRST
    for number, line in enumerate(_whole_lines(data), 1):
        parsed = _parsed(line)
        if parsed is None:
            raise _bad(media, number, "is malformed")
        event, claimed = parsed
        if claimed != previous:
            raise _bad(media, number, "does not continue the line before")
        previous = _hash(line)
        yield event, line


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


def _bad(media: Media, number: int, why: str) -> Corrupt:
    return Corrupt(
        f"line {number} of the log {why}",
        remedy="the refs hold without the log: find out who changed it, then run store-fsck --repair",
        kind="bad-log",
        path=media.absolute(LOG),
        actual=number,
    )
