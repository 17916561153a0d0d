"""Copying missions from one store to another: only what is missing, hashed as it is copied, refs last.

A plan is a value: what would be copied and which refs would move. Applying it reads the source and writes the target;
the source is never written to, and at the target no index is opened. An interrupted sync is resumed by the next one.

The target may have nothing yet, or be a store of the same trust domain. A mission that is newer there stays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from store.disk import log
from store.disk.durable import Disk
from store.disk.locks import SharedLock, exclusive
from store.disk.media import FileStamp, object_path
from store.disk.objects import inserting
from store.disk.staging import sweep
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Unavailable, Untrusted
from store.format.ids import ObjectId
from store.format.ref import ref_id
from store.ground.repository import Repository
from store.ground.trust_chain import put_into_effect
from store.takeoff.mission import Binding, Opened
from store.takeoff.verify import check_binding, open_manifest
from store.trust.root import SignedRoot

# Objects to a barrier: enough to spread its cost, few enough that an interrupted sync has kept something.
_BATCH_OBJECTS, _BATCH_BYTES = 2_000, 256 * 2**20


@dataclass(frozen=True, slots=True)
class Move:
    """A ref that would move at the target; `replaces` is what it led to there, None where it led to nothing."""

    mission: str
    manifest: ObjectId
    epoch: int
    sequence: int
    replaces: ObjectId | None


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What a sync would do. `missing` has (id, size) in the order of copying: manifests after what they name."""

    missing: tuple[tuple[ObjectId, int], ...]
    present: int
    roots: tuple[int, ...]
    moves: tuple[Move, ...]
    unchanged: tuple[str, ...]
    newer: tuple[str, ...]
    # Those that hold no more, as a signer was revoked for instance, with why: the roots travel all the same.
    refused: tuple[tuple[str, str], ...] = ()
    # All that the moved missions need, and what the target's log was when it was asked for it.
    closure: tuple[tuple[ObjectId, int], ...] = field(default=(), repr=False)
    target_log: FileStamp | None = None

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.missing)


def plan_sync(
    source: Repository, target: Repository | None, missions: Sequence[str], *, checksum: bool = False
) -> SyncPlan:
    """What it takes to bring `missions` (none: all) to the target; None is a target that does not exist yet.

    What the target has is told by name and size, as verify reads every byte anyway; `checksum` reads it here already,
    so that what is damaged is copied again.

    Raises NotFound for an unknown mission, Corrupt for one that was asked for and whose manifest does not hold at the
    source, Conflict for a target of another trust domain, for one whose newer root does not accept a mission, and for
    one that has another mission of the same sequence.
    """
    source_root = source.trust_root()
    target_log = _log_of(target)
    roots = _roots_to_copy(source, source_root, target)
    wanted: dict[ObjectId, int] = {}
    last: dict[ObjectId, int] = {}
    moves, unchanged, newer, refused = [], [], [], []
    # What keeps the target's mission from holding may have the right name and size.
    doubted: set[ObjectId] = set()
    judge = _newer_root(target, source_root)
    for mission in dict.fromkeys(missions or source.missions()):
        try:
            opened = source.current(mission)
        except Corrupt as error:
            if missions:
                raise
            refused.append((mission, str(error)))
            continue
        there = _current_at(target, mission)
        issue = opened.manifest.issue
        move = Move(mission, opened.manifest_id, issue.epoch, issue.sequence, _ref_at(target, mission))
        if there is not None and there.manifest.issue.order > opened.manifest.issue.order:
            newer.append(mission)
            continue
        if judge is not None:
            _check_accepted(source, opened, mission, judge)
        if there is None:
            doubted |= {opened.manifest_id, opened.manifest.table}
        if there is not None and there.manifest_id == opened.manifest_id:
            unchanged.append(mission)
        elif (
            there is not None
            and there.manifest.issue.order == opened.manifest.issue.order
            and there.manifest != opened.manifest
        ):
            # The same payload with other signatures is the same mission; another payload is not.
            raise Conflict(
                f"the target has another mission {mission} of the same sequence {move.sequence}",
                remedy="one station owns a mission id: publish it anew there",
                kind="same-sequence",
                mission=mission,
            )
        else:
            moves.append(move)
        _add_closure(source, opened, wanted, last)
    sizes = {**{id_: size for id_, size in sorted(wanted.items()) if id_ not in last}, **last}
    missing = tuple(
        (id_, size)
        for id_, size in sizes.items()
        if not _resident(target, id_, size, checksum=checksum or id_ in doubted)
    )
    present = len(sizes) - len(missing)
    return SyncPlan(
        missing,
        present,
        roots,
        tuple(moves),
        tuple(unchanged),
        tuple(newer),
        tuple(refused),
        tuple(sizes.items()),
        target_log,
    )


def _log_of(target: Repository | None) -> FileStamp | None:
    try:
        return None if target is None else target.media.stamp(log.LOG)
    except (NotFound, Corrupt):
        return None


def _add_closure(source: Repository, opened: Opened, wanted: dict[ObjectId, int], last: dict[ObjectId, int]) -> None:
    for release in opened.manifest.releases:
        wanted[release] = source.media.stamp(object_path(release)).size
    wanted.update(opened.closure())
    last[opened.manifest_id] = opened.manifest_size


def _roots_to_copy(source: Repository, newest: SignedRoot, target: Repository | None) -> tuple[int, ...]:
    """The versions of the chain that the target lacks."""
    versions = tuple(range(1, newest.root.version + 1))
    if target is None:
        return versions
    have = target.evidence.root_versions()
    copy = []
    for version in versions:
        theirs = _digest(target, version) if version in have else None
        if theirs is None:
            copy.append(version)  # absent, or damaged: then it vouches for no other domain either
        elif theirs != _digest(source, version):
            raise Conflict(
                f"{target.media.path} belongs to another trust domain, or its root {version} is another one",
                remedy="sync to another folder",
                kind="bad-trust-chain",
            )
    return tuple(copy)


def _digest(store: Repository, version: int) -> bytes | None:
    """What a root file of the store says, by its digest; None where it is damaged."""
    try:
        return SignedRoot.parse(store.evidence.root_file(version)).root.digest
    except (Corrupt, Untrusted):
        return None


def _newer_root(target: Repository | None, newest: SignedRoot) -> SignedRoot | None:
    """The root of the target where it is newer than the source's newest: then it alone judges."""
    if target is None or max(target.evidence.root_versions(), default=0) <= newest.root.version:
        return None
    return target.trust_root()


def _check_accepted(source: Repository, opened: Opened, mission: str, judge: SignedRoot) -> None:
    """Raises Conflict for a mission that would be NO-GO at the target, under a root that the source lacks."""
    judged = open_manifest(source.evidence, opened.manifest_id, judge)
    findings = (
        check_binding(source.evidence, judged, mission, Binding(opened.manifest.issue.issued_at))
        if isinstance(judged, Opened)
        else judged
    )
    if findings:
        raise Conflict(
            f"the target's newer root {judge.root.version} does not accept {mission}: "
            + "; ".join(finding.message for finding in findings),
            remedy="bring that root to the source and publish the mission anew",
            kind="old-root",
            mission=mission,
            findings=findings,
        )


def _current_at(target: Repository | None, mission: str) -> Opened | None:
    """A mission as it is at the target; None where it has none that holds."""
    if target is None:
        return None
    try:
        return target.current(mission)
    except Unavailable:
        raise
    except FlightbagError:
        return None  # absent or torn: the source's takes its place


def _resident(target: Repository | None, id_: ObjectId, size: int, *, checksum: bool) -> bool:
    """Whether the target has a file of that name and size, and with `checksum` of that content."""
    if target is None:
        return False
    try:
        if checksum:
            target.media.digest(id_, size)
            return True
        return target.media.stamp(object_path(id_)).size == size
    except (NotFound, Corrupt):
        return False


def apply_sync(
    plan: SyncPlan,
    source: Repository,
    target: str | os.PathLike[str],
    *,
    disk: Disk | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Copies objects, then roots, then moves refs. Durable when it returns.

    Raises Unavailable before anything is copied where the medium has too little room.
    """
    disk = disk or Disk()
    if Path(os.path.realpath(target)).is_relative_to(os.path.realpath(source.media.path)):
        raise Invalid(f"{os.fspath(target)} lies in the store that is copied", remedy="give another folder")
    _check_room(plan, target)
    # So that nothing is collected at the source meanwhile; where nobody ever wrote, there is no lock.
    held = SharedLock.existing(source.media.path, "store", "the source store")
    try:
        if held is not None:
            held.hold_shared(wait=False)
        _apply(plan, source, target, disk, progress)
    finally:
        if held is not None:
            held.close()


def _apply(
    plan: SyncPlan,
    source: Repository,
    target: str | os.PathLike[str],
    disk: Disk,
    progress: Callable[[int], None] | None,
) -> None:
    try:
        destination = Repository.open(target, disk)
    except NotFound:
        destination = Repository.init(target, disk)
    with destination:
        lock = SharedLock(destination.media.path, disk, "store", "the target store")
        try:
            lock.hold_shared(wait=False)
            sweep(destination.media, disk)
            # What was there when the plan was made may have been collected since; then the log says so.
            unchanged = _log_of(destination) == plan.target_log
            for batch in _batches(plan.missing):
                _copy(batch, source, destination, progress)
            for id_, size in () if unchanged else plan.closure:
                if not _resident(destination, id_, size, checksum=False):
                    raise Unavailable(
                        f"object {id_} was at the target when the sync began, and is gone",
                        remedy="run it again: somebody has collected meanwhile",
                        kind="missing",
                        object=id_,
                    )
            for version in plan.roots:
                _bring_root(version, source, destination)
            for move in plan.moves:
                _move(move, destination)
        finally:
            lock.close()


def _bring_root(version: int, source: Repository, destination: Repository) -> None:
    """Brings a root, unless somebody else has put it into effect there since the plan was made."""
    data = source.evidence.root_file(version)
    digest = SignedRoot.parse(data).root.digest
    with exclusive(destination.media.path, destination.disk, "trust", "the target's trust chain", timeout=60):
        if version in destination.evidence.root_versions():
            there = _digest(destination, version)
            if there == digest:
                return
            if there is not None:
                raise Conflict(
                    f"{destination.media.path} has got another trust root {version} meanwhile",
                    remedy="bring the two stations' roots together, and begin a new draft of the one that lost",
                    kind="bad-trust-chain",
                )
        put_into_effect(destination, data, at=int(time.time()))


def _move(move: Move, destination: Repository) -> None:
    """Moves a ref, unless somebody else has moved it since the plan was made, to this manifest or a newer one."""
    what = f"mission {move.mission} at the target"
    with exclusive(destination.media.path, destination.disk, f"mission-{move.mission}", what, timeout=60):
        now = _ref_at(destination, move.mission)
        if now is not None and now != move.replaces:
            there = _current_at(destination, move.mission)
            if now == move.manifest or (there is not None and there.manifest.issue.order > (move.epoch, move.sequence)):
                return
        destination.move_ref(move.mission, move.manifest, "received", move.sequence)


def _ref_at(target: Repository | None, mission: str) -> ObjectId | None:
    """What the ref of a mission leads to at the target; None where there is none, or it is torn."""
    if target is None:
        return None
    try:
        return ref_id(target.evidence.ref(mission))
    except (NotFound, Corrupt):
        return None


def _copy(
    items: Sequence[tuple[ObjectId, int]],
    source: Repository,
    destination: Repository,
    progress: Callable[[int], None] | None,
) -> None:
    with inserting(destination.media, destination.disk, None) as batch:
        batch.add_all((source.media.chunks(object_path(id_), size, progress), id_) for id_, size in items)
        batch.commit()


def _batches(items: Sequence[tuple[ObjectId, int]]) -> Iterator[list[tuple[ObjectId, int]]]:
    batch: list[tuple[ObjectId, int]] = []
    total = 0
    for item in items:
        if batch and (len(batch) >= _BATCH_OBJECTS or total + item[1] > _BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += item[1]
    if batch:
        yield batch


def _check_room(plan: SyncPlan, target: str | os.PathLike[str]) -> None:
    path = os.path.abspath(target)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    try:
        status = os.statvfs(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be looked at: {error.strerror}", kind="unreadable") from error
    if status.f_blocks == 0:
        return  # this file system does not say
    # Every object takes whole blocks, and some for its directory entry.
    block = status.f_frsize
    needed = sum((size // block + 2) * block for _, size in plan.missing)
    free = status.f_bavail * block
    if needed > free:
        raise Unavailable(
            f"{path} has {free} bytes free, the sync needs {needed}",
            remedy="free some space, or sync fewer missions with --mission",
            kind="no-space",
            expected=needed,
            actual=free,
        )
