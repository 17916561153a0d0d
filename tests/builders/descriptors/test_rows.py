"""The row cache: what is kept comes back, and nothing else is believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from builders.descriptors.rows import CachedCell, RowCache, view_digests
from builders.recipe import RowRecipe
from store.format.ids import ObjectId

RECIPE = RowRecipe("", bytes(32), "y", {"resize": [8, 8]}, 256, (1, 1), "float16", "none")


def test_rows_come_back_for_their_recipe_zoom_and_cell_alone(tmp_path: Path) -> None:
    cache = RowCache(tmp_path)
    origins = np.arange(7, dtype=np.uint64)
    seen = CachedCell(ObjectId(bytes([3]) * 32), 4711, origins, np.full((7, 32), 9, np.uint8))
    cache.keep(RECIPE, 12, 99, seen)
    found = cache.find(RECIPE, 12, 99)
    assert found is not None
    assert (found.shard, found.size) == (seen.shard, seen.size)
    assert (found.origins == origins).all()
    assert (found.digests == seen.digests).all()
    assert cache.find(RECIPE, 13, 99) is None
    assert cache.find(RECIPE, 12, 98) is None
    other = RowRecipe("salt", bytes(32), "y", {"resize": [8, 8]}, 256, (1, 1), "float16", "none")
    assert cache.find(other, 12, 99) is None
    (path,) = tmp_path.rglob("*.rows")
    whole = path.read_bytes()
    for place in range(0, len(whole), 13):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert cache.find(RECIPE, 12, 99) is None
    for length in range(0, len(whole), 29):
        path.write_bytes(whole[:length])
        assert cache.find(RECIPE, 12, 99) is None


def test_a_view_is_another_when_any_of_its_tiles_is() -> None:
    ids = np.arange(16, dtype=np.uint64)
    hashes = np.random.default_rng(0).integers(0, 256, (16, 32), np.uint8)
    footprint = np.array([[[0, 1], [4, 5]], [[2, 3], [6, 7]]], np.uint64)
    before = view_digests(footprint, ids, hashes)
    hashes[7] ^= 1
    after = view_digests(footprint, ids, hashes)
    assert (before[0] == after[0]).all()
    assert (before[1] != after[1]).any()
    swapped = view_digests(footprint[:, ::-1], ids, hashes)
    assert (swapped[0] != after[0]).any()
