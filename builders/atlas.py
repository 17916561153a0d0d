"""The map of a published mission as facts for pictures: squares of tiles, cells, footprints. Renders nothing.

A `Grid` has one square for each tile of a zoom, or for each block of tiles where there are too many for a picture. A
square with a missing tile never looks described: it has the first reason of its tiles, in the order of FORMAT.md 6.5.

Law: a grid whose squares are single tiles has as many described squares as the area has described tiles at its zoom,
and its rectangles cover each square of the area once, with its state.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from builders.areas.covering import tiles_of_signed_area
from builders.descriptors.shard import read_shard
from builders.grid.live import live, missing_at
from builders.grid.tiles import Tile, cell_range, rows_and_columns, tile_from_id, tile_xy
from builders.grid.views import View
from builders.recipe import RowRecipe
from store.format.area import LON_MAX, Area
from store.format.entries import Entry
from store.format.missing import REASONS, MissingList
from store.takeoff.mission import Evidence, Opened, VerifiedMission

# The states of a square: outside of the area, described, else 2 + the index of the reason in REASONS.
OUTSIDE, DESCRIBED, MISSING = 0, 1, 2
# The most squares that a picture has, and the most that it has in a row or column.
MOST, LONGEST = 100_000, 2048
# A strip of sample tiles has so many at most, each with a side of so many pixels.
SAMPLES, SAMPLE_SIDE = 8, 96
_CELL = re.compile(r"([0-9]{1,2})-([0-9]{1,8})-([0-9]{1,8})\.safetensors")
_LIMIT = math.radians(85.0511287798066)


def state_of(reason: str) -> int:
    """Return the state of a square whose tiles are missing for this reason."""
    return MISSING + REASONS.index(reason)


class Rectangle(NamedTuple):
    """Squares of one state: the column and row of the first, counted within the grid, and the number of both."""

    state: int
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Grid:
    """The tiles of an area at one zoom. `states` is uint8[rows, columns], row 0 in the north; a square has `side` by
    `side` tiles. `left` and `top` are the column and the row of the first square, in squares from the edge of the
    world. `tiles` and `missing` count the tiles of the area at this zoom."""

    zoom: int
    side: int
    left: int
    top: int
    states: NDArray[np.uint8]
    tiles: int
    missing: int

    @property
    def width(self) -> int:
        return int(self.states.shape[1])

    @property
    def height(self) -> int:
        return int(self.states.shape[0])

    def place(self, latitude: float, longitude: float) -> tuple[float, float]:
        """Return where a point (degrees) lies, in squares from the north-western corner of the grid."""
        angle = max(-_LIMIT, min(_LIMIT, math.radians(latitude)))
        world = (1 << self.zoom) / self.side
        down = (1 - math.asinh(math.tan(angle)) / math.pi) / 2 * world - self.top
        return self._along((longitude + 180) / 360 * world), down

    def place_of(self, tile: Tile) -> tuple[float, float, float]:
        """Return the north-western corner of a tile of any zoom, in squares of this grid, and its side."""
        scale = 2.0 ** (self.zoom - tile.z) / self.side
        return self._along(tile.x * scale), tile.y * scale - self.top, scale

    def _along(self, column: float) -> float:
        """Return a column of the world as one of the grid, across the antimeridian where that is nearer."""
        world = (1 << self.zoom) / self.side
        distance = (column - self.left) % world or (world if column > self.left else 0.0)
        return distance - world if distance > (self.width + world) / 2 else distance

    def rows(self, merged: int) -> list[list[int]]:
        """Return the states row by row, `merged` rows as one: missing before described, described before outside."""
        padded = np.zeros((-(-self.height // merged) * merged, self.width), np.uint8)
        padded[: self.height] = self.states
        parts = padded.reshape(-1, merged, self.width)
        missing = np.where(parts >= MISSING, parts, 255).min(axis=1)
        lines: list[list[int]] = np.where(missing < 255, missing, parts.max(axis=1)).tolist()
        return lines

    def rectangles(self) -> list[Rectangle]:
        """Return the squares of the area as few rectangles: by state, then from north to south."""
        height, width = self.states.shape
        # A border of another state round each row makes every run end.
        padded = np.full((height, width + 2), 255, np.uint8)
        padded[:, 1:-1] = self.states
        rows, starts = np.nonzero(np.diff(padded[:, :-1]))
        states = self.states[rows, starts]
        ends = np.append(starts[1:], width)
        ends[np.append(rows[1:] != rows[:-1], True)] = width
        inside = states != OUTSIDE
        rows, starts, ends, states = rows[inside], starts[inside], ends[inside], states[inside]
        # Equal runs one below the other are one rectangle.
        order = np.lexsort((rows, ends, starts, states))
        rows, starts, ends, states = rows[order], starts[order], ends[order], states[order]
        goes_on = (rows[1:] == rows[:-1] + 1) & (starts[1:] == starts[:-1])
        goes_on &= (ends[1:] == ends[:-1]) & (states[1:] == states[:-1])
        first = np.flatnonzero(np.append(True, ~goes_on)) if len(rows) else np.empty(0, np.int64)
        heights = np.diff(np.append(first, len(rows)))
        found = np.stack([states[first], starts[first], rows[first], ends[first] - starts[first], heights], axis=1)
        found = found[np.lexsort((found[:, 1], found[:, 2], found[:, 0]))]
        return [Rectangle(*row) for row in found.tolist()]


def grid(area: Area, zoom: int, listed: MissingList, *, most: int = MOST, longest: int = LONGEST) -> Grid:
    """Return the grid of an area at a zoom, with at most `most` squares in the area and `longest` in a row or column:
    a square has as many tiles as that takes. Raise Invalid as `tiles_of_signed_area` does."""
    required = tiles_of_signed_area(area, zoom)
    states = _states(required, listed)
    columns, rows = tile_xy(zoom, required)
    _, ranges = rows_and_columns(area.bbox, zoom)
    first = ranges[0].start if area.bbox[0] > area.bbox[2] else int(columns.min())
    step = 0
    while True:
        world = (1 << zoom) >> step
        left, top = first >> step, int(rows.min()) >> step
        x, y = ((columns >> step) - left) % world, (rows >> step) - top
        width, height = int(x.max()) + 1, int(y.max()) + 1
        if max(width, height) <= longest:
            squares = np.zeros((height, width), np.uint8)
            squares[y, x] = DESCRIBED
            for state in range(MISSING + len(REASONS) - 1, DESCRIBED, -1):  # the first reason is set last
                of_state = states == state
                squares[y[of_state], x[of_state]] = state
            if np.count_nonzero(squares) <= most:
                break
        step += 1
    return Grid(zoom, 1 << step, left, top, squares, len(required), int(np.count_nonzero(states != DESCRIBED)))


def _states(required: NDArray[np.uint64], listed: MissingList) -> NDArray[np.uint8]:
    """Return the state of each tile: uint8[n]."""
    states = np.full(len(required), DESCRIBED, np.uint8)
    if listed.runs:
        starts = np.array([run.first for run in listed.runs], np.uint64)
        stops = np.array([run.first + run.tiles for run in listed.runs], np.uint64)
        of_run = np.array([state_of(run.reason) for run in listed.runs], np.uint8)
        places = np.searchsorted(starts, required, "right").astype(np.int64) - 1
        missing = (places >= 0) & (required < stops[places])
        states[missing] = of_run[places[missing]]
    return states


def blocks(zoom: int, ids: NDArray[np.uint64]) -> list[tuple[Tile, int]]:
    """Return tiles of this zoom and lower ones whose descendants are exactly these tiles (uint64[n], ascending), as few
    as possible, each with the number of its descendants."""
    found: list[tuple[Tile, int]] = []
    places = ids.astype(np.int64) - cell_range(Tile(0, 0, 0), zoom)[0]
    for up in range(zoom + 1):
        # Four brothers are neighbours on the curve, and the place of their parent is a fourth of theirs.
        first = np.flatnonzero(places % 4 == 0)
        first = first[first + 3 < len(places)]
        whole = first[places[first + 3] == places[first] + 3] if up < zoom else first[:0]
        parents = places[whole] // 4
        rest = np.delete(places, (whole[:, None] + np.arange(4)).ravel())
        begin = cell_range(Tile(0, 0, 0), zoom - up)[0]
        found += [(tile_from_id(begin + place), 4**up) for place in rest.tolist()]
        places = parents
        if not len(places):
            break
    return found


def described(area: Area, zoom: int, listed: MissingList) -> NDArray[np.uint64]:
    """Return uint64[n], ascending: the tiles of the area that are not missing."""
    required = tiles_of_signed_area(area, zoom)
    tiles: NDArray[np.uint64] = required[_states(required, listed) == DESCRIBED]
    return tiles


class Cell(NamedTuple):
    """A cell with rows of a descriptor set: the tiles of `zoom` in it. `shared` are the other missions that have the
    same shard, ascending."""

    set: str
    zoom: int
    tile: Tile
    rows: int
    entry: str
    shared: tuple[str, ...]


def cells(opened: Opened | VerifiedMission, others: Mapping[str, Opened]) -> list[Cell]:
    """Return the cells of a mission in the order of its entries. `others` are other missions of the store, by id."""
    holders: dict[bytes, list[str]] = {}
    for mission, other in sorted(others.items()):
        for id_ in {bytes(entry.id) for entry in other.table.of_kind("descriptors")}:
            holders.setdefault(id_, []).append(mission)
    found = []
    for entry in opened.table.of_kind("descriptors"):
        named = _cell_of(entry)
        if named is not None:
            found.append(Cell(*named, entry.meta["rows"], entry.name, tuple(holders.get(bytes(entry.id), ()))))
    return found


def _cell_of(entry: Entry) -> tuple[str, int, Tile] | None:
    """Return set, zoom and cell of a shard by its name, as a build gives it; None for a name of another kind."""
    parts = entry.name.split("/")
    match = _CELL.fullmatch(parts[-1])
    if len(parts) != 4 or match is None or not parts[2].isdecimal():
        return None
    cell, zoom = Tile(*map(int, match.groups())), int(parts[2])
    exists = cell.z <= zoom <= 24 and max(cell.x, cell.y) < 1 << cell.z
    return (parts[1], zoom, cell) if exists else None


class Footprint(NamedTuple):
    """The ground that a row of the map shows: `tiles` by `tiles` tiles from the north-western one on."""

    set: str
    origin: Tile
    tiles: int


def footprints(opened: Opened | VerifiedMission, evidence: Evidence, listed: MissingList) -> Iterator[Footprint]:
    """Yield the footprint of each row that a search may return, in the order of the entries. A set whose rows show one
    tile each has none: they would repeat the described tiles.

    Reads every shard of a set with larger views, and one of each other set and zoom. Raise Corrupt for a shard that
    does not say how its rows were made, and as `Evidence.bytes_of` does.
    """
    tiles: dict[int, tuple[NDArray[np.uint64], NDArray[np.uint64]]] = {}
    single: set[tuple[str, int]] = set()
    for entry in opened.table.of_kind("descriptors"):
        named = _cell_of(entry)
        if named is None:
            continue
        set_, zoom, _ = named
        if (set_, zoom) in single:
            continue
        shard = read_shard(evidence.bytes_of(entry.id, entry.size))
        view = View(*RowRecipe.of_metadata(shard.metadata).view)
        if view.tiles == 1:
            single.add((set_, zoom))
            continue
        if zoom not in tiles:
            required = tiles_of_signed_area(opened.manifest.mission.area, zoom)
            tiles[zoom] = required, missing_at(listed, required)
        first, end = cell_range(Tile(0, 0, 0), zoom)
        origins = shard.tiles[(shard.tiles >= first) & (shard.tiles < end)]
        for number in live(zoom, view, origins, *tiles[zoom]).tolist():
            yield Footprint(set_, tile_from_id(number), view.tiles)


def outlines(area: Area) -> list[list[list[tuple[int, int]]]]:
    """Return the polygons of an area, each a list of closed rings of (longitude, latitude) in 1e-7 degree: the outer
    ring counter-clockwise, holes clockwise, nothing across the antimeridian (RFC 7946, 3.1.6 and 3.1.9)."""
    if area.polygons:
        return [[_turned(ring, hole=place > 0) for place, ring in enumerate(rings)] for rings in area.polygons]
    west, south, east, north = area.bbox
    spans = [(west, east)] if west < east else [(west, LON_MAX), (-LON_MAX, east)]
    boxes = [(left, south, right, south, right, north, left, north) for left, right in spans if left != right]
    return [[_turned(box, hole=False)] for box in boxes]


def _turned(ring: tuple[int, ...], *, hole: bool) -> list[tuple[int, int]]:
    points = list(zip(ring[0::2], ring[1::2], strict=True))
    closed = [*points, points[0]]
    twice_area = sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in itertools.pairwise(closed))
    return closed[::-1] if (twice_area < 0) != hole else closed
