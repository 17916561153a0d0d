"""The area within a distance of lines: `read_corridor`.

Law: a corridor is never narrower than asked, on the sphere of the mean radius and on WGS 84, and hardly wider.

A leg is cut into pieces; a piece is the convex hull, in longitude and latitude, of the discs about its two ends. That
holds the discs about all points of the straight line between them, because a disc's half axis in longitude,
1 / cos(latitude), is a convex function. What the radius of the discs has added to it:

- 0.6 %: on WGS 84. Its radii of curvature are nowhere below 6335439 m (that of the meridian at the equator), so no
  line on it is longer on the sphere than by R / 6335439 = 1.00562, wherever it lies.
- 1 %: the great circle bends away from the straight line of the piece, by L**2 * tan(latitude) / 8 R times at most
  1.09 (for a course of 55 degrees); the length L of a piece is chosen by that, with 1.25.
- 0.2 %: a disc is no exact ellipse in longitude and latitude; this is of the order of the square of its radius.
- 5 cm: coordinates are rounded to 1e-7 degree, 1.1 cm, when the union is made.
- 1 / cos(pi / 32), 0.5 %: a disc becomes a polygon of 32 sides about it.

Needs shapely, and raises Unavailable without it. Knows nothing of tiles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.areas.geojson import Document, cut
from builders.extras import import_extra
from store.errors import Invalid
from store.format.area import Area, Polygon

MIN_CORRIDOR_M = 1
MAX_CORRIDOR_M = 200_000
MAX_PIECES = 1 << 14  # that the legs of a corridor are cut into
EARTH_RADIUS_M = 6371008.8  # the mean radius (2a + b) / 3 of WGS 84

_MERCATOR_E7 = 850511287  # the web-mercator limit, down to a whole unit
_SIDES = 32
_SAG = 0.01
_MAX_PIECE_M = 100_000.0
_LEG_SAMPLES = 129
_ANTIPODES = math.radians(179)

Floats: TypeAlias = NDArray[np.float64]


def read_corridor(path: Path, width_m: Decimal | float) -> Area:
    """Everything within `width_m` / 2 metres of the lines of a GeoJSON file: LineString and MultiLineString.

    A leg is the great circle between its vertices, so always the short way round. The corridor is never narrower than
    asked, on the sphere of the mean radius and on WGS 84, and less than 4 % and 0.2 m wider; it ends in half discs.

    Raises Invalid for a width outside 1 m to 200 km, for other geometry, for a leg between antipodes, for a corridor
    that reaches beyond the web-mercator limit or has more vertices than a manifest has room for; Unavailable for what
    cannot be read.
    """
    half = float(width_m) / 2
    if not MIN_CORRIDOR_M <= 2 * half <= MAX_CORRIDOR_M:  # NaN is refused too
        raise Invalid(
            f"a corridor of {width_m} m is not from {MIN_CORRIDOR_M} to {MAX_CORRIDOR_M} m wide",
            remedy="give the full width in metres",
            width_m=str(width_m),
        )
    document = Document(path)
    reach = _reach(half)
    legs: list[Floats] = []
    pieces = 0
    for found in document.geometries(("LineString", "MultiLineString")):
        for where, line in document.lines(found):
            for ends in _legs(document, where, line, half, reach):
                legs.append(ends)
                pieces += len(ends) - 1
                if pieces > MAX_PIECES:
                    document.wrong(where, f"needs more than {MAX_PIECES} pieces", "make the line shorter or wider")
    if not legs:
        document.wrong("", "holds no line", "give a LineString")
    return document.area(_capsules(legs, reach), "make the corridor wider or shorter, or give the line fewer vertices")


def _reach(half: float) -> float:
    """The distance (radians) of a disc's vertices from its centre, for a corridor of half the width in metres."""
    metres = half * (1 + 0.006 + _SAG + 0.002) + 0.05
    return metres / EARTH_RADIUS_M / math.cos(math.pi / _SIDES)


def _legs(document: Document, where: str, line: list[tuple[int, int]], half: float, reach: float) -> Iterator[Floats]:
    """For each leg the ends of its pieces: longitude and latitude in radians, float64[n, 2]."""
    limit = math.radians(_MERCATOR_E7 / 10**7) - reach
    vertices = np.radians(np.array(line, np.float64) / 10**7)
    units = _unit(vertices)
    for i, (a, b) in enumerate(itertools.pairwise(units)):
        angle = math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b))
        if angle > _ANTIPODES:
            document.wrong(f"{where}[{i + 1}]", "is at the antipodes of the one before", "give a position between")
        # What the steps between the samples hide is below a degree of latitude.
        steepest = float(np.abs(_between(a, b, angle, _LEG_SAMPLES)[:, 1]).max())
        bend = math.tan(min(steepest, limit) + math.radians(1))
        longest = min(math.sqrt(8 * EARTH_RADIUS_M * _SAG * half / (1.25 * bend)), _MAX_PIECE_M)
        count = math.ceil(angle * EARTH_RADIUS_M / longest) + 1
        if count > MAX_PIECES:
            document.wrong(f"{where}[{i + 1}]", "ends a leg that is too long for its width", "make it wider or shorter")
        ends = _between(a, b, angle, max(count, 2))
        if steepest > limit or np.abs(ends[:, 1]).max() > limit:
            document.wrong(
                f"{where}[{i + 1}]",
                "ends a leg that comes too near to a pole: the map ends at 85.0511 degrees",
                "move the line; the great circle between two positions runs nearer to the pole than they are",
            )
        yield ends


def _unit(points: Floats) -> Floats:
    """Unit vectors, float64[n, 3], of longitudes and latitudes in radians."""
    lon, lat = points[:, 0], points[:, 1]
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)


def _between(a: Floats, b: Floats, angle: float, count: int) -> Floats:
    """Longitude and latitude (radians, float64[count, 2]) of points evenly along the great circle from a to b."""
    part = np.linspace(0.0, 1.0, count)[:, None]
    x, y, z = (np.sin((1 - part) * angle) * a + np.sin(part * angle) * b).T
    return np.stack([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))], axis=1)


def _capsules(legs: Sequence[Floats], reach: float) -> list[Polygon]:
    shapely = import_extra("shapely")
    starts = np.concatenate([leg[:-1] for leg in legs])
    ends = np.concatenate([leg[1:] for leg in legs])
    ends[:, 0] += np.rint((starts[:, 0] - ends[:, 0]) / math.tau) * math.tau
    discs = np.concatenate([_disc(starts, reach), _disc(ends, reach)], axis=1)
    of = np.repeat(np.arange(len(discs)), discs.shape[1])
    points = np.degrees(discs.reshape(-1, 2)) * 10**7
    return cut(shapely.convex_hull(shapely.multipoints(shapely.points(points), indices=of)))


def _disc(centres: Floats, reach: float) -> Floats:
    """The vertices (radians, float64[n, sides, 2]) about each centre, at the distance `reach`."""
    course = np.arange(_SIDES) * (math.tau / _SIDES)
    lon, lat = centres[:, :1], centres[:, 1:]
    sine = np.sin(lat) * math.cos(reach) + np.cos(lat) * math.sin(reach) * np.cos(course)
    east = np.arctan2(np.sin(course) * math.sin(reach) * np.cos(lat), math.cos(reach) - np.sin(lat) * sine)
    return np.stack([lon + east, np.arcsin(sine)], axis=2)
