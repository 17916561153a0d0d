"""The command `map`: which tiles of its area a mission describes, in the terminal, as a picture, or for a GIS.

In the terminal a character stands for a block of tiles, twice as many high as wide. It has a letter for each reason,
and on a terminal with colours also a colour: NO_COLOR (no-color.org) and a pipe take the colours away, and nothing
else.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from builders.extras import import_extra
from store.errors import FlightbagError, Invalid
from store.format.manifest import Takeoff
from store.format.missing import REASONS, MissingList
from store.ground.repository import Repository
from store.takeoff.coverage import read_missing
from store.takeoff.mission import Opened
from tools import geojson, keyfiles, render
from tools.arguments import Json, StoreAndMission, store_and
from tools.legend import DESCRIBED, SIGNS, rgb
from tools.outputs import check_output
from tools.parameters import Option
from tools.status import OK, command, print_json, say
from tools.streams import write_controls

if TYPE_CHECKING:
    from builders.atlas import Cell, Grid
    from builders.grid.tiles import Tile
    from builders.onboard.retriever import Located
    from store.takeoff.mission import VerifiedMission

# A picture of a map is about this wide, in pixels; and the least width of a map in a terminal, in characters.
_PIXELS, _LEAST = 1024, 20
_LINES = 40
# The most matches that a picture shows.
_MATCHES = 10
_SIGN_BY_STATE = ("", DESCRIBED, *REASONS)

Output = Annotated[
    Path | None,
    Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write a picture to FILE.png, or all layers to FILE.geojson for a GIS such as QGIS.",
    ),
]


@command
def run(store_and_mission: StoreAndMission, output: Output = None, as_json: Json = False) -> int:
    """Show on a map which tiles of its area a mission describes, and why the others are missing.

    FILE.geojson has layers: area, takeoff, described, missing, cell (with the
    missions that share it) and footprint, the ground that a row of the map shows.

    Example: flightbag map ground north-ridge -o north-ridge.geojson
    """
    import_extra("numpy")
    from builders.atlas import cells

    write = None if output is None else _writer(output)
    store, mission = store_and(store_and_mission, needed=True)
    with Repository.open(store) as repository:
        opened = repository.current(mission or "")
        listed = read_missing(opened, repository.evidence)
        shared = cells(opened, others_of(repository, opened))
        if output is not None and write is not None:
            write(output, repository, opened, listed, shared)
    if as_json:
        print_json(_json(opened, listed, shared) | {"file": None if output is None else str(output)})
    elif output is not None:
        say(f"wrote {output}: {render.covered(opened.manifest.coverage)}")
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 80
        _print(opened, listed, max(_LEAST, columns - 1), colours=_colours())
    return OK


def others_of(repository: Repository, opened: Opened) -> dict[str, Opened]:
    """Return the other missions of the store, by id, without those that do not verify: `ls` and an audit say why."""
    others = {}
    for mission in repository.missions():
        if mission != opened.manifest.mission.id:
            with suppress(FlightbagError):
                others[mission] = repository.current(mission)
    return others


def _writer(output: Path) -> Any:
    """Return what writes a file of this name. Raise Invalid for another name, and for a place where it may not lie."""
    if output.suffix == ".geojson":
        geojson.check_map_path(output)
        return lambda path, repository, opened, listed, shared: geojson.write_map(
            path, opened, repository.evidence, listed, shared
        )
    if output.suffix == ".png":
        import_extra("PIL")
        from builders.painting import MARK

        check_output(output, "-o", MARK)
        return lambda path, _repository, opened, listed, _shared: keyfiles.write_over(path, picture(opened, listed))
    raise Invalid(f"-o {output} is neither a .png nor a .geojson", remedy="give a file with one of these endings")


def _json(opened: Opened, listed: MissingList, shared: Sequence[Cell]) -> dict[str, Any]:
    zooms = [(grid.zoom, grid.tiles, grid.missing) for grid in _grids(opened, listed, 1)]
    return {
        "mission": opened.manifest.mission.id,
        "zooms": [{"zoom": zoom, "tiles": tiles, "missing": missing} for zoom, tiles, missing in zooms],
        "missing": listed.by_reason,
        "cells": [
            {"set": one.set, "zoom": one.zoom, "cell": str(one.tile), "rows": one.rows, "shared": list(one.shared)}
            for one in shared
        ],
    }


def _grids(opened: Opened, listed: MissingList, longest: int) -> Iterator[Grid]:
    from builders.atlas import grid

    for zoom in reversed(opened.manifest.coverage.zooms):
        yield grid(opened.manifest.mission.area, zoom, listed, longest=longest)


def _colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _print(opened: Opened, listed: MissingList, columns: int, *, colours: bool) -> None:
    takeoff = opened.manifest.mission.takeoff
    for grid in _grids(opened, listed, columns):
        say(_title(grid))
        for line in _drawn(grid, takeoff, columns):
            if colours:
                write_controls("".join(_painted(letter) for letter in line).rstrip() + "\n")
            else:
                say("".join(line).rstrip())
    for text in _legend(opened, listed):
        say(text)


def _title(grid: Grid) -> str:
    text = f"zoom {grid.zoom}: {grid.tiles - grid.missing} of {render.many(grid.tiles, 'tile')} described"
    return text if grid.side == 1 else f"{text}, {grid.side} by {grid.side} tiles a square"


def _drawn(grid: Grid, takeoff: Takeoff, columns: int) -> Iterator[list[str]]:
    """Yield the letters of each line. A square of a small map is several characters wide, and half as many lines high;
    of a large one two squares, one below the other, are one character."""
    times = max(0, min(columns // (2 * grid.width), _LINES // grid.height, 4))
    wide, merged, high = (2 * times, 1, times) if times else (1, 2, 1)
    x, y = grid.place(takeoff.lat / 10**7, takeoff.lon / 10**7)
    # In the middle of the characters that stand for its square.
    mark = int(x * wide), int(y * high) if times else int(y / merged)
    for number, states in enumerate(grid.rows(merged)):
        for line in range(number * high, (number + 1) * high):
            letters = [_letter(state) for state in states for _ in range(wide)]
            if mark[1] == line and 0 <= mark[0] < len(letters):
                letters[mark[0]] = "T"
            yield letters


def _letter(state: int) -> str:
    return SIGNS[_SIGN_BY_STATE[state]].letter if state else " "


_COLOUR_BY_LETTER = {sign.letter: sign.colour for sign in SIGNS.values()}


def _painted(letter: str) -> str:
    """Return a letter on the colour of its state. Every colour but that of described tiles is a light one."""
    if letter == " ":
        return letter
    if letter == "T":
        return "\x1b[1;7mT\x1b[0m"
    number = _COLOUR_BY_LETTER[letter]
    ink = f"38;5;{number}" if letter == SIGNS[DESCRIBED].letter else "38;5;16" if number != 25 else "38;5;231"
    return f"\x1b[{ink};48;5;{number}m{letter}\x1b[0m"


def _legend(opened: Opened, listed: MissingList) -> Iterator[str]:
    coverage = opened.manifest.coverage
    rows = [(SIGNS[DESCRIBED].letter, str(coverage.tiles - coverage.missing), DESCRIBED, SIGNS[DESCRIBED].meaning)]
    rows += [
        (SIGNS[reason].letter, str(tiles), reason, SIGNS[reason].meaning) for reason, tiles in listed.by_reason.items()
    ]
    yield from render.table([*rows, ("T", "", "takeoff", render.takeoff(opened.manifest.mission.takeoff))])


def looks() -> Mapping[int, Any]:
    """Return how each state of a square looks in a picture."""
    from builders.painting import Look

    signs = ((state, SIGNS[name]) for state, name in enumerate(_SIGN_BY_STATE) if name)
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
    canvas.paste(squares(one.states, looks(), scale), left, top)
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
    signs = looks()
    maps = []
    for grid in _grids(opened, listed, _PIXELS):
        scale = max(1, min(_PIXELS // max(grid.width, grid.height), 64))
        maps.append((grid, scale, squares(grid.states, signs, scale)))
    rows = [(1, coverage.tiles - coverage.missing), *((2 + REASONS.index(r), n) for r, n in listed.by_reason.items())]
    width = max(420, *(pixels.shape[1] for _, _, pixels in maps)) + 32
    height = 56 + sum(pixels.shape[0] + 40 for _, _, pixels in maps) + 24 * (len(rows) + 1)
    canvas = Canvas(width, height)
    canvas.write(f"{facts.id}, flight {facts.flight}", 16, 16, 20)
    y = 56
    for grid, scale, pixels in maps:
        canvas.write(_title(grid), 16, y)
        canvas.paste(pixels, 16, y + 24)
        across, down = (part * scale for part in grid.place(facts.takeoff.lat / 10**7, facts.takeoff.lon / 10**7))
        if 0 <= across <= pixels.shape[1] and 0 <= down <= pixels.shape[0]:
            canvas.frame((16 + across - 5, y + 24 + down - 5, 16 + across + 5, y + 24 + down + 5))
        y += pixels.shape[0] + 40
    for state, count in rows:
        name = _SIGN_BY_STATE[state]
        canvas.paste(swatch(signs[state], 16), 16, y)
        canvas.write(f"{count} {name}: {SIGNS[name].meaning}", 44, y)
        y += 24
    canvas.write(f"frame: the takeoff, {render.takeoff(facts.takeoff)}", 44, y)
    return canvas.png()
