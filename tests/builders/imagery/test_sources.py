"""The contract of tile sources, over all five containers; and how a source is opened by what it is."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.grid.tiles import Tile, cell_of, cell_range, tile_bounds, tile_id
from builders.imagery.sources import TileSource, open_source
from store.errors import Corrupt, Invalid, Unavailable
from tests.builders.imagery.containers import (
    HIGH,
    HOLE,
    ROUND,
    SIDE,
    WIDE,
    X0,
    Y0,
    ZOOM,
    Container,
    cells_of,
    change_in_place,
    encoded,
    replace_by_copy,
    tile_pixels,
    wait_past,
)

PIXELS = tile_pixels()
TILES = encoded(PIXELS)
CELLS = cells_of(PIXELS)
FIRST = Tile(ZOOM, X0, Y0)


def all_tiles(source: TileSource) -> list[tuple[int, bytes]]:
    return [item for cell, zoom in CELLS for item in source.cell(cell, zoom)]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What a source holds


def test_a_source_is_opened_by_what_it_is(container: Container, imagery: Path) -> None:
    with open_source(imagery, SIDE, ROUND) as source, container.open(imagery) as same_kind:
        assert type(source) is type(same_kind)
        assert source.path == imagery
        assert source.zooms is None or source.zooms[0] <= ZOOM <= source.zooms[1]
        assert source.resolution_m is None or source.resolution_m > 0


def test_every_tile_has_its_id_and_its_bytes_in_ascending_order(imagery: Path) -> None:
    assert len(CELLS) == 4
    with open_source(imagery, SIDE, ROUND) as source:
        assert all_tiles(source) == list(TILES.items())
        for cell, zoom in CELLS:
            numbers = [number for number, _ in source.cell(cell, zoom)]
            assert numbers == [number for number in TILES if number in range(*cell_range(cell, zoom))]


def test_a_tile_is_read_by_its_address(imagery: Path) -> None:
    with open_source(imagery, SIDE, ROUND) as source:
        assert {tile_id(tile): source.read(tile) for tile in PIXELS} == TILES


def test_only_a_raster_reaches_over_a_tile_that_it_lacks(container: Container, imagery: Path) -> None:
    ids = np.array([tile_id(FIRST), tile_id(HOLE), tile_id(Tile(ZOOM, X0 + 999, Y0))], np.uint64)
    with open_source(imagery, SIDE, ROUND) as source:
        reach = source.reach(ZOOM, ids)
    assert reach is None if container.name != "geotiff" else reach is not None and reach.tolist() == [2, 2, 0]


def test_a_source_says_where_its_tiles_lie(container: Container, imagery: Path) -> None:
    west, _, _, north = tile_bounds(Tile(ZOOM, X0, Y0))
    _, south, east, _ = tile_bounds(Tile(ZOOM, X0 + WIDE - 1, Y0 + HIGH - 1))
    with container.open(imagery) as source:
        assert source.bounds(ZOOM) == pytest.approx((west, south, east, north), abs=1e-6)
        assert container.name == "geotiff" or source.bounds(ZOOM - 1) is None


def test_bands_a_stretch_and_a_list_are_for_rasters(container: Container, imagery: Path, tmp_path: Path) -> None:
    if container.name == "geotiff":
        with pytest.raises(Invalid, match="no band 9"):
            open_source(imagery, SIDE, ROUND, bands=(1, 2, 9))
        return
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"bands": (1, 2, 3)}, "remove bands"),
        ({"stretch": (0, 4095)}, "remove stretch"),
        ({"beside": (tmp_path / "other.tif",)}, "a table [[tiles]] of its own"),
    )
    for keys, remedy in wrong:
        with pytest.raises(Invalid, match="is not a GeoTIFF") as caught:
            open_source(imagery, SIDE, ROUND, **keys)
        assert remedy in caught.value.remedy


def test_reading_again_gives_the_same(imagery: Path) -> None:
    with open_source(imagery, SIDE, ROUND) as source:
        assert all_tiles(source) == all_tiles(source)
        interrupted = source.cell(*CELLS[-1])
        first = next(interrupted)
        assert source.read(FIRST) == TILES[tile_id(FIRST)]
        assert [first, *interrupted] == list(source.cell(*CELLS[-1]))


def test_an_absent_tile_is_none_and_an_empty_cell_has_nothing(imagery: Path) -> None:
    outside = [HOLE, Tile(ZOOM, X0 - 1, Y0), Tile(ZOOM, X0, Y0 - 1), Tile(ZOOM, 0, 0), Tile(ZOOM, 32767, 32767)]
    with open_source(imagery, SIDE, ROUND) as source:
        assert [source.read(tile) for tile in outside] == [None] * len(outside)
        for cell in (Tile(11, 0, 0), cell_of(FIRST)._replace(x=cell_of(FIRST).x - 1), Tile(11, 2047, 2047)):
            assert list(source.cell(cell, ZOOM)) == []


def test_a_zoom_that_the_source_lacks_has_nothing(imagery: Path) -> None:
    above, below = Tile(ZOOM + 1, 2 * X0, 2 * Y0), Tile(10, X0 >> 5, Y0 >> 5)
    with open_source(imagery, SIDE, ROUND) as source:
        for tile in (above, below, Tile(0, 0, 0), Tile(24, X0 << 9, Y0 << 9)):
            assert source.read(tile) is None
            assert list(source.cell(cell_of(tile), tile.z)) == []


@pytest.mark.parametrize(
    ("cell", "zoom"), [(Tile(5, 0, 0), 4), (Tile(2, 0, 0), 7), (Tile(2, 9, 0), 6), (Tile(21, 0, 0), 25)]
)
def test_a_cell_of_another_zoom_is_invalid(imagery: Path, cell: Tile, zoom: int) -> None:
    with open_source(imagery, SIDE, ROUND) as source, pytest.raises(Invalid):
        list(source.cell(cell, zoom))


@pytest.mark.parametrize("tile", [Tile(3, 8, 0), Tile(3, -1, 0), Tile(3, 0, 8), Tile(25, 0, 0)])
def test_a_tile_that_does_not_exist_is_invalid(imagery: Path, tile: Tile) -> None:
    with open_source(imagery, SIDE, ROUND) as source, pytest.raises(Invalid):
        source.read(tile)


def test_a_link_to_a_source_is_that_source(imagery: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(imagery)
    with open_source(imagery, SIDE, ROUND) as source, open_source(tmp_path / "link", SIDE, ROUND) as linked:
        assert all_tiles(linked) == list(TILES.items())
        assert linked.stamp(CELLS) == source.stamp(CELLS)


# Open and closed


def test_reading_changes_no_byte_in_or_beside_the_source(imagery: Path) -> None:
    before = contents(imagery.parent)
    with open_source(imagery, SIDE, ROUND) as source:
        all_tiles(source)
        source.stamp(CELLS)
    assert contents(imagery.parent) == before


def test_nothing_stays_open_and_closing_twice_is_fine(container: Container, imagery: Path) -> None:
    open_source(imagery, SIDE, ROUND).close()  # libraries open files of their own once
    before = sorted(os.listdir("/proc/self/fd"))
    source = open_source(imagery, SIDE, ROUND)
    next(source.cell(*CELLS[0]))
    source.close()
    source.close()
    container.damage(imagery)
    with pytest.raises(Corrupt), open_source(imagery, SIDE, ROUND) as source:
        all_tiles(source)
    assert sorted(os.listdir("/proc/self/fd")) == before


# Stamps


def test_a_stamp_stays_while_nothing_changes(imagery: Path) -> None:
    with open_source(imagery, SIDE, ROUND) as source:
        before = source.stamp(CELLS)
        all_tiles(source)
        source.read(FIRST)
        assert source.stamp(CELLS) == before
    with open_source(imagery, SIDE, ROUND) as source:
        assert source.stamp(CELLS) == before
        assert before.newest > 0


def test_a_change_in_place_changes_the_stamp(container: Container, imagery: Path, tmp_path: Path) -> None:
    with open_source(imagery, SIDE, ROUND) as source:
        before = source.stamp(CELLS)
    wait_past(before, tmp_path)
    change_in_place(container.data_file(imagery))
    with open_source(imagery, SIDE, ROUND) as source:
        after = source.stamp(CELLS)
    assert after.digest != before.digest
    assert after.newest > before.newest


def test_a_copy_with_the_same_bytes_has_another_stamp(container: Container, imagery: Path) -> None:
    with open_source(imagery, SIDE, ROUND) as source:
        before = source.stamp(CELLS)
    replace_by_copy(container.data_file(imagery))
    with open_source(imagery, SIDE, ROUND) as source:
        assert source.stamp(CELLS).digest != before.digest
        assert all_tiles(source) == list(TILES.items())


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_a_source_that_is_replaced_while_it_is_open_has_no_stamp(imagery: Path, how: str) -> None:
    """Otherwise the stamp of one file would vouch for tiles of another."""
    with open_source(imagery, SIDE, ROUND) as source:
        all_tiles(source)
        replace_by_copy(imagery)
        if how == "removed":
            shutil.rmtree(imagery) if imagery.is_dir() else imagery.unlink()
        with pytest.raises(Unavailable, match="was replaced") as caught:
            source.stamp(CELLS)
    assert caught.value.fields["path"] == str(imagery)
    assert caught.value.remedy


# Damage, and what is no source


def test_a_damaged_source_is_corrupt_and_named(container: Container, imagery: Path) -> None:
    container.damage(imagery)
    with pytest.raises(Corrupt) as caught, open_source(imagery, SIDE, ROUND) as source:
        all_tiles(source)
    assert caught.value.fields["path"] == str(container.data_file(imagery))
    assert caught.value.remedy


def test_anything_else_is_invalid_and_nothing_waits(
    container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("link").symlink_to("nothing")
    Path("empty").touch()
    Path("text").write_text("neither an image nor a map")
    Path("long").write_bytes(b"x" * 5000)
    names = ["pipe", "socket", "folder", "link", "empty", "text", "long", "nothing", "text/below", "/dev/null"]
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for path in map(Path, names):
            for opening in (container.open, lambda path: open_source(path, SIDE, ROUND)):
                with pytest.raises(Invalid) as caught:
                    opening(path)
                assert caught.value.fields["path"] == str(path)
                assert caught.value.remedy


def test_a_path_that_the_system_cannot_follow_is_unavailable(container: Container, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / ("x" * 300)):
        for opening in (container.open, lambda path: open_source(path, SIDE, ROUND)):
            with pytest.raises(Unavailable) as caught:
                opening(path)
            assert caught.value.fields["path"] == str(path)
            assert caught.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_source_without_permission_is_unavailable(container: Container, imagery: Path) -> None:
    imagery.chmod(0)
    try:
        for opening in (container.open, lambda path: open_source(path, SIDE, ROUND)):
            with pytest.raises(Unavailable) as caught:
                opening(imagery)
            assert caught.value.fields["path"] == str(imagery)
    finally:
        imagery.chmod(0o700)


# Opening by the first bytes


@pytest.mark.parametrize(
    "start", [b"SQLite format 3\0", b"PMTiles\x03", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"], ids=repr
)
def test_a_file_that_only_begins_like_a_source_is_an_error(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "start"
    for data in (start, start + bytes(5000)):
        path.write_bytes(data)
        with pytest.raises((Corrupt, Invalid, Unavailable)):  # Unavailable: a library for it may be missing
            open_source(path, SIDE, ROUND)


@pytest.mark.parametrize("data", [b"", b"P", b"SQLite format 3", b"\xff\xd8\xff\xe0", b"II*", b"PMTile", b"x" * 5000])
def test_the_remedy_for_an_unknown_file_lists_the_kinds_of_source(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file.mbtiles"
    path.write_bytes(data)
    with pytest.raises(Invalid) as caught:
        open_source(path, SIDE, ROUND)
    assert caught.value.fields["path"] == str(path)
    assert ("is empty" in caught.value.message) == (data == b"")
    for kind in ("MBTiles", "GeoPackage", "PMTiles", "GeoTIFF", "z/x/y"):
        assert kind in caught.value.remedy
