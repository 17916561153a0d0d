"""Proofs of one entry: laws and edges. What attackers do is in tests/conformance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import FlightbagError, NotFound
from store.takeoff.mission import Opened
from store.takeoff.proof import PROOF_LIMIT, Proof, prove
from tests.support.missions import ROOT, flight, next_root, pinned, sign_root
from tests.support.stores import ENGINE, NORTH


@given(count=st.integers(1, 70), index=st.integers(0, 69))
def test_every_entry_of_every_mission(count: int, index: int) -> None:
    one = flight({f"files/x/{number}": b"%d" % number for number in range(count)})
    opened = Opened(one.manifest, one.manifest_id, len(one.signed), one.table, ROOT)
    entry = one.table.entries[index % count]
    data = Proof.of(opened, one.signed, [], entry.name).render()
    assert len(data) < PROOF_LIMIT
    assert Proof.parse(data).render() == data
    shown = prove(Proof.parse(data), pinned())
    assert (shown.entry, shown.manifest) == (entry, one.manifest)


def test_no_such_entry() -> None:
    opened = Opened(NORTH.manifest, NORTH.manifest_id, len(NORTH.signed), NORTH.table, ROOT)
    with pytest.raises(NotFound):
        Proof.of(opened, NORTH.signed, [], "files/none")


def test_roots_before_the_pinned_one_are_passed_over() -> None:
    second = next_root(ROOT)
    third = next_root(second)
    opened = Opened(NORTH.manifest, NORTH.manifest_id, len(NORTH.signed), NORTH.table, ROOT)
    files = [sign_root(second, "root-a"), sign_root(third, "root-a")]
    proof = Proof.of(opened, NORTH.signed, files, ENGINE)
    for root, names in ((ROOT, ()), (second, ("root-a",)), (third, ("root-a",))):
        assert prove(proof, pinned(root, *names)).root.root == third


@given(st.binary(max_size=300))
def test_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(FlightbagError):
        Proof.parse(data)
