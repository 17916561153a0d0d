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

from collections.abc import Iterator, Sequence
from dataclasses import replace

from store.errors import Corrupt, FlightbagError, NotFound, Untrusted
from store.findings import COPY_AGAIN, Finding
from store.format import manifest, release
from store.format.cose import Envelope
from store.format.entries import Entry, EntryTable
from store.format.host import meets
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT, Manifest, identity_of
from store.format.missing import ENTRY as MISSING_ENTRY
from store.format.ref import ref_id
from store.format.release import KINDS as RELEASED
from store.format.release import Approval, Release
from store.takeoff.mission import BY_VERIFY, Binding, Evidence, Opened, OperatorCheck, Verdict, VerifiedMission
from store.trust.root import SignedRoot, TrustRoot, advance, check_signatures


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
        ("Merkle root", "bad-merkle-root", parsed.merkle_root.hex(), table.merkle_root.hex()),
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
    m, root = opened.manifest, opened.trust_root
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
    if opened.trust_root.releases != "required":
        return
    approved: set[Approval] = set()
    for id_ in opened.manifest.releases:
        try:
            approved.update(read_release(evidence, id_, opened.trust_root).approvals)
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
        verified = VerifiedMission(
            opened.manifest, opened.manifest_id, opened.table, opened.trust_root, evidence, BY_VERIFY
        )
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
    for id_, outcome in evidence.check_objects(sizes.items()):
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
