"""Maps with north and south exchanged, and tiles that are no images.

The imagery lies near the equator, where both orders of rows put tiles into the area: there an exchange is not absent
tiles but another map. A case writes the imagery, builds a mission from it and verifies it. Then it asks the map where a
tile of the imagery lies, with the very picture of it, and says whether the answer is that place or the mirrored one.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from builders.example.backbone import write_backbone
from builders.grid.tiles import Tile, tile_bounds, tile_from_id, tiles_of_bbox
from builders.imagery.png import write_png
from tests.conformance.wrong import wrong
from tests.support.commands import Ran, flightbag
from tests.support.field import Desk, make_store
from tests.support.missions_toml import mission_toml

ZOOM, SIDE = 12, 32
Box = tuple[float, float, float, float]
# West, south, east, north in degrees: as far south of the equator as north of it, north of it only, and far from it.
ACROSS: Box = (30.01, -0.25, 30.29, 0.25)
NORTH: Box = (30.01, 0.05, 30.29, 0.5)
FAR: Box = (-99.29, 46.8, -99.01, 47.0)
Rows = Callable[[Tile], int]


def from_north(tile: Tile) -> int:
    return tile.y


def from_south(tile: Tile) -> int:
    return (1 << tile.z) - 1 - tile.y


def tiles_of(box: Box) -> list[Tile]:
    west, south, east, north = (round(value * 10**7) for value in box)
    return [tile_from_id(number) for number in tiles_of_bbox((west, south, east, north), ZOOM).tolist()]


def pictures(box: Box) -> dict[Tile, bytes]:
    """A PNG for each tile: coarse noise, no two alike, and none like its mirror image."""
    random = np.random.default_rng(13)

    def picture() -> bytes:
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        return write_png(np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))

    return {tile: picture() for tile in tiles_of(box)}


def bounds(box: Box) -> str:
    """The outer edges of the tiles, as most tools write them."""
    edges = [tile_bounds(tile) for tile in tiles_of(box)]
    west, south, east, north = (pick(e[i] for e in edges) for i, pick in enumerate((min, min, max, max)))
    return f"{west},{south},{east},{north}"


def mbtiles(path: Path, tiles: Mapping[Tile, bytes | None], rows: Rows, **metadata: str) -> Path:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE metadata (name text, value text)")
        db.executemany("INSERT INTO metadata VALUES (?, ?)", {"format": "png", **metadata}.items())
        db.execute("CREATE TABLE tiles (zoom_level integer, tile_column integer, tile_row integer, tile_data blob)")
        db.execute("CREATE UNIQUE INDEX tile_index ON tiles (zoom_level, tile_column, tile_row)")
        db.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", [(t.z, t.x, rows(t), d) for t, d in tiles.items()])
    return path


def tile_folder(path: Path, tiles: Mapping[Tile, bytes], rows: Rows) -> Path:
    for tile, data in tiles.items():
        file = path / f"{tile.z}/{tile.x}/{rows(tile)}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


def plan(folder: Path, source: Path, box: Box, of_tiles: str = "", more: str = "") -> Ran:
    write_backbone(folder / "net.onnx", size=SIDE)
    desk = make_store(folder)
    west, south, east, north = box
    text = mission_toml(
        mission="m",
        tiles=source,
        model=Path("net.onnx"),
        bbox=box,
        zooms=[ZOOM],
        takeoff=((south + north) / 2, (west + east) / 2),
        resize=SIDE,
        of_tiles=of_tiles,
        more=f"[coverage]\ntile_size = {SIDE}\n{more}",
    )
    (folder / "m.toml").write_text(text)
    return flightbag("plan", folder / "m.toml", "--store", desk.store, "--json")


def planned(ran: Ran) -> str:
    """The verdict of a plan: the kind of the error, or the reasons of what is missing."""
    if ran.status not in (0, 1):
        return f"{json.loads(ran.out)['error']['kind']} at plan"
    value = json.loads(ran.out)
    missing = Counter(one["reason"] for one in value["missing"])
    hint = ", with a hint" if value.get("hints") else ""
    return f"{', '.join(f'{count} {reason}' for reason, count in missing.items()) or 'nothing missing'} at plan{hint}"


def flown(folder: Path, source: Path, box: Box, tiles: Mapping[Tile, bytes], of_tiles: str = "", more: str = "") -> str:
    """The verdict on the mission, and where its map finds a tile of the imagery that lies off the equator."""
    ran = plan(folder, source, box, of_tiles, more)
    if ran.status != 0:
        return planned(ran)
    desk = Desk(folder)
    ran = desk.build(folder / "m.toml")
    if ran.status != 0:
        value = json.loads(ran.out)
        return f"{value['error']['kind'] if 'error' in value else value['outcome']} at build"
    assert desk.verify().status == 0
    tile = max(tiles_of(box), key=lambda one: abs(one.y - (1 << ZOOM) / 2))
    (folder / "frame.png").write_bytes(tiles[tile])
    ran = flightbag("query", desk.store, "m", folder / "frame.png", "--trust", desk.root, "--top", 1, "--json")
    value = json.loads(ran.out)
    answer = (value["matches"] if isinstance(value, dict) else value)[0]["tile"]
    mirrored = tile._replace(y=(1 << ZOOM) - 1 - tile.y)
    place = {str(tile): "every place right", str(mirrored): "north and south exchanged"}[answer]
    return f"GO, {place}"


# Row order


@wrong(
    "map",
    "MBTiles at the equator with XYZ rows and `scheme` = `xyz`, symmetric bounds",
    before="GO, north and south exchanged",
    now="row-order at plan",
)
def equator_scheme_xyz(folder: Path) -> str:
    tiles = pictures(ACROSS)
    source = mbtiles(folder / "t", tiles, from_north, scheme="xyz", bounds=bounds(ACROSS))
    return flown(folder, source, ACROSS, tiles)


@wrong(
    "map",
    'the same with `scheme = "xyz"` in the mission file',
    before="invalid at plan",
    now="GO, every place right",
)
def equator_scheme_key(folder: Path) -> str:
    tiles = pictures(ACROSS)
    source = mbtiles(folder / "t", tiles, from_north, scheme="xyz", bounds=bounds(ACROSS))
    return flown(folder, source, ACROSS, tiles, 'scheme = "xyz"')


@wrong(
    "map",
    "MBTiles with XYZ rows and `scheme` = `xyz`, bounds that agree",
    before="24 absent at plan",
    now="GO, every place right",
)
def scheme_xyz_and_bounds(folder: Path) -> str:
    tiles = pictures(NORTH)
    source = mbtiles(folder / "t", tiles, from_north, scheme="xyz", bounds=bounds(NORTH))
    return flown(folder, source, NORTH, tiles)


@wrong(
    "map",
    "MBTiles with XYZ rows and bounds, no `scheme`",
    before="24 absent at plan",
    now="row-order at plan",
)
def bounds_only(folder: Path) -> str:
    tiles = pictures(NORTH)
    return flown(folder, mbtiles(folder / "t", tiles, from_north, bounds=bounds(NORTH)), NORTH, tiles)


@wrong(
    "map",
    "MBTiles with TMS rows, as the specification says, whose `scheme` says `xyz`: how the tiles are served",
    before="GO, every place right",
    now="row-order at plan",
)
def scheme_lies(folder: Path) -> str:
    tiles = pictures(NORTH)
    return flown(folder, mbtiles(folder / "t", tiles, from_south, scheme="xyz", bounds=bounds(NORTH)), NORTH, tiles)


@wrong(
    "map",
    "MBTiles with XYZ rows whose `scheme` says `tms`, at the equator",
    before="GO, north and south exchanged",
    now="row-order at plan",
)
def scheme_lies_at_the_equator(folder: Path) -> str:
    wide = (30.01, -0.25, 30.29, 0.5)
    tiles = pictures(wide)
    return flown(folder, mbtiles(folder / "t", tiles, from_north, scheme="tms", bounds=bounds(wide)), ACROSS, tiles)


@wrong(
    "map",
    "a key of the mission file that the bounds contradict",
    before="invalid at plan",
    now="row-order at plan",
)
def key_against_bounds(folder: Path) -> str:
    tiles = pictures(NORTH)
    source = mbtiles(folder / "t", tiles, from_south, bounds=bounds(NORTH))
    return flown(folder, source, NORTH, tiles, 'scheme = "xyz"')


@wrong(
    "map",
    "MBTiles with XYZ rows at the equator, neither `scheme` nor bounds",
    before="GO, north and south exchanged",
    now="row-order at plan",
)
def nothing_decides(folder: Path) -> str:
    tiles = pictures(ACROSS)
    return flown(folder, mbtiles(folder / "t", tiles, from_north), ACROSS, tiles)


@wrong(
    "map",
    "a good MBTiles file far from the equator, neither `scheme` nor bounds: the area decides",
    before="GO, every place right",
    now="GO, every place right",
)
def the_area_decides(folder: Path) -> str:
    tiles = pictures(FAR)
    return flown(folder, mbtiles(folder / "t", tiles, from_south), FAR, tiles)


@wrong(
    "map",
    "a folder with TMS rows at the equator, no metadata",
    before="GO, north and south exchanged",
    now="row-order at plan",
)
def folder_tms(folder: Path) -> str:
    tiles = pictures(ACROSS)
    return flown(folder, tile_folder(folder / "t", tiles, from_south), ACROSS, tiles)


@wrong(
    "map",
    "a folder of gdal2tiles (TMS, tilemapresource.xml)",
    before="24 absent at plan",
    now="GO, every place right",
)
def folder_of_gdal2tiles(folder: Path) -> str:
    tiles = pictures(NORTH)
    source = tile_folder(folder / "t", tiles, from_south)
    west, south, east, north = bounds(NORTH).split(",")
    (source / "tilemapresource.xml").write_text(
        f'<TileMap><BoundingBox minx="{west}" miny="{south}" maxx="{east}" maxy="{north}"/></TileMap>'
    )
    return flown(folder, source, NORTH, tiles)


@wrong(
    "map",
    "a key that is wrong, no bounds: most tiles are absent, the flipped rows exist",
    before="invalid at plan",
    now="24 absent at plan, with a hint",
)
def key_is_wrong(folder: Path) -> str:
    tiles = pictures(NORTH)
    return flown(folder, mbtiles(folder / "t", tiles, from_south), NORTH, tiles, 'scheme = "xyz"')


@wrong(
    "map",
    "world-wide default bounds, XYZ rows at the equator",
    before="GO, north and south exchanged",
    now="row-order at plan",
)
def bounds_of_the_world(folder: Path) -> str:
    tiles = pictures(ACROSS)
    return flown(folder, mbtiles(folder / "t", tiles, from_north, bounds="-180.0,-85,180,85"), ACROSS, tiles)


@wrong(
    "map",
    "bounds mirrored by the tool that wrote them, rows right",
    before="GO, every place right",
    now="row-order at plan",
)
def bounds_mirrored(folder: Path) -> str:
    tiles = pictures(NORTH)
    west, south, east, north = bounds(NORTH).split(",")
    source = mbtiles(folder / "t", tiles, from_south, bounds=f"{west},-{north},{east},-{south}")
    return flown(folder, source, NORTH, tiles)


@wrong(
    "map",
    "the area has the wrong sign of latitude",
    before="24 absent at plan",
    now="24 absent at plan, with a hint",
)
def wrong_hemisphere(folder: Path) -> str:
    tiles = pictures(NORTH)
    west, south, east, north = NORTH
    source = mbtiles(folder / "t", tiles, from_south, bounds=bounds(NORTH))
    return flown(folder, source, (west, -north, east, -south), tiles)


@wrong(
    "map",
    "imagery for `against` with XYZ rows and bounds",
    before="not-measured at build",
    now="row-order at plan",
)
def against_flipped(folder: Path) -> str:
    tiles = pictures(NORTH)
    mbtiles(folder / "other", dict(zip(tiles, reversed(tiles.values()), strict=True)), from_north, bounds=bounds(NORTH))
    more = """
[quality]
recall_at_1 = 0
recall_at_5 = 0
against = "other"
against_recall_at_1 = 0
against_recall_at_5 = 0
"""
    return flown(folder, mbtiles(folder / "t", tiles, from_south, bounds=bounds(NORTH)), NORTH, tiles, "", more)


# Tiles that are no images


def _spoilt(folder: Path, spoil: Callable[[bytes], bytes | None]) -> str:
    """The plan for imagery of which a third was spoilt."""
    tiles: dict[Tile, bytes | None] = dict(pictures(FAR))
    for tile in list(tiles)[::3]:
        data = tiles[tile]
        assert data is not None
        tiles[tile] = spoil(data)
    return planned(plan(folder, mbtiles(folder / "t", tiles, from_south, bounds=bounds(FAR)), FAR))


@wrong("map", "NULL rows", before="nothing missing at plan", now="7 absent at plan, with a hint")
def null_rows(folder: Path) -> str:
    return _spoilt(folder, lambda _: None)


@wrong("map", "empty rows", before="nothing missing at plan", now="7 undecodable at plan")
def empty_rows(folder: Path) -> str:
    return _spoilt(folder, lambda _: b"")


@wrong("map", "tiles compressed with gzip", before="7 undecodable at plan", now="nothing missing at plan")
def gzip_rows(folder: Path) -> str:
    return _spoilt(folder, gzip.compress)


@wrong(
    "map",
    "answers of a server instead of tiles, each another one",
    before="nothing missing at plan",
    now="7 undecodable at plan",
)
def answers_of_a_server(folder: Path) -> str:
    return _spoilt(folder, lambda data: f'{{"error": 429, "request": "{data[-20:].hex()}"}}'.encode())


@wrong("map", "vector tiles in a file that says png", before="nothing missing at plan", now="7 undecodable at plan")
def vector_tiles(folder: Path) -> str:
    return _spoilt(folder, lambda data: b"\x1a\x20\x0a\x05roads" + data[-20:])
