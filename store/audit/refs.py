"""The part of an audit beside the objects: names and types, log, trust chain, refs, signatures, pins, drafts, releases.

It collects the needs of all of these for `store.audit.objects`.
"""

from __future__ import annotations

import re
from contextlib import suppress

from store.audit.collector import REMOVE, RESTORE, FindingCollector, as_kind, some
from store.audit.scope import Scope
from store.disk import log
from store.disk.droppings import is_dropping
from store.disk.layout import BAGS, DRAFTS, ORDERS, PINS, RECEIPTS, RESULTS, ROOT_FILE, TOML, WITHDRAWN
from store.disk.locks import HOLDER_LIMIT
from store.disk.media import Media, object_path
from store.disk.quarantine import present
from store.errors import Corrupt, FlightbagError, NotFound
from store.findings import Finding
from store.format import manifest, withdrawal
from store.format.cose import Envelope
from store.format.entries import SEGMENT, TABLE_LIMIT
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import ENVELOPE_LIMIT, MISSION_ID
from store.format.ref import ref_id
from store.ground import orders, receipts, releases
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
from store.takeoff.withdrawn import parsed, withdrawn
from store.trust.root import SignedRoot
from store.values import replace

FOLDERS = frozenset(
    {
        "missions",
        "objects",
        "trust",
        "drafts",
        "pins",
        "orders",
        "results",
        "receipts",
        "withdrawn",
        "index",
        "tmp",
        "quarantine",
        "trash",
        "lock",
        BAGS,
    }
)
FILES = frozenset({TOML, log.LOG})
_MEND_REF = (
    "run store-fsck --repair, which takes the mission's newest whole manifest from the log; add --from a whole store"
)
_SYNC_WITHDRAWAL = (
    "sync from the station that withdrew it; a file that nobody of this trust domain has signed has no place here: "
    "find out who put it there, and remove it"
)
_KEY = re.compile(r"[0-9a-f]{64}")
# Folders whose files no other part of the audit lists, and the names that these files may have.
_CONTENTS = {
    "lock": re.compile(rf"store|index|log|trust|heal|bags|build-[0-9a-f]{{2}}|mission-{MISSION_ID.pattern}"),
    "index": re.compile(r"owner|data\.mdb|lock\.mdb"),
    "drafts": re.compile(rf"{MISSION_ID.pattern}|{withdrawal.NAME.pattern}"),
    WITHDRAWN: withdrawal.NAME,
    "pins": MISSION_ID,
    ORDERS: _KEY,
    RESULTS: _KEY,
    RECEIPTS: _KEY,
    releases.FOLDER: SEGMENT,
}
# Folders of things that were taken out of their places: a folder for each time, with any names in it.
_ASIDE = ("quarantine", "trash")
_BAG = re.compile(r"[0-9a-f]{32}")
_UNPACK = "unpack its other parts; or remove the folder, if they will not come"
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
# Kinds of findings about an object that the takeoff check and an audit share.
_OF_OBJECTS = frozenset({"missing", "truncated", "oversized", "bit-flip", "wrong-type"})


class Refs:
    """Examines missions, pins, drafts and releases, and collects their needs.

    `holds` has for each mission whether its signatures and tables hold; `withdrawn` has those that were withdrawn.
    `pending` has the takeoff check's findings about manifests and tables, until their folder under objects/ shows
    whether their place explains them. With `closures_known` false, a closure cannot be read, and any object may
    belong to it.
    """

    def __init__(self, collector: FindingCollector, scope: Scope, evidence: StoreEvidence) -> None:
        self.collector = collector
        self.media = collector.media
        self.scope = scope
        self.evidence = evidence
        self.trust_root: SignedRoot | None = None
        self.log_holds = False
        self.history = LogHistory.of([])  # by the log, as far as it can be read
        self.holds: dict[str, bool] = {}
        self.withdrawn: set[str] = set()
        self.needs: list[Need] = []
        self.closures_known = True
        self.pending: dict[ObjectId, Finding] = {}

    def examine(self) -> None:
        """Examine everything that the scope selects."""
        if self.scope.mission:
            self.one_mission()
            return
        self.top_level()
        self.log()
        self.missions()
        self.retained()
        self.pins()
        self.drafts()
        self.orders()
        self.receipts()
        self.releases()
        self.withdrawals()

    def top_level(self) -> None:
        try:
            names = self.media.names("")
        except Corrupt as error:  # too many
            self.collector.add(Finding.of(error))
            names = [name for name in sorted(FOLDERS | FILES) if present(self.media, name)]
        for name in names:
            path = self.media.absolute(name)
            try:
                kind = self.media.file_type(name)
            except FlightbagError as error:
                self.collector.add(Finding.of(error))
                continue
            if name not in FOLDERS and name not in FILES and not log.PART.fullmatch(name):
                self.collector.add_stray(name)
            elif kind != (expected := "directory" if name in FOLDERS else "file"):
                text = f"{name} is a {kind}, expected a {expected}"
                self.collector.add(Finding("wrong-type", text, path=path, actual=kind, remedy=RESTORE))
        for folder, pattern in _CONTENTS.items():
            self.contents(folder, pattern)
        for folder in _ASIDE:
            self.aside(folder)
        for name in self.collector.names_in("tmp", needed=False) or []:
            text = f"tmp/{name} belongs to a run that is under way or was interrupted; the next run removes leftovers"
            self.collector.add_foreign(Finding("stray", text, path=self.media.absolute(f"tmp/{name}")))
        for name in self.collector.names_in(BAGS, needed=False) or []:
            if not _BAG.fullmatch(name):
                self.collector.add_stray(f"{BAGS}/{name}")
                continue
            text, path = (
                f"the bag {name} lacks parts that are still to be unpacked",
                self.media.absolute(f"{BAGS}/{name}"),
            )
            self.collector.add_foreign(Finding("stray", text, path=path, remedy=_UNPACK))

    def aside(self, folder: str) -> None:
        """Examine quarantine or trash, which hold things that were taken out: any kind of thing may lie there."""
        for name in self.collector.names_in(folder, needed=False) or []:
            if not _TIME.fullmatch(name):
                self.collector.add_stray(f"{folder}/{name}")
                continue
            if self.media.file_type(f"{folder}/{name}") != "directory":
                self.collector.add_stray(f"{folder}/{name}")
            elif self.scope.exclusive:
                for inner in self.collector.names_in(f"{folder}/{name}", needed=False) or []:
                    path = self.media.absolute(f"{folder}/{name}/{inner}")
                    self.collector.add_foreign(
                        Finding("unreferenced", f"{folder}/{name}/{inner} is in no closure", path=path)
                    )

    def contents(self, folder: str, pattern: re.Pattern[str]) -> None:
        """Add findings for the things in a folder that are not files of the right names."""
        for name in self.collector.names_in(folder, needed=False) or []:
            if not pattern.fullmatch(name) or is_dropping(name):
                self.collector.add_stray(f"{folder}/{name}")
                continue
            try:
                stamp = self.media.stamp(f"{folder}/{name}")
                if folder == "lock" and stamp.size > HOLDER_LIMIT:
                    self.collector.add_stray(f"{folder}/{name}")  # the file hides other data
            except NotFound:
                continue  # removed since it was listed
            except FlightbagError as error:
                self.collector.add(Finding.of(error, remedy=REMOVE))

    def log(self) -> None:
        """Read the log."""
        if not _has_log(self.media) and (versions := self.root_versions()) != []:
            # The line about the first trust root is older than its file.
            path, remedy = self.media.absolute(log.LOG), "find out who removed the log"
            text = (
                f"the store has {'trust roots that cannot be read' if versions is None else 'trust roots'} and no log"
            )
            self.collector.add(Finding("bad-log", text, path=path, remedy=remedy))
            return
        try:
            self.read_log()
            self.log_holds = True
        except FlightbagError as error:
            finding = Finding.of(error, remedy="find out who changed the log; the refs hold without it")
            self.collector.add(as_kind(finding, "bad-log"))

    def read_log(self) -> None:
        self.history = LogHistory.of(log.events(self.media))

    def missions(self) -> None:
        """Examine the refs, signatures and tables of all missions, under the store's own chain."""
        names = self.collector.names_in("missions", needed=True)
        self.closures_known = names is not None
        if names is None and "missions" in self.collector.crowded:
            names = sorted(self.history.moves)
        for name in names or []:
            if MISSION_ID.fullmatch(name):
                self.holds[name] = False
            else:
                self.collector.add_stray(f"missions/{name}")
        if names is not None:
            # A log line comes before its ref: a single line may be the rest of a publication that was cut short.
            # None at all: it was taken out of the store.
            lines = {name: count for name, count in self.history.lines.items() if count}
            for name in sorted(name for name in self.holds if self.history.is_removed(name)):
                text = (
                    f"mission {name} was removed by the log and has a ref: its removal was cut short, or a copy of the "
                    "store brought it back"
                )
                remedy = f"run `flightbag remove` again to take it out, or build it to keep it: {name}"
                path = self.media.absolute(f"missions/{name}")
                self.collector.add_note(Finding("bad-ref", text, path=path, remedy=remedy))
            self.holds.update((name, False) for name, count in lines.items() if count > 1)
            for name in sorted(lines.keys() - self.holds.keys()):
                text = f"mission {name} is in the log and has no ref: its publication was cut short, or the ref is lost"
                remedy = "run store-fsck --repair, which restores the ref if this store or one given by --from is whole"
                path = self.media.absolute(f"missions/{name}")
                self.collector.add_note(Finding("bad-ref", text, path=path, remedy=remedy))
        self.trust_root = self.trust()
        if self.trust_root is not None:
            for mission in sorted(self.holds):
                self.mission(mission, self.trust_root)
        self.closures_known = self.closures_known and all(self.holds.values())
        if self.log_holds and self.trust_root is not None:
            self.beyond_the_log()

    def beyond_the_log(self) -> None:
        """Add a finding if refs or trust roots lack log lines. Lines come first, so lines were cut from the log."""
        refs: dict[str, ObjectId] = {}
        for mission in sorted(mission for mission, holds in self.holds.items() if holds):
            with suppress(FlightbagError):
                refs[mission] = ref_id(self.evidence.ref(mission))
        roots = self.evidence.root_versions()

        def unlogged() -> list[str]:
            moves = self.history.moves
            return [
                *(
                    f"the current manifest of {one}"
                    for one, id_ in refs.items()
                    if all(move.manifest != id_ for move in moves.get(one, ()))
                ),
                *(f"trust root {version}" for version in roots if version > self.history.newest_root),
            ]

        if unlogged():
            self.read_log()  # again: a mission that was published meanwhile has its line by now
        if unlogged():
            text = f"the log lacks {some(unlogged())}: lines were cut from its end, or it is the log of another store"
            remedy = "find out who changed the log; store-fsck --repair goes on from the present state, and logs that"
            self.collector.add(Finding("bad-log", text, path=self.media.absolute(log.LOG), remedy=remedy))

    def one_mission(self) -> None:
        """Examine the trust chain, the ref, the signatures and the table of one mission."""
        self.holds[self.scope.mission] = False
        self.trust_root = self.trust()
        if self.trust_root is not None:
            self.mission(self.scope.mission, self.trust_root)
        self.withdrawals()

    def root_versions(self) -> list[int] | None:
        """Return the versions of the trust roots, or None where they cannot be told: `trust` has the finding."""
        try:
            return self.evidence.root_versions()
        except FlightbagError:
            return None

    def trust(self) -> SignedRoot | None:
        """Return the newest trust root if the store's chain holds; else add a finding that grounds every mission."""
        names = self.collector.names_in("trust", needed=False)
        versions = self.root_versions() if names else []
        if not self.scope.mission:
            for name in names or []:
                root = ROOT_FILE.fullmatch(name)
                if name != "releases" and not (root and (versions is None or int(root[1]) in versions)):
                    self.collector.add_stray(f"trust/{name}")
        if not names and not self.holds:
            return None  # a new store
        try:
            first = SignedRoot.parse(self.evidence.root_file(1))
            if first.root.version != 1:
                text = f"trust/1.root.cbor holds trust root {first.root.version}"
                raise Corrupt(text, kind="bad-trust-chain")
            self.compare_with_log(first)
            return self.evidence.newest(first)
        except FlightbagError as error:
            finding = as_kind(Finding.of(error, remedy=RESTORE), "bad-trust-chain")
            path = finding.path or self.media.absolute("trust")
            self.collector.add(replace(finding, path=path, missions=tuple(self.holds)))
        return None

    def compare_with_log(self, first: SignedRoot) -> None:
        """Compare the trust roots with the log. Raise Corrupt for a root with another digest; note a missing root.

        A line comes before its root file: the last line may be all that is left of a rotation that was cut short.
        """
        versions = self.evidence.root_versions()
        for version in versions:
            root = first if version == 1 else SignedRoot.parse(self.evidence.root_file(version))
            rotation = self.history.rotations.get(version)
            if rotation is not None and rotation.digest not in ("", root.root.digest.hex()):
                text = f"trust/{version}.root.cbor is another trust root than the one that took effect by the log"
                raise Corrupt(text, kind="bad-trust-chain")
        newest = self.history.newest_root
        lacking = newest - max(versions, default=0)
        if lacking > 0:
            text = f"trust root {newest} is in the log and missing from the store"
            path = self.media.absolute(f"trust/{newest}.root.cbor")
            finding = Finding("bad-trust-chain", text, path=path, remedy=RESTORE, missions=tuple(self.holds))
            if lacking == 1:
                self.collector.add_note(
                    replace(finding, missions=(), message=f"{text}: its rotation was cut short, or the file is lost")
                )
            else:
                self.collector.add(finding)

    def mission(self, mission: str, trust_root: SignedRoot) -> None:
        """Examine one mission: collect its need, or add findings."""
        ref = self.media.absolute(f"missions/{mission}")
        opened = open_mission(self.evidence, mission, trust_root)
        if not isinstance(opened, Opened):
            for finding in opened:
                grounding = replace(_as_audit(finding), missions=(mission,))
                remedy = finding.remedy if finding.kind == "revoked-key" else _MEND_REF
                if finding.kind == "missing" and self.scope.mission and not finding.object:
                    remedy = f"{finding.remedy}; if its ref was lost, {_MEND_REF}"
                if grounding.object:
                    self.suspect(ObjectId.parse(grounding.object), grounding)
                else:
                    self.collector.add(replace(grounding, path=grounding.path or ref, remedy=remedy))
        elif opened.manifest.mission.id != mission:
            other = opened.manifest.mission.id
            self.collector.add(
                Finding(
                    "bad-ref",
                    f"the ref of mission {mission} names the manifest of mission {other}",
                    path=ref,
                    expected=mission,
                    actual=other,
                    remedy=_MEND_REF,
                    missions=(mission,),
                )
            )
        else:
            self.holds[mission] = True
            self.need(f"missions/{mission}", opened)
            for finding in withdrawn(self.evidence, opened).findings:
                self.is_withdrawn(mission, finding)
            if figures := opened.manifest.unproven:
                text = (
                    f"{some([figure.name for figure in figures])} of mission {mission}: each aircraft has to prove it"
                )
                remedy = "run `flightbag probe STORE MISSION --state DIR` on each aircraft that is to fly it"
                self.collector.add_note(Finding("unproven", text, path=ref, remedy=remedy))

    def is_withdrawn(self, mission: str, finding: Finding) -> None:
        """Add a withdrawal of a mission as information; one that does not hold as an error that grounds it."""
        path = self.media.absolute(f"missions/{mission}")
        if finding.kind == "withdrawn":
            self.withdrawn.add(mission)
            self.collector.add_note(Finding("withdrawn", finding.message, path=path, remedy=finding.remedy))
        else:
            path = self.media.absolute(finding.path)
            finding = replace(finding, step="", entry="", path=path, missions=(mission,))
            self.collector.add(finding if finding.unreadable else as_kind(finding, "bad-withdrawal"))

    def withdrawals(self) -> None:
        """Examine the withdrawals that no mission here rests on, and their drafts. None needs an object."""
        for folder in (WITHDRAWN, DRAFTS):
            for name in self.collector.names_in(folder, needed=False) or []:
                if not withdrawal.NAME.fullmatch(name):
                    continue  # a stray, or the draft of a mission
                if folder == DRAFTS:
                    self.no_mission(f"{folder}/{name}")
                try:
                    parsed(self.media.read(f"{folder}/{name}", withdrawal.FILE_LIMIT), name)
                except NotFound:
                    continue
                except FlightbagError as error:
                    path = self.media.absolute(f"{folder}/{name}")
                    if any(finding.path == path for finding in self.collector.errors.values()):
                        continue
                    finding = replace(Finding.of(error, remedy=_SYNC_WITHDRAWAL), path=path)
                    self.collector.add(finding if finding.unreadable else as_kind(finding, "bad-withdrawal"))

    def suspect(self, id_: ObjectId, finding: Finding) -> None:
        """Keep a finding about an object until its folder is examined."""
        first = self.pending.get(id_, finding)
        self.pending[id_] = replace(first, missions=tuple(sorted({*first.missions, *finding.missions})))

    def need(self, holder: str, opened: Opened) -> None:
        """Collect the need of a mission or pin; add a finding if two of its entries contradict each other."""
        need = need_of(holder, opened)
        sizes = opened.closure()
        for entry in opened.table.entries:
            if entry.size != sizes[entry.id]:
                message = f"object {entry.id} has another size by {entry.name} than by another entry"
                grounded = (need.mission,) if need.mission else ()
                path = self.media.absolute(holder)
                self.collector.add(Finding("bad-manifest", message, entry=entry.name, path=path, missions=grounded))
        self.needs.append(need)

    def lacks(self, id_: str) -> None:
        """Mark the table that keeps a pin or draft from being read as damaged, so that a repair fetches it."""
        if id_:
            self.collector.damaged[ObjectId.parse(id_)] = TABLE_LIMIT

    def no_mission(self, holder: str) -> None:
        """Add a pin or draft as a thing that belongs to no mission, in an exclusive audit."""
        if self.scope.exclusive:
            path = self.media.absolute(holder)
            self.collector.add_foreign(Finding("unreferenced", f"{holder} belongs to no mission", path=path))

    def retained(self) -> None:
        """Collect the needs of the manifests that were current before: a rollback needs a target."""
        for mission, ids in sorted(self.history.retained.items()):
            current = None
            with suppress(FlightbagError):
                current = ref_id(self.evidence.ref(mission))
            for id_ in ids[:KEEP_LAST]:
                if id_ != current and id_ not in self.pending:
                    self.earlier_one(mission, id_)
        for mission, manifest_id in sorted(self.history.removed.items()):
            if present(self.media, object_path(manifest_id)):
                self.needs.append(Need(log.LOG, [(manifest_id, UNKNOWN)]))
            else:
                text = f"the manifest {manifest_id} of the removed mission {mission}, after which its sequence goes on"
                self.collector.add_incomplete(log.LOG, text)
                self.collector.damaged[manifest_id] = ENVELOPE_LIMIT

    def earlier_one(self, mission: str, id_: ObjectId) -> None:
        """Collect the need of an earlier manifest."""
        try:
            self.needs.append(need_of_stored(log.LOG, id_, self.evidence))
        except FlightbagError as error:
            finding = Finding.of(error)
            about = ObjectId.parse(finding.object) if finding.object else id_
            if about in self.pending:
                return  # the object has its finding already
            if isinstance(error, NotFound):
                self.collector.add_incomplete(log.LOG, f"the manifest {id_}, which was current for {mission} before")
                self.collector.damaged[about] = ENVELOPE_LIMIT if about == id_ else TABLE_LIMIT
            else:
                entry = "manifest" if about == id_ else "table"
                self.suspect(about, _as_audit(replace(finding, entry=entry, object=str(about))))

    def pins(self) -> None:
        """Collect the needs of the pins: a pin names an object, or a manifest with its closure."""
        for name in self.collector.names_in(PINS, needed=False) or []:
            if not MISSION_ID.fullmatch(name):
                continue  # a stray
            holder = f"pins/{name}"
            self.no_mission(holder)
            try:
                id_ = pinned_id(self.media, holder)
            except NotFound:
                continue  # removed since it was listed
            except FlightbagError as error:
                finding = Finding.of(error, remedy=f"run `flightbag unpin {name}`, and pin the object again")
                self.collector.add(replace(as_kind(finding, "bad-ref"), path=self.media.absolute(holder)))
                continue
            need = Need(holder, [(id_, UNKNOWN)])
            with suppress(FlightbagError):  # a damaged object gets its finding from its folder
                if self.trust_root is not None and is_manifest(self.evidence, id_):
                    opened = open_manifest(self.evidence, id_, self.trust_root)
                    if isinstance(opened, Opened):
                        self.need(holder, opened)
                    else:
                        self.collector.add_incomplete(holder, opened[0].message)
                        self.lacks(opened[0].object)
                    continue
            self.needs.append(need)

    def releases(self) -> None:
        """Collect the needs of the releases. The takeoff check and `flightbag release show` judge their signatures."""
        for name in self.collector.names_in(releases.FOLDER, needed=False) or []:
            holder = f"{releases.FOLDER}/{name}"
            if not SEGMENT.fullmatch(name) or is_dropping(name):
                continue  # a stray
            try:
                self.needs.append(Need(holder, [(pinned_id(self.media, holder), UNKNOWN)]))
            except NotFound:
                continue
            except FlightbagError as error:
                remedy = "remove the file, and add the release again with `flightbag release sign`"
                finding = Finding.of(error, remedy=remedy)
                self.collector.add(replace(as_kind(finding, "bad-ref"), path=self.media.absolute(holder)))

    def orders(self) -> None:
        """Collect the needs of orders and results. A build judges the signatures of a result, and no aircraft does."""
        for folder, need_of_key in ((ORDERS, orders.order_need), (RESULTS, orders.result_need)):
            for name in self.collector.names_in(folder, needed=False) or []:
                if not _KEY.fullmatch(name):
                    continue  # a stray
                holder = f"{folder}/{name}"
                self.no_mission(holder)
                try:
                    self.needs.append(need_of_key(self.evidence, BuildKey.parse(name)))
                except NotFound as error:
                    if present(self.media, holder):  # else it was removed since it was listed
                        self.collector.add_incomplete(holder, error.message)
                        self.lacks(Finding.of(error).object)
                except FlightbagError as error:
                    remedy = "remove the file, and order or fulfil again"
                    finding = Finding.of(error, remedy=remedy)
                    self.collector.add(replace(as_kind(finding, "bad-ref"), path=self.media.absolute(holder)))

    def receipts(self) -> None:
        """Examine the receipts: names, bytes and signatures. Whose they are, `flightbag receipts` says."""
        if self.trust_root is None:
            return  # nothing says of which domain they have to be: the trust chain has its finding
        for name in self.collector.names_in(RECEIPTS, needed=False) or []:
            if not _KEY.fullmatch(name):
                continue  # a stray
            try:
                receipts.read(self.media, name, self.trust_root.root)
            except NotFound:
                continue  # removed since it was listed
            except FlightbagError as error:
                finding = as_kind(Finding.of(error, remedy=REMOVE), "bad-receipt")
                path = self.media.absolute(f"{RECEIPTS}/{name}")
                self.collector.add_one_of_many(replace(finding, path=path), needed=False)

    def drafts(self) -> None:
        """Collect the needs of the drafts. A draft may have no signature yet, so none is judged."""
        for name in self.collector.names_in(DRAFTS, needed=False) or []:
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
                finding = Finding.of(error, remedy="remove the file, and make the draft again with `flightbag build`")
                self.collector.add(replace(as_kind(finding, "bad-manifest"), path=self.media.absolute(holder)))
                continue
            try:
                self.needs.append(need_of_unsigned(holder, data, self.evidence))
            except FlightbagError as error:
                self.collector.add_incomplete(holder, error.message)
                self.lacks(Finding.of(error).object)


def _has_log(media: Media) -> bool:
    return any(present(media, name) for name in log.files(media))


def _as_audit(finding: Finding) -> Finding:
    """Return a finding of the takeoff check under the kind that an audit gives it."""
    of_audit = replace(finding, step="")
    if finding.step == "A" and not finding.entry:
        return as_kind(of_audit, "bad-ref")
    # No signed data states a manifest's size: a larger object than any manifest is not a manifest.
    no_manifest = finding.entry == "manifest" and finding.kind == "oversized"
    if finding.unreadable or (finding.kind in _OF_OBJECTS and not no_manifest):
        return of_audit
    return as_kind(of_audit, "bad-signature" if finding.step == "C" else "bad-manifest")
