"""Receipts: what is written is what is read, and nothing else is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt
from store.format.cbor import INT_MAX, decode, encode
from store.format.host import MAX_CLASS
from store.format.ids import ObjectId
from store.format.manifest import TIME_MAX
from store.format.receipt import MAX_PROOFS, PAYLOAD_LIMIT, Receipt, Verified

_digests = st.binary(min_size=32, max_size=32)
_counts = st.integers(1, INT_MAX)
_verified = st.builds(
    Verified,
    mission=st.from_regex("[a-z][a-z0-9-]{0,63}", fullmatch=True),
    manifest=st.builds(ObjectId, _digests),
    epoch=_counts,
    sequence=_counts,
    root=_counts,
    objects=_counts,
    bytes_read=_counts,
    from_medium=st.booleans(),
    host=st.sampled_from([None, "cpu-x86_64", "linux-aarch64+sm87"]),
    proofs=st.sets(_digests, max_size=3).map(lambda proofs: tuple(sorted(proofs))),
)
made = st.builds(
    Receipt,
    key=_digests,
    aircraft=st.just("uav-07"),
    flight=st.just("2026-11-23-01"),
    at=st.integers(0, TIME_MAX),
    clock=st.sampled_from(["trusted", "known"]),
    verified=st.none() | _verified,
)
# As long as a receipt may be.
VERIFIED = Verified(
    "m" * 64,
    ObjectId(bytes(32)),
    INT_MAX,
    INT_MAX,
    INT_MAX,
    INT_MAX,
    INT_MAX,
    from_medium=True,
    host="cpu-x86_64-avx2+ort-" + ".".join(["123456789"] * 4),
    proofs=tuple(bytes([n]) * 32 for n in range(MAX_PROOFS)),
)
LONGEST = Receipt(bytes(32), "a" * 64, "f" * 64, TIME_MAX, "trusted", VERIFIED)
GOOD = replace(LONGEST, verified=replace(VERIFIED, proofs=(), host="cpu-x86_64"))


@given(made)
def test_a_rendered_receipt_parses_to_itself(one: Receipt) -> None:
    data = one.render()
    assert Receipt.parse(data) == one
    assert Receipt.parse(data).render() == data


def test_a_receipt_of_a_desk_has_no_aircraft_and_the_longest_one_fits() -> None:
    desk = replace(GOOD, aircraft=None)
    assert Receipt.parse(desk.render()) == desk
    assert Receipt.parse(LONGEST.render()) == LONGEST
    assert len(LONGEST.render()) + MAX_CLASS < PAYLOAD_LIMIT


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        Receipt.parse(data)


def values() -> dict[str, dict[str, Any]]:
    """Payloads that differ from a good one by their name; None leaves a field out."""
    verified = decode(GOOD.render(), limit=PAYLOAD_LIMIT, what="it")["verified"]

    def within(**changes: Any) -> dict[str, Any]:
        return {"verified": {key: value for key, value in {**verified, **changes}.items() if value is not None}}

    return {
        "version 2": {"version": 2},
        "a short key": {"key": bytes(31)},
        "a key as text": {"key": "x" * 32},
        "an aircraft with a space": {"aircraft": "uav 07"},
        "an aircraft that is empty": {"aircraft": ""},
        "no flight": {"flight": None},
        "a flight with a line": {"flight": "a\nb"},
        "before time": {"at": -1},
        "after all calendars": {"at": TIME_MAX + 1},
        "a clock of another kind": {"clock": "mine"},
        "no clock": {"clock": None},
        "another field": {"mission": "x"},
        "verified as an array": {"verified": []},
        "flown by nobody": {"verified": None, "aircraft": None},
        "a mission with a slash": within(mission="../x"),
        "a short manifest": within(manifest=bytes(31)),
        "an issue of one number": within(issue=[1]),
        "an issue of sequence 0": within(issue=[1, 0]),
        "no root": within(root=None),
        "root 0": within(root=0),
        "a host that is a need": within(host="ort>=1.20"),
        "a host that is none": within(host="z80"),
        "less than no objects": within(objects=-1),
        "a number of bytes that is text": within(bytes="1"),
        "a medium of another kind": within(medium=2),
        "no proofs": within(proofs=None),
        "short proofs": within(proofs=[bytes(31)]),
        "proofs of text": within(proofs=["x" * 32]),
        "a proof twice": within(proofs=[bytes(32)] * 2),
        "more proofs": within(proofs=[bytes([n]) * 32 for n in range(MAX_PROOFS + 1)]),
        "another field of verified": within(flight="x"),
    }


@pytest.mark.parametrize("name", values())
def test_one_broken_rule_is_refused(name: str) -> None:
    good = decode(GOOD.render(), limit=PAYLOAD_LIMIT, what="it")
    value = {key: item for key, item in {**good, **values()[name]}.items() if item is not None}
    with pytest.raises(Corrupt) as caught:
        Receipt.parse(encode(value))
    assert "receipt" in str(caught.value)


def test_what_is_larger_than_a_receipt_is_not_parsed() -> None:
    with pytest.raises(Corrupt) as caught:
        Receipt.parse(GOOD.render() + bytes(PAYLOAD_LIMIT))
    assert caught.value.kind == "too-large"
