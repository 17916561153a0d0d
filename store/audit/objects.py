"""What lies under `objects/`, by names, types and sizes: against what is needed, and against the index.

One folder after the other, and of the closures only ids and sizes are kept, so that the memory is some 100 bytes an
object.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from store.audit.ledger import Ledger
from store.audit.refs import Refs
from store.audit.scope import Scope
from store.audit.told import RESTORE, Told, some
from store.disk.index import Row, open_index_for_reading
from store.disk.media import FileStamp, Media, object_path, type_of_file
from store.errors import FlightbagError, NotFound
from store.findings import Finding
from store.format.entries import TABLE_LIMIT
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT
from store.ground.needs import UNKNOWN, Need

_SHARD = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{62}")


@dataclass(slots=True)
class _Shard:
    """What is known of one folder of objects while it is looked at."""

    first: int
    # Who needs an object, and of what size.
    needed: dict[ObjectId, list[tuple[Need, int]]] = field(default_factory=dict)
    sizes: dict[ObjectId, int] = field(default_factory=dict)
    stamps: dict[ObjectId, FileStamp] = field(default_factory=dict)
    # The finding that explains that an object is not in its place: by its id, or by "" for all of the folder.
    blame: dict[ObjectId | Literal[""], str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"objects/{self.first:02x}"


class Objects:
    """`number` and `bytes` are of what lies in its place.

    `readable` is what may be read in full, ascending by id, a row of 48 bytes each: when it was last (0: never), its
    size, its id.
    """

    def __init__(self, told: Told, scope: Scope, refs: Refs, ledger: Ledger | None) -> None:
        self.told = told
        self.media = told.media
        self.scope = scope
        self.refs = refs
        self.ledger = ledger
        self.lacking: dict[str, list[ObjectId]] = {}
        self.number = 0
        self.bytes = 0
        self.readable: list[bytes] = []

    def look(self) -> None:
        """Names, types and sizes of all that lies under objects/, against what is needed and what the index knows."""
        places: dict[int, list[str]] = {}
        if self.scope.mission:
            places = {first: [] for first in range(256)}
        else:
            shards = self.told.names("objects", needed=True)
            if shards is None:
                self.all_gone()
                return
            for name in shards:
                if _SHARD.fullmatch(name.lower()):
                    places.setdefault(int(name, 16), []).append(name)
                else:
                    self.told.stray(f"objects/{name}")
        index = None if self.scope.mission else open_index_for_reading(self.media)
        try:
            for first in range(256):
                shard = _Shard(first)
                for need in self.refs.needs:
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
            self.told.incomplete(holder, some([f"object {id_}" for id_ in ids]))

    def all_gone(self) -> None:
        """Nothing under objects/ can be looked at: one finding, which grounds every mission."""
        about = self.media.absolute("objects")
        missions = {need.mission for need in self.refs.needs if need.mission}
        missions.update(mission for finding in self.refs.pending.values() for mission in finding.missions)
        self.told.adds(about, missions)
        self.refs.pending.clear()

    def listed(self, shard: _Shard, name: str) -> None:
        """Enters what lies in a folder of objects."""
        folder = f"objects/{name}"
        try:
            entries = list(self.media.statuses(folder))
        except NotFound:
            return
        except FlightbagError as error:
            self.told.tell(Finding.of(error, remedy=RESTORE))
            shard.blame[""] = self.media.absolute(folder)
            return
        if name != name.lower():
            self.misnamed(folder)
        for rest, status in entries:
            if not _REST.fullmatch(rest.lower()):
                self.told.stray(f"{folder}/{rest}")
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
            self.told.tell(replace(Finding.of(status, remedy=RESTORE), object=str(id_)))
        elif (kind := type_of_file(status)) != "file":
            shard.blame[id_] = str(id_)
            found = self.told.of_object("wrong-type", id_, f"is a {kind}")
            self.told.tell(replace(found, expected="file", actual=kind, remedy=RESTORE))
        else:
            shard.sizes[id_] = status.st_size
            shard.stamps[id_] = FileStamp.of(status)
            if status.st_nlink > 1:
                text = f"has {status.st_nlink} names: a write through another one would change it"
                self.told.foreign(self.told.of_object("hard-link", id_, text))

    def asked(self, shard: _Shard) -> None:
        """Enters the objects that are needed, and nothing else."""
        for id_ in {*shard.needed, *(id_ for id_ in self.refs.pending if id_[0] == shard.first)}:
            try:
                stamp = self.media.stamp(object_path(id_))
                shard.sizes[id_], shard.stamps[id_] = stamp.size, stamp
            except NotFound:
                continue
            except FlightbagError as error:
                shard.blame[id_] = str(id_)
                self.told.tell(replace(Finding.of(error, remedy=RESTORE), object=str(id_)))

    def misnamed(self, name: str, id_: str = "") -> None:
        path = self.media.absolute(name)
        remedy = "run store-fsck --repair: it is given its right name"
        self.told.tell(Finding("misnamed", f"{name} is not in lower case", object=id_, path=path, remedy=remedy))

    def compare(self, shard: _Shard) -> None:
        """Every object that something needs is there, with its size."""
        for id_, finding in [(id_, finding) for id_, finding in self.refs.pending.items() if id_[0] == shard.first]:
            del self.refs.pending[id_]
            self.confirm(shard, id_, finding)
        for id_, wanted in sorted(shard.needed.items()):
            actual = shard.sizes.get(id_)
            wrong = [(need, size) for need, size in wanted if actual is None or size not in (actual, UNKNOWN)]
            if not wrong:
                continue
            about = shard.blame.get(id_) or shard.blame.get("")
            sizes = [size for _, size in wanted if size != UNKNOWN]
            # What only a pin names may have any size; of what a mission needs, only a release has none that is signed.
            unsigned = ENVELOPE_LIMIT if any(need.mission for need, _ in wanted) else UNKNOWN
            self.told.damaged[id_] = max(sizes, default=unsigned)
            if about is not None:
                self.told.grounds(about, wrong)
            elif actual is None:
                self.missing(id_, wrong)
            elif str(id_) not in self.told.errors:
                size = wrong[0][1]
                text = f"has {actual} bytes, the manifest says {size}"
                found = self.told.of_object("truncated" if actual < size else "oversized", id_, text)
                self.told.tell(replace(found, expected=str(size), actual=str(actual), remedy=RESTORE))
                self.told.grounds(str(id_), wrong)

    def confirm(self, shard: _Shard, id_: ObjectId, finding: Finding) -> None:
        """Tells what the takeoff check said of a manifest or table, now that it is known what lies in its place."""
        self.told.damaged[id_] = ENVELOPE_LIMIT if finding.entry == "manifest" else TABLE_LIMIT
        about = shard.blame.get(id_) or shard.blame.get("")
        if about is not None:
            self.told.adds(about, finding.missions)
            return
        if id_ in shard.sizes:
            finding = again(self.media, finding, id_, shard.sizes[id_])
            if finding.kind == "transient":
                del self.told.damaged[id_]
        self.told.tell(replace(finding, path=self.media.absolute(object_path(id_)), remedy=finding.remedy or RESTORE))

    def missing(self, id_: ObjectId, wanted: Sequence[tuple[Need, int]]) -> None:
        if any(need.mission for need, _ in wanted):
            self.told.tell(replace(self.told.of_object("missing", id_, "is not there"), remedy=RESTORE))
            self.told.grounds(str(id_), wanted)
            return
        for need, _ in wanted:
            self.lacking.setdefault(need.holder, []).append(id_)

    def unreferenced(self, shard: _Shard) -> None:
        """Objects of no closure. Where a closure is unknown they may well be in it, and only their number is told."""
        needed = shard.needed
        if self.scope.exclusive:
            # Pins and drafts are unsigned: whoever smuggles an object in could name it there.
            needed = {id_: who for id_, who in needed.items() if any(need.mission for need, _ in who)}
        lone = [id_ for id_ in sorted(shard.sizes) if id_ not in needed]
        if self.refs.closures_known:
            for id_ in lone:
                self.told.foreign(self.told.of_object("unreferenced", id_, "is in no mission's closure"))
        elif lone and self.scope.exclusive:
            path = self.media.absolute("objects")
            text = "a closure is unknown, so nobody can tell which objects belong to it"
            self.told.tell(
                Finding("unreferenced", text, path=path, remedy=RESTORE, unreadable=True), about="unreferenced"
            )

    def against_index(self, shard: _Shard, rows: Mapping[ObjectId, Row]) -> None:
        for id_ in sorted(rows.keys() - shard.sizes.keys()):
            if id_ not in self.told.damaged and id_ not in shard.blame and "" not in shard.blame:
                self.told.note(self.told.of_object("index-only", id_, "is in the index, but there is no such file"))
        for id_ in sorted(shard.sizes.keys() - rows.keys()):
            self.told.note(self.told.of_object("file-only", id_, "is not in the index"))

    def count(self, shard: _Shard, rows: Mapping[ObjectId, Row]) -> None:
        """Counts the objects, and enters those that may be read."""
        self.number += len(shard.sizes)
        self.bytes += sum(shard.sizes.values())
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
            if str(id_) not in self.told.errors:
                self.readable.append(max(0, times.get(id_, 0)).to_bytes(8) + size.to_bytes(8) + id_)


def again(media: Media, finding: Finding, id_: ObjectId, size: int) -> Finding:
    """The finding, or that it is right when it is read from the medium once more."""
    if finding.kind not in ("bit-flip", "unreadable"):
        return finding
    try:
        with Media(media.path, drop_cache=True) as medium:
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
