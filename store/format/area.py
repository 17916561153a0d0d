"""The area of a mission (FORMAT.md 4.2): a bounding box, and polygons where the area is not the whole box.

All arithmetic is exact, in integers. Coordinates are 1e-7 degree (they fit int32), longitude before latitude (RFC 7946,
section 3.1.1). A box whose west is greater than its east crosses the antimeridian. A polygon is a list of rings: the
first is the outer ring, the others are holes. A ring is a flat list lon, lat, lon, lat, ... without a repeated last
vertex, and it never crosses the antimeridian (RFC 7946, section 3.1.9: an area that does is cut there into two
polygons).

This module reads no GeoJSON and cuts no areas; `builders.areas` does.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from store.errors import Corrupt
from store.format.cbor import Fields, Value, integers
from store.values import dataclass

LAT_MAX = 90 * 10**7
LON_MAX = 180 * 10**7
MAX_NUMBERS = 8192
_METRES_A_UNIT = 6371008.8 * math.pi / LON_MAX  # of latitude, on the sphere of the mean radius

Ring: TypeAlias = tuple[int, ...]
Polygon: TypeAlias = tuple[Ring, ...]


@dataclass(frozen=True, slots=True)
class Area:
    """`bbox` is (west, south, east, north) in 1e-7 degree; `polygons` is empty where the area is the box.

    Raises Corrupt (kind bad-field) for a box that is empty or outside the world, and for a malformed polygon.
    """

    bbox: tuple[int, int, int, int]
    polygons: tuple[Polygon, ...] = ()

    def __post_init__(self) -> None:
        west, south, east, north = self.bbox
        if max(abs(west), abs(east)) > LON_MAX or max(abs(south), abs(north)) > LAT_MAX:
            raise Corrupt("area.bbox is outside the world", kind="bad-field", field="area.bbox")
        # 180 east and 180 west are one line: a box from 180 east to 180 west has no width.
        if south >= north or west == east or (west, east) == (LON_MAX, -LON_MAX):
            raise Corrupt("area.bbox is empty", kind="bad-field", field="area.bbox")
        for polygon in self.polygons:
            if not polygon:
                raise Corrupt("a polygon of the area has no ring", kind="bad-field", field="area.polygons")
            for ring in polygon:
                if len(ring) < 6 or len(ring) % 2:
                    raise Corrupt(
                        "a ring of the area has fewer than three vertices, or an odd number of coordinates",
                        kind="bad-field",
                        field="area.polygons",
                    )
                if not all(self._in_box(ring[i + 1], ring[i]) for i in range(0, len(ring), 2)):
                    raise Corrupt("a vertex of the area is outside area.bbox", kind="bad-field", field="area.polygons")

    def _in_box(self, lat: int, lon: int) -> bool:
        west, south, east, north = self.bbox
        inside = west <= lon <= east if west < east else lon >= west or lon <= east
        return inside and south <= lat <= north

    @property
    def middle_latitude(self) -> float:
        """The latitude in the middle of the box, in degrees: there the metres of views hold."""
        return (self.bbox[1] + self.bbox[3]) / 2 / 10**7

    def contains(self, lat: int, lon: int) -> bool:
        """Whether the point (1e-7 degree) is in the area.

        The edge of the area is inside; a pole has every longitude.
        """
        if abs(lat) > LAT_MAX or abs(lon) > LON_MAX:
            return False
        if abs(lat) == LAT_MAX:  # a polygon that reaches the pole has a vertex there
            return lat in ([y for p in self.polygons for y in p[0][1::2]] or (self.bbox[1], self.bbox[3]))
        # The antimeridian is one line with two names.
        names = {lon, -lon} if abs(lon) == LON_MAX else {lon}
        return any(
            self._in_box(lat, name) and (not self.polygons or any(_in_polygon(p, lat, name) for p in self.polygons))
            for name in names
        )

    def distance_m(self, lat: int, lon: int) -> float:
        """The metres from a point (1e-7 degree) to the border of the area: within 1 % up to 100 km, rougher beyond, for
        people to read."""
        west, south, east, north = self.bbox
        box: Ring = (west, south, east, south, east, north, west, north)
        scale = math.cos(math.radians(lat / 10**7))

        def place(x: int, y: int) -> complex:
            """In 1e-7 degree of latitude, seen from the point; the antimeridian is not in the way."""
            return complex(((x - lon + LON_MAX) % (2 * LON_MAX) - LON_MAX) * scale, y - lat)

        nearest = math.inf
        for ring in [ring for polygon in self.polygons for ring in polygon] or [box]:
            corners = [place(ring[i], ring[i + 1]) for i in range(0, len(ring), 2)]
            for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
                leg = b - a
                part = -(a * leg.conjugate()).real / abs(leg) ** 2 if leg else 0.0
                nearest = min(nearest, abs(a + leg * min(max(part, 0.0), 1.0)))
        return nearest * _METRES_A_UNIT

    def value(self) -> Value:
        """Return the area as it is encoded in the payload."""
        return {"bbox": list(self.bbox), "polygons": [[list(r) for r in p] for p in self.polygons]}

    @classmethod
    def parse(cls, fields: Fields) -> Area:
        """Return the area of a decoded map. Raises Corrupt (kind bad-field) for any other map."""
        box = integers(fields.array("bbox", 4, 4), -LON_MAX, LON_MAX, "area.bbox")
        room = MAX_NUMBERS
        polygons: list[Polygon] = []
        for polygon in fields.array("polygons", 0, 256):
            rings: list[Ring] = []
            for ring in _array(polygon):
                numbers = _array(ring)
                room -= len(numbers)
                if room < 0:
                    raise Corrupt(
                        f"the area has more than {MAX_NUMBERS // 2} vertices", kind="bad-field", field="area.polygons"
                    )
                rings.append(integers(numbers, -LON_MAX, LON_MAX, "area.polygons"))
            polygons.append(tuple(rings))
        fields.end()
        return cls((box[0], box[1], box[2], box[3]), tuple(polygons))


def _array(value: object) -> list[Any]:
    if type(value) is not list:
        raise Corrupt("area.polygons must hold arrays", kind="bad-field", field="area.polygons")
    return value


def _in_polygon(polygon: Polygon, lat: int, lon: int) -> bool:
    """Whether the point is inside the outer ring and in no hole. The boundaries of outer ring and holes are inside."""
    outer, *holes = polygon
    return _ring(outer, lat, lon) >= 0 and all(_ring(hole, lat, lon) <= 0 for hole in holes)


def _ring(ring: Ring, lat: int, lon: int) -> int:
    """1 inside, 0 on the boundary, -1 outside: ray casting to the east, in exact integers."""
    inside = False
    points = [(ring[i], ring[i + 1]) for i in range(0, len(ring), 2)]
    for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
        cross = (x2 - x1) * (lat - y1) - (y2 - y1) * (lon - x1)
        if cross == 0 and min(x1, x2) <= lon <= max(x1, x2) and min(y1, y2) <= lat <= max(y1, y2):
            return 0
        if (y1 > lat) != (y2 > lat) and (cross > 0) == (y2 > y1):
            inside = not inside
    return 1 if inside else -1
