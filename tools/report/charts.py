"""The geometry of the pictures in a report, as values that a template draws as SVG.

A library for charts was looked for. pygal 3 writes a script and a style of its own into each chart, 16 kB for three
bars, also where it is told to write no script: the security policy of the file forbids both. vl-convert brings an
engine for JavaScript, and Matplotlib writes fixed colours, which follow no reader from light to dark. What is drawn
here is three shapes: the squares of a map, bars, and one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from store.format.area import Area
from store.format.manifest import Takeoff
from tools.legend import BY_STATE, SIGNS, Sign

if TYPE_CHECKING:
    from builders.atlas import Cell, Grid, Rectangle

# The pixels that a map is about wide on a screen: a pattern keeps its size there.
_SCREEN = 800
# The most cells that a map outlines.
_CELLS = 4000


class Layer(NamedTuple):
    """The squares of one state: its name, how many tiles or squares, and the outlines as a path."""

    name: str
    sign: Sign
    path: str


class Map(NamedTuple):
    """The map of a zoom, in squares from its north-western corner. `box` is what is to be seen: x, y, width, height.
    `cells` and `shared` are the outlines of cells, of those that only this mission has and of the others."""

    zoom: int
    side: int
    tiles: int
    missing: int
    box: tuple[float, float, float, float]
    pixel: float
    layers: tuple[Layer, ...]
    cells: str
    shared: str
    area: str
    takeoff: tuple[float, float] | None


def map_of(grid: Grid, cells: Iterable[Cell], area: Area, takeoff: Takeoff) -> Map:
    """Return the map of a grid with the cells of its zoom."""
    from builders.atlas import outlines

    by_state: dict[int, list[Rectangle]] = {}
    for one in grid.rectangles():
        by_state.setdefault(one.state, []).append(one)
    layers = tuple(Layer(BY_STATE[state], SIGNS[BY_STATE[state]], _path(found)) for state, found in by_state.items())
    outline: dict[bool, list[str]] = {False: [], True: []}
    for tile, shared in {cell.tile: bool(cell.shared) for cell in cells if cell.zoom == grid.zoom}.items():
        x, y, side = grid.place_of(tile)
        outline[shared].append(f"M{x:g} {y:g}h{side:g}v{side:g}h{-side:g}z")
    if len(outline[False]) + len(outline[True]) > _CELLS:  # they would cover the map, and be most of the file
        outline = {False: [], True: []}
    rings = [ring for rings in outlines(area) for ring in rings]
    border = "".join(
        "M" + "L".join("{:.2f} {:.2f}".format(*grid.place(y / 10**7, x / 10**7)) for x, y in ring[:-1]) + "z"
        for ring in rings
    )
    x, y = grid.place(takeoff.lat / 10**7, takeoff.lon / 10**7)
    margin = max(grid.width, grid.height) * 0.03
    left, top, right, bottom = -margin, -margin, grid.width + margin, grid.height + margin
    # A takeoff outside of the area is to be seen as long as the area is.
    near = -grid.width <= x <= 2 * grid.width and -grid.height <= y <= 2 * grid.height
    if near:
        left, top, right, bottom = (
            min(left, x - margin),
            min(top, y - margin),
            max(right, x + margin),
            max(bottom, y + margin),
        )
    box = (left, top, right - left, bottom - top)
    return Map(
        grid.zoom,
        grid.side,
        grid.tiles,
        grid.missing,
        box,
        max(box[2], box[3]) / _SCREEN,
        layers,
        "".join(outline[False]),
        "".join(outline[True]),
        border,
        (x, y) if near else None,
    )


def _path(rectangles: Sequence[Rectangle]) -> str:
    """Return the path of these rectangles: each begins from the corner of the one before."""
    parts, x, y = [], 0, 0
    for one in rectangles:
        parts.append(f"m{one.x - x} {one.y - y}h{one.width}v{one.height}h-{one.width}z")
        x, y = one.x, one.y
    return "".join(parts)


class Bar(NamedTuple):
    """A bar: where its parts end, from 0 to 100, and where marks are."""

    parts: tuple[float, ...]
    marks: tuple[float, ...] = ()


def bar(values: Sequence[float], whole: float, marks: Sequence[float] = ()) -> Bar:
    """Return the bar of these values, one after the other, of a whole."""
    ends, total = [], 0.0
    for value in values:
        total += value
        ends.append(round(100 * total / whole, 2) if whole else 0.0)
    return Bar(tuple(ends), tuple(round(100 * mark / whole, 2) for mark in marks if whole))


class Line(NamedTuple):
    """A line that rises in steps, in a box of 1000 by 200: its path, and the area below it."""

    path: str
    area: str


def steps(points: Sequence[tuple[int, int]]) -> Line | None:
    """Return the line through points of (time, value), ascending; None for no points or nothing to show."""
    if not points or not max(value for _, value in points):
        return None
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    highest = max(value for _, value in points)
    path, y = "M0 200", 200.0
    for at, value in points:
        x, y = 1000 * (at - first) / (last - first), 200 - 190 * value / highest
        path += f"H{x:.1f}V{y:.1f}"
    path += "H1000"
    return Line(path, f"{path}V200z")
