"""The audit of a store: what is on the medium, against what it must be. Writes nothing in the store.

A `Scope` says how much is read: `quick` looks at names, types, sizes, refs, signatures, closures, log and index;
`full` reads every byte of every object besides; `sample` reads a random part of them, `budget` as many as fit into a
time, those first that were not read for longest. Signatures are judged by the store's own trust chain, because an audit
asks whether the store is consistent; whether it may fly, the takeoff check says, from a pinned root.

Each finding has a kind (FORMAT.md 8), the missions that it grounds, and a remedy. One damage is one finding, however
many missions need what is damaged. What could not be read is a finding that says so, and makes the audit
inconclusive, never clean.

Objects are looked at one folder of `objects/` after the other, and of the closures only ids and sizes are kept, so that
the memory is some 100 bytes an object.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from store.audit.ledger import Ledger
from store.audit.objects import Objects, again
from store.audit.refs import Refs
from store.audit.scope import QUICK, Scope
from store.audit.told import RESTORE, Told, some
from store.disk.layout import check_format
from store.disk.locks import SharedLock
from store.disk.media import FileStamp, Media, object_path
from store.errors import FlightbagError, Unavailable
from store.findings import Finding
from store.format.ids import ObjectId
from store.ground.needs import UNKNOWN
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Opened
from store.takeoff.verify import open_mission

# Objects read at once, so that large and small ones share the processors; and between two looks at the clock.
_AT_ONCE = 20_000
_CHUNK_OBJECTS, _CHUNK_BYTES = 256, 64 * 2**20

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Audit:
    """The result: every finding, and for each mission whether it is flyable by what was looked at.

    `objects` and `bytes` count what lies under `objects/` in its place, `read_objects` and `read_bytes` what was
    read in full. `notes` counts the findings that are information, by kind: `findings` has the first thousand of each.
    `damaged` are the objects that something needs and that are not there whole, with the most bytes that each can have.
    `forgetful` says why the ledger does not remember what was read, where it does not.
    """

    findings: tuple[Finding, ...]
    missions: Mapping[str, bool]
    objects: int
    bytes: int
    read_objects: int
    read_bytes: int
    notes: Mapping[str, int]
    damaged: Mapping[ObjectId, int]
    forgetful: str = ""

    @property
    def errors(self) -> bool:
        return any(not f.information and not f.unreadable for f in self.findings)

    @property
    def inconclusive(self) -> bool:
        return any(f.unreadable for f in self.findings)


def fsck(
    media: Media,
    scope: Scope = QUICK,
    *,
    ledger: Ledger | None = None,
    on_finding: Callable[[Finding], None] | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Audit:
    """Audits a store.

    `on_finding` is given every finding, the notes among them, when all of it is known. `progress` is told the bytes as they
    are read, and how many there are to read in all. `ledger` says what to read first, and learns what was read.

    Raises NotFound where there is no store, Invalid for another format, Corrupt or Unavailable where its flightbag.toml
    or its top level cannot be read, and Locked while a collection or a repair moves objects.
    """
    check_format(media)
    with _nobody_collecting(media):
        return _fsck(media, scope, ledger, on_finding, progress, clock)


@contextmanager
def _nobody_collecting(media: Media) -> Iterator[None]:
    """Holds the store's lock shared, where there is one: what is listed is then there when it is looked at."""
    held = None
    try:
        with suppress(Unavailable):  # no locks on this medium: then nobody writes to it either
            held = SharedLock.existing(media.path, "store", "the store")
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
    on_finding: Callable[[Finding], None] | None,
    progress: Progress | None,
    clock: Callable[[], float],
) -> Audit:
    deadline = clock() + scope.amount
    told = Told(media, on_finding or (lambda _: None), exclusive=scope.exclusive)
    evidence = StoreEvidence(media)
    refs = Refs(told, scope, evidence)
    refs.look()
    objects = Objects(told, scope, refs, ledger)
    objects.look()
    reading = _Reading(told, refs, ledger, progress or (lambda _done, _total: None))
    reading.read(objects.readable, scope, lambda: clock() >= deadline)
    _name_entries(told, refs, evidence)
    grounded = {mission for finding in told.errors.values() for mission in finding.missions}
    return Audit(
        told.findings(),
        {mission: whole and mission not in grounded for mission, whole in sorted(refs.flyable.items())},
        objects.number,
        objects.bytes,
        reading.number,
        reading.bytes,
        told.notes,
        told.damaged,
        reading.forgetful,
    )


class _Reading:
    """Reads objects in full, a chunk of them at a time. `number` and `bytes` are what was read."""

    def __init__(self, told: Told, refs: Refs, ledger: Ledger | None, progress: Progress) -> None:
        self.told = told
        self.media = told.media
        self.refs = refs
        self.ledger = ledger
        self.forgetful = ""  # why the ledger does not remember
        self.progress = progress
        self.number = 0
        self.bytes = 0

    def read(self, rows: list[bytes], scope: Scope, over: Callable[[], bool]) -> None:
        """Reads those of the rows (see `Objects.readable`) that the scope asks for; `over`: the time is up."""
        if scope.read == "sample":
            count = math.ceil(len(rows) * scope.amount)
            rows = [rows[number] for number in sorted(random.SystemRandom().sample(range(len(rows)), count))]
        if scope.read == "budget":
            rows.sort()
            chunks = _chunks(rows, _CHUNK_OBJECTS, _CHUNK_BYTES)
        else:
            chunks = _chunks(rows, _AT_ONCE, UNKNOWN)
        total = sum(int.from_bytes(row[8:16]) for row in rows)
        self.progress(0, total)
        for chunk in chunks:
            items = [(ObjectId(row[16:]), int.from_bytes(row[8:16])) for row in chunk]
            self.read_chunk(items, lambda count: self.progress(count, total))
            if scope.read == "budget" and over():
                return

    def read_chunk(self, items: list[tuple[ObjectId, int]], progress: Callable[[int], None]) -> None:
        whole: dict[ObjectId, FileStamp] = {}
        # Evidence remembers what it has read; one for each chunk, so that the memory is that of a chunk.
        evidence = StoreEvidence(self.media, progress, whole.__setitem__ if self.ledger is not None else None)
        bad = {id_: outcome for id_, outcome in evidence.check_objects(items) if outcome is not None}
        for id_, size in items:
            if id_ in bad:
                self.bad(id_, size, bad[id_])
        self.number += len(items)
        self.bytes += sum(size for _, size in items)
        if self.ledger is not None:
            try:
                self.ledger.enter(whole.items(), bad, int(time.time()))
            except Unavailable as error:
                self.ledger, self.forgetful = None, error.message

    def bad(self, id_: ObjectId, size: int, error: FlightbagError) -> None:
        """Tells what was found wrong with an object when it was read."""
        finding = again(self.media, Finding.of(error, remedy=RESTORE), id_, size)
        wanted = [(need, size) for need in self.refs.needs for one, size in need.of_shard(id_[0]) if one == id_]
        self.told.tell(replace(finding, object=str(id_), path=self.media.absolute(object_path(id_))))
        self.told.grounds(str(id_), wanted)
        if finding.kind != "transient":
            self.told.damaged[id_] = size


def _chunks(rows: Sequence[bytes], objects: int, size: int) -> Iterator[list[bytes]]:
    """Parts of at most so many objects, that end with the one that makes up `size` bytes."""
    chunk: list[bytes] = []
    total = 0
    for row in rows:
        chunk.append(row)
        total += int.from_bytes(row[8:16])
        if len(chunk) >= objects or total >= size:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk


def _name_entries(told: Told, refs: Refs, evidence: StoreEvidence) -> None:
    """Names the entries of damaged objects. The tables are read again: to keep all of their names costs more."""
    wanted = {finding.object for finding in told.errors.values() if finding.object and not finding.entry}
    names: dict[str, set[str]] = {}
    grounded = {mission for finding in told.errors.values() if finding.object in wanted for mission in finding.missions}
    for mission in sorted(grounded):
        opened = open_mission(evidence, mission, refs.first) if refs.first is not None else ()
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
    for about, finding in told.errors.items():
        found = sorted(names.get(finding.object, ()))
        if found and not finding.entry:
            told.errors[about] = replace(finding, entry=some(found))
