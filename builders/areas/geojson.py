"""GeoJSON (RFC 7946), as tools export it: `GeoJsonFile` finds the geometries of a file.

Strict where a doubt would be left, such as a member twice or other coordinates than WGS 84; what a tool writes and
nobody can mistake is read: features without geometry, empty geometries, null for a height, the older member `crs`.

Law: size, number of values and depth are bounded before a value is looked at.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal, DecimalException
from pathlib import Path
from typing import NoReturn

from builders.areas.geometry import (
    MAX_BYTES,
    SMALLER,
    Geometry,
    GeometryFile,
    Home,
    file_error,
    is_empty,
    member_place,
    value_text,
)
from builders.bounded import values_in
from builders.files import read_regular

MAX_VALUES = 1 << 21  # in one file
MAX_DIGITS = 1000  # of a number, before its point or in all: a whole number is made of it, in the square of their time
MAX_DEPTH = 8  # of geometry collections in geometry collections

# What the member "crs", which GeoJSON had before RFC 7946, calls WGS 84 with longitude first; also with heights
# (CRS84h, EPSG:4979). EPSG:4326 is latitude first by its register, and longitude first in every GeoJSON file.
_WGS84 = re.compile(
    r"""
    (?: urn:(?:x-)?ogc:def:crs:OGC:(?:[0-9.]*:)? | https?://www\.opengis\.net/def/crs/OGC/[0-9.]+/ | OGC: )? CRS:?84h?
  | (?: urn:(?:x-)?ogc:def:crs:EPSG:(?:[0-9.]*:)? | https?://www\.opengis\.net/def/crs/EPSG/[0-9.]+/
      | https?://www\.opengis\.net/gml/srs/epsg\.xml\# | https?://(?:www\.)?spatialreference\.org/ref/epsg/ | EPSG:{1,2}
    )? (?: 4326 | 4979 ) /?
  | WGS[ _]?(?:19)?84
    """,
    re.VERBOSE | re.IGNORECASE,
)
_KINDS = frozenset(("Point", "MultiPoint", "LineString", "MultiLineString", "Polygon", "MultiPolygon"))
TYPES = (*sorted(_KINDS), "GeometryCollection", "Feature", "FeatureCollection")


class GeoJsonFile(GeometryFile):
    """A parsed GeoJSON file: `value` is what `parse_json` returned for it."""

    what = "GeoJSON"

    def __init__(self, path: Path, value: object) -> None:
        super().__init__(path)
        self._root = value

    @classmethod
    def open(cls, path: Path) -> GeoJsonFile:
        """Read a file. Raises Invalid for a file that is absent, too large or not strict JSON, and Unavailable if the
        system cannot read it."""
        data = read_regular(path, MAX_BYTES, "GeoJSON file", too_large=SMALLER)
        return cls(path, parse_json(path, data))

    def geometries(self, kinds: tuple[str, ...]) -> Iterator[Geometry]:
        """Every geometry, in the order of the file. Raises Invalid for a geometry of another kind than `kinds`, and for
        a feature without one."""
        for _, _, geometry in self._features():
            for one in geometry:
                if one.kind not in kinds:
                    self.refuse(
                        _thing(one),
                        f"is {_kind_text(one)}, must be {' or '.join(kinds)}",
                        "remove the geometry, or convert it",
                    )
                yield one

    def shapes(self, kinds: tuple[str, ...], select: str | None) -> Iterator[Geometry]:
        """Yield the geometries of these kinds, and pass over other kinds, null and empty ones."""
        features = list(self._features())
        if select is not None:
            things = [(one[0], _name(one[1]), one) for one in features]
            features = [self.select(things, select, "features")]
        for _, _, geometry in features:
            for one in geometry:
                place = _thing(one)
                if one.kind == "":
                    self.pass_over(place, "is null: passed over")
                elif is_empty(one.coordinates):
                    self.pass_over(place, f"is an empty {one.kind}: passed over")
                elif one.kind in kinds:
                    yield one
                else:
                    self.pass_over(place, f"is a {one.kind}: passed over")

    def home(self, select: str | None) -> Home:  # noqa: ARG002 - there is nothing to select
        self.refuse("", "is GeoJSON, which states no takeoff", "give takeoff = { lat = …, lon = …, alt_m = … }")

    def _features(self) -> Iterator[tuple[str, Mapping[str, object], Iterator[Geometry]]]:
        """Yield (place, feature, its geometries) of each feature; of a bare geometry likewise."""
        root = self._object(self._root, "")
        if root.get("type") != "FeatureCollection":
            yield "", root, self._inside(root, "")
            return
        for i, item in enumerate(self.array(root.get("features"), "features")):
            place = f"features[{i}]"
            feature = self._object(item, place)
            if feature.get("type") != "Feature":
                self.refuse(
                    place, f"is {value_text(feature.get('type'))}, must be a Feature", "put the geometry into one"
                )
            yield place, feature, self._inside(feature, place)

    def _inside(self, value: Mapping[str, object], place: str) -> Iterator[Geometry]:
        """The geometries of a Feature or of a geometry. A feature without geometry has one of the kind ""."""
        if value.get("type") != "Feature":
            yield from self._geometry(value, place, None, 0)
            return
        inner = member_place(place, "geometry")
        feature = (place, value.get("properties"))
        if value.get("geometry", value) is None:
            yield Geometry(inner, "", None, feature)
            return
        yield from self._geometry(self._object(value.get("geometry"), inner), inner, feature, 0)

    def _geometry(
        self, value: Mapping[str, object], place: str, feature: tuple[str, object] | None, depth: int
    ) -> Iterator[Geometry]:
        kind = value.get("type")
        if kind == "GeometryCollection":
            if depth == MAX_DEPTH:
                self.refuse(
                    place, f"is a collection inside {MAX_DEPTH} others", "put the geometries into one collection"
                )
            places = member_place(place, "geometries")
            if value.get("geometries") == []:
                yield Geometry(places, "GeometryCollection", [], feature)
                return
            for i, item in enumerate(self.array(value.get("geometries"), places)):
                inner = f"{places}[{i}]"
                yield from self._geometry(self._object(item, inner), inner, feature, depth + 1)
        elif isinstance(kind, str) and kind in _KINDS:
            yield Geometry(member_place(place, "coordinates"), kind, value.get("coordinates"), feature)
        else:
            self.refuse(place, f"is {value_text(kind)}, must be a geometry", "remove it, or convert it")

    def _object(self, value: object, place: str) -> dict[str, object]:
        if not isinstance(value, dict):
            self.refuse(
                place, f"is {value_text(value)}, must be a GeoJSON object", "complete or remove the object around it"
            )
        crs = value.get("crs")
        if crs is not None and not _is_wgs84(crs):
            self.refuse(
                member_place(place, "crs"),
                f"is {value_text(_crs_text(crs))}, must be WGS 84",
                "reproject the file: ogr2ogr -f GeoJSON -t_srs EPSG:4326 OUT.geojson IN.geojson",
            )
        return value


def _name(feature: Mapping[str, object]) -> str | None:
    """The property `name`, in whatever case, else the id of a feature."""
    properties = feature.get("properties")
    named = {str(key).lower(): value for key, value in properties.items()} if isinstance(properties, dict) else {}
    for value in (named.get("name"), feature.get("id")):
        if isinstance(value, str | Decimal):
            return str(value)
    return None


def _thing(geometry: Geometry) -> str:
    """The place of a geometry, rather than of its coordinates."""
    return "the geometry" if geometry.place == "coordinates" else geometry.place.removesuffix(".coordinates")


def _kind_text(geometry: Geometry) -> str:
    return value_text(geometry.kind or None)


def _crs_text(crs: object) -> object:
    properties = crs.get("properties") if isinstance(crs, dict) else crs
    if not isinstance(properties, dict):
        return properties
    return next((properties[key] for key in ("name", "code", "href") if key in properties), properties)


def _is_wgs84(crs: object) -> bool:
    return _WGS84.fullmatch(str(_crs_text(crs)).strip()) is not None


def parse_json(path: Path, data: bytes) -> object:
    """Return the value of strict JSON, numbers as decimals. Raises Invalid for a file with too many values, and for
    anything else."""

    def refuse(text: str) -> NoReturn:
        raise ValueError(f"{text} is not a number")

    def number(text: str) -> Decimal:
        value = Decimal(text)
        if max(len(text), value.adjusted()) > MAX_DIGITS:
            raise ValueError(f"the number {text[:20]}... has more than {MAX_DIGITS} digits")
        return value

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) != len(pairs):
            counts = Counter(name for name, _ in pairs)
            twice = next(name for name, count in counts.items() if count > 1)
            raise ValueError(f"an object has the member {value_text(twice)} twice")
        return members

    # A number takes a hundred bytes of memory, so a file takes fifty times its size.
    if values_in(data) > MAX_VALUES:
        raise file_error(path, "", f"has more than {MAX_VALUES} values", SMALLER)
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text, parse_int=number, parse_float=number, parse_constant=refuse, object_pairs_hook=unique)
    except RecursionError:
        why = "it is nested too deeply"
    except DecimalException:
        why = "a number has too many digits or too large an exponent"
    except ValueError as error:  # of the decoder, of the parser, and of the two functions above
        why = str(error)
    raise file_error(path, "", f"is not strict JSON: {why}", "write the file again with the tool that made it")
