"""What an audit sees beside the objects: names and types, the log, trust chain, refs, signatures, pins, drafts."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace

from store.audit.scope import Scope
from store.audit.told import REMOVE, RESTORE, Told, as_kind, some
from store.disk import log
from store.disk.layout import DRAFTS, PINS, ROOT_FILE, TOML
from store.disk.locks import HOLDER_LIMIT
from store.disk.quarantine import present
from store.errors import Corrupt, FlightbagError, NotFound
from store.findings import Finding
from store.format import manifest
from store.format.cose import Envelope
from store.format.entries import SEGMENT, TABLE_LIMIT
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT, MISSION_ID
from store.format.ref import ref_id
from store.ground import releases
from store.ground.log_history import LogHistory
from store.ground.needs import (
    KEEP_LAST,
    UNKNOWN,
    Need,
    is_manifest,
    need_of,
    need_of_stored,
    need_of_unsigned,
    pinned_id,
)
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Opened
from store.takeoff.verify import open_manifest, open_mission
from store.trust.root import SignedRoot

FOLDERS = frozenset({"missions", "objects", "trust", "drafts", "pins", "index", "tmp", "quarantine", "trash", "lock"})
FILES = frozenset({TOML, log.LOG})
_MEND_REF = "run store-fsck --repair: the log says which manifest is this mission's; --from a store that has it whole"
# Folders whose files are listed nowhere else, and the names that they may have.
_CONTENTS = {
    "lock": re.compile(rf"store|index|log|trust|heal|build-[0-9a-f]{{2}}|mission-{MISSION_ID.pattern}"),
    "index": re.compile(r"owner|data\.mdb|lock\.mdb"),
    "drafts": MISSION_ID,
    "pins": MISSION_ID,
    releases.FOLDER: SEGMENT,
}
# Folders of what was taken out of its place: a folder for each time, and in it anything.
_ASIDE = ("quarantine", "trash")
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
# What the takeoff check says of an object that an audit says in the same words.
_OF_OBJECTS = frozenset({"missing", "truncated", "oversized", "bit-flip", "wrong-type"})


class Refs:
    """Missions, pins and drafts: what of them holds, and what they need.

    `flyable` says of each mission whether its signatures and tables hold. `pending` is what the takeoff check said of
    manifests and tables: whether their place explains it, their folder tells. Where `closures_known` is false, nobody
    can tell what belongs to no closure.
    """

    def __init__(self, told: Told, scope: Scope, evidence: StoreEvidence) -> None:
        self.told = told
        self.media = told.media
        self.scope = scope
        self.evidence = evidence
        self.first: SignedRoot | None = None
        self.log_holds = False
        self.history = LogHistory.of([])  # by the log, as far as it can be read
        self.flyable: dict[str, bool] = {}
        self.needs: list[Need] = []
        self.closures_known = True
        self.pending: dict[ObjectId, Finding] = {}

    def look(self) -> None:
        """Looks at all that the scope asks for."""
        if self.scope.mission:
            self.one_mission()
            return
        self.top_level()
        self.log()
        self.missions()
        self.retained()
        self.pins()
        self.drafts()
        self.releases()

    def top_level(self) -> None:
        for name in self.media.names(""):
            path = self.media.absolute(name)
            try:
                kind = self.media.file_type(name)
            except FlightbagError as error:
                self.told.tell(Finding.of(error))
                continue
            if name not in FOLDERS and name not in FILES:
                self.told.stray(name)
            elif kind != ("directory" if name in FOLDERS else "file"):
                self.told.tell(Finding("wrong-type", f"{name} is a {kind}", path=path, actual=kind, remedy=RESTORE))
        for folder, pattern in _CONTENTS.items():
            self.contents(folder, pattern)
        for folder in _ASIDE:
            self.aside(folder)
        for name in self.told.names("tmp", needed=False) or []:
            text = f"tmp/{name} is of a run that is under way or was interrupted; the next one removes what is left"
            self.told.foreign(Finding("stray", text, path=self.media.absolute(f"tmp/{name}")))

    def aside(self, folder: str) -> None:
        """Quarantine and trash hold what was taken out; whatever lay in an object's place may lie there."""
        for name in self.told.names(folder, needed=False) or []:
            if not _TIME.fullmatch(name):
                self.told.stray(f"{folder}/{name}")
                continue
            if self.media.file_type(f"{folder}/{name}") != "directory":
                self.told.stray(f"{folder}/{name}")
            elif self.scope.exclusive:
                for inner in self.told.names(f"{folder}/{name}", needed=False) or []:
                    path = self.media.absolute(f"{folder}/{name}/{inner}")
                    self.told.foreign(Finding("unreferenced", f"{folder}/{name}/{inner} is in no closure", path=path))

    def contents(self, folder: str, pattern: re.Pattern[str]) -> None:
        """A folder holds files of the right names alone."""
        for name in self.told.names(folder, needed=False) or []:
            if not pattern.fullmatch(name):
                self.told.stray(f"{folder}/{name}")
                continue
            try:
                stamp = self.media.stamp(f"{folder}/{name}")
                if folder == "lock" and stamp.size > HOLDER_LIMIT:
                    self.told.stray(f"{folder}/{name}")  # something is hidden there
            except NotFound:
                continue  # gone since it was listed
            except FlightbagError as error:
                self.told.tell(Finding.of(error, remedy=REMOVE))

    def log(self) -> None:
        if not present(self.media, log.LOG) and self.media.names_if_there("trust"):
            # The log tells of the first root before it is there.
            path = self.media.absolute(log.LOG)
            self.told.tell(Finding("bad-log", "there is no log", path=path, remedy="find out who removed it"))
            return
        try:
            self.read_log()
            self.log_holds = True
        except FlightbagError as error:
            finding = Finding.of(error, remedy="find out who changed it; the refs stand without it")
            self.told.tell(as_kind(finding, "bad-log"))

    def read_log(self) -> None:
        self.history = LogHistory.of(log.events(self.media))

    def missions(self) -> None:
        """Refs, signatures and tables of all missions, under the store's own chain."""
        names = self.told.names("missions", needed=True)
        self.closures_known = names is not None
        for name in names or []:
            if MISSION_ID.fullmatch(name):
                self.flyable[name] = False
            else:
                self.told.stray(f"missions/{name}")
        if names is not None:
            # A log line may be ahead of its ref, so a single one may be all of a publication that was cut short.
            self.flyable.update((name, False) for name, moves in self.history.moves.items() if len(moves) > 1)
            for name in sorted(self.history.moves.keys() - self.flyable.keys()):
                text = f"the log tells of mission {name}, which has no ref: it was cut short, or its ref is lost"
                remedy = "store-fsck --repair makes the ref, where all that it needs is there or --from has it"
                path = self.media.absolute(f"missions/{name}")
                self.told.note(Finding("bad-ref", text, path=path, remedy=remedy))
        self.first = self.trust()
        if self.first is not None:
            for mission in sorted(self.flyable):
                self.mission(mission, self.first)
        self.closures_known = self.closures_known and all(self.flyable.values())
        if self.log_holds and self.first is not None:
            self.beyond_the_log()

    def beyond_the_log(self) -> None:
        """Refs and roots that a log which chains does not tell of: they come after their lines, so lines were cut."""
        refs: dict[str, ObjectId] = {}
        for mission in sorted(mission for mission, holds in self.flyable.items() if holds):
            with suppress(FlightbagError):
                refs[mission] = ref_id(self.evidence.ref(mission))
        roots = self.evidence.root_versions()

        def unknown() -> list[str]:
            moves = self.history.moves
            return [
                *(
                    f"what mission {one} is now"
                    for one, id_ in refs.items()
                    if all(move.manifest != id_ for move in moves.get(one, ()))
                ),
                *(f"trust root {version}" for version in roots if version > self.history.newest_root),
            ]

        if unknown():
            self.read_log()  # once more: what was published meanwhile has its line before its ref
        if unknown():
            text = f"the log does not tell of {some(unknown())}: lines were cut from its end, or it is another store's"
            remedy = "find out who did that; store-fsck --repair goes on from what is there, and says so in the log"
            self.told.tell(Finding("bad-log", text, path=self.media.absolute(log.LOG), remedy=remedy))

    def one_mission(self) -> None:
        """The trust chain, the ref, the signatures and the table of one mission."""
        self.flyable[self.scope.mission] = False
        self.first = self.trust()
        if self.first is not None:
            self.mission(self.scope.mission, self.first)

    def trust(self) -> SignedRoot | None:
        """The first root of the chain, if the chain holds; else every mission is grounded."""
        names = self.told.names("trust", needed=False)
        if not self.scope.mission:
            for name in names or []:
                if name != "releases" and not ROOT_FILE.fullmatch(name):
                    self.told.stray(f"trust/{name}")
        if not names and not self.flyable:
            return None  # a store that is new
        try:
            first = SignedRoot.parse(self.evidence.root_file(1))
            if first.root.version != 1:
                raise Corrupt("trust/1.root.cbor is of another version", kind="bad-trust-chain")
            self.as_the_log_says(first)
            return self.evidence.newest(first)
        except FlightbagError as error:
            finding = as_kind(Finding.of(error, remedy=RESTORE), "bad-trust-chain")
            path = finding.path or self.media.absolute("trust")
            self.told.tell(replace(finding, path=path, missions=tuple(self.flyable)))
        return None

    def as_the_log_says(self, first: SignedRoot) -> None:
        """Raises Corrupt for a root that is another one than the log tells of; notes one that is not there.

        A line is ahead of its root, so that the last one may be all of a rotation that was cut short.
        """
        there = self.evidence.root_versions()
        for version in there:
            root = first if version == 1 else SignedRoot.parse(self.evidence.root_file(version))
            rotation = self.history.rotations.get(version)
            if rotation is not None and rotation.digest not in ("", root.root.digest.hex()):
                text = f"trust/{version}.root.cbor is not the root that the log tells of"
                raise Corrupt(text, kind="bad-trust-chain")
        newest = self.history.newest_root
        lacking = newest - max(there, default=0)
        if lacking > 0:
            text = f"the log tells of trust root {newest}, which is not there"
            path = self.media.absolute(f"trust/{newest}.root.cbor")
            finding = Finding("bad-trust-chain", text, path=path, remedy=RESTORE, missions=tuple(self.flyable))
            if lacking == 1:
                self.told.note(replace(finding, missions=(), message=f"{text}: cut short, or lost"))
            else:
                self.told.tell(finding)

    def mission(self, mission: str, first: SignedRoot) -> None:
        ref = self.media.absolute(f"missions/{mission}")
        opened = open_mission(self.evidence, mission, first)
        if not isinstance(opened, Opened):
            for finding in opened:
                told = replace(_as_audit(finding), missions=(mission,))
                mend = finding.remedy if finding.kind == "revoked-key" else _MEND_REF
                if told.object:
                    self.suspect(ObjectId.parse(told.object), told)
                else:
                    self.told.tell(replace(told, path=told.path or ref, remedy=mend))
        elif opened.manifest.mission.id != mission:
            other = opened.manifest.mission.id
            self.told.tell(
                Finding(
                    "bad-ref",
                    f"the ref of {mission} leads to the manifest of {other}",
                    path=ref,
                    expected=mission,
                    actual=other,
                    remedy=_MEND_REF,
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
                self.told.tell(Finding("bad-manifest", message, entry=entry.name, path=path, missions=grounded))
        self.needs.append(need)

    def lacks(self, id_: str) -> None:
        """Notes the table that keeps a pin or draft from being read, so that a repair looks for it."""
        if id_:
            self.told.damaged[ObjectId.parse(id_)] = TABLE_LIMIT

    def no_mission(self, holder: str) -> None:
        """A pin or a draft belongs to no mission: an error where only missions may be."""
        if self.scope.exclusive:
            path = self.media.absolute(holder)
            self.told.foreign(Finding("unreferenced", f"{holder} is of no mission", path=path))

    def retained(self) -> None:
        """What the manifests need that were current before: there must be something to roll back to."""
        for mission, ids in sorted(self.history.retained.items()):
            current = None
            with suppress(FlightbagError):
                current = ref_id(self.evidence.ref(mission))
            for id_ in ids[:KEEP_LAST]:
                if id_ != current and id_ not in self.pending:
                    self.earlier_one(mission, id_)

    def earlier_one(self, mission: str, id_: ObjectId) -> None:
        try:
            self.needs.append(need_of_stored(log.LOG, id_, self.evidence))
        except FlightbagError as error:
            about = ObjectId.parse(str(error.fields.get("object", id_)))
            if about in self.pending:
                return  # told already
            if isinstance(error, NotFound):
                self.told.incomplete(log.LOG, f"the manifest {id_} that was current for {mission} before")
                self.told.damaged[about] = ENVELOPE_LIMIT if about == id_ else TABLE_LIMIT
            else:
                finding = Finding.of(error, entry="manifest" if about == id_ else "table")
                self.suspect(about, _as_audit(replace(finding, object=str(about))))

    def pins(self) -> None:
        """What the pins name: an object, or a manifest with all that it needs."""
        for name in self.told.names(PINS, needed=False) or []:
            if not MISSION_ID.fullmatch(name):
                continue  # a stray
            holder = f"pins/{name}"
            self.no_mission(holder)
            try:
                id_ = pinned_id(self.media, holder)
            except NotFound:
                continue  # gone since it was listed
            except FlightbagError as error:
                finding = Finding.of(error, remedy=f"flightbag unpin {name}, and pin it anew")
                self.told.tell(replace(as_kind(finding, "bad-ref"), path=self.media.absolute(holder)))
                continue
            need = Need(holder, [(id_, UNKNOWN)])
            with suppress(FlightbagError):  # what is wrong with the object, its folder tells
                if self.first is not None and is_manifest(self.evidence, id_):
                    opened = open_manifest(self.evidence, id_, self.first)
                    if isinstance(opened, Opened):
                        self.need(holder, opened)
                    else:
                        self.told.incomplete(holder, opened[0].message)
                        self.lacks(opened[0].object)
                    continue
            self.needs.append(need)

    def releases(self) -> None:
        """The objects of the releases that builds may choose from. Whether they hold, verify and `release show` say."""
        for name in self.told.names(releases.FOLDER, needed=False) or []:
            holder = f"{releases.FOLDER}/{name}"
            if not SEGMENT.fullmatch(name):
                continue  # a stray
            try:
                self.needs.append(Need(holder, [(pinned_id(self.media, holder), UNKNOWN)]))
            except NotFound:
                continue
            except FlightbagError as error:
                finding = Finding.of(error, remedy="remove the file, and add the release anew: flightbag release sign")
                self.told.tell(replace(as_kind(finding, "bad-ref"), path=self.media.absolute(holder)))

    def drafts(self) -> None:
        """What the drafts need. Nobody may have signed them yet, so nothing is judged but that it is there."""
        for name in self.told.names(DRAFTS, needed=False) or []:
            if not MISSION_ID.fullmatch(name):
                continue  # a stray
            holder = f"drafts/{name}"
            self.no_mission(holder)
            try:
                data = self.media.read(holder, ENVELOPE_LIMIT)
                Envelope.parse(data, manifest.CONTENT_TYPE, manifest.PAYLOAD_LIMIT)
            except NotFound:
                continue
            except FlightbagError as error:
                finding = Finding.of(error, remedy="remove the file, and make the draft anew")
                self.told.tell(replace(as_kind(finding, "bad-manifest"), path=self.media.absolute(holder)))
                continue
            try:
                self.needs.append(need_of_unsigned(holder, data, self.evidence))
            except FlightbagError as error:
                self.told.incomplete(holder, error.message)
                self.lacks(str(error.fields.get("object", "")))


def _as_audit(finding: Finding) -> Finding:
    """A finding of the takeoff check under the kind that an audit gives it."""
    told = replace(finding, step="")
    if finding.step == "A" and not finding.entry:
        return as_kind(told, "bad-ref")
    # A manifest's size is signed nowhere: what is larger than any manifest is none.
    no_manifest = finding.entry == "manifest" and finding.kind == "oversized"
    if finding.unreadable or (finding.kind in _OF_OBJECTS and not no_manifest):
        return told
    return as_kind(told, "bad-signature" if finding.step == "C" else "bad-manifest")
