"""Shards: the descriptors of one cell as canonical safetensors (FORMAT.md 6.1). Bytes to value and back; opens no file.

A shard holds `tiles` U64 [n], the ascending and unique PMTiles ids of the views' north-western tiles, and `descriptors`
F16 or F32 [n, d].

Law: only bytes of `write_shard` are read: `write_shard(*read_shard(b)) == b`, and any other bytes are Corrupt.

Does not check whether the descriptors are finite: `embed`, which makes them, does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.tensors import ALIGNMENT, MAX_HEADER, read_tensors, write_tensors
from store.errors import Corrupt, Invalid

MAX_DIMENSION = 1 << 20
# A shard has this size exactly if it has no row: the metadata of this program fit into the first 4096 bytes.
EMPTY_SIZE = ALIGNMENT

Descriptors: TypeAlias = NDArray[np.float16] | NDArray[np.float32]


class Shard(NamedTuple):
    """`tiles` uint64[n], ascending; `descriptors` float16 or float32 [n, d]; `metadata` text to text.

    Both arrays of `read_shard` are views of its bytes, read-only where the bytes are.
    """

    tiles: NDArray[np.uint64]
    descriptors: Descriptors
    metadata: Mapping[str, str]


def write_shard(tiles: NDArray[np.uint64], descriptors: Descriptors, metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a shard: equal values give equal bytes on every machine.

    `tiles` uint64[n] ascending and unique, n >= 0; `descriptors` float16 or float32 [n, d], d >= 1. Raises Invalid for
    other arrays, and for metadata that does not fit into a header of 64 KiB.
    """
    if (why := _wrong(tiles, descriptors)) is not None:
        raise Invalid(why)
    return write_tensors({"tiles": tiles, "descriptors": descriptors}, metadata)


def most_bytes(rows: int, dimension: int, dtype: str) -> int:
    """Return the most bytes that a shard of so many rows can have, whatever its metadata."""
    return ALIGNMENT + MAX_HEADER + rows * (8 + dimension * np.dtype(dtype).itemsize)


def read_shard(data: bytes | bytearray | memoryview) -> Shard:
    """Return the shard in `data`, without copying it. Raises Corrupt for bytes that `write_shard` does not write."""
    arrays, metadata = read_tensors(data)
    if arrays.keys() != {"tiles", "descriptors"}:
        raise Corrupt(f"a shard holds the arrays tiles and descriptors, not {', '.join(arrays) or 'none'}"[:300])
    tiles, descriptors = arrays["tiles"], arrays["descriptors"]
    if (why := _wrong(tiles, descriptors)) is not None:
        raise Corrupt(why)
    return Shard(tiles, descriptors, metadata)


def _wrong(tiles: NDArray[np.uint64], descriptors: Descriptors) -> str | None:
    """Why a shard cannot hold these arrays; None if it can."""
    dtypes = (tiles.dtype.newbyteorder("="), descriptors.dtype.newbyteorder("="))
    if dtypes[0] != np.uint64 or dtypes[1] not in (np.float16, np.float32):
        return f"a shard holds uint64 and float16 or float32, not {tiles.dtype} and {descriptors.dtype}"
    if tiles.ndim != 1 or descriptors.ndim != 2 or len(tiles) != len(descriptors):
        return f"a shard holds [n] tiles and [n, d] descriptors, not {tiles.shape} and {descriptors.shape}"
    if not 1 <= descriptors.shape[1] <= MAX_DIMENSION:
        return f"a descriptor has 1 to {MAX_DIMENSION} numbers, not {descriptors.shape[1]}"
    if not np.all(tiles[1:] > tiles[:-1]):
        return "the tile ids of a shard must be ascending and unique"
    return None
