"""PNG files of RGB pixels whose bytes depend on the pixels only.

The hash of its bytes identifies a tile, and the bytes of a compressor change with its version. So nothing is compressed
here: every row has filter 0, and the zlib stream (RFC 1950) has stored blocks (RFC 1951, section 3.2.4).

Laws: a decoder gives back the pixels; equal pixels give equal bytes on every machine.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from store.errors import Invalid

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")  # width, height, bit depth, colour type, compression, filter, interlace
_RGB = 2
_ZLIB_HEADER = b"\x78\x01"
_STORED = struct.Struct("<BHH")  # whether it is the last block, the length, the complement of the length
_MAX_BLOCK = 0xFFFF
_MAX_IDAT = (1 << 31) - 1


def write_png(pixels: NDArray[np.uint8]) -> bytes:
    """The PNG file (8 bits a channel, one IDAT) of RGB pixels, uint8 [height, width, 3]; about 3 bytes a pixel.

    Raises Invalid for another shape or type, for an empty array, and for an image above the 2 GiB of one chunk.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise Invalid(
            f"{pixels.dtype} {list(pixels.shape)} is not an array of RGB pixels", remedy="give uint8 [height, width, 3]"
        )
    height, width, _ = pixels.shape
    size = height * (1 + 3 * width)
    if size + size // _MAX_BLOCK * _STORED.size + 16 > _MAX_IDAT:
        raise Invalid(
            f"an image of {width} x {height} pixels exceeds the 2 GiB of one chunk", remedy="give a smaller image"
        )
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # the first byte of each row is its filter
    rows[:, 1:] = pixels.reshape(height, 3 * width)
    header = _HEADER.pack(width, height, 8, _RGB, 0, 0, 0)
    return b"".join(
        (_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", _stored(rows.tobytes())), _chunk(b"IEND", b""))
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))))


def _stored(data: bytes) -> bytes:
    """The zlib stream that holds data (at least one byte) uncompressed."""
    parts = [_ZLIB_HEADER]
    for start in range(0, len(data), _MAX_BLOCK):
        block = data[start : start + _MAX_BLOCK]
        is_last = start + _MAX_BLOCK >= len(data)
        parts += (_STORED.pack(is_last, len(block), len(block) ^ 0xFFFF), block)
    parts.append(struct.pack(">I", zlib.adler32(data)))
    return b"".join(parts)
