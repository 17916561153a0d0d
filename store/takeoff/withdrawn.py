"""Whether a mission, or a release that it rests on, was withdrawn (FORMAT.md 5.5): a part of step E.

A withdrawal is looked for by name, in the store and in the state of the aircraft. One that holds and reaches up to the
manifest grounds it. Whatever else lies in its place grounds the mission too: who can plant a file on the medium can
flip a bit of an object as well, and damage must not bring a mission back. One exception lets a store live on when keys
change: a withdrawal whose only fault is that its signers do not count (any more) is passed over by a manifest that is
newer than the last one that it names.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from store.disk.layout import WITHDRAWN
from store.errors import FlightbagError, NotFound, Untrusted
from store.findings import COPY_AGAIN, Finding
from store.format import release, withdrawal
from store.format.cose import Envelope
from store.format.manifest import ENVELOPE_LIMIT, Issue
from store.format.withdrawal import Withdrawal, of_mission, of_release, require_name
from store.takeoff.mission import Evidence, Opened
from store.trust.review import digest_of_payload
from store.trust.root import TrustRoot, check_signatures
from store.values import dataclass, replace

if TYPE_CHECKING:
    from store.trust.aircraft_state import AircraftState

_FLY_ANOTHER = "do not fly it; who withdrew it knows why. Have the mission built and signed again, and sync it"
_REMEDY = (
    "sync the store again from the station that withdrew it; if its keys are of the role no more, withdraw it again. A "
    "file that nobody of this trust domain has signed has no place in a store: find out who put it there, and remove it"
)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """What is withdrawn of a mission: the withdrawals that hold, and the findings against the mission.

    `unread` has a finding for each release that could not be read, so that nobody knows whether it was withdrawn. Step
    F reads it again; where that succeeds, this finding stands.
    """

    holding: tuple[Withdrawal, ...]
    findings: tuple[Finding, ...]
    unread: tuple[Finding, ...] = ()


def parsed(data: bytes, name: str) -> tuple[Envelope, Withdrawal]:
    """Return the envelope and the withdrawal in the file of this name, whoever has signed it. Raise Corrupt."""
    envelope = Envelope.parse(data, withdrawal.CONTENT_TYPE, withdrawal.PAYLOAD_LIMIT)
    value = Withdrawal.parse(envelope.payload)
    require_name(value, name)
    return envelope, value


def check_withdrawal(envelope: Envelope, value: Withdrawal, root: TrustRoot) -> None:
    """Raise Untrusted unless enough keys of the role that withdraws this have signed, under a trust root."""
    check_signatures(envelope, root, withdrawal.AAD_LABEL, value.role, "the withdrawal")


def withdrawn(evidence: Evidence, opened: Opened, state: AircraftState | None = None) -> Withdrawn:
    """Return what is withdrawn of a mission by the evidence, and by what an aircraft remembers."""
    issue = opened.manifest.issue
    digests, unread = _release_digests(evidence, opened)
    names = [of_mission(opened.manifest.mission.id), *map(of_release, digests)]
    holding: list[Withdrawal] = []
    findings: list[Finding] = []
    for name in names:
        remembered = None if state is None else state.withdrawn(name)
        try:
            value = _read(evidence, name, opened.trust_root, issue)
        except FlightbagError as error:
            place = f"{WITHDRAWN}/{name}"
            finding = Finding.of(error, step="E", entry="withdrawal", remedy=_REMEDY)
            findings.append(replace(finding, message=f"{place}: {finding.message}", path=finding.path or place))
            value = None
        if value is not None:
            holding.append(value)
        if value is not None and (not value.mission or issue.order <= value.order):
            findings.append(_finding(name, value.order, f"; the reason given: {value.reason}"))
        elif remembered is not None and (remembered == (0, 0) or issue.order <= remembered):
            findings.append(_finding(name, remembered, ": the aircraft has seen that, whatever this store has"))
    return Withdrawn(tuple(holding), tuple(findings), unread)


def _release_digests(evidence: Evidence, opened: Opened) -> tuple[list[bytes], tuple[Finding, ...]]:
    """Return the digest of the payload of each release that the manifest names, and a finding for each that cannot be
    read. No release is withdrawn whose bytes are none: it approves nothing."""
    digests: list[bytes] = []
    unread: list[Finding] = []
    for id_ in opened.manifest.releases:
        try:
            data = evidence.object(id_, ENVELOPE_LIMIT)
        except FlightbagError as error:
            finding = Finding.of(error, step="E", entry="release", remedy=COPY_AGAIN)
            unread.append(replace(finding, object=str(id_)))
            continue
        with suppress(FlightbagError):
            digests.append(digest_of_payload(Envelope.parse(data, release.CONTENT_TYPE, release.PAYLOAD_LIMIT)))
    return digests, tuple(unread)


def _read(evidence: Evidence, name: str, root: TrustRoot, issue: Issue) -> Withdrawal | None:
    """Return the withdrawal of this name, if one holds. Raise for another one, unless it is of no account here."""
    try:
        data = evidence.withdrawal(name)
    except NotFound:
        return None
    envelope, value = parsed(data, name)
    try:
        check_withdrawal(envelope, value, root)
    except Untrusted:
        if value.mission and value.order < issue.order and _is_undamaged(envelope, value, root):
            return None
        raise
    return value


def _is_undamaged(envelope: Envelope, value: Withdrawal, root: TrustRoot) -> bool:
    """Whether every signature by a key of the role is good."""
    key_by_kid = {key.kid: key for key in root.role(value.role).keys}
    mine = [one for one in envelope.signatures if one.kid in key_by_kid]
    return all(key_by_kid[one.kid].verifies(envelope, one, root.aad(withdrawal.AAD_LABEL)) for one in mine)


def _finding(name: str, order: tuple[int, int], more: str) -> Finding:
    what = "a release of the mission was withdrawn" if name.endswith(".release") else "the mission was withdrawn"
    upto = f", up to sequence {order[1]}" if name.endswith(".mission") else ""
    return Finding("withdrawn", f"{what}{upto}{more}", step="E", entry="withdrawal", actual=name, remedy=_FLY_ANOTHER)
