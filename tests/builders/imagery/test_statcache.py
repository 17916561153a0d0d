"""The stat cache and the row cache: what is kept comes back, and nothing else is believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builders.descriptors.rows import CachedCell, RowCache, view_digests
from builders.imagery.sources import SourceStamp
from builders.imagery.statcache import GRANULARITY_NS, MAX_ENTRIES, StatCache
from builders.recipe import RowRecipe
from store.errors import Corrupt
from store.format.ids import ObjectId

OPENED = 10**18
STAMPS = [SourceStamp(bytes([1]) * 32, OPENED - GRANULARITY_NS - 1), SourceStamp(bytes([2]) * 32, 0)]
FOUND = {
    zoom: (
        np.arange(count, dtype=np.uint64) + 10**6 * zoom,
        np.random.default_rng(zoom).integers(0, 256, (count, 32), np.uint8),
        np.arange(count, dtype=np.uint16) % 3,
    )
    for zoom, count in ((3, 0), (9, 5), (11, 300))
}


@pytest.fixture
def cache(tmp_path: Path) -> StatCache:
    cache = StatCache(tmp_path / "tiles")
    cache.keep(b"request", OPENED, STAMPS, FOUND)
    return cache


def test_what_was_kept_comes_back(cache: StatCache) -> None:
    found = cache.find(b"request", STAMPS)
    assert found is not None
    assert found.keys() == FOUND.keys()
    for zoom, arrays in FOUND.items():
        assert all((a == b).all() and a.dtype == b.dtype for a, b in zip(found[zoom], arrays, strict=True))


def test_another_request_or_stamp_finds_nothing(cache: StatCache) -> None:
    assert cache.find(b"another", STAMPS) is None
    assert cache.find(b"request", STAMPS[:1]) is None
    assert cache.find(b"request", STAMPS[::-1]) is None
    assert cache.find(b"request", [SourceStamp(bytes(32), 0), STAMPS[1]]) is None


def test_a_file_as_new_as_the_entry_is_not_believed(cache: StatCache) -> None:
    """The rule for racy timestamps, with the coarsest clock of a file system for margin."""
    racy = [SourceStamp(STAMPS[0].digest, OPENED - GRANULARITY_NS), STAMPS[1]]
    assert cache.find(b"request", racy) is None


def test_any_changed_byte_is_no_entry(cache: StatCache) -> None:
    (path,) = cache.folder.glob("*.tiles")
    whole = path.read_bytes()
    for place in (0, 5, 20, 60, len(whole) // 2, len(whole) - 40, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.find(b"request", STAMPS) is None
    for length in (0, 1, 17, 40, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert cache.find(b"request", STAMPS) is None


def test_the_oldest_entries_go(cache: StatCache) -> None:
    for number in range(MAX_ENTRIES + 5):
        cache.keep(b"%d" % number, OPENED, STAMPS, {9: FOUND[9]})
    assert len(list(cache.folder.glob("*"))) == MAX_ENTRIES


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = StatCache(tmp_path / "file/tiles")
    cache.keep(b"request", OPENED, STAMPS, FOUND)
    assert cache.find(b"request", STAMPS) is None


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


def test_a_recipe_comes_back_from_the_metadata_of_a_shard() -> None:
    preprocess = {"resize": [8, 9], "mean": [1, 2, 3]}
    recipe = RowRecipe("s", bytes(range(32)), "out", preprocess, 512, (4, 2), "float32", "l2")
    metadata = {**recipe.metadata(), "cell": "1/2/3", "zoom": "5"}
    assert RowRecipe.of_metadata(metadata) == recipe
    for key in recipe.metadata():
        with pytest.raises(Corrupt):
            RowRecipe.of_metadata({name: value for name, value in metadata.items() if name != key})
        if key not in ("salt", "output"):  # which are any text
            for bad in ("x", "[]", "null", "[1, null]"):
                with pytest.raises(Corrupt):
                    RowRecipe.of_metadata({**metadata, key: bad})
