"""Files in which people draw areas, routes and takeoffs: `open_drawing`, `read_area`.

What a file is comes from its bytes: GeoJSON, KML or KMZ, a QGroundControl plan, a MAVLink waypoint file. What its name
or the mission file says of it is compared with that.
"""

from __future__ import annotations

import re
from pathlib import Path

from builders.areas.corridor import around
from builders.areas.geojson import TYPES, GeoJsonFile, parse_json
from builders.areas.geometry import MAX_BYTES, MAX_POLYGONS, SMALLER, GeometryFile, file_error, value_text
from builders.areas.kml import KmlFile
from builders.areas.mavlink import WaypointFile
from builders.areas.qgc import PlanFile
from builders.files import read_regular
from store.format.area import Area

_BOM = b"\xef\xbb\xbf"
# What the ends of names say; `.json` and `.txt` say nothing.
_SUFFIXES = {".geojson": "GeoJSON", ".kml": "KML", ".kmz": "KML", ".plan": "QGroundControl plan"}
# No JSON has a line break between two objects without a comma.
_LINES = re.compile(rb"\}[ \t\r]*\n\s*\{")
# Files that people take for a drawing, by how they begin.
_OTHERS = (
    (b"SQLite format 3\0", "an SQLite file, such as a GeoPackage"),
    (b"\0\0\x27\x0a", "a shapefile"),
    (b"\xff\xfe", "text in UTF-16"),
    (b"\xfe\xff", "text in UTF-16"),
    (b"fgb\x03", "a FlatGeobuf file"),
)
_CONVERT = "convert it: ogr2ogr -f GeoJSON -t_srs EPSG:4326 OUT.geojson IN"


def open_drawing(path: Path) -> GeometryFile:
    """Read and parse a file. Raises Invalid for a file that is absent, too large, or in no format that is read, and
    Unavailable if the system cannot read it."""
    data = read_regular(path, MAX_BYTES, "file", too_large=SMALLER)
    file = _parsed(path, data)
    claimed = _SUFFIXES.get(path.suffix.lower(), file.what)
    if claimed != file.what:
        file.pass_over("", f"is {file.what} by its bytes and {claimed} by its name: the bytes count")
    return file


def _parsed(path: Path, data: bytes) -> GeometryFile:
    text = data.removeprefix(_BOM).lstrip()
    for magic, what in _OTHERS:
        if data.startswith(magic):
            remedy = "save it as UTF-8" if "UTF-16" in what else _CONVERT
            raise file_error(path, "", f"is {what}, which is not read", remedy)
    if not text:
        raise file_error(path, "", "is empty", "write it again with the program that drew it")
    if data.startswith(b"PK") or text.startswith(b"<"):
        return KmlFile(path, data if data.startswith(b"PK") else text)
    if text.startswith(b"QGC WPL"):
        return WaypointFile(path, text)
    if text.startswith(b"\x1e") or _LINES.search(text):
        raise file_error(path, "", "is a sequence of GeoJSON texts, which is not read", _CONVERT)
    if not text.startswith((b"{", b"[")):
        raise file_error(
            path,
            "",
            "is in no format that is read: GeoJSON, KML, KMZ, a QGroundControl plan, a waypoint file",
            f"draw it with a program that writes one of them, or {_CONVERT}",
        )
    value = parse_json(path, data)
    if isinstance(value, dict) and value.get("fileType") == "Plan":
        return PlanFile(path, value)
    kind = value.get("type") if isinstance(value, dict) else value
    if kind not in TYPES:
        raise file_error(path, "", f"is JSON, and its type is {value_text(kind)}: neither GeoJSON nor a plan", _CONVERT)
    return GeoJsonFile(path, value)


def require_kind(file: GeometryFile, key: str, remedy: str) -> None:
    """Raise Invalid unless the file is what the key `key` of the mission file says: GeoJSON, or a plan of another
    format."""
    if (key == "geojson") != isinstance(file, GeoJsonFile):
        said = "GeoJSON" if key == "geojson" else "KML, a QGroundControl plan or a waypoint file"
        file.refuse("", f"is {file.what} by its bytes, and {key} says {said}", remedy)


def read_area(file: GeometryFile, select: str | None = None) -> Area:
    """The area of all polygons of a file, or of those of the thing that `select` names; of a plan also of its circles
    and strips.

    Each position is rounded to 1e-7 degree, half to even. Rings may run either way round. Longitudes may reach +-360:
    a part beyond 180 is cut off and moved round the world. The box of the area is the smaller of the two boxes that
    hold it, so its west is greater than its east if it crosses the antimeridian.

    Raises Invalid, with file and place, for a file without polygons, a ring that crosses itself, an edge of more than
    180 degrees of longitude, more vertices than the limit of a manifest.
    """
    polygons = []
    for geometry in file.shapes(("Polygon", "MultiPolygon", "Circle", "Strip"), select):
        polygons += around(file, geometry) if geometry.kind in ("Circle", "Strip") else file.polygons(geometry)
        if len(polygons) > MAX_POLYGONS:
            break  # `area` refuses it, and cutting and joining thousands more takes long
    return file.area(polygons, "simplify the polygons, or divide the mission")
