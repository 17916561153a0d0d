"""Repeated tiles: which have the bytes of another one, against a count of every hash, and what a summary says."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from builders.grid.tiles import tile_from_id
from builders.imagery.repetition import repetition

NO_PICTURE = bytes(32)


def hash_of(number: int) -> bytes:
    """Hashes of which pairs share their first eight bytes, and that of no picture."""
    return NO_PICTURE if number == 0 else bytes([number // 2]) * 8 + bytes([number]) * 24


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_a_tile_is_repeated_where_another_has_its_bytes(numbers: list[int]) -> None:
    hashes = [hash_of(number) for number in numbers]
    ids = np.arange(1000, 1000 + len(hashes), dtype=np.uint64)
    found = repetition(ids, np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32))
    counts = Counter(one for one in hashes if one != NO_PICTURE)
    assert (found.pictures >= 0).tolist() == [counts[one] > 1 for one in hashes]
    pictures: dict[int, set[bytes]] = {}
    for picture, one in zip(found.pictures.tolist(), hashes, strict=True):
        pictures.setdefault(picture, set()).add(one)
    shared = {picture: names for picture, names in pictures.items() if picture >= 0}
    assert all(len(names) == 1 for names in shared.values())
    summary = found.summary()
    assert summary.tiles == sum(count for count in counts.values() if count > 1)
    assert summary.pictures == len(shared) == sum(count > 1 for count in counts.values())
    assert summary.most == max((count for count in counts.values() if count > 1), default=0)
    assert len(summary.examples) == min(summary.most, 3)
    places = [hashes[list(map(int, ids)).index(n)] for n in ids.tolist() if str(tile_from_id(n)) in summary.examples]
    assert len(set(places)) <= 1


def test_nothing_at_all_repeats_nothing() -> None:
    assert repetition(np.empty(0, np.uint64), np.empty((0, 32), np.uint8)).summary().tiles == 0
