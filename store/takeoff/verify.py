"""The takeoff check: decides whether a mission may fly. Pure: reads no file and no clock; both are passed in.

Steps, in this order; FORMAT.md 7 has the same numbers. All failures of a step are reported together.

 A  the ref is exactly one id and a newline; the manifest object has that id; it is an envelope of bounded size
 B  the trust chain leads from the pinned root, step by step
 C  the manifest's signatures are good, from the mission role, and enough
 D  the payload is canonical; the entry table has the signed id and size, is canonical, and its entries have the
    signed count, Merkle root and number of missing tiles; the identity is theirs
 E  the manifest is for this mission, aircraft and host class; the takeoff is inside the area; it has not expired,
    is of the root's epoch, and not of an older root
 F  every object of the closure is a regular file of the exact size and hash
 G  in operator mode, on the ground: the tiles of the area are those that the mission was built from

A and B do not need each other and are both reported; C needs both, D needs C; E and F need D and are both reported.
Nothing of the manifest is parsed before its signatures hold, nothing of the table before its id does.

What could not be looked at is a finding like what is wrong (fail closed), but one that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import InitVar, dataclass, field, replace
from typing import Protocol, Self

from store.errors import Corrupt, FlightbagError, NotFound, Untrusted
from store.findings import Finding
from store.format import cose, manifest, release
from store.format.cose import Envelope
from store.format.entries import Entry, EntryTable
from store.format.host import meets
from store.format.ids import ObjectId
from store.format.manifest import Manifest, MissionFacts, identity_of
from store.format.missing import ENTRY as MISSING_ENTRY
from store.format.release import KINDS as RELEASED
from store.format.release import Approval, Release
from store.takeoff.code import short_code
from store.trust.aircraft_state import AircraftState
from store.trust.root import SignedRoot, TrustRoot, advance, check_signatures

REF_SIZE = 65
ENVELOPE_LIMIT = manifest.PAYLOAD_LIMIT + cose.OVERHEAD_LIMIT
COPY_AGAIN = "copy the store again, or sync it with --checksum from one that is whole"

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

    def check(self, objects: Iterable[tuple[ObjectId, int]]) -> Iterator[tuple[ObjectId, Outcome]]:
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


_BY_VERIFY = object()


@dataclass(frozen=True)
class VerifiedMission:
    """A mission that passed every step. Only `verify_mission` makes one; `store.takeoff.loading` takes nothing else."""

    manifest: Manifest
    manifest_id: ObjectId
    table: EntryTable
    root: TrustRoot
    evidence: Evidence = field(repr=False)
    # Not kept, so that no copy with other fields can be made from a real one either.
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _BY_VERIFY:
            raise TypeError("a VerifiedMission is made by verify_mission alone")

    @property
    def code(self) -> str:
        """Ten characters of root and manifest, for two people to compare over the radio."""
        return short_code(self.root.digest, self.manifest_id)

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
    root: TrustRoot

    def closure(self) -> dict[ObjectId, int]:
        """Every object the mission needs, with its size: manifest, table, entries (each once).

        Release statements belong to it too, but their sizes are known only once they are read: see `check_closure`.
        """
        sizes = {self.manifest_id: self.manifest_size, self.manifest.table: self.manifest.table_size}
        sizes.update((entry.id, entry.size) for entry in self.table.entries)
        return sizes


# Step G, for who has the tiles at hand: what is passed in knows how they are read (see builders.operator_check).
OperatorCheck = Callable[[Evidence, Opened], Iterable[Finding]]


def ref_id(data: bytes) -> ObjectId:
    """The manifest id of a ref's bytes. Raises Corrupt unless they are 64 hex digits and a newline."""
    try:
        text = data.decode("ascii")
        if len(text) == REF_SIZE and text.endswith("\n"):
            return ObjectId.parse(text[:-1])
    except (UnicodeDecodeError, FlightbagError):
        pass
    raise Corrupt(
        f"the mission ref is not {REF_SIZE} bytes of one object id and a newline",
        remedy=COPY_AGAIN,
        kind="bad-ref",
        expected=f"{REF_SIZE} bytes",
        actual=f"{len(data)} bytes",
    )


def open_mission(evidence: Evidence, mission: str, pinned: SignedRoot) -> Opened | tuple[Finding, ...]:
    """Steps A to D: the mission's manifest and table, or why they cannot be believed."""
    try:
        id_ = ref_id(evidence.ref(mission))
    except FlightbagError as error:
        try:
            newest_root(evidence, pinned)
        except FlightbagError as chain:
            return Finding.of(error, step="A"), Finding.of(chain, step="B")
        return (Finding.of(error, step="A"),)
    return open_manifest(evidence, id_, pinned)


def open_manifest(evidence: Evidence, id_: ObjectId, pinned: SignedRoot) -> Opened | tuple[Finding, ...]:
    """Steps A to D for the manifest of a known id."""
    findings: list[Finding] = []
    envelope = root = None
    data = b""
    try:  # A
        data = evidence.object(id_, ENVELOPE_LIMIT)
        envelope = Envelope.parse(data, manifest.CONTENT_TYPE, manifest.PAYLOAD_LIMIT)
    except FlightbagError as error:
        findings.append(Finding.of(error, step="A", entry="manifest", remedy=COPY_AGAIN))
    try:  # B
        root = newest_root(evidence, pinned).root
    except FlightbagError as error:
        findings.append(Finding.of(error, step="B"))
    if envelope is None or root is None:
        return tuple(findings)
    try:  # C
        check_signatures(envelope, root, manifest.AAD_LABEL, "mission", "the manifest")
    except FlightbagError as error:
        remedy = "build and sign the mission with an enrolled key"
        return (Finding.of(error, step="C", entry="manifest", remedy=remedy),)
    try:  # D
        parsed = Manifest.parse(envelope.payload)
    except FlightbagError as error:
        return (Finding.of(error, step="D", entry="manifest", remedy="build and sign the mission again"),)
    try:
        table = read_table(evidence, parsed)
    except FlightbagError as error:
        return (Finding.of(error, step="D", entry="" if "entry" in error.fields else "table", remedy=COPY_AGAIN),)
    return Opened(parsed, id_, len(data), table, root)


def newest_root(evidence: Evidence, pinned: SignedRoot) -> SignedRoot:
    """Step B: the newest root that the evidence's chain leads to from the pinned one."""
    return advance(pinned, evidence.chain(pinned.root.version))


def read_table(evidence: Evidence, parsed: Manifest) -> EntryTable:
    """The table that a manifest commits to; raises Corrupt unless what it says of the table is so."""
    table = EntryTable.parse(bytes(evidence.bytes_of(parsed.table, parsed.table_size)))
    lists = [entry for entry in table.entries if entry.kind == "coverage"]
    if any(entry.name != MISSING_ENTRY for entry in lists):
        raise Corrupt(
            f"{lists[0].name} is no name for the list of missing tiles", kind="bad-coverage", object=parsed.table
        )
    listed = sum(entry.meta["missing"] for entry in lists)
    checks = (
        ("count", "bad-count", parsed.count, len(table.entries)),
        ("number of missing tiles", "bad-coverage", parsed.coverage.missing, listed),
        ("Merkle root", "bad-merkle-root", parsed.root.hex(), table.root.hex()),
        ("identity", "bad-identity", parsed.identity.hex(), identity_of(parsed, table).hex()),
    )
    for what, kind, expected, actual in checks:
        if expected != actual:
            raise Corrupt(
                f"the manifest's {what} is {expected}, its table's is {actual}",
                kind=kind,
                object=parsed.table,
                expected=expected,
                actual=actual,
            )
    return table


def check_binding(evidence: Evidence, opened: Opened, mission: str, binding: Binding) -> tuple[Finding, ...]:
    """Step E: every way in which a genuine manifest is not for this flight."""
    m, root = opened.manifest, opened.root
    facts, issue = m.mission, m.issue
    failures: list[tuple[str, str, object, object]] = []

    def expect(holds: bool, kind: str, message: str, expected: object = "", actual: object = "") -> None:
        if not holds:
            failures.append((kind, message, expected, actual))

    expect(facts.id == mission, "wrong-mission", "the ref leads to the manifest of another mission", mission, facts.id)
    if binding.aircraft is not None:
        expect(
            binding.aircraft in facts.aircraft,
            "wrong-aircraft",
            f"the mission is not for the aircraft {binding.aircraft}",
            binding.aircraft,
            ", ".join(facts.aircraft),
        )
    if binding.host is not None:
        expect(
            meets(binding.host, m.host),
            "wrong-host",
            f"the mission's engines need the host class {m.host}, this is {binding.host}",
            binding.host,
            m.host,
        )
    for entry in opened.table.entries:
        need = entry.meta.get("host")
        if need is not None and not meets(m.host, need):
            failures.append(("wrong-host", f"{entry.name} needs another host class than the mission's", m.host, need))
    expect(
        facts.area.contains(facts.takeoff.lat, facts.takeoff.lon),
        "takeoff-outside-area",
        "the takeoff origin is outside the mission's area",
        str(facts.area.bbox),
        f"{facts.takeoff.lat}, {facts.takeoff.lon}",
    )
    expect(
        issue.expires_at is None or binding.now <= issue.expires_at,
        "expired",
        "the mission has expired",
        issue.expires_at,
        binding.now,
    )
    expect(issue.epoch == root.epoch, "wrong-epoch", "the mission is of another epoch", root.epoch, issue.epoch)
    expect(
        issue.min_root_version <= root.version,
        "old-root",
        "the mission needs a newer trust root than is at hand",
        issue.min_root_version,
        root.version,
    )
    expect(
        root.issued_after is None or issue.issued_at >= root.issued_after,
        "issued-too-early",
        "the trust root no longer counts manifests of that time",
        root.issued_after,
        issue.issued_at,
    )
    if binding.flight is not None:
        expect(
            binding.flight == facts.flight,
            "wrong-flight",
            f"the mission is for the flight {facts.flight}, not for {binding.flight}",
            binding.flight,
            facts.flight,
        )
    if binding.state is not None:
        failures += binding.state.objections(m)
    return (
        *(
            Finding(kind, message, step="E", entry="manifest", expected=str(expected), actual=str(actual))
            for kind, message, expected, actual in failures
        ),
        *check_releases(evidence, opened),
    )


def check_releases(evidence: Evidence, opened: Opened) -> Iterator[Finding]:
    """Where the root requires releases: those that do not hold, and the entries that none approves."""
    if opened.root.releases != "required":
        return
    approved: set[Approval] = set()
    for id_ in opened.manifest.releases:
        try:
            approved.update(read_release(evidence, id_, opened.root).approvals)
        except NotFound:
            continue  # step F says that it is missing, and below, which entries it leaves without approval
        except FlightbagError as error:
            remedy = "have it signed anew by the release keys of the newest root"
            yield replace(Finding.of(error, step="E", entry="release", remedy=remedy), object=str(id_))
    for entry in opened.table.entries:
        if entry.kind in RELEASED and Approval.of(entry) not in approved:
            yield Finding(
                "unreleased",
                f"{entry.name} is in no release that holds",
                step="E",
                object=str(entry.id),
                entry=entry.name,
                expected="a release",
                remedy="flightbag release new, and sign it; then build the mission again",
            )


def read_release(evidence: Evidence, id_: ObjectId, root: TrustRoot) -> Release:
    """A release that the release role of a root has signed. Raises NotFound, Corrupt, Untrusted or Unavailable."""
    return parse_release(evidence.object(id_, ENVELOPE_LIMIT), root)


def parse_release(data: bytes, root: TrustRoot) -> Release:
    """A release of these bytes that the release role of a root has signed. Raises Corrupt or Untrusted."""
    envelope = Envelope.parse(data, release.CONTENT_TYPE, release.PAYLOAD_LIMIT)
    check_signatures(envelope, root, release.AAD_LABEL, "release", "the release")
    return Release.parse(envelope.payload)


def verify_mission(
    evidence: Evidence, mission: str, pinned: SignedRoot, binding: Binding, operator: OperatorCheck | None = None
) -> Verdict:
    """Steps A to F, and where `operator` is given, G."""
    opened = open_mission(evidence, mission, pinned)
    if isinstance(opened, tuple):
        return Verdict(mission, opened, None, not_judged=binding.not_judged)
    findings = list(check_binding(evidence, opened, mission, binding))
    closure = opened.closure()
    findings += check_closure(evidence, opened)
    if operator is not None:
        findings += operator(evidence, opened)
    found = tuple(findings)
    verified = None
    if not found:
        verified = VerifiedMission(opened.manifest, opened.manifest_id, opened.table, opened.root, evidence, _BY_VERIFY)
    return Verdict(mission, found, verified, len(closure), sum(closure.values()), binding.not_judged)


def check_closure(evidence: Evidence, opened: Opened) -> list[Finding]:
    """Step F: a finding for every object of the closure that is not there, whole and readable."""
    names: dict[ObjectId, list[str]] = {opened.manifest_id: ["manifest"], opened.manifest.table: ["table"]}
    sizes = opened.closure()
    for entry in opened.table.entries:
        names.setdefault(entry.id, []).append(entry.name)
    findings = list(_size_lies(opened.table.entries, sizes))
    for approval in opened.manifest.releases:
        names.setdefault(approval, []).append("release")
        try:
            evidence.object(approval, ENVELOPE_LIMIT)
        except FlightbagError as error:
            findings.append(Finding.of(error, step="F", entry="release", remedy=COPY_AGAIN))
    for id_, outcome in evidence.check(sizes.items()):
        if outcome is None:
            continue
        finding = Finding.of(outcome, step="F", entry=", ".join(names[id_]), remedy=COPY_AGAIN)
        if finding.kind == "bit-flip":
            finding = _name_swap(finding, names)
        findings.append(finding)
    return sorted(findings, key=lambda finding: (finding.entry, finding.object))


def _size_lies(entries: Sequence[Entry], sizes: dict[ObjectId, int]) -> Iterator[Finding]:
    """Entries that give one object two sizes: at most one of them is right."""
    for entry in entries:
        if sizes[entry.id] != entry.size:
            yield Finding(
                "bad-entry",
                f"{entry.name} gives object {entry.id} {entry.size} bytes, another entry {sizes[entry.id]}",
                step="F",
                object=str(entry.id),
                entry=entry.name,
                expected=str(sizes[entry.id]),
                actual=str(entry.size),
            )


def _name_swap(finding: Finding, names: dict[ObjectId, list[str]]) -> Finding:
    """Says so where the wrong bytes are those of another object of the same mission."""
    other = names.get(ObjectId.parse(finding.actual))
    if other is None:
        return finding
    return replace(finding, kind="swapped", message=f"{finding.message}, which is that of {', '.join(other)}")


def pinned_root(data: bytes) -> SignedRoot:
    """The root that verification starts from. Raises Untrusted, naming it, for bytes that are no signed root."""
    try:
        return SignedRoot.parse(data)
    except (Corrupt, Untrusted) as error:
        raise Untrusted(
            f"the pinned trust root cannot be used: {error.message}",
            remedy="give the root file that the trust domain's owner handed out",
            kind="bad-pinned-root",
        ) from error
