"""Polygons, lines and points of a file from outside, as frozen values in 1e-7 degree.

`GeometryFile` reads the coordinates of a geometry that a reader of a format found (`geojson`, `kml`, `qgc`, `mavlink`),
names its place in every error, and keeps what was passed over, for the reports.

Laws: every error names the file, the place in it and a remedy; a number is rounded once; polygons lie within 180
degrees of longitude either way, and are cut at the antimeridian if they lie beyond it in the file.

Needs shapely, and raises Unavailable without it. Tiles are the subject of `covering`.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import numpy as np

from builders.extras import import_extra
from store.errors import Invalid
from store.format.area import LAT_MAX, LON_MAX, MAX_NUMBERS, Area, Polygon, Ring

MAX_BYTES = 16 << 20
MAX_POSITIONS = 1 << 17  # in one file
MAX_POLYGONS = 256  # of an area: the limit of a manifest
SMALLER = "simplify it, or give fewer digits"

# A number in a text file: bounded, and with a point for decimals.
NUMBER = re.compile(r"[-+]?(?:[0-9]{1,18}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?")

_TURN = 2 * LON_MAX
_STEP = Decimal("1e-7")
_DECIMAL = Context(prec=50)
_SHOWN = 60
_LISTED = 3  # places of one kind of thing that is passed over
_KINDS_LISTED = 100

Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class Geometry:
    """A geometry of a file: its kind, its coordinates, and their place.

    Kinds and coordinates are those of GeoJSON, whatever the format of the file; numbers are decimals. `Circle` is a
    point with `metres` about it, `Strip` a line with `metres` to either side. `feature` is the place and the properties
    of the feature that holds a geometry, None for a bare one. `altitude` is metres above sea level, where a point has
    them.
    """

    place: str
    kind: str
    coordinates: object
    feature: tuple[str, object] | None = None
    metres: Decimal = Decimal(0)
    altitude: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Home:
    """Where a plan begins: longitude and latitude in 1e-7 degree, and metres above sea level where the plan has
    them."""

    lon: int
    lat: int
    altitude: Decimal | None


def file_error(path: Path, place: str, what: str, remedy: str) -> Invalid:
    """Return the error of a file, at a place in it unless that is "".

    `what` completes the sentence that begins with the place.
    """
    subject = f"{path}: {place}" if place else f"{path}"
    return Invalid(f"{subject} {what}", remedy=remedy, path=str(path), place=place)


class GeometryFile(ABC):
    """A file with geometries. The methods read one; their errors name its place in the file.

    Every method raises Invalid for what cannot be read. Positions are (longitude, latitude) in 1e-7 degree.
    """

    what: ClassVar[str]  # the format, in the words of a message

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pieces = 0  # that its lines were cut into, by `corridor`
        self._positions = 0
        self._passed_over: dict[str, dict[str, None]] = {}  # places, by what is true of them
        self._shapely = import_extra("shapely")

    @abstractmethod
    def shapes(self, kinds: tuple[str, ...], select: str | None) -> Iterator[Geometry]:
        """Yield every geometry of these kinds, in the order of the file; with `select`, those of the thing of this
        name. Others are passed over, and listed."""

    @abstractmethod
    def home(self, select: str | None) -> Home:
        """Return where the plan of the file begins."""

    def refuse_nothing(self, what: str, remedy: str) -> NoReturn:
        """Raise Invalid for a file that has none of `what`, with all that was passed over in it."""
        self.refuse("", "; ".join([f"has no {what}", *self._notes()]), remedy)

    def pass_over(self, place: str, what: str) -> None:
        """Remember that something is not read; `what` completes the sentence that begins with the place."""
        self._passed_over.setdefault(what, {})[place] = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was passed over, a line for each kind of thing."""
        return tuple(f"{self.path}: {text}" for text in self._notes())

    def _notes(self) -> Iterator[str]:
        for what, places in itertools.islice(self._passed_over.items(), _KINDS_LISTED):
            more = f" (and {len(places) - _LISTED} more)" if len(places) > _LISTED else ""
            subject = ", ".join(list(places)[:_LISTED]) + more
            yield f"{subject} {what}" if subject else what
        if (others := len(self._passed_over) - _KINDS_LISTED) > 0:
            yield f"{others} more kinds of things are passed over, or not followed exactly"

    def select(self, things: Sequence[tuple[str, str | None, Thing]], select: str, what: str) -> Thing:
        """Return the one of the things (place, name, thing) that has the name `select`. `what` names them together."""
        chosen = [(place, thing) for place, name, thing in things if name == select]
        if len(chosen) == 1:
            return chosen[0][1]
        if chosen:
            places = ", ".join(place for place, _ in chosen[:_LISTED])
            self.refuse(
                "",
                f"has {len(chosen)} {what} of the name {value_text(select)}: {places}",
                "give each a name of its own",
            )
        names = sorted({name for _, name, _ in things if name})
        near = difflib.get_close_matches(select, names, n=1)
        listed = ", ".join(value_text(name) for name in (near or names[:8]))
        raise self.error(
            "",
            f"has none of {len(things)} {what} of the name {value_text(select)}",
            f"select one of its names, such as {listed}" if listed else "leave out select: nothing in it has a name",
        )

    def refuse(self, place: str, what: str, remedy: str) -> NoReturn:
        """Raise Invalid with file, place and remedy. `what` completes the sentence that begins with the place."""
        raise self.error(place, what, remedy)

    def error(self, place: str, what: str, remedy: str) -> Invalid:
        """Return what `refuse` raises."""
        return file_error(self.path, place, what, remedy)

    def polygons(self, geometry: Geometry) -> list[Polygon]:
        """The polygons of a geometry: valid, and within 180 degrees of longitude either way."""
        if geometry.kind == "Polygon":
            return self._polygon(geometry.coordinates, geometry.place)
        array = self.array(geometry.coordinates, geometry.place)
        return [p for i, rings in enumerate(array) for p in self._polygon(rings, f"{geometry.place}[{i}]")]

    def lines(self, geometry: Geometry) -> list[tuple[str, list[tuple[int, int]]]]:
        """(place, vertices) of each line of a geometry; at least two vertices, no two in succession equal."""
        arrays = [(geometry.place, geometry.coordinates)]
        if geometry.kind == "MultiLineString":
            array = self.array(geometry.coordinates, geometry.place)
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
        [(lon, lat)] = self._positions_of([geometry.coordinates], geometry.place, alone=True)
        return (lon + LON_MAX) % _TURN - LON_MAX, lat

    def area(self, polygons: list[Polygon], remedy: str) -> Area:
        """The area of the polygons, with their box. Raises Invalid, with `remedy`, above the limits of a manifest."""
        if not polygons:
            self.refuse_nothing(
                "polygon",
                'give a file with one, or take the ground along a line: area = { corridor = "…", width_m = … }',
            )
        vertices = sum(len(ring) for polygon in polygons for ring in polygon) // 2
        if vertices > MAX_NUMBERS // 2 or len(polygons) > MAX_POLYGONS:
            self.refuse(
                "",
                f"gives an area of {len(polygons)} polygons and {vertices} vertices; "
                f"the limits of a manifest are {MAX_POLYGONS} and {MAX_NUMBERS // 2}",
                remedy,
            )
        return Area(_box(polygons), tuple(polygons))

    def array(self, value: object, place: str) -> list[Any]:
        """Return an array that is not empty."""
        if not (isinstance(value, list) and value):
            self.refuse(place, f"is {value_text(value)}, must be an array with elements", "complete or remove it")
        return value

    def _positions_of(self, value: object, place: str, *, alone: bool = False) -> list[tuple[int, int]]:
        """Longitude and latitude of each position, in 1e-7 degree; `alone` where `place` is that of the only one."""
        positions = self.array(value, place)
        self._positions += len(positions)
        if self._positions > MAX_POSITIONS:
            self.refuse(place, f"exceeds the limit of {MAX_POSITIONS} positions in one file", "simplify the geometries")
        points = []
        for i, position in enumerate(positions):
            numbers = position if isinstance(position, list) else []
            here = place if alone else f"{place}[{i}]"
            flat, others = numbers[:2], numbers[2:]
            # Tools write null for a height that they do not know.
            if not (
                2 <= len(numbers) <= 4
                and all(isinstance(number, Decimal) for number in flat)
                and all(isinstance(number, Decimal | None) for number in others)
            ):
                self.refuse(
                    here,
                    f"is {value_text(position)}, must be a position",
                    "give [longitude, latitude] in degrees",
                )
            lon, lat = flat
            # Comparing decimals is exact for all exponents; computing with them is not.
            if not (-360 <= lon <= 360 and -90 <= lat <= 90):
                self.refuse(
                    here,
                    f"is at longitude {value_text(lon)}, latitude {value_text(lat)}, outside the world",
                    "exchange latitude and longitude in the file"
                    if -90 <= lon <= 90 < abs(lat) <= 360
                    else "reproject the file to degrees of WGS 84: ogr2ogr -f GeoJSON -t_srs EPSG:4326 OUT.geojson IN",
                )
            points.append((_e7(lon), _e7(lat)))
        return points

    def _polygon(self, value: object, place: str) -> list[Polygon]:
        rings = [self._ring(ring, f"{place}[{i}]") for i, ring in enumerate(self.array(value, place))]
        shape = self._shapely.Polygon(rings[0], rings[1:])
        if not shape.is_valid and len(rings) > 1:
            largest = sorted(rings, key=lambda ring: -self._shapely.Polygon(ring).area)
            other = self._shapely.Polygon(largest[0], largest[1:])
            if other.is_valid:
                rings, shape = largest, other
                self.pass_over(place, "has a hole before its outer ring: the largest ring counts as the outer one")
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


def is_empty(coordinates: object) -> bool:
    """Whether coordinates have no number, at whatever depth: `[]`, `[[]]`."""
    return isinstance(coordinates, list) and all(is_empty(item) for item in coordinates)


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
