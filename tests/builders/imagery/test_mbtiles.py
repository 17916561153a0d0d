"""MBTiles as a source: rows from the south, views, write-ahead logs, damage, and what is not MBTiles."""

from __future__ import annotations

import gzip
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from builders.descriptors.decoding import Undecodable, decode
from builders.example.terrain import write_terrain
from builders.grid.tiles import MAX_TILE_BYTES, Tile, cell_of, tile_from_id, tile_id, tiles_of_bbox
from builders.imagery.mbtiles import MBTilesSource
from builders.imagery.roworder import Extent
from builders.imagery.sqlite import Database
from builders.imagery.stamps import SourceStamp
from store.errors import Corrupt, Invalid, Unavailable
from tests.builders.imagery.containers import open_mbtiles, wait_past
from tests.support.mounts import behind_read_only_bind

AREA = (-991750000, 470080000, -991600000, 470200000)
ZOOM = 15
TILE = tile_from_id(int(tiles_of_bbox(AREA, ZOOM)[0]))
SHARED = os.environ.get("FLIGHTBAG_SHARED")


@pytest.fixture(scope="module")
def terrain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("terrain") / "terrain.mbtiles"
    write_terrain(path, AREA, [ZOOM])
    return path


@pytest.fixture
def db(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """An empty MBTiles file, to be filled."""
    path = tmp_path / "some 100% 'tiles'?.mbtiles"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE metadata (name text, value text)")
        connection.execute("INSERT INTO metadata VALUES ('format', 'png')")
        connection.execute("CREATE TABLE tiles (zoom_level, tile_column, tile_row, tile_data)")
        yield path, connection


def everything(source: MBTilesSource, zoom: int = ZOOM) -> list[tuple[int, bytes]]:
    cells = sorted({cell_of(tile_from_id(n)) for n in tiles_of_bbox(AREA, zoom).tolist()}, key=tile_id)
    return [item for cell in cells for item in source.cell(cell, zoom)]


def test_the_rows_are_tms(db: tuple[Path, sqlite3.Connection]) -> None:
    """MBTiles 1.3: row 0 lies in the south."""
    path, connection = db
    connection.execute("INSERT INTO tiles VALUES (2, 1, 0, x'01')")
    with open_mbtiles(path) as source:
        assert list(source.cell(Tile(0, 0, 0), 2)) == [(tile_id(Tile(2, 1, 3)), b"\x01")]
        assert source.read(Tile(2, 1, 3)) == b"\x01"
        assert source.read(Tile(2, 1, 0)) is None


def test_a_view_is_a_table(terrain: Path, tmp_path: Path) -> None:
    write_terrain(tmp_path / "view.mbtiles", AREA, [ZOOM], view=True)
    with open_mbtiles(terrain) as table, open_mbtiles(tmp_path / "view.mbtiles") as view:
        assert everything(view) == everything(table)


def test_a_cell_is_sought_by_column_and_row(terrain: Path) -> None:
    """A cell of a file with a million tiles must not cost a walk over whole columns."""
    asked: list[str] = []
    with open_mbtiles(terrain) as source:
        source._database._db.set_trace_callback(asked.append)
        list(source.cell(cell_of(TILE), ZOOM))
        source._database._db.set_trace_callback(None)
        plan = " ".join(row[3] for row in source._database._db.execute(f"EXPLAIN QUERY PLAN {asked[-1]}"))
    assert "tile_column=? AND tile_row>? AND tile_row<?" in plan


def test_what_a_write_ahead_log_holds_is_seen(terrain: Path, tmp_path: Path) -> None:
    path = tmp_path / "wal.mbtiles"
    path.write_bytes(terrain.read_bytes())
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("UPDATE tiles SET tile_data = x'02'")
        assert (tmp_path / "wal.mbtiles-wal").stat().st_size > 0
        with open_mbtiles(path) as source:
            before = everything(source)
            assert {data for _, data in before} == {b"\x02"}
            # One snapshot: what was hashed is what is described, whoever writes meanwhile.
            writer.execute("DELETE FROM tiles")
            assert everything(source) == before


def test_the_database_cannot_be_written_to(terrain: Path) -> None:
    with open_mbtiles(terrain) as source, pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        source._database._db.execute("DELETE FROM tiles")


@pytest.mark.parametrize("value", ["'text'", "17", "x''", f"zeroblob({MAX_TILE_BYTES + 1})", "zeroblob(40000000)"])
def test_a_row_without_a_tile_is_present_and_undecodable(db: tuple[Path, sqlite3.Connection], value: str) -> None:
    path, connection = db
    connection.execute(f"INSERT INTO tiles VALUES (3, 1, 1, {value})")
    with open_mbtiles(path) as source:
        assert list(source.cell(Tile(0, 0, 0), 3)) == [(tile_id(Tile(3, 1, 6)), b"")]
    with pytest.raises(Undecodable):
        decode(b"")


def test_a_tile_twice_must_be_the_same_twice(db: tuple[Path, sqlite3.Connection]) -> None:
    path, connection = db
    connection.execute("INSERT INTO tiles VALUES (3, 1, 1, x'01'), (3, 1, 1, x'01')")
    with open_mbtiles(path) as source:
        assert [data for _, data in source.cell(Tile(0, 0, 0), 3)] == [b"\x01"]
        assert source.read(Tile(3, 1, 6)) == b"\x01"
    connection.execute("INSERT INTO tiles VALUES (3, 1, 1, x'02')")
    with open_mbtiles(path) as source:
        for reading in (lambda: list(source.cell(Tile(0, 0, 0), 3)), lambda: source.read(Tile(3, 1, 6))):
            with pytest.raises(Corrupt) as caught:
                reading()
            assert caught.value.fields == {"path": str(path), "tile": "3/1/6"}


def test_a_place_that_is_no_whole_number_is_corrupt(db: tuple[Path, sqlite3.Connection]) -> None:
    path, connection = db
    connection.execute("INSERT INTO tiles VALUES (3, 1, 1.5, x'01')")
    with open_mbtiles(path) as source, pytest.raises(Corrupt):
        list(source.cell(Tile(0, 0, 0), 3))


def test_a_file_that_is_not_mbtiles_is_invalid(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    for content in (b"", b"neither SQLite nor anything", b"x" * 5000):
        path.write_bytes(content)
        with pytest.raises(Invalid) as caught:
            open_mbtiles(path)
        assert caught.value.fields["path"] == str(path)


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE tiles",
        "UPDATE metadata SET value = 'pbf'",
        "UPDATE metadata SET value = 'application/vnd.mapbox-vector-tile'",
        "UPDATE metadata SET value = 'pbf'; INSERT INTO tiles VALUES (0, 0, 0, x'1a')",
        "ALTER TABLE tiles DROP COLUMN tile_data",
        "DROP TABLE tiles; CREATE VIEW tiles AS SELECT * FROM images",
    ],
)
def test_a_schema_that_is_not_mbtiles_is_invalid(db: tuple[Path, sqlite3.Connection], statement: str) -> None:
    path, connection = db
    connection.executescript(statement)
    with pytest.raises(Invalid) as caught:
        open_mbtiles(path)
    assert caught.value.remedy


def test_metadata_that_is_not_text_is_corrupt(db: tuple[Path, sqlite3.Connection]) -> None:
    path, connection = db
    connection.execute("UPDATE metadata SET value = CAST(x'ff' AS TEXT)")
    with pytest.raises(Corrupt) as caught:
        open_mbtiles(path)
    assert caught.value.fields["path"] == str(path)


def test_a_locked_database_is_unavailable(terrain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builders.imagery.sqlite.BUSY_SECONDS", 0.0)
    path = tmp_path / "locked.mbtiles"
    path.write_bytes(terrain.read_bytes())
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable) as caught:
            open_mbtiles(path)
        assert caught.value.fields["path"] == str(path)


def test_missing_and_corrupt_tiles_of_the_terrain(tmp_path: Path) -> None:
    path = tmp_path / "holes.mbtiles"
    ids = tiles_of_bbox(AREA, ZOOM).tolist()
    write_terrain(path, AREA, [ZOOM], omit={tile_from_id(ids[0])}, corrupt={tile_from_id(ids[1])})
    with open_mbtiles(path) as source:
        found = everything(source)
    assert [number for number, _ in found] == ids[1:]
    with pytest.raises(Undecodable):
        decode(found[0][1])
    for _, data in found[1:]:
        assert decode(data).size == (256, 256)


@pytest.mark.skipif(SHARED is None, reason="FLIGHTBAG_SHARED does not name the shared data")
def test_the_aerial_imagery_covers_the_area_at_two_zooms() -> None:
    area = (-991750000, 470080000, -991350000, 470330000)
    with open_mbtiles(Path(SHARED or "") / "data/imagery/naip-20180716.mbtiles") as source:
        present = {}
        for zoom in (15, 16, 17):
            wanted = set(tiles_of_bbox(area, zoom).tolist())
            cells = {cell_of(tile_from_id(number)) for number in wanted}
            rows = {number: data for cell in cells for number, data in source.cell(cell, zoom)}
            present[zoom] = (len(wanted), len(wanted & set(rows)), len(rows))
            assert all(decode(data).size == (256, 256) for data in rows.values())
    assert present == {15: (25, 15, 15), 16: (72, 72, 88), 17: (240, 240, 374)}


def hostile(path: Path, tiles: str, image_format: str = "'png'", more: str = "") -> Path:
    """A database whose `tiles` and `format` are what the SQL says. The table n has the numbers 0 to 999."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE n (i integer)")
        db.executemany("INSERT INTO n VALUES (?)", ((i,) for i in range(1000)))
        db.executescript(more)
        db.execute(f"CREATE VIEW metadata AS SELECT 'format' AS name, {image_format} AS value")
        db.execute(f"CREATE VIEW tiles AS {tiles}")
        db.commit()
    return path


AS_TILES = "SELECT 4 AS zoom_level, {} AS tile_column, {} AS tile_row, {} AS tile_data FROM "
ENDLESS = "n, n AS a, n AS b, n AS c, n AS d"
BLOBS = "CREATE TABLE blobs (data); INSERT INTO blobs VALUES (zeroblob(16777216));"


def test_a_view_without_end_is_cut_off(tmp_path: Path) -> None:
    path = hostile(tmp_path / "rows.mbtiles", AS_TILES.format("0", "0", "x'00'") + ENDLESS)
    with open_mbtiles(path) as source, pytest.raises(Corrupt, match="rows"):
        list(source.cell(Tile(0, 0, 0), 4))


def test_a_view_of_huge_tiles_is_cut_off(tmp_path: Path) -> None:
    tiles = AS_TILES.format("n.i % 16", "(n.i / 16) % 16", "blobs.data") + "n, blobs"
    path = hostile(tmp_path / "bytes.mbtiles", tiles, more=BLOBS)
    with open_mbtiles(path) as source, pytest.raises(Corrupt, match="bytes"):
        list(source.cell(Tile(0, 0, 0), 4))


def test_a_view_that_yields_nothing_and_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builders.imagery.sqlite.MAX_QUERY_SECONDS", 0.3)
    tiles = AS_TILES.format("0", "0", "x'00'") + ENDLESS + " WHERE n.i + a.i + b.i + c.i + d.i < 0"
    path = hostile(tmp_path / "silent.mbtiles", tiles)
    with open_mbtiles(path) as source, pytest.raises(Corrupt, match="did not answer"):
        list(source.cell(Tile(0, 0, 0), 4))
    with pytest.raises(Corrupt, match="did not answer"):
        MBTilesSource(Database(path), Extent((-1799000000, *AREA[1:]), (4, 5)))


SLOW = (
    "hex(zeroblob(50000000))",
    "randomblob(1000000000)",
    "zeroblob(1000000000)",
    "replace(hex(zeroblob(5000000)), '0', 'aaaaaaaaaaaaaaaa')",
    "printf('%.*c', 1000000000, 'x')",
    "format('%1000000000d', 1)",
    "(SELECT group_concat(a.i) FROM n AS a, n AS b, n AS c)",
    "('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' LIKE '%a%a%a%a%a%a%a%a%a%a%a%a%a%a%ab')",
    "('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' GLOB '*a*a*a*a*a*a*a*a*a*a*a*a*a*a*ab')",
    "instr(zeroblob(9000000), zeroblob(4000000) || x'01')",
    "json_extract('[1]', '$[0]')",
    "(SELECT value FROM json_each('[1]'))",
    "(SELECT count(*) FROM pragma_table_info('n'))",
    "(SELECT count(*) FROM dbstat)",
    "(SELECT count(*) FROM sqlite_master)",
    "(SELECT count(*) FROM words)",
    "(SELECT count(*) FROM boxes)",
    "(SELECT x FROM generated)",
    "(SELECT y FROM stored)",
    "(WITH RECURSIVE m(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM m) SELECT max(i) FROM m)",
    "load_extension('x')",
    "row_number() OVER ()",
)
MORE = (
    "CREATE VIRTUAL TABLE words USING fts5(t); CREATE VIRTUAL TABLE boxes USING rtree(id, a, b);"
    "CREATE TABLE generated (i, x AS (hex(zeroblob(5000000)))); INSERT INTO generated VALUES (1);"
    "CREATE TABLE stored (i, y AS (i + 1) STORED); INSERT INTO stored VALUES (1);"
)


@pytest.mark.parametrize("value", SLOW)
def test_a_view_does_nothing_but_read_tables(tmp_path: Path, value: str) -> None:
    """Also within the time between two looks at the clock, which one function may exceed."""
    tiles = AS_TILES.format("0", "0", value) + "n"
    with pytest.raises(Invalid, match="not a usable MBTiles") as caught:
        open_mbtiles(hostile(tmp_path / "data.mbtiles", tiles, more=MORE))
    assert "coalesce" in caught.value.remedy
    with pytest.raises(Invalid, match="not a usable MBTiles"):
        open_mbtiles(hostile(tmp_path / "format.mbtiles", AS_TILES.format("0", "0", "x''") + "n", value, MORE))


def test_a_virtual_table_that_no_query_meets_does_no_harm(tmp_path: Path) -> None:
    path = hostile(tmp_path / "beside.mbtiles", AS_TILES.format("0", "0", "x'01'") + "n WHERE n.i = 0", more=MORE)
    with open_mbtiles(path) as source:
        assert source.read(Tile(4, 0, 15)) == b"\x01"


def test_tiles_that_are_a_virtual_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fts.mbtiles"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            "CREATE TABLE metadata (name, value); INSERT INTO metadata VALUES ('format', 'png');"
            "CREATE VIRTUAL TABLE tiles USING fts5(zoom_level, tile_column, tile_row, tile_data);"
        )
    with pytest.raises(Invalid, match="not a usable MBTiles"):
        open_mbtiles(path)


HONEST = {
    "a join by an id (mbutil, Mapbox, tippecanoe)": "SELECT 4 AS zoom_level, map.x AS tile_column, map.y AS tile_row, "
    "images.data AS tile_data FROM map JOIN images ON images.id = map.id",
    "a join that may find nothing": "SELECT 4 AS zoom_level, map.x AS tile_column, map.y AS tile_row, "
    "coalesce(images.data, x'01') AS tile_data FROM map LEFT JOIN images USING (id)",
    "several tables in one": "SELECT 4 AS zoom_level, x AS tile_column, y AS tile_row, x'01' AS tile_data FROM map "
    "WHERE x > 2 UNION ALL SELECT 4, x, y, x'01' FROM map WHERE x <= 2",
    "rows from the other side": "SELECT 4 AS zoom_level, x AS tile_column, (1 << 4) - 1 - (15 - y) AS tile_row, "
    "x'01' AS tile_data FROM map",
    "the same by a power": "SELECT 4 AS zoom_level, x AS tile_column, CAST(pow(2, 4) AS INT) - 1 - (15 - y) AS "
    "tile_row, ifnull(NULL, x'01') AS tile_data FROM map",
    "the newest of several": "SELECT DISTINCT 4 AS zoom_level, x AS tile_column, y AS tile_row, (SELECT data FROM "
    "images WHERE images.id = map.id ORDER BY age DESC LIMIT 1) AS tile_data FROM map",
    "a view of a view": "SELECT zoom_level, tile_column, tile_row, CASE WHEN tile_row > 0 THEN tile_data END AS "
    "tile_data FROM inner_tiles",
}


@pytest.mark.parametrize("tiles", HONEST.values(), ids=HONEST)
def test_a_view_that_joins_and_computes_is_read(tmp_path: Path, tiles: str) -> None:
    more = (
        "CREATE TABLE map (x, y, id text); INSERT INTO map VALUES (2, 3, 'a'), (3, 3, 'a');"
        "CREATE TABLE images (id text, data blob, age); INSERT INTO images VALUES ('a', x'01', 5);"
        "CREATE UNIQUE INDEX of_images ON images (id);"
        "CREATE VIEW inner_tiles AS SELECT 4 AS zoom_level, x AS tile_column, y AS tile_row, x'01' AS tile_data "
        "FROM map;"
    )
    with open_mbtiles(hostile(tmp_path / "honest.mbtiles", tiles, more=more)) as source:
        assert [data for _, data in source.cell(Tile(0, 0, 0), 4)] == [b"\x01", b"\x01"]
        assert source.read(Tile(4, 2, 12)) == b"\x01"


def test_views_of_views_without_end_are_refused(tmp_path: Path) -> None:
    """Each of 12 views reads the one before it ten times: 10**12 tables in one query."""
    more = "CREATE VIEW v0 AS SELECT i FROM n;" + "".join(
        f"CREATE VIEW v{k} AS {' UNION ALL '.join([f'SELECT i FROM v{k - 1}'] * 10)};" for k in range(1, 13)
    )
    with pytest.raises((Invalid, Unavailable, Corrupt), match=r"views\.mbtiles"):
        open_mbtiles(hostile(tmp_path / "views.mbtiles", AS_TILES.format("0", "0", "x''") + "v12 AS n", more=more))


def test_a_sort_of_more_than_the_machine_has_is_cut_off(tmp_path: Path) -> None:
    tiles = AS_TILES.format("n.i", "0", "blobs.data") + "n, blobs ORDER BY n.i DESC LIMIT 100000"
    path = hostile(tmp_path / "sort.mbtiles", tiles, more=BLOBS)
    with open_mbtiles(path) as source, pytest.raises(Unavailable, match="more memory than a query may take"):
        list(source.cell(Tile(0, 0, 0), 4))


def test_a_value_above_the_limit_is_corrupt(tmp_path: Path) -> None:
    tiles = AS_TILES.format("n.i", "0", "blobs.data || blobs.data || blobs.data") + "n, blobs"
    with (
        open_mbtiles(hostile(tmp_path / "large.mbtiles", tiles, more=BLOBS)) as source,
        pytest.raises(Corrupt, match="33554432 bytes"),
    ):
        list(source.cell(Tile(0, 0, 0), 4))


@pytest.mark.parametrize("value", ["zeroblob(9000000)", "CAST(zeroblob(9000000) AS text)"])
def test_a_huge_format_is_not_read(db: tuple[Path, sqlite3.Connection], value: str) -> None:
    """The second is of length 0 to SQLite, which counts up to the first zero."""
    path, connection = db
    connection.execute(f"UPDATE metadata SET value = {value}")
    tracemalloc.start()
    try:
        with open_mbtiles(path) as source:
            assert source.stated == ""
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


# As the world writes it

JPEG, PNG = b"\xff\xd8\xff\xe0 a tile", b"\x89PNG\r\n\x1a\n a tile"


@pytest.mark.parametrize(
    ("statement", "stated"),
    [
        ("DROP TABLE metadata", ""),
        ("DELETE FROM metadata", ""),
        ("UPDATE metadata SET value = NULL", ""),
        ("UPDATE metadata SET value = x'00'", ""),
        ("UPDATE metadata SET value = 17", "17"),
        ("UPDATE metadata SET value = 'image/jpeg'", "image/jpeg"),
        ("UPDATE metadata SET value = ' JPG '", " JPG "),
        ("UPDATE metadata SET value = 'hybrid'", "hybrid"),
        ("UPDATE metadata SET value = 'mixed'", "mixed"),
        ("UPDATE metadata SET value = 'pbf'", "pbf"),
        ("UPDATE metadata SET value = 'whatever an editor wrote'", "whatever an editor wrote"),
        ("UPDATE metadata SET value = 'a name that is longer than the sixty-four bytes which anyone reads'", ""),
        ("INSERT INTO metadata VALUES ('format', 'jpg')", "jpg and png"),
        ("ALTER TABLE metadata RENAME TO Metadata_; ALTER TABLE Metadata_ RENAME TO METADATA", "png"),
        ("ALTER TABLE tiles RENAME TO t; ALTER TABLE t RENAME TO Tiles", "png"),
    ],
)
def test_the_metadata_decide_nothing(db: tuple[Path, sqlite3.Connection], statement: str, stated: str) -> None:
    path, connection = db
    connection.execute("INSERT INTO tiles VALUES (0, 0, 0, ?), (1, 0, 0, ?)", (JPEG, PNG))
    connection.executescript(statement)
    with open_mbtiles(path) as source:
        assert (source.read(Tile(0, 0, 0)), source.read(Tile(1, 0, 1))) == (JPEG, PNG)
        assert source.stated == stated


def test_a_row_of_nothing_is_no_tile(db: tuple[Path, sqlite3.Connection]) -> None:
    """Also beside the row that has it, and with any of its columns."""
    path, connection = db
    connection.execute("INSERT INTO tiles VALUES (1, 0, 0, NULL), (1, 1, 1, NULL), (1, 1, 1, x'01')")
    for row in ("NULL, 0, 0", "1, NULL, 0", "1, 0, NULL", "NULL, NULL, NULL"):
        connection.execute(f"INSERT INTO tiles VALUES ({row}, x'02')")
    for indexed in (False, True):
        if indexed:
            connection.execute("CREATE INDEX tile_index ON tiles (zoom_level, tile_column, tile_row)")
        with open_mbtiles(path) as source:
            assert list(source.cell(Tile(0, 0, 0), 1)) == [(tile_id(Tile(1, 1, 0)), b"\x01")]
            assert source.read(Tile(1, 0, 1)) is None


def test_tiles_in_gzip_are_inflated(db: tuple[Path, sqlite3.Connection]) -> None:
    path, connection = db
    packed = gzip.compress(JPEG)
    rows = [(1, 0, 0, packed), (1, 0, 1, JPEG), (1, 1, 0, packed[:-1]), (1, 1, 1, gzip.compress(packed))]
    connection.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows)
    with open_mbtiles(path) as source:
        tiles = {tile_from_id(number): data for number, data in source.cell(Tile(0, 0, 0), 1)}
    assert tiles == {Tile(1, 0, 1): JPEG, Tile(1, 0, 0): JPEG, Tile(1, 1, 1): b"", Tile(1, 1, 0): packed}


def test_a_table_without_an_index_is_walked_once_for_each_zoom(terrain: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(terrain, tmp_path / "it's bare.mbtiles"))
    with closing(sqlite3.connect(path)) as writer, writer:
        writer.execute("DROP INDEX tile_index")
    asked: list[str] = []
    with open_mbtiles(terrain) as indexed, open_mbtiles(path) as bare:
        assert indexed.notes == ()
        bare._database._db.set_trace_callback(asked.append)
        assert everything(bare) == everything(bare) == everything(indexed)
        bare._database._db.set_trace_callback(None)
        plans = [" ".join(row[3] for row in bare._database._db.execute(f"EXPLAIN QUERY PLAN {one}")) for one in asked]
        (note,) = bare.notes
    assert sum(plan.startswith("SCAN") for plan in plans) == 1
    assert len(plans) > 2
    # The command in the note ends it.
    run_of(note, path)
    with open_mbtiles(path) as repaired, open_mbtiles(terrain) as indexed:
        assert repaired.notes == ()
        assert everything(repaired) == everything(indexed)


@pytest.mark.parametrize(
    ("index", "enough"),
    [
        ("zoom_level, tile_column, tile_row", True),
        ("zoom_level, tile_row, tile_column", True),
        ("tile_column, tile_row, zoom_level", True),
        ("tile_row", True),
        ("zoom_level", False),
        ("tile_data", False),
    ],
)
def test_an_index_that_leads_to_columns_or_rows_is_enough(
    db: tuple[Path, sqlite3.Connection], index: str, enough: bool
) -> None:
    path, connection = db
    connection.execute(f"CREATE INDEX some ON tiles ({index})")
    connection.execute("INSERT INTO tiles VALUES (1, 0, 0, x'01')")
    with open_mbtiles(path) as source:
        assert (source.notes == ()) == enough
        assert source.read(Tile(1, 0, 1)) == b"\x01"


def test_a_view_of_tables_without_an_index_is_read_with_a_note(tmp_path: Path) -> None:
    write_terrain(tmp_path / "view.mbtiles", AREA, [ZOOM], view=True)
    with open_mbtiles(tmp_path / "view.mbtiles") as source:
        assert source.notes == ()
        tiles = everything(source)
    with closing(sqlite3.connect(tmp_path / "view.mbtiles")) as writer, writer:
        writer.execute("DROP INDEX map_index")
    with open_mbtiles(tmp_path / "view.mbtiles") as source:
        assert "view tiles" in source.notes[0]
        assert everything(source) == tiles


def run_of(text: str, path: Path) -> None:
    """Runs the command for sqlite3 at the end of a remedy or a note."""
    program, file, statements = shlex.split(text[text.index("sqlite3 ") :])
    assert (program, file) == ("sqlite3", str(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript(statements)


def assert_mended_by(remedy: str, path: Path) -> None:
    """Each of the 16 rows of a column is found once the remedy has run."""
    run_of(remedy, path)
    with open_mbtiles(path) as source:
        assert [source.read(Tile(4, 3, 15 - row)) for row in range(16)] == [bytes([row]) for row in range(16)]


@pytest.mark.parametrize("type_", ["text", "varchar(20)", ""])
def test_places_in_text_are_refused_and_the_remedy_makes_numbers(
    db: tuple[Path, sqlite3.Connection], type_: str
) -> None:
    """Between "9" and "10" lies nothing."""
    path, connection = db
    connection.execute("DROP TABLE tiles")
    connection.execute(f"CREATE TABLE tiles (zoom_level {type_}, tile_column {type_}, tile_row {type_}, tile_data)")
    connection.executemany("INSERT INTO tiles VALUES ('4', '3', ?, ?)", [(str(row), bytes([row])) for row in range(16)])
    with pytest.raises(Invalid, match="hold text instead of whole numbers") as caught:
        open_mbtiles(path)
    assert_mended_by(caught.value.remedy, path)


def test_places_in_fractions_are_refused_and_the_remedy_makes_numbers(db: tuple[Path, sqlite3.Connection]) -> None:
    """Tables that pandas and ogr2ogr write have columns of the type REAL."""
    path, connection = db
    connection.execute("DROP TABLE tiles")
    connection.execute("CREATE TABLE tiles (zoom_level real, tile_column real, tile_row real, tile_data)")
    connection.executemany("INSERT INTO tiles VALUES (4, 3, ?, ?)", [(row, bytes([row])) for row in range(16)])
    with pytest.raises(Invalid, match="hold real instead of whole numbers") as caught:
        open_mbtiles(path)
    assert_mended_by(caught.value.remedy, path)


def test_the_columns_that_a_table_lacks_are_named(db: tuple[Path, sqlite3.Connection]) -> None:
    """RMaps, Locus and OruxMaps have a table tiles (x, y, z, s, image) of their own."""
    path, connection = db
    connection.executescript("DROP TABLE tiles; CREATE TABLE tiles (x int, y int, z int, s int, image blob)")
    with pytest.raises(Invalid, match="tiles lacks the columns zoom_level, tile_column, tile_row, tile_data") as caught:
        open_mbtiles(path)
    assert "convert" in caught.value.remedy


@pytest.mark.parametrize("columns", ["key text, val text", "json text"])
def test_metadata_of_other_columns_say_nothing(db: tuple[Path, sqlite3.Connection], columns: str) -> None:
    path, connection = db
    connection.executescript(f"DROP TABLE metadata; CREATE TABLE metadata ({columns})")
    connection.execute("INSERT INTO tiles VALUES (1, 0, 1, x'01')")
    with open_mbtiles(path) as source:
        assert source.read(Tile(1, 0, 0)) == b"\x01"
        assert (source.zooms, source.stated) == (None, "")


def test_a_table_without_an_index_may_be_too_large(
    db: tuple[Path, sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.imagery.tiletable.MAX_WALKED", 3)
    monkeypatch.setattr("builders.imagery.tiletable._AT_ONCE", 2)
    path, connection = db
    rows = [(2, 1, row, bytes([row])) for row in range(4)]
    connection.executemany("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows[:3])
    with open_mbtiles(path) as source:
        assert source.read(Tile(2, 1, 1)) == b"\x02"
    connection.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", rows[3])
    with (
        open_mbtiles(path) as source,
        pytest.raises(Invalid, match="more than 3 tiles of zoom 2 and no index") as caught,
    ):
        source.read(Tile(2, 1, 1))
    run_of(caught.value.remedy, path)
    with open_mbtiles(path) as source:
        assert source.read(Tile(2, 1, 1)) == b"\x02"


def test_texts_in_the_place_of_columns_do_not_fill_the_memory(db: tuple[Path, sqlite3.Connection]) -> None:
    path, connection = db
    connection.execute("INSERT INTO tiles VALUES (2, 1, 1, x'00')")
    connection.execute(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 40) "
        "INSERT INTO tiles SELECT 2, hex(zeroblob(1 << 19)), n, x'00' FROM n"
    )
    with open_mbtiles(path) as source:
        tracemalloc.start()
        try:
            with pytest.raises(Corrupt, match="both must be integers") as caught:
                source.read(Tile(2, 1, 1))
            assert tracemalloc.get_traced_memory()[1] < 12_000_000
        finally:
            tracemalloc.stop()
    assert len(caught.value.message) < 1000


# Without a folder that can be written to

READ = """
import sys
from pathlib import Path
from builders.grid.tiles import Tile
from store.errors import FlightbagError
from tests.builders.imagery.containers import open_mbtiles
try:
    with open_mbtiles(Path(sys.argv[1])) as source:
        source.stamp([])
        print(source.read(Tile(0, 0, 0)))
except FlightbagError as error:
    print(type(error).__name__, error.message, error.remedy)
"""


def on_a_read_only_medium(path: Path) -> str:
    command = [*behind_read_only_bind(path.parent), sys.executable, "-c", READ, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def in_wal_mode(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """A file of one tile in WAL mode, open; its newest row is in the log only."""
    (tmp_path / "medium").mkdir()
    path = tmp_path / "medium/wal.mbtiles"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE tiles (zoom_level, tile_column, tile_row, tile_data)")
        connection.execute("INSERT INTO tiles VALUES (0, 0, 0, x'01')")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("UPDATE tiles SET tile_data = x'02'")
        yield path, connection


def test_a_closed_file_in_wal_mode_is_read_on_a_read_only_medium(in_wal_mode: tuple[Path, sqlite3.Connection]) -> None:
    path, connection = in_wal_mode
    connection.close()
    assert sorted(one.name for one in path.parent.iterdir()) == ["wal.mbtiles"]
    assert on_a_read_only_medium(path) == r"b'\x02'"


def test_the_log_on_a_read_only_medium_counts(in_wal_mode: tuple[Path, sqlite3.Connection], tmp_path: Path) -> None:
    path, _ = in_wal_mode
    shutil.copytree(path.parent, tmp_path / "all")
    assert on_a_read_only_medium(tmp_path / "all/wal.mbtiles") == r"b'\x02'"
    # Without -shm SQLite cannot read the log there.
    (tmp_path / "all/wal.mbtiles-shm").unlink()
    answer = on_a_read_only_medium(tmp_path / "all/wal.mbtiles")
    assert answer.startswith("Unavailable")
    assert "wal.mbtiles-wal" in answer
    assert "copy both files into a folder that can be written to" in answer
    shutil.copytree(tmp_path / "all", tmp_path / "copy")
    with open_mbtiles(tmp_path / "copy/wal.mbtiles") as source:
        assert source.read(Tile(0, 0, 0)) == b"\x02"


def test_a_log_that_was_left_behind_is_missed(in_wal_mode: tuple[Path, sqlite3.Connection], tmp_path: Path) -> None:
    """-shm lies there only as long as -wal does; and a file is as long as it says."""
    path, connection = in_wal_mode
    for name in ("left", "short"):
        (tmp_path / name).mkdir()
    shutil.copy(path, tmp_path / "left")
    shutil.copy(path.with_name("wal.mbtiles-shm"), tmp_path / "left")
    connection.close()
    shutil.copy(path, tmp_path / "short")
    with (tmp_path / "short/wal.mbtiles").open("ab") as file:
        file.write(bytes(4096))
    for name, why in (("left", "its -wal does not"), ("short", "by its header")):
        answer = on_a_read_only_medium(tmp_path / name / "wal.mbtiles")
        assert answer.startswith("Unavailable")
        assert why in answer
        assert "together with its -wal" in answer


@pytest.mark.parametrize(
    ("said", "zooms"),
    [
        ("('minzoom', '3'), ('maxzoom', '18')", (3, 18)),
        ("('minzoom', 3), ('maxzoom', 3)", (3, 3)),
        ("('minzoom', '0'), ('maxzoom', '24')", (0, 24)),
        ("('minzoom', '3')", None),
        ("('maxzoom', '3')", None),
        ("('minzoom', '4'), ('maxzoom', '3')", None),
        ("('minzoom', '3'), ('maxzoom', '25')", None),
        ("('minzoom', '-1'), ('maxzoom', '3')", None),
        ("('minzoom', '3'), ('maxzoom', 'many')", None),
        ("('minzoom', '3'), ('maxzoom', '\u0663')", None),
        ("('minzoom', '3'), ('maxzoom', NULL)", None),
        ("('minzoom', x'33'), ('maxzoom', '3')", None),
        ("('minzoom', '3'), ('maxzoom', '3'), ('maxzoom', '4')", None),
    ],
)
def test_the_zooms_are_those_of_the_metadata(
    db: tuple[Path, sqlite3.Connection], said: str, zooms: tuple[int, int] | None
) -> None:
    path, connection = db
    # Without the type of the fixture's column, so that a number stays one.
    connection.execute("DROP TABLE metadata")
    connection.execute("CREATE TABLE metadata (name, value)")
    connection.execute(f"INSERT INTO metadata VALUES ('format', 'png'), {said}")
    with open_mbtiles(path) as source:
        assert source.zooms == zooms
        assert source.resolution_m is None


def stamp(path: Path) -> SourceStamp:
    with open_mbtiles(path) as source:
        return source.stamp([(cell_of(TILE), ZOOM)])


@pytest.fixture
def copy(terrain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(terrain, tmp_path / "copy.mbtiles"))


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "WAL"])
def test_to_read_changes_no_stamp(copy: Path, mode: str) -> None:
    with closing(sqlite3.connect(copy, isolation_level=None)) as writer:
        writer.execute(f"PRAGMA journal_mode = {mode}")
        writer.execute("DELETE FROM tiles WHERE rowid = 1")
    before = stamp(copy)
    with open_mbtiles(copy) as source:
        assert source.stamp([]) == before
        everything(source)
        assert source.stamp([(cell_of(TILE), ZOOM)]) == before
    (copy.parent / "link").symlink_to(copy)
    assert stamp(copy.parent / "link") == before


def test_what_another_writes_to_the_log_changes_the_stamp_also_through_a_link(copy: Path, tmp_path: Path) -> None:
    """SQLite keeps the log beside the file that a link leads to."""
    (tmp_path / "links").mkdir()
    link = tmp_path / "links/link.mbtiles"
    link.symlink_to(copy)
    with closing(sqlite3.connect(copy, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        with open_mbtiles(link) as source:
            before, database = source.stamp([]), copy.stat()
            wait_past(before, tmp_path)
            writer.execute("UPDATE tiles SET tile_data = x'02'")
            after = source.stamp([])
            assert after.digest != before.digest
            assert after.newest > before.newest
            assert copy.stat().st_mtime_ns == database.st_mtime_ns, "the database itself was written to"


def test_the_journal_of_a_writer_changes_the_stamp(copy: Path) -> None:
    with open_mbtiles(copy) as source:
        before = source.stamp([])
        copy.with_name(copy.name + "-journal").write_bytes(b"a journal")
        assert source.stamp([]).digest != before.digest
