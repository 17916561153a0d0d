"""Pictures of views from tile sources, with the tiles round them: queries and probes are made of these."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from builders.activity import doing
from builders.descriptors.decoding import BadTile, tile_pixels
from builders.descriptors.rows import view_digests
from builders.grid.tiles import tile_ids, tile_xy
from builders.grid.views import View
from builders.imagery.inventory import Level, TileSources

# Views that are looked at together while sampling.
_PIECE = 1024


def surroundings(
    zoom: int, view: View, origins: NDArray[np.uint64], margin: int
) -> tuple[NDArray[np.bool_], NDArray[np.uint64]]:
    """Return (bool[n], uint64 [k, t, t]): which views have `margin` tiles all round them in the world, and of those
    views the ids of all tiles, t = view.tiles + 2 * margin a side, row by row from the north-western one."""
    if not margin:
        return np.ones(len(origins), bool), view.footprint(zoom, origins)
    x, y = tile_xy(zoom, origins)
    side = view.tiles + 2 * margin
    steps = np.arange(side) - margin
    exist = (y >= margin) & (y + view.tiles + margin <= 1 << zoom) & (side <= 1 << zoom)
    columns = (x[exist, None, None] + steps[None, None, :]) % (1 << zoom)
    rows = y[exist, None, None] + steps[None, :, None]
    return exist, tile_ids(zoom, *np.broadcast_arrays(columns, rows))


def sample(level: Level, view: View, margin: int, count: int) -> NDArray[np.uint64]:
    """Return uint64[n], ascending, n <= count: origins of views over the area, evenly spread by id, of which the
    sources have every tile and every tile of `margin` round them. Of views that show the same bytes one is taken.
    Depends on nothing but the tiles that the sources have.
    """
    origins = view.origins_over(level.zoom, level.required)
    chosen: dict[bytes, int] = {}
    for places in _places(len(origins)):
        exist, ids = surroundings(level.zoom, view, origins[places], margin)
        present, _ = level.find(ids.ravel())
        whole = origins[places][exist][present.reshape(ids.shape).all(axis=(1, 2))]
        for origin, bytes_ in zip(whole.tolist(), shown(level, view, whole), strict=True):
            chosen.setdefault(bytes_, origin)
            if len(chosen) == count:
                return np.sort(np.array(list(chosen.values()), np.uint64))
    return np.sort(np.array(list(chosen.values()), np.uint64))


def _places(number: int) -> Iterator[NDArray[np.int64]]:
    """Yield 0..number - 1 in pieces, in an order of which every beginning is evenly spread: that of the bits of a
    counter, reversed (van der Corput). A map of a million views is sampled by looking at a few."""
    bits = max(number - 1, 0).bit_length()
    for start in range(0, 1 << bits, _PIECE):
        counter = np.arange(start, min(start + _PIECE, 1 << bits))
        places = np.zeros_like(counter)
        for bit in range(bits):
            places |= (counter >> bit & 1) << (bits - 1 - bit)
        yield places[places < number]


def spread(ids: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    """Return at most `count` of the ids, evenly spread."""
    number = min(count, len(ids))
    return ids[np.arange(number) * len(ids) // max(number, 1)]


def shown(level: Level, view: View, origins: NDArray[np.uint64]) -> list[bytes]:
    """Return, for each view, 32 bytes that are equal for views that show the same bytes. The sources have every tile of
    them."""
    if view.tiles == 1:
        return [digest.tobytes() for digest in level.hashes[level.find(origins)[1]]]
    digests = view_digests(view.footprint(level.zoom, origins), level.ids, level.hashes)
    return [digest.tobytes() for digest in digests]


def pictures(
    sources: TileSources, level: Level, view: View, tile_size: int, origins: NDArray[np.uint64], margin: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield (origin, uint8 [s, s, 3], RGB) of each view with `margin` tiles round it, but not of views with a missing
    or bad tile. Holds the encoded tiles of all views, and makes the pictures one by one. Raises Corrupt as
    `read_again` does."""
    exist, ids = surroundings(level.zoom, view, origins, margin)
    tiles = dict(sources.read_again(level, np.unique(ids)))
    for origin, square in zip(origins[exist].tolist(), ids.tolist(), strict=True):
        try:
            rows = [
                np.concatenate([_image(number, tiles[number], tile_size) for number in row], axis=1) for row in square
            ]
        except (BadTile, KeyError):
            continue
        yield origin, np.concatenate(rows)


def _image(number: int, data: bytes, tile_size: int) -> NDArray[np.uint8]:
    with doing("decoding tile", number):
        return tile_pixels(data, tile_size)
