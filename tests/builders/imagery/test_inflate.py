"""Bytes in gzip: what is inflated, what stays as it is, and that nothing is inflated beyond the limit."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.grid.tiles import MAX_TILE_BYTES
from builders.imagery.inflate import GZIP, inflate, unpacked


@given(st.binary(max_size=200))
def test_a_tile_is_the_same_in_gzip_and_without(data: bytes) -> None:
    assert unpacked(gzip.compress(data)) == data
    if not data.startswith(GZIP):
        assert unpacked(data) == data


@given(st.binary(max_size=50), st.data())
def test_damaged_gzip_is_no_tile(data: bytes, draw: st.DataObject) -> None:
    packed = gzip.compress(data, mtime=0)
    cut = draw.draw(st.integers(2, len(packed) - 1))
    assert unpacked(packed[:cut]) == unpacked(packed + b"x") == b""


def test_the_limit_holds_while_it_is_inflated() -> None:
    assert len(unpacked(gzip.compress(bytes(MAX_TILE_BYTES)))) == MAX_TILE_BYTES
    bomb = gzip.compress(bytes(8 * MAX_TILE_BYTES))
    tracemalloc.start()
    try:
        assert unpacked(bomb) == b""
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_TILE_BYTES
    finally:
        tracemalloc.stop()
    with pytest.raises(ValueError, match="more than 9 bytes"):
        inflate(gzip.compress(bytes(10)), 9)
