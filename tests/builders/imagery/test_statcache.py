"""The stat cache: what is kept comes back, and nothing else is believed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from builders.imagery.sources import SourceStamp
from builders.imagery.statcache import GRANULARITY_NS, MAX_ENTRIES, StatCache, ZoomHashes

OPENED = 10**18
STAMPS = [SourceStamp(bytes([1]) * 32, OPENED - GRANULARITY_NS - 1), SourceStamp(bytes([2]) * 32, 0)]
FOUND = {
    zoom: ZoomHashes(
        np.arange(count, dtype=np.uint64) + 10**6 * zoom,
        np.random.default_rng(zoom).integers(0, 256, (count, 32), np.uint8),
        np.arange(count, dtype=np.uint16) % 3,
        np.arange(count, dtype=np.uint8) % 7,
        np.arange(count, dtype=np.uint64) * 2**40,
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
