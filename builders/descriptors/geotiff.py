"""A GeoTIFF or COG as a tile source: tiles of the web-mercator grid, cut from it on the fly.

Where the raster is in web mercator and its pixels lie on the grid of a zoom, tiles are its pixels; else they are warped
(bilinear). A tile is given as PNG that is the same bytes on every machine (`png`). A tile of which any pixel is masked,
without data or beyond the raster is not there: half a picture is no tile.

GDAL reads the one file and nothing beside it: no `.aux.xml`, `.ovr`, `.msk` or world file changes a pixel, no path is a
URL or an archive to it, and its cache is bounded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.png import write_png
from builders.descriptors.stamps import Stamp, check_same, identity_of, stamp_of
from builders.descriptors.tiles import CELL_ZOOMS, MAX_ZOOM, Tile, cell_of, check_zoom, tile_id, tile_ids
from builders.descriptors.views import EQUATOR
from builders.extras import import_extra
from store.errors import Corrupt, Invalid, Unavailable

MERCATOR = "EPSG:3857"
HALF = EQUATOR / 2
# Raster pixels that one tile may be made of. A low zoom over a large raster needs overviews.
MAX_SOURCE_PIXELS = 1 << 26
_OPTIONS = {
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_CACHEMAX": 64 << 20,
    "GDAL_TIFF_INTERNAL_MASK": "YES",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
    "GDAL_HTTP_MAX_RETRY": "0",
}
_REMEDY = "gdal_translate -ot Byte -b 1 -b 2 -b 3 makes RGB of 8 bits, -expand rgb of a palette"
# Of a pixel: how far pixels may be from the grid of a zoom and lie on it still.
_ON_GRID = 1e-4


class GeoTiffSource:
    """An open GeoTIFF; a context manager, for one thread. `tile_size` is the side of its tiles in pixels.

    Raises Invalid for a raster that is not 8-bit RGB or grey (with or without alpha) in a known coordinate system,
    Unavailable where it cannot be read or rasterio is not installed, Corrupt where GDAL finds it damaged.
    """

    def __init__(self, path: str | os.PathLike[str], tile_size: int) -> None:
        self.path = Path(path)
        self._rasterio = import_extra("rasterio", "geotiff")
        for part in ("crs", "enums", "errors", "vrt", "windows"):
            import_extra(f"rasterio.{part}", "geotiff")
        self._size = tile_size
        self._stack = ExitStack()
        try:
            self._identity = identity_of(self.path)
            self._stack.enter_context(self._rasterio.Env(**_OPTIONS))
            with self._reading():
                # An absolute path: a name that begins otherwise may be anything to GDAL.
                self._raster = self._stack.enter_context(
                    self._rasterio.open(os.path.realpath(self.path), driver="GTiff", sharing=False)
                )
            self._colours = self._bands()
            self._warped = self._mercator()
        except BaseException:
            self._stack.close()
            raise
        across = self._warped.res[0]  # metres of the map a pixel
        self.native = min(MAX_ZOOM, max(0, round(math.log2(EQUATOR / tile_size / across))))
        self.zooms: tuple[int, int] | None = (0, self.native)
        left, bottom, right, top = self._warped.bounds
        latitude = math.atan(math.sinh((bottom + top) / 2 / (HALF / math.pi)))
        self.resolution_m: float | None = across * math.cos(latitude)
        self._bounds = (left, bottom, right, top)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the raster. Closing twice is fine."""
        self._stack.close()

    def cell(self, cell: Tile, zoom: int) -> Iterator[tuple[int, bytes]]:
        """(tile id, PNG) of every tile of `cell` at `zoom` that lies wholly in the raster, ids ascending; none above
        the zoom whose pixels are nearest to the raster's own."""
        tile_id(cell)  # refuses a cell that does not exist
        check_zoom(zoom)
        depth = zoom - cell.z
        if not 0 <= depth <= CELL_ZOOMS:
            raise Invalid(f"{cell} is not the cell of a tile at zoom {zoom}", tile=str(cell), zoom=zoom)
        if zoom > self.native:
            return
        side = 1 << depth
        steps = np.arange(side, dtype=np.int64)
        columns, rows = np.meshgrid((cell.x << depth) + steps, (cell.y << depth) + steps)
        x, y = columns.ravel(), rows.ravel()
        ids = tile_ids(zoom, x, y)
        for place in np.argsort(ids).tolist():
            data = self._tile(Tile(zoom, int(x[place]), int(y[place])))
            if data is not None:
                yield int(ids[place]), data

    def read(self, tile: Tile) -> bytes | None:
        """The PNG of one tile, None where it is not wholly in the raster."""
        tile_id(tile)  # refuses a tile that does not exist
        cell_of(tile)
        return None if tile.z > self.native else self._tile(tile)

    def stamp(self, cells: Sequence[tuple[Tile, int]]) -> Stamp:
        """The state of the file, whichever cells are asked for. Raises Unavailable where the path names another now."""
        del cells
        check_same(self.path, self._identity)
        return stamp_of([self.path])

    def _tile(self, tile: Tile) -> bytes | None:
        span = EQUATOR / (1 << tile.z)
        left, top = tile.x * span - HALF, HALF - tile.y * span
        slack = span / self._size * _ON_GRID
        west, south, east, north = self._bounds
        if left < west - slack or left + span > east + slack or top - span < south - slack or top > north + slack:
            return None
        across = span / self._warped.res[0]
        if across * across > MAX_SOURCE_PIXELS and not self._raster.overviews(1):
            raise Invalid(
                f"{self.path}: a tile of zoom {tile.z} is made of {across:.0f} x {across:.0f} pixels, too many at once",
                path=str(self.path),
                remedy="add overviews (gdaladdo), or leave out the low zooms",
            )
        pixels, valid = self._pixels(left, top, span)
        if not valid.all():
            return None
        return write_png(np.ascontiguousarray(pixels.transpose(1, 2, 0)))

    def _pixels(self, left: float, top: float, span: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(uint8 [3, size, size], mask uint8 [size, size]) of a square of the map."""
        windows = self._rasterio.windows
        shape = (self._size, self._size)
        with self._reading():
            window = windows.from_bounds(left, top - span, left + span, top, self._warped.transform)
            step = window.width / self._size
            exact = [round(value) for value in (window.col_off, window.row_off, window.width, window.height)]
            off = max(
                abs(a - b)
                for a, b in zip(exact, (window.col_off, window.row_off, window.width, window.height), strict=True)
            )
            if off < _ON_GRID * max(step, 1) and exact[2] == exact[3] == self._size:
                # The raster's own pixels: nothing is resampled.
                window = windows.Window(*exact)
            resampling = self._rasterio.enums.Resampling.bilinear
            bands = self._warped.read(
                self._colours, window=window, out_shape=(len(self._colours), *shape), resampling=resampling
            )
            mask = self._warped.dataset_mask(window=window, out_shape=shape)
        return (bands if len(bands) == 3 else np.repeat(bands, 3, axis=0)), mask

    def _bands(self) -> list[int]:
        """The bands that hold the colours: three, or one of grey."""
        raster, colours = self._raster, self._rasterio.enums.ColorInterp
        kinds = list(raster.colorinterp)
        if raster.crs is None:
            raise self._unusable("it has no coordinate system", "gdal_translate -a_srs gives it one")
        if set(raster.dtypes) != {"uint8"}:
            raise self._unusable(f"its pixels are {', '.join(sorted(set(raster.dtypes)))}, not uint8", _REMEDY)
        if raster.count in (3, 4) and kinds[:3] == [colours.red, colours.green, colours.blue]:
            wanted = [1, 2, 3]
        elif raster.count in (1, 2) and kinds[0] == colours.gray:
            wanted = [1]
        else:
            names = ", ".join(kind.name for kind in kinds[:8])
            raise self._unusable(f"its bands are {names}, not red, green, blue or grey, with or without alpha", _REMEDY)
        if raster.count > len(wanted) and kinds[-1] != colours.alpha:
            raise self._unusable(f"its band {raster.count} is {kinds[-1].name}, not alpha", _REMEDY)
        return wanted

    def _mercator(self) -> Any:
        """The raster in web mercator: itself where it is, north up and with square pixels."""
        raster = self._raster
        transform = raster.transform
        upright = transform.b == transform.d == 0 and transform.e < 0 < transform.a
        square = upright and math.isclose(transform.a, -transform.e, rel_tol=1e-9)
        with self._reading():
            if square and raster.crs == self._rasterio.crs.CRS.from_epsg(3857):
                return raster
            vrt = self._rasterio.vrt.WarpedVRT
            return self._stack.enter_context(
                vrt(
                    raster,
                    crs=MERCATOR,
                    resampling=self._rasterio.enums.Resampling.bilinear,
                    add_alpha=not self._masked(),
                )
            )

    def _masked(self) -> bool:
        """Whether the raster says itself which of its pixels hold: by alpha, or by a value that stands for none."""
        return self._raster.count in (2, 4) or self._raster.nodata is not None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turns what GDAL raises into errors that name the file."""
        errors = self._rasterio.errors
        try:
            yield
        except errors.RasterioIOError as error:
            if not os.path.exists(self.path):
                raise Unavailable(f"{self.path} is gone", path=str(self.path)) from error
            raise self._damaged(error) from error
        except (errors.RasterioError, ValueError, OverflowError, MemoryError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> Corrupt:
        return Corrupt(
            f"{self.path} cannot be read as a GeoTIFF: {error}"[:500],
            path=str(self.path),
            remedy="check it with gdalinfo -checksum and get it again from where it came",
        )

    def _unusable(self, why: str, remedy: str) -> Invalid:
        return Invalid(f"{self.path} is not a usable GeoTIFF: {why}", path=str(self.path), remedy=remedy)
