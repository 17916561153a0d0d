"""Views: which squares of tiles are described together, where they lie, and which tiles each needs. Pure.

A view is a square of `tiles` x `tiles` tiles of one zoom. Views lie on a grid of the whole world, every `stride`
columns and rows from the north-western corner, wherever a mission's area begins: missions that overlap share them.
A view is named by the id of its north-western tile, its origin, and belongs to that tile's cell.

Columns go on over the antimeridian, from the last to the first. A view that would reach beyond the last row, or round
the world into itself, does not exist.

Laws: `footprint(z, o)[:, 0, 0] == o`; a view is in `origins_over(z, t)` exactly where its footprint holds a tile of
`t`; `origins_in_cell` over all cells is every view that exists, each once. `View()` is the tile itself.

Knows no image and no source.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from builders.grid.tiles import CELL_ZOOMS, MAX_ZOOM, Tile, cell_range, check_zoom, tile_ids, tile_xy
from store.errors import Invalid

MAX_VIEW_TILES = 16
# Of the WGS 84 equator, in metres: 2 * pi * 6378137.
EQUATOR = 40075016.68557849


@dataclass(frozen=True, slots=True)
class View:
    """A square of `tiles` x `tiles` tiles, one every `stride` columns and rows; 1 <= stride <= tiles <= 16.

    Raises Invalid for anything else.
    """

    tiles: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        if type(self.tiles) is not int or not 1 <= self.tiles <= MAX_VIEW_TILES:
            raise Invalid(
                f"a view cannot be {self.tiles!r} tiles wide", tiles=self.tiles, remedy=f"give 1 to {MAX_VIEW_TILES}"
            )
        if type(self.stride) is not int or not 1 <= self.stride <= self.tiles:
            raise Invalid(
                f"views of {self.tiles} tiles cannot lie {self.stride!r} tiles apart",
                stride=self.stride,
                remedy=f"give 1 to {self.tiles}: with more there would be gaps between the views",
            )

    @classmethod
    def of_metres(cls, metres: float, overlap: float, zoom: int, latitude: float) -> Self:
        """The view that is nearest to `metres` wide on the ground at `latitude` (degrees), in tiles of `zoom`.

        Neighbouring views share the part `overlap` of their width, 0 <= overlap < 1, to the nearest tile. Raises
        Invalid for values outside their range, and for a view of more than 16 tiles.
        """
        check_zoom(zoom)
        if not (0 < metres < math.inf and 0 <= overlap < 1 and -90 < latitude < 90):
            raise Invalid(
                f"there is no view of {metres} m with overlap {overlap} at latitude {latitude}",
                remedy="give metres above 0, an overlap of 0 or more and below 1, and a latitude",
            )
        across = metres / (EQUATOR * math.cos(math.radians(latitude)) / (1 << zoom))
        if across > MAX_VIEW_TILES + 0.5:
            raise Invalid(
                f"a view of {metres:g} m is {across:.1f} tiles of zoom {zoom} wide, at most {MAX_VIEW_TILES} are taken",
                zoom=zoom,
                remedy="give fewer metres or a lower zoom",
            )
        tiles = max(1, round(across))
        return cls(tiles, max(1, round(tiles * (1 - overlap))))

    def origins_in_cell(self, cell: Tile, zoom: int) -> NDArray[np.uint64]:
        """uint64[n], ascending: the origins of the views of a cell, n <= 256. Raises Invalid where `cell` is no cell
        of `zoom`."""
        check_zoom(zoom)
        if cell.z != zoom - min(zoom, CELL_ZOOMS):
            raise Invalid(f"{cell} is no cell of zoom {zoom}", tile=str(cell), zoom=zoom)
        ids = np.arange(*cell_range(cell, zoom), dtype=np.uint64)
        if self.tiles == 1:  # each tile is a view: spares a country the way to columns and rows and back
            return ids
        return ids[self._exist(zoom, *tile_xy(zoom, ids))]

    def footprint(self, zoom: int, origins: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """uint64[n, tiles, tiles]: the ids of the tiles of each view, row by row from the north-western one.

        `origins` is uint64[n]. Raises Invalid for an origin of which there is no view.
        """
        if self.tiles == 1:
            first, end = cell_range(Tile(0, 0, 0), zoom)
            if origins.size and not (first <= int(origins.min()) and int(origins.max()) < end):
                raise Invalid(f"there are tile ids of another zoom than {zoom}", zoom=zoom)
            return origins[:, None, None]
        x, y = tile_xy(zoom, origins)
        if not self._exist(zoom, x, y).all():
            raise Invalid(f"there are origins without a view of {self.tiles} tiles at zoom {zoom}", zoom=zoom)
        steps = np.arange(self.tiles)
        columns = (x[:, None, None] + steps[None, None, :]) % (1 << zoom)
        rows = y[:, None, None] + steps[None, :, None]
        return tile_ids(zoom, *np.broadcast_arrays(columns, rows))

    def origins_over(self, zoom: int, ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """uint64[m], ascending: the origins of all views that hold at least one of the tiles `ids` (uint64[n])."""
        if self.tiles == 1:
            return ids if (ids[1:] > ids[:-1]).all() else np.unique(ids)
        x, y = tile_xy(zoom, ids)
        side = 1 << zoom
        # One axis after the other, so that it is 2 * tiles steps over the tiles and not tiles * tiles.
        x, y = _union(((x - step) % side, y) for step in range(self.tiles))
        on_grid = x % self.stride == 0
        x, y = _union((x[on_grid], y[on_grid] - step) for step in range(self.tiles))
        exist = self._exist(zoom, x, y)
        origins = tile_ids(zoom, x[exist], y[exist])
        origins.sort()
        return origins

    def _exist(self, zoom: int, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[n]: whether there is a view with its origin at these columns and rows (int64[n])."""
        side = 1 << zoom
        on_grid = (x % self.stride == 0) & (y % self.stride == 0)
        # Round the world no view is wider than it is: rows tell, for there are as many.
        exist: NDArray[np.bool_] = on_grid & (y >= 0) & (y + self.tiles <= side)
        return exist


def _union(parts: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The (columns, rows) that are in any of the parts, each pair once. Rows may be negative."""
    pairs = np.empty(0, np.int64)
    for x, y in parts:
        pairs = np.union1d(pairs, (y << MAX_ZOOM) + x)
    return pairs & ((1 << MAX_ZOOM) - 1), pairs >> MAX_ZOOM
