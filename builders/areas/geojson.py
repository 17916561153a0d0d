"""Polygons and lines of a GeoJSON file (RFC 7946), as frozen values in 1e-7 degree.

`read_geojson_area` reads the area of all polygons of a file. The readers of corridors, footprints and landmarks use
`GeoJsonFile`, which walks a file and reads each geometry with its place in the file.

Laws: the size of the file is bounded before it is parsed, and the parser is strict, since the file comes from outside;
every error names the file, the place in it and a remedy; a number is rounded once; polygons lie within 180 degrees of
longitude either way, and are cut at the antimeridian if they lie beyond it in the file.

Needs shapely, and raises Unavailable without it. Tiles are the subject of `covering`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, DecimalException
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from builders.extras import import_extra
from builders.files import read_regular
from store.errors import Invalid
from store.format.area import LAT_MAX, LON_MAX, MAX_NUMBERS, Area, Polygon, Ring

MAX_BYTES = 16 << 20
MAX_POSITIONS = 1 << 17  # in one file
MAX_VALUES = 1 << 21  # in one file
MAX_POLYGONS = 256  # of an area: the limit of a manifest
MAX_DEPTH = 8  # of geometry collections in geometry collections

_TURN = 2 * LON_MAX
_STEP = Decimal("1e-7")
_DECIMAL = Context(prec=50)
_SHOWN = 60
_SMALLER = "simplify it, or give fewer digits"
# Names of WGS 84 in the member "crs", which GeoJSON had before RFC 7946.
_WGS84 = frozenset(
    ("urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:OGC::CRS84", "urn:ogc:def:crs:EPSG::4326", "EPSG:4326")
)


def read_geojson_area(path: Path) -> Area:
    """The area of all polygons of a GeoJSON file: Polygon and MultiPolygon, bare or in features and collections.

    Each position is rounded to 1e-7 degree, half to even. Rings may run either way round. Longitudes may reach +-360:
    a part beyond 180 is cut off and moved round the world. The box of the area is the smaller of the two boxes that
    hold it, so its west is greater than its east if it crosses the antimeridian.

    Raises Invalid, with file and place, for any other file: other geometry, a ring that crosses itself, an edge of more
    than 180 degrees of longitude, more vertices than the limit of a manifest. Raises Unavailable if the system cannot
    read the file.
    """
    file = GeoJsonFile(path)
    polygons: list[Polygon] = []
    for geometry in file.geometries(("Polygon", "MultiPolygon")):
        polygons += file.polygons(geometry)
    return file.area(polygons, "simplify the polygons, or divide the mission")


@dataclass(frozen=True, slots=True)
class Geometry:
    """A geometry of a file: its kind, its coordinates, and their place.

    `feature` is the place and the properties of the feature that holds it, None for a bare geometry.
    """

    place: str
    kind: str
    coordinates: object
    feature: tuple[str, object] | None


class GeoJsonFile:
    """A parsed GeoJSON file. Its methods read the geometries; their errors name the place in the file.

    The constructor raises Invalid for a file that is absent, too large or not strict JSON, and Unavailable if the
    system cannot read it. The methods raise Invalid for anything but valid GeoJSON of the requested kinds. Positions
    are (longitude, latitude) in 1e-7 degree.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._positions = 0
        self._shapely = import_extra("shapely")
        self._root = self._parse(read_regular(path, MAX_BYTES, "GeoJSON file", too_large=_SMALLER))

    def refuse(self, place: str, what: str, remedy: str) -> NoReturn:
        """Raise Invalid with file, place and remedy. `what` completes the sentence that begins with the place."""
        raise self._error(place, what, remedy)

    def _error(self, place: str, what: str, remedy: str) -> Invalid:
        subject = f"{self.path}: {place}" if place else f"{self.path}"
        return Invalid(f"{subject} {what}", remedy=remedy, path=str(self.path), place=place)

    def geometries(self, kinds: tuple[str, ...]) -> Iterator[Geometry]:
        """Every geometry, in the order of the file. Raises Invalid for a geometry of another kind than `kinds`."""
        root = self._object(self._root, "")
        if root.get("type") != "FeatureCollection":
            yield from self._inside(root, "", kinds)
            return
        for i, item in enumerate(self._array(root.get("features"), "features")):
            place = f"features[{i}]"
            feature = self._object(item, place)
            if feature.get("type") != "Feature":
                self.refuse(
                    place, f"is {value_text(feature.get('type'))}, must be a Feature", "put the geometry into one"
                )
            yield from self._inside(feature, place, kinds)

    def polygons(self, geometry: Geometry) -> list[Polygon]:
        """The polygons of a geometry: valid, and within 180 degrees of longitude either way."""
        if geometry.kind == "Polygon":
            return self._polygon(geometry.coordinates, geometry.place)
        array = self._array(geometry.coordinates, geometry.place)
        return [p for i, rings in enumerate(array) for p in self._polygon(rings, f"{geometry.place}[{i}]")]

    def lines(self, geometry: Geometry) -> list[tuple[str, list[tuple[int, int]]]]:
        """(place, vertices) of each line of a geometry; at least two vertices, no two in succession equal."""
        arrays = [(geometry.place, geometry.coordinates)]
        if geometry.kind == "MultiLineString":
            array = self._array(geometry.coordinates, geometry.place)
            arrays = [(f"{geometry.place}[{i}]", line) for i, line in enumerate(array)]
        lines = []
        for place, line in arrays:
            points = _without_repeats(self._positions_of(line, place))
            if len(points) < 2:
                self.refuse(place, "has no length", "give two positions that differ")
            lines.append((place, points))
        return lines

    def point(self, geometry: Geometry) -> tuple[int, int]:
        """(longitude, latitude) of a point, in 1e-7 degree and within 180 degrees either way."""
        [(lon, lat)] = self._positions_of([geometry.coordinates], geometry.place)
        return (lon + LON_MAX) % _TURN - LON_MAX, lat

    def area(self, polygons: list[Polygon], remedy: str) -> Area:
        """The area of the polygons, with their box. Raises Invalid, with `remedy`, above the limits of a manifest."""
        if not polygons:
            self.refuse("", "has no polygon", "give a Polygon or a MultiPolygon")
        vertices = sum(len(ring) for polygon in polygons for ring in polygon) // 2
        if vertices > MAX_NUMBERS // 2 or len(polygons) > MAX_POLYGONS:
            self.refuse(
                "",
                f"gives an area of {len(polygons)} polygons and {vertices} vertices; "
                f"the limits of a manifest are {MAX_POLYGONS} and {MAX_NUMBERS // 2}",
                remedy,
            )
        return Area(_box(polygons), tuple(polygons))

    def _parse(self, data: bytes) -> object:
        def refuse(text: str) -> NoReturn:
            raise ValueError(f"{text} is not a number")

        def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
            members = dict(pairs)
            if len(members) != len(pairs):
                counts = Counter(name for name, _ in pairs)
                twice = next(name for name, count in counts.items() if count > 1)
                raise ValueError(f"an object has the member {value_text(twice)} twice")
            return members

        # A number takes a hundred bytes of memory, so a file takes fifty times its size.
        if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
            raise self._error("", f"has more than {MAX_VALUES} values", _SMALLER)
        try:
            text = data.decode("utf-8-sig")
            return json.loads(
                text, parse_int=Decimal, parse_float=Decimal, parse_constant=refuse, object_pairs_hook=unique
            )
        except RecursionError:
            why = "it is nested too deeply"
        except DecimalException:
            why = "a number has too many digits or too large an exponent"
        except ValueError as error:  # of the decoder, of the parser, and of the two functions above
            why = str(error)
        raise self._error("", f"is not strict JSON: {why}", "write the file again with a tool for GeoJSON")

    def _inside(self, value: Mapping[str, object], place: str, kinds: tuple[str, ...]) -> Iterator[Geometry]:
        """The geometries of a Feature or of a geometry."""
        if value.get("type") != "Feature":
            yield from self._geometry(value, place, kinds, None, 0)
            return
        inner = member_place(place, "geometry")
        geometry = self._object(value.get("geometry"), inner)
        yield from self._geometry(geometry, inner, kinds, (place, value.get("properties")), 0)

    def _geometry(
        self,
        value: Mapping[str, object],
        place: str,
        kinds: tuple[str, ...],
        feature: tuple[str, object] | None,
        depth: int,
    ) -> Iterator[Geometry]:
        kind = value.get("type")
        if kind == "GeometryCollection":
            if depth == MAX_DEPTH:
                self.refuse(
                    place, f"is a collection inside {MAX_DEPTH} others", "put the geometries into one collection"
                )
            places = member_place(place, "geometries")
            for i, item in enumerate(self._array(value.get("geometries"), places)):
                inner = f"{places}[{i}]"
                yield from self._geometry(self._object(item, inner), inner, kinds, feature, depth + 1)
        elif isinstance(kind, str) and kind in kinds:
            yield Geometry(member_place(place, "coordinates"), kind, value.get("coordinates"), feature)
        else:
            self.refuse(
                place, f"is {value_text(kind)}, must be {' or '.join(kinds)}", "remove the geometry, or convert it"
            )

    def _object(self, value: object, place: str) -> dict[str, object]:
        if not isinstance(value, dict):
            self.refuse(
                place, f"is {value_text(value)}, must be a GeoJSON object", "complete or remove the object around it"
            )
        if "crs" in value:
            crs = value["crs"]
            properties = crs.get("properties") if isinstance(crs, dict) else None
            name = properties.get("name") if isinstance(properties, dict) else None
            if not (isinstance(name, str) and name in _WGS84):
                self.refuse(
                    member_place(place, "crs"),
                    f"is {value_text(name or crs)}, must be WGS 84",
                    "reproject the file to EPSG:4326",
                )
        return value

    def _array(self, value: object, place: str) -> list[Any]:
        if not (isinstance(value, list) and value):
            self.refuse(place, f"is {value_text(value)}, must be an array with elements", "complete or remove it")
        return value

    def _positions_of(self, value: object, place: str) -> list[tuple[int, int]]:
        """Longitude and latitude of each position, in 1e-7 degree."""
        positions = self._array(value, place)
        self._positions += len(positions)
        if self._positions > MAX_POSITIONS:
            self.refuse(place, f"exceeds the limit of {MAX_POSITIONS} positions in one file", "simplify the geometries")
        points = []
        for i, position in enumerate(positions):
            numbers = position if isinstance(position, list) else []
            if not (2 <= len(numbers) <= 4 and all(isinstance(number, Decimal) for number in numbers)):
                self.refuse(
                    f"{place}[{i}]",
                    f"is {value_text(position)}, must be a position",
                    "give [longitude, latitude] in degrees",
                )
            lon, lat = numbers[:2]
            # Comparing decimals is exact for all exponents; computing with them is not.
            if not (-360 <= lon <= 360 and -90 <= lat <= 90):
                self.refuse(
                    f"{place}[{i}]",
                    f"is at longitude {value_text(lon)}, latitude {value_text(lat)}, outside the world",
                    "give [longitude, latitude] in degrees of WGS 84",
                )
            points.append((_e7(lon), _e7(lat)))
        return points

    def _polygon(self, value: object, place: str) -> list[Polygon]:
        rings = [self._ring(ring, f"{place}[{i}]") for i, ring in enumerate(self._array(value, place))]
        shape = self._shapely.Polygon(rings[0], rings[1:])
        if not shape.is_valid:
            self.refuse(
                place, f"is not valid: {invalid_reason(shape)}", "repair the polygon, for instance with ST_MakeValid"
            )
        west, _, east, _ = shape.bounds
        if east - west > _TURN:
            self.refuse(
                place,
                "is wider than the world",
                "cut the polygon at the antimeridian (RFC 7946, section 3.1.9)",
            )
        if west >= -LON_MAX and east <= LON_MAX:
            return [tuple(tuple(number for point in ring for number in point) for ring in rings)]
        return cut_at_antimeridian(np.array([shape]))

    def _ring(self, value: object, place: str) -> list[tuple[int, int]]:
        """The vertices of a ring, none repeated."""
        points = self._positions_of(value, place)
        if len(points) < 4:
            self.refuse(place, f"has {len(points)} positions, a ring has at least 4", "complete or remove the ring")
        if points[0] != points[-1]:
            self.refuse(place, "is not closed", "repeat the first position of the ring at its end")
        closed = _without_repeats(points)
        ring = closed[:-1]
        if len(ring) < 3:
            self.refuse(place, "has no area at 1e-7 degree", "remove the ring")
        longitudes, latitudes = {lon for lon, _ in ring}, {lat for _, lat in ring}
        # A long edge has one meaning only in a box round the whole world.
        round_the_world = len(ring) == 4 and longitudes == {-LON_MAX, LON_MAX} and len(latitudes) == 2
        if not round_the_world:
            for (lon, _), (onward, _) in itertools.pairwise(closed):
                if abs(onward - lon) > LON_MAX:
                    self.refuse(
                        place,
                        f"has an edge from longitude {_degrees(lon)} to {_degrees(onward)}, "
                        "which has two meanings: it may run either way round the world",
                        "cut the polygon at the antimeridian (RFC 7946, section 3.1.9), or give the edge a vertex",
                    )
        return ring


def cut_at_antimeridian(shapes: Any) -> list[Polygon]:
    """The union of polygons whose longitudes reach up to 540 degrees: moved into +-180, cut at the antimeridian.

    `shapes` is an array of at least one shapely polygon in 1e-7 degree. GEOS works on the grid of 1e-7 degree here, so
    the polygons that it returns are valid without further rounding.
    """
    shapely = import_extra("shapely")
    bounds = shapely.bounds(shapes)
    if bounds[:, 0].min() < -LON_MAX or bounds[:, 2].max() > LON_MAX:
        world = shapely.box(-LON_MAX, -LAT_MAX, LON_MAX, LAT_MAX)
        parts = []
        for shift in (-_TURN, 0, _TURN):
            here = (bounds[:, 0] + shift < LON_MAX) & (bounds[:, 2] + shift > -LON_MAX)
            moved = shapely.transform(shapes[here], lambda points, by=shift: points + np.array([by, 0]))
            parts.append(shapely.intersection(moved, world, grid_size=1))
        shapes = np.concatenate(parts)
    whole = shapely.normalize(shapely.union_all(shapes, grid_size=1))
    return [_rings(part) for part in shapely.get_parts(whole) if part.geom_type == "Polygon"]


def invalid_reason(shape: Any) -> str:
    """The reason why a shapely shape in 1e-7 degree is not valid, with its place in degrees."""
    text: str = import_extra("shapely").is_valid_reason(shape)
    return re.sub(r"-?[0-9.]+(?:e[+-]?[0-9]+)?(?=[ \]])", lambda m: f"{float(m[0]) / 10**7:.7f}", text)


def member_place(place: str, member: str) -> str:
    """The place of a member of the object at `place`; the place of the whole file is ""."""
    return f"{place}.{member}" if place else member


def value_text(value: object) -> str:
    """A value of the file as text for a message, cut at 60 characters."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if value is None:
        return "missing"
    text = json.dumps(value) if isinstance(value, str | bool) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _degrees(number: int) -> str:
    return f"{Decimal(number).scaleb(-7).normalize():f}"


def _e7(value: Decimal) -> int:
    """Degrees, at most 360, in 1e-7 degree: rounded once, half to even."""
    return int(value.quantize(_STEP, ROUND_HALF_EVEN, _DECIMAL).scaleb(7, _DECIMAL))


def _without_repeats(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [point for i, point in enumerate(points) if i == 0 or point != points[i - 1]]


def _rings(shape: Any) -> Polygon:
    """The rings of a shapely polygon with integer coordinates."""
    rings: list[Ring] = []
    for ring in (shape.exterior, *shape.interiors):
        numbers = np.rint(import_extra("shapely").get_coordinates(ring)[:-1]).astype(np.int64)
        rings.append(tuple(numbers.ravel().tolist()))
    return tuple(rings)


def _box(polygons: Sequence[Polygon]) -> tuple[int, int, int, int]:
    """The smallest box of polygons within +-180: west is greater than east if the widest gap is not at 180."""
    spans = sorted((min(outer[::2]), max(outer[::2])) for outer, *_ in polygons)
    west, reached = spans[0][0], spans[0][1]
    best = (west, max(east for _, east in spans))
    gap = west - best[1] + _TURN
    for start, end in spans[1:]:
        if start - reached > gap:
            gap, best = start - reached, (start, reached)
        reached = max(reached, end)
    latitudes = [lat for outer, *_ in polygons for lat in outer[1::2]]
    return best[0], min(latitudes), best[1], max(latitudes)
