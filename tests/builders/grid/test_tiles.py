"""Tile arithmetic: known ids, the laws of cells, and which tiles an area covers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.grid.tiles import (
    MAX_ZOOM,
    Tile,
    cell_of,
    cell_range,
    tile_bounds,
    tile_from_id,
    tile_id,
    tile_ids,
    tile_xy,
    tiles_of_bbox,
)
from store.errors import Invalid

DEGREE = 10**7
AREA = (-991750000, 470080000, -991350000, 470330000)


@st.composite
def tiles(draw: st.DrawFn) -> Tile:
    z = draw(st.integers(0, MAX_ZOOM))
    side = st.integers(0, (1 << z) - 1)
    return Tile(z, draw(side), draw(side))


@pytest.mark.parametrize(
    ("tile", "number"),
    [
        # The examples of the PMTiles specification, version 3.
        (Tile(0, 0, 0), 0),
        (Tile(1, 0, 0), 1),
        (Tile(1, 0, 1), 2),
        (Tile(1, 1, 1), 3),
        (Tile(1, 1, 0), 4),
        (Tile(2, 0, 0), 5),
        (Tile(12, 3423, 1763), 19078479),
    ],
)
def test_known_ids(tile: Tile, number: int) -> None:
    assert tile_id(tile) == number
    assert tile_from_id(number) == tile


@given(tiles())
def test_an_id_and_its_tile_are_one(tile: Tile) -> None:
    assert tile_from_id(tile_id(tile)) == tile


@given(tiles())
def test_many_ids_are_the_ids_of_each(tile: Tile) -> None:
    assert tile_ids(tile.z, np.array([tile.x]), np.array([tile.y])).tolist() == [tile_id(tile)]


@given(st.integers(0, MAX_ZOOM), st.data())
def test_columns_and_rows_come_back_from_ids(zoom: int, data: st.DataObject) -> None:
    side = st.integers(0, (1 << zoom) - 1)
    places = data.draw(st.lists(st.tuples(side, side), max_size=8))
    given_x, given_y = (np.array([place[axis] for place in places], np.int64) for axis in (0, 1))
    x, y = tile_xy(zoom, tile_ids(zoom, given_x, given_y))
    assert x.dtype == y.dtype == np.int64
    assert (x.tolist(), y.tolist()) == (given_x.tolist(), given_y.tolist())


def test_neighbours_on_the_curve_are_neighbours_in_the_world() -> None:
    """What makes it a Hilbert curve: each step is to an adjacent tile, and every tile is visited."""
    first = tile_id(Tile(6, 0, 0))
    path = [tile_from_id(number) for number in range(first, first + 4**6)]
    assert all(tile.z == 6 for tile in path)
    assert len(set(path)) == 4**6
    assert all(abs(a.x - b.x) + abs(a.y - b.y) == 1 for a, b in pairwise(path))


@given(tiles())
def test_a_tile_is_in_the_range_of_its_cell(tile: Tile) -> None:
    first, last = cell_range(cell_of(tile), tile.z)
    assert first <= tile_id(tile) < last
    assert last - first == 4 ** min(tile.z, 4)
    assert {cell_of(tile_from_id(number)) for number in range(first, last)} == {cell_of(tile)}


def test_cells_above_zoom_4_are_the_world() -> None:
    assert cell_of(Tile(3, 7, 7)) == Tile(0, 0, 0)
    assert cell_of(Tile(4, 15, 15)) == Tile(0, 0, 0)
    assert cell_of(Tile(5, 31, 0)) == Tile(1, 1, 0)


def test_the_tiles_of_the_demonstration_area() -> None:
    assert {zoom: len(tiles_of_bbox(AREA, zoom)) for zoom in (15, 16, 17)} == {15: 25, 16: 72, 17: 240}


@given(
    st.integers(-179 * DEGREE, 179 * DEGREE),
    st.integers(-84 * DEGREE, 84 * DEGREE),
    st.integers(1, 2 * DEGREE),
    st.integers(1, DEGREE),
    st.integers(0, 9),
)
def test_an_area_has_the_tiles_that_share_ground_with_it(
    west: int, south: int, width: int, height: int, zoom: int
) -> None:
    """Against the definition, tile by tile: the open rectangles intersect. A hair's breadth may go either way."""
    east, north = min(west + width, 180 * DEGREE), min(south + height, 85 * DEGREE)
    found = set(tiles_of_bbox((west, south, east, north), zoom).tolist())
    hair = 1e-9
    box = [value / DEGREE for value in (west, south, east, north)]
    for number in found:
        w, s, e, n = tile_bounds(tile_from_id(number))
        assert w < box[2] + hair
        assert e > box[0] - hair
        assert s < box[3] + hair
        assert n > box[1] - hair
    for number in found:
        z, x, y = tile_from_id(number)
        for near in (Tile(z, x - 1, y), Tile(z, x + 1, y), Tile(z, x, y - 1), Tile(z, x, y + 1)):
            if 0 <= near.x < 1 << z and 0 <= near.y < 1 << z and tile_id(near) not in found:
                w, s, e, n = tile_bounds(near)
                assert w > box[2] - hair or e < box[0] + hair or s > box[3] - hair or n < box[1] + hair


def test_ids_come_ascending_and_once() -> None:
    ids = tiles_of_bbox(AREA, 17)
    assert ids.dtype == np.uint64
    assert (ids[1:] > ids[:-1]).all()


def test_a_tile_that_the_box_only_touches_is_not_part_of_it() -> None:
    # The north-eastern quarter of the world ends at longitude 180 and begins at the equator and Greenwich.
    quarter = [tile_from_id(n) for n in tiles_of_bbox((0, 0, 180 * DEGREE, 85 * DEGREE), 1).tolist()]
    assert quarter == [Tile(1, 1, 0)]
    south_west = [tile_from_id(n) for n in tiles_of_bbox((-180 * DEGREE, -85 * DEGREE, 0, 0), 1).tolist()]
    assert south_west == [Tile(1, 0, 1)]


def test_an_area_smaller_than_a_tile_has_one() -> None:
    assert len(tiles_of_bbox((10, 10, 11, 11), 24)) == 1


def test_an_area_over_the_antimeridian_is_its_two_parts() -> None:
    west, east = (1799 * DEGREE // 10, -1798 * DEGREE // 10)
    whole = tiles_of_bbox((west, DEGREE, east, 2 * DEGREE), 12)
    parts = [(west, DEGREE, 180 * DEGREE, 2 * DEGREE), (-180 * DEGREE, DEGREE, east, 2 * DEGREE)]
    assert whole.tolist() == sorted(n for part in parts for n in tiles_of_bbox(part, 12).tolist())
    assert {tile_from_id(n).x for n in whole.tolist()} == {4094, 4095, 0, 1, 2}


def test_an_area_round_the_world_has_no_tile_twice() -> None:
    assert len(tiles_of_bbox((1, 1, 0, 2), 3)) == 8
    assert len(tiles_of_bbox((-180 * DEGREE, -90 * DEGREE, 180 * DEGREE, 90 * DEGREE), 5)) == 1024


def test_latitudes_are_clamped_to_the_limit() -> None:
    assert len(tiles_of_bbox((0, 89 * DEGREE - 5 * DEGREE, 1, 90 * DEGREE), 0)) == 1
    rows = {tile_from_id(n).y for n in tiles_of_bbox((0, 84 * DEGREE, 1, 90 * DEGREE), 6).tolist()}
    assert min(rows) == 0


@pytest.mark.parametrize(
    "bbox",
    [
        (0, 0, 0, 1),
        (0, 1, 1, 1),
        (0, 2, 1, 1),
        (180 * DEGREE, 0, -180 * DEGREE, 1),
        (0, 0, 180 * DEGREE + 1, 1),
        (0, 86 * DEGREE, 1, 87 * DEGREE),
        (0, -89 * DEGREE, 1, -86 * DEGREE),
    ],
)
def test_a_box_without_tiles_is_invalid(bbox: tuple[int, int, int, int]) -> None:
    with pytest.raises(Invalid):
        tiles_of_bbox(bbox, 10)


def test_an_area_that_would_fill_the_memory_is_invalid() -> None:
    with pytest.raises(Invalid, match="limit is"):
        tiles_of_bbox((-180 * DEGREE, -85 * DEGREE, 180 * DEGREE, 85 * DEGREE), 24)


@pytest.mark.parametrize("tile", [Tile(25, 0, 0), Tile(-1, 0, 0), Tile(3, 8, 0), Tile(3, 0, -1)])
def test_a_tile_that_does_not_exist_is_invalid(tile: Tile) -> None:
    with pytest.raises(Invalid):
        tile_id(tile)


def test_what_lies_outside_is_invalid() -> None:
    for number in (-1, (4**25 - 1) // 3):
        with pytest.raises(Invalid):
            tile_from_id(number)
    with pytest.raises(Invalid):
        tile_ids(3, np.array([8]), np.array([0]))
    with pytest.raises(Invalid):
        cell_range(Tile(5, 0, 0), 4)
    for number in (0, tile_id(Tile(4, 0, 0)), 2**64 - 1):
        with pytest.raises(Invalid):
            tile_xy(3, np.array([tile_id(Tile(3, 1, 1)), number], np.uint64))
