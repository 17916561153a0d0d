"""The audit of a store: compares the medium with what the store must hold. Writes nothing in the store.

A `Scope` sets how much is read: `quick` examines names, types, sizes, refs, signatures, closures, log and index. `full`
reads every byte of every object as well; `sample` reads a random part of the objects; `budget` reads as many as fit
into a time, those first whose last reading is the longest ago. The store's own trust chain judges the signatures,
because an audit asks whether the store is consistent. Only the takeoff check, from a pinned root, decides whether a
mission may fly.

A mission is flyable only if every object that it needs was read and is whole: of a mission whose objects are in their
places and were not all read, an audit knows no more than that it is complete.

Each finding has a kind (FORMAT.md 8), the missions that it grounds, and a remedy. One damage is one finding, however
many missions need the damaged object. Data that cannot be read is a finding too, marked unreadable, and makes the audit
inconclusive, never clean.

The audit takes one folder of `objects/` after the other and keeps only ids and sizes of the closures, so that it needs
some 100 bytes of memory an object.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Literal

from store.audit.collector import RESTORE, FindingCollector, some
from store.audit.ledger import Ledger
from store.audit.objects import Objects, read_again
from store.audit.refs import Refs
from store.audit.scope import QUICK, Scope
from store.disk.layout import check_format
from store.disk.locks import SharedLock
from store.disk.media import FileStamp, Media, object_path
from store.disk.medium import Reading
from store.errors import FlightbagError, Unavailable
from store.findings import Finding
from store.format.ids import ObjectId
from store.ground.needs import UNKNOWN
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Opened
from store.takeoff.verify import open_mission
from store.values import dataclass, replace

# Objects in one chunk, so that large and small ones share the processors; and between two looks at the clock.
_AT_ONCE = 20_000
_CHUNK_OBJECTS, _CHUNK_BYTES = 256, 64 * 2**20
# Kinds of findings about objects that were hashed in full all the same.
_HASHED = frozenset({"bit-flip", "transient"})

Progress = Callable[[int, int], None]
MissionState = Literal["flyable", "not-read", "grounded", "withdrawn"]
"""The state of a mission after an audit. `not-read`: complete, and not every object that it needs was read.
`withdrawn`: no fault was found, and it flies nowhere."""


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of an audit: every finding, and the state of each mission.

    `objects` and `bytes` count the objects in their places, `read_objects` and `read_bytes` what was hashed from the
    first byte to the last, and `unread` counts those that neither were read nor have a finding. `notes` counts the
    findings that are information, by kind; `findings` has the first thousand of each kind.
    `damaged` has the objects that are needed and are missing or not whole, each with the most bytes that it may have.
    `forgetful` is the reason why the ledger could not record the reading, "" if it could. `reading` is how the medium
    was read.
    """

    findings: tuple[Finding, ...]
    missions: Mapping[str, MissionState]
    objects: int
    bytes: int
    read_objects: int
    read_bytes: int
    unread: int
    notes: Mapping[str, int]
    damaged: Mapping[ObjectId, int]
    forgetful: str
    reading: Reading

    @property
    def errors(self) -> bool:
        """Whether a finding is an error: neither information nor unreadable."""
        return any(not f.information and not f.unreadable for f in self.findings)

    @property
    def inconclusive(self) -> bool:
        """Whether something could not be read."""
        return any(f.unreadable for f in self.findings)


def fsck(
    media: Media,
    scope: Scope = QUICK,
    *,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Audit:
    """Audit a store and return the result.

    `progress` gets the number of bytes as they are read, and the total. `ledger` sets which objects are read first, and
    records the reading.

    Raise NoStore if the folder is not a store of this format, Unavailable if its flightbag.toml or its top level cannot
    be read, and Locked while a collection or a repair moves objects.
    """
    check_format(media)
    with _without_collections(media):
        return _fsck(media, scope, ledger, progress, clock)


@contextmanager
def _without_collections(media: Media) -> Iterator[None]:
    """Hold the store's lock shared, if it has one: no collection removes an object between listing and reading."""
    held = None
    try:
        with suppress(Unavailable):  # a medium without locks has no writers either
            held = None if media.remote else SharedLock.existing(media.path, "store", "the store")
        if held is not None:
            held.hold_shared(wait=False)
        yield
    finally:
        if held is not None:
            held.close()


def _fsck(
    media: Media,
    scope: Scope,
    ledger: Ledger | None,
    progress: Progress | None,
    clock: Callable[[], float],
) -> Audit:
    deadline = clock() + scope.amount
    collector = FindingCollector(media, exclusive=scope.exclusive)
    evidence = StoreEvidence(media)
    refs = Refs(collector, scope, evidence)
    refs.examine()
    objects = Objects(collector, scope, refs, ledger)
    objects.examine()
    reading = _Reading(collector, refs, ledger, progress or (lambda _done, _total: None))
    reading.read(objects.readable, scope, lambda: clock() >= deadline)
    _name_entries(collector, refs, evidence)
    grounded = {mission for finding in collector.errors.values() for mission in finding.missions}
    return Audit(
        collector.findings(),
        _states(refs, grounded, reading.whole),
        objects.number,
        objects.bytes,
        reading.number,
        reading.bytes,
        objects.sound - reading.tried,
        collector.notes,
        collector.damaged,
        reading.forgetful,
        media.reading,
    )


def _states(refs: Refs, grounded: set[str], whole: list[list[bytes]]) -> dict[str, MissionState]:
    """Return the state of each mission. `whole` has the rows of the objects that were read and are whole, by shard."""
    not_read: set[str] = set()
    for first, rows in enumerate(whole):
        ids = {row[16:] for row in rows}
        for need in refs.needs:
            mission = need.mission
            if mission and mission not in not_read and any(id_ not in ids for id_, _ in need.of_shard(first)):
                not_read.add(mission)
    states: dict[str, MissionState] = {
        mission: "not-read" if mission in not_read else "flyable" for mission in sorted(refs.holds)
    }
    for mission, holds in refs.holds.items():
        if not holds or mission in grounded:
            states[mission] = "grounded"
        elif mission in refs.withdrawn:
            states[mission] = "withdrawn"
    return states


class _Reading:
    """Reads objects in full, one chunk after the other.

    `tried` counts the objects that were to be read, `number` and `bytes` what was hashed in full: an object that cannot
    be read, or turns out to have another size, counts for nothing, whatever size the file system gives it.

    `whole` has the rows of those that are whole, by the first byte of the id.
    """

    def __init__(self, collector: FindingCollector, refs: Refs, ledger: Ledger | None, progress: Progress) -> None:
        self.collector = collector
        self.media = collector.media
        self.refs = refs
        self.ledger = ledger
        self.forgetful = ""  # see Audit.forgetful
        self.progress = progress
        self.tried = 0
        self.number = 0
        self.bytes = 0
        self.whole: list[list[bytes]] = [[] for _ in range(256)]

    def read(self, rows: list[bytes], scope: Scope, over: Callable[[], bool]) -> None:
        """Read those of the rows (see `Objects.readable`) that the scope selects, until `over` answers true."""
        if scope.read == "sample":
            count = math.ceil(len(rows) * scope.amount)
            rows = [rows[number] for number in sorted(random.SystemRandom().sample(range(len(rows)), count))]
        if scope.read == "budget":
            rows.sort()
            chunks = _chunks(rows, _CHUNK_OBJECTS, _CHUNK_BYTES)
        else:
            chunks = _chunks(rows, _AT_ONCE, UNKNOWN)
        total = sum(int.from_bytes(row[8:16], "big") for row in rows)
        self.progress(0, total)
        for chunk in chunks:
            items = [(ObjectId(row[16:]), int.from_bytes(row[8:16], "big")) for row in chunk]
            bad = self.read_chunk(items, lambda count, _asked_for: self.progress(count, total))
            for row, (id_, _) in zip(chunk, items, strict=True):
                if id_ not in bad:
                    self.whole[id_[0]].append(row)
            if scope.read == "budget" and over():
                return

    def read_chunk(
        self, items: list[tuple[ObjectId, int]], progress: Callable[[int, int], None]
    ) -> Mapping[ObjectId, FlightbagError]:
        """Read objects, and add findings about those that are not whole. Return these, with what is wrong."""
        whole: dict[ObjectId, FileStamp] = {}
        # Evidence remembers the objects that it has read: one for each chunk bounds the memory.
        evidence = StoreEvidence(self.media, progress, whole.__setitem__ if self.ledger is not None else None)
        bad = {id_: outcome for id_, outcome in evidence.check_objects(items) if outcome is not None}
        self.tried += len(items)
        for id_, size in items:
            if id_ not in bad or self.add_damaged(id_, size, bad[id_]) in _HASHED:
                self.number += 1
                self.bytes += size
        if self.ledger is not None:
            try:
                self.ledger.enter(whole.items(), bad, int(time.time()))
            except Unavailable as error:
                self.ledger, self.forgetful = None, error.message
        return bad

    def add_damaged(self, id_: ObjectId, size: int, error: FlightbagError) -> str:
        """Add the finding about an object that is not whole, and return its kind."""
        finding = read_again(self.media, Finding.of(error, remedy=RESTORE), id_, size)
        wanted = [(need, size) for need in self.refs.needs for one, size in need.of_shard(id_[0]) if one == id_]
        self.collector.add(replace(finding, object=str(id_), path=self.media.absolute(object_path(id_))))
        self.collector.ground(str(id_), wanted)
        if finding.kind != "transient":
            self.collector.damaged[id_] = size
        return finding.kind


def _chunks(rows: Sequence[bytes], objects: int, size: int) -> Iterator[list[bytes]]:
    """Yield chunks of at most `objects` rows; a chunk ends with the row that brings its sum to `size` bytes or more."""
    chunk: list[bytes] = []
    total = 0
    for row in rows:
        chunk.append(row)
        total += int.from_bytes(row[8:16], "big")
        if len(chunk) >= objects or total >= size:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk


def _name_entries(collector: FindingCollector, refs: Refs, evidence: StoreEvidence) -> None:
    """Add the names of their entries to damaged objects. Reading the tables again costs less than keeping all names."""
    wanted = {finding.object for finding in collector.errors.values() if finding.object and not finding.entry}
    names: dict[str, set[str]] = {}
    grounded = {
        mission for finding in collector.errors.values() if finding.object in wanted for mission in finding.missions
    }
    for mission in sorted(grounded):
        opened = open_mission(evidence, mission, refs.trust_root) if refs.trust_root is not None else ()
        if not isinstance(opened, Opened):
            continue
        for id_, name in (
            (opened.manifest_id, "manifest"),
            (opened.manifest.table, "table"),
            *((release, "release") for release in opened.manifest.releases),
            *((entry.id, entry.name) for entry in opened.table.entries),
        ):
            if str(id_) in wanted:
                names.setdefault(str(id_), set()).add(name)
    for about, finding in collector.errors.items():
        entries = sorted(names.get(finding.object, ()))
        if entries and not finding.entry:
            collector.errors[about] = replace(finding, entry=some(entries))
