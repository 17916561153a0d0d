"""Polygons and lines from a GeoJSON file (RFC 7946), as frozen values in 1e-7 degree.

`read_geojson_area` makes an area of all polygons of a file. The other readers of the package rest on `Document`, which
walks a file and reads its geometries, each at its place.

Laws: the file is input from outside, bounded before it is parsed and parsed strictly; every error names the file, the
place in it and what to do; a number is rounded once; polygons lie within 180 degrees of longitude either way, cut at
the antimeridian where the file goes beyond.

Needs shapely, and raises Unavailable without it. Knows nothing of tiles.
"""

from __future__ import annotations

import itertools
import json
import re
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
MAX_POLYGONS = 256  # of an area, as the manifest has room for
MAX_DEPTH = 8  # of geometry collections within each other

_TURN = 2 * LON_MAX
_STEP = Decimal("1e-7")
_DECIMAL = Context(prec=50)
_SHOWN = 60
_SMALLER = "simplify it, or give fewer digits"
# The names that WGS 84 goes by, in the member of GeoJSON before RFC 7946.
_WGS84 = frozenset(
    ("urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:OGC::CRS84", "urn:ogc:def:crs:EPSG::4326", "EPSG:4326")
)


def read_geojson_area(path: Path) -> Area:
    """The area of all polygons of a GeoJSON file: Polygon and MultiPolygon, bare or in features and collections.

    Each position is rounded to 1e-7 degree, half to even. Rings may run either way round. Longitudes may go to +-360:
    what lies beyond 180 is cut off there and moved round the world. The box of the area is the smaller of the two
    that hold it, so its west is greater than its east where it crosses the antimeridian.

    Raises Invalid for anything else (other geometry, a ring that crosses itself, an edge of more than 180 degrees of
    longitude, more vertices than a manifest has room for), naming file and place; Unavailable for what cannot be read.
    """
    document = Document(path)
    polygons: list[Polygon] = []
    for found in document.geometries(("Polygon", "MultiPolygon")):
        polygons += document.polygons(found)
    return document.area(polygons, "simplify the polygons, or divide the mission")


@dataclass(frozen=True, slots=True)
class Found:
    """A geometry and where it is; `feature` is the place and the properties of the feature around it."""

    where: str
    kind: str
    coordinates: object
    feature: tuple[str, object] | None


class Document:
    """A GeoJSON file, parsed. Its methods read parts of it, each at its place `where`, and name the place if wrong.

    Making one raises Invalid for a file that is absent, too large or not strict JSON, Unavailable for what cannot be
    read. The methods raise Invalid for what is not GeoJSON of the kind asked for. Positions are (longitude, latitude)
    in 1e-7 degree.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._positions = 0
        self._shapely = import_extra("shapely")
        self._root = self._parse(read_regular(path, MAX_BYTES, "GeoJSON file", too_large=_SMALLER))

    def wrong(self, where: str, what: str, remedy: str) -> NoReturn:
        """Raises Invalid for the place, with file, place and remedy. `what` goes on after the place: "is empty"."""
        raise self._wrong(where, what, remedy)

    def _wrong(self, where: str, what: str, remedy: str) -> Invalid:
        place = f"{self.path}: {where}" if where else f"{self.path}"
        return Invalid(f"{place} {what}", remedy=remedy, path=str(self.path), place=where)

    def geometries(self, kinds: tuple[str, str]) -> Iterator[Found]:
        """Every geometry, in the order of the file. Any that is of no kind in `kinds` is Invalid."""
        root = self._object(self._root, "")
        if root.get("type") != "FeatureCollection":
            yield from self._inside(root, "", kinds)
            return
        for i, item in enumerate(self._array(root.get("features"), "features")):
            where = f"features[{i}]"
            feature = self._object(item, where)
            if feature.get("type") != "Feature":
                self.wrong(where, f"is {shown(feature.get('type'))}, not a Feature", "a collection holds features")
            yield from self._inside(feature, where, kinds)

    def polygons(self, found: Found) -> list[Polygon]:
        """The polygons of a geometry, each valid and within 180 degrees of longitude either way."""
        if found.kind == "Polygon":
            return self._polygon(found.coordinates, found.where)
        several = self._array(found.coordinates, found.where)
        return [p for i, rings in enumerate(several) for p in self._polygon(rings, f"{found.where}[{i}]")]

    def lines(self, found: Found) -> list[tuple[str, list[tuple[int, int]]]]:
        """The lines of a geometry, each with its place and at least two vertices that differ."""
        several = [(found.where, found.coordinates)]
        if found.kind == "MultiLineString":
            array = self._array(found.coordinates, found.where)
            several = [(f"{found.where}[{i}]", line) for i, line in enumerate(array)]
        lines = []
        for where, line in several:
            points = _without_repeats(self._positions_of(line, where))
            if len(points) < 2:
                self.wrong(where, "has no length", "give two positions that differ")
            lines.append((where, points))
        return lines

    def area(self, polygons: list[Polygon], remedy: str) -> Area:
        """The area of the polygons and their box, if it has room in a manifest."""
        if not polygons:
            self.wrong("", "holds no polygon", "give a Polygon or a MultiPolygon")
        vertices = sum(len(ring) for polygon in polygons for ring in polygon) // 2
        if vertices > MAX_NUMBERS // 2 or len(polygons) > MAX_POLYGONS:
            self.wrong(
                "",
                f"makes an area of {len(polygons)} polygons and {vertices} vertices, "
                f"at most {MAX_POLYGONS} and {MAX_NUMBERS // 2} have room in a manifest",
                remedy,
            )
        return Area(_box(polygons), tuple(polygons))

    def _parse(self, data: bytes) -> object:
        def refuse(text: str) -> NoReturn:
            raise ValueError(f"{text} is no number")

        def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
            members = dict(pairs)
            if len(members) != len(pairs):
                names = [name for name, _ in pairs]
                twice = next(name for name in names if names.count(name) > 1)
                raise ValueError(f"the member {shown(twice)} comes twice in one object")
            return members

        try:
            text = data.decode("utf-8-sig")
            return json.loads(
                text, parse_int=Decimal, parse_float=Decimal, parse_constant=refuse, object_pairs_hook=unique
            )
        except RecursionError:
            why = "it is nested too deeply"
        except DecimalException:
            why = "a number in it is out of all bounds"
        except ValueError as error:  # of the decoder, of the parser, and of the two above
            why = str(error)
        raise self._wrong("", f"is not strict JSON: {why}", "write it again with a tool for GeoJSON")

    def _inside(self, value: Mapping[str, object], where: str, kinds: tuple[str, str]) -> Iterator[Found]:
        """The geometries of a Feature or of a geometry."""
        if value.get("type") != "Feature":
            yield from self._geometry(value, where, kinds, None, 0)
            return
        inner = join(where, "geometry")
        geometry = self._object(value.get("geometry"), inner)
        yield from self._geometry(geometry, inner, kinds, (where, value.get("properties")), 0)

    def _geometry(
        self,
        value: Mapping[str, object],
        where: str,
        kinds: tuple[str, str],
        feature: tuple[str, object] | None,
        depth: int,
    ) -> Iterator[Found]:
        kind = value.get("type")
        if kind == "GeometryCollection":
            if depth == MAX_DEPTH:
                self.wrong(where, f"is a collection in {MAX_DEPTH} others", "put the geometries into one collection")
            places = join(where, "geometries")
            for i, item in enumerate(self._array(value.get("geometries"), places)):
                place = f"{places}[{i}]"
                yield from self._geometry(self._object(item, place), place, kinds, feature, depth + 1)
        elif isinstance(kind, str) and kind in kinds:
            yield Found(join(where, "coordinates"), kind, value.get("coordinates"), feature)
        else:
            self.wrong(where, f"is {shown(kind)}, must be {' or '.join(kinds)}", "remove it, or draw it as one")

    def _object(self, value: object, where: str) -> dict[str, object]:
        if not isinstance(value, dict):
            self.wrong(where, f"is {shown(value)}, must be an object of GeoJSON", "give one, or remove what holds it")
        if "crs" in value:
            crs = value["crs"]
            properties = crs.get("properties") if isinstance(crs, dict) else None
            name = properties.get("name") if isinstance(properties, dict) else None
            if not (isinstance(name, str) and name in _WGS84):
                self.wrong(join(where, "crs"), f"is {shown(name or crs)}, not WGS 84", "reproject it to EPSG:4326")
        return value

    def _array(self, value: object, where: str) -> list[Any]:
        if not (isinstance(value, list) and value):
            self.wrong(where, f"is {shown(value)}, must be an array that is not empty", "remove it, or complete it")
        return value

    def _positions_of(self, value: object, where: str) -> list[tuple[int, int]]:
        """Longitude and latitude of each position, in 1e-7 degree."""
        positions = self._array(value, where)
        self._positions += len(positions)
        if self._positions > MAX_POSITIONS:
            self.wrong(where, f"is beyond the {MAX_POSITIONS} positions that are read", "simplify it")
        points = []
        for i, position in enumerate(positions):
            numbers = position if isinstance(position, list) else []
            if not (2 <= len(numbers) <= 4 and all(isinstance(number, Decimal) for number in numbers)):
                self.wrong(f"{where}[{i}]", f"is {shown(position)}", "give [longitude, latitude] in degrees")
            lon, lat = numbers[:2]
            # Compared, not computed with: a comparison of decimals is exact, whatever their exponents are.
            if not (-360 <= lon <= 360 and -90 <= lat <= 90):
                self.wrong(
                    f"{where}[{i}]",
                    f"is at longitude {shown(lon)}, latitude {shown(lat)}, outside the world",
                    "give [longitude, latitude] in degrees of WGS 84",
                )
            points.append((_e7(lon), _e7(lat)))
        return points

    def _polygon(self, value: object, where: str) -> list[Polygon]:
        rings = [self._ring(ring, f"{where}[{i}]") for i, ring in enumerate(self._array(value, where))]
        shape = self._shapely.Polygon(rings[0], rings[1:])
        if not shape.is_valid:
            self.wrong(where, f"is no polygon: {reason(shape)}", "repair it, for instance with ST_MakeValid")
        west, _, east, _ = shape.bounds
        if east - west > _TURN:
            self.wrong(where, "is wider than the world", "cut it at the antimeridian (RFC 7946, section 3.1.9)")
        if west >= -LON_MAX and east <= LON_MAX:
            return [tuple(tuple(number for point in ring for number in point) for ring in rings)]
        return cut(np.array([shape]))

    def _ring(self, value: object, where: str) -> list[tuple[int, int]]:
        """The vertices of a ring, none repeated."""
        points = self._positions_of(value, where)
        if len(points) < 4:
            self.wrong(where, f"has {len(points)} positions, a ring has at least 4", "complete it, or remove it")
        if points[0] != points[-1]:
            self.wrong(where, "is not closed", "repeat its first position at its end")
        closed = _without_repeats(points)
        ring = closed[:-1]
        if len(ring) < 3:
            self.wrong(where, "has no area at 1e-7 degree", "remove it")
        longitudes, latitudes = {lon for lon, _ in ring}, {lat for _, lat in ring}
        # The one long edge that can mean nothing else is that of a box round the whole world.
        round_the_world = len(ring) == 4 and longitudes == {-LON_MAX, LON_MAX} and len(latitudes) == 2
        if not round_the_world:
            for (lon, _), (onward, _) in itertools.pairwise(closed):
                if abs(onward - lon) > LON_MAX:
                    self.wrong(
                        where,
                        f"has an edge from longitude {_degrees(lon)} to {_degrees(onward)}, "
                        "which may go either way round the world",
                        "cut the polygon at the antimeridian (RFC 7946, section 3.1.9), or give the edge a vertex",
                    )
        return ring


def cut(shapes: Any) -> list[Polygon]:
    """The union of polygons that reach up to 540 degrees, moved into +-180 and cut at the antimeridian.

    `shapes` are shapely's, an array of at least one, in 1e-7 degree. The work is done on the grid of 1e-7 degree: GEOS
    rounds there so that what it returns is valid as it is.
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


def reason(shape: Any) -> str:
    """Why a shape in 1e-7 degree is not valid, the place in degrees."""
    text: str = import_extra("shapely").is_valid_reason(shape)
    return re.sub(r"-?[0-9.]+(?:e[+-]?[0-9]+)?(?=[ \]])", lambda m: f"{float(m[0]) / 10**7:.7f}", text)


def join(where: str, member: str) -> str:
    """The place of a member of the object at `where`; the root of a file is ""."""
    return f"{where}.{member}" if where else member


def shown(value: object) -> str:
    """A value from the file for a message, not in full where it is long."""
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
    """Degrees, at most 360 of them, in 1e-7 degree: one rounding, half to even."""
    return int(value.quantize(_STEP, ROUND_HALF_EVEN, _DECIMAL).scaleb(7, _DECIMAL))


def _without_repeats(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [point for i, point in enumerate(points) if i == 0 or point != points[i - 1]]


def _rings(shape: Any) -> Polygon:
    """The rings of a shapely polygon whose coordinates are integers."""
    rings: list[Ring] = []
    for ring in (shape.exterior, *shape.interiors):
        numbers = np.rint(import_extra("shapely").get_coordinates(ring)[:-1]).astype(np.int64)
        rings.append(tuple(numbers.ravel().tolist()))
    return tuple(rings)


def _box(polygons: Sequence[Polygon]) -> tuple[int, int, int, int]:
    """The smallest box of polygons within +-180: west is greater than east where the widest gap is not at 180."""
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
