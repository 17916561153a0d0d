"""Areas from GeoJSON, the tiles that an area covers, and the capture dates that footprints give to tiles.

Three parts, each resting on the one above:

1. Reading. `read_geojson_area` (polygons), `read_corridor` (a line and a width) and `read_footprints` turn a GeoJSON
   file (RFC 7946) into frozen values in 1e-7 degree. The file is input from outside: bounded before it is parsed,
   parsed strictly, and every error names the file, the place in it and what to do.
2. Tiles. `tiles_of_area` goes down the quadtree with the edges of the polygons, so that only the outline costs time:
   what lies wholly inside is a contiguous range of ids.
3. Dates. `Footprints.captured` asks the same of the footprints of a mosaic's scenes.

Laws: a tile is of an area exactly if their interiors meet; the tiles of two polygons are those of the one and those
of the other; the parents of the tiles at zoom z + 1 are the tiles at zoom z; equal integers have equal tiles on every
machine, since they are compared with tile edges that only operations which IEEE 754 defines exactly went into.

Needs shapely, and raises Unavailable without it. Knows nothing of tile sources.
"""

from __future__ import annotations

import datetime
import itertools
import json
import math
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, DecimalException
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.tiles import MAX_AREA_TILES, Tile, cell_range, check_zoom, tile_id, tile_ids, tiles_of_bbox
from builders.extras import import_extra
from store.errors import Invalid, Unavailable
from store.format.area import LAT_MAX, LON_MAX, MAX_NUMBERS, Area, Polygon, Ring

MAX_BYTES = 16 << 20
MAX_POSITIONS = 1 << 17  # in one file
MAX_POLYGONS = 256  # of an area, as the manifest has room for
MAX_FOOTPRINTS = 4096
MAX_FOOTPRINT_POLYGONS = 1 << 14
MAX_DEPTH = 8  # of geometry collections within each other
MIN_CORRIDOR_M = 1
MAX_CORRIDOR_M = 200_000
MAX_PIECES = 1 << 14  # that the legs of a corridor are cut into
EARTH_RADIUS_M = 6371008.8  # the mean radius (2a + b) / 3 of WGS 84
FIRST_YEAR = 1900

_TURN = 2 * LON_MAX
_STEP = Decimal("1e-7")
_DECIMAL = Context(prec=50)
_MERCATOR_E7 = 850511287  # the web-mercator limit, down to a whole unit
_SHOWN = 60
# The names that WGS 84 goes by, in the member of GeoJSON before RFC 7946.
_WGS84 = frozenset(
    ("urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:OGC::CRS84", "urn:ogc:def:crs:EPSG::4326", "EPSG:4326")
)
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
# The second 60 is a leap second; seconds change no day, and are not read.
_DATE_TIME = re.compile(
    rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})(?:[Tt ]({_CLOCK}):(?:[0-5][0-9]|60)(?:\.[0-9]+)?([Zz]|[+-]{_CLOCK}))?"
)

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]


# --- Reading ---------------------------------------------------------------------------------------------------------


def read_geojson_area(path: Path) -> Area:
    """The area of all polygons of a GeoJSON file: Polygon and MultiPolygon, bare or in features and collections.

    Each position is rounded to 1e-7 degree, half to even. Rings may run either way round. Longitudes may go to +-360:
    what lies beyond 180 is cut off there and moved round the world. The box of the area is the smaller of the two
    that hold it, so its west is greater than its east where it crosses the antimeridian.

    Raises Invalid for anything else (other geometry, a ring that crosses itself, an edge of more than 180 degrees of
    longitude, more vertices than a manifest has room for), naming file and place; Unavailable for what cannot be read.
    """
    document = _Document(path)
    polygons: list[Polygon] = []
    for found in document.geometries(("Polygon", "MultiPolygon")):
        polygons += document.polygons(found)
    return document.area(polygons, "simplify the polygons, or divide the mission")


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
    document = _Document(path)
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


def read_footprints(path: Path) -> Footprints:
    """The footprints of a mosaic's scenes: features of Polygon or MultiPolygon with a property `datetime`.

    `datetime` is a date-time of RFC 3339, as in STAC, or a date; of it, the day in UTC counts. Raises as
    `read_geojson_area` does, and Invalid for a day that is missing or not in the years 1900 to 9999.
    """
    document = _Document(path)
    footprints: dict[str, tuple[int, list[Polygon]]] = {}
    polygons = 0
    for found in document.geometries(("Polygon", "MultiPolygon")):
        if found.feature is None:
            document.wrong(found.where, "is in no Feature", "give features with a property datetime")
        where, properties = found.feature
        if where not in footprints:
            footprints[where] = document.day(where, properties), []
        more = document.polygons(found)
        footprints[where][1].extend(more)
        polygons += len(more)
        if len(footprints) > MAX_FOOTPRINTS or polygons > MAX_FOOTPRINT_POLYGONS:
            document.wrong(
                where,
                f"is one too many: at most {MAX_FOOTPRINTS} footprints and {MAX_FOOTPRINT_POLYGONS} polygons are read",
                "divide the mosaic",
            )
    if not footprints:
        document.wrong("", "holds no footprint", "give a FeatureCollection of polygons")
    return Footprints(tuple(Footprint(day, tuple(parts)) for day, parts in footprints.values()))


@dataclass(frozen=True, slots=True)
class _Found:
    """A geometry and where it is; `feature` is the place and the properties of the feature around it."""

    where: str
    kind: str
    coordinates: object
    feature: tuple[str, object] | None


class _Document:
    """A GeoJSON file, parsed. Its methods read parts of it, each at its place `where`, and name the place if wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._positions = 0
        self._shapely = _shapely()
        self._root = self._parse(_bytes_of(path))

    def wrong(self, where: str, what: str, remedy: str) -> NoReturn:
        raise self._wrong(where, what, remedy)

    def _wrong(self, where: str, what: str, remedy: str) -> Invalid:
        place = f"{self.path}: {where}" if where else f"{self.path}"
        return Invalid(f"{place} {what}", remedy=remedy, path=str(self.path), place=where)

    def geometries(self, kinds: tuple[str, str]) -> Iterator[_Found]:
        """Every geometry, in the order of the file. Any that is of no kind in `kinds` is Invalid."""
        root = self._object(self._root, "")
        if root.get("type") != "FeatureCollection":
            yield from self._inside(root, "", kinds)
            return
        for i, item in enumerate(self._array(root.get("features"), "features")):
            where = f"features[{i}]"
            feature = self._object(item, where)
            if feature.get("type") != "Feature":
                self.wrong(where, f"is {_shown(feature.get('type'))}, not a Feature", "a collection holds features")
            yield from self._inside(feature, where, kinds)

    def polygons(self, found: _Found) -> list[Polygon]:
        """The polygons of a geometry, each valid and within 180 degrees of longitude either way."""
        if found.kind == "Polygon":
            return self._polygon(found.coordinates, found.where)
        several = self._array(found.coordinates, found.where)
        return [p for i, rings in enumerate(several) for p in self._polygon(rings, f"{found.where}[{i}]")]

    def lines(self, found: _Found) -> list[tuple[str, list[tuple[int, int]]]]:
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

    def day(self, where: str, properties: object) -> int:
        """Midnight UTC, in unix seconds, of the day of the property `datetime`."""
        given = properties.get("datetime") if isinstance(properties, dict) else None
        match = _DATE_TIME.fullmatch(given) if isinstance(given, str) else None
        try:
            if match is None:
                raise ValueError
            date, clock, zone = match.groups()
            moment = datetime.datetime.fromisoformat(f"{date}T{clock or '00:00'}{(zone or 'Z').upper()}")
            day = moment.astimezone(datetime.UTC).date()
            if day.year < FIRST_YEAR:
                raise ValueError
        except (ValueError, OverflowError):
            self.wrong(
                _join(where, "properties.datetime"),
                f"is {_shown(given)}, must be a date-time of RFC 3339 or a date in the years {FIRST_YEAR} to 9999",
                "where STAC gives a range, give its start_datetime as datetime",
            )
        return (day.toordinal() - datetime.date(1970, 1, 1).toordinal()) * 86400

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
                raise ValueError(f"the member {_shown(twice)} comes twice in one object")
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

    def _inside(self, value: Mapping[str, object], where: str, kinds: tuple[str, str]) -> Iterator[_Found]:
        """The geometries of a Feature or of a geometry."""
        if value.get("type") != "Feature":
            yield from self._geometry(value, where, kinds, None, 0)
            return
        inner = _join(where, "geometry")
        geometry = self._object(value.get("geometry"), inner)
        yield from self._geometry(geometry, inner, kinds, (where, value.get("properties")), 0)

    def _geometry(
        self,
        value: Mapping[str, object],
        where: str,
        kinds: tuple[str, str],
        feature: tuple[str, object] | None,
        depth: int,
    ) -> Iterator[_Found]:
        kind = value.get("type")
        if kind == "GeometryCollection":
            if depth == MAX_DEPTH:
                self.wrong(where, f"is a collection in {MAX_DEPTH} others", "put the geometries into one collection")
            places = _join(where, "geometries")
            for i, item in enumerate(self._array(value.get("geometries"), places)):
                place = f"{places}[{i}]"
                yield from self._geometry(self._object(item, place), place, kinds, feature, depth + 1)
        elif isinstance(kind, str) and kind in kinds:
            yield _Found(_join(where, "coordinates"), kind, value.get("coordinates"), feature)
        else:
            self.wrong(where, f"is {_shown(kind)}, must be {' or '.join(kinds)}", "remove it, or draw it as one")

    def _object(self, value: object, where: str) -> dict[str, object]:
        if not isinstance(value, dict):
            self.wrong(where, f"is {_shown(value)}, must be an object of GeoJSON", "give one, or remove what holds it")
        if "crs" in value:
            crs = value["crs"]
            properties = crs.get("properties") if isinstance(crs, dict) else None
            name = properties.get("name") if isinstance(properties, dict) else None
            if not (isinstance(name, str) and name in _WGS84):
                self.wrong(_join(where, "crs"), f"is {_shown(name or crs)}, not WGS 84", "reproject it to EPSG:4326")
        return value

    def _array(self, value: object, where: str) -> list[Any]:
        if not (isinstance(value, list) and value):
            self.wrong(where, f"is {_shown(value)}, must be an array that is not empty", "remove it, or complete it")
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
                self.wrong(f"{where}[{i}]", f"is {_shown(position)}", "give [longitude, latitude] in degrees")
            lon, lat = numbers[:2]
            # Compared, not computed with: a comparison of decimals is exact, whatever their exponents are.
            if not (-360 <= lon <= 360 and -90 <= lat <= 90):
                self.wrong(
                    f"{where}[{i}]",
                    f"is at longitude {_shown(lon)}, latitude {_shown(lat)}, outside the world",
                    "give [longitude, latitude] in degrees of WGS 84",
                )
            points.append((_e7(lon), _e7(lat)))
        return points

    def _polygon(self, value: object, where: str) -> list[Polygon]:
        rings = [self._ring(ring, f"{where}[{i}]") for i, ring in enumerate(self._array(value, where))]
        shape = self._shapely.Polygon(rings[0], rings[1:])
        if not shape.is_valid:
            self.wrong(where, f"is no polygon: {_reason(shape)}", "repair it, for instance with ST_MakeValid")
        west, _, east, _ = shape.bounds
        if east - west > _TURN:
            self.wrong(where, "is wider than the world", "cut it at the antimeridian (RFC 7946, section 3.1.9)")
        if west >= -LON_MAX and east <= LON_MAX:
            return [tuple(tuple(number for point in ring for number in point) for ring in rings)]
        return _cut(np.array([shape]))

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


def _bytes_of(path: Path) -> bytes:
    try:
        # Looked at before it is opened: opening a pipe would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise Invalid(f"{path} is not a regular file", remedy="give the path of a GeoJSON file", path=str(path))
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise Invalid(f"there is no {path}", remedy="give the path of a GeoJSON file", path=str(path)) from None
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be read: {error.strerror}", remedy="make it readable", path=str(path)
        ) from error
    if len(data) > MAX_BYTES:
        raise Invalid(
            f"{path} is larger than {MAX_BYTES} bytes", remedy="simplify it, or give fewer digits", path=str(path)
        )
    return data


def _shapely() -> Any:
    return import_extra("shapely")


def _join(where: str, member: str) -> str:
    return f"{where}.{member}" if where else member


def _shown(value: object) -> str:
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


def _reason(shape: Any) -> str:
    """Why a shape in 1e-7 degree is not valid, the place in degrees."""
    text: str = _shapely().is_valid_reason(shape)
    return re.sub(r"-?[0-9.]+(?:e[+-]?[0-9]+)?(?=[ \]])", lambda m: f"{float(m[0]) / 10**7:.7f}", text)


def _rings(shape: Any) -> Polygon:
    """The rings of a shapely polygon whose coordinates are integers."""
    rings: list[Ring] = []
    for ring in (shape.exterior, *shape.interiors):
        numbers = np.rint(_shapely().get_coordinates(ring)[:-1]).astype(np.int64)
        rings.append(tuple(numbers.ravel().tolist()))
    return tuple(rings)


def _cut(shapes: Any) -> list[Polygon]:
    """The union of polygons that reach up to 540 degrees, moved into +-180 and cut at the antimeridian.

    On the grid of 1e-7 degree: GEOS rounds there so that what it returns is valid as it is.
    """
    shapely = _shapely()
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


# --- Corridors -------------------------------------------------------------------------------------------------------
#
# A leg is cut into pieces; a piece is the convex hull, in longitude and latitude, of the discs about its two ends. That
# holds the discs about all points of the straight line between them, because a disc's half axis in longitude,
# 1 / cos(latitude), is a convex function. What the radius of the discs has added to it:
#
# - 0.6 %: on WGS 84. Its radii of curvature are nowhere below 6335439 m (that of the meridian at the equator), so no
#   line on it is longer on the sphere than by R / 6335439 = 1.00562, wherever it lies.
# - 1 %: the great circle bends away from the straight line of the piece, by L**2 * tan(latitude) / 8 R times at most
#   1.09 (for a course of 55 degrees); the length L of a piece is chosen by that, with 1.25.
# - 0.2 %: a disc is no exact ellipse in longitude and latitude; this is of the order of the square of its radius.
# - 5 cm: coordinates are rounded to 1e-7 degree, 1.1 cm, when the union is made.
# - 1 / cos(pi / 32), 0.5 %: a disc becomes a polygon of 32 sides about it.

_SIDES = 32
_SAG = 0.01
_MAX_PIECE_M = 100_000.0
_LEG_SAMPLES = 129
_ANTIPODES = math.radians(179)


def _reach(half: float) -> float:
    """The distance (radians) of a disc's vertices from its centre, for a corridor of half the width in metres."""
    metres = half * (1 + 0.006 + _SAG + 0.002) + 0.05
    return metres / EARTH_RADIUS_M / math.cos(math.pi / _SIDES)


def _legs(document: _Document, where: str, line: list[tuple[int, int]], half: float, reach: float) -> Iterator[Floats]:
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
    shapely = _shapely()
    starts = np.concatenate([leg[:-1] for leg in legs])
    ends = np.concatenate([leg[1:] for leg in legs])
    ends[:, 0] += np.rint((starts[:, 0] - ends[:, 0]) / math.tau) * math.tau
    discs = np.concatenate([_disc(starts, reach), _disc(ends, reach)], axis=1)
    of = np.repeat(np.arange(len(discs)), discs.shape[1])
    points = np.degrees(discs.reshape(-1, 2)) * 10**7
    return _cut(shapely.convex_hull(shapely.multipoints(shapely.points(points), indices=of)))


def _disc(centres: Floats, reach: float) -> Floats:
    """The vertices (radians, float64[n, sides, 2]) about each centre, at the distance `reach`."""
    course = np.arange(_SIDES) * (math.tau / _SIDES)
    lon, lat = centres[:, :1], centres[:, 1:]
    sine = np.sin(lat) * math.cos(reach) + np.cos(lat) * math.sin(reach) * np.cos(course)
    east = np.arctan2(np.sin(course) * math.sin(reach) * np.cos(lat), math.cos(reach) - np.sin(lat) * sine)
    return np.stack([lon + east, np.arcsin(sine)], axis=2)


# --- Tiles -----------------------------------------------------------------------------------------------------------

_X, _OF = 24, 48  # a key is polygon << 48 | column << 24 | row
_LOW = (1 << _X) - 1
_MAX_SHAPES = 1 << 15
_CHUNK = 1 << 20
# Pairs of a tile and an edge through it: memory for some 500 MB of them, far more than any outline on a map needs.
_MAX_PAIRS = 1 << 22
_PI = Decimal("3.14159265358979323846264338327950288419716939937510")


def tiles_of_area(area: Area, zoom: int) -> NDArray[np.uint64]:
    """The ascending ids (uint64[n], n >= 1) of the tiles whose interior meets the interior of the area.

    A tile that the area only touches is not part of it, a tile in a hole neither. An area smaller than a tile has that
    one. What lies beyond the web-mercator limit has no tiles. Without polygons, the tiles are those of the box.

    Raises Invalid for an area wholly beyond the limit, one of more than 2**24 tiles, and one whose polygons are not
    valid or not within its box.
    """
    check_zoom(zoom)
    if not area.polygons:
        return tiles_of_bbox(area.bbox, zoom)
    west, _, east, _ = area.bbox
    for i, polygon in enumerate(area.polygons):
        longitudes = polygon[0][::2]
        # Area holds each vertex to the box; only across a box that crosses the antimeridian an edge can still leave it.
        if west > east and min(longitudes) <= east and max(longitudes) >= west:
            raise Invalid(f"polygon {i} of the area leaves its bbox", remedy="cut it at the antimeridian", polygon=i)
    ranges = _descend(area.polygons, zoom, None)
    if not ranges.start.size:
        raise Invalid("the area lies beyond the web-mercator limit of 85.0511 degrees", bbox=area.bbox)
    return _expand(*_merged(ranges.start, ranges.stop)).astype(np.uint64)


@dataclass(frozen=True, slots=True)
class _Ranges:
    """Ranges of tile ids, each with the polygon that it is of and whether that holds it wholly; int64[n], bool[n]."""

    of: Ints
    start: Ints
    stop: Ints
    whole: NDArray[np.bool_]


def _descend(polygons: Sequence[Polygon], zoom: int, wanted: Ints | None) -> _Ranges:
    """The tiles at a zoom that each polygon meets; of the ascending ids `wanted` at least, where these are given.

    From zoom 0 down, with the pairs of a tile and an edge that goes through its interior. A tile without such an edge
    is inside or outside as its centre is; its descendants need no further look. Without `wanted`, the tiles are
    counted on the way, so that too many are Invalid before they take memory.
    """
    shapely = _shapely()
    shapes = _shapes(polygons)
    for i in np.flatnonzero(~shapely.is_valid(shapes)).tolist():
        raise Invalid(f"polygon {i} is not valid: {_reason(shapes[i])}", remedy="repair the area", polygon=i)
    if len(shapes) >= _MAX_SHAPES:
        raise Invalid(f"{len(shapes)} polygons are too many", remedy="divide the area")
    shapely.prepare(shapes)
    edges, owner = _edges(polygons)
    keys, edge = owner << _OF, np.arange(len(edges))
    candidates = np.arange(len(polygons), dtype=np.int64) << _OF
    found: list[_Ranges] = []
    for level in range(zoom + 1):
        keys, edge = _wanted(keys, level, zoom, wanted, edge)
        through = _goes_through(keys, level, edges[edge])
        keys, edge = keys[through], edge[through]
        outline = np.unique(keys)
        (rest,) = _wanted(np.setdiff1d(candidates, outline, assume_unique=True), level, zoom, wanted)
        of, x, y = _unpack(rest)
        middle = (_latitudes(level, y) + _latitudes(level, y + 1)) / 2
        inside = shapely.contains_xy(shapes[of], (_longitudes(level, x) + _longitudes(level, x + 1)) / 2, middle)
        found.append(_range(rest[inside], level, zoom, whole=True))
        last = _range(outline, level, zoom, whole=False)
        if wanted is None:
            # Each tile on the outline has at least one descendant in the area, and no range so far is smaller.
            _check_count([*found, last], zoom)
        if len(keys) > _MAX_PAIRS:
            raise Invalid(
                f"the area's outline is too long for zoom {zoom}", zoom=zoom, remedy="simplify it or lower the zoom"
            )
        keys, edge, candidates = _children(keys), np.tile(edge, 4), _children(outline)
    ranges = [*found, last]
    return _Ranges(
        np.concatenate([r.of for r in ranges]),
        np.concatenate([r.start for r in ranges]),
        np.concatenate([r.stop for r in ranges]),
        np.concatenate([r.whole for r in ranges]),
    )


def _shapes(polygons: Sequence[Polygon]) -> Any:
    """The polygons as shapely's, an array of objects; integers are exact in its doubles."""
    polygon = _shapely().Polygon
    return np.array([polygon(_pairs(outer), [_pairs(hole) for hole in holes]) for outer, *holes in polygons])


def _pairs(ring: Ring) -> list[tuple[int, int]]:
    return list(zip(ring[::2], ring[1::2], strict=True))


def _edges(polygons: Sequence[Polygon]) -> tuple[Floats, Ints]:
    """All edges (x, y, x, y as float64[n, 4]) and the polygon that each is of (int64[n])."""
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
    """The keys, and what lies beside them, whose tiles have a descendant among the wanted ids."""
    if wanted is None:
        return [keys, *beside]
    tiles = _range(keys, level, zoom, whole=False, leaves=False)
    some = np.searchsorted(wanted, tiles.start) < np.searchsorted(wanted, tiles.stop)
    return [array[some] for array in (keys, *beside)]


def _range(keys: Ints, level: int, zoom: int, whole: bool, leaves: bool = True) -> _Ranges:
    """The ids that the descendants of tiles have; of a tile not `whole`, with `leaves`, only the first."""
    of, x, y = _unpack(keys)
    depth = 2 * (zoom - level)
    place = tile_ids(level, x, y).astype(np.int64) - tile_id(Tile(level, 0, 0))
    start = (place << depth) + tile_id(Tile(zoom, 0, 0))
    count = 1 if leaves and not whole else 1 << depth
    return _Ranges(of, start, start + count, np.full(len(keys), whole))


def _goes_through(keys: Ints, level: int, edges: Floats) -> NDArray[np.bool_]:
    """Whether each edge meets the interior of the tile beside it: no axis parts an open box and a segment."""
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
        # The corners lie to both sides of the edge. Where its line runs exactly through a corner, the products are
        # equal as real numbers, so they are as doubles.
        least = np.minimum(lower, upper) - np.maximum(left, right)
        most = np.maximum(lower, upper) - np.minimum(left, right)
        result[i : i + _CHUNK] &= (least < 0) & (most > 0)
    return result


def _longitudes(zoom: int, columns: Ints) -> Floats:
    """The western edges of columns in 1e-7 degree. Exact: 36 bits of which 2**10 divides, times 24 bits."""
    return columns.astype(np.float64) * (_TURN / (1 << zoom)) - LON_MAX


def _latitudes(zoom: int, rows: Ints) -> Floats:
    """The northern edges of rows in 1e-7 degree; the equator is 0, the others are right to 1e-6 of a unit.

    The latitude at web-mercator height h is pi / 2 - 2 atan(exp(-h)). Sums, products, quotients and roots alone, which
    IEEE 754 rounds in one way: `atan` and `exp` of C libraries differ in the last bit between machines.
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


def _check_count(ranges: Sequence[_Ranges], zoom: int) -> None:
    _, length = _merged(np.concatenate([r.start for r in ranges]), np.concatenate([r.stop for r in ranges]))
    count = int(length.sum())
    if count > MAX_AREA_TILES:
        raise Invalid(
            f"the area has at least {count} tiles at zoom {zoom}, at most {MAX_AREA_TILES} are taken",
            zoom=zoom,
            remedy="give a smaller area or a lower zoom",
        )


def _merged(start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """The ranges, ascending, as start and length, no number in two of them."""
    order = np.argsort(start, kind="stable")
    start, stop = start[order], stop[order]
    reached = np.maximum.accumulate(stop)
    start[1:] = np.maximum(start[1:], reached[:-1])
    return start, np.maximum(stop - start, 0)


def _expand(start: Ints, length: Ints) -> Ints:
    """All numbers of the ranges, in their order."""
    before = np.cumsum(length) - length
    return np.repeat(start - before, length) + np.arange(int(length.sum()), dtype=np.int64)


# --- Dates -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Footprint:
    """Where a scene lies and when it was taken: `captured` in unix seconds at midnight UTC, polygons as an area's."""

    captured: int
    polygons: tuple[Polygon, ...]


@dataclass(frozen=True, slots=True)
class Footprints:
    """The scenes of a mosaic, in the order of their file. At least one."""

    footprints: tuple[Footprint, ...]

    def captured(self, zoom: int, ids: NDArray[np.uint64], default: int) -> Ints:
        """When each tile was taken (unix seconds, int64[n] in the order of `ids`): the oldest date that may be in it.

        That is the oldest of the footprints whose interior its interior meets. `default` is the date of what no
        footprint covers: it counts too unless the footprints together cover the tile wholly (gaps of 1e-7 degree, the
        rounding of the file, are none). Raises Invalid for ids that are not of the zoom.
        """
        wanted, place = np.unique(ids.astype(np.int64), return_inverse=True)
        first, last = cell_range(Tile(0, 0, 0), zoom)
        if wanted.size and not (first <= wanted[0] and wanted[-1] < last):
            raise Invalid(f"there are tile ids that are not of zoom {zoom}", zoom=zoom)
        polygons = [polygon for footprint in self.footprints for polygon in footprint.polygons]
        dates = np.repeat([f.captured for f in self.footprints], [len(f.polygons) for f in self.footprints])
        ranges = _descend(polygons, zoom, wanted)
        start, stop = np.searchsorted(wanted, ranges.start), np.searchsorted(wanted, ranges.stop)
        covered = np.zeros(len(wanted), np.bool_)
        covered[_expand(*_merged(start[ranges.whole], stop[ranges.whole]))] = True
        met = np.zeros(len(wanted), np.bool_)
        taken = np.full(len(wanted), default, np.int64)
        for date in np.unique(dates)[::-1]:  # the newest first: an older one replaces it
            these = dates[ranges.of] == date
            here = _expand(*_merged(start[these], stop[these]))
            met[here] = True
            taken[here] = date
        seams = np.flatnonzero(met & ~covered)
        covered[seams[_covered_together(polygons, zoom, wanted[seams])]] = True
        partly = met & ~covered
        taken[partly] = np.minimum(taken[partly], default)
        return taken[place]


def _covered_together(polygons: Sequence[Polygon], zoom: int, wanted: Ints) -> Ints:
    """The places in `wanted`, ascending ids, of the tiles that the union of the polygons covers wholly."""
    if not wanted.size:
        return wanted
    ranges = _descend(_cut(_shapes(polygons)), zoom, wanted)
    start, stop = np.searchsorted(wanted, ranges.start), np.searchsorted(wanted, ranges.stop)
    return _expand(*_merged(start[ranges.whole], stop[ranges.whole]))
