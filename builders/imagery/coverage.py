"""Which tiles of the area a mission misses, and why: the rules of FORMAT.md 6.5, over arrays. Pure.

What the sources tell (absent, too old, too coarse) is known before anything is built, what is wrong with the bytes of a
tile when somebody decodes it, and that no view shows a tile when all rows are known. A tile has the first reason that
holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.grid.live import find, live, pieces
from builders.grid.tiles import tile_xy
from builders.grid.views import EQUATOR, View
from builders.imagery.inventory import Inventory, Level
from store.format.manifest import PPM, Coverage
from store.format.missing import REASONS, MissingList, Run

# Of each required tile of a level: 0, or 1 + the place of its reason in REASONS.
Codes: TypeAlias = NDArray[np.uint8]
_DAY = 86400
# What only decoding tells.
FAULTS = ("undecodable", "wrong-size", "blank")


def code(reason: str) -> int:
    return REASONS.index(reason) + 1


@dataclass(frozen=True, slots=True)
class Gates:
    """What the mission demands of its tiles. `now` is unix seconds: imagery is as old as it is when it is issued."""

    tile_size: int
    required_ppm: int
    max_age_days: int | None
    min_resolution_mm: int | None
    now: int

    def allows(self, missing: int, tiles: int) -> bool:
        """Whether the policy allows so many of the tiles to be missing; the sum is that of the manifest's own check."""
        return (tiles - missing) * PPM >= self.required_ppm * tiles


@dataclass(frozen=True)
class Shortfall:
    """The codes of each level of an inventory."""

    inventory: Inventory
    codes: tuple[Codes, ...]

    @property
    def missing(self) -> int:
        """How many tiles are missing."""
        return sum(int(np.count_nonzero(codes)) for codes in self.codes)

    def level(self, zoom: int) -> Codes:
        return self.codes[self.inventory.zooms.index(zoom)]

    def ids(self, zoom: int) -> NDArray[np.uint64]:
        """uint64[n], ascending: the ids of the missing tiles of a zoom."""
        return self.inventory.level(zoom).required[self.level(zoom) > 0]

    def reasons(self) -> Mapping[int, str]:
        """Tile id -> reason of every missing tile, ascending."""
        return {
            number: REASONS[value - 1]
            for level, codes in zip(self.inventory.levels, self.codes, strict=True)
            for number, value in zip(level.required[codes > 0].tolist(), codes[codes > 0].tolist(), strict=True)
        }

    def as_list(self) -> MissingList:
        runs: list[Run] = []
        for level, codes in zip(self.inventory.levels, self.codes, strict=True):
            ids, values = level.required[codes > 0], codes[codes > 0]
            if not len(ids):
                continue
            breaks = np.flatnonzero((np.diff(ids) != 1) | (np.diff(values) != 0)) + 1
            for start, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(ids)], strict=True):
                first, reason = int(ids[start]), REASONS[values[start] - 1]
                if runs and runs[-1].reason == reason and runs[-1].first + runs[-1].tiles == first:
                    runs[-1] = Run(runs[-1].first, runs[-1].tiles + end - start, reason)
                else:
                    runs.append(Run(first, end - start, reason))
        return MissingList(tuple(runs))

    def coverage(self, gates: Gates) -> Coverage:
        """What the manifest says of it. The dates are those of the tiles that are not missing."""
        dates = [level.captured[codes == 0] for level, codes in zip(self.inventory.levels, self.codes, strict=True)]
        described = np.concatenate(dates)
        return Coverage(
            digest=self.inventory.digest,
            tiles=self.inventory.tiles,
            missing=self.missing,
            required_ppm=gates.required_ppm,
            zooms=self.inventory.zooms,
            oldest=int(described.min()) if len(described) else 0,
            newest=int(described.max()) if len(described) else 0,
            max_age_days=gates.max_age_days,
            min_resolution_mm=gates.min_resolution_mm,
        )


def shortfall(inventory: Inventory, gates: Gates, faults: Mapping[int, str]) -> Shortfall:
    """What is missing by what the sources tell and by `faults`, tile id -> reason, of tiles that were decoded."""
    return Shortfall(inventory, tuple(_codes(level, gates, faults) for level in inventory.levels))


def _codes(level: Level, gates: Gates, faults: Mapping[int, str]) -> Codes:
    codes = np.zeros(len(level.required), np.uint8)
    # The first reason that holds is set last.
    if gates.min_resolution_mm is not None:
        codes[resolution_mm(level, gates.tile_size) > gates.min_resolution_mm] = code("too-coarse")
    if gates.max_age_days is not None:
        codes[gates.now - level.captured > gates.max_age_days * _DAY] = code("too-old")
    if faults:
        ids = np.fromiter(faults.keys(), np.uint64, len(faults))
        there, places = find(level.required, ids)
        values = np.fromiter((code(reason) for reason in faults.values()), np.uint8, len(faults))
        codes[places[there]] = values[there]
    codes[~level.present] = code("absent" if level.has_zoom else "outside-zooms")
    return codes


def of_list(inventory: Inventory, gates: Gates, listed: MissingList) -> Shortfall | None:
    """The shortfall, if what the list says of the bytes of tiles and of views holds; None where this gives another list
    than that."""
    ids = [np.arange(run.first, run.first + run.tiles, dtype=np.uint64) for run in listed.runs]
    faults = {
        number: run.reason
        for run, tiles in zip(listed.runs, ids, strict=True)
        if run.reason in FAULTS
        for number in tiles.tolist()
    }
    unseen = [tiles for run, tiles in zip(listed.runs, ids, strict=True) if run.reason == "no-view"]
    found = shortfall(inventory, gates, faults)
    codes = []
    for level, had in zip(found.inventory.levels, found.codes, strict=True):
        now = had.copy()
        for tiles in unseen:
            there, places = find(level.required, tiles)
            now[places[there]] = np.where(now[places[there]] == 0, code("no-view"), now[places[there]])
        codes.append(now)
    found = Shortfall(inventory, tuple(codes))
    return found if found.as_list() == listed else None


def resolution_mm(level: Level, tile_size: int) -> NDArray[np.float64]:
    """float64[m]: millimetres on the ground that a pixel of each required tile has in its middle, or that its imagery
    really has, where it is coarser."""
    _, y = tile_xy(level.zoom, level.required)
    latitude = np.arctan(np.sinh(np.pi * (1 - 2 * (y + 0.5) / (1 << level.zoom))))
    metres = EQUATOR * np.cos(latitude) / (1 << level.zoom) / tile_size
    coarsest: NDArray[np.float64] = np.maximum(metres, level.native_m) * 1000
    return coarsest


def with_views(found: Shortfall, sets: Sequence[Mapping[int, tuple[View, NDArray[np.uint64]]]]) -> Shortfall:
    """The shortfall when all rows are known: of each descriptor set, by zoom, its view and the origins of its rows.

    A tile that one set does not show masks the other sets' rows that show it, so that they may lack more: until nothing
    more is missing.
    """
    codes = []
    for level, had in zip(found.inventory.levels, found.codes, strict=True):
        now = had.copy()
        while True:
            before = now.copy()
            for one in sets:
                view, origins = one.get(level.zoom, (View(), np.empty(0, np.uint64)))
                rows = live(level.zoom, view, origins, level.required, level.required[now > 0])
                now[(now == 0) & ~shows(level.zoom, view, rows, level.required)] = code("no-view")
            if (now == before).all():
                break
        codes.append(now)
    return Shortfall(found.inventory, tuple(codes))


def shows(zoom: int, view: View, origins: NDArray[np.uint64], tiles: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """bool[m]: which of the tiles (uint64[m], ascending) some of the views (uint64[n]) shows."""
    shown = np.zeros(len(tiles), bool)
    for part in pieces(view.tiles, origins):
        there, places = find(tiles, view.footprint(zoom, part).ravel())
        shown[places[there]] = True
    return shown
