"""Tile arithmetic: addresses, PMTiles ids, cells, and the tiles of a box. Pure.

A tile has an XYZ address: row 0 lies in the north. Its id is that of PMTiles version 3: the ids of all lower zooms come
first, then those of its own zoom along a Hilbert curve. Along this curve the descendants of a tile at one zoom have a
contiguous range of ids. A cell is the ancestor four zooms up, so the tiles of a cell are one range.

Laws: `tile_from_id(tile_id(t)) == t`; `tile_xy(z, tile_ids(z, x, y)) == (x, y)`; `tile_id(t)` is in
`cell_range(cell_of(t), t.z)`.

The functions on arrays serve whole areas. Tile sources and polygons are the subject of other modules.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from store.errors import Invalid

MAX_ZOOM = 24
CELL_ZOOMS = 4
MAX_TILE_BYTES = 16 << 20  # of an encoded tile; a larger one is not decoded
# The ids of 2**24 tiles take 128 MiB. An area with more at one zoom is a mistake that would fill the memory.
MAX_AREA_TILES = 1 << 24
_DEGREE = 10**7
_TURN = 360 * _DEGREE
_LATITUDE_LIMIT = 85.0511287798066  # atan(sinh(pi)): where the web-mercator square ends

# West, south, east, north in degrees.
Bounds: TypeAlias = tuple[float, float, float, float]
Coordinate = TypeVar("Coordinate", int, NDArray[np.int64])


class Tile(NamedTuple):
    """One tile: zoom 0..24, column from the west, row from the north. `str` prints z/x/y."""

    z: int
    x: int
    y: int

    def __str__(self) -> str:
        return f"{self.z}/{self.x}/{self.y}"


def check_zoom(zoom: int) -> None:
    """Raise Invalid for a zoom outside 0..24."""
    if not 0 <= zoom <= MAX_ZOOM:
        raise Invalid(f"zoom {zoom} is outside 0..{MAX_ZOOM}", zoom=zoom)


def tile_id(tile: Tile) -> int:
    """The PMTiles id of a tile. Raises Invalid for a tile that does not exist."""
    z, x, y = tile
    check_zoom(z)
    if not (0 <= x < 1 << z and 0 <= y < 1 << z):
        raise Invalid(f"tile {tile} does not exist", tile=str(tile))
    return _first_id(z) + _along_curve(z, x, y)


def tile_ids(zoom: int, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The ids (uint64[n], in the order given) of the tiles with columns and rows `x`, `y` (int64[n]) at a zoom.

    Raises Invalid for a tile that does not exist.
    """
    check_zoom(zoom)
    if x.size and (min(x.min(), y.min()) < 0 or max(x.max(), y.max()) >> zoom):
        raise Invalid(f"a tile has a column or row that zoom {zoom} does not have", zoom=zoom)
    return (_along_curve(zoom, x.astype(np.int64), y.astype(np.int64)) + _first_id(zoom)).astype(np.uint64)


def tile_from_id(number: int) -> Tile:
    """The tile with this id. Raises Invalid for an id beyond zoom 24."""
    if not 0 <= number < _first_id(MAX_ZOOM + 1):
        raise Invalid(f"tile id {number} is outside zooms 0..{MAX_ZOOM}", tile_id=number)
    z = ((3 * number + 1).bit_length() - 1) // 2  # 4**z <= 3 * id + 1 < 4**(z + 1)
    x, y = _off_curve(z, number - _first_id(z))
    return Tile(z, x, y)


def tile_xy(zoom: int, ids: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The columns and rows (int64[n] each, in the order given) of the tiles with these ids: the inverse of `tile_ids`.

    Raises Invalid for an id of another zoom.
    """
    check_zoom(zoom)
    first = _first_id(zoom)
    if ids.size and not (first <= int(ids.min()) and int(ids.max()) < _first_id(zoom + 1)):
        raise Invalid(f"a tile id belongs to another zoom than {zoom}", zoom=zoom)
    return _off_curve(zoom, ids.astype(np.int64) - first)


def cell_of(tile: Tile) -> Tile:
    """The cell of a tile: its ancestor at z - 4, or 0/0/0 for a tile of zoom 0 to 3."""
    up = min(tile.z, CELL_ZOOMS)
    return Tile(tile.z - up, tile.x >> up, tile.y >> up)


def cell_range(cell: Tile, zoom: int) -> tuple[int, int]:
    """(first, end): the tiles of `cell` at `zoom` have the ids from `first` up to, but without, `end`.

    Raises Invalid for a zoom lower than that of the cell.
    """
    check_zoom(zoom)
    depth = zoom - cell.z
    if depth < 0:
        raise Invalid(f"cell {cell} has no tiles at zoom {zoom}", tile=str(cell), zoom=zoom)
    first = _first_id(zoom) + ((tile_id(cell) - _first_id(cell.z)) << (2 * depth))
    return first, first + (1 << (2 * depth))


def cell_spans(cell: Tile, zoom: int) -> tuple[range, range]:
    """The columns and the rows of the tiles of a cell. Raises Invalid for a cell that does not exist or belongs to
    another zoom."""
    first, last = cell_range(cell, zoom)
    if last - first > 1 << (2 * CELL_ZOOMS):
        raise Invalid(f"{cell} is not a cell of tiles of zoom {zoom}", tile=str(cell), zoom=zoom)
    depth = zoom - cell.z
    return range(cell.x << depth, (cell.x + 1) << depth), range(cell.y << depth, (cell.y + 1) << depth)


def tiles_of_bbox(bbox: tuple[int, int, int, int], zoom: int) -> NDArray[np.uint64]:
    """The ascending ids (uint64[n], n >= 1) of the tiles that a box covers at a zoom.

    `bbox` is (west, south, east, north) in 1e-7 degree; west greater than east crosses the antimeridian.
    A tile that the box only touches is not covered. Raises Invalid as `rows_and_columns` does, and for a box that
    covers more than 2**24 tiles.
    """
    rows, ranges = rows_and_columns(bbox, zoom)
    count = min(sum(map(len, ranges)), 1 << zoom) * len(rows)
    if count > MAX_AREA_TILES:
        raise Invalid(
            f"the bbox {bbox} has {count} tiles at zoom {zoom}; the limit is {MAX_AREA_TILES}",
            bbox=bbox,
            zoom=zoom,
            remedy="give a smaller area or a lower zoom",
        )
    # A box round the world may end in the column where it begins: that column counts once.
    columns = np.unique(np.concatenate([np.arange(one.start, one.stop, dtype=np.int64) for one in ranges]))
    x, y = np.meshgrid(columns, np.arange(rows.start, rows.stop, dtype=np.int64))
    ids = tile_ids(zoom, x.ravel(), y.ravel())
    ids.sort()
    return ids


def rows_and_columns(bbox: tuple[int, int, int, int], zoom: int) -> tuple[range, list[range]]:
    """The rows, counted from the north, and the columns of the tiles that a box covers at a zoom.

    A box that crosses the antimeridian has two ranges of columns. Latitudes are clamped to the web-mercator limit.
    Raises Invalid for a box that is empty, or lies outside the world or wholly beyond the limit.
    """
    check_zoom(zoom)
    west, south, east, north = bbox
    if max(abs(west), abs(east)) > _TURN // 2 or max(abs(south), abs(north)) > _TURN // 4:
        raise Invalid(f"the bbox {bbox} is outside the world", bbox=bbox)
    # 180 east and 180 west are the same meridian: a box from the first to the second is empty.
    if south >= north or west == east or (west, east) == (_TURN // 2, -_TURN // 2):
        raise Invalid(f"the bbox {bbox} is empty", bbox=bbox, remedy="give west, south, east, north")
    limit = math.ceil(_LATITUDE_LIMIT * _DEGREE)
    if south >= limit or north <= -limit:
        raise Invalid(f"the bbox {bbox} lies beyond the web-mercator limit of 85.0511 degrees", bbox=bbox)
    spans = [(west, east)] if west < east else [(west, _TURN // 2), (-_TURN // 2, east)]
    # Exact in integers: floor of the left edge, ceiling of the right one.
    ranges = [
        range(((left + _TURN // 2) << zoom) // _TURN, -((-(right + _TURN // 2) << zoom) // _TURN))
        for left, right in spans
    ]
    return rows_between(south, north, zoom), ranges


def rows_between(south: int, north: int, zoom: int) -> range:
    """The rows, counted from the north and at least one, between two latitudes in 1e-7 degree, south below north."""
    first = min(max(0, math.floor(_row(north, zoom))), (1 << zoom) - 1)
    return range(first, min(1 << zoom, max(math.ceil(_row(south, zoom)), first + 1)))


def tile_bounds(tile: Tile) -> Bounds:
    """(west, south, east, north) of a tile in degrees of WGS 84."""
    z, x, y = tile
    side = 1 << z

    def latitude(row: int) -> float:
        return math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * row / side))))

    return x / side * 360 - 180, latitude(y + 1), (x + 1) / side * 360 - 180, latitude(y)


def bounds_of_tiles(zoom: int, columns: tuple[int, int], rows: tuple[int, int]) -> Bounds:
    """The box of the tiles from the first to the last column and row."""
    west, _, _, north = tile_bounds(Tile(zoom, columns[0], rows[0]))
    _, south, east, _ = tile_bounds(Tile(zoom, columns[1], rows[1]))
    return west, south, east, north


def _first_id(zoom: int) -> int:
    """The first id of a zoom, which is the number of tiles at all lower zooms: (4**zoom - 1) / 3."""
    return ((1 << (2 * zoom)) - 1) // 3


def _along_curve(zoom: int, x: Coordinate, y: Coordinate) -> Coordinate:
    """The place of column `x`, row `y` on the Hilbert curve of a zoom, for integers and for arrays."""
    place = x & 0
    for bit in range(zoom - 1, -1, -1):
        right = (x >> bit) & 1
        lower = (y >> bit) & 1
        place = (place << 2) | ((3 * right) ^ lower)
        # Turn the quarter into the frame of the curve without a branch: the upper right quarter is mirrored, both
        # upper quarters are transposed. Bits above `bit` are not used again.
        mirror = ((1 << bit) - 1) * (right & (1 - lower))
        x, y = x ^ mirror, y ^ mirror
        swap = (x ^ y) * (1 - lower)
        x, y = x ^ swap, y ^ swap
    return place


def _off_curve(zoom: int, place: Coordinate) -> tuple[Coordinate, Coordinate]:
    """(column, row) of a place on the Hilbert curve of a zoom: the steps of `_along_curve` in reverse."""
    x = y = place & 0
    for bit in range(zoom):
        quarter = (place >> (2 * bit)) & 3
        right = quarter >> 1
        lower = (quarter ^ right) & 1
        swap = (x ^ y) * (1 - lower)
        x, y = x ^ swap, y ^ swap
        mirror = ((1 << bit) - 1) * (right & (1 - lower))
        x, y = (x ^ mirror) | (right << bit), (y ^ mirror) | (lower << bit)
    return x, y


def _row(latitude: int, zoom: int) -> float:
    """The row, with its fraction, of a latitude in 1e-7 degree.

    The equator is the only row edge at a whole number of 1e-7 degree, and its row is exact. At zoom 24 a few other
    edges lie as near to a whole number as the rounding error (the nearest, at +-71.4832628, +-66.3720412 and
    +-2.1702677 degrees, are 1e-8 to 9e-8 of a unit away). There the result may be the neighbouring row, which is wrong
    by less than 0.1 micrometre on the ground.
    """
    angle = math.radians(max(-_LATITUDE_LIMIT, min(_LATITUDE_LIMIT, latitude / _DEGREE)))
    return (1 - math.asinh(math.tan(angle)) / math.pi) / 2 * (1 << zoom)
