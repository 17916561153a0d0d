"""The audit of a store: what is on the medium, against what it must be. Writes nothing.

`--quick` looks at names, types, sizes, refs, signatures, closures, log and index; `--full` reads every byte of every
object besides. Signatures are judged by the store's own trust chain, because an audit asks whether the store is
consistent; whether it may fly, the takeoff check says, from a pinned root.

Each finding has a kind (FORMAT.md 8), the missions that it grounds, and a remedy. One damage is one finding, however
many missions need what is damaged. What could not be read is a finding that says so, and makes the audit
inconclusive, never clean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from store import log
from store.errors import Corrupt, FlightbagError, NotFound
from store.evidence import ROOT_FILE, StoreEvidence
from store.findings import Finding
from store.format.ids import ObjectId, is_hex
from store.format.manifest import MISSION_ID
from store.index import peek_index
from store.media import Media, object_path
from store.repository import TOML, check_format
from store.trust.root import SignedRoot, advance
from store.verify import COPY_AGAIN, Opened, open_mission

FOLDERS = frozenset({"missions", "objects", "trust", "drafts", "pins", "index", "tmp", "quarantine", "lock"})
FILES = frozenset({TOML, log.LOG})
_SHARD = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{62}")
_RESTORE = "sync the missions with --checksum from a store that has it whole"
# Folders whose files are listed nowhere else, and the names that they may have.
_CONTENTS = {
    "lock": re.compile(rf"store|index|log|trust|build-[0-9a-f]{{2}}|mission-{MISSION_ID.pattern}"),
    "index": re.compile(r"owner|data\.mdb|lock\.mdb"),
    "drafts": re.compile(r"(?!)"),
    "pins": re.compile(r"(?!)"),
    "trust/releases": re.compile(r"(?!)"),
}
_QUARANTINED = re.compile(r"[0-9]{8}T[0-9]{6}Z")
# What the takeoff check says of an object that an audit says in the same words.
_OF_OBJECTS = frozenset({"missing", "truncated", "oversized", "bit-flip", "wrong-type"})


@dataclass(frozen=True, slots=True)
class Audit:
    """The result: every finding, and for each mission whether it is flyable by what was looked at.

    `objects` and `bytes` count what lies under `objects/` in its place.
    """

    findings: tuple[Finding, ...]
    missions: Mapping[str, bool]
    objects: int
    bytes: int

    @property
    def errors(self) -> bool:
        return any(not f.information and not f.unreadable for f in self.findings)

    @property
    def inconclusive(self) -> bool:
        return any(f.unreadable for f in self.findings)


def fsck(media: Media, *, full: bool, progress: Callable[[int], None] | None = None) -> Audit:
    """Audits a store; `progress` is told the bytes as they are read.

    Raises NotFound where there is none, Invalid for another format, Corrupt or Unavailable where its flightbag.toml
    or its top level cannot be read.
    """
    check_format(media)
    auditor = _Auditor(media, progress)
    auditor.top_level()
    auditor.objects()
    auditor.log()
    auditor.missions()
    auditor.closures()
    if full:
        auditor.every_byte()
    auditor.unreferenced()
    auditor.index()
    return auditor.audit()


class _Auditor:
    def __init__(self, media: Media, progress: Callable[[int], None] | None) -> None:
        self.media = media
        self.evidence = StoreEvidence(media, progress)
        # By what they are about (object or path), information also by kind.
        self.found: dict[tuple[str, str], Finding] = {}
        self.sizes: dict[ObjectId, int] = {}
        # Where a finding about something else explains that an object is not in its place: that finding's path, by the
        # object's id, by its shard, or by "" for all objects.
        self.blame: dict[str, str] = {}
        self.opened: dict[str, Opened | None] = {}
        self.closures_known = True
        # Which missions need an object, and under which names.
        self.needed: dict[ObjectId, dict[str, list[str]]] = {}

    def tell(self, finding: Finding) -> None:
        """Adds a finding; where the same damage was told before, only the missions that it grounds."""
        about = finding.object or finding.path
        if finding.object and ObjectId.parse(finding.object) not in self.sizes:
            blamed = (self.blame[key] for key in (finding.object, finding.object[:2], "") if key in self.blame)
            about = next(blamed, about)
        key = (finding.kind if finding.information else "", about)
        known = self.found.get(key, finding)
        missions = tuple(sorted({*known.missions, *finding.missions}))
        self.found[key] = replace(known, entry=known.entry or finding.entry, missions=missions)

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
        for name in self.names("quarantine", needed=False) or []:
            if not _QUARANTINED.fullmatch(name):
                self.stray(f"quarantine/{name}")
                continue
            # Whatever lay in an object's place may lie here: only the name says that it was put here.
            for inner in self.names(f"quarantine/{name}", needed=False) or []:
                if not is_hex(inner) and not _SHARD.fullmatch(inner):
                    self.stray(f"quarantine/{name}/{inner}")
        for name in self.names("tmp", needed=False) or []:
            self.tell(
                Finding(
                    "stray",
                    f"tmp/{name} is of a run that is under way or was interrupted; the next one removes what is left",
                    path=self.media.absolute(f"tmp/{name}"),
                    information=True,
                )
            )

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
                self.tell(Finding.of(error, remedy="remove it, if it is not yours"))

    def stray(self, name: str) -> None:
        path = self.media.absolute(name)
        self.tell(
            Finding("stray", f"{name} has no place in a store", path=path, remedy="remove it, if it is not yours")
        )

    def misnamed(self, name: str, id_: str = "") -> None:
        path = self.media.absolute(name)
        self.tell(Finding("misnamed", f"{name} is not in lower case", object=id_, path=path, remedy=_RESTORE))

    def objects(self) -> None:
        """Names, types and sizes of all that lies under objects/."""
        shards = self.names("objects", needed=True)
        if shards is None:
            self.blame[""] = self.media.absolute("objects")
        for shard in shards or []:
            name = f"objects/{shard}"
            if not _SHARD.fullmatch(shard.lower()):
                self.stray(name)
                continue
            rests = self.names(name, needed=False)
            if rests is None:
                self.blame[shard.lower()] = self.media.absolute(name)
            elif shard != shard.lower():
                self.misnamed(name)
                self.blame.update((f"{shard}{rest}".lower(), self.media.absolute(name)) for rest in rests)
            else:
                for rest in rests:
                    self.one_object(name, rest)

    def one_object(self, shard: str, rest: str) -> None:
        name = f"{shard}/{rest}"
        if not _REST.fullmatch(rest.lower()):
            self.stray(name)
            return
        id_ = ObjectId.parse(shard[-2:] + rest.lower())
        if rest != rest.lower():
            self.misnamed(name, str(id_))
            return
        try:
            self.sizes[id_] = self.media.stamp(name).size
        except NotFound:
            return  # gone since it was listed
        except FlightbagError as error:
            self.tell(replace(Finding.of(error, remedy=_RESTORE), object=str(id_)))

    def log(self) -> None:
        try:
            log.events(self.media)
        except FlightbagError as error:
            finding = Finding.of(error, remedy="find out who changed it; the refs stand without it")
            self.tell(_as_kind(finding, "bad-log"))

    def missions(self) -> None:
        """Refs, signatures and tables, under the store's own chain."""
        names = self.names("missions", needed=True)
        self.closures_known = names is not None
        for name in names or []:
            if MISSION_ID.fullmatch(name):
                self.opened[name] = None
            else:
                self.stray(f"missions/{name}")
        first = self.trust()
        if first is not None:
            for mission in self.opened:
                self.mission(mission, first)
        self.closures_known = self.closures_known and None not in self.opened.values()

    def trust(self) -> SignedRoot | None:
        """The first root of the chain, if the chain holds; else every mission is grounded."""
        names = self.names("trust", needed=False)
        for name in names or []:
            if name != "releases" and not ROOT_FILE.fullmatch(name):
                self.stray(f"trust/{name}")
        if not names and not self.opened:
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
            self.tell(replace(finding, path=path, missions=tuple(self.opened)))
        return None

    def mission(self, mission: str, first: SignedRoot) -> None:
        ref = self.media.absolute(f"missions/{mission}")
        opened = open_mission(self.evidence, mission, first)
        if not isinstance(opened, Opened):
            for finding in opened:
                told = _as_audit(finding)
                self.tell(replace(told, path=told.path or ref, missions=(mission,)))
        elif opened.manifest.mission.id != mission:
            other = opened.manifest.mission.id
            self.tell(
                Finding(
                    "bad-ref",
                    f"the ref of {mission} leads to the manifest of {other}",
                    path=ref,
                    expected=mission,
                    actual=other,
                    remedy=COPY_AGAIN,
                    missions=(mission,),
                )
            )
        else:
            self.opened[mission] = opened

    def closures(self) -> None:
        """Every object that a mission needs is there, with its size."""
        expected: dict[ObjectId, int] = {}
        for mission, opened in self.opened.items():
            if opened is None:
                continue
            sizes = opened.closure()
            names = {opened.manifest_id: ["manifest"], opened.manifest.table: ["table"]}
            for release in opened.manifest.releases:
                names.setdefault(release, []).append("release")
            for entry in opened.table.entries:
                names.setdefault(entry.id, []).append(entry.name)
                if entry.size != sizes[entry.id]:
                    message = f"{entry.name} gives object {entry.id} another size than another entry does"
                    path = self.media.absolute(f"missions/{mission}")
                    self.tell(Finding("bad-manifest", message, entry=entry.name, path=path, missions=(mission,)))
            for id_, entries in names.items():
                self.needed.setdefault(id_, {})[mission] = entries
            expected.update(sizes)
        for id_ in sorted(self.needed):
            actual = self.sizes.get(id_)
            size = expected.get(id_, actual)
            if actual is None:
                self.damage(Finding("missing", f"object {id_} is not there", remedy=_RESTORE), id_)
            elif size is not None and actual != size:
                kind = "truncated" if actual < size else "oversized"
                message = f"object {id_} has {actual} bytes, the manifest says {size}"
                told = Finding(kind, message, expected=str(size), actual=str(actual), remedy=_RESTORE)
                self.damage(told, id_)

    def damage(self, finding: Finding, id_: ObjectId) -> None:
        """Tells what is wrong with an object, and whom it grounds."""
        missions = self.needed.get(id_, {})
        entries = sorted({name for names in missions.values() for name in names})
        more = f" and {len(entries) - 4} more" if len(entries) > 4 else ""
        self.tell(
            replace(
                finding,
                object=str(id_),
                path=self.media.absolute(object_path(id_)),
                entry=", ".join(entries[:4]) + more,
                missions=tuple(missions),
            )
        )

    def every_byte(self) -> None:
        whole = {id_: size for id_, size in self.sizes.items() if ("", str(id_)) not in self.found}
        for id_, outcome in self.evidence.check(whole.items()):
            if outcome is not None:
                self.damage(Finding.of(outcome, remedy=_RESTORE), id_)

    def unreferenced(self) -> None:
        """Objects of no closure. Not told where a closure is unknown: they may well be in it."""
        if self.closures_known:
            for id_ in sorted(set(self.sizes) - set(self.needed)):
                self.note("unreferenced", id_, "is in no mission's closure")

    def index(self) -> None:
        index = peek_index(self.media)
        if index is None:
            return  # it will be made again; nothing depends on it
        with index:
            known = {id_ for first in range(256) for id_ in index.rows(first)}
        for id_ in sorted(known - set(self.sizes)):
            if ("", str(id_)) not in self.found and not self.blame:
                self.note("index-only", id_, "is in the index, but there is no such file")
        for id_ in sorted(set(self.sizes) - known):
            self.note("file-only", id_, "is not in the index")

    def note(self, kind: str, id_: ObjectId, text: str) -> None:
        path = self.media.absolute(object_path(id_))
        self.tell(Finding(kind, f"object {id_} {text}", object=str(id_), path=path, information=True))

    def audit(self) -> Audit:
        findings = tuple(self.found.values())
        grounded = {mission for finding in findings if not finding.information for mission in finding.missions}
        return Audit(
            findings,
            {mission: opened is not None and mission not in grounded for mission, opened in self.opened.items()},
            len(self.sizes),
            sum(self.sizes.values()),
        )


def _as_kind(finding: Finding, kind: str) -> Finding:
    """The finding as one of this kind, unless it says that something is no file or cannot be read."""
    return finding if finding.unreadable or finding.kind == "wrong-type" else replace(finding, kind=kind)


def _as_audit(finding: Finding) -> Finding:
    """A finding of the takeoff check under the kind that an audit gives it."""
    told = replace(finding, step="")
    if finding.unreadable or finding.kind in _OF_OBJECTS:
        return told
    if finding.step == "A" and not finding.entry:
        return _as_kind(told, "bad-ref")
    return _as_kind(told, "bad-signature" if finding.step == "C" else "bad-manifest")
