"""The state of an aircraft (FORMAT.md 10.1, 10.2): its memory between flights, and what it refuses.

Missions are compared by mission id, because an aircraft may carry Wednesday's mission before it flies Tuesday's. It
refuses an (epoch, sequence) that is older than the last one that it accepted for the mission, and the same one with
another payload. A consumed flight does not fly again. The floor is a time that has passed for sure: a mission that has
expired stays expired, also without a clock.

Pure: bytes come in and go out. `takeoff.aircraft` keeps the two slots on disk (decision 0008).

Law: `AircraftState.parse(s.render()) == s`, and only canonical bytes parse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

from store.errors import Corrupt, Invalid
from store.format.cbor import INT_MAX, Fields, ascending, decode, encode
from store.format.host import NEED, objection, require_host_class
from store.format.ids import DIGEST_SIZE, ObjectId
from store.format.manifest import AIRCRAFT_ID, FLIGHT_ID, MISSION_ID, TIME_MAX, Manifest
from store.trust.root import ROOT_FILE_LIMIT, SignedRoot

FORMAT = 1
STATE_LIMIT = 4 * 2**20
MAX_MISSIONS = 10_000
MAX_CONSUMED = 50_000


@dataclass(frozen=True, slots=True, order=True)
class Acceptance:
    """The last manifest of a mission that passed every step: its epoch and sequence, and the BLAKE3 of its payload."""

    epoch: int
    sequence: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class AircraftState:
    """The whole memory of one aircraft.

    `root` is the newest trust root that the aircraft has seen, `missions` maps mission ids to the last acceptance,
    `consumed` are the ids of the flights that were flown, `floor` is a time (unix seconds) that has passed for sure.
    """

    id: str
    host: str
    root: SignedRoot
    missions: Mapping[str, Acceptance]
    consumed: tuple[str, ...]
    floor: int

    @classmethod
    def initial(cls, id_: str, host: str, root: SignedRoot) -> Self:
        """Return the state of a newly enrolled aircraft. Raises Invalid for a bad aircraft id or host class."""
        if not AIRCRAFT_ID.fullmatch(id_):
            raise Invalid(
                f"{id_[:80]!r} is not an aircraft id", remedy="give 1 to 64 of a-z 0-9 . _ -, first a letter or digit"
            )
        require_host_class(host)
        return cls(id_, host, root, {}, (), root.root.issued_at)

    def render(self) -> bytes:
        """Return the canonical bytes. Raises Corrupt where the state exceeds a bound of the format."""
        data = encode(
            {
                "format": FORMAT,
                "id": self.id,
                "host": self.host,
                "root": self.root.envelope.render(),
                "missions": [[id_, s.epoch, s.sequence, s.digest] for id_, s in sorted(self.missions.items())],
                "consumed": list(self.consumed),
                "floor": self.floor,
            }
        )
        self.parse(data)
        return data

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the state of canonical bytes.

        Raises Corrupt for any other bytes, Untrusted for a root without its threshold.
        """
        fields = Fields(decode(data, limit=STATE_LIMIT, what="the aircraft's state"), "state")
        fields.integer("format", FORMAT, FORMAT)
        root = fields.blob("root", ROOT_FILE_LIMIT)
        rows = [_row(item) for item in fields.array("missions", 0, MAX_MISSIONS)]
        consumed = fields.array("consumed", 0, MAX_CONSUMED)
        if not all(type(item) is str and FLIGHT_ID.fullmatch(item) for item in consumed):
            raise Corrupt(
                "state.consumed holds something else than flight ids", kind="bad-field", field="state.consumed"
            )
        state = cls(
            id=fields.text("id", AIRCRAFT_ID),
            host=fields.text("host", NEED),
            root=SignedRoot.parse(root),
            missions=dict(rows),
            consumed=tuple(consumed),
            floor=fields.integer("floor", 0, TIME_MAX),
        )
        fields.end()
        if wrong := objection(state.host):
            raise Corrupt(f"state.host: {wrong}", kind="bad-field", field="state.host")
        ascending([id_ for id_, _ in rows], "state.missions")
        ascending(consumed, "state.consumed")
        return state

    def objections(self, manifest: Manifest) -> Iterator[tuple[str, str, object, object]]:
        """Yield why this aircraft refuses a genuine manifest: (kind of finding, message, expected, actual) each."""
        facts, issue = manifest.mission, manifest.issue
        last = self.missions.get(facts.id)
        if last is not None and issue.order < (last.epoch, last.sequence):
            text = f"the aircraft has accepted a newer issue of the mission, of sequence {last.sequence}"
            yield "rolled-back", text, last.sequence, issue.sequence
        elif last is not None and issue.order == (last.epoch, last.sequence):
            digest = payload_digest(manifest)
            if digest != last.digest:
                text = f"the aircraft has accepted another mission of the same sequence {last.sequence}"
                yield "same-sequence", text, last.digest.hex(), digest.hex()
        if facts.flight in self.consumed:
            yield "consumed-flight", f"the flight {facts.flight} was flown already", "", facts.flight

    def with_root(self, root: SignedRoot) -> Self:
        """Return the state with a newer trust root. The caller has followed the chain from the root before to it.

        Missions of earlier epochs are forgotten: they cannot fly any more.
        """
        missions = {id_: last for id_, last in self.missions.items() if last.epoch >= root.root.epoch}
        return replace(self, root=root, missions=missions, floor=max(self.floor, root.root.issued_at))

    def accepting(self, manifest: Manifest, *, now: int) -> Self:
        """Return the state after a mission passed every step.

        `now` is a unix time that has passed for sure, 0 for none.
        """
        issue = manifest.issue
        acceptance = Acceptance(issue.epoch, issue.sequence, payload_digest(manifest))
        return replace(
            self,
            missions={**self.missions, manifest.mission.id: acceptance},
            floor=max(self.floor, issue.issued_at, now),
        )

    def consuming(self, flight: str) -> Self:
        """Return the state after a flight was flown. Raises Invalid for a bad flight id and for a consumed flight."""
        if not FLIGHT_ID.fullmatch(flight):
            raise Invalid(f"{flight[:80]!r} is not a flight id")
        if flight in self.consumed:
            raise Invalid(f"the flight {flight} is consumed already")
        return replace(self, consumed=tuple(sorted((*self.consumed, flight))))


def payload_digest(manifest: Manifest) -> bytes:
    """Return the BLAKE3 of the payload, 32 bytes: equal for equal manifests, whoever has signed them."""
    return bytes(ObjectId.of(manifest.render()))


def _row(item: object) -> tuple[str, Acceptance]:
    if type(item) is not list or [type(part) for part in item] != [str, int, int, bytes]:
        raise Corrupt(
            "an item of state.missions is not [mission, epoch, sequence, digest]", kind="bad-field", field="state"
        )
    id_, epoch, sequence, digest = item
    valid = MISSION_ID.fullmatch(id_) and 1 <= epoch <= INT_MAX and 1 <= sequence <= INT_MAX
    if not valid or len(digest) != DIGEST_SIZE:
        raise Corrupt(f"the item {id_[:80]!r} of state.missions is not valid", kind="bad-field", field="state.missions")
    return id_, Acceptance(epoch, sequence, digest)
