"""Coverage: the tiles of the area that a mission misses, each with its reason (FORMAT.md 6.5, decision 0012). Pure.

The reasons become known in three steps. The inventory gives absent, repeated, too old and too coarse tiles before the
build, and those whose header is not that of an image of the right size. Decoding gives other tiles with faulty bytes.
The rows of all descriptor sets give tiles that no view shows. A tile has the first reason that applies, in the order of
FORMAT.md.
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
from builders.imagery.inventory import LACKS, Inventory, Level
from store.format.manifest import PPM, Coverage, earliest_capture
from store.format.missing import REASONS, MissingList, Run

# One for each required tile of a level: 0, or 1 + the index of its reason in REASONS.
Codes: TypeAlias = NDArray[np.uint8]
# The reasons that decoding gives.
FAULTS = ("undecodable", "wrong-size", "transparent", "blank")


def code(reason: str) -> int:
    return REASONS.index(reason) + 1


@dataclass(frozen=True, slots=True)
class Gates:
    """The limits of the mission for its tiles. `now`, in unix seconds, is the time for which ages are computed: that of
    issue. `repeated` is whether a repeated tile counts as described."""

    tile_size: int
    required_ppm: int
    repeated: bool
    max_age_days: int | None
    min_resolution_mm: int | None
    now: int

    def allows(self, missing: int, tiles: int) -> bool:
        """Whether the policy allows `missing` of `tiles` to be missing, by the formula of the check of the manifest."""
        return (tiles - missing) * PPM >= self.required_ppm * tiles


@dataclass(frozen=True)
class Shortfall:
    """The missing tiles of an inventory: the codes of each level."""

    inventory: Inventory
    codes: tuple[Codes, ...]

    @property
    def missing(self) -> int:
        """The number of missing tiles."""
        return sum(int(np.count_nonzero(codes)) for codes in self.codes)

    def level(self, zoom: int) -> Codes:
        return self.codes[self.inventory.zooms.index(zoom)]

    def ids(self, zoom: int) -> NDArray[np.uint64]:
        """uint64[n], ascending: the ids of the missing tiles of a zoom."""
        return self.inventory.level(zoom).required[self.level(zoom) > 0]

    def reasons(self) -> Mapping[int, str]:
        """Tile id -> reason of every missing tile, ids ascending."""
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
        repeated = zip(self.inventory.repeated, self.codes, strict=True)
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
            repeated=sum(int(np.count_nonzero(some & (codes == 0))) for some, codes in repeated) or None,
        )


def shortfall(inventory: Inventory, gates: Gates, faults: Mapping[int, str]) -> Shortfall:
    """The shortfall by the inventory and by `faults`: tile id -> reason, of tiles that were decoded."""
    levels = zip(inventory.levels, inventory.repeated, strict=True)
    return Shortfall(inventory, tuple(_codes(level, repeated, gates, faults) for level, repeated in levels))


def _codes(level: Level, repeated: NDArray[np.bool_], gates: Gates, faults: Mapping[int, str]) -> Codes:
    codes = np.zeros(len(level.required), np.uint8)
    # The first reason is set last, so it replaces the others.
    if gates.min_resolution_mm is not None:
        codes[resolution_mm(level, gates.tile_size) > gates.min_resolution_mm] = code("too-coarse")
    if gates.max_age_days is not None:
        codes[level.captured < earliest_capture(gates.max_age_days, gates.now)] = code("too-old")
    codes[level.wrong_size] = code("wrong-size")
    if faults:
        ids = np.fromiter(faults.keys(), np.uint64, len(faults))
        present, places = find(level.required, ids)
        values = np.fromiter((code(reason) for reason in faults.values()), np.uint8, len(faults))
        codes[places[present]] = values[present]
    if level.no_image:
        codes[find(level.required, np.fromiter(level.no_image, np.uint64))[1]] = code("undecodable")
    if not gates.repeated:
        codes[repeated] = code("repeated")
    lacks = np.array([code(reason) for reason in LACKS], np.uint8)[level.lacks]
    codes[~level.present] = lacks[~level.present] if level.has_zoom else code("outside-zooms")
    return codes


def of_list(inventory: Inventory, gates: Gates, listed: MissingList) -> Shortfall | None:
    """The shortfall of an inventory with the decoding faults and unseen tiles of a list of missing tiles.

    None if the shortfall gives another list than this one.
    """
    ids = [np.arange(run.first, run.first + run.tiles, dtype=np.uint64) for run in listed.runs]
    faults = {
        number: run.reason
        for run, tiles in zip(listed.runs, ids, strict=True)
        if run.reason in FAULTS
        for number in tiles.tolist()
    }
    unseen = [tiles for run, tiles in zip(listed.runs, ids, strict=True) if run.reason == "no-view"]
    codes = []
    for level, codes_before in zip(inventory.levels, shortfall(inventory, gates, faults).codes, strict=True):
        codes_now = codes_before.copy()
        for tiles in unseen:
            present, places = find(level.required, tiles)
            at = places[present]
            codes_now[at] = np.where(codes_now[at] == 0, code("no-view"), codes_now[at])
        codes.append(codes_now)
    rebuilt = Shortfall(inventory, tuple(codes))
    return rebuilt if rebuilt.as_list() == listed else None


def resolution_mm(level: Level, tile_size: int) -> NDArray[np.float64]:
    """float64[m]: millimetres on the ground of a pixel at the middle of each required tile, or of its imagery if that
    is coarser."""
    _, y = tile_xy(level.zoom, level.required)
    latitude = np.arctan(np.sinh(np.pi * (1 - 2 * (y + 0.5) / (1 << level.zoom))))
    metres = EQUATOR * np.cos(latitude) / (1 << level.zoom) / tile_size
    coarsest: NDArray[np.float64] = np.maximum(metres, level.native_m) * 1000
    return coarsest


def with_views(shortfall: Shortfall, sets: Sequence[Mapping[int, tuple[View, NDArray[np.uint64]]]]) -> Shortfall:
    """The shortfall with the tiles that a descriptor set does not show.

    `sets` has, for each descriptor set and zoom, the view and the origins of its rows. A tile that one set does not
    show makes the rows of other sets that show it unusable, so those sets may miss more tiles. The search repeats until
    no set misses another tile.
    """
    codes = []
    for level, codes_before in zip(shortfall.inventory.levels, shortfall.codes, strict=True):
        now = codes_before.copy()
        while True:
            before = now.copy()
            for views in sets:
                view, origins = views.get(level.zoom, (View(), np.empty(0, np.uint64)))
                rows = live(level.zoom, view, origins, level.required, level.required[now > 0])
                now[(now == 0) & ~shows(level.zoom, view, rows, level.required)] = code("no-view")
            if (now == before).all():
                break
        codes.append(now)
    return Shortfall(shortfall.inventory, tuple(codes))


def shows(zoom: int, view: View, origins: NDArray[np.uint64], tiles: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """bool[m]: whether at least one of the views with these origins (uint64[n]) shows each of the tiles (uint64[m],
    ascending)."""
    visible = np.zeros(len(tiles), bool)
    for part in pieces(view.tiles, origins):
        present, places = find(tiles, view.footprint(zoom, part).ravel())
        visible[places[present]] = True
    return visible
