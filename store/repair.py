"""Repair: makes a store whole again from its own trash and quarantine, its log, and replicas. Never makes it worse.

A plan is a value: what an audit found, and what is to be done about it. Nothing is deleted: what is wrong goes to
quarantine, and a damaged object only when the right bytes, verified, are at hand. What no source has stays as it is,
and stays a finding. Replicas are not believed: an object must hash to its id, a root must continue this store's chain,
and a manifest must verify under it.

Some damage hides other damage (a manifest that is missing, all that it needs), so `repair` audits and applies in rounds
until nothing is left to do, and ends with an audit of the scope that was asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from store import log
from store.durable import Disk
from store.errors import Corrupt, FlightbagError, NotFound, Unavailable
from store.evidence import StoreEvidence
from store.findings import Finding
from store.format.ids import ObjectId, is_hex
from store.fsck import Audit, Scope
from store.locks import DIRECTORY as LOCKS
from store.media import Media, object_path
from store.objects import Batch, inserting
from store.quarantine import QUARANTINE, copy_aside, present, set_aside
from store.repository import Repository
from store.staging import TMP, sweep
from store.trust.root import SignedRoot, advance
from store.verify import Opened, open_manifest, ref_id

TRASH = "trash"
FROM_LOG = "the log"
# Rounds after which something new is damaged each time: somebody else is at it.
_ROUNDS = 10
# Objects and bytes to a barrier.
_BATCH_OBJECTS, _BATCH_BYTES = 2_000, 256 * 2**20
# A ref that is too long to be one is kept as well.
_REF_LIMIT = 2**20
# How many names the log's line spells out.
_NAMED = 20

Action = Literal["make", "move-aside", "rename", "root", "log", "fetch", "ref"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. `name` is a path in the store; `to` its new name, or what it will be; `source` where from.

    `limit` is the most bytes that a fetched object may have.
    """

    action: Action
    name: str
    why: str
    to: str = ""
    source: str = ""
    limit: int = 0

    def as_json(self) -> dict[str, str]:
        """The fields that say something."""
        fields = ("action", "name", "why", "to", "source")
        return {field: value for field in fields if (value := getattr(self, field))}


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """What is to be done, in this order, and the findings that nothing at hand can mend.

    `index`: the index does not say what is there, and is mended.
    """

    steps: tuple[Step, ...]
    unsolved: tuple[Finding, ...]
    index: bool = False

    @property
    def work(self) -> bool:
        """Whether there is anything to do."""
        return self.index or bool(self.steps)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was done, and the audit after it."""

    steps: tuple[Step, ...]
    audit: Audit


@dataclass(frozen=True, slots=True)
class _Place:
    """A file that may have an object's bytes."""

    media: Media
    name: str
    label: str


class _Borrowed(StoreEvidence):
    """A replica's objects, judged by the chain of the store under repair."""

    def __init__(self, media: Media, own: StoreEvidence) -> None:
        super().__init__(media)
        self._own = own

    def chain(self, after: int) -> Sequence[bytes]:
        return self._own.chain(after)


class _Sources:
    """Where bytes may come from: the store's own trash and quarantine, then the replicas, in order."""

    def __init__(self, media: Media, replicas: Sequence[Repository]) -> None:
        self.media = media
        self.replicas = replicas

    @cached_property
    def _aside(self) -> dict[ObjectId, list[str]]:
        """Files that were taken out of an object's place, by the id that they had or should have had."""
        found: dict[ObjectId, list[str]] = {}
        for folder in (TRASH, QUARANTINE):
            with suppress(FlightbagError):
                for day in self.media.names(folder):
                    with suppress(FlightbagError):
                        for name in self.media.names(f"{folder}/{day}"):
                            if is_hex(text := name[:64].lower()):
                                found.setdefault(ObjectId.parse(text), []).append(f"{folder}/{day}/{name}")
        return found

    def of(self, id_: ObjectId, limit: int) -> Iterator[_Place]:
        """The files of at most `limit` bytes that may be this object, the likeliest first."""
        places = [_Place(self.media, name, os.path.dirname(name)) for name in self._aside.get(id_, ())]
        places += [_Place(one.media, object_path(id_), one.media.path) for one in self.replicas]
        for place in places:
            with suppress(FlightbagError):
                if place.media.stamp(place.name).size <= limit:
                    yield place


def plan_repair(repository: Repository, audit: Audit, replicas: Sequence[Repository]) -> RepairPlan:
    """What can be done about the findings of an audit. Reads, and writes nothing."""
    return _Planner(repository, audit, replicas).plan()


class _Planner:
    def __init__(self, repository: Repository, audit: Audit, replicas: Sequence[Repository]) -> None:
        self.media = repository.media
        self.repository = repository
        self.audit = audit
        self.replicas = replicas
        self.sources = _Sources(self.media, replicas)
        self.steps: list[Step] = []
        self.unsolved: list[Finding] = []
        # The missions whose refs lead nowhere, and those of whom a manifest or a table is fetched first.
        self.refs: dict[str, Finding] = {}

    def plan(self) -> RepairPlan:
        told = [finding for finding in self.audit.findings if not finding.information]
        for finding in told:
            if not self.solve(finding):
                self.unsolved.append(finding)
        for id_, limit in self.audit.damaged.items():
            place = next(self.sources.of(id_, limit), None)
            if place is not None:
                why = next((finding.kind for finding in told if finding.object == str(id_)), "missing")
                self.steps.append(Step("fetch", object_path(id_), why, source=place.label, limit=limit))
        fetched = {step.name for step in self.steps if step.action == "fetch"}
        self.unsolved = [
            finding
            for finding in self.unsolved
            if not finding.object or object_path(ObjectId.parse(finding.object)) not in fetched
        ]
        for mission, finding in self.refs.items():
            step = self.ref(mission, finding)
            if step is None:
                self.unsolved.append(finding)
            else:
                self.steps.append(step)
        # A folder is moved aside when what has its place elsewhere was taken out of it.
        order = ("rename", "move-aside", "make", "root", "log", "fetch", "ref")
        steps = sorted(dict.fromkeys(self.steps), key=lambda step: order.index(step.action))
        stale = any(self.audit.notes.get(kind) for kind in ("index-only", "file-only"))
        return RepairPlan(tuple(steps), tuple(self.unsolved), stale)

    def solve(self, finding: Finding) -> bool:
        """Enters the steps against a finding; False where there is none, or where it waits for its object."""
        name = os.path.relpath(finding.path, self.media.path) if finding.path else ""
        kind = finding.kind
        if name == "missions" and kind in ("missing", "wrong-type"):
            self.refs.update((event.facts["mission"], finding) for event in self.moves())
        if kind in ("stray", "wrong-type"):
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
        if kind == "bad-log" or (finding.unreadable and name == log.LOG):
            self.steps.append(Step("log", name, kind))
            return True
        if kind in ("bad-ref", "bad-manifest", "bad-signature") and finding.missions:
            self.refs.update(dict.fromkeys(finding.missions, finding))
            return True
        return False

    def rename(self, name: str) -> None:
        """A name in upper case gets its right one, where that is free; else what has the right one stays."""
        folder, last = os.path.split(name)
        right = f"{folder}/{last.lower()}"
        # By the listing: where names have no case, what is looked up under the right name is this very thing.
        if last.lower() not in self.media.names(folder):
            self.steps.append(Step("rename", name, "misnamed", to=right))
            return
        if self.media.kind(name) == "directory":
            there = self.media.names(right)
            for inner in self.media.names(name):
                if inner.lower() not in there:
                    self.steps.append(Step("rename", f"{name}/{inner}", "misnamed", to=f"{right}/{inner.lower()}"))
        self.steps.append(Step("move-aside", name, "misnamed"))

    # -- the trust chain

    def roots(self) -> bool:
        """Steps that make the chain whole as far as this store or a replica has it; False if that leaves a hole."""
        if any(step.action == "root" for step in self.steps):
            return True
        evidence = self.repository.evidence
        try:
            have = evidence.root_versions()
            known = self.rotations()
        except FlightbagError:
            return False
        theirs = {version for one in self.replicas for version in _versions(one)}
        newest: SignedRoot | None = None
        for version in range(1, max([*have, *theirs, *known], default=0) + 1):
            found = self.next_root(newest, version)
            if found is None:
                # What the log has no rotation to was put there by somebody else; what it has is lost, and stays so.
                if known and version > max(known):
                    extra = [one for one in have if one >= version]
                    self.steps += [Step("move-aside", f"trust/{one}.root.cbor", "bad-trust-chain") for one in extra]
                    return bool(extra)
                return False
            newest, label = found
            if label:
                self.steps.append(Step("root", f"trust/{version}.root.cbor", "bad-trust-chain", source=label))
        return True

    def rotations(self) -> dict[int, str]:
        """The versions that the log says took effect, with the digests of their payloads."""
        return {
            event.facts["version"]: event.facts.get("digest", "")
            for event in log.events(self.media)
            if event.event == "rotated" and type(event.facts.get("version")) is int
        }

    def next_root(self, newest: SignedRoot | None, version: int) -> tuple[SignedRoot, str] | None:
        """The root of a version that continues the chain, and the replica that has it; "" where this store has."""
        for store in (self.repository, *self.replicas):
            with suppress(FlightbagError):
                data = store.evidence.root_file(version)
                if newest is not None:
                    found = advance(newest, [data])
                else:
                    found = SignedRoot.parse(data)
                    if found.root.version != 1 or not self.vouched(store, found):
                        continue
                return found, "" if store is self.repository else store.media.path
        return None

    def vouched(self, store: Repository, first: SignedRoot) -> bool:
        """Whether a first root is this store's: by its log, or because a mission here was signed in that domain."""
        digest = self.rotations().get(1)
        if digest:
            return digest == first.root.digest.hex()
        if store is self.repository:
            return True
        for mission in self.repository.missions():
            with suppress(FlightbagError):
                evidence = _Borrowed(self.media, store.evidence)
                if isinstance(open_manifest(evidence, ref_id(evidence.ref(mission)), first), Opened):
                    return True
        return False

    # -- refs

    def moves(self) -> list[log.Event]:
        """The moves of refs that the log tells of, as far as it holds."""
        with suppress(FlightbagError):
            return [event for event, _ in log.before_damage(self.media) if event.event in log.MOVES]
        return []

    def ref(self, mission: str, finding: Finding) -> Step | None:
        """The newest manifest of a mission that is whole, or can be made so: of the log, or current at a replica."""
        with suppress(FlightbagError):
            first = self.repository.first_root()
            ids: dict[ObjectId, str] = {}
            for event in self.moves():
                if event.facts["mission"] == mission:
                    ids[ObjectId.parse(event.facts["manifest"])] = FROM_LOG
            for one in self.replicas:
                with suppress(FlightbagError):
                    ids.setdefault(ref_id(one.evidence.ref(mission)), one.media.path)
            found = [
                (opened.manifest.issue.sequence, str(id_), label)
                for id_, label in ids.items()
                if (opened := _opened(id_, first, self.repository.evidence, self.replicas)) is not None
                and opened.manifest.mission.id == mission
                and self.complete(opened)
            ]
            if found:
                _, id_, label = max(found, key=lambda item: item[0])
                return Step("ref", f"missions/{mission}", finding.kind, to=id_, source=label)
        return None

    def complete(self, opened: Opened) -> bool:
        """Whether every object of a mission is there, by its size, or can be fetched."""
        return all(
            _there(self.media, id_, size) or next(self.sources.of(id_, size), None) is not None
            for id_, size in opened.closure().items()
        )


def _versions(repository: Repository) -> list[int]:
    try:
        return repository.evidence.root_versions()
    except FlightbagError:
        return []


def apply_repair(plan: RepairPlan, repository: Repository, replicas: Sequence[Repository]) -> list[Step]:
    """Does what a plan says, alone with the store, mends the index and says so in the log. The steps that were done.

    Raises Locked, and Unavailable where the store cannot be written. A source that fails is passed over.
    """
    media, disk = repository.media, repository.disk
    moved = []
    # What repairing itself needs. Through a link in their place the locks would lie elsewhere, where nobody holds them.
    needed = ((QUARANTINE, "directory"), (TMP, "directory"), (LOCKS, "directory"), (f"{LOCKS}/store", "file"))
    for name, kind in needed:
        if present(media, name) and media.kind(name) != kind:
            set_aside(media, disk, name)
            moved.append(name)
    done = [step for step in plan.steps if step.action == "move-aside" and step.name in moved]
    refs = {os.path.basename(step.name): step.to for step in plan.steps if step.action == "ref"}
    with repository.locked(alone=True):
        for step in plan.steps:
            if step.name == log.LOG and step not in done:
                _mend_log(step, repository)
                done.append(step)
        if refs:
            # A crash may leave a ref that was moved aside and not made again: the log tells that there was one.
            repository.append_log(log.Event(int(time.time()), "repaired", {"refs": refs, "stage": "begun"}))
        for step in plan.steps:
            if step not in done and _rearranged(step, repository):
                done.append(step)
        # Folders may be others now than when the store was opened.
        with Repository.open(media.path, disk) as fresh:
            worker = _Worker(fresh, replicas)
            done += worker.run(step for step in plan.steps if step not in done)
            index = fresh.mend_index()
            if done or any(index):
                fresh.append_log(log.Event(int(time.time()), "repaired", _facts(done, index)))
    return done


def _mend_log(step: Step, repository: Repository) -> None:
    """Begins the log anew with the lines that hold; the damaged one is kept."""
    media, disk = repository.media, repository.disk
    whole = b""
    if step.action == "log":
        with suppress(FlightbagError):
            whole = b"".join(line for _, line in log.before_damage(media))
    try:
        copy_aside(media, disk, log.LOG, log.LOG_LIMIT)
    except (Corrupt, Unavailable) as error:
        if error.fields.get("kind") == "unwritable":
            raise
        set_aside(media, disk, log.LOG)  # what cannot be copied
    repository.replace(log.LOG, whole)


def _rearranged(step: Step, repository: Repository) -> bool:
    """Does the step if it is one of moving what lies in the store; whether it was done."""
    media, disk = repository.media, repository.disk
    if step.action == "move-aside":
        if not os.path.lexists(media.absolute(step.name)):
            return False  # it went with a folder that was renamed or moved; the next round sees it there
        set_aside(media, disk, step.name)
    elif step.action == "make":
        disk.make_directory(media.absolute(step.name))
        disk.sync_directory(media.path)
    elif step.action == "rename":
        disk.rename(media.absolute(step.name), media.absolute(step.to))
        for folder in {os.path.dirname(step.name), os.path.dirname(step.to)}:
            disk.sync_directory(media.absolute(folder))
    else:
        return False
    return True


def _facts(done: Sequence[Step], index: tuple[int, int]) -> dict[str, object]:
    """What the log's line says: how many of each, and the names of what was moved."""
    counts: dict[str, int] = {}
    for step in done:
        counts[step.action] = counts.get(step.action, 0) + 1
    return {
        "stage": "done",
        "steps": counts,
        "aside": [_ascii(step.name) for step in done if step.action == "move-aside"][:_NAMED],
        "refs": {os.path.basename(step.name): step.to for step in done if step.action == "ref"},
        "index": list(index),
    }


def _ascii(name: str) -> str:
    """A name in the file system, which may be no text at all."""
    return os.fsencode(name)[:200].decode("ascii", "backslashreplace")


class _Worker:
    """Brings bytes: objects, roots, log and refs."""

    def __init__(self, repository: Repository, replicas: Sequence[Repository]) -> None:
        self.repository = repository
        self.media = repository.media
        self.disk = repository.disk
        self.replicas = replicas
        self.sources = _Sources(self.media, replicas)

    def run(self, steps: Iterable[Step]) -> list[Step]:
        """The steps that were done."""
        todo = list(steps)
        sweep(self.media, self.disk)
        done = [step for step in todo if step.action == "root" and self.root(step)]
        wanted = {ObjectId.parse(step.name.replace("/", "")[7:]): step for step in todo if step.action == "fetch"}
        got = self.fetch((id_, step.limit) for id_, step in wanted.items())
        done += [step for id_, step in wanted.items() if id_ in got]
        done += [step for step in todo if step.action == "ref" and self.ref(step)]
        return done

    def root(self, step: Step) -> bool:
        data = None
        version = os.path.basename(step.name).split(".")[0]
        for replica in self.replicas:
            if replica.media.path == step.source:
                with suppress(FlightbagError):
                    data = replica.evidence.root_file(int(version))
                    SignedRoot.parse(data)
        if data is None:
            return False
        if not present(self.media, "trust"):
            self.disk.make_directory(self.media.absolute("trust"))
            self.disk.sync_directory(self.media.path)
        if present(self.media, step.name):
            set_aside(self.media, self.disk, step.name)
        self.repository.replace(step.name, data)
        return True

    def fetch(self, wanted: Iterable[tuple[ObjectId, int]]) -> set[ObjectId]:
        """Brings objects of at most the given sizes from wherever they are whole; those that are there now."""
        got: set[ObjectId] = set()
        with inserting(self.media, self.disk, None) as batch:
            staged = total = 0
            for id_, limit in wanted:
                size = self.bring(batch, id_, limit)
                if size is None:
                    continue
                got.add(id_)
                staged, total = staged + 1, total + size
                if staged >= _BATCH_OBJECTS or total >= _BATCH_BYTES:
                    batch.commit()
                    staged = total = 0
            batch.commit()
        return got

    def bring(self, batch: Batch, id_: ObjectId, limit: int) -> int | None:
        """Stages an object from the first source that has it whole; its size, or None where none has."""
        for place in self.sources.of(id_, limit):
            try:
                return batch.add(place.media.chunks(place.name, limit), expect=id_).size
            except FlightbagError as error:
                # Only a source may fail; what the store itself cannot take ends the repair.
                if error.fields.get("kind") == "unwritable":
                    raise
        return None

    def ref(self, step: Step) -> bool:
        """Makes a ref lead to a manifest, with everything that it needs."""
        own = self.repository.evidence
        id_ = ObjectId.parse(step.to)
        opened = _opened(id_, self.repository.first_root(), own, self.replicas)
        if opened is None:
            return False
        lacking = [(one, size) for one, size in opened.closure().items() if not _there(self.media, one, size)]
        if len(self.fetch(lacking)) < len(lacking):
            return False
        mission = opened.manifest.mission.id
        with suppress(NotFound):
            copy_aside(self.media, self.disk, step.name, _REF_LIMIT)
        if step.source == FROM_LOG:
            self.repository.replace(step.name, f"{id_}\n".encode())
        else:
            self.repository.move_ref(mission, id_, "received", opened.manifest.issue.sequence)
        return True


def _there(media: Media, id_: ObjectId, size: int) -> bool:
    """Whether a file of an object's name and size is in its place."""
    try:
        return media.stamp(object_path(id_)).size == size
    except FlightbagError:
        return False


def _opened(id_: ObjectId, first: SignedRoot, own: StoreEvidence, replicas: Sequence[Repository]) -> Opened | None:
    """A manifest that holds under the store's own chain, from the store or the first replica that has it."""
    for evidence in (own, *(_Borrowed(one.media, own) for one in replicas)):
        with suppress(FlightbagError):
            opened = open_manifest(evidence, id_, first)
            if isinstance(opened, Opened):
                return opened
    return None


def repair(
    path: str | os.PathLike[str],
    scope: Scope,
    replicas: Sequence[Repository],
    *,
    audited: Callable[[Media, Scope], Audit],
    show: Callable[[RepairPlan], None],
    disk: Disk | None = None,
    drop_cache: bool = False,
) -> Repaired:
    """Plans and applies until nothing is left that can be done; each plan is shown before it is applied.

    `audited` makes an audit of a scope (see `fsck`). The last audit is of the whole scope. Raises what `fsck` raises,
    Locked where somebody else uses the store, and Unavailable where it cannot be written.
    """
    done: list[Step] = []
    tried: set[tuple[Step, ...]] = set()
    quick = replace(scope, read="quick", amount=0)
    now = scope
    while True:
        # A store opened anew each time: what was moved is not looked at through old descriptors.
        with Repository.open(path, disk) as repository, Media(path, drop_cache=drop_cache) as media:
            audit = audited(media, now)
            plan = plan_repair(repository, audit, replicas)
            if plan.work and plan.steps not in tried and len(tried) < _ROUNDS:
                show(plan)
                done += apply_repair(plan, repository, replicas)
                tried.add(plan.steps)
                now = quick
            elif now == scope:
                return Repaired(tuple(done), audit)
            else:
                now = scope
