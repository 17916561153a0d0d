"""What the tile sources have of a mission's area: every tile of every cell that the area touches, by its hash.

A shard covers its whole cell, also beyond the mission's edge, so that neighbouring missions share it; the inventory
therefore lists whole cells, and beside them which tiles the area itself demands. Where sources overlap, the first
listed wins.
"""

from __future__ import annotations

import calendar
import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from blake3 import blake3

from builders.descriptors.mbtiles import MBTilesSource
from builders.descriptors.tiles import Tile, cell_of, tile_from_id, tiles_of_bbox
from builders.recipe import tile_list
from store.errors import Corrupt
from store.format.ids import DIGEST_SIZE, derive

COVERAGE_CONTEXT = "flightbag 2026 coverage v1"


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A tile source of the mission file."""

    path: Path
    zooms: tuple[int, ...]
    captured: datetime.date

    @property
    def captured_at(self) -> int:
        """The capture date as unix seconds, midnight UTC."""
        return calendar.timegm(self.captured.timetuple())


@dataclass(frozen=True, slots=True)
class CellTiles:
    """A cell at one zoom: (tile id, BLAKE3 of the tile's bytes) of all that the sources have, ascending."""

    zoom: int
    cell: Tile
    tiles: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class Inventory:
    """`cells` by zoom and cell; `required` the ids of the area's tiles over all zooms, ascending; `captured` the dates
    of the sources that the area's tiles came from (unix seconds)."""

    zooms: tuple[int, ...]
    cells: tuple[CellTiles, ...]
    required: tuple[int, ...]
    captured: tuple[int, ...]

    @cached_property
    def hashes(self) -> dict[int, bytes]:
        """Tile id -> hash of every tile of the cells."""
        return dict(item for cell in self.cells for item in cell.tiles)

    @property
    def absent(self) -> tuple[int, ...]:
        """The tiles of the area that no source has."""
        return tuple(number for number in self.required if number not in self.hashes)

    @cached_property
    def digest(self) -> bytes:
        """The coverage digest: over id and hash of each tile of the area, 32 zero bytes for one that is absent."""
        nothing = bytes(DIGEST_SIZE)
        return derive(COVERAGE_CONTEXT, tile_list([(n, self.hashes.get(n, nothing)) for n in self.required]))


class TileSources:
    """The open sources of a mission, as one. For one thread."""

    def __init__(self, specs: Sequence[SourceSpec]) -> None:
        self._stack = ExitStack()
        try:
            self._sources = [(spec, self._stack.enter_context(MBTilesSource(spec.path))) for spec in specs]
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
        """(tile id, bytes, capture date in unix seconds) of every tile of a cell, ids ascending."""
        found: dict[int, tuple[bytes, int]] = {}
        for spec, source in self._sources:
            if zoom in spec.zooms:
                for number, data in source.cell(cell, zoom):
                    found.setdefault(number, (data, spec.captured_at))
        for number in sorted(found):
            yield (number, *found[number])

    def inventory(self, bbox: tuple[int, int, int, int], progress: Callable[[int], None] | None = None) -> Inventory:
        """Reads and hashes every tile of every cell that the area (1e-7 degree) touches."""
        required: list[int] = []
        cells: list[CellTiles] = []
        captured: set[int] = set()
        for zoom in self.zooms:
            wanted = [int(number) for number in tiles_of_bbox(bbox, zoom)]
            inside = set(wanted)
            required += wanted
            for cell in cells_of(wanted):
                tiles = []
                for number, data, date in self.cell(cell, zoom):
                    tiles.append((number, blake3(data).digest()))
                    if number in inside:
                        captured.add(date)
                cells.append(CellTiles(zoom, cell, tuple(tiles)))
                if progress is not None:
                    progress(len(tiles))
        return Inventory(self.zooms, tuple(cells), tuple(required), tuple(sorted(captured)))

    def read_again(self, cell: CellTiles) -> Iterator[tuple[int, bytes]]:
        """(tile id, bytes) of a cell of the inventory. Raises Corrupt where a source is no longer what was hashed."""
        expected = iter(cell.tiles)
        for number, data, _ in self.cell(cell.cell, cell.zoom):
            if next(expected, None) != (number, blake3(data).digest()):
                raise _changed(number)
            yield number, data
        if (left := next(expected, None)) is not None:
            raise _changed(left[0])


def cells_of(tiles: Iterable[int]) -> list[Tile]:
    """The cells of these tiles, each once, in the order of their first tile."""
    seen: dict[Tile, None] = {}
    for number in tiles:
        seen.setdefault(cell_of(tile_from_id(number)))
    return list(seen)


def _changed(number: int) -> Corrupt:
    return Corrupt(
        f"the tile {tile_from_id(number)} changed while the mission was being built",
        remedy="build again when nothing writes to the tile source",
        tile=str(tile_from_id(number)),
    )
