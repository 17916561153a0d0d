"""The store's log: one JSON line an event, each with the hash of the line before. Append-only.

The log tells what happened; the refs say what is current. A last line that is torn (no newline) is cut before the
next append, because a power cut may leave one; anything else that does not chain is Corrupt.
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
# Those that move a ref; they name mission, manifest and sequence.
MOVES = ("published", "received", "rolled-back")
EVENTS = (*MOVES, "signed", "rotated", "repaired", "collected")


@dataclass(frozen=True, slots=True)
class Event:
    """One line: when (unix seconds), what, and its facts."""

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
    """Adds a line, durable when this returns. The caller holds the lock that allows one writer."""
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
    """Every event, oldest first. Raises Corrupt(kind=bad-log) where a line is malformed or does not chain."""
    try:
        data = media.read(LOG, LOG_LIMIT)
    except NotFound:
        return []
    return [event for event, _ in _lines(media, data)]


def hashes(media: Media) -> list[str]:
    """The hash of each line, oldest first: what the next one begins with. Raises Corrupt as `events` does."""
    try:
        data = media.read(LOG, LOG_LIMIT)
    except NotFound:
        return []
    return [_hash(line) for _, line in _lines(media, data)]


def before_damage(media: Media) -> list[tuple[Event, bytes]]:
    """The events before the first line that is malformed or does not chain, with their lines."""
    found: list[tuple[Event, bytes]] = []
    with suppress(Corrupt, NotFound):
        for item in _lines(media, _first_bytes(media)):
            found.append(item)
    return found


def claims(media: Media) -> Iterator[Event]:
    """Every event of a line that is well-formed by itself, also behind damage.

    Nothing vouches for it: for those who judge by signatures what it names.
    """
    with suppress(Corrupt, NotFound):
        for line in _whole_lines(_first_bytes(media)):
            parsed = _parsed(line)
            if parsed is not None:
                yield parsed[0]


def _first_bytes(media: Media) -> bytes:
    """As much of the log as is ever read."""
    return b"".join(media.chunks(LOG, LOG_LIMIT))[:LOG_LIMIT]


def _lines(media: Media, data: bytes) -> Iterator[tuple[Event, bytes]]:
    previous = FIRST
    for number, line in enumerate(_whole_lines(data), 1):
        parsed = _parsed(line)
        if parsed is None:
            raise _bad(media, number, "is malformed")
        found, claimed = parsed
        if claimed != previous:
            raise _bad(media, number, "does not continue the line before")
        previous = _hash(line)
        yield found, line


def _parsed(line: bytes) -> tuple[Event, str] | None:
    """The event of a line and what it claims to be the hash of the line before; None for a malformed one."""
    try:
        value = json.loads(line)
        found, claimed = Event(value.pop("at"), value.pop("event"), value), value.pop("previous")
        return (found, claimed) if _line(found, claimed) == line and _is_event(found) else None
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None


def _is_event(event: Event) -> bool:
    """Whether an event has the facts that its kind has, each of its type."""
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
        remedy="the refs stand without the log: find out who changed it, keep it aside, and a new one begins",
        kind="bad-log",
        path=media.absolute(LOG),
        actual=number,
    )
