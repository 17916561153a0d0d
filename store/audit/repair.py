"""Repair: makes a store whole again from its own trash and quarantine, its log, and replicas. Never makes it worse.

A repair deletes nothing: wrong things go to quarantine, and a damaged object goes there only once the right bytes,
verified, are at hand. A damage that no source can mend stays, and stays a finding. The steps are a plan (see
`repair_plan`).

Some damage hides other damage: a missing manifest hides everything that it needs. So `repair` audits and applies in
rounds until a plan has no new steps, and ends with an audit of the scope that the caller gave.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

from store.audit.fsck import Audit
from store.audit.repair_plan import FROM_LOG, RepairPlan, Sources, Step, has_object, opened_from, plan_repair
from store.audit.scope import Scope
from store.disk import log
from store.disk.durable import Disk
from store.disk.layout import LOCKS, QUARANTINE, TMP
from store.disk.media import SHARD_LIMIT, Media
from store.disk.objects import Batch, inserting
from store.disk.quarantine import copy_aside, present, set_aside
from store.disk.staging import sweep
from store.errors import Corrupt, FlightbagError, NotFound, Unavailable
from store.format.ids import ObjectId, is_hex
from store.format.ref import ref_id
from store.ground.repository import Repository
from store.ground.trust_chain import check_continues_chain, put_into_effect
from store.ground.upkeep import mend_index
from store.values import dataclass, replace

# After so many rounds with new damage in each, another process is changing the store.
_ROUNDS = 10
# The most objects, and about the most bytes, in one durable batch.
_BATCH_OBJECTS, _BATCH_BYTES = 2_000, 256 * 2**20
# A ref that is too long to be valid is kept in quarantine too, up to this size.
_REF_LIMIT = 2**20
# The most names in a line of the log.
_NAMES_LOGGED = 20


@dataclass(frozen=True, slots=True)
class Repaired:
    """The steps that a repair carried out, and the audit after them."""

    steps: tuple[Step, ...]
    audit: Audit


def apply_repair(
    plan: RepairPlan,
    repository: Repository,
    replicas: Sequence[Repository],
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Step]:
    """Carry out a plan alone with the store, mend the index, add a line to the log. Return the steps carried out.

    `progress` gets the kind of work, and how many objects were fetched now and are to be fetched in all. Raise Locked,
    and Unavailable if the store cannot be written. A source that fails is passed over.
    """
    media, disk = repository.media, repository.disk
    moved = []
    # The repair itself needs these. Through a link in their place the locks would lie in a folder that no other
    # process locks.
    needed = ((QUARANTINE, "directory"), (TMP, "directory"), (LOCKS, "directory"), (f"{LOCKS}/store", "file"))
    locks = media.names(LOCKS) if present(media, LOCKS) and media.file_type(LOCKS) == "directory" else []
    for name, kind in (*needed, *((f"{LOCKS}/{name}", "file") for name in locks)):
        if present(media, name) and media.file_type(name) != kind:
            set_aside(media, disk, name)
            moved.append(name)
    applied = [step for step in plan.steps if step.action == "move-aside" and step.name in moved]
    refs = {os.path.basename(step.name): step.to for step in plan.steps if step.action == "ref"}
    with repository.locked(alone=True):
        for step in plan.steps:
            if step.name == log.LOG and step not in applied:
                _mend_log(step, repository)
                applied.append(step)
        if refs:
            # A crash may leave a ref moved aside and not made again; then the log shows that the mission had one.
            repository.append_log(log.Event(int(time.time()), "repaired", {"refs": refs, "stage": "begun"}))
        for step in plan.steps:
            if step not in applied and _rearranged(step, repository):
                applied.append(step)
        # The steps so far may have replaced folders, so the store is opened again.
        with Repository.open(media.path, disk) as fresh:
            runner = _StepRunner(fresh, replicas)
            applied += runner.run([step for step in plan.steps if step not in applied], progress)
            index = mend_index(fresh)
            if applied or any(index):
                facts = _facts(applied, index)
                if any(step.name == log.LOG for step in applied):
                    facts = {**facts, **_refs_and_newest_root(fresh)}
                fresh.append_log(log.Event(int(time.time()), "repaired", facts))
    return applied


def _mend_log(step: Step, repository: Repository) -> None:
    """Replace the log by its valid lines, and keep what is damaged in quarantine.

    Parts after the first damage go last, the newest first: until the damaged one has gone, a repair that was cut short
    finds the same damage, and the same lines.
    """
    media, disk = repository.media, repository.disk
    later, whole = log.mended(media) if step.action == "log" else ([], b"")
    try:
        if present(media, log.LOG):
            copy_aside(media, disk, log.LOG, log.LOG_LIMIT)
    except (Corrupt, Unavailable) as error:
        if error.kind == "unwritable":
            raise
        set_aside(media, disk, log.LOG)  # it cannot be copied
    repository.replace(log.LOG, whole)
    for name in reversed(later):
        set_aside(media, disk, name)


def _rearranged(step: Step, repository: Repository) -> bool:
    """Carry out a step that moves or makes things within the store. Return whether it was carried out."""
    media, disk = repository.media, repository.disk
    if step.action == "move-aside":
        if not os.path.lexists(media.absolute(step.name)):
            return False  # it moved along with its folder; the next round finds it there
        return _moved_aside(step.name, media, disk)
    if step.action == "make":
        disk.make_directory(media.absolute(step.name))
        disk.sync_directory(media.path)
    elif step.action == "rename":
        if os.path.basename(step.to) in media.names(os.path.dirname(step.to), SHARD_LIMIT) or not _as_named(
            step, media
        ):
            return _moved_aside(step.name, media, disk)  # the right name is taken by now, or the bytes are wrong
        disk.rename(media.absolute(step.name), media.absolute(step.to))
        for folder in {os.path.dirname(step.name), os.path.dirname(step.to)}:
            disk.sync_directory(media.absolute(folder))
    else:
        return False
    return True


def _moved_aside(name: str, media: Media, disk: Disk) -> bool:
    """Move a thing to quarantine. Return False, so that the repair goes on, if this user may not move it."""
    try:
        set_aside(media, disk, name)
    except Unavailable as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV):
            raise
        return False
    return True


def _as_named(step: Step, media: Media) -> bool:
    """Return whether a thing that gets an object's name has its bytes. The next round examines a folder's content."""
    if media.file_type(step.name) == "directory":
        return True
    text = step.to.replace("/", "").removeprefix("objects")
    if not is_hex(text):
        return True  # the next round finds a stray
    id_ = ObjectId.parse(text)
    try:
        media.digest(id_, media.stamp(step.name).size, name=step.name)
    except Corrupt:
        return False
    return True


def _facts(applied: Sequence[Step], index: tuple[int, int]) -> dict[str, object]:
    """Return the facts of the log's line: the number of steps by action, and the names of things moved aside."""
    counts: dict[str, int] = {}
    for step in applied:
        counts[step.action] = counts.get(step.action, 0) + 1
    return {
        "stage": "done",
        "steps": counts,
        "aside": [_ascii(step.name) for step in applied if step.action == "move-aside"][:_NAMES_LOGGED],
        "refs": {os.path.basename(step.name): step.to for step in applied if step.action == "ref"},
        "index": list(index),
    }


def _refs_and_newest_root(repository: Repository) -> dict[str, object]:
    """Return all refs and the newest root version: a log that was cut to its valid lines may lack their lines."""
    refs = {}
    for mission in repository.missions():
        with suppress(FlightbagError):
            refs[mission] = str(ref_id(repository.evidence.ref(mission)))
    return {"refs": refs, "root": max(repository.evidence.root_versions(), default=0)}


def _ascii(name: str) -> str:
    """Return a file name as text of ASCII; the name on the medium may be any bytes."""
    return os.fsencode(name)[:200].decode("ascii", "backslashreplace")


class _StepRunner:
    """Carries out the steps that bring bytes: trust roots, objects and refs."""

    def __init__(self, repository: Repository, replicas: Sequence[Repository]) -> None:
        self.repository = repository
        self.media = repository.media
        self.disk = repository.disk
        self.replicas = replicas
        self.sources = Sources(self.media, replicas)

    def run(self, todo: Sequence[Step], progress: Callable[[str, int, int], None] | None) -> list[Step]:
        """Carry out the steps, and return those that were carried out."""
        sweep(self.media, self.disk)
        applied = [step for step in todo if step.action == "root" and self.root(step)]
        wanted = {ObjectId.parse(step.name.replace("/", "")[7:]): step for step in todo if step.action == "fetch"}

        def counted() -> Iterator[tuple[ObjectId, int]]:
            for id_, step in wanted.items():
                yield id_, step.limit
                if progress is not None:
                    progress("mending", 1, len(wanted))

        fetched = self.fetch(counted())
        applied += [step for id_, step in wanted.items() if id_ in fetched]
        applied += [step for step in todo if step.action == "ref" and self.ref(step)]
        return applied

    def root(self, step: Step) -> bool:
        """Put a trust root of a replica into effect. Return whether it was."""
        data = None
        version = int(os.path.basename(step.name).split(".")[0])
        for replica in self.replicas:
            if replica.media.path == step.source:
                with suppress(FlightbagError):
                    data = replica.evidence.root_file(version)
        if data is None or str(ObjectId.of(data)) != step.to:
            return False  # it is another file than the one that the plan was made with
        if not present(self.media, "trust"):
            self.disk.make_directory(self.media.absolute("trust"))
            self.disk.sync_directory(self.media.path)
        try:
            check_continues_chain(self.repository, version, data)
        except FlightbagError:
            return False  # the root before it is not whole still: a root after a hole would make the store worse
        if present(self.media, step.name):
            set_aside(self.media, self.disk, step.name)
        put_into_effect(self.repository, version, data, at=int(time.time()))
        return True

    def fetch(self, wanted: Iterable[tuple[ObjectId, int]]) -> set[ObjectId]:
        """Insert objects of at most the given sizes from the first sources that have them whole; return their ids."""
        fetched: set[ObjectId] = set()
        with inserting(self.media, self.disk, None) as batch:
            staged = total = 0
            for id_, limit in wanted:
                size = self.stage(batch, id_, limit)
                if size is None:
                    continue
                fetched.add(id_)
                staged, total = staged + 1, total + size
                if staged >= _BATCH_OBJECTS or total >= _BATCH_BYTES:
                    batch.commit()
                    staged = total = 0
            batch.commit()
        return fetched

    def stage(self, batch: Batch, id_: ObjectId, limit: int) -> int | None:
        """Stage an object from the first source that has it whole. Return its size, or None without such a source."""
        for place in self.sources.of(id_, limit):
            try:
                return batch.add(place.media.chunks(place.name, limit), expect=id_).size
            except FlightbagError as error:
                # A source may fail; a store that cannot be written ends the repair.
                if error.kind == "unwritable":
                    raise
        return None

    def ref(self, step: Step) -> bool:
        """Make a ref name a manifest, after fetching everything that the manifest needs. Return whether it does."""
        with suppress(FlightbagError):
            self.repository.current(os.path.basename(step.name))
            return False  # the mission was published since the plan was made
        own = self.repository.evidence
        id_ = ObjectId.parse(step.to)
        opened = opened_from(id_, self.repository.trust_root(), own, self.replicas)
        if opened is None:
            return False
        lacking = [(one, size) for one, size in opened.closure().items() if not has_object(self.media, one, size)]
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


def repair(
    path: str | os.PathLike[str],
    scope: Scope,
    replicas: Sequence[Repository],
    *,
    audited: Callable[[Media, Scope], Audit],
    show: Callable[[RepairPlan], None],
    bars: Callable[[], AbstractContextManager[Callable[[str, int, int], None] | None]] = nullcontext,
    disk: Disk | None = None,
    drop_cache: bool | None = False,
) -> Repaired:
    """Audit, plan and apply until a plan has no new steps. Return the steps carried out, and the last audit.

    `audited` audits a store in a scope (see `fsck`); the last audit has the whole scope. `show` gets each plan before
    it is applied, and `bars` gives what follows that (see `apply_repair`). Raise as `fsck` does, Locked if another
    process uses the store, and Unavailable if it cannot be written.
    """
    applied: list[Step] = []
    tried: set[tuple[Step, ...]] = set()
    quick = replace(scope, read="quick", amount=0)
    now = scope
    while True:
        # The store is opened again in each round: old descriptors may lead to folders that were moved.
        with Repository.open(path, disk) as repository:
            with Media(path, drop_cache=drop_cache) as media:
                audit = audited(media, now)
            plan = plan_repair(repository, audit, replicas)
            if plan.work and plan.steps not in tried and len(tried) < _ROUNDS:
                show(plan)
                with bars() as progress:
                    applied += apply_repair(plan, repository, replicas, progress)
                tried.add(plan.steps)
                now = quick
            elif now == scope:
                return Repaired(tuple(applied), audit)
            else:
                now = scope
