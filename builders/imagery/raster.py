"""A GeoTIFF or COG as a raster: windows of its colours, and which of their pixels are imagery.

A pixel is masked by the value for no data in all of its colours, by a mask in the file, or by alpha below the maximum.
A band that is labelled alpha is not believed: converters label near infrared so (PlanetaryComputer issue 82), and every
tile would be masked. Of alpha bands that were made with GDAL at five resamplings, no value lay strictly between 0 and
the maximum; of masks with feathered seams, up to 0.4 of the values above 0; of the colours of aerial imagery, all. So a
band of which more than half of the values above 0 lie between is refused as a mask, when the first window is read.
`bands` names the colours, and then no other band is a mask.

Colours have 8 bits. Those of 16 bits are stretched: `low` becomes 0, `high` 255, and what lies beyond the nearer of
both, as by `gdal_translate -scale`; each value to the nearest of 8 bits, the larger one if two are equally near.

GDAL reads the pixels of the one file and nothing else: no `.ovr` or world file, no URL. A mask or a value for no data
that lies beside the file (`.msk`, `.aux.xml`) is refused. Each call to GDAL sets its options, because they belong to a
thread and not to a source. No file stays open here: `RasterPool` holds those that are read.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from builders.extras import import_extra
from builders.files import open_regular
from builders.grid.views import EQUATOR
from builders.imagery.stamps import check_same
from store.errors import Corrupt, Invalid, Unavailable

HALF = EQUATOR / 2
MAX_BLOCK = 1 << 27  # bytes of one block, which GDAL decompresses as a whole
MAX_DIRECTORIES = 256  # images, overviews and masks; GDAL takes time by their square
# Rasters that are open at once, full or by an overview. A tile seldom lies over more than four.
MAX_OPEN = 8
# TIFF and BigTIFF, of either byte order.
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OPTIONS = {
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_CACHEMAX": 64 << 20,
    "GTIFF_IMPLICIT_JPEG_OVR": "NO",
    # Otherwise GDAL divides a file of one strip into blocks that have no offset in the file.
    "GDAL_ENABLE_TIFF_SPLIT": "NO",
    "PROJ_NETWORK": "OFF",
}
_MAX_OFFSET = 1 << 63
_STATE = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
# Bytes of an .aux.xml that are looked at: it may hold large histograms.
_MAX_AUX = 1 << 20
# Of a band, at most so many blocks along each side are sampled, and pixels in all.
_BLOCKS, _SAMPLE = 8, 1 << 24
# The greatest share of values below the maximum among those above 0, in a band that is a mask.
_BETWEEN = 0.5
_PALETTE = "make RGB of 8 bits with gdal_translate -expand rgb"
_NAME_BANDS = (
    "name the bands of red, green and blue in [[tiles]], such as bands = [1, 2, 3], "
    "or copy them to a file of their own with gdal_translate -b 1 -b 2 -b 3"
)
_NORTH_UP = "make a raster that is north up in web mercator with gdalwarp -t_srs EPSG:3857"
_VRT_AGAIN = "make the VRT again with gdalbuildvrt, or name the GeoTIFFs themselves in source"
# Parts of a pixel that are rounding.
_WHOLE = 1e-3
# Above the coordinates of any projection on earth, in metres or degrees.
_FAR = 1e9


@dataclass(frozen=True, slots=True)
class Shown:
    """What a VRT says of a file: which of its bands are the bands 1, 2, ... of the VRT, and whether those are labelled
    as colours; the value for no data; the part that it shows (`source`: first column, first row, width and height) and
    its `place` (left, top, right, bottom, in the projection `crs`), in pixels as large as `pixel`."""

    vrt: Path
    bands: tuple[int, ...]
    labelled: bool
    nodata: float | None
    source: tuple[float, float, float, float] | None
    place: tuple[float, float, float, float] | None
    crs: str
    pixel: float


@dataclass(frozen=True, slots=True)
class RasterPath:
    """The path of a raster, and what a VRT says of it if one names it."""

    path: Path
    shown: Shown | None = None


class Level(NamedTuple):
    """The pixels of a raster at full resolution (`overview` is None) or in one of its overviews: their transform, their
    size in metres of web mercator (`across`), and the rectangle of them that counts."""

    overview: int | None
    transform: Any
    across: float
    rectangle: tuple[int, int, int, int]


class Raster:
    """One file: what is known of it without reading a pixel.

    `bands` are the numbers, from 1, of the bands of red, green and blue, or of the one that is grey; None where the
    file labels them. `stretch` is (low, high) of colours of 16 bits. Raises Invalid unless the file is a GeoTIFF of RGB
    or grey (with or without alpha; with `bands`, beside any other bands), north up in a known coordinate system;
    Unavailable if the system cannot read it, somebody writes to it, or rasterio is not installed; Corrupt if GDAL
    reports damage.

    `bounds` (west, south, east, north) is its box in web mercator, `levels` are its pixels, the full ones first, and
    `resolution_m` is metres on the ground per pixel at its middle.
    """

    def __init__(
        self, named: RasterPath, bands: tuple[int, ...] | None = None, stretch: tuple[int, int] | None = None
    ) -> None:
        self.path = named.path
        self._shown = named.shown
        self._chosen = self._of_file(bands)
        self._stretch = stretch
        self._rasterio = rasterio()
        self._real = os.path.realpath(self.path)
        if self._real.startswith("/vsi"):
            raise self._unusable("GDAL reserves paths that begin with /vsi", "move the file to another folder")
        self._opened = self._look()
        self._check_directories()
        self._unjudged: list[int] = []
        with self.open(None) as raster, self.gdal():
            self._inspect(raster)
        self.check_same()

    # -- reading

    @contextmanager
    def open(self, overview: int | None) -> Iterator[Any]:
        """The open file, or one of its overviews."""
        raster = self.opened(overview)
        try:
            yield raster
        finally:
            with self.gdal():
                raster.close()

    def opened(self, overview: int | None) -> Any:
        """The open file, or one of its overviews, for the caller to close.

        Raises Unavailable if it is not the file that was inspected: GDAL opens by path and does not expose its
        descriptor, so the path must lead to one file before and after.
        """
        self.check_same()
        options = {} if overview is None else {"overview_level": overview}
        with self.gdal():
            raster = self._rasterio.open(
                self._real, driver="GTiff", sharing=False, GEOREF_SOURCES="INTERNAL", **options
            )
        try:
            self.check_same()
        except BaseException:
            with self.gdal():
                raster.close()
            raise
        return raster

    def read(
        self, raster: Any, column: int, row: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(colours, validity) of a window of what `opened` returned: uint8 [3, height, width], bool [height, width].

        Raises Invalid if a band that is labelled alpha is no mask, or is one that the named bands do without.
        """
        with self.gdal():
            if self._unjudged:
                self._judge_alpha()
                self._unjudged = []
            window = self._rasterio.windows.Window(column, row, width, height)
            bands: NDArray[Any] = raster.read(self._colours, window=window)
            valid = np.ones((height, width), np.bool_)
            # GDAL applies only one of several masks.
            for band in self._masks:
                valid &= raster.read_masks(band, window=window) == 255
            if self._alpha is not None:
                valid &= raster.read(self._alpha, window=window) == self._top
            if self._nodata is not None:
                valid &= (bands != self._nodata).any(axis=0)
            block_height, block_width = raster.block_shapes[0]
            for y in range(row // block_height, (row + height - 1) // block_height + 1):
                for x in range(column // block_width, (column + width - 1) // block_width + 1):
                    written = (
                        raster.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band) for band in self._colours
                    )
                    if any(offset is None for offset in written):
                        # The block was never written: GDAL fills it with zeros, which are not imagery.
                        rows = slice(max(y * block_height - row, 0), (y + 1) * block_height - row)
                        columns = slice(max(x * block_width - column, 0), (x + 1) * block_width - column)
                        valid[rows, columns] = False
        if self._stretch is not None:
            bands = _table(*self._stretch, bands.dtype == np.int16)[bands.view(np.uint16)]
        return (bands if len(bands) == 3 else np.repeat(bands, 3, axis=0)), valid

    def check_same(self) -> None:
        """Raise Unavailable if the path leads to another file than the inspected one, or somebody wrote to the file."""
        check_same(self.path, (self._opened.st_dev, self._opened.st_ino))
        now = self._look()
        if any(getattr(now, name) != getattr(self._opened, name) for name in _STATE):
            raise Unavailable(
                f"{self.path} was written to while it was open",
                path=str(self.path),
                remedy="run the command again when nothing writes to the file",
            )

    # -- inspecting

    def _of_file(self, bands: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """The numbers in the file of the bands that the mission file or the VRT names; None where neither does."""
        shown = self._shown
        if shown is None:
            return bands
        if bands is not None:
            if max(bands) > len(shown.bands):
                raise self._unusable(
                    f"{shown.vrt.name} shows {len(shown.bands)} of its bands, and no band {max(bands)}",
                    "correct the bands in [[tiles]]",
                )
            return tuple(shown.bands[band - 1] for band in bands)
        if shown.labelled:
            return shown.bands
        if shown.bands == tuple(range(1, len(shown.bands) + 1)):
            return None
        raise self._unusable(
            f"{shown.vrt.name} shows its bands {list(shown.bands)} without labels of colours", _NAME_BANDS
        )

    def _inspect(self, raster: Any) -> None:
        """Check the raster and set what is known of it."""
        t = raster.transform
        if raster.crs is None:
            raise self._unusable("it has no coordinate system", "add one with gdal_translate -a_srs")
        numbers = (t.a, t.b, t.c, t.d, t.e, t.f, t.c + raster.width * t.a, t.f + raster.height * t.e)
        if not all(math.isfinite(n) and abs(n) < _FAR for n in numbers) or t.b or t.d or not t.e < 0 < t.a:
            raise self._unusable("it is not north up, or its coordinates are not on earth", _NORTH_UP)
        self._check_beside(raster)
        self._check_kind(raster)
        self._colours, self._alpha = self._labels(raster) if self._chosen is None else self._names(raster, self._chosen)
        flags = self._rasterio.enums.MaskFlags
        # Alpha and the value for no data are read for themselves, so what remains are the masks in the file.
        self._masks = [
            band
            for band in self._colours
            for kinds in [raster.mask_flag_enums[band - 1]]
            if flags.all_valid not in kinds and flags.alpha not in kinds and kinds != [flags.nodata]
        ]
        alpha = self._rasterio.enums.ColorInterp.alpha
        self._unjudged = [
            number for number, kind in enumerate(raster.colorinterp, 1) if kind == alpha and number not in self._colours
        ]
        self._nodata: float | None = self._no_data(raster)
        self._check_blocks(raster)
        self._place(raster)

    def _place(self, raster: Any) -> None:
        """Set where it lies, and the pixels that it has."""
        t, mercator = raster.transform, self._rasterio.crs.CRS.from_epsg(3857)
        self.crs = raster.crs
        left, top, right, bottom = self._part(raster)
        box = t.c + left * t.a, t.f + bottom * t.e, t.c + right * t.a, t.f + top * t.e
        self.bounds = self._rasterio.warp.transform_bounds(raster.crs, mercator, *box)
        west, south, east, north = self.bounds
        across = math.sqrt((east - west) / (right - left) * (north - south) / (bottom - top))
        if not (math.isfinite(across) and 0 < across < EQUATOR):
            raise self._unusable("it lies outside the web-mercator map", _NORTH_UP)
        self.resolution_m = across / math.cosh((south + north) / 2 / (HALF / math.pi))
        levels = [Level(None, t, across, (left, top, right, bottom))]
        for overview in range(len(raster.overviews(1))):
            with self.open(overview) as one:
                self._check_blocks(one)
                x, y = one.width / raster.width, one.height / raster.height
                rectangle = _whole_pixels(left * x, top * y, right * x, bottom * y)
                if rectangle[0] < rectangle[2] and rectangle[1] < rectangle[3]:
                    place = self._rasterio.Affine(t.a / x, 0, t.c, 0, t.e / y, t.f)
                    levels.append(Level(overview, place, across / math.sqrt(x * y), rectangle))
        self.levels = tuple(levels)

    def _part(self, raster: Any) -> tuple[int, int, int, int]:
        """(first column, first row, column and row behind the last) of the whole pixels that count: all, or those that
        the VRT shows. Raises Invalid if it shows them elsewhere than the file itself says that they lie."""
        shown, t, size = self._shown, raster.transform, (raster.width, raster.height)
        if shown is None or shown.place is None:
            return (0, 0, *size)
        if shown.crs and self._rasterio.crs.CRS.from_user_input(shown.crs) != raster.crs:
            raise self._unusable(f"it lies in another projection than {shown.vrt.name} says", _VRT_AGAIN)
        column, row, width, height = shown.source or (0, 0, *size)
        own = t.c + column * t.a, t.f + row * t.e, t.c + (column + width) * t.a, t.f + (row + height) * t.e
        # gdalbuildvrt rounds places and sizes to pixels of the VRT.
        if any(abs(a - b) > 1.001 * shown.pixel for a, b in zip(own, shown.place, strict=True)):
            raise self._unusable(
                f"it lies at {own[0]:.3f}, {own[1]:.3f}, and {shown.vrt.name} says "
                f"{shown.place[0]:.3f}, {shown.place[1]:.3f}",
                _VRT_AGAIN,
            )
        left, top, right, bottom = _whole_pixels(column, row, column + width, row + height)
        part = max(0, left), max(0, top), min(size[0], right), min(size[1], bottom)
        if part[0] >= part[2] or part[1] >= part[3]:
            raise self._unusable(f"{shown.vrt.name} shows no whole pixel of it", _VRT_AGAIN)
        return part

    def _check_blocks(self, raster: Any) -> None:
        block = math.prod(raster.block_shapes[0]) * raster.count * np.dtype(raster.dtypes[0]).itemsize
        if block > MAX_BLOCK:
            raise self._unusable(
                f"its blocks have up to {block} bytes; the limit is {MAX_BLOCK}",
                "make smaller blocks with gdal_translate -co TILED=YES",
            )

    def _check_kind(self, raster: Any) -> None:
        """Set the maximum of its pixels. Raises Invalid unless they have 8 bits, or 16 with a stretch."""
        bits = {raster.tags(band, ns="IMAGE_STRUCTURE").get("NBITS") for band in raster.indexes} - {None}
        kinds = set(raster.dtypes)
        if kinds == {"uint8"} and bits <= {"8"}:
            if self._stretch is not None:
                raise self._unusable(
                    "its pixels have 8 bits, and stretch is for 16",
                    "remove stretch from its table [[tiles]]; rasters of 8 bits beside others of 16 need a table "
                    "of their own",
                )
            self._top = 255
            return
        deep = kinds in ({"uint16"}, {"int16"})
        if deep and self._stretch is not None:
            number = next(iter(bits)) if len(bits) == 1 else "16"
            self._top = np.iinfo(raster.dtypes[0]).max if number == "16" else (1 << int(number)) - 1
            return
        kind = f"{', '.join(sorted(kinds))}" + (f" of {', '.join(sorted(bits))} bits" if bits else "")
        low, high = self._range(raster)
        remedy = (
            f"make RGB of 8 bits with gdal_translate -ot Byte -scale {low} {high} 0 255 -b 1 -b 2 -b 3 "
            f"(96 of 100 values of this file lie from {low} to {high})"
        )
        if deep:
            remedy = f"add stretch = [{low}, {high}] to its table [[tiles]], or {remedy}"
        raise self._unusable(f"its pixels are {kind}, must be uint8 of 8 bits", remedy)

    def _range(self, raster: Any) -> tuple[int, int]:
        """Whole numbers between which all values of its colours lie but for the lowest and the highest 2 of 100."""
        bands = self._chosen or tuple(range(1, min(raster.count, 3) + 1))
        nodata = self._no_data(raster)
        blocks = [block.ravel() for band in bands if band <= raster.count for block in self._blocks(raster, band)]
        values = np.concatenate(blocks) if blocks else np.zeros(0)
        values = values[np.isfinite(values) & (values != (math.nan if nodata is None else nodata))]
        if np.iscomplexobj(values) or not len(values):
            return 0, 255
        low, high = (int(value) for value in np.percentile(values, (2, 98)))
        return low, max(high, low + 1)

    def _check_beside(self, raster: Any) -> None:
        """Raise Invalid for a mask or a value for no data that lies beside the file: GDAL is told to read neither."""
        mask, aux = (Path(f"{self.path}{ending}") for ending in (".msk", ".aux.xml"))
        if mask.exists():
            raise self._unusable(
                f"its mask is in another file, {mask.name}",
                f"write one file with gdal_translate --config GDAL_TIFF_INTERNAL_MASK YES, or remove {mask.name}",
            )
        if raster.nodata is None and aux.is_file():
            with open_regular(aux, "metadata of the tile source") as file:
                if b"<NoDataValue" in (file.read(_MAX_AUX) or b""):
                    raise self._unusable(
                        f"its value for no data is in another file, {aux.name}",
                        f"write it to the file with gdal_translate -a_nodata, or remove {aux.name}",
                    )

    def _no_data(self, raster: Any) -> float | None:
        """The value for no data, of the file or of the VRT. Raises Invalid if both state one and they differ."""
        own, named = raster.nodata, self._shown.nodata if self._shown else None
        if own is not None and named is not None and own != named:
            raise self._unusable(
                f"its value for no data is {own:g}, and the VRT says {named:g}",
                "make the VRT again with gdalbuildvrt, without -srcnodata",
            )
        value: float | None = own if named is None else named
        return value

    def _labels(self, raster: Any) -> tuple[list[int], int | None]:
        """(bands with the colours: three, or one of grey; band of the alpha) as the file labels them."""
        colours = self._rasterio.enums.ColorInterp
        kinds = list(raster.colorinterp)
        if raster.count in (3, 4) and kinds[:3] == [colours.red, colours.green, colours.blue]:
            wanted = [1, 2, 3]
        elif raster.count in (1, 2) and kinds[0] == colours.gray:
            wanted = [1]
        else:
            raise self._unusable(
                f"its bands are {_kinds(raster)}, must be red, green, blue or grey, with or without alpha",
                _PALETTE if colours.palette in kinds else _NAME_BANDS,
            )
        if raster.count == len(wanted):
            return wanted, None
        if kinds[-1] != colours.alpha:
            raise self._unusable(f"its band {raster.count} is {kinds[-1].name}, must be alpha", _NAME_BANDS)
        return wanted, raster.count

    def _names(self, raster: Any, bands: tuple[int, ...]) -> tuple[list[int], None]:
        """(bands with the colours, no alpha) as the mission file or the VRT names them."""
        colours = self._rasterio.enums.ColorInterp
        if max(bands) > raster.count:
            raise self._unusable(
                f"it has no band {max(bands)}, its bands are {_kinds(raster)}", "correct the bands in [[tiles]]"
            )
        # Numbers in a palette or in another colour space are no red, green and blue.
        spaces = range(colours.hue.value, colours.Cr.value + 1)
        if any(kind == colours.palette or kind.value in spaces for kind in raster.colorinterp):
            raise self._unusable(f"its bands are {_kinds(raster)}, in which none is red, green, blue or grey", _PALETTE)
        return list(bands), None

    # -- masks that are none

    def _judge_alpha(self) -> None:
        """Raise Invalid if a band that is labelled alpha is no mask, or is one that the named bands do without."""
        with self.open(None) as raster:
            for number in self._unjudged:
                between, masks = self._mask_values(raster, number)
                if number == self._alpha and between > _BETWEEN:
                    raise self._unusable(
                        f"its band {number} is labelled alpha and is no mask: of its values above 0, "
                        f"{between:.0%} are below {self._top}, as in a near-infrared band",
                        _NAME_BANDS,
                    )
                if number != self._alpha and masks and between <= _BETWEEN:
                    raise self._unusable(
                        f"its band {number} is labelled alpha and masks pixels, "
                        f"and bands {self._colours} do without it",
                        f"remove bands from [[tiles]], or make the alpha a mask with gdal_translate -mask {number}",
                    )

    def _mask_values(self, raster: Any, band: int) -> tuple[float, bool]:
        """(share of values below the maximum among those above 0, whether it has both 0 and the maximum) of a band."""
        zero = above = full = 0
        for block in self._blocks(raster, band):
            zero += int(np.count_nonzero(block == 0))
            above += int(np.count_nonzero(block > 0))
            full += int(np.count_nonzero(block >= self._top))
        return (above - full) / max(above, 1), bool(zero and full)

    def _blocks(self, raster: Any, band: int) -> Iterator[NDArray[Any]]:
        """A sample of the blocks of a band, spread evenly: a raster may have terabytes."""
        height, width = raster.block_shapes[band - 1]
        side = max(1, min(_BLOCKS, math.isqrt(_SAMPLE // (height * width))))
        rows, columns = (
            np.unique(((np.arange(side) + 0.5) * math.ceil(pixels / block) / side).astype(np.int64)).tolist()
            for pixels, block in ((raster.height, height), (raster.width, width))
        )
        for row in rows:
            for column in columns:
                x, y = column * width, row * height
                window = self._rasterio.windows.Window(
                    x, y, min(width, raster.width - x), min(height, raster.height - y)
                )
                yield raster.read(band, window=window)

    # -- the file

    def _look(self) -> os.stat_result:
        """The state of the file. Raises Invalid unless it begins like a TIFF."""
        with open_regular(self.path, "tile source") as file:
            try:
                state, start = os.fstat(file.fileno()), file.read(4)
            except OSError as error:
                raise self._unreadable(error) from error
        if start not in TIFF:
            raise self._unusable("it does not begin like a TIFF", "give the path of a GeoTIFF")
        return state

    def _check_directories(self) -> None:
        """Raise Invalid for a file with a long chain of directories: GDAL reads all of them when it opens a file."""
        with open_regular(self.path, "tile source") as file:
            try:
                head = file.read(16)
                order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
                big = 43 in head[2:4]
                # (bytes of the number of entries, of an entry, of an offset) in TIFF 6.0 and in BigTIFF
                counting, entry, offset = (8, 20, 8) if big else (2, 12, 4)
                at = int.from_bytes(head[8:16] if big else head[4:8], order)
                for _ in range(MAX_DIRECTORIES):
                    if not at:
                        return
                    count = int.from_bytes(os.pread(file.fileno(), counting, at), order)
                    next_one = at + counting + count * entry
                    if next_one >= _MAX_OFFSET:
                        return  # GDAL reports the damage
                    at = int.from_bytes(os.pread(file.fileno(), offset, next_one), order)
                    if at >= _MAX_OFFSET:
                        return
            except OSError as error:
                raise self._unreadable(error) from error
        raise self._unusable(
            f"it has more than {MAX_DIRECTORIES} images or overviews",
            "copy the one that is the map with gdal_translate",
        )

    def gdal(self) -> AbstractContextManager[None]:
        """A context with the options of GDAL, in which its errors become errors that name the file."""
        return gdal(self.path)

    def _unreadable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"tile source {self.path} cannot be read: {error.strerror}",
            path=str(self.path),
            remedy="check that its disk is mounted and sound",
            errno=error.errno,
        )

    def _unusable(self, why: str, remedy: str) -> Invalid:
        return Invalid(f"{self.path} is not a usable GeoTIFF: {why}", path=str(self.path), remedy=remedy)


class RasterPool:
    """The rasters that are open: at most `MAX_OPEN`, those that were read last. For one thread."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[int, int | None], tuple[Raster, Any]] = OrderedDict()

    def read(
        self, raster: Raster, overview: int | None, column: int, row: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(colours, validity) of a window, as `Raster.read`."""
        key = id(raster), overview
        if key not in self._open:
            while len(self._open) >= MAX_OPEN:
                self._close(next(iter(self._open)))
            self._open[key] = raster, raster.opened(overview)
        self._open.move_to_end(key)
        return raster.read(self._open[key][1], column, row, width, height)

    def close(self) -> None:
        """Close all rasters. A second call does nothing."""
        while self._open:
            self._close(next(iter(self._open)))

    def _close(self, key: tuple[int, int | None]) -> None:
        raster, opened = self._open.pop(key)
        with raster.gdal():
            opened.close()


@contextmanager
def gdal(path: Path) -> Iterator[None]:
    """A context with the options of GDAL, in which its errors become errors that name the file."""
    library = rasterio()
    failures = (library.errors.RasterioError, library._err.CPLE_BaseError, ValueError, ArithmeticError)
    try:
        with library.Env(**_OPTIONS), warnings.catch_warnings():
            # GDAL warns of a raster without coordinates; `Raster` refuses it.
            warnings.simplefilter("ignore")
            yield
    except (MemoryError, library._err.CPLE_OutOfMemoryError) as error:
        raise Unavailable(
            f"{path} needs more memory than the machine has: {error}"[:500],
            path=str(path),
            remedy="omit the low zooms, or use a machine with more memory",
        ) from error
    except failures as error:
        if not os.access(path, os.R_OK):
            raise Unavailable(
                f"{path} cannot be read: {error}"[:500], path=str(path), remedy="make the file readable"
            ) from error
        raise Corrupt(
            f"{path} cannot be read as a GeoTIFF: {error}"[:500],
            path=str(path),
            remedy="check the file with gdalinfo -checksum, and copy it again from its origin",
        ) from error


def rasterio() -> Any:
    """The library. Raises Unavailable if it is not installed."""
    for part in ("crs", "enums", "errors", "_err", "warp", "windows"):
        import_extra(f"rasterio.{part}", "geotiff")
    return import_extra("rasterio", "geotiff")


@cache
def _table(low: int, high: int, signed: bool) -> NDArray[np.uint8]:
    """uint8[65536]: the stretched value of each of 16 bits."""
    values = np.arange(1 << 16, dtype=np.uint16)
    exact = values.view(np.int16 if signed else np.uint16).astype(np.int64)
    span = high - low
    return np.clip(((exact - low) * 510 + span) // (2 * span), 0, 255).astype(np.uint8)


def _whole_pixels(left: float, top: float, right: float, bottom: float) -> tuple[int, int, int, int]:
    """The pixels that lie wholly in a rectangle."""
    return (
        math.ceil(left - _WHOLE),
        math.ceil(top - _WHOLE),
        math.floor(right + _WHOLE),
        math.floor(bottom + _WHOLE),
    )


def _kinds(raster: Any) -> str:
    return ", ".join(kind.name for kind in raster.colorinterp[:8])
