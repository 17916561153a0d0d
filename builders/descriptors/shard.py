"""Shards: the descriptors of one cell as canonical safetensors. Bytes to value and back; opens no file.

`tiles` U64 [n], ascending and unique PMTiles ids of the views' north-western tiles, and `descriptors` F16 or F32 [n,
d].

Law: only what `write_shard` writes is read: `write_shard(*read_shard(b)) == b`, and anything else is Corrupt.

Says nothing of what the descriptors mean or whether they are finite; what makes them (`embed`) does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.tensors import ALIGNMENT, read_tensors, write_tensors
from store.errors import Corrupt, Invalid

MAX_DIMENSION = 1 << 20
# The size of a shard that has no row, and of no other: the metadata of this program fit the first 4096 bytes.
EMPTY_SIZE = ALIGNMENT

Descriptors: TypeAlias = NDArray[np.float16] | NDArray[np.float32]


class Shard(NamedTuple):
    """`tiles` uint64[n], ascending; `descriptors` float16 or float32 [n, d]; `metadata` text to text.

    Both arrays of a shard that was read are views of its bytes, read-only where those are.
    """

    tiles: NDArray[np.uint64]
    descriptors: Descriptors
    metadata: Mapping[str, str]


def write_shard(tiles: NDArray[np.uint64], descriptors: Descriptors, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a shard: the same for the same values, on every machine.

    `tiles` uint64[n] ascending and unique, n >= 0; `descriptors` float16 or float32 [n, d], d >= 1. Raises
    Invalid for anything else, and for metadata that does not fit a header of 64 KiB.
    """
    if (why := _wrong(tiles, descriptors)) is not None:
        raise Invalid(why)
    return write_tensors({"tiles": tiles, "descriptors": descriptors}, metadata)


def read_shard(data: bytes | bytearray | memoryview) -> Shard:
    """The shard in `data`, without copying it. Raises Corrupt for anything that `write_shard` does not write."""
    arrays, metadata = read_tensors(data)
    if arrays.keys() != {"tiles", "descriptors"}:
        raise Corrupt(f"a shard holds tiles and descriptors, not {', '.join(arrays) or 'nothing'}"[:300])
    tiles, descriptors = arrays["tiles"], arrays["descriptors"]
    if (why := _wrong(tiles, descriptors)) is not None:
        raise Corrupt(why)
    return Shard(tiles, descriptors, metadata)


def _wrong(tiles: NDArray[np.uint64], descriptors: Descriptors) -> str | None:
    """Why these are no shard; None if they are."""
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
