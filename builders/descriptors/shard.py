"""Shards: the descriptors of one cell as canonical safetensors. Bytes to value and back; opens no file.

The stock safetensors reader opens a shard; the stock writer orders its header by chance, so this one writes:
8 bytes little-endian length, a JSON header (keys sorted, no spaces, UTF-8, spaces behind it so that the data
begins at a multiple of 4096), then the tensors by descending item size: `tiles` U64 [n], ascending and unique
PMTiles ids, and `descriptors` F16 or F32 [n, d]. All numbers little-endian, nothing between or behind.

Law: only what `write_shard` writes is read: `write_shard(*read_shard(b)) == b`, and anything else is Corrupt.

Says nothing of what the descriptors mean or whether they are finite; what makes them (`embed`) does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from store.errors import Corrupt, Invalid

MAX_HEADER = 64 << 10
MAX_DIMENSION = 1 << 20
ALIGNMENT = 4096
_LENGTH = 8
_DTYPES: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
_TILE = np.dtype("<u8")

Descriptors: TypeAlias = NDArray[np.float16] | NDArray[np.float32]


class Shard(NamedTuple):
    """`tiles` uint64[n], ascending; `descriptors` float16 or float32 [n, d]; `metadata` text to text.

    Both arrays of a shard that was read are views of its bytes, read-only where those are.
    """

    tiles: NDArray[np.uint64]
    descriptors: Descriptors
    metadata: dict[str, str]


def write_shard(tiles: NDArray[np.uint64], descriptors: Descriptors, metadata: Mapping[str, str]) -> bytes:
    """The bytes of a shard: the same for the same values, on every machine.

    `tiles` uint64[n] ascending and unique, n >= 0; `descriptors` float16 or float32 [n, d], d >= 1. Raises
    Invalid for anything else, and for metadata that does not fit a header of 64 KiB.
    """
    name = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32"}.get(descriptors.dtype.newbyteorder("="))
    if name is None or tiles.dtype.newbyteorder("=") != np.dtype(np.uint64):
        raise Invalid(f"a shard holds uint64 and float16 or float32, not {tiles.dtype} and {descriptors.dtype}")
    if tiles.ndim != 1 or descriptors.ndim != 2 or len(tiles) != len(descriptors):
        raise Invalid(f"a shard holds [n] tiles and [n, d] descriptors, not {tiles.shape} and {descriptors.shape}")
    if not 1 <= descriptors.shape[1] <= MAX_DIMENSION:
        raise Invalid(f"a descriptor has 1 to {MAX_DIMENSION} numbers, not {descriptors.shape[1]}")
    if not _ascending(tiles):
        raise Invalid("the tile ids of a shard must be ascending and unique")
    if not all(type(key) is str and type(value) is str for key, value in metadata.items()):
        raise Invalid("the metadata of a shard must be text")
    return b"".join(
        (
            _header(name, len(tiles), descriptors.shape[1], metadata),
            np.ascontiguousarray(tiles, _TILE).tobytes(),
            np.ascontiguousarray(descriptors, _DTYPES[name]).tobytes(),
        )
    )


def read_shard(data: bytes | bytearray | memoryview) -> Shard:
    """The shard in `data`, without copying it. Raises Corrupt for anything that `write_shard` does not write."""
    view = memoryview(data).cast("B")
    length = int.from_bytes(view[:_LENGTH], "little")
    start = _LENGTH + length
    if len(view) < ALIGNMENT or length > MAX_HEADER or start > len(view) or start % ALIGNMENT:
        raise Corrupt(
            f"not a shard: {len(view)} bytes with a header said to have {length}", actual=len(view), header=length
        )
    header = bytes(view[_LENGTH:start])
    try:
        name, count, width, metadata = _fields(json.loads(header.decode("utf-8")))
        canonical = _header(name, count, width, metadata)
    except (KeyError, TypeError, ValueError, RecursionError, Invalid) as error:
        raise Corrupt(f"the header of the shard is not valid: {error}"[:300]) from None
    if canonical[_LENGTH:] != header:
        raise Corrupt("the header of the shard is not in canonical form")
    dtype = _DTYPES[name]
    expected = start + count * (_TILE.itemsize + width * dtype.itemsize)
    if len(view) != expected:
        raise Corrupt(
            f"the shard has {len(view)} bytes, its header says {expected}", expected=expected, actual=len(view)
        )
    tiles = np.frombuffer(view, _TILE, count, start)
    if not _ascending(tiles):
        raise Corrupt("the tile ids of the shard are not ascending and unique")
    descriptors = np.frombuffer(view, dtype, count * width, start + tiles.nbytes).reshape(count, width)
    return Shard(tiles, descriptors, metadata)


def _fields(header: Any) -> tuple[str, int, int, dict[str, str]]:
    """(dtype, n, d, metadata) of a parsed header. What it does not look at, the comparison of bytes does."""
    name = header["descriptors"]["dtype"]
    count, width = header["descriptors"]["shape"]
    metadata = header["__metadata__"]
    if not (type(name) is str and name in _DTYPES):
        raise ValueError("the descriptors are neither F16 nor F32")
    # The bound keeps every product below far from the limits of an index.
    if not (type(count) is int and type(width) is int and 0 <= count < 1 << 32 and 1 <= width <= MAX_DIMENSION):
        raise ValueError("the shape is not [n, d]")
    if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
        raise ValueError("the metadata is not text")
    return name, count, width, metadata


def _header(dtype: str, count: int, width: int, metadata: Mapping[str, str]) -> bytes:
    """Length and padded JSON of a shard of this shape: the one canonical form."""
    middle = count * _TILE.itemsize
    end = middle + count * width * _DTYPES[dtype].itemsize
    fields = {
        "__metadata__": dict(metadata),
        "descriptors": {"data_offsets": [middle, end], "dtype": dtype, "shape": [count, width]},
        "tiles": {"data_offsets": [0, middle], "dtype": "U64", "shape": [count]},
    }
    try:
        text = json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        raise Invalid("the metadata of a shard holds text that UTF-8 cannot write") from None
    size = -(-(_LENGTH + len(text)) // ALIGNMENT) * ALIGNMENT - _LENGTH
    if size > MAX_HEADER:
        raise Invalid(f"the header of a shard has {size} bytes, at most {MAX_HEADER} are read")
    return size.to_bytes(_LENGTH, "little") + text.ljust(size)


def _ascending(tiles: NDArray[np.uint64]) -> bool:
    return bool(np.all(tiles[1:] > tiles[:-1]))
