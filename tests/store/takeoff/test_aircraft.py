"""The aircraft's memory: what it refuses, what it survives, and when it is written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from store.disk.durable import Disk
from store.disk.media import Media
from store.errors import Conflict, Corrupt, Invalid, NotFound, Refused, Unavailable
from store.format.cbor import INT_MAX
from store.format.ids import derive
from store.format.manifest import TIME_MAX
from store.takeoff.aircraft import CONTEXT, SLOTS, Enrolment, check, consume, enrol, lower_floor, read_state
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Verdict
from store.trust.aircraft_state import AircraftState
from store.trust.root import SignedRoot, TrustRoot
from tests.faults.disks import Failing, Orderly, PowerCut, PowerFails, Recorded, bad_sectors
from tests.support.missions import (
    COVERAGE,
    FACTS,
    ISSUE,
    NOW,
    ROOT,
    Flight,
    flight,
    next_root,
    pinned,
    role,
    sign_root,
)
from tests.support.stores import NORTH, listing, make_store, publish

ID, HOST = "uav-07", "cpu-x86_64-avx2"
STATE = AircraftState.initial(ID, HOST, pinned())
XYZ = replace(STATE, accepted=("x", "y", "z"))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    enrol(tmp_path / "state", STATE)
    return tmp_path / "state"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", NORTH)


def takeoff(state: Path, store: Path, **options: Any) -> Verdict:
    with Media(store) as media:
        verdict = check(state, StoreEvidence(media), options.pop("mission", NORTH.id), **{"now": NOW, **options})
    assert all(finding.remedy for finding in verdict.findings if finding.step == "E")
    return verdict


def kinds(verdict: Verdict) -> list[str]:
    return [finding.kind for finding in verdict.findings]


def issued(**issue: Any) -> Flight:
    """NORTH, issued otherwise."""
    root, by = issue.pop("root", ROOT), issue.pop("by", ["pilot"])
    return flight(root=root, by=by, issue=replace(ISSUE, **issue))


def lead(store: Path, one: Flight, *roots: bytes) -> None:
    """Makes a store carry exactly this mission and these roots, as a stick that somebody made does."""
    shutil.rmtree(store)
    make_store(store, NORTH)
    for data in roots:
        version = SignedRoot.parse(data).root.version
        (store / f"trust/{version}.root.cbor").write_bytes(data)
    for data in (*one.contents.values(), one.table.render(), one.signed):
        from store.disk.media import object_path
        from store.format.ids import ObjectId

        path = store / object_path(ObjectId.of(data))
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(data)
    (store / "missions" / one.id).write_text(f"{one.manifest_id}\n")


class TestVerdict:
    def test_go_is_remembered(self, state: Path, store: Path) -> None:
        verdict = takeoff(state, store)
        assert verdict.go
        assert verdict.not_judged[0] == "flight"
        seen = read_state(state).state.missions[NORTH.id]
        assert (seen.epoch, seen.sequence) == (ISSUE.epoch, ISSUE.sequence)

    def test_again_is_allowed_and_writes_nothing(self, state: Path, store: Path) -> None:
        assert takeoff(state, store).go
        before = listing(state, but=("lock", "tmp"))
        assert takeoff(state, store).go
        assert listing(state, but=("lock", "tmp")) == before

    def test_an_older_mission(self, state: Path, store: Path) -> None:
        newer = issued(sequence=ISSUE.sequence + 5)
        lead(store, newer)
        assert takeoff(state, store).go
        lead(store, NORTH)
        assert kinds(takeoff(state, store)) == ["rolled-back"]

    def test_the_same_sequence_with_another_payload(self, state: Path, store: Path) -> None:
        assert takeoff(state, store).go
        lead(store, flight(mission=replace(FACTS, flight="another")))
        assert kinds(takeoff(state, store)) == ["same-sequence"]

    def test_the_same_payload_with_other_signatures(self, state: Path, tmp_path: Path) -> None:
        root = replace(ROOT, mission=role("pilot", "co-pilot"))
        enrol(state, AircraftState.initial(ID, HOST, pinned(root)), again=True)
        for by in (("pilot",), ("co-pilot",), ("co-pilot", "pilot")):
            store = make_store(tmp_path / "-".join(by), flight(root=root, by=by), root=sign_root(root, "root-a"))
            assert takeoff(state, store).go

    def test_two_missions_out_of_order(self, state: Path, tmp_path: Path) -> None:
        """Wednesday's mission is loaded, and verified, before Tuesday's flies."""
        tuesday = flight(mission=replace(FACTS, id="tuesday", flight="t"), issue=replace(ISSUE, sequence=5))
        wednesday = flight(mission=replace(FACTS, id="wednesday", flight="w"), issue=replace(ISSUE, sequence=9))
        store = make_store(tmp_path / "both", tuesday, wednesday)
        with Media(store) as media:
            for mission in ("wednesday", "tuesday", "wednesday"):
                assert check(state, StoreEvidence(media), mission, now=NOW).go

    def test_a_consumed_flight(self, state: Path, store: Path) -> None:
        with pytest.raises(NotFound):
            consume(state, FACTS.flight)
        assert takeoff(state, store).go
        assert consume(state, FACTS.flight)
        assert kinds(takeoff(state, store)) == ["consumed-flight"]
        before = listing(state, but=("lock", "tmp"))
        assert not consume(state, FACTS.flight)
        assert listing(state, but=("lock", "tmp")) == before
        with pytest.raises(Invalid):
            consume(state, "no such\nflight")

    @pytest.mark.parametrize("flight_id", ["2026-11-23-10", "2026-11-23-1", "north-ridge", "x" * 64])
    def test_a_flight_that_had_no_go_is_not_consumed(self, state: Path, store: Path, flight_id: str) -> None:
        assert takeoff(state, store).go
        before = listing(state, but=("lock", "tmp"))
        with pytest.raises(NotFound, match=flight_id) as caught:
            consume(state, flight_id)
        assert caught.value.kind == "unknown-flight"
        assert FACTS.flight in caught.value.remedy
        assert listing(state, but=("lock", "tmp")) == before

    def test_a_mission_that_is_planned_again_for_another_flight(self, state: Path, store: Path) -> None:
        """Between takeoff and landing the next flight is prepared: the one in the air can still be consumed."""
        assert takeoff(state, store).go
        lead(store, flight(mission=replace(FACTS, flight="next"), issue=replace(ISSUE, sequence=ISSUE.sequence + 1)))
        assert takeoff(state, store).go
        assert read_state(state).state.accepted == (FACTS.flight, "next")
        assert consume(state, FACTS.flight)
        assert takeoff(state, store).go
        assert consume(state, "next")
        assert kinds(takeoff(state, store)) == ["consumed-flight"]

    def test_a_flight_of_an_epoch_that_has_ended(self, state: Path, store: Path) -> None:
        assert takeoff(state, store).go
        lead(store, NORTH, sign_root(next_root(ROOT, epoch=2), "root-a"))
        assert kinds(takeoff(state, store)) == ["wrong-epoch"]
        assert consume(state, FACTS.flight)

    @pytest.mark.parametrize(("flight_id", "found"), [(FACTS.flight, []), ("other", ["wrong-flight"])])
    def test_the_flight_that_is_meant(self, state: Path, store: Path, flight_id: str, found: list[str]) -> None:
        assert kinds(takeoff(state, store, flight=flight_id)) == found

    @pytest.mark.parametrize(
        ("id_", "host", "kind"), [("uav-09", HOST, "wrong-aircraft"), (ID, "cpu-aarch64", "wrong-host")]
    )
    def test_another_aircraft(self, tmp_path: Path, store: Path, id_: str, host: str, kind: str) -> None:
        enrol(tmp_path / "other", AircraftState.initial(id_, host, pinned()))
        assert kinds(takeoff(tmp_path / "other", store))[0] == kind

    def test_another_domain(self, state: Path, store: Path) -> None:
        other = replace(ROOT, salt=bytes(16))
        enrol(state, AircraftState.initial(ID, HOST, pinned(other)), again=True)
        assert kinds(takeoff(state, store)) == ["bad-signature"]


class TestRoots:
    SECOND = next_root(ROOT, mission=role("co-pilot"), revoked=(role("pilot").keys[0],))
    FILE = sign_root(SECOND, "root-a")

    def test_a_newer_root_is_kept_though_the_mission_is_refused(self, state: Path, store: Path) -> None:
        lead(store, NORTH, self.FILE)
        assert kinds(takeoff(state, store)) == ["revoked-key"]
        assert read_state(state).state.root.root == self.SECOND
        assert not read_state(state).state.missions
        # The old stick, which knows nothing of the revocation, is refused for ever after.
        lead(store, NORTH)
        assert kinds(takeoff(state, store)) == ["revoked-key"]

    def test_a_chain_that_does_not_hold_moves_nothing(self, state: Path, store: Path) -> None:
        lead(store, NORTH, sign_root(self.SECOND, "stranger", "root-a"))
        assert kinds(takeoff(state, store)) == ["unknown-signer"]
        assert read_state(state).state == STATE

    def test_fast_forward_is_repaired_by_an_epoch(self, state: Path, store: Path) -> None:
        """A stolen key signed the last of all sequences; the next epoch begins anew."""
        lead(store, issued(sequence=INT_MAX))
        assert takeoff(state, store).go
        lead(store, issued(sequence=ISSUE.sequence + 1))
        assert kinds(takeoff(state, store)) == ["rolled-back"]
        second = next_root(ROOT, epoch=2)
        after = issued(sequence=1, epoch=2, root=second)
        lead(store, after, sign_root(second, "root-a"))
        assert takeoff(state, store).go
        lead(store, issued(sequence=INT_MAX), sign_root(second, "root-a"))
        assert kinds(takeoff(state, store)) == ["wrong-epoch", "rolled-back"]


class TestTime:
    def test_a_trusted_clock(self, state: Path, store: Path) -> None:
        late = ISSUE.expires_at
        assert late is not None
        assert takeoff(state, store, now=late).go
        assert kinds(takeoff(state, store, now=late + 1)) == ["expired"]

    def test_without_a_clock_it_can_prove_expired_and_never_fresh(self, state: Path, store: Path) -> None:
        verdict = takeoff(state, store, now=None)
        assert verdict.go
        assert verdict.not_judged[-1].startswith("freshness")
        assert read_state(state).state.floor == ISSUE.issued_at
        late = issued(sequence=ISSUE.sequence + 1, issued_at=NOW + 5000, expires_at=None)
        other = replace(late.manifest.mission, id="later")
        published = flight(mission=other, issue=late.manifest.issue)
        publish(store, published)
        with Media(store) as media:
            assert check(state, StoreEvidence(media), "later").go
        assert kinds(takeoff(state, store, now=None)) == ["expired"]

    def test_a_clock_that_is_behind_what_has_passed(self, state: Path, store: Path) -> None:
        assert takeoff(state, store, now=NOW).go
        late = ISSUE.expires_at
        assert late is not None
        enrol(state, replace(STATE, issued=late + 1), again=True)
        assert kinds(takeoff(state, store, now=NOW)) == ["expired"]

    def test_a_clock_that_is_none_enters_no_floor(self, state: Path, store: Path) -> None:
        verdict = takeoff(state, store, now=TIME_MAX + 1)
        assert verdict.go
        assert verdict.judged_at is None
        assert "a time after the year 9999" in verdict.not_judged[-1]
        assert read_state(state).state.floor == ISSUE.issued_at

    def test_a_clock_within_the_skew_enters_as_it_is(self, state: Path, store: Path) -> None:
        verdict = takeoff(state, store, now=ISSUE.issued_at - 86400)
        assert (verdict.go, verdict.judged_at) == (True, ISSUE.issued_at)
        stored = read_state(state).state
        assert (stored.issued, stored.clock) == (ISSUE.issued_at, ISSUE.issued_at - 86400)

    @pytest.mark.parametrize("now", [0, 5, ISSUE.issued_at - 86401])
    def test_a_clock_that_refuses_the_issue(self, state: Path, store: Path, now: int) -> None:
        before = read_state(state)
        assert set(kinds(takeoff(state, store, now=now))) >= {"issued-in-future"}
        assert read_state(state) == before

    def test_imagery_that_has_aged(self, state: Path, tmp_path: Path) -> None:
        aging = replace(COVERAGE, oldest=ISSUE.issued_at - 86400, newest=ISSUE.issued_at, max_age_days=1)
        store = make_store(tmp_path / "aging", flight(coverage=aging, issue=replace(ISSUE, expires_at=None)))
        assert takeoff(state, store, now=None).go, "nothing has passed since the issue that the aircraft knows of"
        assert kinds(takeoff(state, store, now=NOW)) == ["stale-imagery"]
        assert read_state(state).state.floor == ISSUE.issued_at, "only a GO raises the floor"
        enrol(tmp_path / "later", replace(STATE, clock=NOW))
        assert kinds(takeoff(tmp_path / "later", store, now=None)) == ["stale-imagery"]


FAR = 4_000_000_000
ENDLESS = {"sequence": FAR, "issued_at": FAR, "expires_at": None}


class TestATimeThatWasAhead:
    """A mission from the future was GO without a clock. What expires is NO-GO then, until the floor comes back."""

    SECOND = next_root(ROOT, epoch=2, issued_at=NOW)

    @pytest.fixture
    def ahead(self, state: Path, store: Path) -> Path:
        """The state of an aircraft that has flown a mission from the future."""
        lead(store, issued(**ENDLESS))
        assert takeoff(state, store, now=None).go
        consume(state, FACTS.flight)
        return state

    def test_with_a_trusted_clock_it_is_never_go(self, state: Path, store: Path) -> None:
        lead(store, issued(**ENDLESS))
        before = read_state(state)
        assert kinds(takeoff(state, store, now=NOW)) == ["issued-in-future"]
        assert read_state(state) == before

    def test_everything_that_expires_is_expired(self, ahead: Path, tmp_path: Path) -> None:
        store = make_store(tmp_path / "next", another_flight())
        verdict = takeoff(ahead, store, now=None, mission="next")
        assert kinds(verdict) == ["expired"]
        assert "flightbag aircraft lower-floor" in verdict.findings[0].remedy
        verdict = takeoff(ahead, store, now=NOW, mission="next")
        assert kinds(verdict) == ["floor-ahead"]
        assert "flightbag aircraft lower-floor" in verdict.findings[0].remedy

    def test_a_new_epoch_brings_it_back(self, ahead: Path, tmp_path: Path) -> None:
        store = make_store(tmp_path / "next", NORTH)
        lead(store, another_flight(self.SECOND, epoch=2), sign_root(self.SECOND, "root-a"))
        assert takeoff(ahead, store, now=None, mission="next").go
        assert read_state(ahead).state.consumed == (FACTS.flight,)

    @pytest.mark.parametrize("now", [None, NOW])
    def test_a_person_at_the_aircraft_brings_it_back(self, ahead: Path, tmp_path: Path, now: int | None) -> None:
        store = make_store(tmp_path / "next", another_flight())
        before = read_state(ahead)
        assert lower_floor(ahead, NOW) == replace(before.state, issued=NOW)
        assert (read_state(ahead).state, read_state(ahead).mend) == (replace(before.state, issued=NOW), False)
        assert lower_floor(ahead, NOW) == read_state(ahead).state
        assert read_state(ahead).number == before.number + 1, "what changes nothing writes nothing"
        assert takeoff(ahead, store, now=now, mission="next").go
        assert kinds(takeoff(ahead, make_store(tmp_path / "old", issued(sequence=FAR + 1)), now=now)) == [
            "consumed-flight"
        ]

    def test_what_was_accepted_is_still_not_rolled_back(self, ahead: Path, store: Path) -> None:
        lower_floor(ahead, NOW)
        lead(store, NORTH)
        assert kinds(takeoff(ahead, store)) == ["rolled-back", "consumed-flight"]

    def test_a_root_from_the_future_is_replaced_and_not_lowered(self, state: Path, store: Path) -> None:
        second = next_root(ROOT, issued_at=FAR)
        lead(store, NORTH, sign_root(second, "root-a"))
        assert kinds(takeoff(state, store, now=None)) == ["expired"]
        before = read_state(state)
        with pytest.raises(Refused, match="trust root 2 was issued at"):
            lower_floor(state, NOW)
        assert read_state(state) == before
        assert kinds(takeoff(state, store, now=NOW)) == ["issued-in-future", "floor-ahead"]
        third = next_root(second, epoch=2, issued_at=NOW)
        after = issued(epoch=2, root=third)
        lead(store, after, sign_root(second, "root-a"), sign_root(third, "root-a"))
        assert takeoff(state, store, now=None).go

    def test_a_clock_that_refuses_a_root_keeps_its_time_out(self, state: Path, store: Path) -> None:
        """Its revocations count at once, and the root after it finds no floor to lower."""
        second = next_root(ROOT, issued_at=FAR, mission=role("co-pilot"), revoked=(role("pilot").keys[0],))
        lead(store, NORTH, sign_root(second, "root-a"))
        assert kinds(takeoff(state, store, now=NOW)) == ["revoked-key"]
        assert read_state(state).state.floor == ROOT.issued_at
        third = next_root(second, issued_at=NOW)
        after = issued(root=third, by=["co-pilot"])
        lead(store, after, sign_root(second, "root-a"), sign_root(third, "root-a"))
        assert takeoff(state, store, now=None).go

    def test_a_folder_without_a_state_stays_as_it_is(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable):
            lower_floor(tmp_path, NOW)
        assert list(tmp_path.iterdir()) == []


def another_flight(root: TrustRoot = ROOT, epoch: int = 1) -> Flight:
    """A mission that expires, for another flight."""
    facts = replace(FACTS, id="next", flight="2026-11-24-01")
    return flight(root=root, mission=facts, issue=replace(ISSUE, epoch=epoch))


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


class TestSlots:
    @pytest.mark.parametrize("slot", SLOTS)
    @pytest.mark.parametrize("keep", [None, 0, 20, 39, 41, 200])
    def test_one_whole_slot_is_enough(self, state: Path, store: Path, slot: str, keep: int | None) -> None:
        """A power cut may leave that. The next change writes both."""
        if keep is None:
            (state / slot).unlink()
        else:
            cut(state / slot, keep)
        assert read_state(state).mend
        assert takeoff(state, store).go
        assert not read_state(state).mend
        assert (state / "a").read_bytes() == (state / "b").read_bytes()

    @pytest.mark.parametrize("damage", [lambda p: p.unlink(), lambda p: cut(p, 30), lambda p: p.write_bytes(b"")])
    def test_both_lost(self, state: Path, store: Path, damage: Callable[[Path], None]) -> None:
        for slot in SLOTS:
            damage(state / slot)
        verdict = takeoff(state, store)
        assert not verdict.go
        assert kinds(verdict)[0] in ("no-state", "bad-state")
        assert "enrol" in verdict.findings[0].remedy

    def test_no_folder(self, tmp_path: Path, store: Path) -> None:
        assert kinds(takeoff(tmp_path / "none", store)) == ["no-state"]
        assert not (tmp_path / "none").exists()

    def test_one_slot_was_rolled_back(self, state: Path, store: Path) -> None:
        enrol(state, XYZ, again=True)
        old = (state / "b").read_bytes()
        for name in ("x", "y"):
            consume(state, name)
        (state / "b").write_bytes(old)
        assert kinds(takeoff(state, store)) == ["bad-state"]

    @pytest.mark.parametrize("number", [2**63, 2**64 - 1])
    def test_a_number_that_no_change_reaches_is_no_slot(self, state: Path, store: Path, number: int) -> None:
        """As a whole slot it would be far ahead of the other one, or could not be followed by a change."""
        body = number.to_bytes(8, "big") + (state / "a").read_bytes()[40:]
        (state / "a").write_bytes(derive(CONTEXT, body) + body)
        assert takeoff(state, store).go
        for name in SLOTS:
            (state / name).write_bytes(derive(CONTEXT, body) + body)
        assert kinds(takeoff(state, store)) == ["bad-state"]

    def test_the_last_number_is_reached_and_not_passed(self, state: Path, store: Path) -> None:
        def number_of_changes(number: int) -> None:
            body = number.to_bytes(8, "big") + (state / "a").read_bytes()[40:]
            for name in SLOTS:
                (state / name).write_bytes(derive(CONTEXT, body) + body)

        number_of_changes(INT_MAX - 1)
        assert takeoff(state, store).go
        assert read_state(state).number == INT_MAX
        before = listing(state, but=("lock", "tmp"))
        with pytest.raises(Corrupt, match="changed too often"):
            consume(state, FACTS.flight)
        assert listing(state, but=("lock", "tmp")) == before

    def test_slots_that_are_whole_and_hold_no_state_are_forgotten(self, state: Path) -> None:
        body = (5).to_bytes(8, "big") + b"no state"
        for name in SLOTS:
            (state / name).write_bytes(derive(CONTEXT, body) + body)
        with pytest.raises(Corrupt):
            read_state(state)
        assert enrol(state, STATE, again=True) == Enrolment(STATE, forgot=True)
        assert read_state(state).number > 5

    def test_a_newer_root_alone_is_one_change(self, state: Path, store: Path) -> None:
        assert takeoff(state, store).go
        number = read_state(state).number
        (store / "trust/2.root.cbor").write_bytes(sign_root(next_root(ROOT), "root-a"))
        assert takeoff(state, store).go
        assert (read_state(state).state.root.root.version, read_state(state).number) == (2, number + 1)
        assert takeoff(state, store).go
        assert read_state(state).number == number + 1

    def test_two_slots_that_contradict_each_other(self, state: Path, tmp_path: Path, store: Path) -> None:
        enrol(tmp_path / "other", replace(STATE, id="uav-08"))
        shutil.copy(tmp_path / "other" / "b", state / "b")
        assert kinds(takeoff(state, store)) == ["bad-state"]

    @pytest.mark.parametrize("make", [lambda p: p.symlink_to("a"), lambda p: os.mkfifo(p), lambda p: p.mkdir()])
    def test_something_else_in_a_slots_place_is_no_slot(self, state: Path, make: Callable[[Path], None]) -> None:
        (state / "b").unlink()
        make(state / "b")
        assert read_state(state).mend

    def test_a_bad_sector_under_one_slot(self, state: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bad_sectors(monkeypatch, (state / "a").stat().st_ino)
        assert read_state(state).mend
        bad_sectors(monkeypatch, (state / "b").stat().st_ino)
        verdict = takeoff(state, store)
        assert not verdict.go
        assert verdict.unknown

    def test_any_bit(self, state: Path) -> None:
        data = (state / "a").read_bytes()
        (state / "b").unlink()
        for bit in range(0, 8 * len(data), 37):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            (state / "a").write_bytes(flipped)
            with pytest.raises(Corrupt):
                read_state(state)

    def test_enrolled_once(self, state: Path, tmp_path: Path) -> None:
        with pytest.raises(Conflict):
            enrol(state, STATE)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "notes").write_text("mine")
        with pytest.raises(Invalid):
            enrol(tmp_path / "full", STATE)
        with pytest.raises(Unavailable):
            read_state(tmp_path / "full")

    def test_enrolled_again_is_above_what_was_there(self, state: Path, store: Path) -> None:
        """So that a slot of before that comes back is noticed."""
        enrol(state, XYZ, again=True)
        consume(state, "x")
        old = (state / "a").read_bytes()
        enrol(state, STATE, again=True)
        consume(state, "y")
        (state / "a").write_bytes(old)
        assert kinds(takeoff(state, store)) == ["bad-state"]


class TestEnrolledAgain:
    """An aircraft that is enrolled again is the same aircraft: it keeps what it remembers."""

    SECOND = next_root(ROOT, mission=role("co-pilot"), revoked=(role("pilot").keys[0],))

    def test_a_consumed_flight_stays_consumed(self, state: Path, store: Path) -> None:
        assert takeoff(state, store).go
        consume(state, FACTS.flight)
        before = read_state(state).state
        enrolment = enrol(state, AircraftState.initial(ID, "cpu-x86_64-avx512", pinned()), again=True)
        assert enrolment == Enrolment(replace(before, host="cpu-x86_64-avx512"), forgot=False)
        assert read_state(state).state == enrolment.state
        assert kinds(takeoff(state, store)) == ["consumed-flight"]
        assert not consume(state, FACTS.flight)

    def test_a_flight_in_the_air_can_be_consumed(self, state: Path, store: Path) -> None:
        assert takeoff(state, store).go
        enrol(state, STATE, again=True)
        assert consume(state, FACTS.flight)

    def test_what_was_accepted_is_not_rolled_back(self, state: Path, store: Path) -> None:
        lead(store, issued(sequence=ISSUE.sequence + 5))
        assert takeoff(state, store).go
        enrol(state, STATE, again=True)
        assert read_state(state).state.floor == NOW
        lead(store, NORTH)
        assert kinds(takeoff(state, store)) == ["rolled-back"]

    def test_a_revocation_stays(self, state: Path, store: Path) -> None:
        lead(store, NORTH, sign_root(self.SECOND, "root-a"))
        assert kinds(takeoff(state, store)) == ["revoked-key"]
        assert enrol(state, STATE, again=True).state.root.root == self.SECOND
        lead(store, NORTH)
        assert kinds(takeoff(state, store)) == ["revoked-key"]

    def test_a_newer_root_counts(self, state: Path, store: Path) -> None:
        assert takeoff(state, store).go
        second = next_root(ROOT, epoch=2)
        kept = enrol(state, AircraftState.initial(ID, HOST, pinned(second)), again=True).state
        assert (kept.root.root, dict(kept.missions), kept.accepted) == (second, {}, (FACTS.flight,))

    def test_another_trust_domain_has_missions_of_its_own(self, state: Path, store: Path) -> None:
        assert takeoff(state, store).go
        other = replace(ROOT, salt=bytes(16))
        enrolment = enrol(state, AircraftState.initial(ID, HOST, pinned(other)), again=True)
        kept = enrolment.state
        assert (kept.root.root, dict(kept.missions)) == (other, {})
        assert {(one.root.root, *one.missions) for one in enrolment.left} == {(ROOT, FACTS.id)}, "said, not silent"
        assert (kept.accepted, kept.issued, kept.clock) == ((FACTS.flight,), ROOT.issued_at, NOW)

    def test_a_file_is_no_place_for_a_state(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(Invalid, match="expected a folder, found a file"):
            enrol(tmp_path / "file", STATE)

    def test_the_state_of_another_aircraft_stays(self, state: Path) -> None:
        before = listing(state, but=("lock", "tmp"))
        with pytest.raises(Conflict, match=f"of the aircraft {ID}, not of uav-08"):
            enrol(state, AircraftState.initial("uav-08", HOST, pinned()), again=True)
        assert listing(state, but=("lock", "tmp")) == before

    def test_slots_that_came_apart_are_joined(self, state: Path) -> None:
        """What either of two slots remembers stays; the slot of another aircraft counts for nothing."""
        enrol(state, XYZ, again=True)
        old = (state / "b").read_bytes()
        for one in ("x", "y"):
            consume(state, one)
        (state / "b").write_bytes(old)
        kept = enrol(state, STATE, again=True).state
        assert (kept.accepted, kept.consumed) == (("z",), ("x", "y"))

    @pytest.mark.parametrize("slot", SLOTS)
    def test_one_slot_is_enough(self, state: Path, slot: str) -> None:
        enrol(state, XYZ, again=True)
        consume(state, "x")
        (state / slot).write_bytes(b"torn")
        assert enrol(state, STATE, again=True).state.consumed == ("x",)

    def test_what_no_slot_has_is_forgotten_and_told(self, state: Path) -> None:
        enrol(state, XYZ, again=True)
        consume(state, "x")
        for slot in SLOTS:
            (state / slot).write_bytes(b"torn")
        assert enrol(state, STATE, again=True) == Enrolment(STATE, forgot=True)

    def test_a_slot_that_cannot_be_read_now_is_not_replaced(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def denied(media: Media, name: str, limit: int) -> bytes:
            raise Unavailable("permission denied", errno=errno.EACCES)

        before = listing(state, but=("lock", "tmp"))
        with monkeypatch.context() as patch:
            patch.setattr(Media, "read", denied)
            with pytest.raises(Unavailable):
                enrol(state, STATE, again=True)
        assert listing(state, but=("lock", "tmp")) == before


class TestWriting:
    @pytest.mark.parametrize("act", ["consume", "enrol"])
    def test_no_power_cut_takes_a_consumed_flight_back(self, state: Path, tmp_path: Path, act: str) -> None:
        """At any operation of a consume, or of an enrolment again, what was consumed before stays consumed."""
        enrol(state, XYZ, again=True)
        consume(state, "x")

        def run(folder: Path, disk: Disk) -> None:
            if act == "consume":
                consume(folder, "y", disk=disk)
            else:
                enrol(folder, STATE, again=True, disk=disk)

        counted, folder = Recorded(), tmp_path / "counted"
        shutil.copytree(state, folder)
        run(folder, counted)
        assert len(counted.operations) > 8
        for stop in range(len(counted.operations)):
            folder = tmp_path / str(stop)
            shutil.copytree(state, folder)
            with pytest.raises(PowerFails):
                run(folder, PowerCut(stop))
            try:
                kept = read_state(folder).state
            except Corrupt:  # the enrolment was cut between the slots: it is made again
                assert act == "enrol"
                kept = enrol(folder, STATE, again=True).state
            assert "x" in kept.consumed
            assert {*kept.accepted, *kept.consumed} == {"x", "y", "z"}

    def test_a_power_cut_at_any_operation(self, state: Path, store: Path, tmp_path: Path) -> None:
        """What was remembered before is remembered after, or the new state is; GO is said only on the new one."""
        counted, folder = Recorded(), tmp_path / "counted"
        shutil.copytree(state, folder)
        assert takeoff(folder, store, disk=counted).go
        assert len(counted.operations) > 8
        for stop in range(len(counted.operations)):
            folder = tmp_path / str(stop)
            shutil.copytree(state, folder)
            with pytest.raises(PowerFails):
                takeoff(folder, store, disk=PowerCut(stop))
            assert read_state(folder).state.id == ID
            assert takeoff(folder, store).go
            assert not read_state(folder).mend

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
    def test_what_cannot_be_written_is_no_go(
        self, state: Path, store: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stop, failed = 0, True
        while failed:
            folder = tmp_path / f"{number}-{stop}"
            shutil.copytree(state, folder)
            failing = Failing(stop, number)
            with failing.installed(monkeypatch):
                verdict = takeoff(folder, store, disk=Orderly())
            failed = bool(failing.failed)
            if failed and not verdict.go:
                assert verdict.unknown
            if failed and verdict.go:
                # What failed was no part of the state; the state is durable in both slots.
                assert not read_state(folder).mend
                assert read_state(folder).state.missions
            assert takeoff(folder, store).go
            stop += 1
        assert stop > 8


class _Cut(Disk):
    """A disk on which the second slot of a change never arrives."""

    def __init__(self) -> None:
        self.renames = 0

    def rename(self, source: str, target: str) -> None:
        self.renames += 1
        if self.renames == 2:
            raise Unavailable("the power is gone")
        super().rename(source, target)


def test_any_number_of_cuts_leaves_a_state(state: Path, store: Path) -> None:
    """The slot that is behind is written first, so that they never come apart."""
    flights = tuple(f"f{number}" for number in range(5))
    enrol(state, replace(STATE, accepted=flights), again=True)
    for one in flights:
        with pytest.raises(Unavailable):
            consume(state, one, disk=_Cut())
        assert read_state(state).state.consumed[-1] == one
    assert takeoff(state, store).go
    assert not read_state(state).mend


class TestChainThatIsReadTwice:
    """A bad stick that gives the newest root once and not the next time, or the other way round."""

    class Flaky(StoreEvidence):
        def __init__(self, media: Media, error: Exception | None, first: bool) -> None:
            super().__init__(media)
            self._error, self._first, self._reads = error, first, 0

        def chain(self, after: int) -> Sequence[bytes]:
            self._reads += 1
            if (self._reads == 1) == self._first:
                if self._error is not None:
                    raise self._error
                return []
            return super().chain(after)

    @pytest.mark.parametrize("first", [True, False])
    @pytest.mark.parametrize("error", [None, Unavailable("EIO"), Corrupt("torn", kind="bad-trust-chain")], ids=repr)
    def test_no_go_under_a_root_that_is_not_kept(
        self, state: Path, store: Path, error: Exception | None, first: bool
    ) -> None:
        second = next_root(ROOT, mission=role("pilot", "co-pilot"))
        lead(store, NORTH, sign_root(second, "root-a"))
        with Media(store) as media:
            verdict = check(state, self.Flaky(media, error, first), NORTH.id, now=NOW)
        known = read_state(state).state.root.root
        assert not verdict.go or verdict.mission is None or verdict.mission.trust_root.digest == known.digest
        assert takeoff(state, store).go
        assert read_state(state).state.root.root == second


def test_a_store_that_cannot_be_read_is_not_told_as_the_state(
    state: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead(store, NORTH, sign_root(next_root(ROOT), "root-a"))
    bad_sectors(monkeypatch, (store / "trust/2.root.cbor").stat().st_ino)
    (finding,) = takeoff(state, store).findings
    assert finding.unreadable
    assert "copy the store again" in finding.remedy


def test_missions_of_an_ended_epoch_are_forgotten(state: Path, store: Path) -> None:
    assert takeoff(state, store).go
    second = next_root(ROOT, epoch=2)
    lead(store, NORTH, sign_root(second, "root-a"))
    assert kinds(takeoff(state, store)) == ["wrong-epoch"]
    assert not read_state(state).state.missions


def test_no_state_inside_a_store(store: Path) -> None:
    before = listing(store)
    with pytest.raises(Invalid):
        enrol(store / "state", STATE)
    for folder in (store, store / "objects"):
        with pytest.raises(Unavailable):
            consume(folder, "x")
    assert listing(store) == before
