"""GeoPackages as a source: where their tiles lie by their numbers, what is not on the grid, and what GDAL writes."""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import tracemalloc
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.grid.tiles import Tile, cell_of, tile_id
from builders.grid.views import EQUATOR
from builders.imagery.geopackage import GeoPackageSource
from builders.imagery.sources import open_source
from builders.imagery.sqlite import Database
from builders.imagery.tiletable import TileTable
from store.errors import FlightbagError, Invalid
from tests.builders.imagery.containers import NOWHERE, ROUND
from tests.support.geopackage import write_geopackage

NUMBERS = ("gpkg_spatial_ref_sys", "gpkg_tile_matrix_set", "gpkg_tile_matrix")
TILES = {Tile(3, 1, 2): b"a", Tile(3, 2, 2): b"b", Tile(4, 2, 4): b"c", Tile(4, 5, 5): b"d"}


def opened(path: Path) -> GeoPackageSource:
    return GeoPackageSource(Database(path))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write_geopackage(tmp_path / "a.gpkg", TILES)
    return tmp_path / "a.gpkg"


def change(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as db, db:
        for statement in statements:
            db.executescript(statement)
    return path


def everything(source: TileTable) -> dict[Tile, bytes]:
    return {tile: data for tile in TILES if (data := source.read(tile)) is not None}


@pytest.mark.parametrize("trimmed", [False, True])
@pytest.mark.parametrize("side", [256, 512])
def test_tiles_lie_where_the_numbers_say(tmp_path: Path, trimmed: bool, side: int) -> None:
    write_geopackage(tmp_path / "a.gpkg", TILES, trimmed=trimmed, side=side, table="some 'odd' name")
    with opened(tmp_path / "a.gpkg") as source:
        assert everything(source) == TILES
        assert list(source.cell(Tile(0, 0, 0), 3)) == sorted((tile_id(tile), TILES[tile]) for tile in list(TILES)[:2])
        assert source.zooms == (3, 4)
        assert source.row_order is None
        assert source.notes == ()
        for absent in (Tile(3, 1, 3), Tile(4, 0, 0), Tile(5, 4, 8), Tile(0, 0, 0)):
            assert source.read(absent) is None


@given(
    st.integers(0, 24).flatmap(lambda z: st.builds(Tile, st.just(z), *[st.integers(0, (1 << z) - 1)] * 2)),
    st.booleans(),
)
def test_a_tile_anywhere_is_read_by_its_address(
    tmp_path_factory: pytest.TempPathFactory, tile: Tile, trimmed: bool
) -> None:
    path = tmp_path_factory.mktemp("one") / "one.gpkg"
    write_geopackage(path, {tile: b"x"}, trimmed=trimmed)
    with opened(path) as source:
        assert list(source.cell(cell_of(tile), tile.z)) == [(tile_id(tile), b"x")]
    shutil.rmtree(path.parent)


def test_it_is_told_from_mbtiles_by_its_tables_and_not_by_its_name(tmp_path: Path) -> None:
    """A table `tiles` with the columns of MBTiles: read as MBTiles, its rows would be upside down."""
    path = tmp_path / "a.mbtiles"
    write_geopackage(path, TILES, table="tiles")
    change(path, "PRAGMA application_id = 0")
    with open_source(path, 256, NOWHERE) as source:
        assert source.read(Tile(3, 1, 2)) == b"a"
    with pytest.raises(Invalid, match="has no scheme") as caught:
        open_source(path, 256, NOWHERE, "tms")
    assert "leave the scheme out" in caught.value.remedy


@pytest.mark.parametrize(
    ("organization", "number", "usable"),
    [
        ("EPSG", 3857, True), ("epsg", 3857, True), ("EPSG", 900913, True), ("ESRI", 102100, True),
        ("EPSG", 4326, False), ("EPSG", 3395, False), ("EPSG", 32614, False), ("NONE", 3857, False),
    ],
)  # fmt: skip
def test_the_reference_system_is_what_its_id_leads_to(
    package: Path, organization: str, number: int, usable: bool
) -> None:
    change(
        package,
        f"INSERT INTO gpkg_spatial_ref_sys VALUES ('x', 77, '{organization}', {number}, '', '')",
        "UPDATE gpkg_tile_matrix_set SET srs_id = 77",
    )
    if usable:
        with opened(package) as source:
            assert everything(source) == TILES
        return
    with pytest.raises(Invalid, match=f"{organization}:{number}, must be in EPSG:3857") as caught:
        opened(package)
    assert "TILING_SCHEME=GoogleMapsCompatible" in caught.value.remedy


@pytest.mark.parametrize(
    "statement",
    [
        *(f"DROP TABLE {name}" for name in (*NUMBERS, "imagery")),
        *(f"DELETE FROM {name}" for name in (*NUMBERS, "gpkg_contents")),
        "UPDATE gpkg_contents SET data_type = 'features'",
        "UPDATE gpkg_contents SET table_name = x'00'",
        "ALTER TABLE imagery DROP COLUMN tile_data; ",
        "ALTER TABLE imagery RENAME COLUMN tile_data TO data",
        "UPDATE gpkg_tile_matrix SET pixel_x_size = 'wide'",
        "UPDATE gpkg_tile_matrix SET pixel_x_size = 0",
        "UPDATE gpkg_tile_matrix SET pixel_x_size = 9e999, tile_width = 1e300",
        "UPDATE gpkg_tile_matrix SET pixel_x_size = 1e300, tile_width = 1e300",
        "UPDATE gpkg_tile_matrix SET pixel_x_size = 1e-300, tile_width = 1e-300",
        "UPDATE gpkg_tile_matrix SET pixel_x_size = 1.01 * pixel_x_size",
        "UPDATE gpkg_tile_matrix SET matrix_height = matrix_height + 1",
        "UPDATE gpkg_tile_matrix SET zoom_level = 'first' WHERE zoom_level = 3",
        "UPDATE gpkg_tile_matrix_set SET min_x = min_x + 20000, max_x = max_x + 20000",
        "UPDATE gpkg_tile_matrix_set SET min_x = 1e300, max_x = 2e300",
        "UPDATE gpkg_tile_matrix_set SET min_y = 5, max_y = 4",
    ],
)  # fmt: skip
def test_numbers_that_are_not_those_of_web_maps_are_refused(package: Path, statement: str) -> None:
    """Also where its box and its matrices contradict each other."""
    with pytest.raises(Invalid, match="not a usable GeoPackage") as caught:
        opened(change(package, statement))
    assert caught.value.fields["path"] == str(package)
    assert caught.value.remedy


@given(
    st.sampled_from(["gpkg_tile_matrix", "gpkg_tile_matrix_set"]),
    st.integers(1, 7),
    st.one_of(st.floats(allow_nan=False), st.integers(-(2**63), 2**63 - 1), st.text(max_size=3), st.binary(max_size=3)),
)
def test_no_number_is_too_odd(tmp_path_factory: pytest.TempPathFactory, table: str, column: int, value: Any) -> None:
    path = tmp_path_factory.mktemp("odd") / "odd.gpkg"
    write_geopackage(path, TILES)
    with closing(sqlite3.connect(path)) as db, db:
        names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        db.execute(f"UPDATE OR IGNORE {table} SET {names[min(column, len(names) - 1)]} = ?", (value,))
    with suppress(FlightbagError):
        opened(path).close()
    shutil.rmtree(path.parent)


def test_texts_in_the_place_of_numbers_do_not_fill_the_memory(package: Path) -> None:
    with closing(sqlite3.connect(package)) as db, db:
        db.executescript(
            """
            CREATE TABLE long AS SELECT hex(zeroblob(1 << 19)) AS text;
            ALTER TABLE gpkg_tile_matrix RENAME TO numbers;
            CREATE TABLE many (n);
            INSERT INTO many VALUES (1), (2), (3), (4);
            CREATE VIEW gpkg_tile_matrix AS
                SELECT table_name, one.n + 4 * two.n + 16 * three.n AS zoom_level,
                       (SELECT text FROM long) AS matrix_width, 1 AS matrix_height,
                       1 AS tile_width, 1 AS tile_height, 1 AS pixel_x_size, 1 AS pixel_y_size
                FROM numbers, many AS one, many AS two, many AS three;
            """
        )
    tracemalloc.start()
    try:
        with pytest.raises(Invalid, match="a value that is no number"):
            GeoPackageSource(Database(package))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_rounded_edges_are_those_of_the_world(package: Path) -> None:
    """As several writers have them, to the centimetre."""
    change(
        package,
        "UPDATE gpkg_tile_matrix_set SET min_x = -20037508.34, min_y = -20037508.34",
        "UPDATE gpkg_tile_matrix_set SET max_x = 20037508.34, max_y = 20037508.34",
    )
    with opened(package) as source:
        assert everything(source) == TILES


def test_a_level_off_the_grid_is_told_and_the_others_are_read(package: Path) -> None:
    change(package, "INSERT INTO gpkg_tile_matrix VALUES ('imagery', 9, 3, 3, 256, 256, "
                    f"{EQUATOR / 3 / 256}, {EQUATOR / 3 / 256})")  # fmt: skip
    with opened(package) as source:
        assert everything(source) == TILES
        assert source.notes == ("its zoom_level 9 is not on the grid of web maps, and is not read",)


def test_of_several_tables_one_is_chosen_by_the_command_in_the_remedy(package: Path) -> None:
    write_geopackage(package.with_name("b.gpkg"), {Tile(3, 0, 0): b"topo"}, table="another's topo")
    change(
        package,
        f"ATTACH '{package.with_name('b.gpkg')}' AS b; "
        "INSERT INTO gpkg_contents SELECT * FROM b.gpkg_contents;"
        "INSERT INTO gpkg_tile_matrix_set SELECT * FROM b.gpkg_tile_matrix_set;"
        "INSERT INTO gpkg_tile_matrix SELECT * FROM b.gpkg_tile_matrix;"
        """CREATE TABLE "another's topo" AS SELECT * FROM b."another's topo" """,
    )
    with pytest.raises(Invalid, match="2 tables of tiles") as caught:
        opened(package)
    assert "imagery" in caught.value.message
    program, _, statement = shlex.split(caught.value.remedy.partition("of the copy: ")[2])
    assert program == "sqlite3"
    with opened(change(package, statement)) as source:
        assert source.read(Tile(3, 0, 0)) == b"topo"
        (note,) = source.notes  # a table that was copied so has no index
    *_, statement = shlex.split(note.partition(": run ")[2])
    with opened(change(package, statement)) as source:
        assert source.notes == ()
        assert source.read(Tile(3, 0, 0)) == b"topo"


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    """A GeoPackage that GDAL made of a picture of 300 x 300 pixels in degrees, on a grid of its own."""
    rasterio = pytest.importorskip("rasterio", reason="the extra geotiff is not installed")
    west, south, east, north = (edge / 10**7 for edge in ROUND.bbox)
    transform = rasterio.transform.from_bounds(west, south, east, north, 300, 300)
    pixels = np.random.default_rng(5).integers(1, 255, (3, 300, 300), np.uint8)
    keys: Any = {"driver": "GPKG", "height": 300, "width": 300, "count": 3, "dtype": "uint8", "crs": "EPSG:4326"}
    with rasterio.open(tmp_path / "gdal.gpkg", "w", **keys, transform=transform) as file:
        file.write(pixels)
    return tmp_path / "gdal.gpkg"


def test_another_grid_is_refused_and_the_remedy_makes_this_one(raster: Path) -> None:
    import rasterio.shutil

    with pytest.raises(Invalid, match=r"EPSG:4326, must be in EPSG:3857") as caught:
        opened(raster)
    key, value = next(word for word in caught.value.remedy.split() if "=" in word).split("=")
    rasterio.shutil.copy(raster, raster.with_name("OUT.gpkg"), driver="GPKG", **{key: value})
    with open_source(raster.with_name("OUT.gpkg"), 256, ROUND) as source:
        assert source.zooms is not None
        zoom = source.zooms[1]
        middle = Tile(zoom, *(round(place) for place in _place(zoom)))
        data = source.read(middle)
    assert data is not None
    assert data.startswith((b"\x89PNG", b"\xff\xd8\xff"))


def _place(zoom: int) -> tuple[float, float]:
    from builders.grid.tiles import rows_and_columns

    rows, columns = rows_and_columns(ROUND.bbox, zoom)
    return columns[0][len(columns[0]) // 2], rows[len(rows) // 2]
