"""The inventory: whole cells, the first source wins, one digest for every container, and tiles read again."""

from __future__ import annotations

import datetime
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pmtiles.tile import TileType

from builders.grid.tiles import Tile, cell_of, tile_from_id, tile_id
from builders.grid.views import View
from builders.imagery.inventory import (
    COVERAGE_CONTEXT,
    LACKS,
    LevelRequest,
    SourceSpec,
    TileSources,
    cells_of,
    cells_over,
)
from builders.imagery.statcache import StatCache
from builders.recipe import tile_list
from store.errors import Corrupt
from store.format.ids import derive
from tests.builders.imagery.containers import (
    HOLE,
    ROUND,
    SIDE,
    X0,
    Y0,
    ZOOM,
    Container,
    change_in_place,
    encoded,
    tile_pixels,
)

TILES = encoded(tile_pixels())
DAY = datetime.date(2018, 7, 16)


def ids(*tiles: Tile) -> NDArray[np.uint64]:
    return np.array(sorted(map(tile_id, tiles)), np.uint64)


REQUIRED = ids(HOLE, Tile(ZOOM, X0, Y0), Tile(ZOOM, X0, Y0 + 1), Tile(ZOOM, X0 + 2, Y0 + 2))
WANTED = {ZOOM: LevelRequest(REQUIRED, cells_of(ZOOM, REQUIRED))}


def spec(path: Path) -> SourceSpec:
    return SourceSpec(path, (ZOOM,), DAY)


def test_an_inventory_lists_whole_cells_and_the_tiles_of_the_area(container: Container, imagery: Path) -> None:
    with TileSources([spec(imagery)], SIDE, ROUND.bbox) as sources:
        inventory = sources.inventory(WANTED)
    level = inventory.level(ZOOM)
    whole = [n for n in TILES if tile_id(cell_of(tile_from_id(n))) in WANTED[ZOOM].cells.tolist()]
    assert level.ids.tolist() == whole
    assert level.hashes.tobytes() == b"".join(blake3(TILES[number]).digest() for number in whole)
    assert level.required.tolist() == REQUIRED.tolist()
    assert level.present.tolist() == [number != tile_id(HOLE) for number in REQUIRED.tolist()]
    assert level.has_zoom
    assert [LACKS[lacks] for lacks in level.lacks[~level.present]] == [
        "masked" if container.name == "geotiff" else "absent"
    ]
    assert set(level.captured.tolist()) == {0, int(datetime.datetime(2018, 7, 16, tzinfo=datetime.UTC).timestamp())}
    assert (inventory.tiles, inventory.zooms, inventory.fresh) == (4, (ZOOM,), True)


def test_progress_is_the_number_of_tiles_of_each_cell(imagery: Path) -> None:
    told: list[int] = []
    with TileSources([spec(imagery)], SIDE, ROUND.bbox) as sources:
        sources.inventory(WANTED, told.append)
    cells = [tile_id(cell_of(tile_from_id(number))) for number in TILES]
    assert told == [cells.count(cell) for cell in WANTED[ZOOM].cells.tolist()]


def test_the_coverage_digest_is_of_ids_and_hashes_alone(imagery: Path) -> None:
    """So it is the same for every container of the same tiles; an absent tile counts as 32 zero bytes."""
    hashes = [blake3(TILES[number]).digest() if number in TILES else bytes(32) for number in REQUIRED.tolist()]
    with TileSources([spec(imagery)], SIDE, ROUND.bbox) as sources:
        assert sources.inventory(WANTED).digest == derive(
            COVERAGE_CONTEXT, tile_list(REQUIRED, np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32))
        )


def test_the_first_source_with_a_tile_wins(container: Container, imagery: Path, tmp_path: Path) -> None:
    one, other = Tile(ZOOM, X0, Y0), Tile(ZOOM, X0, Y0 + 1)
    first = tmp_path / "first"
    first.mkdir()
    (first / f"{ZOOM}/{X0}").mkdir(parents=True)
    (first / f"{one}.png").write_bytes(b"first")
    with TileSources([spec(first), spec(imagery)], SIDE, ROUND.bbox) as sources:
        assert list(sources.cell(cell_of(one), ZOOM)) == [
            (number, b"first" if number == tile_id(one) else data, 0 if number == tile_id(one) else 1)
            for number, data in TILES.items()
            if cell_of(tile_from_id(number)) == cell_of(one)
        ]
        level = sources.inventory(WANTED).level(ZOOM)
    hashes = {number: level.hashes[place].tobytes() for place, number in enumerate(level.ids.tolist())}
    assert hashes[tile_id(one)] == blake3(b"first").digest()
    assert hashes[tile_id(other)] == blake3(TILES[tile_id(other)]).digest()


def test_of_several_sources_the_nearest_to_a_missing_tile_says_why(container: Container, tmp_path: Path) -> None:
    """The first source has none of the tiles: what the other one lacks is missing for its reason, in either order."""
    near, far = tmp_path / "near", tmp_path / "far"
    container.write(near, tile_pixels())
    (far / f"{ZOOM}/0").mkdir(parents=True)
    raster = container.name == "geotiff"
    beyond = Tile(ZOOM, X0 + 999, Y0)
    wanted = ids(HOLE, beyond)
    for order in ([near, far], [far, near]):
        with TileSources([spec(path) for path in order], SIDE, ROUND.bbox) as sources:
            level = sources.inventory({ZOOM: LevelRequest(wanted, cells_of(ZOOM, wanted))}).level(ZOOM)
        reasons = dict(zip(level.required.tolist(), [LACKS[lacks] for lacks in level.lacks], strict=True))
        assert reasons == {
            tile_id(HOLE): "masked" if raster else "absent",
            tile_id(beyond): "outside-raster" if raster else "absent",
        }


def test_a_zoom_that_no_source_has_is_no_wrong_place(container: Container, imagery: Path) -> None:
    """The zooms of the source are named, and not its bounds beside those of the area; of a raster, what adds zooms."""
    lower = ids(Tile(3, X0 >> ZOOM - 3, Y0 >> ZOOM - 3))
    wanted = {3: LevelRequest(lower, cells_of(3, lower)), **WANTED}
    with TileSources([replace(spec(imagery), zooms=(3, ZOOM))], SIDE, ROUND.bbox) as sources:
        inventory = sources.inventory(wanted)
        first, last = sources._sources[0][1].zooms or (0, 0)
    hints = [hint for hint in inventory.hints if "zooms" in hint]
    text = f"{imagery} has the zooms {first} to {last}, not 3"
    if container.name == "geotiff":
        text += "; overviews in a GeoTIFF (gdaladdo) add lower ones"
    assert hints == [text]
    assert not any("has imagery at" in hint for hint in inventory.hints)


def test_tiles_are_read_again_as_they_were_hashed(imagery: Path) -> None:
    present = REQUIRED[tile_id(HOLE) != REQUIRED]
    with TileSources([spec(imagery)], SIDE, ROUND.bbox) as sources:
        level = sources.inventory(WANTED).level(ZOOM)
        assert dict(sources.read_again(level, present)) == {number: TILES[number] for number in present.tolist()}


def test_a_tile_that_differs_from_its_hash_is_corrupt(imagery: Path) -> None:
    present = REQUIRED[tile_id(HOLE) != REQUIRED]
    with TileSources([spec(imagery)], SIDE, ROUND.bbox) as sources:
        level = sources.inventory(WANTED).level(ZOOM)
        hashes = level.hashes.copy()
        hashes[level.find(present)[1][0]] ^= 1
        with pytest.raises(Corrupt, match="changed while the mission was being built") as caught:
            list(sources.read_again(replace(level, hashes=hashes), present))
        assert caught.value.fields["tile"] == str(tile_from_id(int(present[0])))
        assert caught.value.remedy


def test_a_tile_that_is_gone_is_corrupt(tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    tile = Tile(ZOOM, X0, Y0)
    for name in (f"{tile}.png", f"{ZOOM}/{X0}/{Y0 - 1}.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x01")
    wanted = ids(tile)
    with TileSources([spec(folder)], SIDE, ROUND.bbox) as sources:
        level = sources.inventory({ZOOM: LevelRequest(wanted, cells_of(ZOOM, wanted))}).level(ZOOM)
        (folder / f"{tile}.png").unlink()
        with pytest.raises(Corrupt):
            list(sources.read_again(level, wanted))


def test_a_cached_inventory_is_used_until_a_source_changes(
    container: Container, imagery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.imagery.statcache.GRANULARITY_NS", -(10**12))  # files of a moment ago count too
    cache = StatCache(tmp_path / "cache")
    with TileSources([spec(imagery)], SIDE, ROUND.bbox, cache) as sources:
        first = sources.inventory(WANTED)
        assert first.fresh
        assert not (again := sources.inventory(WANTED, remembered=True)).fresh
        assert again.digest == first.digest
        assert sources.inventory(WANTED).fresh
    file = container.data_file(imagery)
    change_in_place(file)
    file.touch()
    with TileSources([spec(imagery)], SIDE, ROUND.bbox, cache) as sources:
        assert sources.inventory(WANTED, remembered=True).fresh


def test_the_order_of_the_rows_is_part_of_what_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builders.imagery.statcache.GRANULARITY_NS", -(10**12))
    folder, cache = tmp_path / "tiles", StatCache(tmp_path / "cache")
    for tile in map(tile_from_id, TILES):
        file = folder / f"{tile}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\x1f\x8b" if tile.x == X0 else TILES[tile_id(tile)])
    with TileSources([spec(folder)], SIDE, ROUND.bbox, cache) as sources:
        read = sources.inventory(WANTED)
        assert read.hints == ()
        remembered = sources.inventory(WANTED, remembered=True)
    assert not remembered.fresh
    assert remembered.no_image == read.no_image
    assert {tile_from_id(number).x for number in read.no_image} == {X0}
    assert len(read.no_image) == 2
    with TileSources([replace(spec(folder), scheme="tms")], SIDE, ROUND.bbox, cache) as sources:
        flipped = sources.inventory(WANTED, remembered=True)
    assert flipped.fresh
    assert not flipped.level(ZOOM).present.any()
    (hint,) = flipped.hints
    assert str(folder) in hint
    assert '"xyz"' in hint


def test_what_a_source_states_and_its_tiles_contradict_is_told_and_read_all_the_same(
    container: Container, imagery: Path
) -> None:
    if container.name == "mbtiles":
        with closing(sqlite3.connect(imagery)) as db, db:
            db.execute("UPDATE metadata SET value = 'image/jpeg' WHERE name = 'format'")
    elif container.name == "pmtiles":
        data = bytearray(imagery.read_bytes())
        data[99] = TileType.JPEG.value
        imagery.write_bytes(data)
    elif container.name == "xyz":
        for file in list(imagery.rglob("*.png")):
            file.rename(file.with_suffix(".JPEG"))
    with TileSources([spec(imagery)], SIDE, ROUND.bbox) as sources:
        inventory = sources.inventory(WANTED)
    assert inventory.level(ZOOM).present.sum() == 3
    told = [hint for hint in inventory.hints if "no index" not in hint]
    if container.name in ("geopackage", "geotiff"):  # they state none
        assert told == []
    else:
        (hint,) = told
        assert str(imagery) in hint
        assert "its tiles are PNG, as which they are read" in hint


def test_tiles_of_another_size_are_known_and_the_key_that_they_need(
    container: Container, imagery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builders.imagery.statcache.GRANULARITY_NS", -(10**12))
    cache = StatCache(tmp_path / "cache")
    for again in (False, True):
        with TileSources([spec(imagery)], 2 * SIDE, ROUND.bbox, cache) as sources:
            inventory = sources.inventory(WANTED, remembered=True)
        assert inventory.fresh != again
        one = inventory.level(ZOOM)
        if container.name == "geotiff":  # cuts its tiles as they are needed
            assert not one.wrong_size.any()
            continue
        assert one.wrong_size.tolist() == one.present.tolist()
        assert one.no_image == {}
        assert f"{imagery}: it has tiles of {SIDE} x {SIDE} pixels: set coverage.tile_size = {SIDE}" in inventory.hints


def test_cells_over_a_tile_hold_every_view_of_it_and_a_ring_round_it() -> None:
    tile = Tile(ZOOM, X0, Y0)  # in the last row of its cell
    assert cells_of(ZOOM, ids(tile)).tolist() == [tile_id(cell_of(tile))]
    around = {
        tile_id(cell_of(tile)._replace(x=cell_of(tile).x + i, y=cell_of(tile).y + j))
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
    }
    assert set(cells_over(ZOOM, View(), ids(tile)).tolist()) == around


@given(st.integers(0, 9), st.sampled_from([View(), View(2, 1), View(4, 2), View(8, 8)]), st.data())
def test_cells_over_hold_all_views_of_their_cells_and_a_ring(zoom: int, view: View, data: st.DataObject) -> None:
    """Also across the antimeridian, and at both ends of the world."""
    side = 1 << zoom
    near = st.one_of(st.integers(0, side - 1), st.sampled_from([0, side - 1]))
    tiles = np.unique(
        ids(*(Tile(zoom, *data.draw(st.tuples(near, near))) for _ in range(data.draw(st.integers(1, 3)))))
    )
    expected = set(cells_of(zoom, view.origins_over(zoom, tiles)).tolist())
    for cell in sorted(expected):
        for origin in map(tile_from_id, view.origins_in_cell(tile_from_id(cell), zoom).tolist()):
            rows = range(max(origin.y - 1, 0), min(origin.y + view.tiles + 1, side))
            columns = {x % side for x in range(origin.x - 1, origin.x + view.tiles + 1)}
            expected |= {tile_id(cell_of(Tile(zoom, x, y))) for y in rows for x in columns}
    assert cells_over(zoom, view, tiles).tolist() == sorted(expected)
