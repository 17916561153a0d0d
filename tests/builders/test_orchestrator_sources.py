"""The same imagery in each container that is read: the same tiles, the same coverage, and the same mission."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pmtiles.convert import mbtiles_to_pmtiles

from builders.grid.tiles import Tile
from tests.support.commands import flightbag
from tests.support.field import Desk
from tests.support.geopackage import write_geopackage

Tiles = Mapping[Tile, bytes]


def _mbtiles_from_the_north(path: Path, tiles: Tiles) -> None:
    """Without metadata, and without an index."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE tiles (zoom_level, tile_column, tile_row, tile_data)")
        rows = [(*tile, data) for tile, data in tiles.items()]
        db.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)


def _pmtiles(path: Path, tiles: Tiles) -> None:
    """By the converter of the library, whose tile type for `jpg` is 0."""
    mbtiles_to_pmtiles(str(path.with_name("terrain.mbtiles")), str(path), None)  # type: ignore[no-untyped-call]


def _folder(path: Path, tiles: Tiles) -> None:
    for tile, data in tiles.items():
        file = path / f"{tile}.jfif"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def _geopackage(path: Path, tiles: Tiles) -> None:
    write_geopackage(path, tiles)


def _trimmed_geopackage(path: Path, tiles: Tiles) -> None:
    write_geopackage(path, tiles, trimmed=True)


# How the tiles are written, and what the mission file says of the source beside its path.
CONTAINERS: dict[str, tuple[Callable[[Path, Tiles], None], str]] = {
    "MBTiles, rows from the north": (_mbtiles_from_the_north, 'scheme = "xyz"'),
    "GeoPackage": (_geopackage, ""),
    "GeoPackage of a part of the world": (_trimmed_geopackage, ""),
    "PMTiles": (_pmtiles, ""),
    "folder": (_folder, ""),
}


def read_terrain(path: Path) -> dict[Tile, bytes]:
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT zoom_level, tile_column, tile_row, tile_data FROM tiles").fetchall()
    return {Tile(z, x, (1 << z) - 1 - y): data for z, x, y, data in rows}


@pytest.fixture
def published(desk: Desk) -> tuple[Desk, dict[str, Any]]:
    """A mission whose tiles are MBTiles with rows from the south, and the report of its build."""
    return desk, desk.built(desk.write_mission("left"))


def test_the_same_imagery_is_the_same_mission_in_each_container(published: tuple[Desk, dict[str, Any]]) -> None:
    """Byte for byte: nothing is described again, and the mission that is published stays what it is."""
    desk, first = published
    assert first["coverage"]["missing"] == []
    tiles = read_terrain(desk.folder / "terrain.mbtiles")
    planned = flightbag("plan", desk.folder / "left.toml", "--store", desk.store, "--json").json
    for name, (write, of_tiles) in CONTAINERS.items():
        source = desk.folder / "imagery.data"
        write(source, tiles)
        mission = desk.write_mission("left", tiles=Path("imagery.data"), of_tiles=of_tiles)
        ran = flightbag("plan", mission, "--store", desk.store, "--json")
        assert ran.status == 0, (name, ran.out, ran.err)
        assert {**ran.json, "hints": []} == {**planned, "hints": []}, name
        again = desk.built(mission)
        assert again["outcome"] == "unchanged", name
        assert {**again["coverage"], "hints": []} == {**first["coverage"], "hints": []}, name
        assert again["manifest"] == first["manifest"]
        shutil.rmtree(source) if source.is_dir() else source.unlink()


def test_a_source_of_large_tiles_is_missing_as_a_whole_and_the_key_is_named(desk: Desk) -> None:
    """And with the key, a mission of 512 pixels a tile gets a plan."""
    from tests.builders.test_orchestrator_map import picture

    tiles = {tile: picture(512, None) for tile in read_terrain(desk.folder / "terrain.mbtiles")}
    write_geopackage(desk.folder / "large.gpkg", tiles, side=512)
    changes: dict[str, Any] = {"tiles": Path("large.gpkg"), "zooms": (15,)}
    more = '[coverage]\nrepeated = "allowed"\n'
    ran = flightbag("plan", desk.write_mission("left", **changes, more=more), "--store", desk.store)
    assert ran.status == 1
    assert "wrong-size -> set coverage.tile_size" in ran.out
    assert "large.gpkg: it has tiles of 512 x 512 pixels: set coverage.tile_size = 512" in " ".join(ran.out.split())
    mission = desk.write_mission("left", **changes, more=more + "tile_size = 512\n")
    assert flightbag("plan", mission, "--store", desk.store).status == 0
