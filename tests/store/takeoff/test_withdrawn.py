"""What a withdrawal in a store does to the takeoff check, over evidence in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest

from store.errors import Corrupt, FlightbagError, NotFound, Unavailable
from store.format import release as releases
from store.format.cose import Envelope
from store.format.ids import ObjectId
from store.format.release import Release
from store.format.withdrawal import Withdrawal
from store.takeoff.mission import Verdict
from store.takeoff.verify import verify_mission
from store.trust.aircraft_state import AircraftState
from store.trust.review import digest_of_payload
from tests.support.memory import MemoryEvidence
from tests.support.missions import (
    BINDING,
    ISSUE,
    NOW,
    ROOT,
    evidence_of,
    flight,
    next_root,
    pinned,
    role,
    sign_payload,
    sign_root,
    sign_withdrawal,
    withdrawal,
)

NORTH = flight()
PLACE = "north-ridge.mission"
LATER = replace(ISSUE, sequence=ISSUE.sequence + 1)


def judged(evidence: MemoryEvidence) -> Verdict:
    return verify_mission(evidence, NORTH.id, pinned(), BINDING)


def kinds(evidence: MemoryEvidence) -> list[str]:
    return [finding.kind for finding in judged(evidence).findings]


def with_file(data: bytes, one=NORTH, name: str = PLACE) -> MemoryEvidence:  # type: ignore[no-untyped-def]
    evidence = evidence_of(one)
    evidence.withdrawn[name] = data
    return evidence


def test_a_withdrawn_mission_does_not_fly_and_says_why() -> None:
    verdict = judged(with_file(sign_withdrawal(withdrawal())))
    (finding,) = verdict.findings
    assert (finding.kind, finding.step, finding.entry) == ("withdrawn", "E", "withdrawal")
    assert "wrong imagery" in finding.message
    assert verdict.withdrawals == (withdrawal(),)
    assert not verdict.unknown


def test_what_is_issued_later_flies_again() -> None:
    evidence = with_file(sign_withdrawal(withdrawal()), flight(issue=LATER))
    assert judged(evidence).go
    assert kinds(with_file(sign_withdrawal(withdrawal(sequence=LATER.sequence)), flight(issue=LATER))) == ["withdrawn"]


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda data: data[:-1], "not-canonical"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "bad-signature"),
        (lambda data: b"", "not-canonical"),
        (lambda data: b"x" * 4000, "too-large"),
    ],
)
@pytest.mark.parametrize("issue", [ISSUE, LATER])
def test_damage_brings_no_mission_back(damage: Callable[[bytes], bytes], kind: str, issue) -> None:  # type: ignore[no-untyped-def]
    found = kinds(with_file(damage(sign_withdrawal(withdrawal())), flight(issue=issue)))
    assert len(found) == 1
    assert found[0] in (kind, "bad-envelope")


def test_what_cannot_be_read_is_no_go() -> None:
    evidence = with_file(sign_withdrawal(withdrawal()))
    evidence.unreadable.add(f"withdrawn/{PLACE}")
    assert judged(evidence).unknown


@pytest.mark.parametrize(
    ("value", "by", "kind"),
    [
        (withdrawal(), ("stranger",), "unknown-signer"),
        (withdrawal(), ("lab",), "wrong-role"),
        (withdrawal(), (), "threshold"),
        (withdrawal(mission="south-ridge"), ("pilot",), "bad-withdrawal"),
        (Withdrawal("x", NOW, release=bytes(32)), ("lab",), "bad-withdrawal"),
    ],
)
def test_one_that_does_not_hold_grounds_what_it_names(value: Withdrawal, by: tuple[str, ...], kind: str) -> None:
    verdict = judged(with_file(sign_withdrawal(value, by=by)))
    assert [finding.kind for finding in verdict.findings] == [kind]
    assert not verdict.withdrawals


@pytest.mark.parametrize("by", [("stranger",), ("lab",), ()])
def test_a_mission_that_is_newer_than_what_former_keys_withdrew_flies(by: tuple[str, ...]) -> None:
    assert judged(with_file(sign_withdrawal(withdrawal(), by=by), flight(issue=LATER))).go


def test_the_withdrawal_of_another_domain() -> None:
    other = replace(ROOT, salt=bytes(16))
    assert kinds(with_file(sign_withdrawal(withdrawal(), other))) == ["bad-signature"]


def test_a_manifest_is_no_withdrawal() -> None:
    assert kinds(with_file(NORTH.signed)) in (["bad-envelope"], ["too-large"])


def test_a_revoked_signer() -> None:
    second = next_root(ROOT, mission=role("co-pilot"), revoked=(role("pilot").keys[0],))
    after = flight(root=second, by=("co-pilot",))
    evidence = with_file(sign_withdrawal(withdrawal()), after)
    evidence.roots[2] = sign_root(second, "root-a")
    assert kinds(evidence) == ["revoked-key"]
    newer = with_file(sign_withdrawal(withdrawal()), flight(root=second, by=("co-pilot",), issue=LATER))
    newer.roots[2] = evidence.roots[2]
    assert judged(newer).go


class TestReleases:
    APPROVED = Release.of("winter", "cpu-x86_64", NORTH.table.entries, issued_at=NOW)
    DATA = sign_payload(APPROVED.render(), releases.CONTENT_TYPE, ROOT.aad(releases.AAD_LABEL), ["lab"])
    DIGEST = digest_of_payload(Envelope.parse(DATA, releases.CONTENT_TYPE, releases.PAYLOAD_LIMIT))

    def evidence(self, value: Withdrawal, by: str = "lab") -> MemoryEvidence:
        evidence = MemoryEvidence(roots={1: sign_root(ROOT, "root-a")})
        flight(releases=(evidence.put(self.DATA),)).place(evidence)
        evidence.withdrawn[value.name] = sign_withdrawal(value, by=(by,))
        return evidence

    def test_a_mission_that_rests_on_a_withdrawn_release(self) -> None:
        assert kinds(self.evidence(Withdrawal("it drifts", NOW, release=self.DIGEST))) == ["withdrawn"]

    def test_another_release(self) -> None:
        assert judged(self.evidence(Withdrawal("it drifts", NOW, release=bytes(32)))).go

    def test_the_keys_of_missions_withdraw_no_release(self) -> None:
        assert kinds(self.evidence(Withdrawal("x", NOW, release=self.DIGEST), by="pilot")) == ["wrong-role"]

    @pytest.mark.parametrize("error", [NotFound, Corrupt, Unavailable])
    @pytest.mark.parametrize("seen", [True, False])
    def test_a_release_that_only_a_second_read_gives(self, error: type[FlightbagError], seen: bool) -> None:
        """A medium hides from the first look which release the mission rests on."""
        gone = Withdrawal("it drifts", NOW, release=self.DIGEST)
        state = AircraftState.initial("uav-07", "cpu-x86_64-avx2", pinned()).with_withdrawals([gone])
        evidence = self.evidence(gone)
        asked: list[ObjectId] = []

        class Second(MemoryEvidence):
            def object(self, id_: ObjectId, limit: int) -> bytes:
                asked.append(id_)
                if id_ == ObjectId.of(TestReleases.DATA) and asked.count(id_) == 1:
                    raise error("the medium has no answer", kind="unreadable")
                return super().object(id_, limit)

        second = Second(**{one.name: getattr(evidence, one.name) for one in fields(evidence)})
        verdict = verify_mission(second, NORTH.id, pinned(), replace(BINDING, state=state if seen else None))
        (finding,) = verdict.findings
        assert (finding.step, finding.entry) == ("E", "release")
        assert finding.remedy
        assert verdict.unknown == (error is Unavailable)

    def test_a_release_that_is_lost_is_told_of_once(self) -> None:
        evidence = self.evidence(Withdrawal("it drifts", NOW, release=self.DIGEST))
        del evidence.objects[ObjectId.of(self.DATA)]
        assert [(one.step, one.kind) for one in judged(evidence).findings] == [("F", "missing")]
