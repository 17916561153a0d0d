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
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Literal

from store import log
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Unavailable
from store.evidence import ROOT_FILE, StoreEvidence
from store.findings import Finding
from store.format import manifest
from store.format.cose import Envelope
from store.format.entries import TABLE_LIMIT
from store.format.ids import ObjectId
from store.format.manifest import MISSION_ID
from store.index import Row, peek_index
from store.ledger import Ledger
from store.locks import SharedLock
from store.media import Media, Stamp, kind_of, object_path
from store.needs import DRAFTS, PINS, UNKNOWN, Need, is_manifest, need_of, need_of_unsigned, pinned_id
from store.repository import TOML, check_format
from store.trust.root import SignedRoot, advance
from store.verify import COPY_AGAIN, ENVELOPE_LIMIT, Opened, open_manifest, open_mission

FOLDERS = frozenset({"missions", "objects", "trust", "drafts", "pins", "index", "tmp", "quarantine", "trash", "lock"})
FILES = frozenset({TOML, log.LOG})
_SHARD = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{62}")
_RESTORE = "run store-fsck --repair --from a store that has it whole"
_REMOVE = "remove it, if it is not yours; store-fsck --repair moves it to quarantine/"
# Folders whose files are listed nowhere else, and the names that they may have.
_CONTENTS = {
    "lock": re.compile(rf"store|index|log|trust|heal|build-[0-9a-f]{{2}}|mission-{MISSION_ID.pattern}"),
    "index": re.compile(r"owner|data\.mdb|lock\.mdb"),
    "drafts": MISSION_ID,
    "pins": MISSION_ID,
    "trust/releases": re.compile(r"(?!)"),
}
# Folders of what was taken out of its place: a folder for each time, and in it anything.
_ASIDE = ("quarantine", "trash")
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
# What the takeoff check says of an object that an audit says in the same words.
_OF_OBJECTS = frozenset({"missing", "truncated", "oversized", "bit-flip", "wrong-type"})
# How many notes of one kind an audit keeps, and how many names a finding spells out.
_KEPT, _NAMED = 1000, 4
# Objects read at once, so that large and small ones share the processors; and between two looks at the clock.
_AT_ONCE = 20_000
_CHUNK_OBJECTS, _CHUNK_BYTES = 256, 64 * 2**20

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Scope:
    """What an audit looks at.

    `amount` is the fraction of the objects that a `sample` reads, above 0 and at most 1, and the seconds of a `budget`.
    With `mission`, only what that mission needs is looked at. `exclusive` makes errors of what no closure needs: how an
    aircraft's store is audited for objects that somebody smuggled in.
    """

    read: Literal["quick", "full", "sample", "budget"] = "quick"
    amount: float = 0
    mission: str = ""
    exclusive: bool = False

    def __post_init__(self) -> None:
        if self.read == "sample" and not 0 < self.amount <= 1:
            raise Invalid("a sample is more than 0 % and at most 100 %")
        if self.read == "budget" and not self.amount > 0:
            raise Invalid("a budget is more than 0 seconds")
        if self.mission and not MISSION_ID.fullmatch(self.mission):
            raise Invalid(f"{self.mission[:80]!r} is no mission id")
        if self.mission and self.exclusive:
            raise Invalid("what one mission needs says nothing of what else is there: --exclusive needs all missions")


QUICK, FULL = Scope(), Scope("full")


@dataclass(frozen=True, slots=True)
class Audit:
    """The result: every finding, and for each mission whether it is flyable by what was looked at.

    `objects` and `bytes` count what lies under `objects/` in its place, `read_objects` and `read_bytes` what was
    read in full. `notes` counts the findings that are information, by kind: `findings` has the first thousand of each.
    `damaged` are the objects that something needs and that are not there whole, with the most bytes that each can have.
    """

    findings: tuple[Finding, ...]
    missions: Mapping[str, bool]
    objects: int
    bytes: int
    read_objects: int
    read_bytes: int
    notes: Mapping[str, int]
    damaged: Mapping[ObjectId, int]

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
    tell: Callable[[Finding], None] | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Audit:
    """Audits a store.

    `tell` is given every finding, the notes among them, when all of it is known. `progress` is told the bytes as they
    are read, and how many there are to read in all. `ledger` says what to read first, and learns what was read.

    Raises NotFound where there is no store, Invalid for another format, Corrupt or Unavailable where its flightbag.toml
    or its top level cannot be read, Locked while a collection or a repair moves objects, and Unavailable for a ledger
    that cannot be written.
    """
    check_format(media)
    with _nobody_collecting(media):
        return _fsck(media, scope, ledger, tell, progress, clock)


@contextmanager
def _nobody_collecting(media: Media) -> Iterator[None]:
    """Holds the store's lock shared, where there is one: what is listed is then there when it is looked at."""
    held = None
    try:
        with suppress(Unavailable):  # no locks on this medium: then nobody writes to it either
            held = SharedLock.existing(media.path, "store", "the store")
        if held is not None:
            held.share(wait=False)
        yield
    finally:
        if held is not None:
            held.close()


def _fsck(
    media: Media,
    scope: Scope,
    ledger: Ledger | None,
    tell: Callable[[Finding], None] | None,
    progress: Progress | None,
    clock: Callable[[], float],
) -> Audit:
    deadline = clock() + scope.amount
    auditor = _Auditor(media, scope, ledger, tell, progress)
    if scope.mission:
        auditor.one_mission()
    else:
        auditor.top_level()
        auditor.log()
        auditor.missions()
        auditor.pins()
        auditor.drafts()
    auditor.objects()
    auditor.read(lambda: clock() >= deadline)
    return auditor.audit()


@dataclass(slots=True)
class _Shard:
    """What is known of one folder of objects while it is looked at."""

    first: int
    # Who needs an object, and of what size.
    needed: dict[ObjectId, list[tuple[Need, int]]] = field(default_factory=dict)
    sizes: dict[ObjectId, int] = field(default_factory=dict)
    stamps: dict[ObjectId, Stamp] = field(default_factory=dict)
    # The finding that explains that an object is not in its place: by its id, or by "" for all of the folder.
    blame: dict[ObjectId | Literal[""], str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"objects/{self.first:02x}"


class _Auditor:
    def __init__(
        self,
        media: Media,
        scope: Scope,
        ledger: Ledger | None,
        tell: Callable[[Finding], None] | None,
        progress: Progress | None,
    ) -> None:
        self.media = media
        self.scope = scope
        self.ledger = ledger
        self.teller = tell or (lambda _: None)
        self.progress = progress or (lambda _done, _total: None)
        self.to_read = 0
        # What was found whole since the ledger was last told.
        self.whole: dict[ObjectId, Stamp] = {}
        self.evidence = StoreEvidence(
            media,
            lambda count: self.progress(count, self.to_read),
            self.whole.__setitem__ if ledger is not None else None,
        )
        self.first: SignedRoot | None = None
        self.moved: dict[str, int] = {}  # how often the log says that a mission's ref was moved
        self.flyable: dict[str, bool] = {}
        self.needs: list[Need] = []
        self.closures_known = True
        # Errors by what they are about: an object's id, or a path.
        self.errors: dict[str, Finding] = {}
        # What steps A to D of the takeoff check said of an object; whether its place explains it, its folder tells.
        self.pending: dict[ObjectId, Finding] = {}
        self.kept: list[Finding] = []
        self.notes: dict[str, int] = {}
        self.damaged: dict[ObjectId, int] = {}
        self.lacking: dict[str, list[ObjectId]] = {}
        # verified (0: never), size, id: what may be read, at 48 bytes each
        self.readable: list[bytes] = []
        self.counts = {"objects": 0, "bytes": 0, "read_objects": 0, "read_bytes": 0}

    # -- what is told

    def tell(self, finding: Finding, about: str = "") -> None:
        """Adds an error; where the same damage was told before, only the missions that it grounds."""
        key = about or finding.object or finding.path
        known = self.errors.get(key, finding)
        missions = tuple(sorted({*known.missions, *finding.missions}))
        self.errors[key] = replace(known, missions=missions)

    def note(self, finding: Finding) -> None:
        """Adds a finding that grounds nothing."""
        finding = replace(finding, information=True)
        self.notes[finding.kind] = self.notes.get(finding.kind, 0) + 1
        if self.notes[finding.kind] <= _KEPT:
            self.kept.append(finding)
        self.teller(finding)

    def foreign(self, finding: Finding) -> None:
        """Something that no mission needs: information on the ground, an error where only missions may be."""
        if self.scope.exclusive:
            remedy = "find out who put it there; sync the missions to a store of their own, or collect with gc"
            self.tell(replace(finding, remedy=remedy))
        else:
            self.note(finding)

    def of_object(self, kind: str, id_: ObjectId, text: str) -> Finding:
        path = self.media.absolute(object_path(id_))
        return Finding(kind, f"object {id_} {text}", object=str(id_), path=path)

    def names(self, name: str, *, needed: bool) -> list[str] | None:
        """The names in a folder of the store; None where there is a finding instead."""
        try:
            return self.media.names(name)
        except NotFound as error:
            if not needed:
                return []
            self.tell(Finding.of(error, remedy=COPY_AGAIN))
        except FlightbagError as error:
            self.tell(Finding.of(error, remedy=COPY_AGAIN))
        return None

    # -- the top, and the small folders

    def top_level(self) -> None:
        for name in self.media.names(""):
            path = self.media.absolute(name)
            try:
                kind = self.media.kind(name)
            except FlightbagError as error:
                self.tell(Finding.of(error))
                continue
            if name not in FOLDERS and name not in FILES:
                self.stray(name)
            elif kind != ("directory" if name in FOLDERS else "file"):
                self.tell(Finding("wrong-type", f"{name} is a {kind}", path=path, actual=kind, remedy=COPY_AGAIN))
        for folder, pattern in _CONTENTS.items():
            self.contents(folder, pattern)
        for folder in _ASIDE:
            self.aside(folder)
        for name in self.names("tmp", needed=False) or []:
            text = f"tmp/{name} is of a run that is under way or was interrupted; the next one removes what is left"
            self.foreign(Finding("stray", text, path=self.media.absolute(f"tmp/{name}")))

    def aside(self, folder: str) -> None:
        """Quarantine and trash hold what was taken out; whatever lay in an object's place may lie there."""
        for name in self.names(folder, needed=False) or []:
            if not _TIME.fullmatch(name):
                self.stray(f"{folder}/{name}")
                continue
            if self.scope.exclusive:
                for inner in self.names(f"{folder}/{name}", needed=False) or []:
                    path = self.media.absolute(f"{folder}/{name}/{inner}")
                    self.foreign(Finding("unreferenced", f"{folder}/{name}/{inner} is in no closure", path=path))

    def contents(self, folder: str, pattern: re.Pattern[str]) -> None:
        """A folder holds files of the right names alone."""
        for name in self.names(folder, needed=False) or []:
            if not pattern.fullmatch(name):
                self.stray(f"{folder}/{name}")
                continue
            try:
                self.media.stamp(f"{folder}/{name}")
            except NotFound:
                continue  # gone since it was listed
            except FlightbagError as error:
                self.tell(Finding.of(error, remedy=_REMOVE))

    def stray(self, name: str) -> None:
        path = self.media.absolute(name)
        self.tell(Finding("stray", f"{name} has no place in a store", path=path, remedy=_REMOVE))

    def log(self) -> None:
        try:
            for event in log.events(self.media):
                # A repair says which refs it makes anew before it touches them.
                refs = event.facts.get("refs") if event.event == "repaired" else None
                moved = list(refs) if type(refs) is dict else []
                if event.event in log.MOVES:
                    moved = [event.facts["mission"]]
                for mission in moved:
                    self.moved[mission] = self.moved.get(mission, 0) + 1
        except FlightbagError as error:
            finding = Finding.of(error, remedy="find out who changed it; the refs stand without it")
            self.tell(_as_kind(finding, "bad-log"))

    # -- refs, signatures, tables

    def missions(self) -> None:
        """Refs, signatures and tables of all missions, under the store's own chain."""
        names = self.names("missions", needed=True)
        self.closures_known = names is not None
        for name in names or []:
            if MISSION_ID.fullmatch(name):
                self.flyable[name] = False
            else:
                self.stray(f"missions/{name}")
        if names is not None:
            # A log line may be ahead of its ref, so a single one may be all of a publication that was cut short.
            self.flyable.update((name, False) for name, times in self.moved.items() if times > 1)
        self.first = self.trust()
        if self.first is not None:
            for mission in sorted(self.flyable):
                self.mission(mission, self.first)
        self.closures_known = self.closures_known and all(self.flyable.values())

    def one_mission(self) -> None:
        """The trust chain, the ref, the signatures and the table of one mission."""
        self.flyable[self.scope.mission] = False
        self.first = self.trust()
        if self.first is not None:
            self.mission(self.scope.mission, self.first)

    def trust(self) -> SignedRoot | None:
        """The first root of the chain, if the chain holds; else every mission is grounded."""
        names = self.names("trust", needed=False)
        if not self.scope.mission:
            for name in names or []:
                if name != "releases" and not ROOT_FILE.fullmatch(name):
                    self.stray(f"trust/{name}")
        if not names and not self.flyable:
            return None  # a store that is new
        try:
            first = SignedRoot.parse(self.evidence.root_file(1))
            if first.root.version != 1:
                raise Corrupt("trust/1.root.cbor is of another version", kind="bad-trust-chain")
            advance(first, self.evidence.chain(1))
            return first
        except FlightbagError as error:
            finding = _as_kind(Finding.of(error, remedy=COPY_AGAIN), "bad-trust-chain")
            path = finding.path or self.media.absolute("trust")
            self.tell(replace(finding, path=path, missions=tuple(self.flyable)))
        return None

    def mission(self, mission: str, first: SignedRoot) -> None:
        ref = self.media.absolute(f"missions/{mission}")
        opened = open_mission(self.evidence, mission, first)
        if not isinstance(opened, Opened):
            for finding in opened:
                told = replace(_as_audit(finding), missions=(mission,))
                if told.object:
                    self.suspect(ObjectId.parse(told.object), told)
                else:
                    self.tell(replace(told, path=told.path or ref))
        elif opened.manifest.mission.id != mission:
            other = opened.manifest.mission.id
            self.tell(
                Finding(
                    "bad-ref",
                    f"the ref of {mission} leads to the manifest of {other}",
                    path=ref,
                    expected=mission,
                    actual=other,
                    remedy="run store-fsck --repair: the log says which manifest is this mission's",
                    missions=(mission,),
                )
            )
        else:
            self.flyable[mission] = True
            self.need(f"missions/{mission}", opened)

    def suspect(self, id_: ObjectId, finding: Finding) -> None:
        """Keeps what was said of an object until its folder is looked at."""
        known = self.pending.get(id_, finding)
        self.pending[id_] = replace(known, missions=tuple(sorted({*known.missions, *finding.missions})))

    def need(self, holder: str, opened: Opened) -> None:
        """Keeps what a mission or pin needs; tells where two of its entries contradict each other."""
        need = need_of(holder, opened)
        sizes = opened.closure()
        for entry in opened.table.entries:
            if entry.size != sizes[entry.id]:
                message = f"{entry.name} gives object {entry.id} another size than another entry does"
                grounded = (need.mission,) if need.mission else ()
                path = self.media.absolute(holder)
                self.tell(Finding("bad-manifest", message, entry=entry.name, path=path, missions=grounded))
        self.needs.append(need)

    def pins(self) -> None:
        """What the pins name: an object, or a manifest with all that it needs."""
        for name in self.names(PINS, needed=False) or []:
            if not MISSION_ID.fullmatch(name):
                continue  # a stray
            holder = f"pins/{name}"
            try:
                id_ = pinned_id(self.media, holder)
            except FlightbagError as error:
                self.tell(replace(_as_kind(Finding.of(error), "bad-ref"), path=self.media.absolute(holder)))
                continue
            need = Need(holder, [(id_, UNKNOWN)])
            with suppress(FlightbagError):  # what is wrong with the object, its folder tells
                if self.first is not None and is_manifest(self.evidence, id_):
                    opened = open_manifest(self.evidence, id_, self.first)
                    if isinstance(opened, Opened):
                        self.need(holder, opened)
                    else:
                        self.incomplete(holder, opened[0].message)
                    continue
            self.needs.append(need)

    def drafts(self) -> None:
        """What the drafts need. Nobody may have signed them yet, so nothing is judged but that it is there."""
        for name in self.names(DRAFTS, needed=False) or []:
            if not MISSION_ID.fullmatch(name):
                continue  # a stray
            holder = f"drafts/{name}"
            try:
                data = self.media.read(holder, ENVELOPE_LIMIT)
                Envelope.parse(data, manifest.CONTENT_TYPE, manifest.PAYLOAD_LIMIT)
            except FlightbagError as error:
                self.tell(replace(_as_kind(Finding.of(error), "bad-manifest"), path=self.media.absolute(holder)))
                continue
            try:
                self.needs.append(need_of_unsigned(holder, data, self.evidence))
            except FlightbagError as error:
                self.incomplete(holder, error.message)

    def incomplete(self, holder: str, why: str) -> None:
        """A pin or a draft keeps, or names, what is not all there."""
        self.tell(
            Finding(
                "incomplete-closure",
                f"{holder} needs what is not there: {why}",
                path=self.media.absolute(holder),
                remedy=_RESTORE,
            )
        )

    # -- objects

    def objects(self) -> None:
        """Names, types and sizes of all that lies under objects/, against what is needed and what the index knows."""
        places: dict[int, list[str]] = {}
        if self.scope.mission:
            places = {first: [] for first in range(256)}
        else:
            shards = self.names("objects", needed=True)
            if shards is None:
                self.all_gone()
                return
            for name in shards:
                if _SHARD.fullmatch(name.lower()):
                    places.setdefault(int(name, 16), []).append(name)
                else:
                    self.stray(f"objects/{name}")
        index = None if self.scope.mission else peek_index(self.media)
        try:
            for first in range(256):
                shard = _Shard(first)
                for need in self.needs:
                    for id_, size in need.of_shard(first):
                        shard.needed.setdefault(id_, []).append((need, size))
                if self.scope.mission:
                    self.asked(shard)
                else:
                    for name in places.get(first, []):
                        self.listed(shard, name)
                self.compare(shard)
                if not self.scope.mission:
                    self.unreferenced(shard)
                rows = index.rows(first) if index is not None else {}
                if index is not None:
                    self.against_index(shard, rows)
                self.count(shard, rows)
        finally:
            if index is not None:
                index.close()
        for holder, ids in self.lacking.items():
            more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
            self.incomplete(holder, ", ".join(f"object {id_}" for id_ in ids[:_NAMED]) + more)

    def all_gone(self) -> None:
        """Nothing under objects/ can be looked at: one finding, which grounds every mission."""
        about = self.media.absolute("objects")
        missions = {need.mission for need in self.needs if need.mission}
        missions.update(mission for finding in self.pending.values() for mission in finding.missions)
        known = self.errors[about]
        self.errors[about] = replace(known, missions=tuple(sorted(missions)))
        self.pending.clear()

    def listed(self, shard: _Shard, name: str) -> None:
        """Enters what lies in a folder of objects."""
        folder = f"objects/{name}"
        try:
            entries = list(self.media.statuses(folder))
        except NotFound:
            return
        except FlightbagError as error:
            self.tell(Finding.of(error, remedy=COPY_AGAIN))
            shard.blame[""] = self.media.absolute(folder)
            return
        if name != name.lower():
            self.misnamed(folder)
        for rest, status in entries:
            if not _REST.fullmatch(rest.lower()):
                self.stray(f"{folder}/{rest}")
                continue
            id_ = ObjectId.parse(name.lower() + rest.lower())
            if name != name.lower():
                shard.blame.setdefault(id_, self.media.absolute(folder))
            elif rest != rest.lower():
                self.misnamed(f"{folder}/{rest}", str(id_))
                shard.blame.setdefault(id_, str(id_))
            else:
                self.one(shard, id_, status)

    def one(self, shard: _Shard, id_: ObjectId, status: os.stat_result | FlightbagError) -> None:
        """Enters one object's file, or what is there instead."""
        if isinstance(status, FlightbagError):
            shard.blame[id_] = str(id_)
            self.tell(replace(Finding.of(status, remedy=_RESTORE), object=str(id_)))
        elif (kind := kind_of(status)) != "file":
            shard.blame[id_] = str(id_)
            found = self.of_object("wrong-type", id_, f"is a {kind}")
            self.tell(replace(found, expected="file", actual=kind, remedy=_RESTORE))
        else:
            shard.sizes[id_] = status.st_size
            shard.stamps[id_] = Stamp.of(status)
            if status.st_nlink > 1:
                text = f"has {status.st_nlink} names: a write through another one would change it"
                self.foreign(self.of_object("hard-link", id_, text))

    def asked(self, shard: _Shard) -> None:
        """Enters the objects that are needed, and nothing else."""
        for id_ in {*shard.needed, *(id_ for id_ in self.pending if id_[0] == shard.first)}:
            try:
                stamp = self.media.stamp(object_path(id_))
                shard.sizes[id_], shard.stamps[id_] = stamp.size, stamp
            except NotFound:
                continue
            except FlightbagError as error:
                shard.blame[id_] = str(id_)
                self.tell(replace(Finding.of(error, remedy=_RESTORE), object=str(id_)))

    def misnamed(self, name: str, id_: str = "") -> None:
        path = self.media.absolute(name)
        remedy = "run store-fsck --repair: it is given its right name"
        self.tell(Finding("misnamed", f"{name} is not in lower case", object=id_, path=path, remedy=remedy))

    def compare(self, shard: _Shard) -> None:
        """Every object that something needs is there, with its size."""
        for id_, finding in [(id_, finding) for id_, finding in self.pending.items() if id_[0] == shard.first]:
            del self.pending[id_]
            self.confirm(shard, id_, finding)
        for id_, wanted in sorted(shard.needed.items()):
            actual = shard.sizes.get(id_)
            wrong = [(need, size) for need, size in wanted if actual is None or size not in (actual, UNKNOWN)]
            if not wrong:
                continue
            about = shard.blame.get(id_) or shard.blame.get("")
            limit = max(size for _, size in wanted)
            self.damaged[id_] = ENVELOPE_LIMIT if limit == UNKNOWN else limit
            if about is not None:
                self.grounds(about, wrong)
            elif actual is None:
                self.missing(id_, wrong)
            elif str(id_) not in self.errors:
                size = wrong[0][1]
                text = f"has {actual} bytes, the manifest says {size}"
                found = self.of_object("truncated" if actual < size else "oversized", id_, text)
                self.tell(replace(found, expected=str(size), actual=str(actual), remedy=_RESTORE))
                self.grounds(str(id_), wrong)

    def confirm(self, shard: _Shard, id_: ObjectId, finding: Finding) -> None:
        """Tells what the takeoff check said of a manifest or table, now that it is known what lies in its place."""
        self.damaged[id_] = ENVELOPE_LIMIT if finding.entry == "manifest" else TABLE_LIMIT
        about = shard.blame.get(id_) or shard.blame.get("")
        if about is not None:
            known = self.errors[about]
            self.errors[about] = replace(known, missions=tuple(sorted({*known.missions, *finding.missions})))
            return
        if id_ in shard.sizes:
            finding = self.again(finding, id_, shard.sizes[id_])
            if finding.kind == "transient":
                del self.damaged[id_]
        self.tell(replace(finding, path=self.media.absolute(object_path(id_)), remedy=finding.remedy or _RESTORE))

    def missing(self, id_: ObjectId, wanted: Sequence[tuple[Need, int]]) -> None:
        if any(need.mission for need, _ in wanted):
            self.tell(replace(self.of_object("missing", id_, "is not there"), remedy=_RESTORE))
            self.grounds(str(id_), wanted)
            return
        for need, _ in wanted:
            self.lacking.setdefault(need.holder, []).append(id_)

    def grounds(self, about: str, wanted: Sequence[tuple[Need, int]]) -> None:
        """Adds the missions that need an object to the finding that says what is wrong with it."""
        known = self.errors[about]
        missions = {need.mission for need, _ in wanted if need.mission}
        self.errors[about] = replace(known, missions=tuple(sorted({*known.missions, *missions})))

    def unreferenced(self, shard: _Shard) -> None:
        """Objects of no closure. Where a closure is unknown they may well be in it, and only their number is told."""
        lone = [id_ for id_ in sorted(shard.sizes) if id_ not in shard.needed]
        if self.closures_known:
            for id_ in lone:
                self.foreign(self.of_object("unreferenced", id_, "is in no mission's closure"))
        elif lone and self.scope.exclusive:
            path = self.media.absolute("objects")
            text = "a closure is unknown, so nobody can tell which objects belong to it"
            self.tell(Finding("unreferenced", text, path=path, remedy=_RESTORE, unreadable=True), about="unreferenced")

    def against_index(self, shard: _Shard, rows: Mapping[ObjectId, Row]) -> None:
        for id_ in sorted(rows.keys() - shard.sizes.keys()):
            if id_ not in self.damaged and id_ not in shard.blame and "" not in shard.blame:
                self.note(self.of_object("index-only", id_, "is in the index, but there is no such file"))
        for id_ in sorted(shard.sizes.keys() - rows.keys()):
            self.note(self.of_object("file-only", id_, "is not in the index"))

    def count(self, shard: _Shard, rows: Mapping[ObjectId, Row]) -> None:
        """Counts the objects, and enters those that may be read."""
        self.counts["objects"] += len(shard.sizes)
        self.counts["bytes"] += sum(shard.sizes.values())
        if self.scope.read == "quick":
            return
        times: dict[ObjectId, int] = {}
        if self.scope.read == "budget":
            stamps = shard.stamps
            times = {id_: row.verified for id_, row in rows.items() if id_ in stamps and row.fresh(stamps[id_])}
            for id_, at in self.ledger.read_at(shard.first, stamps).items() if self.ledger is not None else ():
                times[id_] = max(at, times.get(id_, 0))
        for id_, size in sorted(shard.sizes.items()):
            # What is damaged already is not told twice.
            if str(id_) not in self.errors:
                self.readable.append(max(0, times.get(id_, 0)).to_bytes(8) + size.to_bytes(8) + id_)

    # -- every byte

    def read(self, over: Callable[[], bool]) -> None:
        """Reads the objects that the scope asks for; `over` says whether the time is up."""
        rows = self.readable
        if self.scope.read == "sample":
            rows = random.SystemRandom().sample(rows, math.ceil(len(rows) * self.scope.amount))
        if self.scope.read == "budget":
            rows.sort()
            chunks = _chunks(rows, _CHUNK_OBJECTS, _CHUNK_BYTES)
        else:
            rows.sort(key=lambda row: row[16:])
            chunks = _chunks(rows, _AT_ONCE, UNKNOWN)
        self.to_read = sum(int.from_bytes(row[8:16]) for row in rows)
        self.progress(0, self.to_read)
        for chunk in chunks:
            self.read_chunk([(ObjectId(row[16:]), int.from_bytes(row[8:16])) for row in chunk])
            if self.scope.read == "budget" and over():
                return

    def read_chunk(self, items: list[tuple[ObjectId, int]]) -> None:
        bad = [(id_, outcome) for id_, outcome in self.evidence.check(items) if outcome is not None]
        for id_, outcome in bad:
            self.bad(id_, dict(items)[id_], outcome)
        self.counts["read_objects"] += len(items)
        self.counts["read_bytes"] += sum(size for _, size in items)
        if self.ledger is not None:
            self.ledger.enter(self.whole.items(), [id_ for id_, _ in bad], int(time.time()))
            self.whole.clear()

    def bad(self, id_: ObjectId, size: int, error: FlightbagError) -> None:
        """Tells what was found wrong with an object when it was read."""
        finding = self.again(Finding.of(error, remedy=_RESTORE), id_, size)
        wanted = [(need, size) for need in self.needs for one, size in need.of_shard(id_[0]) if one == id_]
        self.tell(replace(finding, object=str(id_), path=self.media.absolute(object_path(id_))))
        self.grounds(str(id_), wanted)
        if finding.kind != "transient":
            self.damaged[id_] = size

    def again(self, finding: Finding, id_: ObjectId, size: int) -> Finding:
        """The finding, or that it is right when it is read from the medium once more."""
        if finding.kind not in ("bit-flip", "unreadable"):
            return finding
        try:
            with Media(self.media.path, drop_cache=True) as medium:
                medium.digest(id_, size)
        except FlightbagError:
            return finding
        return replace(
            finding,
            kind="transient",
            message=f"{finding.message}; read once more, it is whole",
            remedy="the medium or the memory of this machine is failing: sync the missions to another medium",
            unreadable=False,
        )

    # -- the result

    def entries(self) -> None:
        """Names the entries of damaged objects. The tables are read again: to keep all of their names costs more."""
        wanted = {finding.object for finding in self.errors.values() if finding.object and not finding.entry}
        names: dict[str, set[str]] = {}
        grounded = {
            mission for finding in self.errors.values() if finding.object in wanted for mission in finding.missions
        }
        for mission in sorted(grounded):
            opened = open_mission(self.evidence, mission, self.first) if self.first is not None else ()
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
        for about, finding in self.errors.items():
            found = sorted(names.get(finding.object, ()))
            if found and not finding.entry:
                more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
                self.errors[about] = replace(finding, entry=", ".join(found[:_NAMED]) + more)

    def audit(self) -> Audit:
        self.entries()
        for finding in self.errors.values():
            self.teller(finding)
        grounded = {mission for finding in self.errors.values() for mission in finding.missions}
        return Audit(
            (*self.errors.values(), *self.kept),
            {mission: whole and mission not in grounded for mission, whole in sorted(self.flyable.items())},
            **self.counts,
            notes=self.notes,
            damaged=self.damaged,
        )


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


def _as_kind(finding: Finding, kind: str) -> Finding:
    """The finding as one of this kind, unless it says that something is no file or cannot be read."""
    return finding if finding.unreadable or finding.kind == "wrong-type" else replace(finding, kind=kind)


def _as_audit(finding: Finding) -> Finding:
    """A finding of the takeoff check under the kind that an audit gives it."""
    told = replace(finding, step="")
    if finding.step == "A" and not finding.entry:
        return _as_kind(told, "bad-ref")
    if finding.unreadable or finding.kind in _OF_OBJECTS:
        return told
    return _as_kind(told, "bad-signature" if finding.step == "C" else "bad-manifest")
