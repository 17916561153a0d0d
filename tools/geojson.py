"""Missing tiles as GeoJSON (RFC 7946), for a map: one polygon for each tile, with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from store.errors import Invalid
from tools import keyfiles
from tools.parameters import Option

if TYPE_CHECKING:
    from builders.report import Missing

# How every file of missing tiles begins, and no file of anybody else.
_HEAD = '{"type": "FeatureCollection", "name": "missing tiles", '

GeoJson = Annotated[
    Path | None,
    Option(
        "--geojson",
        metavar="FILE",
        help="Write the missing tiles to this file as GeoJSON, to be seen on a map.",
    ),
]


def check_path(path: Path | None) -> None:
    """Raise Invalid for a path in a store, in no folder, or of a file of another kind, such as the area of the mission:
    the work that fills the file may take hours."""
    if path is None:
        return
    keyfiles.refuse_store(path)
    if not path.absolute().parent.is_dir() or path.is_dir():
        raise Invalid(f"--geojson {path} is no place for a file", remedy="give a file in a folder that exists")
    if path.exists() and not _is_of_missing_tiles(path):
        raise Invalid(
            f"--geojson {path} is a file that this option did not write, and would be lost",
            remedy="give the path of a new file",
            path=str(path),
        )


def write(path: Path, missing: Iterable[Missing]) -> None:
    """Write the file, or replace it."""
    text = _HEAD + json.dumps({"features": [_feature(one) for one in missing]})[1:]
    keyfiles.write_over(path, text.encode() + b"\n")


def _is_of_missing_tiles(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(_HEAD)) == _HEAD.encode()
    except OSError:
        return False


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
