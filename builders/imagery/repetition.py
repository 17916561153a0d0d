"""Repetition: the tiles of an area that show the same picture, found by the hashes of the inventory. Pure.

A server answers "no imagery here" with a picture, and a placeholder decodes like any tile. No two places look the same
to the byte, so tiles with the same bytes show no place, or one that no search can tell from the others, such as open
water. Two tiles of different zooms count as well.

Law: a tile is repeated exactly if another tile has the same hash, other than zeros. Whoever reads the tiles of an area
finds the same repeated tiles, so the number that a manifest signs can be counted again.

Pictures that differ in bytes and not in pixels are not found: only decoding every tile would, also where the store has
all descriptors. Their descriptors are equal, so what the map finds of itself shows them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from builders.grid.tiles import tile_from_id

# How many tiles of the most frequent picture a summary names.
_NAMED = 3


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


def repetition(ids: NDArray[np.uint64], hashes: NDArray[np.uint8]) -> Repetition:
    """The repetition among tiles with these ids (uint64[n], ascending) and hashes (uint8[n, 32], zeros for a tile
    without a picture)."""
    pictures = np.full(len(ids), -1, np.int64)
    # The first eight bytes rule out nearly every tile: sorting whole hashes takes ten times as long.
    _, place, count = np.unique(_first(hashes), return_inverse=True, return_counts=True)
    candidates = np.flatnonzero(count[place] > 1)
    whole = np.ascontiguousarray(hashes[candidates]).view(np.dtype((np.void, hashes.shape[1]))).ravel()
    values, place, count = np.unique(whole, return_inverse=True, return_counts=True)
    picture = (count > 1) & np.array([any(value.tobytes()) for value in values], np.bool_)
    numbers = np.where(picture, np.cumsum(picture) - 1, -1)
    pictures[candidates] = numbers[place]
    return Repetition(ids, pictures)


def _first(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(hashes[:, :8]).view(np.uint64).ravel()
