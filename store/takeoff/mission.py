"""The values of the takeoff check: the evidence it reads, what it is checked against, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Protocol, Self

from store.errors import FlightbagError
from store.findings import Finding
from store.format.entries import EntryTable
from store.format.ids import ObjectId
from store.format.manifest import Manifest, MissionFacts
from store.takeoff.code import short_code
from store.trust.aircraft_state import AircraftState
from store.trust.root import TrustRoot

# The result of looking at one object: None, or why it is not what it must be.
Outcome = FlightbagError | None


class Evidence(Protocol):
    """Where the bytes come from. Every method raises NotFound, Corrupt or Unavailable, and never guesses."""

    def ref(self, mission: str) -> bytes:
        """The bytes of a mission ref, at most REF_SIZE of them; a longer file is Corrupt."""
        ...

    def chain(self, after: int) -> Sequence[bytes]:
        """The root files of version `after` + 1 and up, in order."""
        ...

    def object(self, id_: ObjectId, limit: int) -> bytes:
        """The bytes of an object of at most `limit` bytes; they hash to its id."""
        ...

    def check_objects(self, objects: Iterable[tuple[ObjectId, int]]) -> Iterator[tuple[ObjectId, Outcome]]:
        """Reads every byte of each object of a given size; the outcome for each, in any order."""
        ...

    def bytes_of(self, id_: ObjectId, size: int) -> bytearray:
        """The bytes of one object, read and hashed in one pass into memory of the caller's own."""
        ...


@dataclass(frozen=True, slots=True)
class Binding:
    """What the mission is checked against. None is "not asked", and the verdict says so.

    `now` is unix seconds that have passed: by a clock, or where `fresh` is false, by what is known for sure without
    one; then it can show that a mission has expired, and never that it has not. `state` is the aircraft's memory.
    """

    now: int
    aircraft: str | None = None
    host: str | None = None
    flight: str | None = None
    state: AircraftState | None = None
    fresh: bool = True

    @classmethod
    def of_aircraft(cls, state: AircraftState, *, now: int | None, flight: str | None = None) -> Self:
        """What an aircraft checks against; `now` is the time by a trusted clock, None where there is none."""
        passed = state.floor if now is None else max(now, state.floor)
        return cls(passed, state.id, state.host, flight, state, now is not None)

    @property
    def not_judged(self) -> tuple[str, ...]:
        """What the verdict has to say that it did not look at."""
        asked = (
            ("aircraft", self.aircraft is not None),
            ("host class", self.host is not None),
            ("flight", self.flight is not None),
            ("rollback", self.state is not None),
            ("freshness, for want of a trusted clock", self.fresh),
        )
        return tuple(what for what, judged in asked if not judged)


BY_VERIFY = object()


@dataclass(frozen=True)
class VerifiedMission:
    """A mission that passed every step. Only `verify_mission` makes one; `store.takeoff.loading` takes nothing else."""

    manifest: Manifest
    manifest_id: ObjectId
    table: EntryTable
    trust_root: TrustRoot
    evidence: Evidence = field(repr=False)
    # Not kept, so that no copy with other fields can be made from a real one either.
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not BY_VERIFY:
            raise TypeError("a VerifiedMission is made by verify_mission alone")

    @property
    def code(self) -> str:
        """Ten characters of root and manifest, for two people to compare over the radio."""
        return short_code(self.trust_root.digest, self.manifest_id)

    @property
    def facts(self) -> MissionFacts:
        """Takeoff origin, flight, aircraft, area and sector."""
        return self.manifest.mission


@dataclass(frozen=True, slots=True)
class Verdict:
    """GO exactly when `mission` is there; else every reason why not."""

    mission_id: str
    findings: tuple[Finding, ...]
    mission: VerifiedMission | None
    objects: int = 0
    bytes: int = 0
    not_judged: tuple[str, ...] = ()

    @property
    def go(self) -> bool:
        return self.mission is not None

    @property
    def unknown(self) -> bool:
        """NO-GO only because something could not be looked at: nothing is known to be wrong."""
        return not self.go and all(finding.unreadable for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Opened:
    """A mission whose signatures and table hold (steps A to D): what is meant to be there, not that it is."""

    manifest: Manifest
    manifest_id: ObjectId
    manifest_size: int
    table: EntryTable
    trust_root: TrustRoot

    def closure(self) -> dict[ObjectId, int]:
        """Every object the mission needs, with its size: manifest, table, entries (each once).

        Release statements belong to it too, but their sizes are known only once they are read: see `check_closure`.
        """
        sizes = {self.manifest_id: self.manifest_size, self.manifest.table: self.manifest.table_size}
        sizes.update((entry.id, entry.size) for entry in self.table.entries)
        return sizes


# Step G, for who has the tiles at hand: what is passed in knows how they are read (see builders.operator_check).
OperatorCheck = Callable[[Evidence, Opened], Iterable[Finding]]
