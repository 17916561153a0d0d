"""The takeoff check: decides whether a mission may fly. Pure: it reads no file and no clock; the caller passes both.

The steps have the letters of FORMAT.md 7, and run in this order. All failures of a step are reported together.

 A  the ref is exactly one id and a newline; the manifest object has that id; it is an envelope of bounded size
 B  the trust chain leads from the pinned root, step by step
 C  the manifest's signatures are good, from the mission role, and enough
 D  the payload is canonical; the entry table has the signed id and size, is canonical, and its entries have the
    signed count, Merkle root and number of missing tiles; the identity is theirs
 E  the manifest is for this mission, aircraft and host class; the takeoff is inside the area; the time is right (see
    `clock`) and its lifetime is what the root allows; it is of the root's epoch, and not of an older root; neither it
    nor a release of it was withdrawn (see `withdrawn`); what nobody measured of its engines this aircraft has proven
    (see `fidelity`)
 F  every object of the closure is a regular file of the exact size and hash
 G  in operator mode, on the ground: the tiles of the area are those that the mission was built from

Steps A and B are independent and both reported; C needs both; D needs C; E and F need D and are both reported. Nothing
of the manifest is parsed before its signatures hold, nothing of the table before its hash does.

The check fails closed: evidence that cannot be read is a finding like evidence that is wrong, and is marked unreadable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from store.errors import Corrupt, FlightbagError, NotFound, Unavailable, Untrusted, either
from store.findings import COPY_AGAIN, Finding
from store.format import manifest, release
from store.format.code import short_code
from store.format.cose import Envelope
from store.format.duration import duration_text
from store.format.entries import Entry, EntryTable
from store.format.host import at_least, fit, meets, unjudged_text
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT, Manifest, identity_of, utc
from store.format.missing import ENTRY as MISSING_ENTRY
from store.format.ref import ref_id
from store.format.release import KINDS as RELEASED
from store.format.release import Approval, Release
from store.format.withdrawal import Withdrawal, of_mission
from store.takeoff.clock import NO_CLOCK, Moment, check_time, moment_of, unjudged_time
from store.takeoff.engines import engine_for, engines_of
from store.takeoff.fidelity import check_proofs
from store.takeoff.mission import BY_VERIFY, Binding, Evidence, Opened, OperatorCheck, Verdict, VerifiedMission
from store.takeoff.quality import without_landmarks, without_recall
from store.takeoff.withdrawn import check_withdrawal, parsed, withdrawn
from store.trust.root import SignedRoot, TrustRoot, advance, check_signatures
from store.values import replace

WRONG_EPOCH = "the mission is of another epoch than the trust root"
OLD_ROOT = "the mission needs a newer trust root than the newest one at hand"
ISSUED_TOO_EARLY = "the mission was issued before the time from which the trust root accepts manifests"
_SYNC_MISSION = "check the mission id, and sync the mission to this store again"
_SYNC_CHAIN = (
    "sync the store again from the station that published it; check that the pinned root is of its trust domain"
)
_SIGN_AGAIN = "build and sign the mission again, with keys of the role mission"
# Kinds of errors about bytes that are not those of their id: another copy may have them.
_NOT_AS_SIGNED = frozenset({"truncated", "oversized", "bit-flip", "wrong-type"})
# What somebody does about signatures that do not hold, by kind.
_SIGNATURE_REMEDIES = {
    "unknown-signer": "sync the store again: its newest trust root may name the key, and travels along; else have the "
    "mission built and signed again, with keys of the role mission",
    "bad-signature": "sync the mission again from the station that published it; if that one has it so too, find out "
    "who changed it, and have it built and signed again",
    "threshold": "have the mission built again, and signed by as many holders as the newest trust root demands",
}
_BUILD_AGAIN = "build and sign the mission again"
# What a planner or a crew does about each kind of finding of step E.
REMEDIES = {
    "wrong-mission": "sync this mission again from the station that published it",
    "wrong-aircraft": "fly the mission with an aircraft that it names, or build it again with this aircraft's id",
    "wrong-host": "build the mission again for the host class of this aircraft; where only a library is too old, "
    "install a newer one on the aircraft, and enrol it again with its new class",
    "takeoff-outside-area": "correct the takeoff origin or the area in the mission file, or allow this takeoff with "
    "takeoff_outside = true, and build the mission again",
    "wrong-epoch": "build and sign the mission again under the newest trust root",
    "old-root": "sync the store again from the station that published the mission: its newest trust root travels along",
    "issued-too-early": "build and sign the mission again under the newest trust root",
    "lifetime": "set valid_for in the mission file to what the trust root allows, and build and sign the mission again",
    "wrong-flight": "check the flight id, and carry the mission that was built for this flight",
    "rolled-back": "sync this mission's newest manifest; to fly an earlier one, publish it again: `flightbag rollback`",
    "same-sequence": "find out which of the two manifests is right, publish that one again, and sync it",
    "consumed-flight": "build and sign the mission again for a flight that was not flown yet",
}


def open_mission(evidence: Evidence, mission: str, pinned: SignedRoot) -> Opened | tuple[Finding, ...]:
    """Steps A to D: return the mission's manifest and table, or the findings against them."""
    try:
        id_ = ref_id(evidence.ref(mission))
    except FlightbagError as error:
        try:
            newest_root(evidence, pinned)
        except FlightbagError as chain:
            return Finding.of(error, step="A", remedy=_SYNC_MISSION), _chain_finding(chain, evidence, pinned)
        return (Finding.of(error, step="A", remedy=_SYNC_MISSION),)
    return open_manifest(evidence, id_, pinned)


def open_manifest(evidence: Evidence, id_: ObjectId, pinned: SignedRoot) -> Opened | tuple[Finding, ...]:
    """Steps A to D for the manifest with the id `id_`."""
    signed = open_signed(evidence, id_, pinned)
    if not isinstance(signed, SignedManifest):
        return signed
    try:
        table = read_table(evidence, signed.manifest)
    except FlightbagError as error:
        finding = Finding.of(error, step="D", remedy=_of_bytes(error, _BUILD_AGAIN))
        return (finding if finding.entry else replace(finding, entry="table"),)
    return Opened(signed.manifest, id_, signed.size, table, signed.trust_root, signed.signers)


class SignedManifest(NamedTuple):
    """A manifest whose signatures hold, the size of its object, the trust root that they were judged by, and the kids
    of its signers. Its table was not looked at."""

    manifest: Manifest
    size: int
    trust_root: TrustRoot
    signers: tuple[bytes, ...]


def open_signed(
    evidence: Evidence, id_: ObjectId, pinned: SignedRoot, *, newest: bool = False
) -> SignedManifest | tuple[Finding, ...]:
    """Steps A to C for the manifest with the id `id_`, and of step D its payload. With `newest` the pinned root is the
    newest one of the evidence, as the caller has just found: step B is done."""
    findings: list[Finding] = []
    envelope = root = None
    data = b""
    try:  # A
        data = evidence.object(id_, ENVELOPE_LIMIT)
        envelope = Envelope.parse(data, manifest.CONTENT_TYPE, manifest.PAYLOAD_LIMIT)
    except FlightbagError as error:
        findings.append(Finding.of(error, step="A", entry="manifest", remedy=_of_bytes(error, _SYNC_MISSION)))
    try:  # B
        root = (pinned if newest else newest_root(evidence, pinned)).root
    except FlightbagError as error:
        findings.append(_chain_finding(error, evidence, pinned))
    if envelope is None or root is None:
        return tuple(findings)
    try:  # C
        check_signatures(envelope, root, manifest.AAD_LABEL, "mission", "the manifest")
    except FlightbagError as error:
        remedy = _SIGNATURE_REMEDIES.get(error.kind, _SIGN_AGAIN)
        finding = Finding.of(error, step="C", entry="manifest", remedy=remedy)
        # A chain that leads on from the pinned root is of its domain, whatever trust root 1 of the store is.
        return (_name_domains(finding, evidence, pinned) if root == pinned.root else finding,)
    try:  # D
        return SignedManifest(Manifest.parse(envelope.payload), len(data), root, envelope.kids)
    except FlightbagError as error:
        return (Finding.of(error, step="D", entry="manifest", remedy=_BUILD_AGAIN),)


def _of_bytes(error: FlightbagError, otherwise: str) -> str:
    """Return the remedy against an object that is not as it was signed; `otherwise` against one that is."""
    return COPY_AGAIN if isinstance(error, NotFound | Unavailable) or error.kind in _NOT_AS_SIGNED else otherwise


def _chain_finding(error: FlightbagError, evidence: Evidence, pinned: SignedRoot) -> Finding:
    """Return the finding of step B against the trust chain."""
    return _name_domains(Finding.of(error, step="B", remedy=_SYNC_CHAIN), evidence, pinned)


def _name_domains(finding: Finding, evidence: Evidence, pinned: SignedRoot) -> Finding:
    """Return a finding against chain or signatures; with both domains if the store is of another than the pinned root.

    No signature of one domain counts in another, so that the finding itself would lead the reader astray.
    """
    with suppress(FlightbagError):
        own = SignedRoot.parse(evidence.first_root()).root
        if not finding.unreadable and own.version == 1 and own.domain_id != pinned.root.domain_id:
            return replace(
                finding,
                message=f"the store is of the trust domain {named_domain(own)}, the pinned root of "
                f"{named_domain(pinned.root)}: {finding.message}",
                remedy="take the store of the pinned root's domain; if this store is right, verify it with the root "
                "that its owner handed out, and have the aircraft enrolled again with that root",
            )
    return finding


def named_domain(root: TrustRoot) -> str:
    """Return the name of a root's trust domain and the code of its first root: two domains may have one name."""
    return f'"{root.domain}" (code {short_code(root.domain_id)})'


def newest_root(evidence: Evidence, pinned: SignedRoot) -> SignedRoot:
    """Step B: return the newest trust root that the chain in the evidence leads to from the pinned one.

    Raise as `advance` and `Evidence.chain` do.
    """
    return advance(pinned, evidence.chain(pinned.root.version))


def read_table(evidence: Evidence, parsed: Manifest) -> EntryTable:
    """Return the entry table that a manifest commits to.

    Raise Corrupt unless the table agrees with the manifest, and as `Evidence.bytes_of` does.
    """
    table = EntryTable.parse(bytes(evidence.bytes_of(parsed.table, parsed.table_size)))
    lists = table.of_kind("coverage")
    if any(entry.name != MISSING_ENTRY for entry in lists):
        raise Corrupt(
            f"the list of missing tiles has the name {lists[0].name} instead of {MISSING_ENTRY}",
            kind="bad-coverage",
            object=parsed.table,
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
                f"the {what} is {expected} by the manifest, {actual} by its entry table",
                kind=kind,
                object=parsed.table,
                expected=expected,
                actual=actual,
            )
    return table


def check_binding(
    evidence: Evidence, opened: Opened, mission: str, binding: Binding, moment: Moment
) -> tuple[Finding, ...]:
    """Step E: return a finding for each way in which a genuine manifest does not fit this flight at this moment."""
    m, root = opened.manifest, opened.trust_root
    facts, issue = m.mission, m.issue
    failures: list[tuple[str, str, object, object]] = []

    def expect(holds: bool, kind: str, message: str, expected: object = "", actual: object = "") -> None:
        if not holds:
            failures.append((kind, message, expected, actual))

    expect(facts.id == mission, "wrong-mission", "the ref names the manifest of another mission", mission, facts.id)
    if binding.aircraft is not None:
        expect(
            binding.aircraft in facts.aircraft,
            "wrong-aircraft",
            f"the mission is for the aircraft {_some(facts.aircraft)}, not for {binding.aircraft}",
            binding.aircraft,
            ", ".join(facts.aircraft),
        )
    failures += (("wrong-host", *one) for one in _misfits(opened, binding.host))
    expect(
        facts.takeoff_outside or facts.area.contains(facts.takeoff.lat, facts.takeoff.lon),
        "takeoff-outside-area",
        "the takeoff origin is outside the mission's area",
        str(facts.area.bbox),
        f"{facts.takeoff.lat}, {facts.takeoff.lon}",
    )
    expect(issue.epoch == root.epoch, "wrong-epoch", WRONG_EPOCH, root.epoch, issue.epoch)
    expect(
        issue.min_root_version <= root.version,
        "old-root",
        OLD_ROOT,
        issue.min_root_version,
        root.version,
    )
    expect(
        root.issued_after is None or issue.issued_at >= root.issued_after,
        "issued-too-early",
        ISSUED_TOO_EARLY,
        root.issued_after,
        issue.issued_at,
    )
    lifetime = None if issue.expires_at is None else issue.expires_at - issue.issued_at
    if root.max_lifetime is not None and (lifetime is None or lifetime > root.max_lifetime):
        most = duration_text(root.max_lifetime)
        end = "never" if issue.expires_at is None else f"at {utc(issue.expires_at)}"
        text = (
            f"the mission was issued at {utc(issue.issued_at)} and expires {end}; trust root {root.version} allows at "
            f"most {most}"
        )
        failures.append(("lifetime", text, root.max_lifetime, "" if lifetime is None else lifetime))
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
    remedies = dict(REMEDIES)
    if issue.epoch > root.epoch:  # the trust root at hand is behind, and not the mission
        remedies["wrong-epoch"] = REMEDIES["old-root"]
    return (
        *(
            Finding(
                kind,
                message,
                step="E",
                entry="manifest",
                expected=str(expected),
                actual=str(actual),
                remedy=remedies.get(kind, _BUILD_AGAIN),
            )
            for kind, message, expected, actual in failures
        ),
        *check_time(m, moment),
        *check_proofs(opened, binding),
        *check_releases(evidence, opened),
    )


def check_for_all(evidence: Evidence, opened: Opened, mission: str) -> tuple[Finding, ...]:
    """Return the findings of step E that every aircraft has, whenever it looks: no medium need carry such a mission."""
    fit_ = check_binding(evidence, opened, mission, Binding(proof=False), Moment.of_issue(opened.manifest))
    return (*fit_, *withdrawn(evidence, opened).findings)


def _some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _misfits(opened: Opened, aboard: str | None) -> Iterator[tuple[str, str, str]]:
    """Yield how the host classes of the mission and of the aircraft do not fit its engines and indexes (FORMAT 4.5):
    a text, the class or the classes at hand, and the need."""
    hosts = opened.manifest.hosts
    promised = either(hosts)
    if aboard is not None and not any(meets(aboard, host) for host in hosts):
        yield f"the mission's engines need the host class {promised}, and this aircraft has {aboard}", aboard, promised
        # An aircraft that has none of the mission's classes has one finding for that, and none for each entry.
        aboard = None
    for entry in opened.table.of_kind("index"):
        need = entry.meta["host"]
        if refusing := [host for host in hosts if fit(host, need).lacking]:
            yield f"{entry.name} needs {need}, and the mission promises only {refusing[0]}", refusing[0], need
        elif aboard is not None and (lacking := fit(aboard, need).lacking):
            yield f"{entry.name} needs {' and '.join(lacking)}, and this aircraft has {aboard}", aboard, need
    for backbone, engines in engines_of(opened.table.of_kind("engine")).items():
        useless = [engine for engine in engines if all(engine.lacking(host) for host in hosts)]
        for engine in useless:
            yield f"{engine.name} needs {engine.need}, and the mission promises only {promised}", promised, engine.need
        if len(useless) == len(engines):
            continue
        needs = either([engine.need for engine in engines])
        if bare := [host for host in hosts if engine_for(engines, host) is None]:
            yield f"no engine of {backbone} is for the host class {bare[0]}: they need {needs}", bare[0], needs
        elif aboard is not None and engine_for(engines, aboard) is None:
            without = either([" and ".join(engine.lacking(aboard)) for engine in engines])
            yield f"the engine of {backbone} needs {without}, and this aircraft has {aboard}", aboard, needs


def unjudged_needs(opened: Opened, binding: Binding) -> tuple[str, ...]:
    """Return for each library, in sorted order, the newest least version that a host class at hand does not judge of an
    index, or of an engine that it loads.

    That is the aircraft's class where the binding has one, else each of the mission's.
    """
    indexes = opened.table.of_kind("index")
    backbones = engines_of(opened.table.of_kind("engine")).values()
    newest: dict[str, tuple[str, str, str]] = {}
    for have in opened.manifest.hosts if binding.host is None else (binding.host,):
        engines = (engine_for(engines, have) for engines in backbones)
        loaded = [entry for engine in engines if engine is not None for entry in engine.entries]
        for entry in sorted((*loaded, *indexes), key=lambda entry: entry.name):
            for part in fit(have, entry.meta["host"]).unjudged:
                library = part.partition(">=")[0]
                if library not in newest or not at_least(newest[library][1], part):
                    newest[library] = entry.name, part, have
    return tuple(unjudged_text(*row) for _, row in sorted(newest.items()))


def check_releases(evidence: Evidence, opened: Opened) -> Iterator[Finding]:
    """Yield, if the trust root requires releases, those that do not hold and the entries that no release approves."""
    if opened.trust_root.releases != "required":
        return
    approved: set[Approval] = set()
    for id_ in opened.manifest.releases:
        try:
            approved.update(read_release(evidence, id_, opened.trust_root).approvals)
        except NotFound:
            continue  # step F reports the missing object, and the loop below the entries without an approval
        except FlightbagError as error:
            untrusted = isinstance(error, Untrusted)
            remedy = "have release keys of the newest trust root sign the release again" if untrusted else COPY_AGAIN
            yield replace(Finding.of(error, step="E", entry="release", remedy=remedy), object=str(id_))
    for entry in (entry for kind in sorted(RELEASED) for entry in opened.table.of_kind(kind)):
        if Approval.of(entry) not in approved:
            yield Finding(
                "unreleased",
                f"no valid release of the mission approves {entry.name}",
                step="E",
                object=str(entry.id),
                entry=entry.name,
                expected="a release",
                remedy="make a release with `flightbag release new`, have it signed, and build the mission again",
            )


def read_release(evidence: Evidence, id_: ObjectId, root: TrustRoot) -> Release:
    """Return a release that the release role of a trust root has signed.

    Raise NotFound, Corrupt, Untrusted or Unavailable.
    """
    return parse_release(evidence.object(id_, ENVELOPE_LIMIT), root)


def parse_release(data: bytes, root: TrustRoot) -> Release:
    """Return the release of these bytes if the release role of a trust root has signed it.

    Raise Corrupt or Untrusted.
    """
    envelope = Envelope.parse(data, release.CONTENT_TYPE, release.PAYLOAD_LIMIT)
    check_signatures(envelope, root, release.AAD_LABEL, "release", "the release")
    return Release.parse(envelope.payload)


def verify_mission(
    evidence: Evidence, mission: str, pinned: SignedRoot, binding: Binding, operator: OperatorCheck | None = None
) -> Verdict:
    """Return the verdict of steps A to F, and with `operator` of step G too."""
    opened = open_mission(evidence, mission, pinned)
    if isinstance(opened, tuple):
        doubts = (NO_CLOCK if binding.now is None else "", evidence.reading.doubt)
        return Verdict(
            mission,
            opened,
            None,
            not_judged=(*binding.not_judged, *filter(None, doubts)),
            withdrawals=_withdrawn_unopened(evidence, mission, pinned),
        )
    moment = moment_of(opened, binding)
    findings = list(check_binding(evidence, opened, mission, binding, moment))
    was_withdrawn = withdrawn(evidence, opened, binding.state)
    findings += was_withdrawn.findings
    closure = opened.closure()
    lost = check_closure(evidence, opened)
    # A release that only the second read gave: nobody has looked whether it was withdrawn.
    findings += (one for one in was_withdrawn.unread if one.object not in {other.object for other in lost})
    findings += lost
    if operator is not None:
        findings += operator(evidence, opened)
    verified = None
    if not findings:
        verified = VerifiedMission(
            opened.manifest,
            opened.manifest_id,
            opened.table,
            opened.trust_root,
            opened.signers,
            evidence,
            binding.host,
            BY_VERIFY,
        )
    quality = opened.manifest.quality
    unmeasured = [
        *(f"recall of the descriptor set {set_}: not measured" for set_ in without_recall(quality, opened.table)),
        *(f"place of the descriptor set {set_}: no landmarks" for set_ in without_landmarks(quality, opened.table)),
    ]
    return Verdict(
        mission,
        tuple(findings),
        verified,
        len(closure),
        sum(closure.values()),
        (
            *binding.not_judged,
            *unmeasured,
            *unjudged_needs(opened, binding),
            *unjudged_time(opened.manifest, moment),
            *filter(None, (evidence.reading.doubt,)),
        ),
        None if moment.clock is None else moment.at,
        evidence.reading.from_medium,
        was_withdrawn.holding,
    )


def _withdrawn_unopened(evidence: Evidence, mission: str, pinned: SignedRoot) -> tuple[Withdrawal, ...]:
    """Return the withdrawal of a mission that steps A to D refuse, if it holds: so that an aircraft remembers it, and
    the crew that takes last week's medium in place of a damaged one does not fly it."""
    with suppress(FlightbagError):
        name = of_mission(mission)
        envelope, value = parsed(evidence.withdrawal(name), name)
        check_withdrawal(envelope, value, newest_root(evidence, pinned).root)
        return (value,)
    return ()


def check_closure(evidence: Evidence, opened: Opened) -> list[Finding]:
    """Step F: return a finding for each object of the closure that is missing, damaged or unreadable."""
    names: dict[ObjectId, list[str]] = {opened.manifest_id: ["manifest"], opened.manifest.table: ["table"]}
    sizes = opened.closure()
    for entry in opened.table.entries:
        names.setdefault(entry.id, []).append(entry.name)
    findings = list(_contradicting_sizes(opened.table.entries, sizes))
    for release_id in opened.manifest.releases:
        names.setdefault(release_id, []).append("release")
    for release_id in opened.manifest.releases:
        try:
            evidence.object(release_id, ENVELOPE_LIMIT)
        except FlightbagError as error:
            findings.append(_name_swap(Finding.of(error, step="F", entry="release", remedy=COPY_AGAIN), names))
    for id_, outcome in evidence.check_objects(sizes.items()):
        if outcome is None:
            continue
        finding = Finding.of(outcome, step="F", entry=", ".join(names[id_]), remedy=COPY_AGAIN)
        findings.append(_name_swap(finding, names))
    return sorted(findings, key=lambda finding: (finding.entry, finding.object))


def _contradicting_sizes(entries: Sequence[Entry], sizes: dict[ObjectId, int]) -> Iterator[Finding]:
    """Yield a finding for each entry that gives an object another size than another entry: one size is wrong."""
    for entry in entries:
        if sizes[entry.id] != entry.size:
            yield Finding(
                "bad-entry",
                f"object {entry.id} has {entry.size} bytes by {entry.name}, {sizes[entry.id]} by another entry",
                step="F",
                object=str(entry.id),
                entry=entry.name,
                expected=str(sizes[entry.id]),
                actual=str(entry.size),
                remedy=_BUILD_AGAIN,
            )


def _name_swap(finding: Finding, names: dict[ObjectId, list[str]]) -> Finding:
    """Return the finding as one of kind `swapped` if the bytes are those of another object of the same mission."""
    other = names.get(ObjectId.parse(finding.actual)) if finding.kind == "bit-flip" else None
    if other is None:
        return finding
    return replace(finding, kind="swapped", message=f"{finding.message}, the id of {', '.join(other)}")


# Files that are easily given as a trust root: a mark among their first bytes, what they are, and more of the remedy.
_NO_ROOTS = (
    (b"-----BEGIN", "the file of a key", ""),
    (b"flightbag/root-draft/1", "the draft of a trust root", ": N.root.cbor, which `flightbag trust rotate` writes"),
    (b"vnd.flightbag.manifest", "the manifest of a mission", ""),
    (b"vnd.flightbag.release", "a release", ""),
)


def pinned_root(data: bytes) -> SignedRoot:
    """Return the trust root that verification starts from. Raise Untrusted unless `data` is a signed root file."""
    try:
        return SignedRoot.parse(data)
    except (Corrupt, Untrusted) as error:
        text, remedy = error.message, "give the root file that the owner of the trust domain handed out"
        for mark, what, more in _NO_ROOTS:
            if mark in data[:64]:
                text, remedy = f"it is {what}", remedy + more
        raise Untrusted(
            f"the pinned trust root cannot be used: {text}", remedy=remedy, kind="bad-pinned-root"
        ) from error
