"""Step G of the takeoff check, on the ground: the coverage digest derived again from the tile sources.

The signed digest says whether any tile of the area is another one. Which, the shards tell as far as they can: a tile
that came or went is named, and of tiles that changed, their cell, because a shard's build key has the hash of all tiles
of its cell together.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from builders.descriptors.inventory import CellTiles, Inventory, SourceSpec, TileSources
from builders.descriptors.shard import read_shard
from builders.descriptors.tiles import tile_from_id
from builders.recipe import shard_recipe
from store.errors import FlightbagError, Unavailable
from store.findings import Finding
from store.format.entries import Entry
from store.verify import Evidence, Opened

# How many tiles of a cell a finding spells out.
_NAMED = 8
_REMEDY = "build the mission again from these tiles, or give the sources that it was built from, in the same order"
# The date of the sources is judged when the mission is built, and not here.
_ANY_DATE = datetime.date(1970, 1, 1)


def check_tiles(sources: Sequence[Path]) -> Callable[[Evidence, Opened], Iterator[Finding]]:
    """The check against these sources, the first of which wins where they overlap, at all zooms of the mission."""

    def check(evidence: Evidence, opened: Opened) -> Iterator[Finding]:
        zooms = opened.manifest.coverage.zooms
        try:
            with TileSources([SourceSpec(path, zooms, _ANY_DATE) for path in sources]) as open_sources:
                inventory = open_sources.inventory(opened.manifest.mission.area.bbox)
        except Unavailable as error:
            yield Finding.of(error, step="G", entry="coverage")
            return
        expected, actual = opened.manifest.coverage.digest, inventory.digest
        if actual == expected:
            return
        yield Finding(
            "other-tiles",
            "the tiles of the area are not those that the mission was built from",
            step="G",
            entry="coverage",
            expected=expected.hex(),
            actual=actual.hex(),
            remedy=_REMEDY,
        )
        yield from _changes(evidence, opened, inventory)

    return check


def _changes(evidence: Evidence, opened: Opened, inventory: Inventory) -> Iterator[Finding]:
    cells = {(cell.zoom, tuple(cell.cell)): cell for cell in inventory.cells}
    for entry in opened.table.entries:
        if entry.kind != "descriptors":
            continue
        try:
            yield from _changed_cell(evidence, entry, cells)
        except (FlightbagError, KeyError, ValueError):
            continue  # a damaged shard is a finding of step F; one of another writer may say less of itself


def _changed_cell(
    evidence: Evidence, entry: Entry, cells: dict[tuple[int, tuple[int, ...]], CellTiles]
) -> Iterator[Finding]:
    shard = read_shard(bytes(evidence.bytes_of(entry.id, entry.size)))
    facts = shard.metadata
    zoom, place = int(facts["zoom"]), tuple(int(part) for part in facts["cell"].split("/"))
    cell = cells.get((zoom, place))
    tiles = () if cell is None else cell.tiles
    recipe = shard_recipe(
        model=bytes.fromhex(facts["model"]),
        output=facts["output"],
        preprocess=json.loads(facts["preprocess"]),
        dtype=str(entry.meta["dtype"]),
        zoom=zoom,
        tiles=tiles,
    )
    if recipe.key == entry.key:
        return
    had, have = {int(number) for number in shard.tiles}, {number for number, _ in tiles}
    parts = [f"gone: {_some(had - have)}"] if had - have else []
    parts += [f"new, or not decodable before: {_some(have - had)}"] if have - had else []
    parts = parts or [f"one or more of its {len(have)} tiles changed"]
    text = f"cell {facts['cell']} at zoom {zoom}: {'; '.join(parts)}"
    yield Finding("other-tiles", text, step="G", entry=entry.name, remedy=_REMEDY)


def _some(numbers: set[int]) -> str:
    names = [str(tile_from_id(number)) for number in sorted(numbers)[:_NAMED]]
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return ", ".join(names) + more
