"""Copying missions from one store to another: only missing objects, hashed as they are copied; refs move last.

A plan is a value: the objects to copy, the trust roots to bring, the small files to place, the refs to move. Applying
it reads the source, which is never written, and writes the target, where no index is opened. The next sync resumes an
interrupted one.

The target may not exist yet, or be a store of the same trust domain. A mission that is newer at the target stays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from store.disk import log
from store.disk.durable import Disk
from store.disk.layout import DRAFTS, WITHDRAWN
from store.disk.locks import SharedLock, exclusive
from store.disk.media import FileStamp, object_path
from store.disk.medium import check_file_sizes
from store.disk.objects import inserting
from store.disk.staging import sweep
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NoStore, NotFound, Unavailable, Untrusted
from store.findings import Finding
from store.format.cbor import load
from store.format.entries import TABLE_LIMIT
from store.format.ids import DIGEST_SIZE, ObjectId
from store.format.ref import ref_id
from store.ground import drafts, orders, receipts, withdrawals
from store.ground.fanout import Fanout, Feed
from store.ground.repository import Repository, SmallFile
from store.ground.seen import Look, Seen
from store.ground.trust_chain import put_into_effect
from store.takeoff.clock import Moment
from store.takeoff.mission import Binding, Opened
from store.takeoff.verify import SignedManifest, check_binding, named_domain, open_manifest, open_signed
from store.takeoff.withdrawn import withdrawn
from store.trust.root import SignedRoot, TrustRoot
from store.values import dataclass, field, replace

# The most objects, and about the most bytes, in one durable batch: large enough to spread the cost of a sync to the
# medium, small enough that an interrupted run keeps most of its work.
_BATCH_OBJECTS, _BATCH_BYTES = 10_000, 256 * 2**20
# Seconds that a target has to tidy up when the sync of several is interrupted.
_GRACE = 2.0

# Inserts a batch of objects, given with their sizes, at the destination: each hashed, and durable on return.
Bring = Callable[[Sequence[tuple[ObjectId, int]], Repository], None]


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

    `present` counts the objects that were looked at and that the target has. `roots` are the versions of trust roots to
    bring. `moves`, `unchanged` and `newer` (at the target) have the missions; `seen` has those of the unchanged ones of
    which not every object was looked at again. `refused` has the missions that do not verify at the source, for
    instance after a revocation, or that a withdrawal grounds there which does not hold, each with the reason; the trust
    roots are brought all the same.
    """

    missing: tuple[tuple[ObjectId, int], ...]
    present: int
    roots: tuple[int, ...]
    moves: tuple[Move, ...]
    unchanged: tuple[str, ...]
    newer: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()
    seen: tuple[str, ...] = ()
    # Everything small that travels beside objects, roots and refs: placed after the roots and before the refs, in this
    # order, each atomically.
    files: tuple[SmallFile, ...] = ()
    # The closures of these missions, and the stamp of the target's log when the plan was made.
    closure: tuple[tuple[bytes, int], ...] = field(default=(), repr=False)
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
    seen: Seen | None = None,
) -> SyncPlan:
    """Return the plan that brings `missions` (none: all) to the target; None is a target that does not exist yet.

    The target has an object if a file with its name and size exists there, because the takeoff check reads every byte
    anyway. With `checksum` the files are read, so that damaged objects are copied again. `resident` answers in place of
    the folder, for a target of which `target` is only a part: whether the target has an object, given with its size.
    `seen` has what the last sync saw at the target, and keeps what this one sees: objects of missions that did not
    change are then not looked at again in a folder whose state is the same (see `seen`).

    Raise NotFound for an unknown mission, Corrupt if a mission in `missions` does not verify at the source, and
    Conflict if the target is of another trust domain, has a newer trust root that does not accept a mission, or has
    another manifest of the same sequence.
    """
    source_root = source.trust_root()
    target_log = _log_of(target)
    roots = _roots_to_copy(source, source_root, target)
    wanted: dict[bytes, int] = {}
    last: dict[bytes, int] = {}
    moves, unchanged, newer, refused, as_seen = [], [], [], [], []
    # Of the missions that did not change: their manifests, and the objects to look at.
    same: dict[ObjectId, dict[bytes, int]] = {}
    look = None
    if seen is not None and target is not None and resident is None and not checksum:
        look = seen.look(target.media)
    # A manifest or table that does not verify at the target may have the right name and size.
    doubted: set[ObjectId] = set()
    judge = _newer_root(target, source_root)
    for mission in dict.fromkeys(missions or source.missions()):
        if judge is None and target is not None and (found := _same_at(source, source_root, target, mission, look)):
            unchanged.append(mission)
            same[found.manifest] = found.objects
            if found.spared:
                as_seen.append(mission)
            continue
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
        elif why := _wrong_withdrawal(source, opened, (judge or source_root).root):
            if missions:
                text = f"mission {mission} is not copied, because no aircraft flies it from the source: {why.message}"
                raise Corrupt(text, remedy=why.remedy, kind=why.kind, mission=mission)
            refused.append((mission, f"{why.message}; {why.remedy}"))
            continue
        else:
            moves.append(move)
        _add_closure(source, opened, wanted, last)
    judging = (judge or source_root).root
    carried = [*unchanged, *newer, *(move.mission for move in moves)]
    files = withdrawals.to_bring(source, target, carried, judging)
    if not missions:
        pointers, needed = orders.to_bring(source, target)
        brought = drafts.to_bring(source, target, judging)
        files += (*pointers, *receipts.to_bring(source, target, source_root.root), *brought.files)
        wanted.update(needed.items())
        wanted.update(brought.objects.items())
        refused += brought.refused
    for objects in same.values():
        wanted |= objects
    for manifest in last:
        wanted.pop(manifest, None)

    def lacking(objects: dict[bytes, int]) -> list[tuple[bytes, int]]:
        if target is None:
            return list(objects.items())
        if resident is not None:
            return [item for item in objects.items() if item[0] in doubted or not resident(ObjectId(item[0]), item[1])]
        looked_at = {} if checksum else {id_: size for id_, size in objects.items() if id_ not in doubted}
        read = ((id_, size) for id_, size in objects.items() if id_ not in looked_at)
        return target.media.lacking(looked_at.items()) + [
            (id_, size) for id_, size in read if not _holds(target, ObjectId(id_), size)
        ]

    missing = tuple((ObjectId(id_), size) for id_, size in (*sorted(lacking(wanted)), *lacking(last)))
    if seen is not None and look is not None and target is not None:
        lost = {id_ for id_, _ in missing}
        seen.keep(look, [id_ for id_, objects in same.items() if lost.isdisjoint(objects)], target.media, target.disk)
    return SyncPlan(
        missing,
        len(wanted) + len(last) - len(missing),
        roots,
        tuple(moves),
        tuple(unchanged),
        tuple(newer),
        tuple(refused),
        tuple(as_seen),
        files,
        (*wanted.items(), *last.items()),
        target_log,
    )


def _log_of(target: Repository | None) -> FileStamp | None:
    try:
        return None if target is None else target.media.stamp(log.LOG)
    except (NotFound, Corrupt):
        return None


class _Same(NamedTuple):
    """A mission that did not change: its manifest, the objects to look for at the target, with their sizes, and whether
    some were spared because the last sync saw them."""

    manifest: ObjectId
    objects: dict[bytes, int]
    spared: bool


def _same_at(source: Repository, root: SignedRoot, target: Repository, mission: str, look: Look | None) -> _Same | None:
    """Return what to look for of a mission of which both stores have the same manifest and table, byte for byte, and
    whose signatures hold under the newest trust root of the source; None where a closer look has to decide.

    Nothing of such a mission changes at the target but for objects that it lacks. So the table, whose bytes have the
    signed id, only says which objects these are: whether it is canonical and has the signed Merkle root was judged
    when the ref moved, and is judged by each takeoff check and audit.
    """
    try:
        id_ = ref_id(source.evidence.ref(mission))
        if _ref_at(target, mission) != id_:
            return None
        signed = open_signed(source.evidence, id_, root, newest=True)
        if not isinstance(signed, SignedManifest) or signed.manifest.mission.id != mission:
            return None
        m = signed.manifest
        target.media.digest(id_, signed.size)
        target.media.digest(m.table, m.table_size)
        if look is not None and look.covers(id_):
            return _Same(id_, {}, spared=True)
        table = bytes(source.evidence.bytes_of(m.table, m.table_size))
        objects: dict[bytes, int] = {id_: signed.size, m.table: m.table_size}
        objects |= {release: source.media.stamp(object_path(release)).size for release in m.releases}
        entries = load(table, limit=TABLE_LIMIT, what="the entry table")
        if len(entries) != m.count:
            return None
        for _, _, object_, size, _, _ in entries:
            if type(object_) is not bytes or len(object_) != DIGEST_SIZE or type(size) is not int:
                return None
            objects[object_] = size
        if look is None or id_ not in look.manifests:
            return _Same(id_, objects, spared=False)
        left = {object_: size for object_, size in objects.items() if object_[0] not in look.trusted}
        return _Same(id_, left, spared=len(left) < len(objects))
    except (FlightbagError, TypeError, ValueError):
        return None


def _add_closure(source: Repository, opened: Opened, wanted: dict[bytes, int], last: dict[bytes, int]) -> None:
    for release in opened.manifest.releases:
        wanted[release] = source.media.stamp(object_path(release)).size
    wanted.update(opened.closure().items())
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
            remedy = "give a store of the same trust domain, or sync to a folder that does not exist yet"
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


def _wrong_withdrawal(source: Repository, opened: Opened, judge: TrustRoot) -> Finding | None:
    """Return why a mission is grounded at the source by a withdrawal that does not hold under the root that judges, so
    that no sync brings it along: the mission would be GO where it goes. None without one."""
    findings = withdrawn(source.evidence, replace(opened, trust_root=judge)).findings
    return next((one for one in findings if one.kind != "withdrawn"), None)


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


def _holds(target: Repository, id_: ObjectId, size: int) -> bool:
    """Return whether the target has the bytes of an object."""
    try:
        target.media.digest(id_, size)
    except (NotFound, Corrupt):
        return False
    return True


def apply_sync(
    plan: SyncPlan,
    source: Repository,
    target: str | os.PathLike[str],
    *,
    disk: Disk | None = None,
    progress: Callable[[int], None] | None = None,
    bring: Bring | None = None,
) -> None:
    """Copy objects, then bring trust roots, place small files, and move refs. Everything is durable on return.

    `progress` gets the number of bytes as they are copied. `bring` brings the objects in place of copies from the
    folder of the source, for a source of which `source` is only a part. Raise Unavailable, before anything is copied,
    if the medium has too little free space or takes no file as large as an object; Locked during a collection at either
    store; Corrupt or Unavailable for a source object that is not whole.
    """
    _check_outside(source, target, os.path.realpath(target))
    with held(source):
        _check_room(plan, target)
        bring = bring or partial(_copy, source=source, feed=None, progress=progress)
        _apply(plan, source, target, disk or Disk(), bring, plan.missing)


def apply_syncs(
    plans: Mapping[str, SyncPlan],
    source: Repository,
    *,
    disk: Disk | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> dict[str, FlightbagError]:
    """Do what the plan of each target, given by its path, says, for all targets at once: each object is read once.

    Return the errors of the targets that failed, as `apply_sync` raises them; one that fails or is slow stops no other
    (see `fanout`). `progress` gets the target and the number of bytes as they are copied. Raise Invalid, before
    anything is copied, for a target in the source store or in another target; Locked during a collection at the source.
    """
    check_targets(source, list(plans))
    disk, errors, defects = disk or Disk(), dict[str, FlightbagError](), list[BaseException]()

    def bring(target: str, feed: Feed | None) -> None:
        advance = None if progress is None else partial(progress, target)
        try:
            _check_room(plans[target], target)
            items = plans[target].missing if feed is None else feed.items
            copy = partial(_copy, source=source, feed=feed, progress=advance)
            _apply(plans[target], source, target, disk, copy, items)
        except FlightbagError as error:
            errors[target] = error
        except BaseException as error:  # noqa: BLE001 - of another thread: it is raised below
            defects.append(error)
        finally:
            if feed is not None:
                feed.close()

    with held(source):
        if len(plans) < 2:
            for target in plans:
                bring(target, None)
        else:
            manifests = frozenset(move.manifest for plan in plans.values() for move in plan.moves)
            fanout = Fanout(source.media, [plan.missing for plan in plans.values()], manifests)
            # Daemons: a medium that never answers keeps no process from ending.
            threads = [Thread(target=bring, args=pair, daemon=True) for pair in zip(plans, fanout.feeds, strict=True)]
            for thread in threads:
                thread.start()
            try:
                fanout.read()
                for thread in threads:
                    thread.join()
            except BaseException:
                fanout.stop()
                for thread in threads:
                    thread.join(_GRACE)
                raise
    if defects:
        raise defects[0]
    return errors


def check_targets(source: Repository, targets: Sequence[str]) -> None:
    """Raise Invalid for a target that lies in the source store, or that is another one or lies in it."""
    check_apart(source, [(target, os.path.realpath(target)) for target in targets])


def check_apart(source: Repository, places: Sequence[tuple[str, str]]) -> None:
    """Do what `check_targets` does, for targets with their real paths. Look at no target."""
    for number, (target, place) in enumerate(places):
        _check_outside(source, target, place)
        for other, its_place in (*places[:number], *places[number + 1 :]):
            if Path(place).is_relative_to(its_place):
                text = f"{target} and {other} are one folder, or one lies in the other"
                raise Invalid(text, remedy="give each target once, and none that lies in another one")


def _check_outside(source: Repository, target: str | os.PathLike[str], place: str) -> None:
    if Path(place).is_relative_to(os.path.realpath(source.media.path)):
        text = f"{os.fspath(target)} lies in the source store"
        raise Invalid(text, remedy="give a folder outside of the source store")


@contextmanager
def held(source: Repository) -> Iterator[None]:
    """Keep collections away from a source. One that was never written to has no lock. Raise Locked during one."""
    lock = SharedLock.existing(source.media.path, "store", "the source store")
    try:
        if lock is not None:
            lock.hold_shared(wait=False)
        yield
    finally:
        if lock is not None:
            lock.close()


@contextmanager
def of_source() -> Iterator[None]:
    """Let an error that says that an object of the source is not whole say what to do, too."""
    try:
        yield
    except (NotFound, Corrupt) as error:
        remedy = "run `flightbag sync --checksum` from a whole copy to the source, then this again"
        raise error.restated(error.message, remedy=error.remedy or remedy) from error


def _apply(
    plan: SyncPlan,
    source: Repository,
    target: str | os.PathLike[str],
    disk: Disk,
    bring: Bring,
    items: Sequence[tuple[ObjectId, int]],
) -> None:
    try:
        # The error for a path at which nothing lies looks for stores nearby, on media that may not answer.
        new = not os.path.lexists(target)
        destination = Repository.init(target, disk) if new else Repository.open(target, disk)
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
            for batch in batches(items):
                with of_source():
                    bring(batch, destination)
            if not unchanged and (collected := destination.media.lacking(plan.closure)):
                object_ = ObjectId(collected[0][0])
                raise Unavailable(
                    f"object {object_} was at the target when the sync began, and was collected since",
                    remedy="run the sync again",
                    kind="missing",
                    object=object_,
                )
            publish(plan, source, destination)
        finally:
            lock.close()


def publish(plan: SyncPlan, source: Repository, destination: Repository) -> None:
    """Bring the trust roots, place the small files and move the refs of a plan, whose objects are durable before."""
    for version in plan.roots:
        _bring_root(version, source, destination)
    _place(plan.files, destination)
    for move in plan.moves:
        _move(move, destination)


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
    destination: Repository,
    *,
    source: Repository,
    feed: Feed | None,
    progress: Callable[[int], None] | None,
) -> None:
    with inserting(destination.media, destination.disk, None) as batch:
        if feed is None:
            batch.add_all((source.media.chunks(object_path(id_), size, progress), id_) for id_, size in items)
        else:
            for id_, size in items:
                batch.add(feed.chunks(id_, size, progress), id_)
        batch.commit()


def batches(items: Sequence[tuple[ObjectId, int]]) -> Iterator[list[tuple[ObjectId, int]]]:
    """Yield the items in batches of bounded number and size."""
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
