"""A GeoTIFF or COG as a tile source: tiles of the web-mercator grid, cut from the raster on request.

If the raster is in web mercator and its pixels lie on the grid of a zoom, tiles are its pixels. Otherwise they are
warped (bilinear, over all pixels of the raster that a tile covers). A tile is a PNG with the same bytes on every
machine (`png`). The source has the zoom of the raster and the two zooms below; lower zooms need a raster of lower
resolution.

Laws: every tile of the source lies wholly in the raster, and no pixel with any weight in it is masked, without data or
never written; `reach` says how much of a tile lies in the raster, so the source lacks a tile that lies wholly in it
exactly if a pixel of it is masked.

A pixel is masked by the value for no data in all of its colours, by a mask in the file, or by alpha below the maximum.
A band that is labelled alpha is not believed: converters label near infrared so (PlanetaryComputer issue 82), and every
tile would be masked. Of alpha bands that were made with GDAL at five resamplings, no value lay strictly between 0 and
the maximum; of masks with feathered seams, up to 0.4 of the values above 0; of the colours of aerial imagery, all. So a
band of which more than half of the values above 0 lie between is refused as a mask. `bands` names the colours, and then
no other band is a mask.

GDAL reads the pixels of the one file and nothing else: no `.ovr` or world file, no overview, no URL. A mask or a value
for no data that lies beside the file (`.msk`, `.aux.xml`) is refused. Each call to GDAL sets its options, because they
belong to a thread and not to a source.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.extras import import_extra
from builders.files import open_regular
from builders.grid.tiles import CELL_ZOOMS, MAX_ZOOM, Tile, check_zoom, tile_id, tile_ids, tile_xy
from builders.grid.views import EQUATOR
from builders.imagery.png import write_png
from builders.imagery.stamps import SourceStamp, check_same, stamp_of
from store.errors import Corrupt, Invalid, Unavailable

Floats: TypeAlias = NDArray[np.float64]

HALF = EQUATOR / 2
MAX_TILE_SIDE = 2048  # the PNG of a larger tile would exceed MAX_TILE_BYTES
# Zooms below that of the raster: each multiplies the pixels that a tile covers by four.
ZOOMS_BELOW = 2
MAX_WINDOW = 1 << 27  # pixels of the raster that one tile covers
MAX_BLOCK = 1 << 27  # bytes of one block, which GDAL decompresses as a whole
MAX_DIRECTORIES = 256  # images, overviews and masks; GDAL takes time by their square
# The filter reaches half a pixel of the tile beyond its edge, about three pixels of the raster; 16 is a safe bound.
_MARGIN = 16
_STEPS = 64  # points along each side of a tile that are projected into the raster
_OPTIONS = {
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_CACHEMAX": 64 << 20,
    "GTIFF_IMPLICIT_JPEG_OVR": "NO",
    # Otherwise GDAL divides a file of one strip into blocks that have no offset in the file.
    "GDAL_ENABLE_TIFF_SPLIT": "NO",
    "PROJ_NETWORK": "OFF",
}
# TIFF and BigTIFF, of either byte order.
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MAX_OFFSET = 1 << 63
_STATE = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
# Bytes of an .aux.xml that are looked at: it may hold large histograms.
_MAX_AUX = 1 << 20
# Of an alpha band, at most so many blocks along each side are read, and pixels in all.
_BLOCKS, _SAMPLE = 8, 1 << 24
# The greatest share of values below the maximum among those above 0, in a band that is a mask.
_BETWEEN = 0.5
_REMEDY = "make RGB of 8 bits with gdal_translate -ot Byte -b 1 -b 2 -b 3, or from a palette with -expand rgb"
_NAME_BANDS = (
    "name the bands of red, green and blue in [[tiles]], such as bands = [1, 2, 3], "
    "or copy them to a file of their own with gdal_translate -b 1 -b 2 -b 3"
)
_NORTH_UP = "make a raster that is north up in web mercator with gdalwarp -t_srs EPSG:3857"
# The distance from the grid of a zoom, in pixels, up to which pixels count as being on the grid.
_ON_GRID = 1e-4
# Above the coordinates of any projection on earth, in metres or degrees.
_FAR = 1e9


class GeoTiffSource:
    """An open GeoTIFF; a context manager, for one thread. `tile_size` is the side of its tiles in pixels.

    `bands` are the numbers, from 1, of the bands of red, green and blue, or of the one that is grey; None where the
    file labels them. Raises Invalid unless the file is a GeoTIFF of 8-bit RGB or grey (with or without alpha; with
    `bands`, beside any other bands), north up in a known coordinate system; Unavailable if the system cannot read it,
    somebody writes to it, or rasterio is not installed; Corrupt if GDAL reports damage.

    `zooms` are the zooms of its tiles; `resolution_m` is metres on the ground per pixel at the middle of the raster.
    """

    row_order: None = None
    stated: str = ""
    notes: tuple[str, ...] = ()

    def __init__(self, path: str | os.PathLike[str], tile_size: int, bands: tuple[int, ...] | None = None) -> None:
        self.path = Path(path)
        self._size = tile_size
        self._chosen = bands
        if not 1 <= tile_size <= MAX_TILE_SIDE:
            raise self._unusable(
                f"tiles of {tile_size} pixels a side are not supported", f"give a tile_size of 1 to {MAX_TILE_SIDE}"
            )
        self._rasterio = import_extra("rasterio", "geotiff")
        for part in ("crs", "enums", "errors", "_err", "warp", "windows"):
            import_extra(f"rasterio.{part}", "geotiff")
        real = os.path.realpath(self.path)
        if real.startswith("/vsi"):
            raise self._unusable("GDAL reserves paths that begin with /vsi", "move the file to another folder")
        self._opened = self._look()
        self._check_directories()
        with self._gdal():
            self._raster = self._rasterio.open(real, driver="GTiff", sharing=False, GEOREF_SOURCES="INTERNAL")
        try:
            with self._gdal():
                self._inspect()
            # GDAL opens by path and does not expose its descriptor: the path must lead to one file before and after.
            self._check_same()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the raster. A second call does nothing."""
        with self._gdal():
            self._raster.close()

    def cell(self, cell: Tile, zoom: int) -> Iterator[tuple[int, bytes]]:
        """(tile id, PNG) of every tile of `cell` at `zoom` that lies wholly in the raster, ids ascending.

        A zoom outside `zooms` has no tiles.
        """
        tile_id(cell)  # raises Invalid for a cell that does not exist
        check_zoom(zoom)
        depth = zoom - cell.z
        if not 0 <= depth <= CELL_ZOOMS:
            raise Invalid(f"{cell} is not a cell of tiles of zoom {zoom}", tile=str(cell), zoom=zoom)
        steps = np.arange(1 << depth, dtype=np.int64)
        columns, rows = np.meshgrid((cell.x << depth) + steps, (cell.y << depth) + steps)
        x, y = columns.ravel(), rows.ravel()
        ids = tile_ids(zoom, x, y)
        for place in np.argsort(ids).tolist():
            data = self.read(Tile(zoom, int(x[place]), int(y[place])))
            if data is not None:
                yield int(ids[place]), data

    def read(self, tile: Tile) -> bytes | None:
        """The PNG of one tile, None if it is not wholly in the raster or its zoom is outside `zooms`."""
        tile_id(tile)  # raises Invalid for a tile that does not exist
        if not self.zooms[0] <= tile.z <= self.zooms[1]:
            return None
        span = EQUATOR / (1 << tile.z)
        left, top = tile.x * span - HALF, HALF - tile.y * span
        with self._gdal():
            pixels = self._cut(left, top, span)
        return None if pixels is None else write_png(pixels)

    def stamp(self, cells: Sequence[tuple[Tile, int]]) -> SourceStamp:  # noqa: ARG002 - a raster has one stamp
        """The stamp of the file, for any cells.

        Raises Unavailable if the path leads to another file than the open one, or somebody wrote to the file.
        """
        self._check_same()
        return stamp_of([self.path])

    def reach(self, zoom: int, ids: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """uint8[n]: how much of each of these tiles lies in the raster: 0 no pixel, 1 some, 2 all of them."""
        x, y = tile_xy(zoom, ids)
        span = EQUATOR / (1 << zoom)
        left, top = x * span - HALF, HALF - y * span
        west, south, east, north = self._bounds
        # What counts is the middle of a pixel: tiles that only touch the raster have none in it.
        edge = span / self._size / 2
        near = (left + edge < east) & (left + span - edge > west) & (top - edge > south) & (top - span + edge < north)
        reached: NDArray[np.uint8] = near.astype(np.uint8)
        with self._gdal():
            for place in np.flatnonzero(near).tolist():
                corner = float(left[place]), float(top[place])
                if self._exact(*corner, span) is not None or self._around(*corner, span) is not None:
                    reached[place] = 2
                elif not self._has_pixel(*corner, span):
                    reached[place] = 0
        return reached

    # -- cutting

    def _cut(self, left: float, top: float, span: float) -> NDArray[np.uint8] | None:
        """uint8 [size, size, 3] of a square of the map; None if any of its pixels is missing."""
        window = self._exact(left, top, span)
        if window is not None:
            colours, valid = self._read(*window)
            return np.ascontiguousarray(colours.transpose(1, 2, 0)) if valid.all() else None
        window = self._around(left, top, span)
        if window is None:
            return None
        column, row, width, height = window
        if width * height > MAX_WINDOW:
            raise Invalid(
                f"{self.path}: a tile covers {width} x {height} pixels; the limit is {MAX_WINDOW} pixels",
                path=str(self.path),
                remedy="omit the low zooms, or make a raster of lower resolution with gdal_translate -outsize",
            )
        colours, valid = self._read(column, row, width, height)
        origin, t, size = self._rasterio.Affine, self._raster.transform, self._size
        settings = {
            "src_transform": origin(t.a, 0, t.c + column * t.a, 0, t.e, t.f + row * t.e),
            "src_crs": self._raster.crs,
            "dst_transform": origin(span / size, 0, left, 0, -span / size, top),
            "dst_crs": self._mercator,
            "resampling": self._rasterio.enums.Resampling.bilinear,
            "init_dest_nodata": False,
        }
        # The mask is warped as floats that are 0 at valid pixels, so even the smallest weight of a masked pixel shows.
        masked = np.ones((size, size), np.float32)
        self._rasterio.warp.reproject((~valid).astype(np.float32), masked, **settings)
        if masked.any():
            return None
        warped = np.zeros((3, size, size), np.uint8)
        self._rasterio.warp.reproject(colours, warped, **settings)
        return np.ascontiguousarray(warped.transpose(1, 2, 0))

    def _exact(self, left: float, top: float, span: float) -> tuple[int, int, int, int] | None:
        """(column, row, width, height) in the raster if its pixels are those of the tile, else None."""
        t, size = self._raster.transform, self._size
        if self._raster.crs != self._mercator or not math.isclose(span / size, t.a, rel_tol=_ON_GRID / size):
            return None
        column, row = (left - t.c) / t.a, (top - t.f) / t.e
        first = round(column), round(row)
        if max(abs(column - first[0]), abs(row - first[1])) > _ON_GRID:
            return None
        inside = min(first) >= 0 and first[0] + size <= self._raster.width and first[1] + size <= self._raster.height
        return (*first, size, size) if inside else None

    def _around(self, left: float, top: float, span: float) -> tuple[int, int, int, int] | None:
        """(column, row, width, height) of the pixels that a tile covers, with the margin of the filter.

        None if the tile is not wholly in the raster.
        """
        raster = self._raster
        steps = np.linspace(0, span, _STEPS + 1)
        near, far = np.zeros_like(steps), np.full_like(steps, span)
        columns, rows = self._pixels(
            left + np.concatenate([steps, far, steps, near]), top - np.concatenate([near, steps, far, steps])
        )
        if not (np.isfinite(columns).all() and np.isfinite(rows).all()):
            return None
        west, north = float(columns.min()), float(rows.min())
        east, south = float(columns.max()), float(rows.max())
        if min(west, north) < -_ON_GRID or east > raster.width + _ON_GRID or south > raster.height + _ON_GRID:
            return None
        column, row = max(math.floor(west) - _MARGIN, 0), max(math.floor(north) - _MARGIN, 0)
        last = min(math.ceil(east) + _MARGIN, raster.width), min(math.ceil(south) + _MARGIN, raster.height)
        return column, row, last[0] - column, last[1] - row

    def _has_pixel(self, left: float, top: float, span: float) -> bool:
        """Whether the middle of a pixel of a tile lies in the raster; looks at up to 65 x 65 pixels."""
        steps = np.linspace(0.5, self._size - 0.5, min(self._size, _STEPS + 1)) * span / self._size
        x, y = np.meshgrid(left + steps, top - steps)
        columns, rows = self._pixels(x.ravel(), y.ravel())
        inside = (columns >= 0) & (columns <= self._raster.width) & (rows >= 0) & (rows <= self._raster.height)
        return bool(inside.any())

    def _pixels(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """(columns, rows), float64[n], in the raster of points of the map; infinite where its projection has none."""
        t = self._raster.transform
        try:
            x, y = map(np.asarray, self._rasterio.warp.transform(self._mercator, self._raster.crs, x, y))
        except self._rasterio._err.CPLE_BaseError:
            # The projection of the raster does not reach this far. It reaches the raster: `_inspect` projected that.
            return np.full(len(x), np.inf), np.full(len(x), np.inf)
        return (x - t.c) / t.a, (y - t.f) / t.e

    def _read(self, column: int, row: int, width: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(colours, validity) of a window at full resolution: uint8 [3, height, width] and bool [height, width]."""
        window = self._rasterio.windows.Window(column, row, width, height)
        bands: NDArray[np.uint8] = self._raster.read(self._colours, window=window)
        valid = np.ones((height, width), np.bool_)
        # GDAL applies only one of several masks.
        for band in self._masks:
            valid &= self._raster.read_masks(band, window=window) == 255
        if self._alpha is not None:
            valid &= self._raster.read(self._alpha, window=window) == 255
        if self._raster.nodata is not None:
            valid &= (bands != self._raster.nodata).any(axis=0)
        block_height, block_width = self._raster.block_shapes[0]
        for y in range(row // block_height, (row + height - 1) // block_height + 1):
            for x in range(column // block_width, (column + width - 1) // block_width + 1):
                written = (
                    self._raster.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=band) for band in self._colours
                )
                if any(offset is None for offset in written):
                    # The block was never written: GDAL fills it with zeros, which are not imagery.
                    rows = slice(max(y * block_height - row, 0), (y + 1) * block_height - row)
                    columns = slice(max(x * block_width - column, 0), (x + 1) * block_width - column)
                    valid[rows, columns] = False
        return (bands if len(bands) == 3 else np.repeat(bands, 3, axis=0)), valid

    # -- opening

    def _inspect(self) -> None:
        """Check the raster and set its bands, zooms and resolution."""
        raster, t = self._raster, self._raster.transform
        if raster.crs is None:
            raise self._unusable("it has no coordinate system", "add one with gdal_translate -a_srs")
        numbers = (t.a, t.b, t.c, t.d, t.e, t.f, t.c + raster.width * t.a, t.f + raster.height * t.e)
        if not all(math.isfinite(n) and abs(n) < _FAR for n in numbers) or t.b or t.d or not t.e < 0 < t.a:
            raise self._unusable("it is not north up, or its coordinates are not on earth", _NORTH_UP)
        self._check_beside()
        self._check_kind()
        self._colours, self._alpha = self._labelled() if self._chosen is None else self._named(self._chosen)
        flags = self._rasterio.enums.MaskFlags
        # Alpha and the value for no data are read for themselves, so what remains are the masks in the file.
        self._masks = [
            band
            for band in self._colours
            for kinds in [raster.mask_flag_enums[band - 1]]
            if flags.all_valid not in kinds and flags.alpha not in kinds and kinds != [flags.nodata]
        ]
        block = math.prod(raster.block_shapes[0]) * raster.count
        if block > MAX_BLOCK:
            raise self._unusable(
                f"its blocks have up to {block} bytes; the limit is {MAX_BLOCK}",
                "make smaller blocks with gdal_translate -co TILED=YES",
            )
        self._mercator = self._rasterio.crs.CRS.from_epsg(3857)
        self._bounds = self._rasterio.warp.transform_bounds(raster.crs, self._mercator, *raster.bounds)
        west, south, east, north = self._bounds
        across = math.sqrt((east - west) / raster.width * (north - south) / raster.height)
        if not (math.isfinite(across) and 0 < across < EQUATOR):
            raise self._unusable("it lies outside the web-mercator map", _NORTH_UP)
        # The zoom whose pixels are nearest in size to those of the raster; the finer zoom if two are equally near.
        native = min(MAX_ZOOM, max(0, math.floor(math.log2(EQUATOR / self._size / across) + 0.5)))
        self.zooms = max(0, native - ZOOMS_BELOW), native
        self.resolution_m: float | None = across / math.cosh((south + north) / 2 / (HALF / math.pi))

    def _check_kind(self) -> None:
        """Raise Invalid for pixels of more or fewer than 8 bits."""
        raster = self._raster
        bits = {raster.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", "8") for band in raster.indexes}
        if set(raster.dtypes) != {"uint8"} or bits != {"8"}:
            kind = f"{', '.join(sorted(set(raster.dtypes)))} of {', '.join(sorted(bits))} bits"
            raise self._unusable(f"its pixels are {kind}, must be uint8 of 8 bits", _REMEDY)

    def _check_beside(self) -> None:
        """Raise Invalid for a mask or a value for no data that lies beside the file: GDAL is told to read neither."""
        mask, aux = (Path(f"{self.path}{ending}") for ending in (".msk", ".aux.xml"))
        if mask.exists():
            raise self._unusable(
                f"its mask is in another file, {mask.name}",
                f"write one file with gdal_translate --config GDAL_TIFF_INTERNAL_MASK YES, or remove {mask.name}",
            )
        if self._raster.nodata is None and aux.is_file():
            with open_regular(aux, "metadata of the tile source") as file:
                if b"<NoDataValue" in (file.read(_MAX_AUX) or b""):
                    raise self._unusable(
                        f"its value for no data is in another file, {aux.name}",
                        f"write it to the file with gdal_translate -a_nodata, or remove {aux.name}",
                    )

    def _labelled(self) -> tuple[list[int], int | None]:
        """(bands with the colours: three, or one of grey; band of the alpha) as the file labels them."""
        raster, colours = self._raster, self._rasterio.enums.ColorInterp
        kinds = list(raster.colorinterp)
        if raster.count in (3, 4) and kinds[:3] == [colours.red, colours.green, colours.blue]:
            wanted = [1, 2, 3]
        elif raster.count in (1, 2) and kinds[0] == colours.gray:
            wanted = [1]
        else:
            raise self._unusable(
                f"its bands are {self._kinds()}, must be red, green, blue or grey, with or without alpha",
                _REMEDY if colours.palette in kinds else f"{_NAME_BANDS} -ot Byte",
            )
        if raster.count == len(wanted):
            return wanted, None
        if kinds[-1] != colours.alpha:
            raise self._unusable(f"its band {raster.count} is {kinds[-1].name}, must be alpha", _NAME_BANDS)
        between, _ = self._mask_values(raster.count)
        if between > _BETWEEN:
            raise self._unusable(
                f"its band {raster.count} is labelled alpha and is no mask: of its values above 0, "
                f"{between:.0%} are below 255, as in a near-infrared band",
                _NAME_BANDS,
            )
        return wanted, raster.count

    def _named(self, bands: tuple[int, ...]) -> tuple[list[int], None]:
        """(bands with the colours, no alpha) as the caller names them."""
        raster, colours = self._raster, self._rasterio.enums.ColorInterp
        if max(bands) > raster.count:
            raise self._unusable(
                f"it has no band {max(bands)}, its bands are {self._kinds()}", "correct the bands in [[tiles]]"
            )
        # Numbers in a palette or in another colour space are no red, green and blue.
        spaces = range(colours.hue.value, colours.Cr.value + 1)
        if any(kind == colours.palette or kind.value in spaces for kind in raster.colorinterp):
            raise self._unusable(f"its bands are {self._kinds()}, in which none is red, green, blue or grey", _REMEDY)
        for number, kind in enumerate(raster.colorinterp, 1):
            if kind == colours.alpha and number not in bands:
                between, masks = self._mask_values(number)
                if masks and between <= _BETWEEN:
                    raise self._unusable(
                        f"its band {number} is labelled alpha and masks pixels, and bands {list(bands)} do without it",
                        f"remove bands from [[tiles]], or make the alpha a mask with gdal_translate -mask {number}",
                    )
        return list(bands), None

    def _kinds(self) -> str:
        return ", ".join(kind.name for kind in self._raster.colorinterp[:8])

    def _mask_values(self, band: int) -> tuple[float, bool]:
        """(share of values below the maximum among those above 0, whether it has both 0 and the maximum) of a band.

        By a sample of its blocks, spread evenly: a raster may have terabytes.
        """
        raster = self._raster
        height, width = raster.block_shapes[band - 1]
        side = max(1, min(_BLOCKS, math.isqrt(_SAMPLE // (height * width))))
        rows, columns = (
            np.unique(((np.arange(side) + 0.5) * math.ceil(pixels / block) / side).astype(np.int64)).tolist()
            for pixels, block in ((raster.height, height), (raster.width, width))
        )
        counts = np.zeros(256, np.int64)
        for row in rows:
            for column in columns:
                x, y = column * width, row * height
                window = self._rasterio.windows.Window(
                    x, y, min(width, raster.width - x), min(height, raster.height - y)
                )
                counts += np.bincount(raster.read(band, window=window).ravel(), minlength=256)
        above = int(counts[1:].sum())
        return int(counts[1:255].sum()) / max(above, 1), bool(counts[0] and counts[255])

    def _look(self) -> os.stat_result:
        """The state of the file. Raises Invalid unless it begins like a TIFF."""
        with open_regular(self.path, "tile source") as file:
            try:
                state, start = os.fstat(file.fileno()), file.read(4)
            except OSError as error:
                raise self._unreadable(error) from error
        if start not in _TIFF:
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

    def _check_same(self) -> None:
        """Raise Unavailable if the path leads to another file than the open one, or somebody wrote to the file."""
        check_same(self.path, (self._opened.st_dev, self._opened.st_ino))
        now = self._look()
        if any(getattr(now, name) != getattr(self._opened, name) for name in _STATE):
            raise Unavailable(
                f"{self.path} was written to while it was open",
                path=str(self.path),
                remedy="run the command again when nothing writes to the file",
            )

    @contextmanager
    def _gdal(self) -> Iterator[None]:
        """A context with the options of GDAL, in which its errors become errors that name the file."""
        library = self._rasterio
        failures = (library.errors.RasterioError, library._err.CPLE_BaseError, ValueError, ArithmeticError)
        try:
            with library.Env(**_OPTIONS), warnings.catch_warnings():
                # GDAL warns of a raster without coordinates; `_inspect` refuses it.
                warnings.simplefilter("ignore")
                yield
        except (MemoryError, library._err.CPLE_OutOfMemoryError) as error:
            raise Unavailable(
                f"{self.path} needs more memory than the machine has: {error}"[:500],
                path=str(self.path),
                remedy="omit the low zooms, or use a machine with more memory",
            ) from error
        except failures as error:
            if not os.access(self.path, os.R_OK):
                raise Unavailable(
                    f"{self.path} cannot be read: {error}"[:500], path=str(self.path), remedy="make the file readable"
                ) from error
            raise Corrupt(
                f"{self.path} cannot be read as a GeoTIFF: {error}"[:500],
                path=str(self.path),
                remedy="check the file with gdalinfo -checksum, and copy it again from its origin",
            ) from error

    def _unreadable(self, error: OSError) -> Unavailable:
        return Unavailable(
            f"tile source {self.path} cannot be read: {error.strerror}",
            path=str(self.path),
            remedy="check that its disk is mounted and sound",
            errno=error.errno,
        )

    def _unusable(self, why: str, remedy: str) -> Invalid:
        return Invalid(f"{self.path} is not a usable GeoTIFF: {why}", path=str(self.path), remedy=remedy)
