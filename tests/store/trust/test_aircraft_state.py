"""An aircraft refuses what it has outgrown, mission by mission, and forgets only what cannot fly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Refused, Untrusted
from store.format.cbor import INT_MAX, decode, encode
from store.format.manifest import SKEW, TIME_MAX, Manifest
from store.format.withdrawal import Withdrawal
from store.trust.aircraft_state import (
    MAX_ACCEPTED,
    MAX_CONSUMED,
    MAX_MISSIONS,
    MAX_PROOFS,
    MAX_RELEASES,
    STATE_LIMIT,
    Acceptance,
    AircraftState,
    payload_digest,
)
from store.trust.root import SignedRoot
from tests.support.missions import (
    CONTENTS,
    COVERAGE,
    FACTS,
    ISSUE,
    NOW,
    ROOT,
    manifest_of,
    next_root,
    pinned,
    role,
    table_of,
    withdrawal,
)

PINNED = pinned()
NEW = AircraftState.initial("uav-07", "cpu-x86_64", PINNED)


def after_root(**changes: int) -> SignedRoot:
    """The trust root after the pinned one, as if it were signed."""
    return replace(PINNED, root=next_root(ROOT, **changes))


def mission(sequence: int = ISSUE.sequence, *, epoch: int = ISSUE.epoch, id_: str = FACTS.id, **facts: str) -> Manifest:
    return manifest_of(
        table_of(CONTENTS),
        issue=replace(ISSUE, epoch=epoch, sequence=sequence),
        mission=replace(FACTS, id=id_, **facts),
    )


def objections(state: AircraftState, manifest: Manifest) -> list[str]:
    return [kind for kind, *_ in state.objections(manifest)]


def test_a_new_aircraft_objects_to_nothing() -> None:
    assert objections(NEW, mission()) == []
    assert (NEW.missions, NEW.accepted, NEW.consumed, NEW.issued, NEW.clock) == ({}, (), (), ROOT.issued_at, 0)


def test_an_older_mission_is_refused_and_a_newer_one_is_not() -> None:
    state = NEW.accepting(mission(100), now=0)
    assert objections(state, mission(99)) == ["rolled-back"]
    assert objections(state, mission(101)) == []
    assert objections(state, mission(99, epoch=2)) == []
    assert objections(state, mission(99, id_="south-bay")) == []


def test_one_sequence_has_one_payload() -> None:
    state = NEW.accepting(mission(100), now=0)
    assert objections(state, mission(100)) == []
    other = mission(100, flight="2026-11-24-01")
    assert objections(state, other) == ["same-sequence"]
    assert payload_digest(other) != payload_digest(mission(100))


def test_a_flight_is_flown_once() -> None:
    state = NEW.accepting(mission(), now=0).consuming(FACTS.flight)
    assert objections(state, mission()) == ["consumed-flight"]
    assert objections(state, mission(ISSUE.sequence + 1)) == ["consumed-flight"]
    assert objections(state, mission(ISSUE.sequence + 1, flight="2026-11-24-01")) == []
    assert (state.accepted, state.consumed) == ((), (FACTS.flight,))
    assert state.consuming(FACTS.flight) is state
    for flight in ("", "no flight", "x" * 65):
        with pytest.raises(Invalid):
            state.consuming(flight)


def test_only_a_flight_that_had_a_go_is_consumed() -> None:
    with pytest.raises(NotFound) as caught:
        NEW.consuming(FACTS.flight)
    assert "verify" in caught.value.remedy
    state = replace(NEW, accepted=("2026-11-23-01", "2026-11-24-01", "night", "training", "z"))
    with pytest.raises(NotFound) as caught:
        state.consuming("2026-11-23-10")
    assert caught.value.kind == "unknown-flight"
    assert "nearest first: 2026-11-23-01, 2026-11-24-01, and 3 more" in caught.value.remedy
    with pytest.raises(NotFound, match="consume") as caught:
        state.consuming("consume")
    assert "nearest first: 2026-11-23-01, 2026-11-24-01, night, and 2 more" in caught.value.remedy


def flights(count: int, prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}{number:0{64 - len(prefix)}}" for number in range(count))


def test_the_fullest_state_has_room_and_no_more() -> None:
    missions = {id_: Acceptance(INT_MAX, INT_MAX, bytes(32)) for id_ in flights(MAX_MISSIONS, "m")}
    full = replace(NEW, missions=missions, accepted=flights(MAX_ACCEPTED, "a"), consumed=flights(MAX_CONSUMED, "c"))
    digests = tuple(number.to_bytes(32, "big") for number in range(MAX_PROOFS))
    full = replace(full, proofs=digests, releases=digests[:MAX_RELEASES])
    assert AircraftState.parse(full.render()) == full
    for refused in (
        lambda: full.accepting(mission(), now=0),
        lambda: replace(full, missions={}).accepting(mission(), now=0),
        lambda: replace(full, accepted=()).accepting(mission(), now=0),
        lambda: full.consuming(full.accepted[0]),
        lambda: NEW.continuing([full, replace(full, accepted=flights(MAX_ACCEPTED, "b"))]),
        lambda: full.proving([b"p" * 32], []),
        lambda: full.with_withdrawals([withdrawal()]),
        lambda: full.with_withdrawals([Withdrawal("x", NOW, release=b"p" * 32)]),
        lambda: NEW.continuing([full, replace(full, releases=digests[-MAX_RELEASES:])]),
    ):
        with pytest.raises(Refused) as caught:
            refused()
        assert (caught.value.kind, bool(caught.value.remedy)) == ("state-full", True)


def test_proofs_come_and_go_with_what_a_probe_shows() -> None:
    one, two, three = (bytes([number]) * 32 for number in (1, 2, 3))
    state = NEW.proving([two, one], [])
    assert state.proofs == (one, two)
    assert state.proving([one], [three]) is state
    assert state.proving([three], [one]).proofs == (two, three)
    assert state.proving([one], [one]).proofs == (two,), "what held and did not hold is not proven"
    full = replace(NEW, proofs=tuple(number.to_bytes(32, "big") for number in range(MAX_PROOFS)))
    assert full.proving([], [bytes(32)]).proofs == full.proofs[1:]
    assert full.proving([one], [bytes(32)]).proofs == (*full.proofs[1:], one)
    # What is said to help does.
    with pytest.raises(Refused) as caught:
        full.proving([one], [])
    assert "enrol the aircraft again" in caught.value.remedy
    other = AircraftState.initial(NEW.id, "cpu", PINNED).continuing([full])
    assert NEW.continuing([other]).proving([one], []).proofs == (one,)


def test_proofs_are_of_the_machine() -> None:
    proven = NEW.proving([b"p" * 32], [])
    assert NEW.continuing([proven]).proofs == proven.proofs
    assert proven.with_root(after_root(epoch=2)).proofs == proven.proofs
    domain = replace(PINNED, root=replace(ROOT, salt=bytes(16)))
    assert replace(NEW, root=domain).continuing([proven]).proofs == proven.proofs
    for host in ("cpu", "cpu-x86_64-avx2", "cpu-aarch64", "cpu-x86_64+ort-1.22.0"):
        assert replace(NEW, host=host).continuing([proven]).proofs == ()
    # Of two slots that came apart, the one that lacks it may have refuted it.
    assert NEW.continuing([proven, NEW]).proofs == NEW.continuing([NEW, proven]).proofs == ()
    assert NEW.continuing([proven, replace(proven, host="cpu")]).proofs == ()
    assert NEW.continuing([]).proofs == ()


def test_the_floor_only_rises() -> None:
    state = NEW.accepting(mission(), now=NOW)
    assert (state.issued, state.clock, state.floor) == (ISSUE.issued_at, NOW, NOW)
    assert state.accepting(mission(), now=0) == state
    assert state.accepting(mission(), now=NOW + 5).floor == NOW + 5
    assert state.with_root(after_root(issued_at=NOW + 9)).floor == NOW + 9
    assert state.with_root(after_root(issued_at=0)).floor == NOW


def test_a_clock_moves_the_floor_only_before_an_end() -> None:
    """A mission that never runs out does not say whether the clock is right."""
    endless = replace(mission(), issue=replace(ISSUE, expires_at=None))
    assert NEW.accepting(endless, now=NOW).floor == ISSUE.issued_at
    aging = replace(endless, coverage=replace(COVERAGE, max_age_days=400))
    assert NEW.accepting(aging, now=NOW).floor == NOW
    nothing = replace(aging, coverage=replace(aging.coverage, missing=COVERAGE.tiles, required_ppm=0))
    assert NEW.accepting(nothing, now=NOW).floor == ISSUE.issued_at


def test_a_newer_root_ends_the_missions_of_earlier_epochs() -> None:
    state = replace(NEW, missions={"old": Acceptance(1, 5, bytes(32)), "new": Acceptance(2, 5, bytes(32))})
    newer = after_root(epoch=2, issued_at=ROOT.issued_at + 5)
    assert set(state.with_root(newer).missions) == {"new"}
    assert state.with_root(newer).floor == ROOT.issued_at + 5
    assert set(state.with_root(PINNED).missions) == {"old", "new"}


FAR = 4_000_000_000  # a year in which nobody flies


class TestATimeThatWasAhead:
    """What drives the floor up, and what brings it back. Nothing takes a flight away."""

    def flown(self, **times: int) -> AircraftState:
        return replace(NEW.accepting(mission(), now=0).consuming(FACTS.flight), accepted=("next",), **times)

    def test_what_an_epoch_added_goes_with_it(self) -> None:
        state = self.flown(issued=FAR, clock=NOW).with_root(after_root(epoch=2, issued_at=NOW))
        assert (state.issued, state.clock, state.accepted, state.consumed) == (NOW, NOW, ("next",), (FACTS.flight,))

    def test_a_root_of_the_same_epoch_leaves_it(self) -> None:
        assert self.flown(issued=FAR).with_root(after_root(issued_at=NOW)).floor == FAR

    def test_no_epoch_ends_what_a_clock_said(self) -> None:
        assert self.flown(clock=FAR).with_root(after_root(epoch=2, issued_at=NOW)).floor == FAR

    @pytest.mark.parametrize(
        ("now", "epoch", "issued"),
        [
            *((None, 1, FAR), (None, 2, FAR), (NOW, 1, ISSUE.issued_at), (NOW, 2, 0)),
            *((FAR - SKEW, 2, FAR), (FAR - SKEW - 1, 2, 0), (TIME_MAX + 1, 2, FAR)),
        ],
    )
    def test_a_root_that_a_trusted_clock_refuses_enters_without_its_time(
        self, now: int | None, epoch: int, issued: int
    ) -> None:
        root = after_root(epoch=epoch, issued_at=FAR)
        state = self.flown().with_root(root, now=now)
        assert (state.root, state.issued) == (root, issued)

    def test_a_person_lowers_both(self) -> None:
        state = self.flown(issued=FAR, clock=FAR)
        lowered = state.lowering(NOW)
        assert lowered == replace(state, issued=NOW, clock=NOW)
        assert lowered.lowering(NOW) == lowered
        assert lowered.lowering(FAR) == lowered, "it lowers, and raises nothing"

    def test_the_trust_root_holds_the_floor(self) -> None:
        state = self.flown(issued=FAR, clock=FAR)
        early = ROOT.issued_at - SKEW
        assert state.lowering(early) == replace(state, issued=ROOT.issued_at, clock=early)
        with pytest.raises(Refused, match="trust root 1 was issued at") as caught:
            state.lowering(early - 1)
        assert caught.value.kind == "issued-in-future"
        assert "new-epoch" in caught.value.remedy

    @pytest.mark.parametrize("at", [-1, TIME_MAX + 1])
    def test_a_time_of_no_calendar(self, at: int) -> None:
        with pytest.raises(Invalid):
            self.flown().lowering(at)

    def test_a_trust_root_of_the_future_is_replaced_by_another(self) -> None:
        """The one case that cannot be lowered: the root after it, of a new epoch, ends it."""
        state = self.flown().with_root(after_root(issued_at=FAR))
        with pytest.raises(Refused):
            state.lowering(NOW)
        third = replace(PINNED, root=next_root(state.root.root, epoch=2, issued_at=NOW))
        assert state.with_root(third).floor == NOW
        same_epoch = replace(PINNED, root=next_root(state.root.root, issued_at=NOW))
        assert state.with_root(same_epoch).floor == FAR
        assert state.with_root(same_epoch).lowering(NOW).floor == NOW

    def test_enrolled_again_it_keeps_the_newest_epoch(self) -> None:
        second = after_root(epoch=2, issued_at=NOW)
        fresh = AircraftState.initial(NEW.id, NEW.host, second)
        kept = fresh.continuing([self.flown(issued=FAR, clock=NOW + 7)])
        assert (kept.issued, kept.clock, kept.consumed) == (NOW, NOW + 7, (FACTS.flight,))
        back = NEW.continuing([replace(kept, issued=NOW + 3)])
        assert (back.root, back.issued) == (second, NOW + 3), "an older root begins no earlier epoch"

    def test_another_domain_has_an_epoch_of_its_own(self) -> None:
        other = replace(PINNED, root=replace(ROOT, salt=bytes(16), root=role("root-b")))
        kept = AircraftState.initial(NEW.id, NEW.host, other).continuing([self.flown(issued=FAR, clock=NOW)])
        assert (kept.issued, kept.clock, kept.consumed) == (ROOT.issued_at, NOW, (FACTS.flight,))


@pytest.mark.parametrize(
    ("id_", "host"),
    [
        *(("UAV", "cpu"), ("", "cpu"), ("uav-07", ""), ("uav-07", "ort-1.22+cpu"), ("u", "auto")),
        *(("u", "banana"), ("u", "cpu-arm"), ("u", "cpu-x86-64"), ("u", "cpu+ort>=1.22")),
    ],
)
def test_ids_and_classes_are_checked(id_: str, host: str) -> None:
    with pytest.raises(Invalid):
        AircraftState.initial(id_, host, PINNED)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": 2},
        {"id": "UAV"},
        {"root": b""},
        {"missions": [["b", 1, 1, bytes(32)], ["a", 1, 1, bytes(32)]]},
        {"missions": [["a", 0, 1, bytes(32)]]},
        {"missions": [["a", 1, 1, bytes(31)]]},
        {"missions": [["a", 1, 1]]},
        {"consumed": ["b", "a"]},
        {"consumed": ["no flight"]},
        {"accepted": ["b", "a"]},
        {"accepted": ["no flight"]},
        {"accepted": ["a", "b"], "consumed": ["b"]},
        {"issued": -1},
        {"clock": -1},
        {"issued": TIME_MAX + 1},
        {"clock": TIME_MAX + 1},
        {"proofs": [b"b" * 32, b"a" * 32]},
        {"proofs": [b"a" * 32] * 2},
        {"proofs": [b"a" * 31]},
        {"proofs": ["a" * 32]},
        {"proofs": {}},
        {"floor": 1},
        {"more": 1},
    ],
)
def test_a_state_that_breaks_a_rule_is_refused(fields: dict[str, object]) -> None:
    value = decode(NEW.render(), limit=STATE_LIMIT, what="the state")
    with pytest.raises((Corrupt, Untrusted)):
        AircraftState.parse(encode({**value, **fields}))
    assert AircraftState.parse(encode(value)) == NEW


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "UAV 07"},
        {"host": "no class"},
        {"accepted": ("b", "a")},
        {"accepted": ("a",), "consumed": ("a",)},
        {"consumed": ("no flight",)},
        {"missions": {"No Mission": Acceptance(1, 1, bytes(32))}},
        {"missions": {"north": Acceptance(0, 1, bytes(32))}},
        {"missions": {"north": Acceptance(1, 1, bytes(31))}},
        {"issued": -1},
        {"clock": TIME_MAX + 1},
        {"proofs": (b"short",)},
    ],
)
def test_nothing_is_rendered_that_would_not_parse(fields: dict[str, Any]) -> None:
    with pytest.raises(Corrupt):
        replace(NEW, **fields).render()


names = st.text("abcdefghij", min_size=1, max_size=8)


@given(
    missions=st.dictionaries(
        names,
        st.builds(
            Acceptance, st.integers(1, INT_MAX), st.integers(1, INT_MAX), st.sampled_from([b"", bytes(32), b"p" * 32])
        ),
        max_size=6,
    ),
    accepted=st.sets(names, max_size=6),
    consumed=st.sets(names, max_size=6),
    times=st.tuples(st.integers(0, TIME_MAX), st.integers(0, TIME_MAX)),
    proofs=st.sets(st.binary(min_size=32, max_size=32), max_size=4),
)
def test_a_state_comes_back_as_it_was(
    missions: dict[str, Acceptance],
    accepted: set[str],
    consumed: set[str],
    times: tuple[int, int],
    proofs: set[bytes],
) -> None:
    flights = {"accepted": tuple(sorted(accepted - consumed)), "consumed": tuple(sorted(consumed))}
    known = replace(NEW, missions=missions, issued=times[0], clock=times[1], proofs=tuple(sorted(proofs)), **flights)
    assert AircraftState.parse(known.render()) == known


states = st.builds(
    lambda missions, accepted, consumed, issued, clock: replace(
        NEW,
        missions=missions,
        accepted=tuple(sorted(accepted - consumed)),
        consumed=tuple(sorted(consumed)),
        issued=issued,
        clock=clock,
    ),
    st.dictionaries(
        names, st.builds(Acceptance, st.just(1), st.integers(1, 9), st.sampled_from([b"", bytes(32)])), max_size=4
    ),
    st.sets(names, max_size=4),
    st.sets(names, max_size=4),
    st.integers(ROOT.issued_at, NOW),
    st.integers(0, NOW),
)


@given(st.lists(states, max_size=2), st.text("abc.-_:9", max_size=9))
def test_nothing_takes_a_consumed_flight_back(earlier: list[AircraftState], flight: str) -> None:
    kept = NEW.continuing(earlier)
    consumed = {one for state in earlier for one in state.consumed}
    assert {*kept.consumed} == consumed
    assert {*kept.accepted} == {one for state in earlier for one in state.accepted} - consumed
    assert kept.issued == max([NEW.issued, *(state.issued for state in earlier)])
    assert kept.clock == max([0, *(state.clock for state in earlier)])
    assert all(kept.missions[id_].rank >= last.rank for state in earlier for id_, last in state.missions.items())
    try:
        after = kept.consuming(flight)
    except FlightbagError:
        assert flight not in (*kept.accepted, *kept.consumed)
    else:
        assert {*after.consumed} == consumed | {flight}


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_state(data: bytes) -> None:
    with pytest.raises(FlightbagError):
        AircraftState.parse(data)


class TestWithdrawals:
    SEEN = NEW.with_withdrawals([withdrawal()])
    NAME = withdrawal().name

    def test_what_was_seen_is_remembered(self) -> None:
        assert NEW.withdrawn(self.NAME) is None
        assert self.SEEN.withdrawn(self.NAME) == ISSUE.order
        assert self.SEEN.withdrawn("south-ridge.mission") is None
        assert AircraftState.parse(self.SEEN.render()) == self.SEEN
        assert self.SEEN.with_withdrawals([withdrawal()]) is self.SEEN

    def test_an_older_withdrawal_takes_nothing_back(self) -> None:
        assert self.SEEN.with_withdrawals([withdrawal(sequence=1)]) is self.SEEN
        assert self.SEEN.with_withdrawals([withdrawal(sequence=INT_MAX)]).withdrawn(self.NAME) == (1, INT_MAX)

    def test_it_ends_what_was_accepted_and_a_later_acceptance_ends_it(self) -> None:
        accepted = NEW.accepting(mission(), now=0)
        assert accepted.with_withdrawals([withdrawal()]).withdrawn(self.NAME) == ISSUE.order
        after = self.SEEN.accepting(mission(ISSUE.sequence + 1), now=0)
        assert after.withdrawn(self.NAME) is None
        assert after.with_withdrawals([withdrawal()]) is after
        assert objections(after, mission()) == ["rolled-back"]
        assert objections(self.SEEN, mission()) == [], "the takeoff check tells of a withdrawal, once"

    def test_a_new_epoch_ends_it_and_no_other_one_does(self) -> None:
        assert self.SEEN.with_root(after_root(), now=None).withdrawn(self.NAME)
        assert self.SEEN.with_root(after_root(epoch=2), now=None).withdrawn(self.NAME) is None
        assert NEW.with_withdrawals([withdrawal(epoch=INT_MAX)]) is NEW, "no key reaches beyond its epoch"

    def test_enrolled_again(self) -> None:
        release = Withdrawal("x", NOW, release=bytes(32))
        seen = self.SEEN.with_withdrawals([release])
        accepted = NEW.accepting(mission(), now=0)
        for earlier in ([seen], [seen, accepted], [accepted, seen]):
            again = NEW.continuing(earlier)
            assert again.withdrawn(self.NAME) == ISSUE.order
            assert again.withdrawn(release.name) == (0, 0)
