"""The command `map`: which tiles of its area a mission describes, in the terminal, as a picture, or for a GIS.

In the terminal a character stands for a block of tiles, twice as many high as wide. It has a letter for each reason,
and on a terminal with colours also a colour: NO_COLOR (no-color.org) and a pipe take the colours away, and nothing
else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from builders.extras import import_extra
from store.errors import FlightbagError, Invalid
from store.format.manifest import Takeoff
from store.format.missing import MissingList
from store.ground.repository import Repository
from store.takeoff.coverage import read_missing
from store.takeoff.mission import Opened
from tools import geojson, keyfiles, lines, render
from tools.arguments import Json, Mission, StoreBeforeName
from tools.legend import BY_STATE, DESCRIBED, SIGNS, WHITE
from tools.outputs import check_output
from tools.parameters import Option
from tools.pictures import grids, picture, title
from tools.status import OK, exits, print_json, say
from tools.streams import write_controls

if TYPE_CHECKING:
    from builders.atlas import Cell, Grid

# The least width of a map, in characters, and the most lines that a small one is enlarged to.
_LINES = 40
# The entries of other missions that a mission, or one another, are compared with: some hundred bytes of memory each.
MOST_COMPARED = 200_000
# Black and white, of 256 colours.
_DARK, _LIGHT = 16, 231

Output = Annotated[
    Path | None,
    Option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write a picture to FILE.png, or all layers to FILE.geojson for a GIS such as QGIS.",
    ),
]


@exits(acts=lambda given: given["output"] is not None)
def run(store: StoreBeforeName, mission: Mission, output: Output = None, as_json: Json = False) -> int:
    """Show on a map which tiles of its area a mission describes, and why the others are missing.

    FILE.geojson has layers: area, takeoff, described, missing, cell (with the
    missions that share it) and footprint, the ground that a row of the map shows.

    Example: flightbag map ground north-ridge -o north-ridge.geojson
    """
    import_extra("numpy")
    from builders.atlas import cells

    if output is not None:
        _check(output)
    with Repository.open(store) as repository:
        opened = repository.current(mission)
        listed = read_missing(opened, repository.evidence)
        others = others_of(repository, opened)
        shared = cells(opened, others.opened)
        if output is not None and output.suffix == ".png":
            keyfiles.write_over(output, picture(opened, listed))
        elif output is not None:
            geojson.write_map(output, opened, repository.evidence, listed, shared)
    if as_json:
        about = {"file": None if output is None else str(output), "not_compared": others.broken + others.unopened}
        print_json(_json(opened, listed, shared) | about)
    elif output is not None:
        say(f"wrote {output}: {render.covered(opened.manifest.coverage)}")
        if output.suffix == ".geojson" and others.unopened:
            say(f"not compared: {render.many(others.unopened, 'other mission')}; the store has too many entries")
    else:
        _print(opened, listed, lines.width() - 1, colours=lines.colours())
    return OK


class Others(NamedTuple):
    """The other missions of a store: by id those that verify (`ls` and an audit say why the others do not), the number
    of those that do not, and of those that were not opened, because too many entries came before."""

    opened: dict[str, Opened]
    broken: int
    unopened: int


def others_of(repository: Repository, opened: Opened) -> Others:
    """Return the other missions of the store of an open one, up to MOST_COMPARED entries of theirs."""
    missions = [mission for mission in repository.missions() if mission != opened.manifest.mission.id]
    others: dict[str, Opened] = {}
    entries = 0
    for number, mission in enumerate(missions):
        if entries >= MOST_COMPARED:
            return Others(others, number - len(others), len(missions) - number)
        with suppress(FlightbagError):
            others[mission] = repository.current(mission)
            entries += len(others[mission].table.entries)
    return Others(others, len(missions) - len(others), 0)


def _check(output: Path) -> None:
    """Raise Invalid for a file of another kind than the two, and for a place where it may not lie; Unavailable where a
    library is not installed."""
    if output.suffix == ".geojson":
        geojson.check_map_path(output)
    elif output.suffix == ".png":
        import_extra("PIL")
        from builders.painting import MARK

        check_output(output, "-o", MARK)
    else:
        raise Invalid(f"-o {output} is neither a .png nor a .geojson", remedy="give a file with one of these endings")


def _json(opened: Opened, listed: MissingList, shared: Sequence[Cell]) -> dict[str, Any]:
    return {
        "mission": opened.manifest.mission.id,
        "zooms": [{"zoom": one.zoom, "tiles": one.tiles, "missing": one.missing} for one in grids(opened, listed)],
        "missing": listed.by_reason,
        "cells": [
            {"set": one.set, "zoom": one.zoom, "cell": str(one.tile), "rows": one.rows, "shared": list(one.shared)}
            for one in shared
        ],
    }


def _print(opened: Opened, listed: MissingList, columns: int, *, colours: bool) -> None:
    takeoff = opened.manifest.mission.takeoff
    for grid in grids(opened, listed, columns):
        say(title(grid))
        for line in _drawn(grid, takeoff, columns):
            if colours:
                write_controls("".join(_painted(letter) for letter in line).rstrip() + "\n")
            else:
                print("".join(line).rstrip())
    for text in _legend(opened, listed):
        say(text)


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
    return SIGNS[BY_STATE[state]].letter if state else " "


_SIGN_BY_LETTER = {sign.letter: sign for sign in SIGNS.values()}


def _painted(letter: str) -> str:
    """Return a letter on the colour of its state; described tiles are plain."""
    if letter == " ":
        return letter
    if letter == "T":
        return "\x1b[1;7mT\x1b[0m"
    sign = _SIGN_BY_LETTER[letter]
    ink = sign.colour if not any(sign.bits) else _LIGHT if sign.ink == WHITE else _DARK
    return f"\x1b[38;5;{ink};48;5;{sign.colour}m{letter}\x1b[0m"


def _legend(opened: Opened, listed: MissingList) -> Iterator[str]:
    coverage = opened.manifest.coverage
    rows = [(SIGNS[DESCRIBED].letter, str(coverage.tiles - coverage.missing), DESCRIBED, SIGNS[DESCRIBED].meaning)]
    rows += [
        (SIGNS[reason].letter, str(tiles), reason, SIGNS[reason].meaning) for reason, tiles in listed.by_reason.items()
    ]
    yield from lines.table([*rows, ("T", "", "takeoff", render.takeoff(opened.manifest.mission.takeoff))])
