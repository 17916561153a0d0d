"""A GeoTIFF or COG as a tile source: tiles of the web-mercator grid, cut from the raster on request.

If the raster is in web mercator and its pixels lie on the grid of a zoom, tiles are its pixels. Otherwise they are
warped (bilinear, over all pixels of the raster that a tile covers). A tile is a PNG with the same bytes on every
machine (`png`). The source has the zoom of the raster and the two zooms below; lower zooms need a raster of lower
resolution.

Law: every tile of the source lies wholly in the raster, and no pixel with any weight in it is masked, without data or
never written. A partial tile is absent.

GDAL reads the pixels of the one file and nothing else: no `.aux.xml`, `.ovr`, `.msk` or world file, no overview, no
URL. Each call to GDAL sets its options, because they belong to a thread and not to a source.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from builders.extras import import_extra
from builders.files import open_regular
from builders.grid.tiles import CELL_ZOOMS, MAX_ZOOM, Tile, check_zoom, tile_id, tile_ids
from builders.grid.views import EQUATOR
from builders.imagery.png import write_png
from builders.imagery.stamps import SourceStamp, check_same, stamp_of
from store.errors import Corrupt, Invalid, Unavailable

HALF = EQUATOR / 2
MAX_TILE_SIDE = 2048  # the PNG of a larger tile would exceed MAX_TILE_BYTES
# Zooms below that of the raster: each multiplies the pixels that a tile covers by four.
ZOOMS_BELOW = 2
MAX_WINDOW = 1 << 27  # pixels of the raster that one tile covers
MAX_BLOCK = 1 << 27  # bytes of one block, which GDAL decompresses as a whole
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
_STATE = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
_REMEDY = "make RGB of 8 bits with gdal_translate -ot Byte -b 1 -b 2 -b 3, or from a palette with -expand rgb"
_NORTH_UP = "make a raster that is north up in web mercator with gdalwarp -t_srs EPSG:3857"
# The distance from the grid of a zoom, in pixels, up to which pixels count as being on the grid.
_ON_GRID = 1e-4
# Above the coordinates of any projection on earth, in metres or degrees.
_FAR = 1e9


class GeoTiffSource:
    """An open GeoTIFF; a context manager, for one thread. `tile_size` is the side of its tiles in pixels.

    Raises Invalid unless the file is a GeoTIFF of 8-bit RGB or grey (with or without alpha), north up in a known
    coordinate system; Unavailable if the system cannot read it, somebody writes to it, or rasterio is not installed;
    Corrupt if GDAL reports damage.

    `zooms` are the zooms of its tiles; `resolution_m` is metres on the ground per pixel at the middle of the raster.
    """

    row_order: None = None

    def __init__(self, path: str | os.PathLike[str], tile_size: int) -> None:
        self.path = Path(path)
        self._size = tile_size
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
        t, raster = self._raster.transform, self._raster
        steps = np.linspace(0, span, _STEPS + 1)
        near, far = np.zeros_like(steps), np.full_like(steps, span)
        x = left + np.concatenate([steps, far, steps, near])
        y = top - np.concatenate([near, steps, far, steps])
        try:
            x, y = map(np.asarray, self._rasterio.warp.transform(self._mercator, raster.crs, x, y))
        except self._rasterio._err.CPLE_BaseError:
            # The projection of the raster does not reach this far. It reaches the raster: `_inspect` projected that.
            return None
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return None
        columns, rows = (x - t.c) / t.a, (y - t.f) / t.e
        west, north = float(columns.min()), float(rows.min())
        east, south = float(columns.max()), float(rows.max())
        if min(west, north) < -_ON_GRID or east > raster.width + _ON_GRID or south > raster.height + _ON_GRID:
            return None
        column, row = max(math.floor(west) - _MARGIN, 0), max(math.floor(north) - _MARGIN, 0)
        last = min(math.ceil(east) + _MARGIN, raster.width), min(math.ceil(south) + _MARGIN, raster.height)
        return column, row, last[0] - column, last[1] - row

    def _read(self, column: int, row: int, width: int, height: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(colours, validity) of a window at full resolution: uint8 [3, height, width] and bool [height, width]."""
        window = self._rasterio.windows.Window(column, row, width, height)
        bands: NDArray[np.uint8] = self._raster.read(self._colours, window=window)
        valid: NDArray[np.bool_] = self._raster.dataset_mask(window=window) == 255
        # GDAL applies only one of several masks.
        if self._raster.count > len(self._colours):
            valid &= self._raster.read(self._raster.count, window=window) == 255
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
        self._colours = self._bands()
        block = math.prod(raster.block_shapes[0]) * raster.count
        if block > MAX_BLOCK:
            raise self._unusable(
                f"its blocks have up to {block} bytes; the limit is {MAX_BLOCK}",
                "make smaller blocks with gdal_translate -co TILED=YES",
            )
        self._mercator = self._rasterio.crs.CRS.from_epsg(3857)
        west, south, east, north = self._rasterio.warp.transform_bounds(raster.crs, self._mercator, *raster.bounds)
        across = math.sqrt((east - west) / raster.width * (north - south) / raster.height)
        if not (math.isfinite(across) and 0 < across < EQUATOR):
            raise self._unusable("it lies outside the web-mercator map", _NORTH_UP)
        # The zoom whose pixels are nearest in size to those of the raster; the finer zoom if two are equally near.
        native = min(MAX_ZOOM, max(0, math.floor(math.log2(EQUATOR / self._size / across) + 0.5)))
        self.zooms = max(0, native - ZOOMS_BELOW), native
        self.resolution_m: float | None = across / math.cosh((south + north) / 2 / (HALF / math.pi))

    def _bands(self) -> list[int]:
        """The bands with the colours: three, or one of grey."""
        raster, colours = self._raster, self._rasterio.enums.ColorInterp
        kinds = list(raster.colorinterp)
        bits = {raster.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", "8") for band in raster.indexes}
        if set(raster.dtypes) != {"uint8"} or bits != {"8"}:
            kind = f"{', '.join(sorted(set(raster.dtypes)))} of {', '.join(sorted(bits))} bits"
            raise self._unusable(f"its pixels are {kind}, must be uint8 of 8 bits", _REMEDY)
        if raster.count in (3, 4) and kinds[:3] == [colours.red, colours.green, colours.blue]:
            wanted = [1, 2, 3]
        elif raster.count in (1, 2) and kinds[0] == colours.gray:
            wanted = [1]
        else:
            names = ", ".join(kind.name for kind in kinds[:8])
            raise self._unusable(
                f"its bands are {names}, must be red, green, blue or grey, with or without alpha", _REMEDY
            )
        if raster.count > len(wanted) and kinds[-1] != colours.alpha:
            raise self._unusable(f"its band {raster.count} is {kinds[-1].name}, must be alpha", _REMEDY)
        return wanted

    def _look(self) -> os.stat_result:
        """The state of the file. Raises Invalid unless it begins like a TIFF."""
        with open_regular(self.path, "tile source") as file:
            try:
                state, start = os.fstat(file.fileno()), file.read(4)
            except OSError as error:
                raise Unavailable(
                    f"tile source {self.path} cannot be read: {error.strerror}",
                    path=str(self.path),
                    remedy="check that its disk is mounted and sound",
                    errno=error.errno,
                ) from error
        if start not in _TIFF:
            raise self._unusable("it does not begin like a TIFF", "give the path of a GeoTIFF")
        return state

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

    def _unusable(self, why: str, remedy: str) -> Invalid:
        return Invalid(f"{self.path} is not a usable GeoTIFF: {why}", path=str(self.path), remedy=remedy)
