"""The values of the takeoff check: the evidence, the binding that a mission is checked against, and the verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from store.disk.medium import Reading
from store.errors import FlightbagError, Invalid
from store.findings import Finding
from store.format.code import short_code
from store.format.cose import Envelope
from store.format.entries import EntryTable
from store.format.ids import ObjectId
from store.format.manifest import CONTENT_TYPE, Manifest, MissionFacts
from store.format.withdrawal import Withdrawal
from store.trust.review import signing_code
from store.trust.root import TrustRoot
from store.values import dataclass, field

if TYPE_CHECKING:
    from dataclasses import InitVar

    from store.trust.aircraft_state import AircraftState

# The outcome of reading one object: None for a whole one, else the error.
Outcome = FlightbagError | None


class Evidence(Protocol):
    """The source of the bytes. Every method raises NotFound, Corrupt or Unavailable, and never guesses."""

    @property
    def reading(self) -> Reading:
        """Whether the bytes come from the medium, past the page cache."""
        ...

    def ref(self, mission: str) -> bytes:
        """Return the bytes of a mission ref, at most REF_SIZE of them; a longer file raises Corrupt."""
        ...

    def chain(self, after: int) -> Sequence[bytes]:
        """Return the root files of version `after` + 1 and up, in order."""
        ...

    def first_root(self) -> bytes:
        """Return the file of the store's trust root 1. Nothing vouches for it: it serves to explain a refusal."""
        ...

    def withdrawal(self, name: str) -> bytes:
        """Return the bytes of the file with the withdrawal of this name (see `store.format.withdrawal`), at most
        FILE_LIMIT of them. Raise NotFound where nothing of that name is withdrawn."""
        ...

    def object(self, id_: ObjectId, limit: int) -> bytes:
        """Return the bytes of an object of at most `limit` bytes; they hash to its id."""
        ...

    def check_objects(self, objects: Iterable[tuple[ObjectId, int]]) -> Iterator[tuple[ObjectId, Outcome]]:
        """Read every byte of each object, given with its size, and yield its outcome, in any order."""
        ...

    def bytes_of(self, id_: ObjectId, size: int) -> bytearray:
        """Return the bytes of one object, read and hashed in one pass into memory of the caller's own."""
        ...


@dataclass(frozen=True, slots=True)
class Binding:
    """The flight that a mission is checked against. A field that is None is not judged, and the verdict lists it.

    `now` is what a trusted clock says, in whole unix seconds (see `takeoff.clock`). `state` is the aircraft's state.
    Without `proof` it is not judged whether the figures that only an aircraft can prove are proven: so a mission is
    published, carried and probed, and never flown. Raises Invalid for another time: NaN is neither before nor after an
    expiry.
    """

    now: int | None = None
    aircraft: str | None = None
    host: str | None = None
    flight: str | None = None
    state: AircraftState | None = None
    proof: bool = True

    def __post_init__(self) -> None:
        if type(self.now) not in (int, type(None)):
            raise Invalid(
                f"the time of the check is {self.now!r}, and not a whole number of seconds",
                remedy="give now as unix seconds, int(time.time()), or as None without a trusted clock",
            )

    @property
    def not_judged(self) -> tuple[str, ...]:
        """Return the names of the facts that this binding does not judge; `takeoff.clock` adds what it says of time."""
        facts = (
            ("aircraft", self.aircraft is not None),
            ("host class", self.host is not None),
            ("flight", self.flight is not None),
            ("rollback", self.state is not None),
            ("proof aboard", self.proof),
        )
        return tuple(what for what, judged in facts if not judged)


BY_VERIFY = object()


@dataclass(frozen=True)
class VerifiedMission:
    """A mission that passed every step. Only `verify_mission` makes one, and `load` takes nothing else.

    `signers` are the kids of the keys that have signed it; `TrustRoot.key_text` names them. `host` is the class that it
    was judged for: the engines that fly are the ones that this class loads. None where no class was asked.
    """

    manifest: Manifest
    manifest_id: ObjectId
    table: EntryTable
    trust_root: TrustRoot
    signers: tuple[bytes, ...]
    evidence: Evidence = field(repr=False)
    host: str | None
    # An InitVar is not kept: `dataclasses.replace` cannot make a copy with other fields from a real one.
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not BY_VERIFY:
            raise TypeError("only verify_mission makes a VerifiedMission")

    @property
    def code(self) -> str:
        """The short code of trust root and manifest, for two people to compare over the radio."""
        return short_code(self.trust_root.digest, self.manifest_id)

    @property
    def facts(self) -> MissionFacts:
        """Takeoff origin, flight, aircraft, area and sector."""
        return self.manifest.mission


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of the takeoff check: GO with a verified mission, or NO-GO with every reason.

    `objects` and `bytes` measure the closure. `not_judged` names the facts that the check was not asked about, or could
    not judge. `judged_at` is the time by a trusted clock at which expiry and the age of the imagery were judged, None
    where they were not. `from_medium` is whether every object was read from the medium, past the page cache.
    `withdrawals` are those of the mission and of its releases that hold: an aircraft remembers them.
    """

    mission_id: str
    findings: tuple[Finding, ...]
    mission: VerifiedMission | None
    objects: int = 0
    bytes: int = 0
    not_judged: tuple[str, ...] = ()
    judged_at: int | None = None
    from_medium: bool = False
    withdrawals: tuple[Withdrawal, ...] = ()

    @property
    def go(self) -> bool:
        """Whether the mission may fly."""
        return self.mission is not None

    @property
    def unknown(self) -> bool:
        """Whether the verdict is NO-GO only because evidence could not be read; no evidence is known to be wrong."""
        return not self.go and all(finding.unreadable for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Opened:
    """A mission whose signatures and table hold (steps A to D). Its objects may still be missing or damaged.

    `signers` are the kids of the keys that have signed it, () where nobody has yet.
    """

    manifest: Manifest
    manifest_id: ObjectId
    manifest_size: int
    table: EntryTable
    trust_root: TrustRoot
    signers: tuple[bytes, ...] = ()

    @property
    def signing_code(self) -> str:
        """The code of the payload, by which people name what they review and sign (FORMAT.md 10.3)."""
        return signing_code(Envelope(CONTENT_TYPE, self.manifest.render()))

    def closure(self) -> dict[ObjectId, int]:
        """Return every object that the mission needs with its size: manifest, table and entries, each once.

        The closure has the mission's releases too, but no signed data states their sizes: see `check_closure`.
        """
        sizes = {self.manifest_id: self.manifest_size, self.manifest.table: self.manifest.table_size}
        sizes.update((entry.id, entry.size) for entry in self.table.entries)
        return sizes


# Step G, for a caller that has the tile sources: the function knows how to read them (see builders.operator_check).
OperatorCheck = Callable[[Evidence, Opened], Iterable[Finding]]
