"""Views: squares of tiles that one descriptor describes. Where they lie, and which tiles each shows. Pure.

A view is a square of `tiles` x `tiles` tiles of one zoom. Views lie on a grid of the whole world, every `stride`
columns and rows from the north-western corner. The grid does not depend on the area of a mission, so missions that
overlap share views. The origin of a view is the id of its north-western tile; it names the view, which belongs to the
cell of that tile.

The column after the last one is the first one, across the antimeridian. A view does not exist if it would reach beyond
the last row, or round the world into itself.

Laws: `footprint(z, o)[:, 0, 0] == o`; a view is in `origins_over(z, t)` exactly if its footprint holds a tile of `t`;
`origins_in_cell` over all cells gives every view once. The views of `View()` are the tiles themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from builders.grid.tiles import CELL_ZOOMS, MAX_ZOOM, Tile, cell_range, check_zoom, tile_ids, tile_xy
from store.errors import Invalid

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_VIEW_TILES = 16
# Of the WGS 84 equator, in metres: 2 * pi * 6378137.
EQUATOR = 40075016.68557849


@dataclass(frozen=True, slots=True)
class View:
    """The size and the spacing of views: `tiles` x `tiles` tiles, every `stride` columns and rows.

    Raises Invalid unless 1 <= stride <= tiles <= 16.
    """

    tiles: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        if type(self.tiles) is not int or not 1 <= self.tiles <= MAX_VIEW_TILES:
            raise Invalid(
                f"a view cannot be {self.tiles!r} tiles wide",
                tiles=self.tiles,
                remedy=f"give 1 to {MAX_VIEW_TILES} tiles",
            )
        if type(self.stride) is not int or not 1 <= self.stride <= self.tiles:
            raise Invalid(
                f"views of {self.tiles} tiles cannot lie {self.stride!r} tiles apart",
                stride=self.stride,
                remedy=f"give a stride of 1 to {self.tiles}: a larger one leaves gaps between the views",
            )

    @classmethod
    def of_metres(cls, metres: float, overlap: float, zoom: int, latitude: float) -> Self:
        """The view whose width on the ground at `latitude` (degrees) is nearest to `metres`, in tiles of `zoom`.

        Neighbouring views share the fraction `overlap` of their width, 0 <= overlap < 1, to the nearest tile. Raises
        Invalid for values outside their range, and for a view of more than 16 tiles.
        """
        check_zoom(zoom)
        if not (0 < metres < math.inf and 0 <= overlap < 1 and -90 < latitude < 90):
            raise Invalid(
                f"a view of {metres} m with overlap {overlap} at latitude {latitude} does not exist",
                remedy="give metres above 0, an overlap from 0 and below 1, and a latitude between -90 and 90 degrees",
            )
        across = metres / (EQUATOR * math.cos(math.radians(latitude)) / (1 << zoom))
        if across > MAX_VIEW_TILES + 0.5:
            raise Invalid(
                f"a view of {metres:g} m is {across:.1f} tiles of zoom {zoom} wide; the limit is {MAX_VIEW_TILES}",
                zoom=zoom,
                remedy="give fewer metres or a lower zoom",
            )
        tiles = max(1, round(across))
        return cls(tiles, max(1, round(tiles * (1 - overlap))))

    def origins_in_cell(self, cell: Tile, zoom: int) -> NDArray[np.uint64]:
        """uint64[n], ascending: the origins of the views of a cell, n <= 256.

        Raises Invalid unless `cell` is a cell of tiles of `zoom`.
        """
        check_zoom(zoom)
        if cell.z != zoom - min(zoom, CELL_ZOOMS):
            raise Invalid(f"{cell} is not a cell of tiles of zoom {zoom}", tile=str(cell), zoom=zoom)
        ids = np.arange(*cell_range(cell, zoom), dtype=np.uint64)
        if self.tiles == 1:  # each tile is a view: a country needs no detour over columns and rows
            return ids
        return ids[self._exist(zoom, *tile_xy(zoom, ids))]

    def footprint(self, zoom: int, origins: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """uint64[n, tiles, tiles]: the ids of the tiles of each view, row by row from the north-western tile.

        `origins` is uint64[n]. Raises Invalid for an origin whose view does not exist.
        """
        if self.tiles == 1:
            first, end = cell_range(Tile(0, 0, 0), zoom)
            if origins.size and not (first <= int(origins.min()) and int(origins.max()) < end):
                raise Invalid(f"an origin belongs to another zoom than {zoom}", zoom=zoom)
            return origins[:, None, None]
        x, y = tile_xy(zoom, origins)
        if not self._exist(zoom, x, y).all():
            raise Invalid(f"an origin has no view of {self.tiles} tiles at zoom {zoom}", zoom=zoom)
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
        # One axis after the other: this takes 2 * tiles passes over the tiles, not tiles * tiles.
        x, y = _union(((x - step) % side, y) for step in range(self.tiles))
        on_grid = x % self.stride == 0
        x, y = _union((x[on_grid], y[on_grid] - step) for step in range(self.tiles))
        exist = self._exist(zoom, x, y)
        origins = tile_ids(zoom, x[exist], y[exist])
        origins.sort()
        return origins

    def _exist(self, zoom: int, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[n]: whether a view exists whose origin has these columns and rows (int64[n])."""
        side = 1 << zoom
        on_grid = (x % self.stride == 0) & (y % self.stride == 0)
        # A zoom has as many columns as rows: a view that fits into the rows does not reach round the world.
        exist: NDArray[np.bool_] = on_grid & (y >= 0) & (y + self.tiles <= side)
        return exist


def _union(parts: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The (columns, rows) of all parts, each pair once. Rows may be negative."""
    pairs = np.empty(0, np.int64)
    for x, y in parts:
        pairs = np.union1d(pairs, (y << MAX_ZOOM) + x)
    return pairs & ((1 << MAX_ZOOM) - 1), pairs >> MAX_ZOOM
