"""Who has signed what a store holds, also after keys were renamed, removed or revoked."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.errors import FlightbagError
from store.format.cose import Envelope, Signature
from store.format.ids import ObjectId
from store.format.manifest import CONTENT_TYPE, PAYLOAD_LIMIT
from store.ground.repository import Repository
from store.ground.signers import Roster
from store.ground.trust_chain import put_into_effect
from tests.support.missions import NOW, ROOT, key, next_root, role, sign_root
from tests.support.stores import NORTH, file_of, make_store

PILOT, RELIEF = key("pilot").public, key("relief").public


def test_a_key_that_left_keeps_its_name_and_what_it_has_signed(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", NORTH)
    second = next_root(ROOT, names=((PILOT, "Pia"),))
    third = next_root(second, mission=role("relief"), names=((RELIEF, "Rea"),))
    with Repository.open(store) as repository:
        for root in (second, third):
            put_into_effect(repository, root.version, sign_root(root, "root-a"), at=NOW)
        roster = Roster.of(repository)
        assert roster.names == {PILOT.kid: "Pia", RELIEF.kid: "Rea"}
        assert roster.signers(repository, NORTH.manifest_id) == (PILOT.kid,)


def test_the_newest_name_counts(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", NORTH)
    second = next_root(ROOT, names=((PILOT, "Pia"),))
    with Repository.open(store) as repository:
        for root in (second, next_root(second, names=((PILOT, "Chief pilot"),))):
            put_into_effect(repository, root.version, sign_root(root, "root-a"), at=NOW)
        assert Roster.of(repository).names == {PILOT.kid: "Chief pilot"}


def test_only_good_signatures_of_keys_of_the_chain(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", NORTH)
    envelope = Envelope.parse(NORTH.signed, CONTENT_TYPE, PAYLOAD_LIMIT)
    (good,) = envelope.signatures
    forged = Envelope(CONTENT_TYPE, envelope.payload, (Signature(good.kid, bytes(64)),)).render()
    strange = Envelope(CONTENT_TYPE, envelope.payload, (Signature(bytes(32), good.signature),)).render()
    with Repository.open(store) as repository:
        roster = Roster.of(repository)
        for data in (forged, strange, b"no envelope"):
            path = file_of(store, ObjectId.of(data))
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            assert roster.signers(repository, ObjectId.of(data)) == ()
        assert roster.signers(repository, ObjectId.of(b"collected")) == ()


def test_a_chain_that_does_not_hold_names_nobody(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", NORTH)
    other = next_root(ROOT, salt=bytes(16), names=((PILOT, "Mallory"),))
    (store / "trust/2.root.cbor").write_bytes(sign_root(other, "root-a"))
    with Repository.open(store) as repository, pytest.raises(FlightbagError):
        Roster.of(repository)
