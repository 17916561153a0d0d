"""Repetition: the tiles of an area that show the same picture, found without decoding one. Pure.

A server answers "no imagery here" with a picture, and a placeholder decodes like any tile. No two places look the same
to the byte, so tiles with the same bytes show no place, or one that no search can tell from the others, such as open
water. Metadata do not count: some tools write the time into every file. Two tiles of different zooms count as well.

Laws: a tile is repeated exactly if another tile shows the same picture; two tiles with the same bytes do, and metadata
in either, or bytes behind its end, change nothing. Whoever reads the tiles of an area finds the same repeated tiles, so
the number that a manifest signs can be counted again.

Pictures that are compressed in different ways and have equal pixels are not found: only decoding every tile would, also
where the store has all descriptors. Their descriptors are equal, so self-retrieval (`self@1`) falls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from builders.grid.tiles import tile_from_id
from builders.imagery.signature import JPEG, PNG, is_webp

# How many tiles of the most frequent picture a summary names.
_NAMED = 3
_SCAN, _COMMENT, _END = b"\xda", 0xFE, b"\xff\xd9"
_WEBP_METADATA = (b"VP8X", b"ICCP", b"EXIF", b"XMP ")


@dataclass(frozen=True, slots=True)
class Repeats:
    """A repetition in short: the repeated tiles and their different pictures; of the picture that most of them show,
    its number of tiles (`most`), and the first of these tiles (`examples`, z/x/y)."""

    tiles: int
    pictures: int
    most: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Repetition:
    """The repeated tiles of an area. `ids` are those of all its tiles (uint64[n]); `pictures` (int64[n]) has for each
    the number of the picture that it shares with others, or -1."""

    ids: NDArray[np.uint64]
    pictures: NDArray[np.int64]

    def summary(self) -> Repeats:
        """The repetition in short. Of two pictures with as many tiles, the one with the lowest tile id counts."""
        shared = self.pictures[self.pictures >= 0]
        if not len(shared):
            return Repeats(0, 0, 0, ())
        counts = np.bincount(shared)
        picture = shared[counts[shared] == counts.max()][0]
        ids = self.ids[self.pictures == picture][:_NAMED]
        examples = tuple(str(tile_from_id(number)) for number in ids.tolist())
        return Repeats(len(shared), len(counts), int(counts.max()), examples)


def repetition(ids: NDArray[np.uint64], pictures: NDArray[np.uint64]) -> Repetition:
    """The repetition among tiles with these ids (uint64[n], ascending) and pictures (uint64[n], 0 for none)."""
    values, place, count = np.unique(pictures, return_inverse=True, return_counts=True)
    shared = (count > 1) & (values != 0)
    return Repetition(ids, np.where(shared, np.cumsum(shared) - 1, -1)[place])


def picture_of(data: bytes) -> int:
    """A number below 2**64 that is not 0, equal for images with the same bytes but for metadata and for what follows
    their end (FORMAT.md 6.5).

    Eight bytes of a hash: among a million tiles, that two pictures share them by chance has odds of one in 37 million.
    """
    number = int.from_bytes(blake3(b"".join(_parts(data))).digest()[:8], "little")
    return number or 1


def _parts(data: bytes) -> Iterator[bytes]:
    """The parts of an image file that are not metadata. What follows a part of no known form is taken as it is."""
    if data.startswith(JPEG):
        return _segments(data)
    if data.startswith(PNG):
        return _chunks(data)
    return _webp_chunks(data) if is_webp(data) else iter((data,))


def _segments(data: bytes) -> Iterator[bytes]:
    """The segments of a JPEG (ITU T.81, B.1.1) but for APPn and COM; from the first scan on, all up to its end."""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != _SCAN:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if not at + 4 <= end <= len(data):
            break
        if not 0xE0 <= data[at + 1] <= 0xEF and data[at + 1] != _COMMENT:
            yield data[at:end]
        at = end
    # In a scan, no byte but those of a restart follows FF unless it is 0 (B.1.1.2), so this is no part of the picture.
    end = data.find(_END, at)
    yield data[at:end] if end >= 0 else data[at:]


def _chunks(data: bytes) -> Iterator[bytes]:
    """The chunks of a PNG (ISO 15948, 5.3) that are critical, and tRNS."""
    at = len(PNG)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        if not data[at + 4] & 0x20 or data[at + 4 : at + 8] == b"tRNS":
            yield data[at:end]
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end
    yield data[at:]


def _webp_chunks(data: bytes) -> Iterator[bytes]:
    """The chunks of a WebP (RFC 9649, 2.3) but for the metadata and the header that lists them."""
    data = data[: 8 + int.from_bytes(data[4:8], "little")]
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size + size % 2
        if end > len(data):
            break
        if data[at : at + 4] not in _WEBP_METADATA:
            yield data[at:end]
        at = end
    yield data[at:]
