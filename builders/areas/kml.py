"""KML and KMZ (OGC 12-007r2), as Google Earth and flight planning programs write them: `KmlFile`.

Read are the Polygon, LineString, LinearRing and Point of each Placemark, however deep in folders. What a file only
points to (NetworkLink, an overlay's image) is not fetched, and other geometries (gx:Track, Model) are passed over.

Laws: size, number of elements and depth are bounded before a value is looked at; a document type, and so every entity,
is refused; nothing outside the file is opened; of a KMZ only the KML is unpacked, up to the size that a KML may have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from builders.areas.geometry import MAX_BYTES, MAX_POSITIONS, NUMBER, SMALLER, Geometry, GeometryFile, Home, value_text
from builders.zipped import opened_zip, read_member

MAX_ELEMENTS = 1 << 18
MAX_DEPTH = 64
MAX_MEMBERS = 4096  # of a KMZ
_OTHERS = ("Track", "MultiTrack", "Model", "NetworkLink", "GroundOverlay", "PhotoOverlay", "ScreenOverlay")
_XML_REMEDY = "write the file again with the program that drew it"


@dataclass(slots=True)
class _Element:
    """An element: its name without namespace and prefix, its text, its children."""

    name: str
    line: int
    text: str = ""
    children: list[_Element] = field(default_factory=list)

    def all(self, *names: str) -> Iterator[_Element]:
        """Yield the children of these names."""
        return (child for child in self.children if child.name in names)

    def text_of(self, name: str) -> str | None:
        """The text of the child of a name, None where there is none."""
        child = next(self.all(name), None)
        return None if child is None else child.text.strip()


class KmlFile(GeometryFile):
    """A parsed KML file; `data` are its bytes, or those of a KMZ."""

    what = "KML"

    def __init__(self, path: Path, data: bytes) -> None:
        super().__init__(path)
        self._read = 0
        if data.startswith(b"PK"):
            data = self._unpacked(data)
        self._root = _Parser(self).parse(data)
        if self._root.name != "kml":
            self.refuse(
                "",
                f"is XML whose first element is {value_text(self._root.name)}, must be kml",
                "convert it: ogr2ogr -f GeoJSON -t_srs EPSG:4326 OUT.geojson IN",
            )

    def shapes(self, kinds: tuple[str, ...], select: str | None) -> Iterator[Geometry]:
        for geometry in self._drawn(select):
            if geometry.kind in kinds:
                yield geometry
            else:
                self.pass_over(geometry.place, f"is a {geometry.kind}: passed over")

    def _drawn(self, select: str | None) -> Iterator[Geometry]:
        """Yield every geometry, or those of the placemark that `select` names."""
        self._read = 0
        placemarks = [(one, f"line {one.line}: Placemark") for one in self._placemarks(self._root)]
        if select is not None:
            things = [(place, one.text_of("name"), (one, place)) for one, place in placemarks]
            placemarks = [self.select(things, select, "placemarks")]
        for one, place in placemarks:
            name = one.text_of("name")
            yield from self._geometries(one, f"{place} {value_text(name)}" if name else place)

    def home(self, select: str | None) -> Home:
        """The one point of the file, or of the placemark that `select` names. Its height counts where it is above sea
        level (altitudeMode absolute)."""
        points = [geometry for geometry in self._drawn(select) if geometry.kind == "Point"]
        if len(points) != 1:
            self.refuse(
                "",
                f"has {len(points)} points, the takeoff is one",
                'name its placemark: takeoff = { plan = "…", select = "…", alt_m = … }',
            )
        return Home(*self.point(points[0]), points[0].altitude)

    def _placemarks(self, element: _Element) -> Iterator[_Element]:
        for child in element.children:
            if child.name == "Placemark":
                yield child
            elif child.name in ("Document", "Folder"):
                yield from self._placemarks(child)
            elif child.name in _OTHERS:
                self.pass_over(f"line {child.line}", f"is a {child.name}: passed over")

    def _geometries(self, element: _Element, place: str) -> Iterator[Geometry]:
        empty = True
        for child in element.children:
            here = f"{place}, line {child.line}"
            if child.name == "MultiGeometry":
                yield from self._geometries(child, place)
            elif child.name == "Polygon":
                rings = [
                    self._tuples(ring, here)
                    for boundary in ("outerBoundaryIs", "innerBoundaryIs")
                    for holder in child.all(boundary)
                    for ring in holder.all("LinearRing")
                ]
                if len([ring for outer in child.all("outerBoundaryIs") for ring in outer.all("LinearRing")]) != 1:
                    self.refuse(here, "is a Polygon without exactly one outer ring", _XML_REMEDY)
                yield Geometry(here, "Polygon", rings)
            elif child.name in ("LineString", "LinearRing"):
                yield Geometry(here, "LineString", self._tuples(child, here))
            elif child.name == "Point":
                points = self._tuples(child, here)
                if len(points) != 1:
                    self.refuse(here, f"is a Point of {len(points)} positions", _XML_REMEDY)
                absolute = child.text_of("altitudeMode") == "absolute" and len(points[0]) == 3
                yield Geometry(here, "Point", points[0], altitude=points[0][2] if absolute else None)
            elif child.name in _OTHERS:
                self.pass_over(here, f"is a {child.name}: passed over")
            else:
                continue
            empty = False
        if empty:
            self.pass_over(place, "has no geometry: passed over")

    def _tuples(self, element: _Element, place: str) -> list[list[Decimal]]:
        """[longitude, latitude, height where there is one] of each tuple of the element's coordinates."""
        # A position takes a hundred times its size, so they are counted before they are taken apart.
        holders = list(element.all("coordinates"))
        if len(holders) > 1 or any(one.children for one in holders):
            self.refuse(place, "has coordinates twice, or elements among them", _XML_REMEDY)
        texts = (element.text_of("coordinates") or "").split(None, MAX_POSITIONS)
        self._read += len(texts)
        if self._read > MAX_POSITIONS:
            self.refuse(place, f"exceeds the limit of {MAX_POSITIONS} positions in one file", "simplify the geometries")
        positions = []
        for text in texts:
            numbers = text.split(",")
            if not (2 <= len(numbers) <= 3 and all(map(NUMBER.fullmatch, numbers))):
                self.refuse(
                    place,
                    f"has {value_text(text)} among its coordinates",
                    "write longitude,latitude,height, without spaces between the three and with points for decimals",
                )
            positions.append([Decimal(number) for number in numbers])
        return positions

    def _unpacked(self, data: bytes) -> bytes:
        """The bytes of the one KML of a KMZ: doc.kml, or the only one at its top."""
        try:
            with opened_zip(data, MAX_MEMBERS) as archive:
                names = [one for one in archive.infolist() if one.filename.lower().endswith(".kml")]
                top = [one for one in names if "/" not in one.filename]
                main = [one for one in top if one.filename == "doc.kml"] or top or names
                if len(main) != 1:
                    listed = ", ".join(value_text(one.filename) for one in main[:4])
                    self.refuse("", f"is a ZIP with {len(main)} KML files {listed}".rstrip(), "give the KML itself")
                (chosen,) = main
                for one in names:
                    if one is not chosen:
                        self.pass_over(value_text(one.filename), "is another KML of the KMZ: passed over")
                unpacked = read_member(archive, chosen, MAX_BYTES)
        except ValueError as error:
            self.refuse("", f"is not a usable KMZ: {error}", "copy the file again, or save it as KML")
        if len(unpacked) > MAX_BYTES:
            self.refuse(value_text(chosen.filename), f"has more than {MAX_BYTES} bytes", SMALLER)
        return unpacked


class _Parser:
    """Makes the tree of a document, within the bounds."""

    def __init__(self, file: KmlFile) -> None:
        self._file = file
        self._open: list[_Element] = []
        self._root = _Element("", 0)
        self._count = 0
        self._text: list[str] = []

    def parse(self, data: bytes) -> _Element:
        parser = self._parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = self._doctype
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            self._file.refuse("", f"is not well-formed XML: {error}", _XML_REMEDY)
        except (LookupError, ValueError) as error:  # an encoding that Python lacks, or has no table for
            self._file.refuse("", f"is not XML that can be read: {error}", "save it as UTF-8")
        return self._root

    def _start(self, name: str, _attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS or len(self._open) >= MAX_DEPTH:
            bounds = f"more than {MAX_ELEMENTS} elements, or {MAX_DEPTH} inside one another"
            self._file.refuse(f"line {self._parser.CurrentLineNumber}", f"exceeds a bound: {bounds}", SMALLER)
        element = _Element(name.rpartition(":")[2], self._parser.CurrentLineNumber)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self._root = element
        self._open.append(element)
        self._text.clear()

    def _end(self, _name: str) -> None:
        self._open.pop().text = "".join(self._text)
        self._text.clear()

    def _doctype(self, *_declaration: object) -> NoReturn:
        self._file.refuse(
            f"line {self._parser.CurrentLineNumber}",
            "is a document type, which may define entities: no KML needs one",
            "remove the lines from <!DOCTYPE to its >",
        )
