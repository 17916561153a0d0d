"""The Merkle tree of RFC 9162, section 2.1 (FORMAT.md 4.3), over a hash that the caller may inject.

leaf = H(0x00 || data), node = H(0x01 || left || right). A tree of n leaves splits at the largest power of two below n,
and no node is ever duplicated. A tree that is built level by level, with an odd last node carried up unchanged, has the
same shape.

Law: `root_from_inclusion(leaf, i, n, inclusion_proof(data, i)) == root(data)` for every i < n, and for no other leaf
or index. A proof does not bind the number of leaves: the caller must take it from signed data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from store.errors import Corrupt
from store.format.ids import DIGEST_SIZE, derive, deriving

CONTEXT = "flightbag 2026 manifest merkle v1"

Hash: TypeAlias = Callable[[bytes], bytes]


def tree_hash(data: bytes) -> bytes:
    """Return the hash of format 1: BLAKE3 derive_key under CONTEXT, 32 bytes."""
    return derive(CONTEXT, data)


def leaf_hash(data: bytes, hash_: Hash = tree_hash) -> bytes:
    """Return H(0x00 || data), the hash of a leaf."""
    return hash_(b"\x00" + data)


def node_hash(left: bytes, right: bytes, hash_: Hash = tree_hash) -> bytes:
    """Return H(0x01 || left || right), the hash of a node over two hashes."""
    return hash_(b"\x01" + left + right)


def _levels(leaves: Sequence[bytes], hash_: Hash | None) -> Iterator[list[bytes]]:
    """Yield the hashes of the leaves, then those of each level above, up to the root."""
    hash_ = hash_ or deriving(CONTEXT)
    level = [hash_(b"\x00" + leaf) for leaf in leaves]
    yield level
    while len(level) > 1:
        above = [hash_(b"\x01" + left + right) for left, right in zip(level[::2], level[1::2], strict=False)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
        yield level


def root(leaves: Sequence[bytes], hash_: Hash | None = None) -> bytes:
    """Return the Merkle root over the data of the leaves. The root of no leaves is H(empty) (RFC 9162, 2.1.1)."""
    if not leaves:
        return (hash_ or tree_hash)(b"")
    *_, top = _levels(leaves, hash_)
    return top[0]


def inclusion_proof(leaves: Sequence[bytes], index: int, hash_: Hash | None = None) -> tuple[bytes, ...]:
    """Return the sibling hashes from leaf `index` up to the root (RFC 9162, 2.1.3.1). Raises IndexError for no leaf."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    proof = []
    for level in _levels(leaves, hash_):
        if index ^ 1 < len(level):
            proof.append(level[index ^ 1])
        index //= 2
    return tuple(proof)


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], hash_: Hash = tree_hash) -> bytes:
    """Return the root that an inclusion proof leads to (RFC 9162, 2.1.3.2). `leaf` is the *hash* of a leaf.

    The caller must compare the result with the signed root. `size` is the number of leaves. Raises Corrupt (kind
    bad-proof) for an index outside the tree, and for a proof of another length than index and size demand or with a
    hash that does not have 32 bytes.
    """
    if not 0 <= index < size:
        raise Corrupt(f"the index {index} is outside of a tree of {size} leaves", kind="bad-proof")
    if any(len(digest) != DIGEST_SIZE for digest in (leaf, *proof)):
        raise Corrupt(f"the proof holds a hash that does not have {DIGEST_SIZE} bytes", kind="bad-proof")
    fn, sn, r = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise Corrupt("the proof has more hashes than the tree has levels", kind="bad-proof")
        if fn & 1 or fn == sn:
            r = node_hash(sibling, r, hash_)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, sibling, hash_)
        fn, sn = fn >> 1, sn >> 1
    if sn:
        raise Corrupt("the proof has fewer hashes than the tree has levels", kind="bad-proof")
    return r
