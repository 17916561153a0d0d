"""A store with missions over real areas, made without imagery: real shards with small rows, a list of missing tiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from builders.areas.covering import tiles_of_signed_area
from builders.descriptors.shard import write_shard
from builders.grid.tiles import Tile, tile_from_id
from builders.imagery.inventory import cells_of
from builders.recipe import RowRecipe
from store.format.area import Area
from store.format.entries import Entry, sorted_table
from store.format.ids import ObjectId
from store.format.manifest import PPM, Takeoff
from store.format.missing import ENTRY, MissingList, Run
from tests.support.missions import CONTENTS, COVERAGE, FACTS, ISSUE, Flight, build_key, entry, flight
from tests.support.stores import ROOT_FILE, make_store

AREA = Area((-991750000, 470080000, -991350000, 470330000))
# Round the world's edge; and an L with a hole, whose rings run the wrong way round.
FIJI = Area((1798000000, -170000000, -1799000000, -168000000))
ELL = Area(
    (0, 0, 4000000, 4000000),
    (
        (
            (0, 0, 0, 4000000, 1500000, 4000000, 1500000, 1500000, 4000000, 1500000, 4000000, 0),
            (500000, 500000, 900000, 500000, 900000, 900000, 500000, 900000),
        ),
    ),
)

# What a mission has beside its map.
FILES = {name: data for name, data in CONTENTS.items() if name.startswith("files/")}
WITH_ENGINE = {name: data for name, data in CONTENTS.items() if not name.startswith("descriptors/")}


def rows_of(view: tuple[int, int] = (1, 1)) -> RowRecipe:
    return RowRecipe("", bytes(32), "descriptor", {}, 256, view, "float16", "l2")


def runs_of(states: Mapping[int, str]) -> MissingList:
    """The list of these tiles with their reasons."""
    runs: list[Run] = []
    for number, reason in sorted(states.items()):
        if runs and runs[-1].reason == reason and runs[-1].first + runs[-1].tiles == number:
            runs[-1] = runs[-1]._replace(tiles=runs[-1].tiles + 1)
        else:
            runs.append(Run(number, 1, reason))
    return MissingList(tuple(runs))


def map_flight(
    mission: str = "north-ridge",
    area: Area = AREA,
    zooms: Iterable[int] = (16,),
    listed: MissingList = MissingList(()),  # noqa: B008 - frozen
    *,
    view: tuple[int, int] = (1, 1),
    contents: Mapping[str, bytes] = FILES,
    **changes: Any,
) -> Flight:
    """A signed mission that never expires over an area, with a shard for each cell. Equal cells have equal shards."""
    held, entries, tiles = dict(contents), [entry(name, data) for name, data in contents.items()], 0
    for zoom in sorted(zooms):
        required = tiles_of_signed_area(area, zoom)
        tiles += len(required)
        for number in cells_of(zoom, required).tolist():
            cell = tile_from_id(number)
            name = f"descriptors/net/{zoom}/{cell.z}-{cell.x}-{cell.y}.safetensors"
            held[name] = _shard(cell, zoom, view)
            rows = {"dim": 2, "dtype": "float16", "rows": len(_origins(cell, zoom, view))}
            entries.append(Entry(name, ObjectId.of(held[name]), len(held[name]), build_key(name), rows))
    if listed.total:
        held[ENTRY] = listed.render()
        meta = {"missing": listed.total}
        entries.append(Entry(ENTRY, ObjectId.of(held[ENTRY]), len(held[ENTRY]), None, meta))
    west, south, _, _ = area.bbox
    fields: dict[str, Any] = {
        "mission": replace(FACTS, id=mission, area=area, takeoff=Takeoff(south + 1, west + 1, 480000)),
        "issue": replace(ISSUE, expires_at=None),
        "coverage": replace(
            COVERAGE,
            zooms=tuple(sorted(zooms)),
            tiles=tiles,
            missing=listed.total,
            required_ppm=(tiles - listed.total) * PPM // tiles,
        ),
    }
    return flight(held, table=sorted_table(entries), **{**fields, **changes})


def _origins(cell: Tile, zoom: int, view: tuple[int, int]) -> Any:
    from builders.grid.views import View

    return View(*view).origins_in_cell(cell, zoom)


def _shard(cell: Tile, zoom: int, view: tuple[int, int]) -> bytes:
    origins = _origins(cell, zoom, view)
    metadata = {"cell": str(cell), "zoom": str(zoom), **rows_of(view).metadata()}
    return write_shard(origins, np.ones((len(origins), 2), np.float16), metadata)


def write_map_store(folder: Path, *flights: Flight) -> tuple[Path, Path]:
    """Write a store with these missions, and its trust root apart from it. Return both paths."""
    store, root = folder / "ground", folder / "pinned.root.cbor"
    make_store(store, *flights)
    root.write_bytes(ROOT_FILE)
    return store, root
