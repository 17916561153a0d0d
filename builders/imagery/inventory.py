"""What the tile sources have of a mission's area: every tile of every cell that its descriptors need, by its hash.

A shard covers its whole cell, also beyond the mission's edge, so that neighbouring missions share it; the inventory
therefore lists whole cells, and beside them which tiles the area itself demands. Where sources overlap, the first
listed wins.

All that grows with the area is an array: a country has a million tiles.
"""

from __future__ import annotations

import calendar
import datetime
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from builders.grid.live import find
from builders.grid.tiles import CELL_ZOOMS, Tile, cell_range, tile_from_id, tile_ids, tile_xy
from builders.grid.views import View
from builders.imagery.sources import open_source
from builders.imagery.statcache import Found, StatCache
from builders.recipe import tile_list
from store.errors import Corrupt
from store.format.ids import DIGEST_SIZE, derive

COVERAGE_CONTEXT = "flightbag 2026 coverage v1"
WHOLE_WORLD = Tile(0, 0, 0)


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A tile source of the mission file; its `resolution_m` is 0 where nothing is said of it."""

    path: Path
    zooms: tuple[int, ...]
    captured: datetime.date
    footprints: Path | None = None
    resolution_m: float = 0.0

    @property
    def captured_at(self) -> int:
        """The capture date as unix seconds, midnight UTC."""
        return calendar.timegm(self.captured.timetuple())


class Wanted(NamedTuple):
    """What is to be found out of one zoom: the area's tiles, and the cells (ids of their tiles) that are read whole."""

    required: NDArray[np.uint64]
    cells: NDArray[np.uint64]


@dataclass(frozen=True)
class Level:
    """What there is at one zoom. `ids` (uint64[n], ascending) of every tile of the cells, with its hash (uint8[n, 32])
    and the number of its source (uint16[n]); `required` (uint64[m], ascending) the area's tiles. `has_zoom` tells
    whether a source has any tiles of this zoom; `captured` (int64[m], unix seconds) and `native_m` (float64[m], metres
    a pixel, 0 where unknown) are of the required tiles, 0 where there is none."""

    zoom: int
    required: NDArray[np.uint64]
    ids: NDArray[np.uint64]
    hashes: NDArray[np.uint8]
    has_zoom: bool
    captured: NDArray[np.int64]
    native_m: NDArray[np.float64]

    def find(self, wanted: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Of each id: whether it is there, and its place in `ids` if so."""
        return find(self.ids, wanted)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """bool[m]: whether a source has the required tile."""
        return self.find(self.required)[0]

    @cached_property
    def required_hashes(self) -> NDArray[np.uint8]:
        """uint8[m, 32]: of the required tiles, zeros for one that is absent."""
        there, places = self.find(self.required)
        hashes = np.zeros((len(self.required), DIGEST_SIZE), np.uint8)
        hashes[there] = self.hashes[places[there]]
        return hashes


@dataclass(frozen=True)
class Inventory:
    """One level for each zoom, ascending. `fresh` unless it is remembered: then nobody has read the tiles now."""

    levels: tuple[Level, ...]
    fresh: bool

    @property
    def zooms(self) -> tuple[int, ...]:
        return tuple(level.zoom for level in self.levels)

    @property
    def tiles(self) -> int:
        """How many tiles the area has over all zooms."""
        return sum(len(level.required) for level in self.levels)

    def level(self, zoom: int) -> Level:
        return next(level for level in self.levels if level.zoom == zoom)

    @cached_property
    def digest(self) -> bytes:
        """The coverage digest: over id and hash of each tile of the area, 32 zero bytes for one that is absent."""
        return derive(
            COVERAGE_CONTEXT, b"".join(tile_list(level.required, level.required_hashes) for level in self.levels)
        )


class TileSources:
    """The open sources of a mission, as one. For one thread."""

    def __init__(self, specs: Sequence[SourceSpec], tile_size: int, cache: StatCache | None = None) -> None:
        # Before anything is opened: what changes from here on is newer than what will be remembered.
        self._opened = time.time_ns()
        self._cache = cache
        self._tile_size = tile_size
        self._stack = ExitStack()
        try:
            self._sources = [(spec, self._stack.enter_context(open_source(spec.path, tile_size))) for spec in specs]
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
        """(tile id, bytes, number of the source) of every tile of a cell, ids ascending."""
        found: dict[int, tuple[bytes, int]] = {}
        for place, (spec, source) in enumerate(self._sources):
            if zoom in spec.zooms:
                for number, data in source.cell(cell, zoom):
                    found.setdefault(number, (data, place))
        for number in sorted(found):
            yield (number, *found[number])

    def inventory(
        self, wanted: dict[int, Wanted], progress: Callable[[int], None] | None = None, *, remembered: bool = False
    ) -> Inventory:
        """What the sources have of what is wanted, by zoom. Reads and hashes every tile of the cells, unless what was
        read before may be believed (`remembered`) and no file has changed since."""
        request = json.dumps(
            {
                "sources": [[os.path.realpath(spec.path), list(spec.zooms)] for spec, _ in self._sources],
                "tile_size": self._tile_size,
                "cells": [[zoom, blake3(one.cells.tobytes()).hexdigest()] for zoom, one in sorted(wanted.items())],
            }
        ).encode()
        cells = [(tile_from_id(int(cell)), zoom) for zoom, one in sorted(wanted.items()) for cell in one.cells]
        stamps = [source.stamp([(c, z) for c, z in cells if z in s.zooms]) for s, source in self._sources]
        found = self._cache.find(request, stamps) if self._cache is not None and remembered else None
        fresh = found is None
        if found is None:
            found = {zoom: self._read(zoom, one.cells, progress) for zoom, one in sorted(wanted.items())}
            if self._cache is not None:
                again = [source.stamp([(c, z) for c, z in cells if z in s.zooms]) for s, source in self._sources]
                if again == stamps:
                    self._cache.keep(request, self._opened, stamps, found)
        return Inventory(tuple(self._level(zoom, one, found) for zoom, one in sorted(wanted.items())), fresh)

    def _read(
        self, zoom: int, cells: NDArray[np.uint64], progress: Callable[[int], None] | None
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint16]]:
        ids: list[int] = []
        hashes: list[bytes] = []
        sources: list[int] = []
        for cell in cells.tolist():
            before = len(ids)
            for number, data, place in self.cell(tile_from_id(cell), zoom):
                ids.append(number)
                hashes.append(blake3(data).digest())
                sources.append(place)
            if progress is not None:
                progress(len(ids) - before)
        array = np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, DIGEST_SIZE)
        return np.array(ids, np.uint64), array, np.array(sources, np.uint16)

    def _level(self, zoom: int, wanted: Wanted, found: Found) -> Level:
        ids, hashes, sources = found[zoom]
        there, places = find(ids, wanted.required)
        captured = np.zeros(len(wanted.required), np.int64)
        native = np.zeros(len(wanted.required), np.float64)
        has_zoom = False
        for place, (spec, source) in enumerate(self._sources):
            if zoom not in spec.zooms:
                continue
            has_zoom |= source.zooms is None or source.zooms[0] <= zoom <= source.zooms[1]
            mine = np.zeros(len(wanted.required), bool)
            mine[there] = sources[places[there]] == place
            native[mine] = max(spec.resolution_m, source.resolution_m or 0.0)
            captured[mine] = spec.captured_at
            if spec.footprints is not None and mine.any():
                from builders.imagery.footprints import read_footprints

                dates = read_footprints(spec.footprints).captured(zoom, wanted.required[mine], spec.captured_at)
                captured[mine] = dates
        return Level(zoom, wanted.required, ids, hashes, has_zoom, captured, native)

    def read_again(self, level: Level, wanted: NDArray[np.uint64]) -> Iterator[tuple[int, bytes]]:
        """(tile id, bytes) of these tiles of the inventory, cell by cell, ids ascending in each. Raises Corrupt where a
        source is no longer what was hashed."""
        there, places = level.find(wanted)
        expected = {
            int(number): level.hashes[at].tobytes() for number, at in zip(wanted[there], places[there], strict=True)
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
    """The ids of the cells of these tiles of one zoom, ascending, each once: a cell's tiles are one range of ids."""
    up = min(zoom, CELL_ZOOMS)
    first, above = (cell_range(WHOLE_WORLD, z)[0] for z in (zoom, zoom - up))
    return np.unique(((tiles - np.uint64(first)) >> np.uint64(2 * up)) + np.uint64(above))


def cells_over(zoom: int, view: View, tiles: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The ids of all cells that hold a tile of some view of a cell that has a view over one of these tiles, and of a
    ring of one tile round those: whatever else is asked, a picture of a view and what is round it can be made, or
    cannot."""
    cells = cells_of(zoom, view.origins_over(zoom, tiles))
    found = [cells]
    for cell in cells.tolist():
        x, y = tile_xy(zoom, view.origins_in_cell(tile_from_id(cell), zoom))
        if not len(x):
            continue
        side = 1 << zoom
        columns = np.arange(x.min() - 1, x.max() + view.tiles + 1) % side
        rows = np.arange(max(y.min() - 1, 0), min(y.max() + view.tiles + 1, side))
        edge = [(columns, rows[:1]), (columns, rows[-1:]), (columns[:1], rows), (columns[-1:], rows)]
        around = [np.meshgrid(a, b) for a, b in edge]
        ids = [tile_ids(zoom, a.ravel(), b.ravel()) for a, b in around]
        found.append(cells_of(zoom, np.concatenate(ids)))
    return np.unique(np.concatenate(found))


def _changed(number: int) -> Corrupt:
    return Corrupt(
        f"the tile {tile_from_id(number)} changed while the mission was being built",
        remedy="build again when nothing writes to the tile source",
        tile=str(tile_from_id(number)),
    )
