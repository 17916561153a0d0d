"""Pictures of views from tile sources, with the tiles round them: queries and probes are made of these."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.decoding import BadTile, tile_image
from builders.grid.live import pieces
from builders.grid.tiles import tile_ids, tile_xy
from builders.grid.views import View
from builders.imagery.inventory import Level, TileSources


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
    sources have every tile and every tile of `margin` round them. Depends on nothing but which tiles the sources have.
    """
    candidates = [np.empty(0, np.uint64)]
    for origins in pieces(view.tiles + 2 * margin, view.origins_over(level.zoom, level.required)):
        exist, ids = surroundings(level.zoom, view, origins, margin)
        present, _ = level.find(ids.ravel())
        candidates.append(origins[exist][present.reshape(ids.shape).all(axis=(1, 2))])
    return spread(np.concatenate(candidates), count)


def spread(ids: NDArray[np.uint64], count: int) -> NDArray[np.uint64]:
    """Return at most `count` of the ids, evenly spread."""
    number = min(count, len(ids))
    return ids[np.arange(number) * len(ids) // max(number, 1)]


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
                np.concatenate([np.asarray(tile_image(tiles[number], tile_size)) for number in row], axis=1)
                for row in square
            ]
        except (BadTile, KeyError):
            continue
        yield origin, np.concatenate(rows)
