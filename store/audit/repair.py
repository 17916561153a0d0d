"""Repair: makes a store whole again from its own trash and quarantine, its log, and replicas. Never makes it worse.

Nothing is deleted: what is wrong goes to quarantine, and a damaged object only when the right bytes, verified, are at
hand. What no source has stays as it is, and stays a finding. What is to be done is a plan (see `repair_plan`).

Some damage hides other damage (a manifest that is missing, all that it needs), so `repair` audits and applies in rounds
until nothing is left to do, and ends with an audit of the scope that was asked for.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from store.audit.fsck import Audit
from store.audit.repair_plan import FROM_LOG, RepairPlan, Sources, Step, opened_from, plan_repair, there
from store.audit.scope import Scope
from store.disk import log
from store.disk.durable import Disk
from store.disk.layout import LOCKS, QUARANTINE, TMP
from store.disk.media import Media
from store.disk.objects import Batch, inserting
from store.disk.quarantine import copy_aside, present, set_aside
from store.disk.staging import sweep
from store.errors import Corrupt, FlightbagError, NotFound, Unavailable, Untrusted
from store.format.ids import ObjectId, is_hex
from store.format.ref import ref_id
from store.ground.repository import Repository
from store.ground.trust_chain import check_continues_chain, put_into_effect
from store.ground.upkeep import mend_index

# Rounds after which something new is damaged each time: somebody else is at it.
_ROUNDS = 10
# Objects and bytes to a barrier.
_BATCH_OBJECTS, _BATCH_BYTES = 2_000, 256 * 2**20
# A ref that is too long to be one is kept as well.
_REF_LIMIT = 2**20
# How many names the log's line spells out.
_NAMED = 20


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was done, and the audit after it."""

    steps: tuple[Step, ...]
    audit: Audit


def apply_repair(plan: RepairPlan, repository: Repository, replicas: Sequence[Repository]) -> list[Step]:
    """Does what a plan says, alone with the store, mends the index and says so in the log. The steps that were done.

    Raises Locked, and Unavailable where the store cannot be written. A source that fails is passed over.
    """
    media, disk = repository.media, repository.disk
    moved = []
    # What repairing itself needs. Through a link in their place the locks would lie elsewhere, where nobody holds them.
    needed = ((QUARANTINE, "directory"), (TMP, "directory"), (LOCKS, "directory"), (f"{LOCKS}/store", "file"))
    locks = media.names(LOCKS) if present(media, LOCKS) and media.file_type(LOCKS) == "directory" else []
    for name, kind in (*needed, *((f"{LOCKS}/{name}", "file") for name in locks)):
        if present(media, name) and media.file_type(name) != kind:
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
            index = mend_index(fresh)
            if done or any(index):
                facts = _facts(done, index)
                if any(step.name == log.LOG for step in done):
                    facts = {**facts, **_where_it_stands(fresh)}
                fresh.append_log(log.Event(int(time.time()), "repaired", facts))
    return done


def _mend_log(step: Step, repository: Repository) -> None:
    """Begins the log anew with the lines that hold; the damaged one is kept."""
    media, disk = repository.media, repository.disk
    whole = b""
    if step.action == "log":
        with suppress(FlightbagError):
            whole = b"".join(line for _, line in log.before_damage(media))
    try:
        if present(media, log.LOG):
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
        return _moved_aside(step.name, media, disk)
    if step.action == "make":
        disk.make_directory(media.absolute(step.name))
        disk.sync_directory(media.path)
    elif step.action == "rename":
        if os.path.basename(step.to) in media.names(os.path.dirname(step.to)) or not _as_named(step, media):
            return _moved_aside(step.name, media, disk)  # nothing takes the place of what has come since, or is wrong
        disk.rename(media.absolute(step.name), media.absolute(step.to))
        for folder in {os.path.dirname(step.name), os.path.dirname(step.to)}:
            disk.sync_directory(media.absolute(folder))
    else:
        return False
    return True


def _moved_aside(name: str, media: Media, disk: Disk) -> bool:
    """Moves a thing to quarantine; False, and the repair goes on, where this user may not move it."""
    try:
        set_aside(media, disk, name)
    except Unavailable as error:
        if error.fields.get("errno") not in (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV):
            raise
        return False
    return True


def _as_named(step: Step, media: Media) -> bool:
    """Whether what gets an object's name has its bytes. A folder's content is looked at in the next round."""
    if media.file_type(step.name) == "directory":
        return True
    text = step.to.replace("/", "").removeprefix("objects")
    if not is_hex(text):
        return True  # a stray, and told as one in the next round
    id_ = ObjectId.parse(text)
    try:
        media.digest(id_, media.stamp(step.name).size, name=step.name)
    except Corrupt:
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


def _where_it_stands(repository: Repository) -> dict[str, object]:
    """What a log that was begun anew may lack the lines of: all refs, and the newest root."""
    refs = {}
    for mission in repository.missions():
        with suppress(FlightbagError):
            refs[mission] = str(ref_id(repository.evidence.ref(mission)))
    return {"refs": refs, "root": max(repository.evidence.root_versions(), default=0)}


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
        self.sources = Sources(self.media, replicas)

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
        if data is None or str(ObjectId.of(data)) != step.to:
            return False  # it is not what was judged when the plan was made
        if not present(self.media, "trust"):
            self.disk.make_directory(self.media.absolute("trust"))
            self.disk.sync_directory(self.media.path)
        try:
            check_continues_chain(self.repository, data)
        except (NotFound, Corrupt, Untrusted):
            return False  # the root before it did not come: a root after a hole would make the store worse
        if present(self.media, step.name):
            set_aside(self.media, self.disk, step.name)
        put_into_effect(self.repository, data, at=int(time.time()))
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
        with suppress(FlightbagError):
            self.repository.current(os.path.basename(step.name))
            return False  # somebody has published it since the plan was made
        own = self.repository.evidence
        id_ = ObjectId.parse(step.to)
        opened = opened_from(id_, self.repository.trust_root(), own, self.replicas)
        if opened is None:
            return False
        lacking = [(one, size) for one, size in opened.closure().items() if not there(self.media, one, size)]
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
        with Repository.open(path, disk) as repository:
            with Media(path, drop_cache=drop_cache) as media:
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
