"""The tiles of an area: `tiles_of_area`, and `descend`, which gives the ranges of tiles of each polygon. Pure.

The search goes down the quadtree with the edges of the polygons. Only the outline costs time: a tile that lies wholly
inside has a contiguous range of descendants.

Laws: a tile belongs to an area exactly if their interiors meet; the tiles of two polygons are the union of the tiles of
each; the parents of the tiles at zoom z + 1 are the tiles at zoom z; equal integers have equal tiles on every machine,
because the edges of tiles are computed only with operations that IEEE 754 defines exactly.

`tiles_of_area` and `descend` check with shapely that polygons are valid, and raise Unavailable without it. The search
itself needs numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.areas.geometry import invalid_reason
from builders.extras import import_extra
from builders.grid.tiles import MAX_AREA_TILES, Tile, check_zoom, tile_id, tile_ids, tiles_of_bbox
from store.errors import Invalid
from store.format.area import LON_MAX, Area, Polygon, Ring

_TURN = 2 * LON_MAX
_DECIMAL = Context(prec=50)
_X, _OF = 24, 48  # a key is polygon << 48 | column << 24 | row
_LOW = (1 << _X) - 1
_MAX_SHAPES = 1 << 15
_CHUNK = 1 << 20
# Pairs of a tile and an edge through it: about 500 MB, far more than the outline of any area needs.
_MAX_PAIRS = 1 << 22
_PI = Decimal("3.14159265358979323846264338327950288419716939937510")

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]


def tiles_of_area(area: Area, zoom: int) -> NDArray[np.uint64]:
    """The ascending ids (uint64[n], n >= 1) of the tiles whose interior meets the interior of the area.

    A tile that the area only touches is not covered, nor is a tile in a hole. An area that is smaller than a tile has
    the tile around it. Ground beyond the web-mercator limit has no tiles. An area without polygons has the tiles of its
    box.

    Raises Invalid for an area wholly beyond the limit, for more than 2**24 tiles, and for polygons that are not valid
    or not within the box.
    """
    check_polygons(area.polygons)
    return tiles_of_signed_area(area, zoom)


def tiles_of_signed_area(area: Area, zoom: int) -> NDArray[np.uint64]:
    """The tiles of an area whose polygons the ground checked before it signed them: what `tiles_of_area` returns.

    Needs numpy only, so that a flight computer needs no shapely. Where a polygon is not valid, a point is inside by the
    even-odd rule (decision 0014). Raises Invalid as `tiles_of_area` does, but not for such a polygon.
    """
    check_zoom(zoom)
    if not area.polygons:
        return tiles_of_bbox(area.bbox, zoom)
    west, _, east, _ = area.bbox
    for i, polygon in enumerate(area.polygons):
        longitudes = polygon[0][::2]
        # Area checks that each vertex is in the box; an edge can leave only a box that crosses the antimeridian.
        if west > east and min(longitudes) <= east and max(longitudes) >= west:
            raise Invalid(f"polygon {i} of the area leaves its bbox", remedy="cut it at the antimeridian", polygon=i)
    ranges = covered_ranges(area.polygons, zoom, None)
    if not ranges.start.size:
        raise Invalid("the area lies beyond the web-mercator limit of 85.0511 degrees", bbox=area.bbox)
    return expand(*merged(ranges.start, ranges.stop)).astype(np.uint64)


@dataclass(frozen=True, slots=True)
class Ranges:
    """Ranges of tile ids, int64[n]: `of` is the index of the polygon, `whole` (bool[n]) whether it covers all tiles."""

    of: Ints
    start: Ints
    stop: Ints
    whole: NDArray[np.bool_]


def descend(polygons: Sequence[Polygon], zoom: int, wanted: Ints | None) -> Ranges:
    """The ranges of tiles at a zoom that each polygon meets. With `wanted`, ascending ids, the ranges hold at least
    those of these tiles that a polygon meets.

    The search goes from zoom 0 to `zoom` with the pairs of a tile and an edge through its interior. A tile without such
    an edge is inside or outside like its centre, and so are its descendants. Without `wanted` the search counts the
    tiles on the way, so an area with too many is Invalid before they fill the memory.

    Raises Invalid for a polygon that is not valid, 2**15 polygons or more, or an outline that would fill the memory.
    """
    check_polygons(polygons)
    return covered_ranges(polygons, zoom, wanted)


def check_polygons(polygons: Sequence[Polygon]) -> None:
    """Raise Invalid for the first polygon that is not valid. Needs shapely."""
    if not polygons:
        return
    shapes = shapes_of(polygons)
    for i in np.flatnonzero(~import_extra("shapely").is_valid(shapes)).tolist():
        raise Invalid(f"polygon {i} is not valid: {invalid_reason(shapes[i])}", remedy="repair the area", polygon=i)


def covered_ranges(polygons: Sequence[Polygon], zoom: int, wanted: Ints | None) -> Ranges:
    """`descend` for polygons that are known to be valid; needs numpy only."""
    if len(polygons) >= _MAX_SHAPES:
        raise Invalid(f"{len(polygons)} polygons are too many", remedy="divide the area")
    edges, owner = _edges(polygons)
    keys, edge = owner << _OF, np.arange(len(edges))
    candidates = np.arange(len(polygons), dtype=np.int64) << _OF
    ranges_so_far: list[Ranges] = []
    for level in range(zoom + 1):
        keys, edge = _wanted(keys, level, zoom, wanted, edge)
        through = _goes_through(keys, level, edges[edge])
        keys, edge = keys[through], edge[through]
        if len(keys) > _MAX_PAIRS:
            raise Invalid(
                f"the area's outline is too long for zoom {zoom}", zoom=zoom, remedy="simplify it or lower the zoom"
            )
        outline = np.unique(keys)
        (rest,) = _wanted(np.setdiff1d(candidates, outline, assume_unique=True), level, zoom, wanted)
        inside = _is_inside(rest, level, edges, owner)
        ranges_so_far.append(_range(rest[inside], level, zoom, whole=True))
        last = _range(outline, level, zoom, whole=False)
        if wanted is None:
            # Each tile on the outline has at least one descendant in the area, and no range so far is smaller.
            _check_count([*ranges_so_far, last], zoom)
        keys, edge, candidates = _children(keys), np.tile(edge, 4), _children(outline)
    ranges = [*ranges_so_far, last]
    return Ranges(
        np.concatenate([r.of for r in ranges]),
        np.concatenate([r.start for r in ranges]),
        np.concatenate([r.stop for r in ranges]),
        np.concatenate([r.whole for r in ranges]),
    )


def shapes_of(polygons: Sequence[Polygon]) -> Any:
    """The polygons as an array of shapely polygons[n]; the doubles of shapely hold the integers exactly."""
    polygon = import_extra("shapely").Polygon
    return np.array([polygon(_pairs(outer), [_pairs(hole) for hole in holes]) for outer, *holes in polygons])


def merged(start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """The ranges (int64[n] each) as ascending starts and lengths (int64[n] each) that do not overlap."""
    order = np.argsort(start, kind="stable")
    start, stop = start[order], stop[order]
    reached = np.maximum.accumulate(stop)
    start[1:] = np.maximum(start[1:], reached[:-1])
    return start, np.maximum(stop - start, 0)


def expand(start: Ints, length: Ints) -> Ints:
    """All numbers of the ranges (int64[n] each), in the order of the ranges: int64[sum of the lengths]."""
    before = np.cumsum(length) - length
    return np.repeat(start - before, length) + np.arange(int(length.sum()), dtype=np.int64)


def _pairs(ring: Ring) -> list[tuple[int, int]]:
    return list(zip(ring[::2], ring[1::2], strict=True))


def _edges(polygons: Sequence[Polygon]) -> tuple[Floats, Ints]:
    """All edges (x, y, x, y as float64[n, 4]) and the index of the polygon of each (int64[n])."""
    edges: list[Floats] = []
    owner: list[Ints] = []
    for i, polygon in enumerate(polygons):
        for ring in polygon:
            points = np.array(ring, np.float64).reshape(-1, 2)
            edges.append(np.concatenate([points, np.roll(points, -1, axis=0)], axis=1))
            owner.append(np.full(len(points), i, np.int64))
    return np.concatenate(edges), np.concatenate(owner)


def _unpack(keys: Ints) -> tuple[Ints, Ints, Ints]:
    return keys >> _OF, keys >> _X & _LOW, keys & _LOW


def _children(keys: Ints) -> Ints:
    of, x, y = _unpack(keys)
    first = of << _OF | x << (_X + 1) | y << 1
    return np.concatenate([first, first | 1, first | 1 << _X, first | 1 << _X | 1])


def _wanted(keys: Ints, level: int, zoom: int, wanted: Ints | None, *beside: Ints) -> list[Ints]:
    """The keys, and the elements of the arrays `beside` them, whose tiles have a descendant among the wanted ids."""
    if wanted is None:
        return [keys, *beside]
    tiles = _range(keys, level, zoom, whole=False, leaves=False)
    some = np.searchsorted(wanted, tiles.start) < np.searchsorted(wanted, tiles.stop)
    return [array[some] for array in (keys, *beside)]


def _range(keys: Ints, level: int, zoom: int, whole: bool, leaves: bool = True) -> Ranges:
    """The ranges of ids of the descendants of tiles; with `leaves`, a tile that is not `whole` has its first only."""
    of, x, y = _unpack(keys)
    depth = 2 * (zoom - level)
    place = tile_ids(level, x, y).astype(np.int64) - tile_id(Tile(level, 0, 0))
    start = (place << depth) + tile_id(Tile(zoom, 0, 0))
    count = 1 if leaves and not whole else 1 << depth
    return Ranges(of, start, start + count, np.full(len(keys), whole))


def _goes_through(keys: Ints, level: int, edges: Floats) -> NDArray[np.bool_]:
    """Whether each edge meets the interior of the tile with the same index: no axis separates open box and segment."""
    result = np.empty(len(keys), np.bool_)
    for i in range(0, len(keys), _CHUNK):
        _, x, y = _unpack(keys[i : i + _CHUNK])
        px, py, qx, qy = edges[i : i + _CHUNK].T
        west, east = _longitudes(level, x), _longitudes(level, x + 1)
        north, south = _latitudes(level, y), _latitudes(level, y + 1)
        result[i : i + _CHUNK] = (
            (np.maximum(px, qx) > west)
            & (np.minimum(px, qx) < east)
            & (np.maximum(py, qy) > south)
            & (np.minimum(py, qy) < north)
        )
        dx, dy = qx - px, qy - py
        left, right = dy * (west - px), dy * (east - px)
        lower, upper = dx * (south - py), dx * (north - py)
        # The corners lie on both sides of the edge. If its line runs exactly through a corner, the products are equal
        # as real numbers, and therefore as doubles.
        least = np.minimum(lower, upper) - np.maximum(left, right)
        most = np.maximum(lower, upper) - np.minimum(left, right)
        result[i : i + _CHUNK] &= (least < 0) & (most > 0)
    return result


def _is_inside(keys: Ints, level: int, edges: Floats, owner: Ints) -> NDArray[np.bool_]:
    """Whether the centre of each tile is inside its polygon; no edge of that polygon goes through these tiles.

    By the even-odd rule: how many edges cross the parallel of the centre, west of it. A crossing lies half a column or
    more from the centre (107 units at zoom 24) and rounding moves it by less than 1e-5 of a unit: the answer is exact.
    """
    of, x, y = _unpack(keys)
    rows, row = np.unique(y, return_inverse=True)
    middles = (_latitudes(level, rows) + _latitudes(level, rows + 1)) / 2
    # An edge crosses a parallel that its southern end is on, and not one that its northern end is on.
    south, north = np.minimum(edges[:, 1], edges[:, 3]), np.maximum(edges[:, 1], edges[:, 3])
    first, stop = (np.searchsorted(-middles, -end, side="right") for end in (north, south))
    # Only parallels on which the edge's own polygon has a centre: groups are pairs of a polygon and a row.
    group = of * len(rows) + row
    groups, place = np.unique(group, return_inverse=True)
    start = np.searchsorted(groups, owner * len(rows) + first)
    count = np.searchsorted(groups, owner * len(rows) + stop) - start
    crossed = expand(start, count)
    px, py, qx, qy = np.repeat(edges, count, axis=0).T
    crossings = px + (middles[groups[crossed] % len(rows)] - py) * ((qx - px) / (qy - py))
    centres = (_longitudes(level, x) + _longitudes(level, x + 1)) / 2
    order = np.lexsort((np.concatenate([crossings, centres]), np.concatenate([crossed, place])))
    # A ring crosses a parallel an even number of times, so the crossings of other groups do not change the parity.
    odd = np.cumsum(order < len(crossed)) % 2 == 1
    inside = np.empty(len(order), np.bool_)
    inside[order] = odd
    return inside[len(crossed) :]


def _longitudes(zoom: int, columns: Ints) -> Floats:
    """The western edges of columns in 1e-7 degree. Exact: a multiple of 2**10 of 36 bits, times 24 bits."""
    return columns.astype(np.float64) * (_TURN / (1 << zoom)) - LON_MAX


def _latitudes(zoom: int, rows: Ints) -> Floats:
    """The northern edges of rows in 1e-7 degree. The equator is 0; the others have an error below 1e-6 of a unit.

    The latitude at web-mercator height h is pi / 2 - 2 atan(exp(-h)). Only sums, products, quotients and roots are
    used, which IEEE 754 rounds in one way: `atan` and `exp` of C libraries differ in the last bit between machines.
    """
    half = 1 << max(zoom - 1, 0)
    # Zoom 0 has no row at the equator; its edges are those of zoom 1.
    from_equator = half - (rows << 1 if zoom == 0 else rows)
    steps = np.abs(from_equator)
    power = np.ones(len(rows))
    for bit, factor in enumerate(_falling(half)):
        power *= np.where(steps >> bit & 1, factor, 1.0)
    tangent = power
    for _ in range(3):  # atan(t) = 2 atan(t / (1 + sqrt(1 + t * t)))
        tangent = tangent / (1 + np.sqrt(1 + tangent * tangent))
    square = tangent * tangent
    series = np.zeros(len(rows))
    for k in range(21, 0, -2):  # t - t**3 / 3 + t**5 / 5 - ..., t below tan(pi / 32): the next term is 1e-25
        series = 1 / k - square * series
    angle: Floats = float(_PI) / 2 - 16 * (tangent * series)
    return np.sign(from_equator) * angle * (LON_MAX / float(_PI))


@cache
def _falling(half: int) -> tuple[float, ...]:
    """exp(-pi * 2**i / half) for each bit i of a count of rows up to `half`."""
    quotients = (_DECIMAL.divide(_PI, half >> i) for i in range(half.bit_length()))  # half is a power of two
    return tuple(float(_DECIMAL.exp(quotient.copy_negate())) for quotient in quotients)


def _check_count(ranges: Sequence[Ranges], zoom: int) -> None:
    _, length = merged(np.concatenate([r.start for r in ranges]), np.concatenate([r.stop for r in ranges]))
    count = int(length.sum())
    if count > MAX_AREA_TILES:
        raise Invalid(
            f"the area has at least {count} tiles at zoom {zoom}; the limit is {MAX_AREA_TILES}",
            zoom=zoom,
            remedy="give a smaller area or a lower zoom",
        )
