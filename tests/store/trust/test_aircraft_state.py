"""What an aircraft remembers, as a value: only canonical bytes parse, and nothing is enrolled that is not valid."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import FlightbagError, Invalid
from store.format.cbor import INT_MAX
from store.trust.aircraft_state import Acceptance, AircraftState
from tests.support.missions import pinned

ID, HOST = "uav-07", "cpu-x86_64-avx2"
STATE = AircraftState.initial(ID, HOST, pinned())
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
    known = replace(STATE, missions=missions, consumed=tuple(sorted(consumed)), floor=floor)
    assert AircraftState.parse(known.render()) == known


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_no_state(data: bytes) -> None:
    with pytest.raises(FlightbagError):
        AircraftState.parse(data)


@pytest.mark.parametrize(("id_", "host"), [("UAV", HOST), ("", HOST), (ID, "b+a"), (ID, "")])
def test_what_cannot_be_enrolled(id_: str, host: str) -> None:
    with pytest.raises(Invalid):
        AircraftState.initial(id_, host, pinned())
