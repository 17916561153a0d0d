"""Where the imagery ends short of the area, in words that a planner can act on. Pure.

`gaps` looks at the tiles that no source has: it cuts rows and columns of tiles off the edges of the area, always the
line with the greatest share of absent tiles, until no edge has one. What is cut off is how far the area reaches beyond
the imagery; if nothing absent remains inside, the box that is left is an area without absent tiles.

Law: the tiles of the box that `gaps` names are all present, at every zoom.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from builders.grid.tiles import Bounds, Tile, tile_bounds, tile_xy

Box = tuple[int, int, int, int]
# Of a grid of tiles: a long diagonal corridor has far more of them in its box than in its area.
_MAX_GRID = 1 << 25
# Suggested edges are rounded inwards to this part of a degree, 1e-5: about a metre.
_STEP = 100
_SIDES = ("west", "south", "east", "north")
_METRES = 111_319.49 / 10**7  # of 1e-7 degree on the equator


class Tiles(Protocol):
    """The tiles of the area at a zoom: `required` (uint64[m]), and `present` (bool[m]) those that a source has."""

    @property
    def zoom(self) -> int: ...
    @property
    def required(self) -> NDArray[np.uint64]: ...
    @property
    def present(self) -> NDArray[np.bool_]: ...


class Trimmed(NamedTuple):
    """A zoom after the cuts: the columns and rows that are left (west, north, east, south, the last two exclusive), how
    many lines were cut off each side, and how many absent tiles remain."""

    zoom: int
    left: tuple[int, int, int, int]
    cut: dict[str, int]
    inside: int


def gaps(levels: Sequence[Tiles], bbox: Box) -> tuple[str, ...]:
    """Return sentences on the edges of the area (`bbox`: west, south, east, north in 1e-7 degree) that the imagery does
    not reach; none where no tile is absent, or all are."""
    trimmed = []
    for level in levels:
        if len(level.required) and not level.present.all():
            one = _trimmed(level, bbox)
            if one is None:
                return ()
            trimmed.append(one)
    if not trimmed:
        return ()
    box = _box(trimmed, bbox)
    short = [
        f"{_distance(side, bbox, box)} in the {side} (" + ", ".join(_lines(side, trimmed)) + ")"
        for side in _SIDES
        if _moved(side, trimmed)
    ]
    inside = sum(one.inside for one in trimmed)
    sentences = []
    if short:
        sentences.append(f"the imagery ends short of the area: {'; '.join(short)}")
        if inside == 0:
            edges = (f"{side} = {box[place] / 10**7:.5f}" for place, side in enumerate(_SIDES) if _moved(side, trimmed))
            sentences.append(f"with {', '.join(edges)} as the edge of the area no tile would be absent")
    if inside:
        tiles = "1 absent tile lies" if inside == 1 else f"{inside} absent tiles lie"
        sentences.append(f"{tiles} inside of what the imagery covers: a hole, not an edge")
    return tuple(sentences)


def elsewhere(path: Path, bounds: Bounds, bbox: Box) -> str:
    """Return where a source lies, beside where the area does, and what it looks like if they do not meet."""
    west, south, east, north = (edge / 10**7 for edge in bbox)
    text = f"{path} has imagery at {_place(*bounds)}; the area lies at {_place(west, south, east, north)}"
    turned = {
        "": (west, south, east, north),
        "the source lies in the other hemisphere: check the signs of the latitudes": (west, -north, east, -south),
        "the source lies in the other hemisphere: check the signs of the longitudes": (-east, south, -west, north),
        "both signs of the area look wrong": (-east, -north, -west, -south),
        "latitudes and longitudes of the area look exchanged": (south, west, north, east),
    }
    guess = next((words for words, box in turned.items() if _meet(box, bounds)), "")
    return f"{text}: {guess}" if guess else text


def _place(west: float, south: float, east: float, north: float) -> str:
    return f"lat {south:.4f} to {north:.4f}, lon {west:.4f} to {east:.4f}"


def _meet(one: Bounds, other: Bounds) -> bool:
    (west, south, east, north), (left, bottom, right, top) = one, other
    columns = west <= right and left <= east if west <= east else west <= right or left <= east
    return columns and south <= top and bottom <= north


def _trimmed(level: Tiles, bbox: Box) -> Trimmed | None:
    """Cut the edges off; None for a grid that is too large, and where nothing is left."""
    x, y = tile_xy(level.zoom, level.required)
    if bbox[0] > bbox[2]:  # across the antimeridian: one range of columns
        middle = math.floor((bbox[0] / 10**7 + 180) / 360 * (1 << level.zoom))
        x = np.where(x < middle, x + (1 << level.zoom), x)
    x0, y0 = int(x.min()), int(y.min())
    columns, rows = int(x.max()) - x0 + 1, int(y.max()) - y0 + 1
    if columns * rows > _MAX_GRID:
        return None
    sums: list[NDArray[np.int32]] = []
    for mask in (np.ones(len(x), bool), ~level.present):
        grid = np.zeros((rows + 1, columns + 1), np.int32)
        grid[y[mask] - y0 + 1, x[mask] - x0 + 1] = 1
        sums.append(grid.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32))

    def count(grid: NDArray[np.int32], left: int, top: int, right: int, bottom: int) -> int:
        return int(grid[bottom, right] - grid[top, right] - grid[bottom, left] + grid[top, left])

    def share(*box: int) -> float:
        every, absent = (count(grid, *box) for grid in sums)
        return absent / every if every else 0.0

    west, north, east, south = 0, 0, columns, rows
    cut = dict.fromkeys(_SIDES, 0)
    while west < east and north < south:
        shares = {
            "west": share(west, north, west + 1, south),
            "east": share(east - 1, north, east, south),
            "north": share(west, north, east, north + 1),
            "south": share(west, south - 1, east, south),
        }
        side = max(shares, key=lambda one: shares[one])
        if shares[side] == 0:
            break
        cut[side] += 1
        west, east = west + (side == "west"), east - (side == "east")
        north, south = north + (side == "north"), south - (side == "south")
    else:
        return None
    inside = count(sums[1], west, north, east, south)
    return Trimmed(level.zoom, (x0 + west, y0 + north, x0 + east, y0 + south), cut, inside)


def _box(trimmed: Sequence[Trimmed], bbox: Box) -> Box:
    """Return the box that is left of the area at all zooms, in 1e-7 degree: rounded inwards where an edge was cut."""
    west, south, east, north = bbox
    turn = 360 * 10**7
    if west > east:
        east += turn
    for one in trimmed:
        first, top, last, bottom = one.left
        side = 1 << one.zoom
        if one.cut["west"]:
            west = max(west, _up(first / side * 360 - 180))
        if one.cut["east"]:
            east = min(east, _down(last / side * 360 - 180))
        if one.cut["north"]:
            north = min(north, _down(tile_bounds(Tile(one.zoom, 0, top))[3]))
        if one.cut["south"]:
            south = max(south, _up(tile_bounds(Tile(one.zoom, 0, bottom - 1))[1]))
    half = turn // 2
    return tuple((one + half) % turn - half if abs(one) > half else one for one in (west, south, east, north))  # type: ignore[return-value]


def _up(degrees: float) -> int:
    return math.ceil(degrees * 10**7 / _STEP) * _STEP


def _down(degrees: float) -> int:
    return math.floor(degrees * 10**7 / _STEP) * _STEP


def _moved(side: str, trimmed: Sequence[Trimmed]) -> bool:
    return any(one.cut[side] for one in trimmed)


def _distance(side: str, bbox: Box, box: Box) -> str:
    place = _SIDES.index(side)
    units = abs(box[place] - bbox[place])
    metres = min(units, 360 * 10**7 - units) * _METRES
    if side in ("west", "east"):
        metres *= math.cos(math.radians((bbox[1] + bbox[3]) / 2 / 10**7))
    return f"{metres / 1000:.1f} km" if metres >= 1000 else f"{metres:.0f} m"


def _lines(side: str, trimmed: Sequence[Trimmed]) -> Iterator[str]:
    for one in trimmed:
        if count := one.cut[side]:
            what = "column" if side in ("west", "east") else "row"
            yield f"{count} {what}{'s' if count > 1 else ''} of tiles at zoom {one.zoom}"
