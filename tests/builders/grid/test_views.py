"""Views: every law against brute force over a whole small world, and the ends of it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.grid.tiles import MAX_ZOOM, Tile, cell_of, tile_from_id, tile_id, tiles_of_bbox
from builders.grid.views import EQUATOR, MAX_VIEW_TILES, View
from store.errors import Invalid

DEGREE = 10**7


@st.composite
def views(draw: st.DrawFn) -> View:
    tiles = draw(st.integers(1, MAX_VIEW_TILES))
    return View(tiles, draw(st.integers(1, tiles)))


def ids(*tiles: Tile) -> NDArray[np.uint64]:
    return np.array([tile_id(tile) for tile in tiles], np.uint64)


def world(view: View, zoom: int) -> dict[int, list[int]]:
    """Every view of a zoom by the definition: id of its origin -> ids of its tiles, row by row."""
    side = 1 << zoom
    if view.tiles > side:
        return {}
    return {
        tile_id(Tile(zoom, x, y)): [
            tile_id(Tile(zoom, (x + right) % side, y + down))
            for down, right in product(range(view.tiles), range(view.tiles))
        ]
        for x, y in product(range(0, side, view.stride), range(0, side - view.tiles + 1, view.stride))
    }


@given(views(), st.integers(0, 5))
def test_the_cells_have_every_view_that_exists_each_once(view: View, zoom: int) -> None:
    side = 1 << (zoom - min(zoom, 4))
    found: list[int] = []
    for x, y in product(range(side), range(side)):
        cell = Tile(zoom - min(zoom, 4), x, y)
        origins = view.origins_in_cell(cell, zoom)
        assert origins.dtype == np.uint64
        assert origins.tolist() == sorted(origins.tolist())
        assert {cell_of(tile_from_id(number)) for number in origins.tolist()} <= {cell}
        found += origins.tolist()
    assert sorted(found) == sorted(world(view, zoom))


@given(views(), st.integers(0, 5))
def test_a_footprint_is_the_square_of_its_tiles(view: View, zoom: int) -> None:
    expected = world(view, zoom)
    prints = view.footprint(zoom, np.array(list(expected), np.uint64))
    assert prints.dtype == np.uint64
    assert prints.shape == (len(expected), view.tiles, view.tiles)
    assert prints.reshape(len(expected), view.tiles**2).tolist() == list(expected.values())


@given(views(), st.integers(0, 5), st.data())
def test_the_views_over_tiles_are_those_whose_footprint_holds_one(view: View, zoom: int, data: st.DataObject) -> None:
    side = st.integers(0, (1 << zoom) - 1)
    given_tiles = [tile_id(Tile(zoom, x, y)) for x, y in data.draw(st.lists(st.tuples(side, side), max_size=4))]
    origins = view.origins_over(zoom, np.array(given_tiles, np.uint64))
    assert origins.dtype == np.uint64
    holding = [origin for origin, tiles in world(view, zoom).items() if set(tiles) & set(given_tiles)]
    assert origins.tolist() == sorted(holding)


@given(views(), st.integers(5, MAX_ZOOM), st.data())
def test_a_view_is_over_each_of_its_own_tiles(view: View, zoom: int, data: st.DataObject) -> None:
    """At zooms that brute force does not reach, and at the ends of the world."""
    last = (1 << zoom) - 1
    column, row = (
        data.draw(st.one_of(st.integers(0, end), st.integers(max(0, end - 32), end))) for end in (last, last)
    )
    for origin in view.origins_over(zoom, ids(Tile(zoom, column, row))).tolist():
        tiles = view.footprint(zoom, np.array([origin], np.uint64))
        assert tiles[0, 0, 0] == origin
        assert tile_id(Tile(zoom, column, row)) in tiles
        assert origin in view.origins_in_cell(cell_of(tile_from_id(origin)), zoom)


def test_a_view_of_one_tile_is_the_tile() -> None:
    area = tiles_of_bbox((-991750000, 470080000, -991350000, 470330000), 17)
    assert (View().origins_over(17, area) == area).all()
    assert (View().footprint(17, area).ravel() == area).all()
    assert len(View().origins_in_cell(Tile(13, 1839, 2880), 17)) == 256


def test_columns_go_on_over_the_antimeridian_and_rows_end() -> None:
    view = View(3, 2)
    across = view.footprint(4, ids(Tile(4, 14, 4)))[0]
    assert [tile_from_id(number) for number in across[0].tolist()] == [Tile(4, x, 4) for x in (14, 15, 0)]
    over = [tile_from_id(number) for number in view.origins_over(4, ids(Tile(4, 0, 15))).tolist()]
    assert over == []  # rows 14..16 would be needed
    over = [tile_from_id(number) for number in view.origins_over(4, ids(Tile(4, 0, 14))).tolist()]
    assert set(over) == {Tile(4, 0, 12), Tile(4, 14, 12)}


def test_a_view_as_wide_as_the_world_holds_no_tile_twice_and_a_wider_one_does_not_exist() -> None:
    assert len(set(View(8, 8).footprint(3, ids(Tile(3, 0, 0))).ravel().tolist())) == 64
    assert len(View(9, 1).origins_in_cell(Tile(0, 0, 0), 3)) == 0
    assert len(View(9, 1).origins_over(3, ids(Tile(3, 4, 4)))) == 0


def test_what_is_no_origin_has_no_footprint() -> None:
    view = View(4, 2)
    for tile in (Tile(6, 1, 0), Tile(6, 0, 1), Tile(6, 0, 62), Tile(5, 0, 0)):
        with pytest.raises(Invalid):
            view.footprint(6, ids(Tile(6, 0, 0), tile))


def test_what_is_no_cell_has_no_origins() -> None:
    for cell, zoom in ((Tile(1, 0, 0), 6), (Tile(3, 0, 0), 6), (Tile(2, 4, 0), 6), (Tile(0, 0, 0), 25)):
        with pytest.raises(Invalid):
            View().origins_in_cell(cell, zoom)


@pytest.mark.parametrize(("tiles", "stride"), [(0, 1), (17, 1), (2, 3), (2, 0), (1.0, 1), (2, True)])
def test_a_view_outside_the_bounds_is_invalid(tiles: int, stride: int) -> None:
    with pytest.raises(Invalid) as caught:
        View(tiles, stride)
    assert caught.value.remedy


@given(st.floats(1, 1000), st.floats(0, 0.99), st.integers(10, 20), st.floats(-80, 80))
def test_metres_become_the_nearest_number_of_tiles(metres: float, overlap: float, zoom: int, latitude: float) -> None:
    tile = EQUATOR * np.cos(np.radians(latitude)) / 2**zoom
    try:
        view = View.of_metres(metres, overlap, zoom, latitude)
    except Invalid:
        assert metres > MAX_VIEW_TILES * tile
        return
    assert view.tiles == 1 or abs(view.tiles * tile - metres) <= tile / 2 * (1 + 1e-9)
    assert view.stride == 1 or abs(view.tiles * (1 - overlap) - view.stride) <= 0.5 + 1e-9


def test_known_metres() -> None:
    assert View.of_metres(600, 0.5, 17, 47.0) == View(3, 2)  # a tile is 208.5 m there
    assert View.of_metres(100, 0.5, 17, 47.0) == View(1, 1)
    assert View.of_metres(830, 0.75, 17, -47.0) == View(4, 1)
    assert View.of_metres(830, 0.0, 17, 47.0) == View(4, 4)


@pytest.mark.parametrize(
    ("metres", "overlap", "zoom", "latitude"),
    [
        (0.0, 0.5, 17, 47.0),
        (-1.0, 0.5, 17, 47.0),
        (float("nan"), 0.5, 17, 47.0),
        (float("inf"), 0.5, 17, 47.0),
        (1e308, 0.5, 17, 89.9999999),
        (600.0, 1.0, 17, 47.0),
        (600.0, -0.1, 17, 47.0),
        (600.0, float("nan"), 17, 47.0),
        (600.0, 0.5, 25, 47.0),
        (600.0, 0.5, 17, 90.0),
        (600.0, 0.5, 17, float("nan")),
        (600.0, 0.5, 24, 47.0),
    ],
)
def test_metres_that_give_no_view_are_invalid(metres: float, overlap: float, zoom: int, latitude: float) -> None:
    with pytest.raises(Invalid):
        View.of_metres(metres, overlap, zoom, latitude)
