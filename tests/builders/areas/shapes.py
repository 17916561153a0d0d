"""Areas, rings and GeoJSON values for the tests of areas: made by hand, drawn, and measured with shapely."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.areas.covering import tiles_of_area
from builders.grid.tiles import Tile, tile_bounds, tile_from_id, tile_id
from store.format.area import LON_MAX, Area, Polygon, Ring

# Without types of its own: as a value it is Any.
shapely: Any = importlib.import_module("shapely")

DEGREE = 10**7
TURN = 360 * DEGREE

Write = Callable[[object], Path]


def box_ring(west: int, south: int, east: int, north: int) -> Ring:
    return west, south, east, south, east, north, west, north


def area_of(*polygons: Polygon) -> Area:
    numbers = [ring for polygon in polygons for ring in polygon]
    longitudes, latitudes = [n for r in numbers for n in r[::2]], [n for r in numbers for n in r[1::2]]
    return Area((min(longitudes), min(latitudes), max(longitudes), max(latitudes)), polygons)


def of(area: Area, zoom: int) -> set[int]:
    ids = tiles_of_area(area, zoom)
    assert ids.dtype == np.uint64
    assert (ids[1:] > ids[:-1]).all()
    return set(ids.tolist())


@st.composite
def stars(draw: st.DrawFn, size: int = 20 * DEGREE) -> Ring:
    """A ring about a point: always valid, rarely convex."""
    radii = draw(st.lists(st.integers(size // 20, size), min_size=3, max_size=12))
    lon = draw(st.integers(size - LON_MAX, LON_MAX - size))
    lat = draw(st.integers(size - 85 * DEGREE, 85 * DEGREE - size))
    step = math.tau / len(radii)
    points = [
        (lon + round(r * math.cos(i * step + 0.1)), lat + round(r * math.sin(i * step + 0.1)))
        for i, r in enumerate(radii)
    ]
    return tuple(number for point in points for number in point)


def shape_of(polygon: Polygon) -> Any:
    outer, *holes = [list(zip(ring[::2], ring[1::2], strict=True)) for ring in polygon]
    return shapely.Polygon(outer, holes)


def shared_ground(shape: Any, zoom: int) -> NDArray[np.float64]:
    """For every tile of a zoom, in the order of ids, the part of it that a shape covers."""
    first = tile_id(Tile(zoom, 0, 0))
    bounds = np.array([tile_bounds(tile_from_id(first + i)) for i in range(4**zoom)]) * 10**7
    tiles = shapely.box(*bounds.T)
    part: NDArray[np.float64] = shapely.area(shapely.intersection(tiles, shape)) / shapely.area(tiles)
    return part


def polygon(*rings: list[list[Any]]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def box(west: float, south: float, east: float, north: float) -> list[list[float]]:
    return [[west, south], [east, south], [east, north], [west, north], [west, south]]


def feature(geometry: object, **properties: object) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(*features: object) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


SQUARE = box(1, 2, 3, 4)
SQUARE_E7 = (box_ring(DEGREE, 2 * DEGREE, 3 * DEGREE, 4 * DEGREE),)
