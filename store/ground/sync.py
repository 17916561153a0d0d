"""Copying missions from one store to another: only missing objects, hashed as they are copied; refs move last.

A plan is a value: the objects to copy, the trust roots to bring, the small files to place, the refs to move. Applying
it reads the source, which is never written, and writes the target, where no index is opened. The next sync resumes an
interrupted one.

The target may not exist yet, or be a store of the same trust domain. A mission that is newer at the target stays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from store.disk import log
from store.disk.durable import Disk
from store.disk.layout import DRAFTS, WITHDRAWN
from store.disk.locks import SharedLock, exclusive
from store.disk.media import FileStamp, object_path
from store.disk.medium import check_file_sizes
from store.disk.objects import inserting
from store.disk.staging import sweep
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NoStore, NotFound, Unavailable, Untrusted
from store.format.ids import ObjectId
from store.format.ref import ref_id
from store.ground import drafts, orders, withdrawals
from store.ground.repository import Repository, SmallFile
from store.ground.trust_chain import put_into_effect
from store.takeoff.clock import Moment
from store.takeoff.mission import Binding, Opened
from store.takeoff.verify import check_binding, named_domain, open_manifest
from store.trust.root import SignedRoot

# The most objects, and about the most bytes, in one durable batch: large enough to spread the cost of a sync to the
# medium, small enough that an interrupted run keeps most of its work.
_BATCH_OBJECTS, _BATCH_BYTES = 2_000, 256 * 2**20


@dataclass(frozen=True, slots=True)
class Move:
    """A ref that moves at the target; `replaces` is the manifest id that it has there, None without a valid one."""

    mission: str
    manifest: ObjectId
    epoch: int
    sequence: int
    replaces: ObjectId | None


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """The effect of a sync. `missing` has (id, size) in the order of copying: manifests after the objects they name.

    `present` counts the objects that the target has. `roots` are the versions of trust roots to bring. `moves`,
    `unchanged` and `newer` (at the target) have the missions. `refused` has the missions that do not verify at the
    source, for instance after a revocation, each with the reason; the trust roots are brought all the same.
    """

    missing: tuple[tuple[ObjectId, int], ...]
    present: int
    roots: tuple[int, ...]
    moves: tuple[Move, ...]
    unchanged: tuple[str, ...]
    newer: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()
    # Everything small that travels beside objects, roots and refs: placed after the roots and before the refs, in this
    # order, each atomically.
    files: tuple[SmallFile, ...] = ()
    # The closures of these missions, and the stamp of the target's log when the plan was made.
    closure: tuple[tuple[ObjectId, int], ...] = field(default=(), repr=False)
    target_log: FileStamp | None = None

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.missing)


def plan_sync(
    source: Repository,
    target: Repository | None,
    missions: Sequence[str],
    *,
    checksum: bool = False,
    resident: Callable[[ObjectId, int], bool] | None = None,
) -> SyncPlan:
    """Return the plan that brings `missions` (none: all) to the target; None is a target that does not exist yet.

    The target has an object if a file with its name and size exists there, because the takeoff check reads every byte
    anyway. With `checksum` the files are read, so that damaged objects are copied again. `resident` answers in place of
    the folder, for a target of which `target` is only a part: whether the target has an object, given with its size.

    Raise NotFound for an unknown mission, Corrupt if a mission in `missions` does not verify at the source, and
    Conflict if the target is of another trust domain, has a newer trust root that does not accept a mission, or has
    another manifest of the same sequence.
    """
    source_root = source.trust_root()
    target_log = _log_of(target)
    roots = _roots_to_copy(source, source_root, target)
    wanted: dict[ObjectId, int] = {}
    last: dict[ObjectId, int] = {}
    moves, unchanged, newer, refused = [], [], [], []
    # A manifest or table that does not verify at the target may have the right name and size.
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
        at_target = _current_at(target, mission)
        issue = opened.manifest.issue
        move = Move(mission, opened.manifest_id, issue.epoch, issue.sequence, _ref_at(target, mission))
        if at_target is not None and at_target.manifest.issue.order > opened.manifest.issue.order:
            newer.append(mission)
            continue
        if judge is not None:
            _check_accepted(source, opened, mission, judge)
        if at_target is None:
            doubted |= {opened.manifest_id, opened.manifest.table}
        if at_target is not None and at_target.manifest_id == opened.manifest_id:
            unchanged.append(mission)
        elif (
            at_target is not None
            and at_target.manifest.issue.order == opened.manifest.issue.order
            and at_target.manifest != opened.manifest
        ):
            # A manifest with the same payload and other signatures is the same mission.
            raise Conflict(
                f"the target has another manifest of mission {mission} with the same sequence {move.sequence}",
                remedy="publish the mission again at the station that owns its id, and sync from there",
                kind="same-sequence",
                mission=mission,
            )
        else:
            moves.append(move)
        _add_closure(source, opened, wanted, last)
    judging = (judge or source_root).root
    carried = [*unchanged, *newer, *(move.mission for move in moves)]
    files = withdrawals.to_bring(source, target, carried, judging)
    if not missions:
        pointers, objects = orders.to_bring(source, target)
        brought = drafts.to_bring(source, target, judging)
        files += (*pointers, *brought.files)
        wanted.update({**objects, **brought.objects})
        refused += brought.refused
    sizes = {**{id_: size for id_, size in sorted(wanted.items()) if id_ not in last}, **last}
    missing = tuple(
        (id_, size)
        for id_, size in sizes.items()
        if not (
            _resident(target, id_, size, checksum=checksum or id_ in doubted)
            if resident is None
            else id_ not in doubted and resident(id_, size)
        )
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
        files,
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
    """Return the versions of the chain that the target lacks. Raise Conflict for another trust domain."""
    versions = tuple(range(1, newest.root.version + 1))
    if target is None:
        return versions
    have = target.evidence.root_versions()
    copy = []
    for version in versions:
        theirs = _digest(target, version) if version in have else None
        if theirs is None:
            copy.append(version)  # absent, or damaged and so no sign of another domain
        elif theirs != _digest(source, version):
            text = f"{target.media.path} has another trust root {version} than {source.media.path}"
            if version == 1:
                there, here = (named_domain(store.first_trust_root().root) for store in (target, source))
                text = f"{target.media.path} is of the trust domain {there}, {source.media.path} of {here}"
            remedy = "sync to a store of the same trust domain, or to a folder that does not exist yet"
            raise Conflict(text, remedy=remedy, kind="bad-trust-chain")
    return tuple(copy)


def _digest(store: Repository, version: int) -> bytes | None:
    """Return the digest of a root file's payload; None if the file is damaged."""
    try:
        return SignedRoot.parse(store.evidence.root_file(version)).root.digest
    except (Corrupt, Untrusted):
        return None


def _newer_root(target: Repository | None, newest: SignedRoot) -> SignedRoot | None:
    """Return the target's newest trust root if it is newer than the source's; then only that root judges."""
    if target is None or max(target.evidence.root_versions(), default=0) <= newest.root.version:
        return None
    return target.trust_root()


def _check_accepted(source: Repository, opened: Opened, mission: str, judge: SignedRoot) -> None:
    """Raise Conflict for a mission that would be NO-GO at the target, under a trust root that the source lacks."""
    judged = open_manifest(source.evidence, opened.manifest_id, judge)
    findings = (
        check_binding(source.evidence, judged, mission, Binding(proof=False), Moment.of_issue(opened.manifest))
        if isinstance(judged, Opened)
        else judged
    )
    if findings:
        raise Conflict(
            f"the target's newer trust root {judge.root.version} does not accept mission {mission}: "
            + "; ".join(finding.message for finding in findings),
            remedy="bring that trust root to the source, and publish the mission again",
            kind="old-root",
            mission=mission,
            findings=findings,
        )


def _current_at(target: Repository | None, mission: str) -> Opened | None:
    """Return the mission at the target; None if the target has none that verifies."""
    if target is None:
        return None
    try:
        return target.current(mission)
    except Unavailable:
        raise
    except FlightbagError:
        return None  # absent or damaged: the mission of the source takes its place


def _resident(target: Repository | None, id_: ObjectId, size: int, *, checksum: bool) -> bool:
    """Return whether the target has a file with the object's name and size, and with `checksum` its bytes."""
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
    """Copy objects, then bring trust roots, then move refs. Everything is durable on return.

    `progress` gets the number of bytes as they are copied. Raise Unavailable, before anything is copied, if the medium
    has too little free space or takes no file as large as an object; Locked during a collection at either store;
    Corrupt or Unavailable for a source object that is not whole.
    """
    disk = disk or Disk()
    if Path(os.path.realpath(target)).is_relative_to(os.path.realpath(source.media.path)):
        text = f"{os.fspath(target)} lies in the source store"
        raise Invalid(text, remedy="give a folder outside of the source store")
    _check_room(plan, target)
    # The lock keeps a collection away from the source. A source that was never written to has no lock.
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
    except NoStore as error:
        if error.kind != "no-store":
            raise
        destination = Repository.init(target, disk)
    with destination:
        lock = SharedLock(destination.media.path, disk, "store", "the target store")
        try:
            lock.hold_shared(wait=False)
            sweep(destination.media, disk)
            # Objects of the target may have been collected since the plan was made; then its log has changed.
            unchanged = _log_of(destination) == plan.target_log
            for batch in _batches(plan.missing):
                _copy(batch, source, destination, progress)
            for id_, size in () if unchanged else plan.closure:
                if not _resident(destination, id_, size, checksum=False):
                    raise Unavailable(
                        f"object {id_} was at the target when the sync began, and was collected since",
                        remedy="run the sync again",
                        kind="missing",
                        object=id_,
                    )
            for version in plan.roots:
                _bring_root(version, source, destination)
            _place(plan.files, destination)
            for move in plan.moves:
                _move(move, destination)
        finally:
            lock.close()


def _bring_root(version: int, source: Repository, destination: Repository) -> None:
    """Bring a trust root, unless another process has put it into effect at the target since the plan was made."""
    data = source.evidence.root_file(version)
    digest = SignedRoot.parse(data).root.digest
    with exclusive(destination.media.path, destination.disk, "trust", "the target's trust chain", timeout=60):
        if version in destination.evidence.root_versions():
            present = _digest(destination, version)
            if present == digest:
                return
            if present is not None:
                raise Conflict(
                    f"another trust root {version} took effect at {destination.media.path} meanwhile",
                    remedy="choose one of the two roots for both stations, and begin a new draft of the other change",
                    kind="bad-trust-chain",
                )
        put_into_effect(destination, version, data, at=int(time.time()))


def _place(files: Sequence[SmallFile], destination: Repository) -> None:
    """Place small files. Withdrawals and drafts are compared again with what is there by now, behind their locks."""
    receivers = {WITHDRAWN: withdrawals.receive, DRAFTS: drafts.receive}
    plain = []
    for file in files:
        receive = receivers.get(os.path.dirname(file.name))
        if receive is None:
            plain.append(file)
        else:
            receive(destination, file, at=int(time.time()))
    destination.place(plain)


def _move(move: Move, destination: Repository) -> None:
    """Move a ref, unless another process has moved it to this manifest or a newer one since the plan was made."""
    what = f"mission {move.mission} at the target"
    with exclusive(destination.media.path, destination.disk, f"mission-{move.mission}", what, timeout=60):
        now = _ref_at(destination, move.mission)
        if now is not None and now != move.replaces:
            current = _current_at(destination, move.mission)
            newer = current is not None and current.manifest.issue.order > (move.epoch, move.sequence)
            if now == move.manifest or newer:
                return
        destination.move_ref(move.mission, move.manifest, "received", move.sequence)


def _ref_at(target: Repository | None, mission: str) -> ObjectId | None:
    """Return the manifest id in the ref of a mission at the target; None without a valid ref."""
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
    check_file_sizes(path, plan.missing)
    try:
        status = os.statvfs(path)
    except OSError as error:
        raise Unavailable(f"the free space of {path} cannot be read: {error.strerror}", kind="unreadable") from error
    if status.f_blocks == 0:
        return  # this file system does not report its space
    # An object takes whole blocks, and more for its directory entry.
    block = status.f_frsize
    sizes = [*(size for _, size in plan.missing), *(len(file.data) for file in plan.files)]
    needed = sum((size // block + 2) * block for size in sizes)
    free = status.f_bavail * block
    if needed > free:
        raise Unavailable(
            f"{path} has {free} bytes of free space, and the sync needs {needed}",
            remedy="free some space, or sync fewer missions with --mission",
            kind="no-space",
            expected=needed,
            actual=free,
        )
