"""Which rasters a path names, in their order: a GeoTIFF itself, a folder those in it, a VRT those that it lists.

A folder is one of rasters if GeoTIFFs lie in it and no folder of a zoom (`z/x/y`) does. Its rasters are ordered by the
bytes of their names. Folders in it are not searched. Files `NAME.ovr` and `NAME.msk` beside a file NAME are parts of
that one; anything else that does not begin like a TIFF is passed over.

A VRT is read here and not by GDAL, which would open whatever it names, URLs and other formats too, and run the code of
pixel functions. Of a VRT counts what a mosaic is made of: which files, in which order, which of their bands, which
part of each, and the value for no data. The pixels come from the files, each in its own place and resolution; where the
VRT places one elsewhere, the two contradict each other and it is refused. So is a VRT that computes pixels (scales,
filters, warps, tables), and one that names a file outside its own folder: whoever made it may not choose what this
user's account reads. XML with a document type is refused, so that no entity exists.
"""

from __future__ import annotations

import math
import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.parsers.expat import errors as xml_errors

from builders.files import lies_in, open_regular, read_regular
from builders.imagery.raster import TIFF, RasterPath, Shown
from store.errors import Invalid, Unavailable

MAX_RASTERS = 2000
MAX_VRT = 1 << 25
_MAX_ELEMENTS, _MAX_DEPTH, _MAX_ENTRIES = 1 << 18, 16, 100_000
_ZOOMS = {str(zoom) for zoom in range(32)}
_SPACE = b"\xef\xbb\xbf \t\r\n"
_PLAIN = frozenset({"SimpleSource", "ComplexSource"})
# What a source may say beside its file, band and rectangles.
_PARTS = frozenset({"SourceFilename", "SourceBand", "SourceProperties", "SrcRect", "DstRect", "NODATA", "UseMaskBand"})
_COMPUTED = "make one GeoTIFF of it with gdal_translate, and name that"
_LIST = 'name the GeoTIFFs themselves, as a list: source = ["a.tif", "b.tif"], or their folder'


def is_raster(path: Path, start: bytes) -> bool:
    """Whether a path leads to a raster, a folder of rasters or a VRT. `start` are the first bytes of a file."""
    if os.path.isdir(path):
        return bool(_tiffs_in(path))
    return start.startswith(TIFF) or start.lstrip(_SPACE).startswith((b"<VRT", b"<?xml"))


def rasters_at(paths: Sequence[Path]) -> list[RasterPath]:
    """The rasters that some paths name, the topmost last.

    Raises Invalid if there are none or too many, if one is named twice, and for a VRT that is no plain mosaic;
    Unavailable if the system cannot read a folder or a file.
    """
    rasters: list[RasterPath] = []
    for path in paths:
        if os.path.isdir(path):
            names = _tiffs_in(path)
            if not names:
                raise Invalid(f"tile source {path} is a folder without a GeoTIFF", path=str(path), remedy=_LIST)
            rasters += [RasterPath(path / name) for name in names]
        elif _first_bytes(path, 4) in TIFF:
            rasters.append(RasterPath(path))
        elif not is_raster(path, _first_bytes(path, 64)):
            raise Invalid(f"tile source {path} is neither a GeoTIFF nor a VRT", path=str(path), remedy=_LIST)
        else:
            rasters += _Vrt(path).rasters()
        if len(rasters) > MAX_RASTERS:
            raise Invalid(
                f"tile source {path} has more than {MAX_RASTERS} rasters",
                path=str(path),
                remedy="give a source for each part of the area in a [[tiles]] table of its own",
            )
    seen: set[str] = set()
    for one in rasters:
        real = os.path.realpath(one.path)
        if real in seen:
            raise Invalid(f"{one.path} is named twice in one source", path=str(one.path), remedy="name it once")
        seen.add(real)
    return rasters


def _tiffs_in(folder: Path) -> list[str]:
    """The names of the GeoTIFFs of a folder, in order; none of a folder of tiles z/x/y."""
    try:
        with os.scandir(folder) as entries:
            names: dict[str, bool] = {}
            for entry in entries:
                names[entry.name] = entry.is_file()
                if (entry.name in _ZOOMS and not names[entry.name]) or len(names) > _MAX_ENTRIES:
                    return []
    except OSError as error:
        raise _unreadable(folder, error) from error
    beside = {f"{name}{ending}" for name in names for ending in (".ovr", ".msk")}
    files = (name for name, is_file in names.items() if is_file and name not in beside)
    return sorted((name for name in files if _first_bytes(folder / name, 4) in TIFF), key=os.fsencode)


def _first_bytes(path: Path, count: int) -> bytes:
    with open_regular(path, "tile source") as file:
        try:
            return file.read(count)
        except OSError as error:
            raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"tile source {path} cannot be read: {error.strerror}",
        path=str(path),
        remedy="check that its disk is mounted and sound",
        errno=error.errno,
    )


class _Bounded(ET.TreeBuilder):
    """A tree without a document type, and no deeper or larger than a VRT has to be."""

    depth = count = 0

    def doctype(self, name: str, *_: Any) -> None:
        raise ValueError(f"it has a document type, {name[:80]}")

    def start(self, tag: Any, attributes: Any) -> Any:
        self.depth += 1
        self.count += 1
        if self.count > _MAX_ELEMENTS:
            raise ValueError(f"it has more than {_MAX_ELEMENTS} elements")
        if self.depth > _MAX_DEPTH:
            raise ValueError(f"its elements are nested more than {_MAX_DEPTH} deep")
        return super().start(tag, attributes)

    def end(self, tag: Any) -> Any:
        self.depth -= 1
        return super().end(tag)


class _Vrt:
    """A VRT that was parsed. Raises Invalid unless it is a plain mosaic."""

    def __init__(self, path: Path) -> None:
        self.path = path
        data = read_regular(path, MAX_VRT, "tile source", too_large=_LIST)
        try:
            self._root = ET.fromstring(data, ET.XMLParser(target=_Bounded()))  # noqa: S314 - see `_Bounded`
        except ET.ParseError as error:
            raise self._wrong(f"it is not XML: {xml_errors.messages[error.code]}, line {error.position[0]}") from None
        except (ValueError, LookupError) as error:  # an encoding that nobody knows is a LookupError
            raise self._wrong(str(error)) from None
        if self._root.tag != "VRTDataset":
            raise self._wrong(f"its root is {self._root.tag[:80]}, must be VRTDataset")

    def rasters(self) -> list[RasterPath]:
        """The rasters, the topmost last."""
        if kind := self._root.get("subClass"):
            raise self._wrong(f"it is a {kind[:80]}, which computes its pixels", _COMPUTED)
        bands = self._root.findall("VRTRasterBand")
        if not bands:
            raise self._wrong("it has no band")
        transform = self._numbers(self._root.findtext("GeoTransform") or "", 6, "GeoTransform", ",")
        crs = (self._root.findtext("SRS") or "").strip()
        sources = [self._sources(number, band) for number, band in enumerate(bands, 1)]
        files = [one["file"] for one in sources[0]]
        if any([one["file"] for one in of_band] != files for of_band in sources):
            raise self._wrong("its bands do not show the same files in the same order", _COMPUTED)
        kinds = [band.findtext("ColorInterp", "").casefold() for band in bands]
        labelled = kinds in (["red", "green", "blue"], ["gray"])
        rasters = []
        for of_file in zip(*sources, strict=True):
            first = of_file[0]
            if any(one["rectangles"] != first["rectangles"] or one["nodata"] != first["nodata"] for one in of_file):
                raise self._wrong(f"its bands show different parts of {first['file']}, or other values for no data")
            path = self._inside(first["file"], first["relative"])
            source, target = first["rectangles"]
            place = None if target is None else self._place(transform, target)
            bands_of_file = tuple(one["band"] for one in of_file)
            shown = Shown(self.path, bands_of_file, labelled, first["nodata"], source, place, crs, abs(transform[1]))
            rasters.append(RasterPath(path, shown))
        if not rasters:
            raise self._wrong("it names no file")
        return rasters

    def _sources(self, number: int, band: ET.Element) -> list[dict[str, Any]]:
        """What each source of a band says."""
        if band.get("subClass"):
            raise self._wrong(f"its band {number} is computed", _COMPUTED)
        whole = band.findtext("NoDataValue")
        sources = []
        for source in band:
            if not source.tag.endswith("Source"):
                continue  # statistics, descriptions, overviews of the VRT
            more = {part.tag for part in source} - _PARTS
            if source.tag not in _PLAIN or more:
                what = ", ".join(sorted(more)) or source.tag
                raise self._wrong(f"its band {number} is computed ({what[:80]})", _COMPUTED)
            name = source.find("SourceFilename")
            shown = source.findtext("SourceBand", "1")
            if name is None or not name.text or not (shown.isascii() and shown.isdigit() and len(shown) < 6):
                raise self._wrong(f"a source of its band {number} lacks a file or a band")
            nodata = source.findtext("NODATA", whole)
            rectangles = [source.find(tag) for tag in ("SrcRect", "DstRect")]
            sources.append(
                {
                    "file": name.text,
                    "relative": name.get("relativeToVRT") == "1",
                    "band": max(1, int(shown)),
                    "nodata": None if nodata is None else self._numbers(nodata, 1, "NODATA")[0],
                    "rectangles": [
                        None
                        if one is None
                        else self._numbers(
                            " ".join(one.get(key, "") for key in ("xOff", "yOff", "xSize", "ySize")), 4, one.tag
                        )
                        for one in rectangles
                    ],
                }
            )
        return sources

    def _inside(self, name: str, relative: bool) -> Path:
        """The path of a file of the VRT, which lies in the folder of the VRT."""
        folder = Path(os.path.abspath(self.path)).parent
        path = folder / name if relative or not os.path.isabs(name) else Path(name)
        if "\0" in name or not lies_in(path, folder):
            raise self._wrong(f"it names {name[:200]}, which lies outside the folder of the VRT")
        try:
            start = _first_bytes(path, 4)
        except Invalid as error:
            raise self._wrong(f"it names {name[:200]}: {error.message}") from None
        if start not in TIFF:
            raise self._wrong(f"it names {name[:200]}, which does not begin like a TIFF")
        return path

    def _place(self, transform: list[float], target: list[float]) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of a rectangle of the VRT, in its coordinates."""
        left, across, skew, top, other_skew, down = transform
        x, y, wide, high = target
        if skew or other_skew or min(across, -down, wide, high) <= 0:
            raise self._wrong("it is not north up, or shows nothing of a file")
        return left + x * across, top + y * down, left + (x + wide) * across, top + (y + high) * down

    def _numbers(self, text: str, count: int, what: str, between: str | None = None) -> list[float]:
        try:
            numbers = [float(one) for one in text.split(between)]
        except ValueError:
            numbers = []
        if len(numbers) != count or not all(map(math.isfinite, numbers)):
            raise self._wrong(f"its {what} is {text[:80]!r}, must have {count} numbers")
        return numbers

    def _wrong(self, why: str, remedy: str = _LIST) -> Invalid:
        return Invalid(f"tile source {self.path} is not a usable VRT: {why}", path=str(self.path), remedy=remedy)
