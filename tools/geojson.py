"""Missing tiles as GeoJSON (RFC 7946), for a map: one polygon for each tile, with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from store.errors import Invalid
from tools import keyfiles

if TYPE_CHECKING:
    from builders.report import Missing

GeoJson = Annotated[
    Path | None,
    typer.Option(
        "--geojson",
        metavar="FILE",
        help="Write the missing tiles to this file as GeoJSON, to be seen on a map.",
        show_default=False,
    ),
]


def check_path(path: Path | None) -> None:
    """Raise Invalid for a path in a store or in no folder: the work that fills the file may take hours."""
    if path is None:
        return
    keyfiles.refuse_store(path)
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise Invalid(f"--geojson {path} is no place for a file", remedy="give a file in a folder that exists")


def write(path: Path, missing: Iterable[Missing]) -> None:
    """Write the file, or replace it."""
    text = json.dumps({"type": "FeatureCollection", "features": [_feature(one) for one in missing]})
    keyfiles.write_over(path, text.encode() + b"\n")


def _feature(one: Missing) -> dict[str, Any]:
    from builders.grid.tiles import tile_bounds, tile_from_id

    west, south, east, north = (round(edge, 7) for edge in tile_bounds(tile_from_id(one.tile_id)))
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    properties = {"tile": one.tile, "reason": one.reason, **({"detail": one.detail} if one.detail else {})}
    return {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
