"""The plan of a repair: the steps against the findings of an audit, as a value, and the sources of the right bytes.

Replicas are not trusted: an object must hash to its id, a trust root must continue this store's chain, and a manifest
must verify under that chain. Planning reads, and writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Literal

from store.audit.fsck import Audit
from store.disk import log
from store.disk.layout import QUARANTINE, TRASH
from store.disk.media import SHARD_LIMIT, Media, object_path
from store.errors import FlightbagError
from store.findings import Finding
from store.format import manifest
from store.format.cose import Envelope
from store.format.ids import ObjectId, is_hex
from store.format.manifest import ENVELOPE_LIMIT, Manifest
from store.format.ref import ref_id
from store.ground import releases
from store.ground.log_history import LogHistory
from store.ground.repository import Repository
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Opened
from store.takeoff.verify import open_manifest
from store.trust.root import SignedRoot, advance, count_signers
from store.values import dataclass

FROM_LOG = "the log"
# The most names in one folder of trash or quarantine that are looked at for the bytes of an object.
_ASIDE_LIMIT = 2**20

Action = Literal["make", "move-aside", "rename", "root", "log", "fetch", "ref"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a repair. `name` is a path in the store, and `why` the kind of finding against it.

    `to` is the new name of a thing that is renamed, or the id of what a file will hold; `source` names the origin of
    the bytes. `limit` is the most bytes that a fetched object may have.
    """

    action: Action
    name: str
    why: str
    to: str = ""
    source: str = ""
    limit: int = 0

    def as_json(self) -> dict[str, str]:
        """Return the fields that are not empty."""
        fields = ("action", "name", "why", "to", "source")
        return {field: value for field in fields if (value := getattr(self, field))}


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """The steps of a repair, in their order, and the findings that no source at hand can mend.

    With `index` the index differs from the files, and is mended.
    """

    steps: tuple[Step, ...]
    unsolved: tuple[Finding, ...]
    index: bool = False

    @property
    def work(self) -> bool:
        """Whether the plan changes the store."""
        return self.index or bool(self.steps)


@dataclass(frozen=True, slots=True)
class Place:
    """A file that may hold an object's bytes; `label` names it for people."""

    media: Media
    name: str
    label: str


class _ReplicaEvidence(StoreEvidence):
    """The evidence of a replica, judged by the trust chain of the store under repair."""

    def __init__(self, media: Media, own: StoreEvidence) -> None:
        super().__init__(media)
        self._own = own

    def chain(self, after: int) -> Sequence[bytes]:
        return self._own.chain(after)


class Sources:
    """The sources of bytes: the store's own trash and quarantine, then the replicas, in order."""

    def __init__(self, media: Media, replicas: Sequence[Repository]) -> None:
        self.media = media
        self.replicas = replicas

    @cached_property
    def _aside(self) -> dict[ObjectId, list[str]]:
        """The files that were taken out of an object's place, by the id of that place."""
        files: dict[ObjectId, list[str]] = {}
        for folder in (TRASH, QUARANTINE):
            with suppress(FlightbagError):
                for day in self.media.names(folder):
                    with suppress(FlightbagError):
                        for name in self.media.first_names(f"{folder}/{day}", _ASIDE_LIMIT):
                            if is_hex(text := name[:64].lower()):
                                files.setdefault(ObjectId.parse(text), []).append(f"{folder}/{day}/{name}")
        return files

    def of(self, id_: ObjectId, limit: int) -> Iterator[Place]:
        """Yield the files of at most `limit` bytes that may hold this object, the likeliest first."""
        places = [Place(self.media, name, os.path.dirname(name)) for name in self._aside.get(id_, ())]
        places += [Place(one.media, object_path(id_), one.media.path) for one in self.replicas]
        for place in places:
            with suppress(FlightbagError):
                if place.media.stamp(place.name).size <= limit:
                    yield place


def plan_repair(repository: Repository, audit: Audit, replicas: Sequence[Repository]) -> RepairPlan:
    """Return the plan against the findings of an audit. Reads, and writes nothing."""
    return _Planner(repository, audit, replicas).plan()


class _Planner:
    def __init__(self, repository: Repository, audit: Audit, replicas: Sequence[Repository]) -> None:
        self.media = repository.media
        self.repository = repository
        self.audit = audit
        self.replicas = replicas
        self.sources = Sources(self.media, replicas)
        self.steps: list[Step] = []
        self.unsolved: list[Finding] = []
        # The missions whose refs may have to be made again, with the finding against each.
        self.refs: dict[str, Finding] = {}

    def plan(self) -> RepairPlan:
        errors = [finding for finding in self.audit.findings if not finding.information]
        for finding in errors:
            if not self.solve(finding):
                self.unsolved.append(finding)
        for finding in self.audit.findings:
            if finding.information and finding.kind == "bad-trust-chain":
                self.roots()  # a trust root of the log is missing
            if finding.information and finding.kind == "bad-ref":
                self.refs.setdefault(os.path.basename(finding.path), finding)  # a mission of the log has no ref
        for id_, limit in self.audit.damaged.items():
            place = next(self.sources.of(id_, limit), None)
            if place is not None:
                why = next((finding.kind for finding in errors if finding.object == str(id_)), "missing")
                self.steps.append(Step("fetch", object_path(id_), why, source=place.label, limit=limit))
        fetched = {step.name for step in self.steps if step.action == "fetch"}
        self.unsolved = [
            finding
            for finding in self.unsolved
            if not finding.object or object_path(ObjectId.parse(finding.object)) not in fetched
        ]
        for mission, finding in self.refs.items():
            step = self.ref(mission, finding)
            if step is None and not finding.information:
                self.unsolved.append(finding)
            elif step is not None:
                self.steps.append(step)
        # Renames come first: they take things that belong elsewhere out of a folder before it is moved aside.
        order = ("rename", "move-aside", "make", "root", "log", "fetch", "ref")
        steps = sorted(dict.fromkeys(self.steps), key=lambda step: order.index(step.action))
        stale = any(self.audit.notes.get(kind) for kind in ("index-only", "file-only"))
        return RepairPlan(tuple(steps), tuple(self.unsolved), stale)

    def solve(self, finding: Finding) -> bool:
        """Add the steps against a finding. Return False if it has none, or depends on the fetching of its object."""
        name = os.path.relpath(finding.path, self.media.path) if finding.path else ""
        kind = finding.kind
        if name == "missions" and kind in ("missing", "wrong-type"):
            self.refs.update(dict.fromkeys(self.claims().missions(), finding))
        if kind in ("stray", "wrong-type", "bad-receipt"):
            self.steps.append(Step("move-aside", name, kind))
            if name in ("objects", "missions", "trust"):
                self.steps.append(Step("make", name, kind))
            if kind == "wrong-type" and name.startswith("missions/"):
                self.refs.update(dict.fromkeys(finding.missions, finding))
            return True
        if kind == "misnamed":
            self.rename(name)
            return True
        if kind == "missing" and name in ("objects", "missions"):
            self.steps.append(Step("make", name, kind))
            return True
        if kind == "bad-trust-chain" or (finding.unreadable and name.startswith("trust/")):
            return self.roots()
        if kind == "bad-log" and not finding.unreadable:
            self.steps.append(Step("log", log.LOG, kind))  # also for a part of it
            return True
        if kind == "bad-ref" and name.startswith(f"{releases.FOLDER}/"):
            self.steps.append(Step("move-aside", name, kind))
            return True
        if kind in ("bad-ref", "bad-manifest", "bad-signature") and finding.missions:
            self.refs.update(dict.fromkeys(finding.missions, finding))
            return True
        return False

    def rename(self, name: str) -> None:
        """Plan the renaming of a name in upper case, if the right name is free; else the thing moves aside."""
        folder, last = os.path.split(name)
        right = f"{folder}/{last.lower()}"
        # The listing decides: on a file system without case, a lookup under the right name finds this very thing.
        if last.lower() not in self.media.names(folder, SHARD_LIMIT):
            self.steps.append(Step("rename", name, "misnamed", to=right))
            return
        if self.media.file_type(name) == "directory":
            taken = self.media.names(right, SHARD_LIMIT)
            for inner in self.media.names(name, SHARD_LIMIT):
                if inner.lower() not in taken:
                    self.steps.append(Step("rename", f"{name}/{inner}", "misnamed", to=f"{right}/{inner.lower()}"))
        self.steps.append(Step("move-aside", name, "misnamed"))

    # -- the trust chain

    def roots(self) -> bool:
        """Plan the restoring of trust roots from replicas. Return False if the chain keeps a hole."""
        if any(step.action == "root" for step in self.steps):
            return True
        evidence = self.repository.evidence
        try:
            have = evidence.root_versions()
            newest_by_log = LogHistory.of(log.events(self.media)).newest_root
        except FlightbagError:
            return False
        theirs = {version for one in self.replicas for version in _versions(one)}
        newest: SignedRoot | None = None
        for version in range(1, max([*have, *theirs, newest_by_log], default=0) + 1):
            following = self.next_root(newest, version)
            if following is None:
                # Somebody else put a root here that has no line in the log. But lines may have been cut from the log,
                # and a damaged root may revoke a key: a replica of this domain must lack such a root too.
                extra = [one for one in have if one >= version]
                if 0 < newest_by_log < version and extra and self.a_replica_lacks(version):
                    self.steps += [Step("move-aside", f"trust/{one}.root.cbor", "bad-trust-chain") for one in extra]
                    return True
                return False
            newest, label, data = following
            if label:
                name = f"trust/{version}.root.cbor"
                self.steps.append(Step("root", name, "bad-trust-chain", to=str(ObjectId.of(data)), source=label))
        return True

    def digest_by_log(self, version: int) -> str:
        """Return the digest, in hex, of the root that took effect by the log as this version; "" without a line."""
        rotation = LogHistory.of(log.events(self.media)).rotations.get(version)
        return "" if rotation is None else rotation.digest

    def a_replica_lacks(self, version: int) -> bool:
        """Return whether a replica with the same first root has no root of this version."""
        with suppress(FlightbagError):
            first = self.repository.first_trust_root().root.digest
            for one in self.replicas:
                if max(_versions(one), default=0) < version and one.first_trust_root().root.digest == first:
                    return True
        return False

    def next_root(self, newest: SignedRoot | None, version: int) -> tuple[SignedRoot, str, bytes] | None:
        """Return the root that continues the chain, the replica that has it ("" for this store), and its bytes."""
        digest = self.digest_by_log(version)
        for store in (self.repository, *self.replicas):
            with suppress(FlightbagError):
                data = store.evidence.root_file(version)
                if newest is not None:
                    root = advance(newest, [data])
                else:
                    root = SignedRoot.parse(data)
                    if root.root.version != 1 or not self.is_first_root(store, root):
                        continue
                if digest not in ("", root.root.digest.hex()):
                    continue  # it continues the chain, but another root took effect here
                return root, "" if store is self.repository else store.media.path, data
        return None

    def is_first_root(self, store: Repository, first: SignedRoot) -> bool:
        """Return whether root 1 of `store` is this store's: by the log, or by a mission here of the same domain."""
        digest = self.digest_by_log(1)
        if digest:
            return digest == first.root.digest.hex()
        if store is self.repository:
            return True
        for mission in self.repository.missions():
            with suppress(FlightbagError):
                evidence = _ReplicaEvidence(self.media, store.evidence)
                if isinstance(open_manifest(evidence, ref_id(evidence.ref(mission)), first), Opened):
                    return True
        return False

    # -- refs

    def claims(self) -> LogHistory:
        """Return the history by every well-formed line of the log, also behind damage.

        A forged line does no harm, because the manifests that the lines name are verified.
        """
        with suppress(FlightbagError):
            return LogHistory.of(log.claims(self.media))
        return LogHistory.of([])

    def ref(self, mission: str, finding: Finding) -> Step | None:
        """Plan a ref to the newest manifest of the log, or current at a replica, whose objects are all at hand."""
        with suppress(FlightbagError):
            first = self.repository.trust_root()
            ids: dict[ObjectId, str] = {}
            for move in self.claims().published(mission):
                ids[move.manifest] = FROM_LOG
            for one in self.replicas:
                with suppress(FlightbagError):
                    ids.setdefault(ref_id(one.evidence.ref(mission)), one.media.path)
            candidates = [
                (opened.manifest.issue.order, str(id_), label)
                for id_, label in ids.items()
                if (opened := opened_from(id_, first, self.repository.evidence, self.replicas)) is not None
                and opened.manifest.mission.id == mission
                and self.complete(opened)
            ]
            current = self.order_of_revoked(mission)
            if current is not None:
                # A repair never sets a mission back by itself.
                candidates = [item for item in candidates if item[0] >= current]
            if candidates:
                _, id_, label = max(candidates, key=lambda item: item[0])
                return Step("ref", f"missions/{mission}", finding.kind, to=id_, source=label)
        return None

    def order_of_revoked(self, mission: str) -> tuple[int, int] | None:
        """Return the (epoch, sequence) of the manifest at the ref, if a revoked signer is its only fault."""
        evidence = self.repository.evidence
        with suppress(FlightbagError):
            root = self.repository.trust_root().root
            data = evidence.object(ref_id(evidence.ref(mission)), ENVELOPE_LIMIT)
            envelope = Envelope.parse(data, manifest.CONTENT_TYPE, manifest.PAYLOAD_LIMIT)
            keys = (*root.mission.keys, *root.revoked)
            if count_signers(envelope, root.aad(manifest.AAD_LABEL), keys):
                return Manifest.parse(envelope.payload).issue.order
        return None

    def complete(self, opened: Opened) -> bool:
        """Return whether every object of a mission is in its place, by its size, or can be fetched."""
        return all(
            has_object(self.media, id_, size) or next(self.sources.of(id_, size), None) is not None
            for id_, size in opened.closure().items()
        )


def _versions(repository: Repository) -> list[int]:
    try:
        return repository.evidence.root_versions()
    except FlightbagError:
        return []


def has_object(media: Media, id_: ObjectId, size: int) -> bool:
    """Return whether the store has a file of an object's name and size. Its bytes are not read."""
    try:
        return media.stamp(object_path(id_)).size == size
    except FlightbagError:
        return False


def opened_from(id_: ObjectId, first: SignedRoot, own: StoreEvidence, replicas: Sequence[Repository]) -> Opened | None:
    """Return a manifest that verifies under the store's own chain, from the store or the first replica that has it."""
    for evidence in (own, *(_ReplicaEvidence(one.media, own) for one in replicas)):
        with suppress(FlightbagError):
            opened = open_manifest(evidence, id_, first)
            if isinstance(opened, Opened):
                return opened
    return None
