"""The area within a distance of lines and points: `read_corridor`, `around`.

Law: a corridor is never narrower than requested, on the sphere of the mean radius and on WGS 84, and less than 4 % and
0.2 m wider.

A leg is cut into pieces. A piece is the convex hull, in longitude and latitude, of the discs about its two ends. The
hull holds the discs about all points of the straight line between the ends, because the half axis of a disc in
longitude, 1 / cos(latitude), is a convex function. The radius of the discs includes these margins:

- 0.6 % for WGS 84. Its radii of curvature are nowhere below 6335439 m (that of the meridian at the equator), so the
  sphere lengthens a line on it by at most R / 6335439 = 1.00562.
- 1 % for the great circle, which bends away from the straight line of the piece by L**2 * tan(latitude) / 8 R times at
  most 1.09 (for a course of 55 degrees). The length L of a piece follows from this margin, with a factor of 1.25.
- 0.2 % because a disc is not an exact ellipse in longitude and latitude. The error is of the order of the square of its
  radius.
- 5 cm because the union rounds coordinates to 1e-7 degree, 1.1 cm.
- 1 / cos(pi / 32), 0.5 %, because a disc becomes a polygon of 32 sides around it.

Needs shapely, and raises Unavailable without it. Tiles are the subject of `covering`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.areas.geometry import Geometry, GeometryFile, cut_at_antimeridian
from builders.extras import import_extra
from store.errors import Invalid
from store.format.area import Area, Polygon

MIN_CORRIDOR_M = 1
MAX_CORRIDOR_M = 200_000
MAX_PIECES = 1 << 14  # of all legs of a file
EARTH_RADIUS_M = 6371008.8  # the mean radius (2a + b) / 3 of WGS 84

_MERCATOR_E7 = 850511287  # the web-mercator limit, down to a whole unit
_SIDES = 32
_SAG = 0.01
_MAX_PIECE_M = 100_000.0
_LEG_SAMPLES = 129
_ANTIPODES = math.radians(179)

Floats: TypeAlias = NDArray[np.float64]


def read_corridor(file: GeometryFile, width_m: Decimal | float, select: str | None = None) -> Area:
    """The area within `width_m` / 2 metres of the lines of a file, or of those of the thing that `select` names.

    A leg is the great circle between two vertices, the short way round. The corridor ends in half discs. It is never
    narrower than requested, on the sphere of the mean radius and on WGS 84, and less than 4 % and 0.2 m wider.

    Raises Invalid for a width outside 1 m to 200 km, for other geometry, for a leg between antipodes, and for a
    corridor that reaches beyond the web-mercator limit or has more vertices than the limit of a manifest.
    """
    half = float(width_m) / 2
    if not MIN_CORRIDOR_M <= 2 * half <= MAX_CORRIDOR_M:  # NaN is refused too
        raise Invalid(
            f"the width of the corridor is {width_m} m, must be {MIN_CORRIDOR_M} to {MAX_CORRIDOR_M} m",
            remedy="give the full width in metres",
            width_m=str(width_m),
        )
    geometries = list(file.shapes(("LineString", "MultiLineString"), select))
    if not geometries:
        file.refuse_nothing("line", "give a file with a line, or the right one's name")
    polygons = _within(file, geometries, half)
    return file.area(polygons, "make the corridor wider or shorter, or give the line fewer vertices")


def around(file: GeometryFile, geometry: Geometry) -> list[Polygon]:
    """The polygons within `geometry.metres` of a Circle's centre or of a Strip's line, as wide as a corridor would be.

    Raises Invalid as `read_corridor` does.
    """
    if not MIN_CORRIDOR_M <= 2 * geometry.metres <= MAX_CORRIDOR_M:
        file.refuse(
            geometry.place,
            f"has {geometry.metres} m to either side, must have {MIN_CORRIDOR_M / 2} to {MAX_CORRIDOR_M // 2} m",
            "draw it again, or leave it out",
        )
    return _within(file, [geometry], float(geometry.metres))


def _within(file: GeometryFile, geometries: Sequence[Geometry], half: float) -> list[Polygon]:
    """The polygons within `half` metres of lines and points."""
    reach = _reach(half)
    legs: list[Floats] = []
    for geometry in geometries:
        if geometry.kind == "Circle":
            legs.append(_still(file, geometry, reach))
            continue
        for place, line in file.lines(geometry):
            for ends in _legs(file, place, line, half, reach):
                legs.append(ends)
                file.pieces += len(ends) - 1
                if file.pieces > MAX_PIECES:
                    file.refuse(
                        place, f"needs more than {MAX_PIECES} pieces", "make the corridor wider, or the line shorter"
                    )
    return _capsules(legs, reach)


def _still(file: GeometryFile, geometry: Geometry, reach: float) -> Floats:
    """The two ends of a leg without length, as `_legs` gives them."""
    lon, lat = file.point(geometry)
    if abs(math.radians(lat / 10**7)) > math.radians(_MERCATOR_E7 / 10**7) - reach:
        file.refuse(geometry.place, "comes too near to a pole: the map ends at 85.0511 degrees", "make it smaller")
    return np.radians(np.array([[lon, lat], [lon, lat]], np.float64) / 10**7)


def _reach(half: float) -> float:
    """The distance (radians) of the vertices of a disc from its centre; `half` is half the width in metres."""
    metres = half * (1 + 0.006 + _SAG + 0.002) + 0.05
    return metres / EARTH_RADIUS_M / math.cos(math.pi / _SIDES)


def _legs(file: GeometryFile, place: str, line: list[tuple[int, int]], half: float, reach: float) -> Iterator[Floats]:
    """For each leg, the ends of its pieces: longitude and latitude in radians, float64[n, 2]."""
    limit = math.radians(_MERCATOR_E7 / 10**7) - reach
    vertices = np.radians(np.array(line, np.float64) / 10**7)
    units = _unit(vertices)
    for i, (a, b) in enumerate(itertools.pairwise(units)):
        angle = math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b))
        if angle > _ANTIPODES:
            file.refuse(f"{place}[{i + 1}]", "is antipodal to the position before", "give a position between the two")
        # Between two samples the latitude changes by less than a degree.
        steepest = float(np.abs(_between(a, b, angle, _LEG_SAMPLES)[:, 1]).max())
        bend = math.tan(min(steepest, limit) + math.radians(1))
        longest = min(math.sqrt(8 * EARTH_RADIUS_M * _SAG * half / (1.25 * bend)), _MAX_PIECE_M)
        count = math.ceil(angle * EARTH_RADIUS_M / longest) + 1
        if count > MAX_PIECES:
            file.refuse(
                f"{place}[{i + 1}]",
                "ends a leg that is too long for the width",
                "make the corridor wider, or the leg shorter",
            )
        ends = _between(a, b, angle, max(count, 2))
        if steepest > limit or np.abs(ends[:, 1]).max() > limit:
            file.refuse(
                f"{place}[{i + 1}]",
                "ends a leg that comes too near to a pole: the map ends at 85.0511 degrees",
                "move the line away from the pole: a great circle runs nearer to it than its two ends",
            )
        yield ends


def _unit(points: Floats) -> Floats:
    """Unit vectors, float64[n, 3], of longitudes and latitudes in radians."""
    lon, lat = points[:, 0], points[:, 1]
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def _between(a: Floats, b: Floats, angle: float, count: int) -> Floats:
    """Longitude and latitude (radians, float64[count, 2]) of evenly spaced points on the great circle from a to b."""
    part = np.linspace(0.0, 1.0, count)[:, None]
    x, y, z = (np.sin((1 - part) * angle) * a + np.sin(part * angle) * b).T
    return np.stack([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))], axis=1)


def _capsules(legs: Sequence[Floats], reach: float) -> list[Polygon]:
    """The union of the hulls of all pieces."""
    shapely = import_extra("shapely")
    starts = np.concatenate([leg[:-1] for leg in legs])
    ends = np.concatenate([leg[1:] for leg in legs])
    ends[:, 0] += np.rint((starts[:, 0] - ends[:, 0]) / math.tau) * math.tau
    discs = np.concatenate([_disc(starts, reach), _disc(ends, reach)], axis=1)
    # Lines through the points, not points: an object for each of a million takes 100 MB.
    return cut_at_antimeridian(shapely.convex_hull(shapely.linestrings(np.degrees(discs) * 10**7)))


def _disc(centres: Floats, reach: float) -> Floats:
    """The vertices (radians, float64[n, sides, 2]) about each centre, at the distance `reach`."""
    course = np.arange(_SIDES) * (math.tau / _SIDES)
    lon, lat = centres[:, :1], centres[:, 1:]
    sine = np.sin(lat) * math.cos(reach) + np.cos(lat) * math.sin(reach) * np.cos(course)
    east = np.arctan2(np.sin(course) * math.sin(reach) * np.cos(lat), math.cos(reach) - np.sin(lat) * sine)
    return np.stack([lon + east, np.arcsin(sine)], axis=2)
