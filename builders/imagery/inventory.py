"""The inventory of a mission: id and hash of every tile in every cell that its descriptors need.

A shard covers its whole cell, also beyond the edge of the mission, so that neighbouring missions share it. The
inventory therefore lists whole cells, and the tiles that the area requires beside them. Where sources overlap, the
first source in the mission file wins.

Data that grows with the area is in arrays: a country has a million tiles.
"""

from __future__ import annotations

import calendar
import datetime
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from builders.activity import doing
from builders.grid.live import find
from builders.grid.tiles import CELL_ZOOMS, Tile, cell_range, tile_from_id, tile_ids, tile_xy
from builders.grid.views import View
from builders.imagery.gaps import elsewhere, gaps
from builders.imagery.repetition import Repetition, picture_of, repetition
from builders.imagery.roworder import Extent, Scheme
from builders.imagery.signature import FAULTS, WRONG_SIZE, contradiction, fault_of
from builders.imagery.sources import TileSource, open_source
from builders.imagery.statcache import StatCache, TileHashes, ZoomHashes
from builders.imagery.structure import size_of
from builders.recipe import tile_list
from store.errors import Corrupt, FlightbagError
from store.format.ids import DIGEST_SIZE, derive

if TYPE_CHECKING:
    from typing_extensions import Self

COVERAGE_CONTEXT = "flightbag 2026 coverage v1"
WHOLE_WORLD = Tile(0, 0, 0)
# Why no source of its zoom has a tile (FORMAT.md 6.5). Of several sources, the one that comes nearest to it counts.
LACKS = ("absent", "outside-raster", "partly-outside", "masked")


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A tile source of the mission file. `beside` are the rasters after the first where it lists several as one source.
    `resolution_m` is 0 if the mission file does not give it, `scheme` None if it does not name the order of the rows,
    `bands` None if it does not name the bands of the colours, and `stretch` None if it does not stretch them."""

    path: Path
    zooms: tuple[int, ...]
    captured: datetime.date
    footprints: Path | None = None
    resolution_m: float = 0.0
    scheme: Scheme | None = None
    beside: tuple[Path, ...] = ()
    bands: tuple[int, ...] | None = None
    stretch: tuple[int, int] | None = None

    @property
    def captured_at(self) -> int:
        """The capture date as unix seconds, midnight UTC."""
        return calendar.timegm(self.captured.timetuple())


class LevelRequest(NamedTuple):
    """The request for one zoom: ids of the tiles that the area requires, and ids of the cells to read whole."""

    required: NDArray[np.uint64]
    cells: NDArray[np.uint64]


@dataclass(frozen=True)
class Level:
    """The tiles of one zoom.

    `ids` (uint64[n], ascending) and `hashes` (uint8[n, 32]) are those of every tile in the cells, and `faults`
    (uint8[n]) says of each what its header is if not that of an image of the right size (`signature.FAULTS`).
    `pictures` (uint64[n]) are equal for tiles that show the same picture, and 0 for those that are no image. `required`
    (uint64[m], ascending) are the tiles of the area. `has_zoom` is whether any source has tiles of this zoom.
    `captured` (int64[m], unix seconds) and `native_m` (float64[m], metres a pixel, 0 if unknown) belong to the required
    tiles; both are 0 for an absent tile. `lacks` (uint8[m]) is an index in `LACKS`, and means nothing for a tile that a
    source has.
    """

    zoom: int
    required: NDArray[np.uint64]
    ids: NDArray[np.uint64]
    hashes: NDArray[np.uint8]
    has_zoom: bool
    captured: NDArray[np.int64]
    native_m: NDArray[np.float64]
    faults: NDArray[np.uint8]
    pictures: NDArray[np.uint64]
    lacks: NDArray[np.uint8]

    @cached_property
    def no_image(self) -> dict[int, str]:
        """Tile id -> what is wrong, ids ascending: the required tiles whose first bytes are not those of an image."""
        bad = np.flatnonzero((self.faults > 0) & (self.faults != WRONG_SIZE))
        required = find(self.required, self.ids[bad])[0]
        return {int(self.ids[at]): FAULTS[self.faults[at]] for at in bad[required]}

    @cached_property
    def wrong_size(self) -> NDArray[np.bool_]:
        """bool[m]: whether the required tile is an image of another size than the mission file gives."""
        present, places = self.find(self.required)
        wrong = np.zeros(len(self.required), bool)
        wrong[present] = self.faults[places[present]] == WRONG_SIZE
        return wrong

    def find(self, wanted: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """(bool[k], int64[k]) of k wanted ids: whether each is in `ids`, and its index there."""
        return find(self.ids, wanted)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """bool[m]: whether a source has the required tile."""
        return self.find(self.required)[0]

    @cached_property
    def required_hashes(self) -> NDArray[np.uint8]:
        """uint8[m, 32]: the hashes of the required tiles, zeros for an absent tile."""
        present, places = self.find(self.required)
        hashes = np.zeros((len(self.required), DIGEST_SIZE), np.uint8)
        hashes[present] = self.hashes[places[present]]
        return hashes


@dataclass(frozen=True)
class Inventory:
    """One level for each zoom, ascending. `fresh` is whether the tiles were read now, not taken from the cache.
    `hints` say what is unusual about the sources, and what is perhaps wrong where most tiles are absent; `gaps` where
    the imagery ends short of the area."""

    levels: tuple[Level, ...]
    fresh: bool
    hints: tuple[str, ...] = ()
    gaps: tuple[str, ...] = ()

    @property
    def zooms(self) -> tuple[int, ...]:
        return tuple(level.zoom for level in self.levels)

    @property
    def tiles(self) -> int:
        """The number of tiles that the area requires, over all zooms."""
        return sum(len(level.required) for level in self.levels)

    @cached_property
    def no_image(self) -> dict[int, str]:
        """Tile id -> what is wrong, of each required tile whose first bytes are not those of an image."""
        return {number: text for level in self.levels for number, text in level.no_image.items()}

    def level(self, zoom: int) -> Level:
        return next(level for level in self.levels if level.zoom == zoom)

    @cached_property
    def digest(self) -> bytes:
        """The coverage digest: over id and hash of each tile of the area, with 32 zero bytes for an absent tile."""
        return derive(
            COVERAGE_CONTEXT, b"".join(tile_list(level.required, level.required_hashes) for level in self.levels)
        )

    @cached_property
    def repetition(self) -> Repetition:
        """Which tiles of the area show the picture of another one."""
        pictures = []
        for level in self.levels:
            present, places = level.find(level.required)
            pictures.append(np.zeros(len(level.required), np.uint64))
            pictures[-1][present] = level.pictures[places[present]]
        return repetition(np.concatenate([level.required for level in self.levels]), np.concatenate(pictures))

    @cached_property
    def repeated(self) -> tuple[NDArray[np.bool_], ...]:
        """bool[m] for each level: whether each required tile is repeated."""
        ends = np.cumsum([len(level.required) for level in self.levels])[:-1]
        return tuple(np.split(self.repetition.pictures >= 0, ends))


class TileSources:
    """The open sources of a mission, read like one source. For one thread.

    `bbox` (west, south, east, north in 1e-7 degree) is that of the mission's area.
    """

    def __init__(
        self,
        specs: Sequence[SourceSpec],
        tile_size: int,
        bbox: tuple[int, int, int, int],
        cache: StatCache | None = None,
    ) -> None:
        # Taken before a source is opened: a later change of a file is newer than the cache entry.
        self._opened = time.time_ns()
        self._cache = cache
        self._tile_size = tile_size
        self._bbox = bbox
        self._stack = ExitStack()
        try:
            self._sources: list[tuple[SourceSpec, TileSource]] = []
            for spec in specs:
                with doing(f"opening {spec.path}"):
                    source = open_source(
                        spec.path,
                        tile_size,
                        Extent(bbox, spec.zooms),
                        spec.scheme,
                        beside=spec.beside,
                        bands=spec.bands,
                        stretch=spec.stretch,
                    )
                    self._sources.append((spec, self._stack.enter_context(source)))
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def zooms(self) -> tuple[int, ...]:
        return tuple(sorted({zoom for spec, _ in self._sources for zoom in spec.zooms}))

    def cell(self, cell: Tile, zoom: int) -> Iterator[tuple[int, bytes, int]]:
        """(tile id, bytes, index of the source) of every tile of a cell, ids ascending."""
        tiles: dict[int, tuple[bytes, int]] = {}
        for place, (spec, source) in enumerate(self._sources):
            if zoom in spec.zooms:
                with doing(f"reading cell {cell} of {spec.path}"):
                    for number, data in source.cell(cell, zoom):
                        tiles.setdefault(number, (data, place))
        for number in sorted(tiles):
            yield (number, *tiles[number])

    def inventory(
        self,
        wanted: dict[int, LevelRequest],
        progress: Callable[[int], None] | None = None,
        *,
        remembered: bool = False,
    ) -> Inventory:
        """The inventory of the cells and tiles in `wanted`, by zoom.

        Reads and hashes every tile of the cells. With `remembered`, the ids and hashes may come from the cache, if no
        file of the sources has changed since. `progress` gets the number of tiles of each cell after it is read.
        """
        request = json.dumps(
            {
                "sources": [
                    [
                        [os.path.realpath(path) for path in (spec.path, *spec.beside)],
                        list(spec.zooms),
                        source.row_order and source.row_order.scheme,
                        spec.bands,
                        spec.stretch,
                    ]
                    for spec, source in self._sources
                ],
                "tile_size": self._tile_size,
                "cells": [[zoom, blake3(one.cells.tobytes()).hexdigest()] for zoom, one in sorted(wanted.items())],
            }
        ).encode()
        cells = [(tile_from_id(int(cell)), zoom) for zoom, one in sorted(wanted.items()) for cell in one.cells]
        stamps = [source.stamp([(c, z) for c, z in cells if z in s.zooms]) for s, source in self._sources]
        tiles = self._cache.find(request, stamps) if self._cache is not None and remembered else None
        fresh = tiles is None
        if tiles is None:
            tiles = {zoom: self._read(zoom, one.cells, progress) for zoom, one in sorted(wanted.items())}
            if self._cache is not None:
                again = [source.stamp([(c, z) for c, z in cells if z in s.zooms]) for s, source in self._sources]
                if again == stamps:
                    self._cache.keep(request, self._opened, stamps, tiles)
        levels = tuple(self._level(zoom, one, tiles) for zoom, one in sorted(wanted.items()))
        sourced = [level for level in levels if level.has_zoom]
        lacking = [level.zoom for level in levels if not level.has_zoom]
        hints = (*self._notes(tiles), *self._other_zooms(lacking), *self._elsewhere(sourced))
        return Inventory(levels, fresh, hints, gaps(sourced, self._bbox))

    def _notes(self, tiles: TileHashes) -> Iterator[str]:
        """Yield what is unusual about each source, and what its first tiles contradict."""
        for place, (_, source) in enumerate(self._sources):
            yield from (f"{source.path}: {note}" for note in source.notes)
            of_source = {zoom: (one.ids, one.faults, one.sources == place) for zoom, one in tiles.items()}
            image = _first(
                ids[own & ((faults == 0) | (faults == WRONG_SIZE))] for ids, faults, own in of_source.values()
            )
            if image is not None and source.stated:
                why = contradiction(source.stated, source.read(image) or b"")
                yield from (f"{source.path}: {text}" for text in (why,) if text)
            wrong = _first(ids[own & (faults == WRONG_SIZE)] for ids, faults, own in of_source.values())
            if wrong is not None and (size := size_of(source.read(wrong) or b"")):
                yield _other_size(source.path, *size)

    def _other_zooms(self, lacking: Sequence[int]) -> Iterator[str]:
        """Yield the zooms of each source that is listed for zooms which no source has."""
        for spec, source in self._sources:
            wanted = [zoom for zoom in lacking if zoom in spec.zooms]
            if wanted and source.zooms is not None:
                first, last = source.zooms
                overviews = source.resolution_m is not None and wanted[0] < first
                yield f"{source.path} has the zooms {first} to {last}, not {', '.join(map(str, wanted))}" + (
                    "; overviews in a GeoTIFF (gdaladdo) add lower ones" if overviews else ""
                )

    def _elsewhere(self, levels: Sequence[Level]) -> tuple[str, ...]:
        """What to say of each source where most tiles of these zooms are absent."""
        absent = sum(int(np.count_nonzero(~level.present)) for level in levels)
        if 2 * absent <= sum(len(level.required) for level in levels):
            return ()
        hints = []
        for spec, source in self._sources:
            turned = source.row_order.hint(source.path) if source.row_order is not None else ""
            bounds = None
            if not turned:
                with suppress(FlightbagError):  # damage outside of the area: these tiles are absent all the same
                    bounds = source.bounds(max(spec.zooms))
            hints += [turned or ("" if bounds is None else elsewhere(source.path, bounds, self._bbox))]
        return tuple(hint for hint in hints if hint)

    def _read(self, zoom: int, cells: NDArray[np.uint64], progress: Callable[[int], None] | None) -> ZoomHashes:
        ids: list[int] = []
        hashes: list[bytes] = []
        sources: list[int] = []
        faults: list[int] = []
        pictures: list[int] = []
        for cell in cells.tolist():
            before = len(ids)
            for number, data, place in self.cell(tile_from_id(cell), zoom):
                ids.append(number)
                hashes.append(blake3(data).digest())
                sources.append(place)
                fault = fault_of(data)
                pictures.append(0 if fault else picture_of(data))
                if not fault and size_of(data) not in (None, (self._tile_size, self._tile_size)):
                    fault = WRONG_SIZE
                faults.append(fault)
            if progress is not None:
                progress(len(ids) - before)
        array = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, DIGEST_SIZE)
        return ZoomHashes(
            np.array(ids, np.uint64),
            array,
            np.array(sources, np.uint16),
            np.array(faults, np.uint8),
            np.array(pictures, np.uint64),
        )

    def _level(self, zoom: int, wanted: LevelRequest, tiles: TileHashes) -> Level:
        ids, hashes, sources, faults, pictures = tiles[zoom]
        present, places = find(ids, wanted.required)
        captured = np.zeros(len(wanted.required), np.int64)
        native = np.zeros(len(wanted.required), np.float64)
        lacks = np.zeros(len(wanted.required), np.uint8)
        has_zoom = False
        for place, (spec, source) in enumerate(self._sources):
            if zoom not in spec.zooms:
                continue
            if source.zooms is None or source.zooms[0] <= zoom <= source.zooms[1]:
                has_zoom = True
                if (reach := source.reach(zoom, wanted.required[~present])) is not None:
                    lacks[~present] = np.maximum(lacks[~present], reach + 1)
            of_source = np.zeros(len(wanted.required), bool)
            of_source[present] = sources[places[present]] == place
            native[of_source] = max(spec.resolution_m, source.resolution_m or 0.0)
            captured[of_source] = spec.captured_at
            if spec.footprints is not None and of_source.any():
                from builders.imagery.footprints import read_footprints

                with doing(f"reading {spec.footprints}"):
                    dates = read_footprints(spec.footprints).captured(
                        zoom, wanted.required[of_source], spec.captured_at
                    )
                captured[of_source] = dates
        return Level(zoom, wanted.required, ids, hashes, has_zoom, captured, native, faults, pictures, lacks)

    def read_again(self, level: Level, wanted: NDArray[np.uint64]) -> Iterator[tuple[int, bytes]]:
        """(tile id, bytes) of these tiles of the inventory, cell by cell, ids ascending in each cell.

        Raises Corrupt if a tile no longer has the hash of the inventory.
        """
        present, places = level.find(wanted)
        expected = {
            int(number): level.hashes[at].tobytes() for number, at in zip(wanted[present], places[present], strict=True)
        }
        for cell in cells_of(level.zoom, wanted).tolist():
            for number, data, _ in self.cell(tile_from_id(cell), level.zoom):
                if number in expected:
                    if blake3(data).digest() != expected.pop(number):
                        raise _changed(number)
                    yield number, data
        if expected:
            raise _changed(min(expected))


def cells_of(zoom: int, tiles: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """uint64, ascending, without repeats: the ids of the cells of these tiles, which are of one zoom."""
    up = min(zoom, CELL_ZOOMS)
    first, above = (cell_range(WHOLE_WORLD, z)[0] for z in (zoom, zoom - up))
    return np.unique(((tiles - np.uint64(first)) >> np.uint64(2 * up)) + np.uint64(above))


def cells_over(zoom: int, view: View, tiles: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The ids of the cells from which every view over these tiles, and its surroundings, can be drawn.

    Every cell that has a view over one of the tiles counts with all its views. The result holds the cells of all tiles
    of these views, and of a ring of one tile around them. So whether a picture of a view and its surroundings can be
    drawn depends on the sources and not on the request.
    """
    cells = cells_of(zoom, view.origins_over(zoom, tiles))
    found = [view.origins_in_cell(tile_from_id(cell), zoom) for cell in cells.tolist()]
    origins = [of_cell for of_cell in found if len(of_cell)]
    if not origins:
        return cells
    # One pass over all cells: a country has thousands.
    x, y = tile_xy(zoom, np.concatenate(origins))
    starts = np.cumsum([0, *map(len, origins[:-1])])
    up, side = min(zoom, CELL_ZOOMS), 1 << zoom
    west, north = np.minimum.reduceat(x, starts) - 1, np.maximum(np.minimum.reduceat(y, starts) - 1, 0)
    east = np.maximum.reduceat(x, starts) + view.tiles
    south = np.minimum(np.maximum.reduceat(y, starts) + view.tiles, side - 1)
    around = {
        (column % (side >> up), row)
        for left, top, right, bottom in np.stack([west, north, east, south], axis=1) >> up
        for column in range(left, right + 1)
        for row in range(top, bottom + 1)
    }
    columns, rows = np.array(sorted(around), np.int64).T
    return np.union1d(cells, tile_ids(zoom - up, columns, rows))


def _changed(number: int) -> Corrupt:
    return Corrupt(
        f"tile {tile_from_id(number)} changed while the mission was being built",
        remedy="build again when nothing writes to the tile source",
        tile=str(tile_from_id(number)),
    )


def _first(ids: Iterable[NDArray[np.uint64]]) -> Tile | None:
    """The first tile of arrays of ids; None if all are empty."""
    return next((tile_from_id(int(some[0])) for some in ids if len(some)), None)


def _other_size(path: Path, width: int, height: int) -> str:
    """What is said of a source with tiles of another size than coverage.tile_size."""
    if width == height:
        return f"{path}: it has tiles of {width} x {height} pixels: set coverage.tile_size = {width}"
    return f"{path}: it has tiles of {width} x {height} pixels, must be square"
