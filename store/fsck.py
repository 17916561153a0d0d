"""The audit of a store: what is on the medium, against what it must be. Writes nothing.

`--quick` looks at names, types, sizes, refs, signatures, closures, log and index; `--full` reads every byte of every
object besides. Signatures are judged by the store's own trust chain, because an audit asks whether the store is
consistent; whether it may fly, the takeoff check says, from a pinned root.

Each finding has a kind (FORMAT.md 8), the missions that it grounds, and a remedy. What could not be read is a finding
that says so, and makes the audit inconclusive, never clean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from store import log
from store.errors import Corrupt, FlightbagError, NotFound, Unavailable
from store.evidence import ROOT_FILE, StoreEvidence
from store.findings import Finding
from store.format.entries import Entry
from store.format.ids import ObjectId
from store.format.manifest import MISSION_ID
from store.index import Index, peek_index
from store.media import Media, object_path
from store.repository import TOML, check_format
from store.trust.root import SignedRoot, advance
from store.verify import COPY_AGAIN, Opened, open_mission

FOLDERS = frozenset({"missions", "objects", "trust", "drafts", "pins", "index", "tmp", "quarantine", "lock"})
FILES = frozenset({TOML, log.LOG})
_SHARD = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{62}")
_RESTORE = "sync the missions again from a store that has it whole"


@dataclass
class Audit:
    """The result: every finding, and for each mission whether it is flyable by what was looked at."""

    findings: list[Finding] = field(default_factory=list)
    missions: dict[str, bool] = field(default_factory=dict)
    objects: int = 0
    bytes: int = 0

    @property
    def errors(self) -> bool:
        return any(not f.information and not f.unreadable for f in self.findings)

    @property
    def inconclusive(self) -> bool:
        return any(f.unreadable for f in self.findings)


class _Auditor:
    def __init__(self, media: Media, progress: Callable[[int], None] | None) -> None:
        self.media = media
        self.evidence = StoreEvidence(media, progress)
        self.audit = Audit()
        self.sizes: dict[ObjectId, int] = {}
        # Which missions need an object, and under which names.
        self.needed: dict[ObjectId, dict[str, list[str]]] = {}
        self.expected: dict[ObjectId, int] = {}

    def tell(self, finding: Finding) -> None:
        self.audit.findings.append(finding)

    def top_level(self) -> None:
        for name in self.media.names(""):
            known = name in FOLDERS or name in FILES
            kind = self.media.kind(name)
            if known and kind != ("directory" if name in FOLDERS else "file"):
                self.tell(Finding("wrong-type", f"{name} is a {kind}", path=self.media.absolute(name), actual=kind))
            elif not known:
                self.stray(name)
        for name in self.media.names_if_there("tmp"):
            self.stray(f"tmp/{name}", "left by an interrupted run; the next one removes it", information=True)

    def stray(self, name: str, message: str = "", *, information: bool = False) -> None:
        text = f"{name} has no place in a store" if not message else f"{name}: {message}"
        remedy = "" if information else "remove it, if it is not yours"
        path = self.media.absolute(name)
        self.tell(Finding("stray", text, path=path, remedy=remedy, information=information))

    def objects(self) -> None:
        """Names, types and sizes of all that lies under objects/."""
        for shard in self.media.names("objects"):
            name = f"objects/{shard}"
            if not _SHARD.fullmatch(shard):
                self.misplaced(name, _SHARD.fullmatch(shard.lower()) is not None)
                continue
            try:
                rests = self.media.names(name)
            except FlightbagError as error:
                self.tell(Finding.of(error))
                continue
            for rest in rests:
                self.one_object(f"{name}/{rest}", shard, rest)

    def one_object(self, name: str, shard: str, rest: str) -> None:
        if not _REST.fullmatch(rest):
            self.misplaced(name, _REST.fullmatch(rest.lower()) is not None)
            return
        try:
            self.sizes[ObjectId.parse(shard + rest)] = self.media.stamp(name).size
        except FlightbagError as error:
            if not isinstance(error, NotFound):  # gone since it was listed
                self.tell(Finding.of(error, remedy=_RESTORE))

    def misplaced(self, name: str, only_case: bool) -> None:
        if only_case:
            self.tell(
                Finding("misnamed", f"{name} is not in lower case", path=self.media.absolute(name), remedy=_RESTORE)
            )
        else:
            self.stray(name)

    def trust(self) -> SignedRoot | None:
        """The first root of the chain, if the chain holds."""
        for name in self.media.names_if_there("trust"):
            if name != "releases" and not ROOT_FILE.fullmatch(name):
                self.stray(f"trust/{name}")
        try:
            first = SignedRoot.parse(self.evidence.root_file(1))
            advance(first, self.evidence.chain(1))
            return first
        except NotFound as error:
            if self.media.names_if_there("missions") or self.media.names_if_there("trust"):
                self.tell(replace(Finding.of(error), kind="bad-trust-chain", remedy=COPY_AGAIN))
        except FlightbagError as error:
            finding = Finding.of(error, remedy=COPY_AGAIN)
            self.tell(finding if finding.unreadable else replace(finding, kind="bad-trust-chain"))
        return None

    def missions(self, first: SignedRoot | None) -> None:
        for mission in self.media.names("missions"):
            if not MISSION_ID.fullmatch(mission):
                self.stray(f"missions/{mission}")
                continue
            self.audit.missions[mission] = False
            if first is None:
                continue  # said once, as bad-trust-chain
            opened = open_mission(self.evidence, mission, first)
            if not isinstance(opened, Opened):
                for finding in opened:
                    self.tell(replace(_as_audit(finding), missions=(mission,)))
                continue
            self.audit.missions[mission] = True
            if opened.manifest.mission.id != mission:
                self.tell(
                    Finding(
                        "bad-ref",
                        f"the ref of {mission} leads to the manifest of {opened.manifest.mission.id}",
                        object=str(opened.manifest_id),
                        expected=mission,
                        actual=opened.manifest.mission.id,
                        remedy=COPY_AGAIN,
                        missions=(mission,),
                    )
                )
            self.closure(mission, opened)

    def closure(self, mission: str, opened: Opened) -> None:
        for id_, size in opened.closure().items():
            self.expected[id_] = size
            self.needed.setdefault(id_, {}).setdefault(mission, [])
        for release in opened.manifest.releases:
            self.needed.setdefault(release, {}).setdefault(mission, ["release"])
        self.needed[opened.manifest_id][mission].append("manifest")
        self.needed[opened.manifest.table][mission].append("table")
        for entry in opened.table.entries:
            self.needed[entry.id][mission].append(_label(entry))

    def sizes_of_closures(self) -> None:
        for id_, missions in sorted(self.needed.items()):
            expected, actual = self.expected.get(id_), self.sizes.get(id_)
            if actual is None:
                if not any(finding.path == self.media.absolute(object_path(id_)) for finding in self.audit.findings):
                    self.damage(Finding("missing", f"object {id_} is not there", remedy=_RESTORE), id_, missions)
            elif expected is not None and actual != expected:
                kind = "truncated" if actual < expected else "oversized"
                message = f"object {id_} has {actual} bytes, the manifest says {expected}"
                self.damage(
                    Finding(kind, message, expected=str(expected), actual=str(actual), remedy=_RESTORE), id_, missions
                )

    def damage(self, finding: Finding, id_: ObjectId, missions: dict[str, list[str]]) -> None:
        entries = sorted({name for names in missions.values() for name in names})
        self.tell(
            replace(
                finding,
                object=str(id_),
                path=self.media.absolute(object_path(id_)),
                entry=", ".join(entries[:4]) + (f" and {len(entries) - 4} more" if len(entries) > 4 else ""),
                missions=tuple(sorted(missions)),
            )
        )

    def unreferenced(self) -> None:
        """Objects of no closure. Not told where a closure is unknown: they may well be in it."""
        if not all(self.audit.missions.values()):
            return
        for id_ in sorted(set(self.sizes) - set(self.needed)):
            message = f"object {id_} is in no mission's closure"
            self.tell(
                Finding(
                    "unreferenced",
                    message,
                    object=str(id_),
                    path=self.media.absolute(object_path(id_)),
                    information=True,
                )
            )

    def every_byte(self) -> None:
        told = {(f.object, f.kind) for f in self.audit.findings}
        for id_, outcome in self.evidence.check(sorted(self.sizes.items())):
            if outcome is None:
                continue
            finding = Finding.of(outcome, remedy=_RESTORE)
            if (str(id_), finding.kind) in told or self._already_told(id_):
                continue
            self.damage(finding, id_, self.needed.get(id_, {}))

    def _already_told(self, id_: ObjectId) -> bool:
        """A truncated object hashes to something else too: one damage, one finding."""
        kinds = ("truncated", "oversized")
        return any(f.object == str(id_) and f.kind in kinds for f in self.audit.findings)

    def index(self) -> None:
        index = peek_index(self.media)
        if index is None:
            return  # it will be made again; nothing depends on it
        with index:
            self._against(index)

    def _against(self, index: Index) -> None:
        known = set(index.ids())
        for kind, ids, text in (
            ("index-only", known - set(self.sizes), "is in the index, but there is no such file"),
            ("file-only", set(self.sizes) - known, "is not in the index"),
        ):
            for id_ in sorted(ids):
                self.tell(Finding(kind, f"object {id_} {text}", object=str(id_), information=True))

    def log(self) -> None:
        try:
            log.events(self.media)
        except FlightbagError as error:
            self.tell(Finding.of(error, remedy="find out who changed it; the refs stand without it"))


def _label(entry: Entry) -> str:
    return entry.name


def _as_audit(finding: Finding) -> Finding:
    """A finding of the takeoff check under the kind that an audit gives it."""
    if finding.unreadable:
        return finding
    if finding.step == "C":
        return replace(finding, kind="bad-signature", step="")
    if finding.step == "B":
        return replace(finding, kind="bad-trust-chain", step="")
    keep = {"bad-ref", "missing", "truncated", "oversized", "bit-flip", "wrong-type"}
    return replace(finding, kind=finding.kind if finding.kind in keep else "bad-manifest", step="")


def fsck(media: Media, *, full: bool, progress: Callable[[int], None] | None = None) -> Audit:
    """Audits a store. Raises NotFound where there is none, Unavailable where its top level cannot be read."""
    check_format(media)
    auditor = _Auditor(media, progress)
    steps: Iterable[Callable[[], None]] = (auditor.top_level, auditor.objects, auditor.log)
    for step in steps:
        step()
    auditor.missions(auditor.trust())
    auditor.sizes_of_closures()
    if full:
        auditor.every_byte()
    auditor.unreferenced()
    auditor.index()
    audit = auditor.audit
    audit.objects, audit.bytes = len(auditor.sizes), sum(auditor.sizes.values())
    for finding in audit.findings:
        if not finding.information:
            for mission in finding.missions:
                audit.missions[mission] = False
    return audit


__all__ = ["Audit", "Corrupt", "Unavailable", "fsck"]
