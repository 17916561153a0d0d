"""The Merkle tree: against the recursive definition of RFC 9162, the public vectors, and forged proofs."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt
from store.format.ids import derive
from store.format.merkle import inclusion_proof, leaf_hash, node_hash, root, root_from_inclusion, tree_hash

LEAVES = st.lists(st.binary(max_size=8), min_size=1, max_size=40)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def defined(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, word for word."""
    if not leaves:
        return tree_hash(b"")
    if len(leaves) == 1:
        return tree_hash(b"\x00" + leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return tree_hash(b"\x01" + defined(leaves[:k]) + defined(leaves[k:]))


def test_the_hash_is_blake3_under_its_own_context() -> None:
    assert tree_hash(b"x") == derive("flightbag 2026 manifest merkle v1", b"x")


@pytest.mark.parametrize("count", range(70))
def test_the_shape_is_that_of_the_rfc(count: int) -> None:
    leaves = [bytes([i]) for i in range(count)]
    assert root(leaves) == defined(leaves)


@given(LEAVES, st.data())
def test_a_proof_leads_to_the_root_for_its_own_leaf_index_and_size_alone(
    leaves: list[bytes], data: st.DataObject
) -> None:
    top, size = root(leaves), len(leaves)
    index = data.draw(st.integers(0, size - 1))
    leaf, proof = leaf_hash(leaves[index]), inclusion_proof(leaves, index)

    def proves(*, leaf: bytes = leaf, index: int = index, size: int = size, proof: tuple[bytes, ...] = proof) -> bool:
        try:
            return root_from_inclusion(leaf, index, size, proof) == top
        except Corrupt:
            return False

    assert proves()
    other = data.draw(st.binary(max_size=8).filter(lambda item: item != leaves[index]))
    assert not proves(leaf=leaf_hash(other))
    wrong = data.draw(st.integers(0, size - 1))
    # A path of the same turns proves the same leaf at another index only if that leaf is the same one.
    if leaves[wrong] != leaves[index]:
        assert not proves(index=wrong)
    assert not proves(index=size)
    assert not proves(index=-1)
    assert not proves(proof=(*proof, top))
    assert not proves(proof=(top, *proof))
    if proof:
        assert not proves(proof=proof[1:])
        assert not proves(proof=proof[:-1])
        assert not proves(proof=(*proof[:-1], proof[-1] + b"\x00"))
        at = data.draw(st.integers(0, len(proof) - 1))
        forged = bytes([proof[at][0] ^ 1]) + proof[at][1:]
        assert not proves(proof=(*proof[:at], forged, *proof[at + 1 :]))


@given(LEAVES, LEAVES)
def test_other_leaves_have_another_root(one: list[bytes], other: list[bytes]) -> None:
    assert (root(one) == root(other)) is (one == other)


def test_an_odd_last_node_is_carried_up_and_never_doubled() -> None:
    a, b, c = (leaf_hash(x) for x in (b"a", b"b", b"c"))
    assert root([b"a", b"b", b"c"]) == node_hash(node_hash(a, b), c)
    assert root([b"a", b"b", b"c"]) != root([b"a", b"b", b"c", b"c"])


def test_a_node_cannot_pass_for_a_leaf() -> None:
    leaves = [b"a", b"b", b"c", b"d"]
    children = leaf_hash(b"a") + leaf_hash(b"b")
    # The inner node over a and b, offered as the first leaf of a tree of two, with the right sibling.
    sibling = node_hash(leaf_hash(b"c"), leaf_hash(b"d"))
    assert root_from_inclusion(node_hash(leaf_hash(b"a"), leaf_hash(b"b")), 0, 2, (sibling,)) == root(leaves)
    assert leaf_hash(children) != node_hash(leaf_hash(b"a"), leaf_hash(b"b"))
    assert root_from_inclusion(leaf_hash(children), 0, 2, (sibling,)) != root(leaves)


def test_no_proof_of_a_leaf_that_is_not_there() -> None:
    for index in (-1, 2):
        with pytest.raises(IndexError):
            inclusion_proof([b"a", b"b"], index)


def test_public_inclusion_vectors(shared: Path) -> None:
    cases: dict[str, dict[str, Any]] = json.loads((shared / "vectors" / "merkle" / "inclusion.json").read_text())
    accepted = 0
    for name, case in cases.items():
        proof = tuple(base64.b64decode(item or "") for item in case["proof"] or ())
        top, leaf = (base64.b64decode(case[key] or "") for key in ("root", "leafHash"))
        try:
            holds = root_from_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, sha256) == top
        except Corrupt:
            holds = False
        assert holds is not case["wantErr"], name
        accepted += holds
    assert len(cases) > 50
    assert accepted >= 6


# The eight leaves of the reference tests of RFC 6962, and the roots of the trees over the first n of them.
REFERENCE_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]


def test_public_roots(shared: Path) -> None:
    cases: dict[str, dict[str, Any]] = json.loads((shared / "vectors" / "merkle" / "inclusion.json").read_text())
    seen = set()
    for case in cases.values():
        size = case["treeSize"]
        if not case["wantErr"] and 1 < size <= 8:
            seen.add(size)
            leaves = REFERENCE_LEAVES[:size]
            assert root(leaves, sha256) == base64.b64decode(case["root"])
            proof = inclusion_proof(leaves, case["leafIdx"], sha256)
            assert list(proof) == [base64.b64decode(item) for item in case["proof"]]
    assert seen
