"""Step G of the takeoff check, on the ground: the coverage digest is computed again from the tile sources, and the
number of repeated tiles.

The signed digest shows whether any tile of the area differs. The shards show which ones, as far as they can (decision
0010): a finding names a tile that came or went, and the cell of tiles that changed, because the build key of a shard
hashes all tiles of its cell together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from builders.areas.covering import tiles_of_area
from builders.descriptors.shard import Shard, read_shard
from builders.grid.live import missing_at
from builders.grid.tiles import Tile, tile_from_id
from builders.grid.views import View
from builders.imagery.inventory import Inventory, LevelRequest, TileSources, cells_of, cells_over
from builders.imagery.roworder import SourcePath
from builders.mission.tiles import named_specs
from builders.recipe import RowRecipe, tile_list
from store.errors import FlightbagError, Unavailable
from store.findings import Finding
from store.format.entries import Entry
from store.format.missing import ENTRY
from store.takeoff.coverage import read_missing
from store.takeoff.mission import Evidence, Opened, VerifiedMission

# How many tiles of a cell a finding names.
_NAMED = 8
_REMEDY = (
    "build the mission again from these tiles, or give --tiles the sources that it was built from, in the same order"
)


def check_tiles(sources: Sequence[SourcePath]) -> Callable[[Evidence, Opened], Iterator[Finding]]:
    """Return the check against these sources, at all zooms of the mission; where sources overlap the first one wins."""

    def check(evidence: Evidence, opened: Opened) -> Iterator[Finding]:
        try:
            with tiles_of(evidence, opened, sources) as (_, inventory, _):
                pass
        except Unavailable as error:
            yield Finding.of(error, step="G", entry="coverage")
            return
        expected, actual = opened.manifest.coverage.digest, inventory.digest
        if actual == expected:
            yield from _repeated(evidence, opened, inventory)
            return
        yield Finding(
            "other-tiles",
            "the tiles of the area differ from those that the mission was built from",
            step="G",
            entry="coverage",
            expected=expected.hex(),
            actual=actual.hex(),
            remedy=_REMEDY,
        )
        yield from _changes(evidence, opened, inventory)

    return check


@contextmanager
def tiles_of(
    evidence: Evidence, opened: Opened | VerifiedMission, sources: Sequence[SourcePath]
) -> Iterator[tuple[TileSources, Inventory, int]]:
    """Yield these sources, open, with the inventory of a mission's tiles in them and the side of a tile in pixels."""
    recipes = _recipes(evidence, opened)
    tile_size = next((recipe.tile_size for recipe in recipes.values()), 256)
    specs = named_specs(sources, opened.manifest.coverage.zooms)
    with TileSources(specs, tile_size, opened.manifest.mission.area.bbox) as open_sources:
        yield open_sources, open_sources.inventory(_wanted(opened, recipes)), tile_size


def _repeated(evidence: Evidence, opened: Opened, inventory: Inventory) -> Iterator[Finding]:
    """Yield a finding if the mission describes more repeated tiles, or fewer, than its manifest signs."""
    try:
        listed = read_missing(opened, evidence)
    except FlightbagError as error:  # also where step F found it whole: this is another look
        yield Finding.of(error, step="G", entry=ENTRY)
        return
    described = 0
    for level, repeated in zip(inventory.levels, inventory.repeated, strict=True):
        described += int(np.count_nonzero(repeated)) - len(missing_at(listed, level.required[repeated]))
    signed = opened.manifest.coverage.repeated or 0
    if described != signed:
        yield Finding(
            "bad-coverage",
            f"{described} described tiles show the same as another tile of the area, the manifest signs {signed}",
            step="G",
            entry="coverage",
            expected=str(signed),
            actual=str(described),
            remedy="do not fly this mission; build it again",
        )


def _recipes(evidence: Evidence, opened: Opened | VerifiedMission) -> dict[tuple[str, int], RowRecipe]:
    """Return, by set and zoom, how its rows were made: one of its shards says so. A damaged shard is a finding of step
    F."""
    recipes: dict[tuple[str, int], RowRecipe] = {}
    for entry in opened.table.entries:
        if entry.kind == "descriptors":
            _, name, zoom, _ = entry.name.split("/")
            if (name, int(zoom)) not in recipes:
                try:
                    recipes[name, int(zoom)] = RowRecipe.of_metadata(_shard(evidence, entry).metadata)
                except Unavailable:
                    raise
                except FlightbagError:
                    continue
    return recipes


def _wanted(opened: Opened | VerifiedMission, recipes: dict[tuple[str, int], RowRecipe]) -> dict[int, LevelRequest]:
    wanted = {}
    for zoom in opened.manifest.coverage.zooms:
        required = tiles_of_area(opened.manifest.mission.area, zoom)
        views = {View(*recipe.view) for (_, at), recipe in recipes.items() if at == zoom}
        cells = [cells_of(zoom, required), *(cells_over(zoom, view, required) for view in views)]
        wanted[zoom] = LevelRequest(required, np.unique(np.concatenate(cells)))
    return wanted


def _shard(evidence: Evidence, entry: Entry) -> Shard:
    return read_shard(bytes(evidence.bytes_of(entry.id, entry.size)))


def _changes(evidence: Evidence, opened: Opened, inventory: Inventory) -> Iterator[Finding]:
    for entry in opened.table.entries:
        if entry.kind != "descriptors":
            continue
        try:
            yield from _changed_cell(evidence, entry, inventory)
        except (FlightbagError, KeyError, ValueError):
            continue  # a damaged shard is a finding of step F; a shard of another writer may lack these fields


def _changed_cell(evidence: Evidence, entry: Entry, inventory: Inventory) -> Iterator[Finding]:
    shard = _shard(evidence, entry)
    recipe = RowRecipe.of_metadata(shard.metadata)
    zoom, (z, x, y) = int(shard.metadata["zoom"]), (int(part) for part in shard.metadata["cell"].split("/"))
    view, level = View(*recipe.view), inventory.level(zoom)
    footprint = view.footprint(zoom, view.origins_in_cell(Tile(z, x, y), zoom))
    present = level.find(footprint.ravel())[0].reshape(footprint.shape)
    shows = np.unique(footprint[present])
    if recipe.shard(zoom, tile_list(shows, level.hashes[level.find(shows)[1]])).key == entry.key:
        return
    before, now = set(shard.tiles.tolist()), set(footprint[present.all(axis=(1, 2)), 0, 0].tolist())
    parts = [f"gone: {_names(before - now)}"] if before - now else []
    parts += [f"new, or not decodable before: {_names(now - before)}"] if now - before else []
    parts = parts or [f"one or more of its {len(shows)} tiles changed"]
    text = f"cell {shard.metadata['cell']} at zoom {zoom}: {'; '.join(parts)}"
    yield Finding("other-tiles", text, step="G", entry=entry.name, remedy=_REMEDY)


def _names(numbers: set[int]) -> str:
    names = [str(tile_from_id(number)) for number in sorted(numbers)[:_NAMED]]
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return ", ".join(names) + more
