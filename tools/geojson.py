"""GeoJSON (RFC 7946) for a map: missing tiles, one polygon each with its reason; and the whole map of a mission."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from tools import keyfiles
from tools.outputs import check_output
from tools.parameters import Option

if TYPE_CHECKING:
    from builders.atlas import Cell
    from builders.grid.tiles import Tile
    from builders.report import Missing
    from store.format.missing import MissingList
    from store.takeoff.mission import Evidence, Opened

# How every file of missing tiles begins, and no file of anybody else; and every file of a map.
_HEAD = '{"type": "FeatureCollection", "name": "missing tiles", '
_MAP_HEAD = '{"type": "FeatureCollection", "name": "map of a mission", '
Ring: TypeAlias = list[list[float]]

GeoJson = Annotated[
    Path | None,
    Option(
        "--geojson",
        metavar="FILE",
        help="Write the missing tiles to this file as GeoJSON, to be seen on a map.",
    ),
]


def check_path(path: Path | None) -> None:
    """Raise Invalid as `check_output` does, for the file of the missing tiles."""
    if path is not None:
        check_output(path, "--geojson", _HEAD.encode())


def check_map_path(path: Path) -> None:
    """Raise Invalid as `check_output` does, for the file of a map."""
    check_output(path, "-o", _MAP_HEAD.encode())


def write(path: Path, missing: Iterable[Missing]) -> None:
    """Write the file, or replace it."""
    text = _HEAD + json.dumps({"features": [_feature(one) for one in missing]})[1:]
    keyfiles.write_over(path, text.encode() + b"\n")


def write_map(path: Path, opened: Opened, evidence: Evidence, listed: MissingList, cells: Iterable[Cell]) -> None:
    """Write the file of a map, or replace it: the area, the takeoff, described tiles, missing ones with reasons, cells
    with the missions that share them, and the footprints of the rows. `layer` says what a feature is."""
    from builders import atlas
    from builders.report import MissingTiles

    facts = opened.manifest.mission
    features = [
        _polygons(
            [[[[x / 10**7, y / 10**7] for x, y in ring] for ring in rings] for rings in atlas.outlines(facts.area)]
        )
        | {"properties": {"layer": "area", "mission": facts.id}},
        {
            "type": "Feature",
            "properties": {"layer": "takeoff", "alt_m": facts.takeoff.alt / 1000},
            "geometry": {"type": "Point", "coordinates": [facts.takeoff.lon / 10**7, facts.takeoff.lat / 10**7]},
        },
    ]
    for zoom in opened.manifest.coverage.zooms:
        for tile, count in atlas.blocks(zoom, atlas.described(facts.area, zoom, listed)):
            layer = {"layer": "described", "zoom": zoom, "tile": str(tile), "tiles": count}
            features.append(_square(tile, 1) | {"properties": layer})
    for missing in MissingTiles(listed.runs):
        feature = _feature(missing)
        features.append({**feature, "properties": {"layer": "missing", **feature["properties"]}})
    for cell in cells:
        layer = {"layer": "cell", "set": cell.set, "zoom": cell.zoom, "tile": str(cell.tile), "rows": cell.rows}
        features.append(_square(cell.tile, 1) | {"properties": {**layer, "shared": ", ".join(cell.shared)}})
    for one in atlas.footprints(opened, evidence, listed):
        layer = {"layer": "footprint", "set": one.set, "zoom": one.origin.z, "tile": str(one.origin)}
        features.append(_square(one.origin, one.tiles) | {"properties": layer})
    value = {"bbox": _bounds(features, facts.area.bbox), "features": features}
    keyfiles.write_over(path, (_MAP_HEAD + json.dumps(value)[1:]).encode() + b"\n")


def _feature(one: Missing) -> dict[str, Any]:
    from builders.grid.tiles import tile_from_id

    properties = {"tile": one.tile, "reason": one.reason, **({"detail": one.detail} if one.detail else {})}
    return _square(tile_from_id(one.tile_id), 1) | {"properties": properties}


def _square(tile: Tile, side: int) -> dict[str, Any]:
    """Return the feature of `side` by `side` tiles, cut at the antimeridian (RFC 7946, 3.1.9)."""
    from builders.grid.tiles import bounds_of_tiles

    world, last = 1 << tile.z, tile.x + side - 1
    spans = [(tile.x, last)] if last < world else [(tile.x, world - 1), (0, last - world)]
    rings = []
    for span in spans:
        edges = bounds_of_tiles(tile.z, span, (tile.y, min(tile.y + side, world) - 1))
        west, south, east, north = (round(edge, 7) for edge in edges)
        rings.append([[[west, south], [east, south], [east, north], [west, north], [west, south]]])
    return _polygons(rings)


def _polygons(polygons: list[list[Ring]]) -> dict[str, Any]:
    """Return the feature of one polygon or several, without properties."""
    kind, coordinates = ("Polygon", polygons[0]) if len(polygons) == 1 else ("MultiPolygon", polygons)
    return {"type": "Feature", "properties": {}, "geometry": {"type": kind, "coordinates": coordinates}}


def _bounds(features: Iterable[dict[str, Any]], area: tuple[int, int, int, int]) -> list[float]:
    """Return the box of all features; its west is greater than its east where the area crosses the antimeridian (RFC
    7946, 5.2)."""
    west, _, east, _ = (edge / 10**7 for edge in area)
    turned = (west + east) / 2 if west > east else -180.0  # the gap of the area: the box begins in the east of it
    longitudes, latitudes = [], []
    for feature in features:
        geometry = feature["geometry"]
        polygons = {"Point": [[[geometry["coordinates"]]]], "Polygon": [geometry["coordinates"]]}
        for polygon in polygons.get(geometry["type"], geometry["coordinates"]):
            outer = polygon[0]
            # A polygon lies on one side of the gap as a whole.
            round_the_world = 360.0 if max(x for x, _ in outer) <= turned else 0.0
            longitudes += [x + round_the_world for x, _ in outer]
            latitudes += [y for _, y in outer]
    first, last = min(longitudes), max(longitudes)
    if last - first >= 360:
        first, last = -180.0, 180.0
    return [first, min(latitudes), round(last - 360, 7) if last > 180 else last, max(latitudes)]
