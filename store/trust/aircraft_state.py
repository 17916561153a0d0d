"""What an aircraft remembers between flights, and what it refuses because of that. Pure: bytes come in and go out.

A mission is judged by its id, as an aircraft may carry Wednesday's before it flies Tuesday's: neither an older
(epoch, sequence) than the last one accepted, nor the same one with another payload. A flight that was consumed does not
fly again. Time that has passed for sure is kept as a floor, so that what has expired stays expired without a clock.

Law: `AircraftState.parse(s.render()) == s`, and only canonical bytes parse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

from store.errors import Corrupt, Invalid
from store.format.cbor import INT_MAX, Fields, ascending, decode, encode
from store.format.host import HOST_CLASS, is_host_class
from store.format.ids import DIGEST_SIZE, ObjectId
from store.format.manifest import AIRCRAFT_ID, FLIGHT_ID, MISSION_ID, TIME_MAX, Manifest
from store.trust.root import ROOT_FILE_LIMIT, SignedRoot

FORMAT = 1
STATE_LIMIT = 4 * 2**20
MAX_MISSIONS = 10_000
MAX_CONSUMED = 50_000


@dataclass(frozen=True, slots=True, order=True)
class Acceptance:
    """The last manifest of a mission that passed every step; `digest` is the BLAKE3 of its payload."""

    epoch: int
    sequence: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class AircraftState:
    """`root` is the newest trust root that was ever seen, `floor` unix seconds that have passed for sure."""

    id: str
    host: str
    root: SignedRoot
    missions: Mapping[str, Acceptance]
    consumed: tuple[str, ...]
    floor: int

    @classmethod
    def initial(cls, id_: str, host: str, root: SignedRoot) -> Self:
        """An aircraft that has seen nothing yet. Raises Invalid for what is no id or host class."""
        if not AIRCRAFT_ID.fullmatch(id_):
            raise Invalid(f"{id_[:80]!r} is no aircraft id", remedy="1 to 64 of a-z 0-9 . _ -, first a letter or digit")
        if not HOST_CLASS.fullmatch(host) or not is_host_class(host) or host == "auto":
            raise Invalid(f"{host[:80]!r} is no host class", remedy="give one like cpu-x86_64-avx2")
        return cls(id_, host, root, {}, (), root.root.issued_at)

    def render(self) -> bytes:
        """The canonical bytes. Raises Corrupt where there is more than the format has room for."""
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
        """The state of canonical bytes. Raises Corrupt or Untrusted for any other."""
        fields = Fields(decode(data, limit=STATE_LIMIT, what="the aircraft's state"), "state")
        fields.integer("format", FORMAT, FORMAT)
        root = fields.blob("root", ROOT_FILE_LIMIT)
        rows = [_row(item) for item in fields.array("missions", 0, MAX_MISSIONS)]
        consumed = fields.array("consumed", 0, MAX_CONSUMED)
        if not all(type(item) is str and FLIGHT_ID.fullmatch(item) for item in consumed):
            raise Corrupt("state.consumed holds no flight id", kind="bad-field", field="state.consumed")
        state = cls(
            id=fields.text("id", AIRCRAFT_ID),
            host=fields.text("host", HOST_CLASS),
            root=SignedRoot.parse(root),
            missions=dict(rows),
            consumed=tuple(consumed),
            floor=fields.integer("floor", 0, TIME_MAX),
        )
        fields.end()
        ascending([id_ for id_, _ in rows], "state.missions")
        ascending(consumed, "state.consumed")
        return state

    def objections(self, manifest: Manifest) -> Iterator[tuple[str, str, object, object]]:
        """Why this aircraft refuses a genuine manifest: (kind, message, expected, actual)."""
        facts, issue = manifest.mission, manifest.issue
        seen = self.missions.get(facts.id)
        if seen is not None and issue.order < (seen.epoch, seen.sequence):
            text = f"the mission is older than the one that was accepted before, of sequence {seen.sequence}"
            yield "rolled-back", text, seen.sequence, issue.sequence
        elif seen is not None and issue.order == (seen.epoch, seen.sequence):
            digest = payload_digest(manifest)
            if digest != seen.digest:
                text = f"the mission of sequence {seen.sequence} that was accepted before said something else"
                yield "same-sequence", text, seen.digest.hex(), digest.hex()
        if facts.flight in self.consumed:
            yield "consumed-flight", f"the flight {facts.flight} was flown, and does not fly again", "", facts.flight

    def with_root(self, root: SignedRoot) -> Self:
        """The state with a newer root, which the chain led to from the one before.

        What is of an earlier epoch cannot fly any more, and need not be remembered.
        """
        missions = {id_: seen for id_, seen in self.missions.items() if seen.epoch >= root.root.epoch}
        return replace(self, root=root, missions=missions, floor=max(self.floor, root.root.issued_at))

    def accepting(self, manifest: Manifest, *, now: int) -> Self:
        """The state after a mission passed every step; `now` is a time that has passed for sure, 0 for none."""
        issue = manifest.issue
        seen = Acceptance(issue.epoch, issue.sequence, payload_digest(manifest))
        return replace(
            self,
            missions={**self.missions, manifest.mission.id: seen},
            floor=max(self.floor, issue.issued_at, now),
        )

    def consuming(self, flight: str) -> Self:
        """The state after a flight was flown. Raises Invalid for what is no flight id, or was consumed before."""
        if not FLIGHT_ID.fullmatch(flight):
            raise Invalid(f"{flight[:80]!r} is no flight id")
        if flight in self.consumed:
            raise Invalid(f"the flight {flight} was consumed before")
        return replace(self, consumed=tuple(sorted((*self.consumed, flight))))


def payload_digest(manifest: Manifest) -> bytes:
    """What tells two manifests apart, whoever has signed them: the BLAKE3 of the payload."""
    return bytes(ObjectId.of(manifest.render()))


def _row(item: object) -> tuple[str, Acceptance]:
    if type(item) is not list or [type(part) for part in item] != [str, int, int, bytes]:
        raise Corrupt("state.missions has no [mission, epoch, sequence, digest]", kind="bad-field", field="state")
    id_, epoch, sequence, digest = item
    right = MISSION_ID.fullmatch(id_) and 1 <= epoch <= INT_MAX and 1 <= sequence <= INT_MAX
    if not right or len(digest) != DIGEST_SIZE:
        raise Corrupt(f"state.missions of {id_[:80]!r} is not valid", kind="bad-field", field="state.missions")
    return id_, Acceptance(epoch, sequence, digest)
