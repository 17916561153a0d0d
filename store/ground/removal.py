"""Removal: a mission is taken out of one store. Nothing is withdrawn: who has a copy of the mission may fly it.

Removed is the ref. What the mission needed alone goes with the next collection, but for its last manifest, which stays
so that a later publication of the same mission has a later sequence: aircraft refuse a lower one. A mission with a
draft is not removed, because its signature would bring the mission back.

The order (FORMAT.md 2.4.1): (1) the log line; (2) the ref, and its folder is synced. After a crash between the two the
mission is still published, and removing it again completes the removal.
"""

from __future__ import annotations

import time
from contextlib import suppress

from store.disk import log
from store.disk.layout import DRAFTS, PINS
from store.disk.quarantine import present
from store.errors import Conflict, Corrupt, FlightbagError, NotFound
from store.findings import Finding
from store.format.cose import Envelope
from store.format.ids import ObjectId
from store.format.manifest import CONTENT_TYPE, ENVELOPE_LIMIT, PAYLOAD_LIMIT, Manifest
from store.format.ref import ref_id
from store.ground.gc import kept_needs
from store.ground.issuing import mission_lock
from store.ground.log_history import LogHistory
from store.ground.needs import KEEP_LAST, UNKNOWN, need_of_stored, pinned_id
from store.ground.repository import Repository
from store.values import dataclass

_MEND = (
    "mend it with `store-fsck --full --repair --from` a whole copy of the store, or build the mission again; then "
    "remove it"
)


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """What a removal takes out: the mission with its manifest, (epoch, sequence) and flight.

    `objects` and `bytes` are what the next collection frees, of what is older than its grace time; both are None where
    that is not known, because of `unknown`. `pins` are those that keep manifests of the mission.
    """

    mission: str
    manifest: ObjectId
    epoch: int
    sequence: int
    flight: str
    objects: int | None
    bytes: int | None
    pins: tuple[str, ...]
    unknown: tuple[Finding, ...] = ()


def plan_removal(repository: Repository, mission: str) -> RemovalPlan:
    """Return what a removal would take out, without writing a byte.

    Raise NotFound for a mission that the store does not have, NotFound or Corrupt where its manifest is lost or
    damaged, and Conflict (kind draft-waits) where it has a draft.
    """
    manifest_id = ref_id(repository.evidence.ref(mission))
    try:
        data = repository.evidence.object(manifest_id, ENVELOPE_LIMIT)
        # Whoever signed it: also a mission of a revoked key can go.
        manifest = Manifest.parse(Envelope.parse(data, CONTENT_TYPE, PAYLOAD_LIMIT).payload)
    except (NotFound, Corrupt) as error:
        text = f"the manifest of mission {mission}, after whose sequence the next one comes: {error.message}"
        raise error.restated(text, remedy=_MEND) from error
    if manifest.mission.id != mission:
        raise Corrupt(
            f"the ref of mission {mission} names the manifest of mission {manifest.mission.id}",
            remedy="run store-fsck --repair",
            kind="bad-ref",
            expected=mission,
            actual=manifest.mission.id,
        )
    if present(repository.media, f"{DRAFTS}/{mission}"):
        raise Conflict(
            f"mission {mission} has a draft that waits for signatures, and its last one would publish it again",
            remedy="discard the draft with `flightbag discard`, or have it signed, and remove the mission then",
            kind="draft-waits",
            mission=mission,
        )
    pins: tuple[str, ...] = ()
    objects: int | None = None
    size: int | None = None
    unknown: tuple[Finding, ...] = ()
    try:
        history = LogHistory.of(log.events(repository.media))
        manifests = [manifest_id, *history.retained.get(mission, ())]
        pins = tuple(
            name
            for name in repository.media.names_if_there(PINS)
            if pinned_id(repository.media, f"{PINS}/{name}") in manifests
        )
        objects, size = _freed(repository, history, mission, manifests)
    except FlightbagError as error:
        unknown = (Finding.of(error),)
    issue = manifest.issue
    return RemovalPlan(
        mission, manifest_id, issue.epoch, issue.sequence, manifest.mission.flight, objects, size, pins, unknown
    )


def _freed(repository: Repository, history: LogHistory, mission: str, manifests: list[ObjectId]) -> tuple[int, int]:
    """Return how many objects and bytes only this mission keeps: its current manifest and the last ones before."""
    own: dict[ObjectId, int] = {}
    for id_ in dict.fromkeys(manifests[: KEEP_LAST + 1]):
        with suppress(NotFound, Corrupt):  # what is lost is not freed
            own |= dict(need_of_stored(f"missions/{mission}", id_, repository.evidence))
    for need in kept_needs(repository, history, without=mission):
        for id_, _ in need:
            own.pop(id_, None)
    own.pop(manifests[0], None)  # it stays
    sizes = [size for size in own.values() if size != UNKNOWN]
    return len(sizes), sum(sizes)


def remove(repository: Repository, mission: str) -> RemovalPlan:
    """Take a mission out of a store, and return what went. It is durable on return. Raise as `plan_removal` does, and
    Locked where another process publishes the mission."""
    with mission_lock(repository, mission, f"the removal of mission {mission}"), repository.locked():
        plan = plan_removal(repository, mission)
        repository.media.directory("missions")  # checked before the log line about the ref
        facts = {"mission": mission, "manifest": str(plan.manifest)}
        repository.append_log(log.Event(int(time.time()), "removed", facts))
        repository.disk.remove(repository.media.absolute(f"missions/{mission}"))
        repository.disk.sync_directory(repository.media.absolute("missions"))
    return plan
