"""GeoTIFFs as a tile source: tiles of the web-mercator grid, cut on request from one raster or from many (decision 22).

If a raster is in web mercator and its pixels lie on the grid of a zoom, tiles are its pixels. Otherwise they are warped
(bilinear, over all pixels that a tile covers). A tile is a PNG with the same bytes on every machine (`png`). A raster
has its own zoom and the two zooms below, from its full pixels; lower zooms need overviews in the file, which have their
own zoom and the two below. What an overview shows is the word of the file.

Many rasters are one source, in the order in which they are named: where pixels overlap, those of the last one are on
top, as in a VRT of GDAL, and a masked pixel shows those below it. Consecutive rasters whose pixels lie on one grid are
joined before a tile is warped, so tiles over a seam are those of one merged raster. Others are warped one by one; a
pixel over their seam that none has with all its neighbours is made of those that the topmost has, if its middle lies on
one.

Laws: every tile of the source lies wholly in the rasters, and no pixel with any weight in it is masked in all of them,
without data or never written; `reach` says how much of a tile lies in the rasters, so the source lacks a tile that lies
wholly in them exactly if a pixel of it is masked or lies in a gap. At most `raster.MAX_OPEN` files are open.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.grid.tiles import CELL_ZOOMS, MAX_ZOOM, Bounds, Tile, check_zoom, tile_id, tile_ids, tile_xy
from builders.grid.views import EQUATOR
from builders.imagery.mosaic import rasters_at
from builders.imagery.png import write_png
from builders.imagery.raster import HALF, Level, Raster, RasterPool, gdal, rasterio
from builders.imagery.stamps import SourceStamp, Stamper
from store.errors import Invalid

if TYPE_CHECKING:
    from typing_extensions import Self

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

MAX_TILE_SIDE = 2048  # the PNG of a larger tile would exceed MAX_TILE_BYTES
# Zooms below that of the pixels: each multiplies the pixels that a tile covers by four.
ZOOMS_BELOW = 2
MAX_WINDOW = 1 << 27  # pixels of the rasters that one tile covers
# The way from pixels of rasters to those of tiles; another one makes other tiles of the same files.
RECIPE = "bilinear 2"
# The filter reaches half a pixel of the tile beyond its edge, about three pixels of the raster; 16 is a safe bound.
_MARGIN = 16
_STEPS = 64  # points along each side of a tile that are projected into the raster
# The distance from the grid of a zoom, in pixels, up to which pixels count as being on the grid.
_ON_GRID = 1e-4
# The same between two rasters: their numbers are rounded where they are written.
_ONE_GRID = 1e-2


class _Grid(NamedTuple):
    """A projection and a transform that rasters share; `place` is their rank."""

    place: int
    crs: Any
    transform: Any


@dataclass(frozen=True, slots=True)
class _Piece:
    """The pixels of one raster, and where they lie on their grid: `column` and `row` are those of its first pixel."""

    raster: Raster
    level: Level
    grid: _Grid
    column: int
    row: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """First column and row, and those behind the last, on the grid."""
        left, top, right, bottom = self.level.rectangle
        return self.column + left, self.row + top, self.column + right, self.row + bottom


class _Run(NamedTuple):
    """Pieces of one grid, the topmost last, and the outline of a tile there: points, inf where it has none."""

    pieces: tuple[_Piece, ...]
    columns: Floats
    rows: Floats

    @property
    def grid(self) -> _Grid:
        return self.pieces[0].grid


class GeoTiffSource:
    """Open rasters; a context manager, for one thread. `tile_size` is the side of its tiles in pixels.

    `paths` are GeoTIFFs, folders of them, or VRTs: see `mosaic.rasters_at`. `bands` and `stretch` are those of
    `Raster`, which says what raises Invalid, Unavailable and Corrupt.

    `zooms` are the lowest and the highest of its tiles; `resolution_m` is metres on the ground per pixel at the middle
    of the raster, the coarsest of several.
    """

    row_order: None = None
    stated: str = ""
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[Path],
        tile_size: int,
        bands: tuple[int, ...] | None = None,
        stretch: tuple[int, int] | None = None,
    ) -> None:
        self._paths = [Path(paths)] if isinstance(paths, str | os.PathLike) else list(paths)
        self.path = self._paths[0]
        self._size = tile_size
        if not 1 <= tile_size <= MAX_TILE_SIDE:
            raise Invalid(
                f"{self.path}: tiles of {tile_size} pixels a side are not supported",
                path=str(self.path),
                remedy=f"give a tile_size of 1 to {MAX_TILE_SIDE}",
            )
        self._rasterio = rasterio()
        self._mercator = self._rasterio.crs.CRS.from_epsg(3857)
        self._pool = RasterPool()
        self._grids: list[_Grid] = []
        self._rasters = [Raster(one, bands, stretch) for one in rasters_at(self._paths)]
        self._pieces = [self._of_zooms(raster) for raster in self._rasters]
        self._bounds = np.array([raster.bounds for raster in self._rasters])
        zooms = [zoom for pieces in self._pieces for zoom in pieces]
        self.zooms = min(zooms), max(zooms)
        self.resolution_m: float | None = max(raster.resolution_m for raster in self._rasters)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the rasters. A second call does nothing."""
        self._pool.close()

    def cell(self, cell: Tile, zoom: int) -> Iterator[tuple[int, bytes]]:
        """(tile id, PNG) of every tile of `cell` at `zoom` that lies wholly in the rasters, ids ascending.

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
        """The PNG of one tile, None if it is not wholly in the rasters or they have no tiles of its zoom."""
        tile_id(tile)  # raises Invalid for a tile that does not exist
        span = EQUATOR / (1 << tile.z)
        left, top = tile.x * span - HALF, HALF - tile.y * span
        with gdal(self.path):
            runs = self._runs(tile.z, left, top, span)
            pixels = self._cut(runs, left, top, span) if _inside(runs).all() else None
        return None if pixels is None else write_png(pixels)

    def stamp(self, cells: Sequence[tuple[Tile, int]]) -> SourceStamp:  # noqa: ARG002 - rasters have one stamp
        """The stamp of the files, of the folders and VRTs that name them, and of the way from them to tiles.

        Raises Unavailable if a path leads to another file than the one that was inspected, or somebody wrote to it.
        """
        stamper = Stamper()
        versions = self._rasterio.__version__, self._rasterio.__gdal_version__, self._rasterio.__proj_version__
        stamper.text(", ".join((RECIPE, *versions)))
        for path in self._paths:
            stamper.path(path)
        for raster in self._rasters:
            raster.check_same()
            stamper.path(raster.path)
        return stamper.stamp()

    def bounds(self, zoom: int) -> Bounds:  # noqa: ARG002 - rasters have one box
        """The box in which its rasters lie."""
        west, south = self._bounds[:, :2].min(0).tolist()
        east, north = self._bounds[:, 2:].max(0).tolist()
        south, north = (math.degrees(math.atan(math.sinh(edge / HALF * math.pi))) for edge in (south, north))
        return west / HALF * 180, south, east / HALF * 180, north

    def reach(self, zoom: int, ids: NDArray[np.uint64]) -> NDArray[np.uint8]:
        """uint8[n]: how much of each of these tiles lies in the rasters: 0 no pixel, 1 some, 2 all of them."""
        x, y = tile_xy(zoom, ids)
        span = EQUATOR / (1 << zoom)
        left, top = x * span - HALF, HALF - y * span
        # What counts is the middle of a pixel: tiles that only touch a raster have none in it.
        edge = span / self._size / 2
        near = np.zeros(len(ids), np.bool_)
        for west, south, east, north in self._bounds.tolist():
            near |= (
                (left + edge < east) & (left + span - edge > west) & (top - edge > south) & (top - span + edge < north)
            )
        reached: NDArray[np.uint8] = near.astype(np.uint8)
        with gdal(self.path):
            for place in np.flatnonzero(near).tolist():
                corner = float(left[place]), float(top[place])
                runs = self._runs(zoom, *corner, span)
                if runs and _inside(runs).all():
                    reached[place] = 2
                elif not any(self._has_pixel(run, *corner, span) for run in runs):
                    reached[place] = 0
        return reached

    # -- what lies under a tile

    def _of_zooms(self, raster: Raster) -> dict[int, _Piece]:
        """The pixels of a raster that make the tiles of each zoom: the full ones for their own zoom and those below,
        the overviews for zooms below these."""
        pieces: dict[int, _Piece] = {}
        for level in raster.levels:
            # The zoom whose pixels are nearest in size to these; the finer zoom if two are equally near.
            own = math.floor(math.log2(EQUATOR / self._size / level.across) + 0.5)
            own = min(MAX_ZOOM, max(0, own))
            if pieces and own < min(pieces) - 1:
                break  # an overview that leaves zooms out
            piece = self._piece(raster, level)
            for zoom in range(max(0, own - ZOOMS_BELOW), own + 1):
                full = zoom in pieces and pieces[zoom].level.overview is None
                pieces[zoom] = pieces[zoom] if full else piece
        return pieces

    def _piece(self, raster: Raster, level: Level) -> _Piece:
        """The pixels on a grid: that of an earlier raster if they lie on it, or a new one."""
        t, (_, _, right, bottom) = level.transform, level.rectangle
        for grid in self._grids:
            g = grid.transform
            x, y = (t.c - g.c) / g.a, (t.f - g.f) / g.e
            column, row = round(x), round(y)
            off = (
                x - column,
                y - row,
                x - column + right * (t.a / g.a - 1),
                y - row + bottom * (t.e / g.e - 1),
            )
            if max(map(abs, off)) < _ONE_GRID and grid.crs == raster.crs:
                return _Piece(raster, level, grid, column, row)
        grid = _Grid(len(self._grids), raster.crs, t)
        self._grids.append(grid)
        return _Piece(raster, level, grid, 0, 0)

    def _runs(self, zoom: int, left: float, top: float, span: float) -> list[_Run]:
        """The pieces in or near a square of the map, the topmost last, consecutive ones of one grid together."""
        runs: list[_Run] = []
        # A safe bound of the filter's reach, since no pixel is more than two zooms finer than those of the tile.
        margin = _MARGIN * span / self._size
        west, south, east, north = self._bounds.T
        near = (
            (left - margin < east)
            & (left + span + margin > west)
            & (top + margin > south)
            & (top - span - margin < north)
        )
        outlines: dict[int, tuple[Floats, Floats]] = {}
        for place in np.flatnonzero(near).tolist():
            piece = self._pieces[place].get(zoom)
            if piece is None:
                continue
            if runs and runs[-1].grid is piece.grid:
                runs[-1] = runs[-1]._replace(pieces=(*runs[-1].pieces, piece))
                continue
            if piece.grid.place not in outlines:
                outlines[piece.grid.place] = self._outline(piece.grid, left, top, span)
            runs.append(_Run((piece,), *outlines[piece.grid.place]))
        return runs

    def _outline(self, grid: _Grid, left: float, top: float, span: float, inset: float = 0) -> tuple[Floats, Floats]:
        """(columns, rows) on a grid of points along the four sides of a square of the map."""
        steps = np.linspace(inset, span - inset, _STEPS + 1)
        near, far = np.full_like(steps, inset), np.full_like(steps, span - inset)
        return self._pixels(
            grid, left + np.concatenate([steps, far, steps, near]), top - np.concatenate([near, steps, far, steps])
        )

    def _has_pixel(self, run: _Run, left: float, top: float, span: float) -> bool:
        """Whether the middle of a pixel of a tile lies in the rasters; looks at up to 65 x 65 pixels."""
        columns, rows = self._outline(run.grid, left, top, span, span / self._size / 2)
        if _contained(run.pieces, columns, rows, 0).any():
            return True
        boxes = np.array([piece.box for piece in run.pieces])
        over = (columns.max() >= boxes[:, 0]) & (columns.min() <= boxes[:, 2])
        over &= (rows.max() >= boxes[:, 1]) & (rows.min() <= boxes[:, 3])
        if not over.any():
            return False
        steps = np.linspace(0.5, self._size - 0.5, min(self._size, _STEPS + 1)) * span / self._size
        x, y = np.meshgrid(left + steps, top - steps)
        return bool(_contained(run.pieces, *self._pixels(run.grid, x.ravel(), y.ravel()), 0).any())

    def _pixels(self, grid: _Grid, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """(columns, rows), float64[n], on a grid of points of the map; infinite where its projection has none."""
        t = grid.transform
        try:
            x, y = map(np.asarray, self._rasterio.warp.transform(self._mercator, grid.crs, x, y))
        except self._rasterio._err.CPLE_BaseError:
            # The projection does not reach this far. It reaches the raster: `Raster` projected that.
            return np.full(len(x), np.inf), np.full(len(x), np.inf)
        return (x - t.c) / t.a, (y - t.f) / t.e

    # -- cutting

    def _cut(self, runs: list[_Run], left: float, top: float, span: float) -> NDArray[np.uint8] | None:
        """uint8 [size, size, 3] of a square of the map; None if any of its pixels is missing."""
        pixels = np.zeros((self._size, self._size, 3), np.uint8)
        lacking = np.ones((self._size, self._size), np.bool_)
        # Pixels with all their neighbours first; only over a seam of two grids there are others.
        for seam in (False, True) if len(runs) > 1 else (False,):
            for run in reversed(runs):
                cut = self._cut_run(run, left, top, span, seam)
                if cut is not None:
                    colours, there = cut
                    there &= lacking
                    np.copyto(pixels, colours.transpose(1, 2, 0), where=there[:, :, None])
                    lacking &= ~there
                if not lacking.any():
                    return pixels
        return None

    def _cut_run(
        self, run: _Run, left: float, top: float, span: float, seam: bool
    ) -> tuple[NDArray[np.uint8], Bools] | None:
        """(colours uint8 [3, size, size], bool [size, size]: which of these pixels are there) from one grid; None if it
        has nothing of the square. With `seam` a pixel may lack neighbours beyond the edge of the rasters."""
        size = self._size
        window = self._exact(run, left, top, span)
        if window is not None:
            colours, valid, _ = self._read(run, *window)
            return colours, valid
        window = self._around(run)
        if window is None:
            return None
        column, row, width, height = window
        if width * height > MAX_WINDOW:
            raise Invalid(
                f"{run.pieces[-1].raster.path}: a tile covers {width} x {height} pixels; "
                f"the limit is {MAX_WINDOW} pixels",
                path=str(self.path),
                remedy="omit the low zooms, or make a raster of lower resolution with gdal_translate -outsize",
            )
        colours, valid, inside = self._read(run, *window)
        origin, t = self._rasterio.Affine, run.grid.transform
        settings = {
            "src_transform": origin(t.a, 0, t.c + column * t.a, 0, t.e, t.f + row * t.e),
            "src_crs": run.grid.crs,
            "dst_transform": origin(span / size, 0, left, 0, -span / size, top),
            "dst_crs": self._mercator,
            "init_dest_nodata": False,
        }
        reproject, methods = self._rasterio.warp.reproject, self._rasterio.enums.Resampling

        # Masks are warped as floats that are 0 at good pixels, so even the smallest weight of a bad one shows.
        def weight(bad: Bools) -> NDArray[np.float32]:
            warped = np.ones((size, size), np.float32)
            reproject(bad.astype(np.float32), warped, resampling=methods.bilinear, **settings)
            return warped

        if not seam:
            warped = np.zeros((3, size, size), np.uint8)
            reproject(colours, warped, resampling=methods.bilinear, **settings)
            # Most tiles: the square lies within the window, and all of that is imagery.
            far = min(run.columns.min() - column, run.rows.min() - row) >= 1
            far = far and run.columns.max() <= column + width - 1 and run.rows.max() <= row + height - 1
            whole = far and bool(valid.all())
            return warped, np.ones((size, size), np.bool_) if whole else weight(~valid) == 0
        # The weight of what lies beyond the edge is taken away.
        middle = np.zeros((size, size), np.uint8)
        reproject(valid.astype(np.uint8), middle, resampling=methods.nearest, **settings)
        there = (middle == 1) & (weight(inside & ~valid) == 0)
        share = np.clip(1 - weight(~inside), 1e-6, 1)
        sums = np.zeros((3, size, size), np.float32)
        reproject((colours * valid).astype(np.float32), sums, resampling=methods.bilinear, **settings)
        return np.clip(np.floor(sums / share + 0.5), 0, 255).astype(np.uint8), there

    def _exact(self, run: _Run, left: float, top: float, span: float) -> tuple[int, int, int, int] | None:
        """(column, row, width, height) on the grid if its pixels are those of the tile, else None."""
        t, size = run.grid.transform, self._size
        if run.grid.crs != self._mercator or not math.isclose(span / size, t.a, rel_tol=_ON_GRID / size):
            return None
        column, row = (left - t.c) / t.a, (top - t.f) / t.e
        first = round(column), round(row)
        if max(abs(column - first[0]), abs(row - first[1])) > _ON_GRID:
            return None
        return (*first, size, size)

    def _around(self, run: _Run) -> tuple[int, int, int, int] | None:
        """(column, row, width, height) on the grid of what the tile covers of the rasters, with the margin of the
        filter; None if that is nothing."""
        if not (np.isfinite(run.columns).all() and np.isfinite(run.rows).all()):
            return None
        boxes = np.array([piece.box for piece in run.pieces])
        column = max(math.floor(run.columns.min()) - _MARGIN, int(boxes[:, 0].min()))
        row = max(math.floor(run.rows.min()) - _MARGIN, int(boxes[:, 1].min()))
        width = min(math.ceil(run.columns.max()) + _MARGIN, int(boxes[:, 2].max())) - column
        height = min(math.ceil(run.rows.max()) + _MARGIN, int(boxes[:, 3].max())) - row
        return (column, row, width, height) if min(width, height) > 0 else None

    def _read(
        self, run: _Run, column: int, row: int, width: int, height: int
    ) -> tuple[NDArray[np.uint8], Bools, Bools]:
        """(colours, validity, whether a raster reaches it) of a window of the grid: uint8 [3, height, width] and twice
        bool [height, width]."""
        colours = np.zeros((3, height, width), np.uint8)
        valid, inside = np.zeros((2, height, width), np.bool_)
        for piece in run.pieces:
            left, top, right, bottom = piece.box
            left, top = max(left, column), max(top, row)
            right, bottom = min(right, column + width), min(bottom, row + height)
            if left >= right or top >= bottom:
                continue
            pixels, good = self._pool.read(
                piece.raster,
                piece.level.overview,
                left - piece.column,
                top - piece.row,
                right - left,
                bottom - top,
            )
            there = slice(top - row, bottom - row), slice(left - column, right - column)
            np.copyto(colours[:, there[0], there[1]], pixels, where=good)
            valid[there] |= good
            inside[there] = True
        return colours, valid, inside


def _contained(pieces: Sequence[_Piece], columns: Floats, rows: Floats, margin: float) -> Bools:
    """bool[n]: whether each point of a grid lies in one of these pieces."""
    contained = np.zeros(len(columns), np.bool_)
    for piece in pieces:
        left, top, right, bottom = piece.box
        contained |= (
            (columns >= left - margin)
            & (columns <= right + margin)
            & (rows >= top - margin)
            & (rows <= bottom + margin)
        )
    return contained


def _inside(runs: Sequence[_Run]) -> Bools:
    """bool[n]: whether each point of the outline of a tile lies in the rasters."""
    inside = np.zeros(4 * (_STEPS + 1), np.bool_)
    for run in runs:
        inside |= _contained(run.pieces, run.columns, run.rows, _ON_GRID)
    return inside
