"""An aircraft refuses what it has outgrown, mission by mission, and forgets only what cannot fly."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt, FlightbagError, Invalid, Untrusted
from store.format.cbor import INT_MAX, decode, encode
from store.format.manifest import Manifest
from store.trust.aircraft_state import STATE_LIMIT, Acceptance, AircraftState, payload_digest
from tests.support.missions import CONTENTS, FACTS, ISSUE, NOW, ROOT, manifest_of, pinned, table_of

PINNED = pinned()
NEW = AircraftState.initial("uav-07", "cpu-x86_64", PINNED)


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
    assert (NEW.missions, NEW.consumed, NEW.floor) == ({}, (), ROOT.issued_at)


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
    state = NEW.consuming(FACTS.flight)
    assert objections(state, mission()) == ["consumed-flight"]
    assert objections(state, mission(flight="2026-11-24-01")) == []
    for flight in (FACTS.flight, "", "no flight"):
        with pytest.raises(Invalid):
            state.consuming(flight)


def test_the_floor_only_rises() -> None:
    state = NEW.accepting(mission(), now=NOW)
    assert state.floor == max(ROOT.issued_at, ISSUE.issued_at, NOW)
    assert state.accepting(mission(), now=0).floor == state.floor


def test_a_newer_root_ends_the_missions_of_earlier_epochs() -> None:
    state = replace(NEW, missions={"old": Acceptance(1, 5, bytes(32)), "new": Acceptance(2, 5, bytes(32))})
    newer = replace(PINNED, root=replace(ROOT, epoch=2, issued_at=ROOT.issued_at + 5))
    assert set(state.with_root(newer).missions) == {"new"}
    assert state.with_root(newer).floor == ROOT.issued_at + 5
    assert set(state.with_root(PINNED).missions) == {"old", "new"}


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
        {"floor": -1},
        {"more": 1},
    ],
)
def test_a_state_that_breaks_a_rule_is_refused(fields: dict[str, object]) -> None:
    value = decode(NEW.render(), limit=STATE_LIMIT, what="the state")
    with pytest.raises((Corrupt, Untrusted)):
        AircraftState.parse(encode({**value, **fields}))
    assert AircraftState.parse(encode(value)) == NEW


names = st.text("abcdefghij", min_size=1, max_size=8)


@given(
    missions=st.dictionaries(
        names,
        st.builds(Acceptance, st.integers(1, INT_MAX), st.integers(1, INT_MAX), st.binary(min_size=32, max_size=32)),
        max_size=6,
    ),
    consumed=st.sets(names, max_size=6),
    floor=st.integers(0, 253402300799),
)
def test_a_state_comes_back_as_it_was(missions: dict[str, Acceptance], consumed: set[str], floor: int) -> None:
    known = replace(NEW, missions=missions, consumed=tuple(sorted(consumed)), floor=floor)
    assert AircraftState.parse(known.render()) == known


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_state(data: bytes) -> None:
    with pytest.raises(FlightbagError):
        AircraftState.parse(data)
