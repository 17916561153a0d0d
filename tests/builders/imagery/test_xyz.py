"""A folder of tiles as a source: as other tools write it, names, links, files that cannot be tiles, and stamps."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.descriptors.decoding import Undecodable, decode
from builders.example.terrain import render_jpeg, write_terrain
from builders.grid.tiles import MAX_TILE_BYTES, Tile, cell_of, cell_range, tile_from_id, tile_id, tiles_of_bbox
from builders.imagery.inflate import unpacked
from builders.imagery.png import write_png
from builders.imagery.roworder import Extent
from builders.imagery.sources import TileSource
from builders.imagery.stamps import SourceStamp
from builders.imagery.xyz import XyzSource
from store.errors import Corrupt, Invalid, Unavailable
from tests.builders.imagery.containers import open_folder, open_mbtiles, wait_past

AREA = (-991750000, 470080000, -991600000, 470200000)
ZOOMS = (14, 15)
WORLD = Tile(0, 0, 0)


@pytest.fixture(scope="module")
def terrain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("terrain") / "terrain.mbtiles"
    write_terrain(path, AREA, ZOOMS)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the tile 3/1/6 of one byte."""
    put(tmp_path / "tiles", "3/1/6.png", b"\x01")
    return tmp_path / "tiles"


def put(folder: Path, name: str, data: bytes = b"\x01") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def cells_of_area() -> list[tuple[Tile, int]]:
    return [
        (tile_from_id(number), zoom)
        for zoom in ZOOMS
        for number in sorted({tile_id(cell_of(tile_from_id(n))) for n in tiles_of_bbox(AREA, zoom).tolist()})
    ]


def everything(source: TileSource) -> list[tuple[int, bytes]]:
    return [item for cell, zoom in cells_of_area() for item in source.cell(cell, zoom)]


def found(folder: Path, cell: Tile = WORLD, zoom: int = 3) -> list[tuple[int, bytes]]:
    with open_folder(folder) as source:
        return list(source.cell(cell, zoom))


def stamp(folder: Path, *cells: tuple[Tile, int]) -> SourceStamp:
    with open_folder(folder) as source:
        return source.stamp(cells or [(WORLD, 3)])


# The same imagery


def run_mbutil(what: str, source: Path, target: Path, **options: str) -> None:
    """In a process of its own: it leaves its database open, and locked."""
    call = f"{what}({str(source)!r}, {str(target)!r}, scheme='xyz', silent=True, **{options!r})"
    subprocess.run([sys.executable, "-c", f"import mbutil; mbutil.{call}"], check=True)


def test_what_mbutil_unpacks_and_packs_again_is_the_same_imagery(terrain: Path, tmp_path: Path) -> None:
    loose, packed = tmp_path / "loose", tmp_path / "packed.mbtiles"
    # Named .png whatever they are, which is its default: names say nothing about formats.
    run_mbutil("mbtiles_to_disk", terrain, loose)
    with open_folder(loose) as source:
        assert source.zooms == ZOOMS
        assert source.resolution_m is None
        as_folder = everything(source)
    for path in loose.rglob("*.png"):
        path.rename(path.with_suffix(".jpg"))  # it packs only what the metadata says
    run_mbutil("disk_to_mbtiles", loose, packed, format="jpg")
    with open_mbtiles(terrain) as first, open_mbtiles(packed) as again:
        assert as_folder == everything(first) == everything(again)
        assert again.zooms == ZOOMS
    assert len(as_folder) == sum(len(tiles_of_bbox(AREA, zoom)) for zoom in ZOOMS)
    assert all(data == render_jpeg(tile_from_id(number)) for number, data in as_folder)


PLACES = st.integers(0, 6).flatmap(
    lambda z: st.builds(Tile, st.just(z), st.integers(0, (1 << z) - 1), st.integers(0, (1 << z) - 1))
)
IMAGERY = st.dictionaries(PLACES, st.binary(max_size=3), min_size=1, max_size=40)


@given(
    IMAGERY,
    st.sampled_from([".jpg", ".jpeg", ".jfif", ".png", ".webp", ".JPG", ".WebP", "", "@2x", "@2x.png", "@2X.JFIF"]),
)
def test_a_folder_and_a_database_of_the_same_tiles_are_the_same_source(imagery: dict[Tile, bytes], ending: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, database = Path(name) / "tiles", Path(name) / "tiles.mbtiles"
        with closing(sqlite3.connect(database, isolation_level=None)) as db:
            db.execute("CREATE TABLE metadata (name, value)")
            db.execute("INSERT INTO metadata VALUES ('format', 'png')")
            db.execute("CREATE TABLE tiles (zoom_level, tile_column, tile_row, tile_data)")
            for tile, data in imagery.items():
                put(folder, f"{tile}{ending}", data)
                db.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", (tile.z, tile.x, (1 << tile.z) - 1 - tile.y, data))
        cells = {(cell_of(tile), tile.z) for tile in imagery} | {(Tile(2, 1, 1), 6), (Tile(3, 7, 7), 3)}
        with open_folder(folder) as xyz, open_mbtiles(database) as mbtiles:
            assert xyz.zooms == (min(tile.z for tile in imagery), max(tile.z for tile in imagery))
            whole = []
            for cell, zoom in cells:
                items = list(xyz.cell(cell, zoom))
                assert items == list(mbtiles.cell(cell, zoom))
                assert all(number in range(*cell_range(cell, zoom)) for number, _ in items)
                whole += items
            assert dict(whole) == {tile_id(tile): unpacked(data) for tile, data in imagery.items()}
            for tile in [*imagery, Tile(6, 5, 5)]:
                assert xyz.read(tile) == mbtiles.read(tile) == (unpacked(imagery[tile]) if tile in imagery else None)


# Names


@pytest.mark.parametrize(
    "name",
    [
        "x/1/1.png", "03/1/1.png", "3/01/1.png", "3/+1/1.png", "3/1/01.png", "3/1/1.gif", "3/1/1.png.tmp",
        "3/1/1@2.png", "3/1/1@3x.png", "3/1/@2x.png", "3/1/1@2x.tif", "3/1/1.", "3/1/01", "3/1/1/x.png",
        "3/1/1.0.png", "3/1/-1.png", "3/1/\u0661.png", "3/1/ 1.png", "3/8/1.png", "3/1/8.png", "25/1/1.png", "3/1/.png",
    ],
)  # fmt: skip
def test_a_name_that_is_no_tile_is_not_looked_at(folder: Path, name: str) -> None:
    put(folder, name)
    with open_folder(folder) as source:
        assert source.zooms == (3, 3)
        assert list(source.cell(WORLD, 3)) == [(tile_id(Tile(3, 1, 6)), b"\x01")]


def test_a_name_of_bytes_that_are_no_text_is_not_looked_at(folder: Path) -> None:
    (folder / "3/1" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    assert found(folder) == [(tile_id(Tile(3, 1, 6)), b"\x01")]
    stamp(folder)


def test_a_folder_without_a_zoom_is_invalid(tmp_path: Path) -> None:
    put(tmp_path / "some", "z3/1/1.png")
    put(tmp_path, "file")
    for path in (tmp_path / "some", tmp_path / "none", tmp_path / "file", tmp_path / "file/3"):
        with pytest.raises(Invalid) as caught:
            open_folder(path)
        assert caught.value.fields["path"] == str(path)
        assert caught.value.remedy


@pytest.mark.parametrize(("cell", "zoom"), [(Tile(5, 0, 0), 4), (WORLD, 5), (Tile(2, 9, 0), 6), (Tile(21, 0, 0), 25)])
def test_a_cell_of_another_zoom_has_no_stamp(folder: Path, cell: Tile, zoom: int) -> None:
    with open_folder(folder) as source, pytest.raises(Invalid):
        source.stamp([(cell, zoom)])


# What a tile may be


def test_a_tile_twice_must_be_the_same_twice(folder: Path) -> None:
    put(folder, "3/1/6.JPG", b"\x01")
    assert found(folder) == [(tile_id(Tile(3, 1, 6)), b"\x01")]
    put(folder, "3/1/6.webp", b"\x02")
    with open_folder(folder) as source:
        for reading in (lambda: list(source.cell(WORLD, 3)), lambda: source.read(Tile(3, 1, 6))):
            with pytest.raises(Corrupt) as caught:
                reading()
            assert caught.value.fields == {"path": str(folder), "tile": "3/1/6"}


def test_of_two_files_of_a_tile_the_one_of_its_size_counts(folder: Path) -> None:
    """As tile servers write them: 6.png beside 6@2x.png. Names do not decide which is which."""
    small, large = (
        write_png(np.random.default_rng(side).integers(0, 256, (side, side, 3), np.uint8)) for side in (16, 32)
    )
    for first, second in ((small, large), (large, small)):
        put(folder, "3/1/6.png", first)
        put(folder, "3/1/6@2x.png", second)
        assert found(folder) == [(tile_id(Tile(3, 1, 6)), small)]  # `open_folder` opens tiles of 16 pixels
        with open_folder(folder) as source:
            assert source.read(Tile(3, 1, 6)) == small
    put(folder, "3/1/6.png", b"\x01")
    put(folder, "3/1/6@2x.png", large)
    with open_folder(folder) as source, pytest.raises(Corrupt, match="twice"):
        source.read(Tile(3, 1, 6))


def test_a_tile_in_gzip_is_inflated(folder: Path) -> None:
    put(folder, "3/1/6.png", gzip.compress(b"\x02"))
    assert found(folder) == [(tile_id(Tile(3, 1, 6)), b"\x02")]


def test_files_of_other_names_are_counted_and_one_is_named(folder: Path) -> None:
    around = Extent((-1790000000, -700000000, 1790000000, 700000000), (3,))
    with XyzSource(folder, 16, around, "xyz") as source:
        assert (source.stated, source.notes) == ("png", ())
    for name in ("3/1/6.tif", "3/1/6.png.aux.xml", "3/2/tile_5.png", "3/2/.hidden", "3/2/5.JFIF"):
        put(folder, name)
    with XyzSource(folder, 16, around, "xyz") as source:
        (note,) = source.notes
        assert source.stated == ""
    assert "which are not read: 3, such as" in note
    assert note.endswith(str(folder / "3/1/6.png.aux.xml"))


@pytest.mark.parametrize("size", [0, MAX_TILE_BYTES + 1])
def test_a_file_that_can_be_no_tile_is_present_and_undecodable(folder: Path, size: int) -> None:
    os.truncate(folder / "3/1/6.png", size)
    ((_, data),) = found(folder)
    assert data == b""
    with pytest.raises(Undecodable):
        decode(data)


def test_the_largest_tile_is_read_whole(folder: Path) -> None:
    os.truncate(folder / "3/1/6.png", MAX_TILE_BYTES)
    ((_, data),) = found(folder)
    assert len(data) == MAX_TILE_BYTES


@pytest.mark.skipif(not os.path.exists("/proc/version"), reason="no file at hand that has more than it says")
def test_a_file_with_more_than_it_says_is_not_cut_off(folder: Path) -> None:
    """As one is that somebody writes to meanwhile."""
    (folder / "3/1/2.png").symlink_to("/proc/version")
    with pytest.raises(Unavailable, match="written to"):
        found(folder)


def in_place_of_a_tile(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to nothing":
        path.symlink_to("nothing")
    else:
        path.symlink_to(path.name)


KINDS = ["pipe", "folder", "socket", "device", "link to nothing", "link to itself"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_corrupt_and_nothing_waits(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # a socket's path may not be long
    in_place_of_a_tile(folder / "3/1/2.png", kind)
    with open_folder(folder) as source:
        for reading in (lambda: list(source.cell(WORLD, 3)), lambda: source.read(Tile(3, 1, 2))):
            with pytest.raises(Corrupt) as caught:
                reading()
            assert caught.value.fields == {"path": str(folder / "3/1/2.png")}
        assert source.read(Tile(3, 1, 6)) == b"\x01"


@pytest.mark.parametrize("place", ["4", "3/2"])
@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_what_stands_in_the_place_of_a_folder_is_not_an_absent_one(folder: Path, place: str, kind: str) -> None:
    (folder / place).write_bytes(b"") if kind == "file" else (folder / place).symlink_to("nothing")
    with pytest.raises(Corrupt) as caught:
        found(folder)
    assert caught.value.fields == {"path": str(folder / place)}
    if place != "4":
        with pytest.raises(Corrupt):
            stamp(folder)


def test_links_are_what_they_lead_to(folder: Path, tmp_path: Path) -> None:
    (folder / "3/1/7.png").symlink_to(put(tmp_path, "elsewhere", b"\x07"))
    put(tmp_path / "column", "0.png", b"\x08")
    (folder / "3/2").symlink_to(tmp_path / "column")
    (tmp_path / "link").symlink_to(folder)
    expected = {Tile(3, 1, 6): b"\x01", Tile(3, 1, 7): b"\x07", Tile(3, 2, 0): b"\x08"}
    assert dict(found(tmp_path / "link")) == {tile_id(tile): data for tile, data in expected.items()}
    assert stamp(tmp_path / "link") == stamp(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("place", ["3/1/6.png", "3/1", "."])
def test_what_may_not_be_read_is_unavailable(folder: Path, place: str) -> None:
    mode = (folder / place).stat().st_mode
    (folder / place).chmod(0)
    try:
        with pytest.raises(Unavailable):
            found(folder)
    finally:
        (folder / place).chmod(mode)


def test_a_disk_that_went_away_is_no_map_without_tiles(folder: Path) -> None:
    with open_folder(folder) as source:
        folder.rename(folder.parent / "moved")
        with pytest.raises(Unavailable, match="was replaced"):
            list(source.cell(WORLD, 3))
        shutil.copytree(folder.parent / "moved", folder)
        for asking in (lambda: list(source.cell(WORLD, 3)), lambda: source.stamp([(WORLD, 3)])):
            with pytest.raises(Unavailable, match="was replaced") as caught:
                asking()
            assert caught.value.fields["path"] == str(folder)


# Stamps


def test_to_read_changes_no_stamp(folder: Path) -> None:
    before = stamp(folder)
    with open_folder(folder) as source:
        list(source.cell(WORLD, 3))
        source.read(Tile(3, 1, 6))
        assert source.stamp([(WORLD, 3)]) == before
        assert source.stamp([(Tile(3, 1, 6), 3)]) != before
    assert stamp(folder) == before


def changed_in_place(folder: Path) -> None:
    path = folder / "3/1/6.png"
    state = path.stat()
    path.write_bytes(b"\x02")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)


def replaced(folder: Path) -> None:
    """By a file of the same size and mtime, and with the mtime of its folder put back too."""
    state = (folder / "3/1").stat()
    shutil.copy2(folder / "3/1/6.png", folder.parent / "other")
    os.replace(folder.parent / "other", folder / "3/1/6.png")
    os.utime(folder / "3/1", ns=(state.st_atime_ns, state.st_mtime_ns))


def linked_elsewhere(folder: Path) -> None:
    (folder / "3/1").rename(folder / "column")
    shutil.copytree(folder / "column", folder.parent / "column")
    (folder / "3/1").symlink_to(folder.parent / "column")


CHANGES = {
    "in place": changed_in_place,
    "replaced": replaced,
    "added": lambda folder: put(folder, "3/1/5.png"),
    "added with another extension": lambda folder: put(folder, "3/1/6.jpg"),
    "added in a new column": lambda folder: put(folder, "3/7/5.png"),
    "an empty column": lambda folder: (folder / "3/7").mkdir(),
    "removed": lambda folder: (folder / "3/1/6.png").unlink(),
    "column removed": lambda folder: shutil.rmtree(folder / "3/1"),
    "zoom removed": lambda folder: shutil.rmtree(folder / "3"),
    "renamed": lambda folder: (folder / "3/1/6.png").rename(folder / "3/1/6.jpg"),
    "truncated": lambda folder: os.truncate(folder / "3/1/6.png", 0),
    "linked elsewhere": linked_elsewhere,
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_tile_changes_the_stamp(folder: Path, change: str) -> None:
    put(folder, "2/0/0.png")  # so that a zoom is left
    before = stamp(folder)
    wait_past(before, folder.parent)
    CHANGES[change](folder)
    assert stamp(folder).digest != before.digest


def test_what_changes_in_another_cell_changes_no_stamp(folder: Path) -> None:
    """Even in the same column: only a file that comes or goes changes the folder itself."""
    near, far = put(folder, "5/3/3.png"), put(folder, "5/3/20.png")
    before = stamp(folder, (Tile(1, 0, 0), 5))
    wait_past(before, folder.parent)
    far.write_bytes(b"\x02")
    assert stamp(folder, (Tile(1, 0, 0), 5)) == before
    assert stamp(folder, (Tile(1, 0, 1), 5)).newest > before.newest
    near.write_bytes(b"\x02")
    assert stamp(folder, (Tile(1, 0, 0), 5)).newest > before.newest


def test_a_stamp_of_two_cells_is_of_both_in_any_order(folder: Path) -> None:
    files = [put(folder, "5/3/3.png"), put(folder, "5/3/20.png"), put(folder, "5/30/20.png")]
    cells = [(Tile(1, 0, 0), 5), (Tile(1, 1, 1), 5), (Tile(1, 0, 1), 5), (WORLD, 3)]
    before = stamp(folder, *cells)
    assert stamp(folder, *reversed(cells), cells[0]) == before
    for path in [*files, folder / "3/1/6.png"]:
        wait_past(before, folder.parent)
        path.write_bytes(b"\x02")
        after = stamp(folder, *cells)
        assert after.digest != before.digest
        assert after.newest > before.newest
        before = after


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_has_a_stamp(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    in_place_of_a_tile(folder / "3/1/2.png", kind)
    if kind == "link to itself":
        with pytest.raises(Unavailable):
            stamp(folder)
    else:
        assert stamp(folder) == stamp(folder)
