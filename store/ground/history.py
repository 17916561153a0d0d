"""Missions over time and side by side: rollback, differences, statistics. Only the rollback writes."""

from __future__ import annotations

from collections.abc import Mapping

from store.disk import log
from store.errors import Corrupt, Invalid, NotFound, Refused
from store.format.cose import Envelope
from store.format.ids import ObjectId
from store.format.manifest import CONTENT_TYPE, TIME_MAX, Issue, utc
from store.ground.gc import current_need
from store.ground.issuing import (
    Approve,
    Draft,
    Review,
    highest_issued,
    last_issued,
    mission_lock,
    next_issue,
    reviewed,
)
from store.ground.issuing import issue as issue_
from store.ground.log_history import LogHistory
from store.ground.needs import UNKNOWN
from store.ground.repository import Repository
from store.ground.writer import check_fit, writing
from store.takeoff.mission import Opened
from store.takeoff.withdrawn import withdrawn
from store.trust.root import TrustRoot, check_begun
from store.values import dataclass, replace


@dataclass(frozen=True, slots=True)
class Rollback:
    """A rollback from the manifest `current` (None if that does not verify) to the entries of the manifest `to`, which
    has the code `to_code`.

    `manifest` is the new manifest, None if none was published: because nothing would change (`unchanged`), or because
    it is a draft with `signatures` of the `threshold` required ones. `signing_code` is its code, "" without one.
    `valid_from` and `expires_at` are its validity, as `Issue` has them. `replaced` counts the signatures of a draft
    that this one took the place of.
    """

    mission: str
    current: ObjectId | None
    to: ObjectId
    to_code: str
    sequence: int
    unchanged: bool
    manifest: ObjectId | None = None
    valid_from: int | None = None
    expires_at: int | None = None
    signatures: int = 0
    threshold: int = 0
    signing_code: str = ""
    replaced: int = 0


def rollback(
    repository: Repository,
    mission: str,
    approve: Approve,
    *,
    now: int,
    to: ObjectId | None = None,
    expect: str | None = None,
    dry_run: bool = False,
) -> Rollback:
    """Publish the mission and entries of an earlier manifest again, signed with a new sequence. `now` is unix seconds.

    Without `to`, the target is the last manifest of the log that differs from the current one, or if the current one
    does not verify, the last one that does. The log is not signed: who goes by it names the target by its code, as
    `expect` or in `approve`. The validity keeps its length, but for what the trust root allows (see `_validity`). With
    `dry_run` nothing is written, and nothing is approved.

    Raise Untrusted for a signer outside of the role mission, NotFound if the mission has no earlier manifest, Corrupt
    for a manifest that does not verify, Refused (kind other-code) if the target has another code than `expect`, Refused
    if its closure is not whole.
    """
    root = repository.trust_root().root
    check_begun(root, now=now)
    plan, _, _ = _planned(repository, mission, root, to, now=now)
    if plan.unchanged or dry_run:
        return plan
    with mission_lock(repository, mission, f"the rollback of mission {mission}"):
        plan, target, issued = _planned(repository, mission, root, to, now=now)
        if plan.unchanged:  # by another process, since it was planned
            return plan
        manifest = replace(target.manifest, issue=issued)
        draft = Draft(manifest, Envelope(CONTENT_TYPE, manifest.render()))
        opened = draft.opened_with(target.table, root)
        check_fit(repository.evidence, opened, mission)
        review = Review(opened, last_issued(repository, mission), target)
        signers = reviewed(review, approve, root, expect)
        with writing(repository) as writer:
            writer.check_closure(target)
            issued_as = issue_(writer, manifest, target.table, signers, root, event="rolled-back")
    return replace(
        plan,
        sequence=issued_as.issue.sequence,
        manifest=issued_as.manifest,
        signatures=issued_as.signatures,
        threshold=issued_as.threshold,
        signing_code=issued_as.signing_code,
        replaced=issued_as.replaced,
    )


def _planned(
    repository: Repository, mission: str, root: TrustRoot, to: ObjectId | None, *, now: int
) -> tuple[Rollback, Opened, Issue]:
    """Return a rollback that is not published yet, its target, and the issue that its manifest would have."""
    last = last_issued(repository, mission)
    current: Opened | None = None
    try:
        current = repository.current(mission)
    except Corrupt:
        # A rollback must also be possible from a damaged manifest, or from one of a revoked signer.
        if last is None:
            raise
    if to is not None:
        target = _named(repository, mission, to)
    elif current is not None:
        target = _earlier(repository, mission, current)
    else:
        assert last is not None
        target = last
    # What was withdrawn is published again: a later issue flies.
    flies = current is not None and not withdrawn(repository.evidence, current).findings
    unchanged = flies and current is not None and _content(target) == _content(current)
    if current is not None and unchanged:
        issue = current.manifest.issue
    else:
        valid_from, expires_at = _validity(target.manifest.issue, root, now=now)
        highest = highest_issued(repository, mission)
        issue = next_issue(root, last, highest, now=now, valid_from=valid_from, expires_at=expires_at)
    plan = Rollback(
        mission,
        None if current is None else current.manifest_id,
        target.manifest_id,
        target.signing_code,
        issue.sequence,
        unchanged,
        valid_from=issue.valid_from,
        expires_at=issue.expires_at,
    )
    return plan, target, issue


def _validity(issue: Issue, root: TrustRoot, *, now: int) -> tuple[int | None, int | None]:
    """Return when a manifest that is issued again now is valid from, and when it expires.

    It is valid for as long as before, from `valid_from` if that is still to come. Without an expiry it is valid for the
    default lifetime of the trust root. The maximum of the trust root cuts it: no planner is asked here, and a shorter
    validity is safe. Raise Refused where nothing is left of it.
    """
    start = max(now, issue.valid_from or 0)
    length = root.default_lifetime
    if issue.expires_at is not None:
        length = issue.expires_at - max(issue.issued_at, issue.valid_from or 0)
    ends = [start + length] if length is not None else []
    if root.max_lifetime is not None:
        ends.append(now + root.max_lifetime)
    expires_at = min(ends, default=None)
    if expires_at is not None and expires_at < start:
        raise Refused(
            f"the manifest would be valid from {utc(start)}, and by trust root {root.version} until {utc(expires_at)}",
            remedy="build the mission again, with another valid_from",
            kind="lifetime",
        )
    return issue.valid_from, None if expires_at is None else min(expires_at, TIME_MAX)


def _content(opened: Opened) -> object:
    """Return everything that a manifest states, except for its issue."""
    m = opened.manifest
    return m.mission, m.hosts, m.coverage, m.quality, m.unproven, m.releases, m.merkle_root


def _named(repository: Repository, mission: str, id_: ObjectId) -> Opened:
    opened = repository.opened(id_, f"the manifest {id_}")
    if opened.manifest.mission.id != mission:
        text = f"the manifest {id_} is of mission {opened.manifest.mission.id}, not of {mission}"
        raise Invalid(text, remedy=f"give a manifest of {mission}: `flightbag log` lists them")
    return opened


def _earlier(repository: Repository, mission: str, current: Opened) -> Opened:
    for move in reversed(LogHistory.of(log.events(repository.media)).published(mission)):
        if move.manifest == current.manifest_id:
            continue
        try:
            opened = _named(repository, mission, move.manifest)
        except Corrupt:
            continue  # lost, or its signer was revoked since
        if _content(opened) != _content(current):
            return opened
    raise NotFound(
        f"mission {mission} has no earlier manifest that differs from the current one",
        remedy="`flightbag log` lists its manifests; build the mission to change it",
        kind="missing",
    )


@dataclass(frozen=True, slots=True)
class Diff:
    """The entries that two missions share. Names are entry names; bytes count each object once.

    `same` has the names with the same object in both, `changed` the names with different objects, `moved` the objects
    that both have under different names, as (name in a, name in b).
    """

    a: str
    b: str
    same: tuple[str, ...]
    changed: tuple[str, ...]
    moved: tuple[tuple[str, str], ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    shared_bytes: int
    own_a_bytes: int
    own_b_bytes: int


def diff(a: Opened, b: Opened) -> Diff:
    """Return what two missions share. Law: shared + own = all, for both; in diff(a, a) all entries are the same."""
    names_a = {entry.name: entry for entry in a.table.entries}
    names_b = {entry.name: entry for entry in b.table.entries}
    sizes_a = {entry.id: entry.size for entry in a.table.entries}
    sizes_b = {entry.id: entry.size for entry in b.table.entries}
    places_b: dict[ObjectId, str] = {}
    for entry in b.table.entries:
        places_b.setdefault(entry.id, entry.name)
    both = names_a.keys() & names_b.keys()
    moved = tuple(
        (name, places_b[entry.id]) for name, entry in names_a.items() if name not in both and entry.id in places_b
    )
    moved_a, moved_b = {one for one, _ in moved}, {other for _, other in moved}
    shared = sizes_a.keys() & sizes_b.keys()
    return Diff(
        a.manifest.mission.id,
        b.manifest.mission.id,
        same=tuple(sorted(name for name in both if names_a[name].id == names_b[name].id)),
        changed=tuple(sorted(name for name in both if names_a[name].id != names_b[name].id)),
        moved=moved,
        only_a=tuple(name for name in names_a if name not in both and name not in moved_a),
        only_b=tuple(name for name in names_b if name not in both and name not in moved_b),
        shared_bytes=sum(sizes_a[id_] for id_ in shared),
        own_a_bytes=sum(size for id_, size in sizes_a.items() if id_ not in shared),
        own_b_bytes=sum(size for id_, size in sizes_b.items() if id_ not in shared),
    )


@dataclass(frozen=True, slots=True)
class MissionStats:
    """One closure: its objects and bytes, the bytes that another mission needs too, and the bytes of its own."""

    objects: int
    bytes: int
    shared_bytes: int
    own_bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A store in numbers: its objects, the closures of its missions, and the effect of sharing.

    `closure_bytes` is the sum over all missions; `unique_bytes` counts each object once.
    """

    objects: int
    bytes: int
    unreferenced_objects: int
    unreferenced_bytes: int
    missions: Mapping[str, MissionStats]
    closure_bytes: int
    unique_bytes: int

    @property
    def dedup_ratio(self) -> float:
        """How many times larger separate copies of the missions would be; 1 if they share nothing, or without any."""
        return self.closure_bytes / self.unique_bytes if self.unique_bytes else 1.0


def stats(repository: Repository) -> Stats:
    """Count a store, by the sizes on the medium.

    Raise as `current_need` does if a mission cannot be read, Refused if an object of a closure is missing.
    """
    needs = {mission: current_need(repository, mission) for mission in repository.missions()}
    missions = {mission: [0, 0, 0, 0] for mission in needs}
    objects = total = lone = lone_bytes = closure = unique = 0
    for first in range(256):
        sizes = {id_: status.st_size for id_, status in repository.media.objects(first)}
        holders: dict[ObjectId, list[str]] = {}
        for mission, need in needs.items():
            for id_, size in need.of_shard(first):
                holders.setdefault(id_, []).append(mission)
                if id_ not in sizes and size != UNKNOWN:
                    raise Refused(f"object {id_} is missing", remedy="run store-fsck", kind="missing", object=id_)
        for id_, size in sizes.items():
            objects, total = objects + 1, total + size
            if id_ not in holders:
                lone, lone_bytes = lone + 1, lone_bytes + size
        for id_, names in holders.items():
            size = sizes.get(id_, 0)
            unique += size
            closure += size * len(names)
            for mission in names:
                counted = missions[mission]
                counted[0] += 1
                counted[1] += size
                counted[2 if len(names) > 1 else 3] += size
    return Stats(
        objects,
        total,
        lone,
        lone_bytes,
        {mission: MissionStats(*counted) for mission, counted in missions.items()},
        closure,
        unique,
    )
