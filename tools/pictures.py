"""Pictures as PNG: the map of a mission, and a frame beside what a query found.

What stands where is said here, in the colours of the legend; `builders.painting` has the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from store.format.missing import REASONS, MissingList
from store.takeoff.mission import Opened
from tools import render
from tools.legend import BY_STATE, SIGNS, rgb

if TYPE_CHECKING:
    from builders.atlas import Grid
    from builders.grid.tiles import Tile
    from builders.onboard.retriever import Located
    from builders.painting import Look
    from store.takeoff.mission import VerifiedMission

# A map is at most so many pixels wide and high.
_PIXELS = 1024
# The most matches that a picture shows.
_MATCHES = 10


def grids(opened: Opened, listed: MissingList, longest: int = _PIXELS) -> Iterator[Grid]:
    """Yield the grid of each zoom of a mission, the highest first, of at most so many squares in a row."""
    from builders.atlas import grid

    for zoom in reversed(opened.manifest.coverage.zooms):
        yield grid(opened.manifest.mission.area, zoom, listed, longest=longest)


def title(grid: Grid) -> str:
    """Return how much of a zoom is described, and what a square stands for."""
    text = f"zoom {grid.zoom}: {grid.tiles - grid.missing} of {render.many(grid.tiles, 'tile')} described"
    return text if grid.side == 1 else f"{text}, {grid.side} by {grid.side} tiles a square"


def _looks() -> Mapping[int, Look]:
    """Return how each state of a square looks in a picture."""
    from builders.painting import Look

    signs = ((state, SIGNS[name]) for state, name in enumerate(BY_STATE) if name)
    return {state: Look(rgb(sign.ink), rgb(sign.paper), sign.bits) for state, sign in signs}


def located_picture(
    frame: Any, found: Located, mission: VerifiedMission, listed: MissingList, imagery: Mapping[Tile, Any]
) -> bytes:
    """Return as PNG: a frame, uint8[h, w, 3], the map with the matches, best first, and what each match shows, where
    `imagery` has that."""
    from builders.atlas import grid
    from builders.painting import Canvas, squares

    matches = found.matches[:_MATCHES]
    half, small, gap = 480, 180, 16
    zoom = matches[0].tile.z if matches else mission.manifest.coverage.zooms[-1]
    below = small + 76 if imagery else 60
    lines = -(-len(matches) // 5)
    canvas = Canvas(2 * half + 3 * gap, half + 3 * gap + 24 + lines * below)
    canvas.write("the frame", gap, gap)
    canvas.fit(frame, (gap, gap + 24, gap + half, gap + 24 + half))
    one = grid(mission.facts.area, zoom, listed, longest=half)
    scale = max(1, half // max(one.width, one.height))
    left, top = half + 2 * gap, gap + 24
    canvas.write(f"the map of {mission.facts.id} at zoom {zoom}, and the {len(matches)} best matches", left, gap)
    canvas.paste(squares(one.states, _looks(), scale), left, top)
    right, bottom = left + one.width * scale, top + one.height * scale
    # The best one is drawn last, above the others. A view may reach beyond the area.
    for number, match in reversed(list(enumerate(matches, 1))):
        x, y = (part * scale for part in one.place(*match.corner))
        across, down = (part * scale for part in one.place(*match.centre))
        west, north = min(max(left + x, left), right - 3), min(max(top + y, top), bottom - 3)
        east, south = min(left + 2 * across - x, right), min(top + 2 * down - y, bottom)
        canvas.frame((west, north, max(east, west + 3), max(south, north + 3)), 4 if number == 1 else 2)
        canvas.write(str(number), round(west) + 7, round(north) + 5, 18 if number == 1 else 14)
    for number, match in enumerate(matches, 1):
        x, y = gap + (number - 1) % 5 * (small + gap), half + 3 * gap + 24 + (number - 1) // 5 * below
        canvas.write(f"{number}: {match.tile}  {match.score:.4f}", x, y)
        canvas.write("{:.5f}, {:.5f}".format(*match.centre), x, y + 18, 12)
        if match.tile in imagery:
            canvas.fit(imagery[match.tile], (x, y + 40, x + small, y + 40 + small))
    return canvas.png()


def picture(opened: Opened, listed: MissingList) -> bytes:
    """Return the map as PNG: each zoom, the highest first, and what colours and patterns mean."""
    from builders.painting import Canvas, squares, swatch

    facts, coverage = opened.manifest.mission, opened.manifest.coverage
    signs = _looks()
    maps = []
    for grid in grids(opened, listed, _PIXELS):
        scale = max(1, min(_PIXELS // max(grid.width, grid.height), 64))
        maps.append((grid, scale, squares(grid.states, signs, scale)))
    rows = [(1, coverage.tiles - coverage.missing), *((2 + REASONS.index(r), n) for r, n in listed.by_reason.items())]
    width = max(420, *(pixels.shape[1] for _, _, pixels in maps)) + 32
    height = 56 + sum(pixels.shape[0] + 40 for _, _, pixels in maps) + 24 * (len(rows) + 1)
    canvas = Canvas(width, height)
    canvas.write(f"{facts.id}, flight {facts.flight}", 16, 16, 20)
    y = 56
    for grid, scale, pixels in maps:
        canvas.write(title(grid), 16, y)
        canvas.paste(pixels, 16, y + 24)
        across, down = (part * scale for part in grid.place(facts.takeoff.lat / 10**7, facts.takeoff.lon / 10**7))
        if 0 <= across <= pixels.shape[1] and 0 <= down <= pixels.shape[0]:
            canvas.frame((16 + across - 5, y + 24 + down - 5, 16 + across + 5, y + 24 + down + 5))
        y += pixels.shape[0] + 40
    for state, count in rows:
        name = BY_STATE[state]
        canvas.paste(swatch(signs[state], 16), 16, y)
        canvas.write(f"{count} {name}: {SIGNS[name].meaning}", 44, y)
        y += 24
    canvas.write(f"frame: the takeoff, {render.takeoff(facts.takeoff)}", 44, y)
    return canvas.png()
