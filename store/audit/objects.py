"""The part of an audit that examines `objects/`: names, types and sizes, against the closures and the index.

It takes one folder after the other and keeps only ids and sizes of the closures, so that it needs some 100 bytes of
memory an object.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Literal

from store.audit.collector import RESTORE, FindingCollector, some
from store.audit.ledger import Ledger
from store.audit.refs import Refs
from store.audit.scope import Scope
from store.disk.index import Index, open_index_for_reading
from store.disk.media import SHARD_LIMIT, FileStamp, Media, object_path
from store.disk.opening import type_name
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
    """One folder of objects while it is examined."""

    first: int
    # The needs that name an object, and the size by each of them.
    needed: dict[ObjectId, list[tuple[Need, int]]] = field(default_factory=dict)
    sizes: dict[ObjectId, int] = field(default_factory=dict)
    stamps: dict[ObjectId, FileStamp] = field(default_factory=dict)
    # The key of the finding that explains why an object is not in its place: by its id, or by "" for the whole folder.
    explained_by: dict[ObjectId | Literal[""], str] = field(default_factory=dict)
    # Whether every name in it was looked at; else only what is needed was, by its name.
    listed: bool = True

    @property
    def name(self) -> str:
        return f"objects/{self.first:02x}"


class Objects:
    """Examines the objects. `number` and `bytes` count those that lie in their places, `sound` those without a finding.

    `readable` lists the objects that may be read in full, ascending by id, in rows of 48 bytes: the time of the last
    full reading (0: never), the size, the id.
    """

    def __init__(self, collector: FindingCollector, scope: Scope, refs: Refs, ledger: Ledger | None) -> None:
        self.collector = collector
        self.media = collector.media
        self.scope = scope
        self.refs = refs
        self.ledger = ledger
        self.lacking: dict[str, list[ObjectId]] = {}
        self.number = 0
        self.bytes = 0
        self.sound = 0
        self.readable: list[bytes] = []

    def examine(self) -> None:
        """Compare names, types and sizes under objects/ with the closures and with the index."""
        places: dict[int, list[str]] = {}
        if self.scope.mission:
            places = {first: [] for first in range(256)}
        else:
            shards = self.collector.names_in("objects", needed=True)
            if shards is None and "objects" in self.collector.crowded:
                shards = [f"{first:02x}" for first in range(256)]
            if shards is None:
                self.all_gone()
                return
            for name in shards:
                if _SHARD.fullmatch(name.lower()):
                    places.setdefault(int(name, 16), []).append(name)
                else:
                    self.collector.add_stray(f"objects/{name}")
        index = None if self.scope.mission or self.media.remote else open_index_for_reading(self.media)
        try:
            for first in range(256):
                shard = _Shard(first)
                for need in self.refs.needs:
                    for id_, size in need.of_shard(first):
                        shard.needed.setdefault(id_, []).append((need, size))
                if self.scope.mission:
                    self.enter_needed(shard)
                else:
                    for name in places.get(first, []):
                        self.enter_folder(shard, name)
                self.compare(shard)
                if not self.scope.mission:
                    self.unreferenced(shard)
                if index is not None and shard.listed:
                    self.compare_with_index(shard, index.ids(first))
                self.count(shard, index)
        finally:
            if index is not None:
                index.close()
        for holder, ids in self.lacking.items():
            self.collector.add_incomplete(holder, some([f"object {id_}" for id_ in ids]))

    def all_gone(self) -> None:
        """Ground every mission by the one finding that objects/ cannot be listed."""
        about = self.media.absolute("objects")
        missions = {need.mission for need in self.refs.needs if need.mission}
        missions.update(mission for finding in self.refs.pending.values() for mission in finding.missions)
        self.collector.add_missions(about, missions)
        self.refs.pending.clear()

    def enter_folder(self, shard: _Shard, name: str) -> None:
        """Enter the files in a folder of objects."""
        folder = f"objects/{name}"
        try:
            # One after the other: a status takes more memory than a name.
            entries = self.media.statuses(folder, SHARD_LIMIT)
            first = next(entries, None)
        except NotFound:
            return
        except FlightbagError as error:
            self.collector.add(Finding.of(error, remedy=RESTORE))
            if error.kind == "too-many" and name == name.lower():
                shard.listed = False
                self.enter_needed(shard)
            else:
                shard.explained_by[""] = self.media.absolute(folder)
            return
        upper = name != name.lower()
        if upper:
            self.misnamed(folder)
        for rest, status in chain([first] if first else [], entries):
            if not _REST.fullmatch(rest.lower()):
                self.collector.add_stray(f"{folder}/{rest}")
                continue
            id_ = ObjectId(bytes.fromhex(name + rest))
            if upper:
                shard.explained_by.setdefault(id_, self.media.absolute(folder))
            elif rest != rest.lower():
                self.misnamed(f"{folder}/{rest}", id_, shard.needed)
                shard.explained_by.setdefault(id_, str(id_))
            else:
                self.enter_object(shard, id_, status)

    def enter_object(self, shard: _Shard, id_: ObjectId, status: os.stat_result | FlightbagError) -> None:
        """Enter the file of an object, or add a finding if its place holds another thing."""
        if isinstance(status, FlightbagError):
            shard.explained_by[id_] = str(id_)
            self.collector.add(replace(Finding.of(status, remedy=RESTORE), object=str(id_)))
        elif (kind := type_name(status.st_mode)) != "file":
            shard.explained_by[id_] = str(id_)
            finding = self.collector.about_object("wrong-type", id_, f"is a {kind}, expected a regular file")
            finding = replace(finding, expected="file", actual=kind, remedy=RESTORE)
            self.collector.add_one_of_many(finding, needed=id_ in shard.needed or id_ in self.refs.pending)
        else:
            shard.sizes[id_] = status.st_size
            shard.stamps[id_] = FileStamp.of(status)
            if status.st_nlink > 1:
                text = f"has {status.st_nlink} names: a write through another name would change it"
                self.collector.add_foreign(self.collector.about_object("hard-link", id_, text))

    def enter_needed(self, shard: _Shard) -> None:
        """Enter the objects that the mission needs, and no others."""
        for id_ in {*shard.needed, *(id_ for id_ in self.refs.pending if id_[0] == shard.first)}:
            try:
                stamp = self.media.stamp(object_path(id_))
                shard.sizes[id_], shard.stamps[id_] = stamp.size, stamp
            except NotFound:
                continue
            except FlightbagError as error:
                shard.explained_by[id_] = str(id_)
                self.collector.add(replace(Finding.of(error, remedy=RESTORE), object=str(id_)))

    def misnamed(self, name: str, id_: ObjectId | None = None, needed: Collection[ObjectId] = ()) -> None:
        path, object_ = self.media.absolute(name), "" if id_ is None else str(id_)
        remedy = "run store-fsck --repair, which renames it"
        finding = Finding("misnamed", f"{name} is not in lower case", object=object_, path=path, remedy=remedy)
        self.collector.add_one_of_many(finding, needed=id_ is None or id_ in needed or id_ in self.refs.pending)

    def compare(self, shard: _Shard) -> None:
        """Add a finding for each needed object that is missing or has another size."""
        for id_, finding in [(id_, finding) for id_, finding in self.refs.pending.items() if id_[0] == shard.first]:
            del self.refs.pending[id_]
            self.confirm(shard, id_, finding)
        wrongs: dict[ObjectId, list[tuple[Need, int]]] = {}
        for id_, wanted in shard.needed.items():
            actual = shard.sizes.get(id_)
            for need, size in wanted:
                if actual is None or size not in (actual, UNKNOWN):
                    wrongs.setdefault(id_, []).append((need, size))
        for id_, wrong in sorted(wrongs.items(), key=lambda item: item[0]):
            actual, wanted = shard.sizes.get(id_), shard.needed[id_]
            about = shard.explained_by.get(id_) or shard.explained_by.get("")
            sizes = [size for _, size in wanted if size != UNKNOWN]
            # An object that only a pin names may have any size. In a closure, only a release lacks a signed size.
            unsigned = ENVELOPE_LIMIT if any(need.mission for need, _ in wanted) else UNKNOWN
            self.collector.damaged[id_] = max(sizes, default=unsigned)
            if about is not None:
                self.collector.ground(about, wrong)
            elif actual is None:
                self.missing(id_, wrong)
            elif str(id_) not in self.collector.errors:
                size = wrong[0][1]
                text = f"has {actual} bytes, {size} by the manifest"
                finding = self.collector.about_object("truncated" if actual < size else "oversized", id_, text)
                self.collector.add(replace(finding, expected=str(size), actual=str(actual), remedy=RESTORE))
                self.collector.ground(str(id_), wrong)

    def confirm(self, shard: _Shard, id_: ObjectId, finding: Finding) -> None:
        """Add the takeoff check's finding about a manifest or table, unless its place has an explanation already."""
        self.collector.damaged[id_] = ENVELOPE_LIMIT if finding.entry == "manifest" else TABLE_LIMIT
        about = shard.explained_by.get(id_) or shard.explained_by.get("")
        if about is not None:
            self.collector.add_missions(about, finding.missions)
            return
        if id_ in shard.sizes:
            finding = read_again(self.media, finding, id_, shard.sizes[id_])
            if finding.kind == "transient":
                del self.collector.damaged[id_]
        self.collector.add(
            replace(finding, path=self.media.absolute(object_path(id_)), remedy=finding.remedy or RESTORE)
        )

    def missing(self, id_: ObjectId, wanted: Sequence[tuple[Need, int]]) -> None:
        if any(need.mission for need, _ in wanted):
            self.collector.add(replace(self.collector.about_object("missing", id_, "is missing"), remedy=RESTORE))
            self.collector.ground(str(id_), wanted)
            return
        for need, _ in wanted:
            self.lacking.setdefault(need.holder, []).append(id_)

    def unreferenced(self, shard: _Shard) -> None:
        """Add the objects that are in no closure. If a closure is unknown, any object may belong to it."""
        needed = shard.needed
        if self.scope.exclusive:
            # Pins and drafts are unsigned: somebody who smuggles an object in could name it there.
            needed = {id_: who for id_, who in needed.items() if any(need.mission for need, _ in who)}
        lone = sorted(shard.sizes.keys() - needed.keys())
        if self.refs.closures_known:
            for id_ in lone:
                self.collector.add_foreign(
                    self.collector.about_object("unreferenced", id_, "is in no mission's closure")
                )
        elif lone and self.scope.exclusive:
            path = self.media.absolute("objects")
            text = "a closure cannot be read, so the objects outside of all closures are unknown"
            self.collector.add(
                Finding("unreferenced", text, path=path, remedy=RESTORE, unreadable=True), about="unreferenced"
            )

    def compare_with_index(self, shard: _Shard, indexed: Set[ObjectId]) -> None:
        for id_ in sorted(indexed - shard.sizes.keys()):
            if id_ not in self.collector.damaged and id_ not in shard.explained_by and "" not in shard.explained_by:
                self.collector.add_note(
                    self.collector.about_object("index-only", id_, "is in the index, and has no file")
                )
        for id_ in sorted(shard.sizes.keys() - indexed):
            self.collector.add_note(self.collector.about_object("file-only", id_, "is not in the index"))

    def count(self, shard: _Shard, index: Index | None) -> None:
        """Count the objects, and list those that may be read in full."""
        self.number += len(shard.sizes)
        self.bytes += sum(shard.sizes.values())
        errors = self.collector.errors
        self.sound += sum(str(id_) not in errors for id_ in shard.sizes) if errors else len(shard.sizes)
        if self.scope.read == "quick":
            return
        times: dict[ObjectId, int] = {}
        if self.scope.read == "budget":
            stamps, rows = shard.stamps, index.rows(shard.first) if index is not None else {}
            times = {id_: row.verified for id_, row in rows.items() if id_ in stamps and row.fresh(stamps[id_])}
            for id_, at in self.ledger.read_at(shard.first, stamps).items() if self.ledger is not None else ():
                times[id_] = max(at, times.get(id_, 0))
        for id_, size in sorted(shard.sizes.items()):
            # A damaged object has its finding already.
            if not errors or str(id_) not in errors:
                self.readable.append(max(0, times.get(id_, 0)).to_bytes(8, "big") + size.to_bytes(8, "big") + id_)


def read_again(media: Media, finding: Finding, id_: ObjectId, size: int) -> Finding:
    """Return the finding, or one of kind `transient` if a second read from the medium gives the right bytes."""
    if finding.kind not in ("bit-flip", "unreadable"):
        return finding
    try:
        with media.again() as medium:
            medium.digest(id_, size)
    except FlightbagError:
        return finding
    return replace(
        finding,
        kind="transient",
        message=f"{finding.message}; a second read gave the right bytes",
        remedy="the medium or the memory of this machine is failing: sync the missions to another medium",
        unreadable=False,
    )
