"""Bytes in gzip, inflated within a limit. Pure.

Some writers compress each tile, also where their container has no word for it, and some containers claim a compression
that their tiles do not have. The first bytes of a tile decide: no image begins like gzip.
"""

from __future__ import annotations

import zlib

from builders.grid.tiles import MAX_TILE_BYTES

GZIP = b"\x1f\x8b"
_WINDOW = 31  # zlib: a window of 32 KiB, and a gzip header


def inflate(data: bytes, limit: int) -> bytes:
    """The content of one gzip member. Raises ValueError above `limit` bytes, and for a wrong checksum."""
    inflater = zlib.decompressobj(_WINDOW)
    try:
        content = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(f"gzip reports {error}") from None
    if len(content) > limit:
        raise ValueError(f"it inflates to more than {limit} bytes")
    if not inflater.eof or inflater.unused_data:
        raise ValueError("it is not exactly one gzip member")
    return content


def unpacked(tile: bytes) -> bytes:
    """The tile in these bytes: inflated if they are gzip; empty if they are damaged, or more than 16 MiB inflated."""
    if not tile.startswith(GZIP):
        return tile
    try:
        return inflate(tile, MAX_TILE_BYTES)
    except ValueError:
        return b""
