"""The tiles of areas: laws, oracles that reason otherwise, refusals."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import builders.areas.covering as module
from builders.areas.covering import tiles_of_area, tiles_of_signed_area
from builders.grid.tiles import MAX_ZOOM, Tile, tile_bounds, tile_from_id, tile_id, tiles_of_bbox
from store.errors import Invalid
from store.format.area import LAT_MAX, LON_MAX, Area, Polygon, Ring
from tests.builders.areas.shapes import (
    DEGREE,
    TURN,
    area_of,
    box_ring,
    of,
    shape_of,
    shapely,
    shared_ground,
    stars,
)

# Without types of its own: as a value it is Any.
mercantile: Any = importlib.import_module("mercantile")


def box_area(west: int, south: int, east: int, north: int) -> Area:
    return Area((west, south, east, north), ((box_ring(west, south, east, north),),))


def parents(ids: set[int]) -> set[int]:
    tiles = [tile_from_id(number) for number in ids]
    return {tile_id(Tile(z - 1, x >> 1, y >> 1)) for z, x, y in tiles}


@st.composite
def boxes(draw: st.DrawFn) -> tuple[int, int, int, int]:
    west = draw(st.integers(-LON_MAX, LON_MAX - 1) | st.sampled_from([-LON_MAX, -DEGREE, 0, 90 * DEGREE]))
    south = draw(st.integers(-84 * DEGREE, 84 * DEGREE) | st.sampled_from([-DEGREE, 0]))
    width = draw(st.integers(1, 3 * DEGREE) | st.sampled_from([45 * DEGREE, 90 * DEGREE]))
    height = draw(st.integers(1, 3 * DEGREE) | st.sampled_from([DEGREE]))
    return west, south, min(west + width, LON_MAX), min(south + height, LAT_MAX)


@given(boxes(), st.integers(0, 10))
@example((-LON_MAX, -LAT_MAX, LON_MAX, LAT_MAX), 5)
@example((0, 0, LON_MAX, 85 * DEGREE), 1)
@example((-LON_MAX, -85 * DEGREE, 0, 0), 1)
@example((5, 84 * DEGREE, 6, LAT_MAX), 7)
@example((10, 10, 11, 11), 24)
def test_a_polygon_that_is_a_box_has_the_tiles_of_the_box(box: tuple[int, int, int, int], zoom: int) -> None:
    expected = tiles_of_bbox(box, zoom).tolist()
    assert tiles_of_area(box_area(*box), zoom).tolist() == expected
    assert tiles_of_area(Area(box), zoom).tolist() == expected


@pytest.mark.parametrize("zoom", [12, 17, 18])
def test_the_demonstration_area_as_a_polygon(zoom: int) -> None:
    box = (-991750000, 470080000, -991350000, 470330000)
    assert tiles_of_area(box_area(*box), zoom).tolist() == tiles_of_bbox(box, zoom).tolist()


@given(boxes(), st.integers(0, 9))
def test_mercantile_has_the_same_tiles_of_a_box(box: tuple[int, int, int, int], zoom: int) -> None:
    """mercantile moves each edge inwards by 1e-11 degree; so a tile edge within 2 units would tell nothing."""
    west, south, east, north = box
    assume(east - west > 10 and north - south > 10 and north < 85 * DEGREE)
    theirs = {tile_id(Tile(t.z, t.x, t.y)) for t in mercantile.tiles(*(n / DEGREE for n in box), zooms=zoom)}
    inner = of(box_area(west + 2, south + 2, east - 2, north - 2), zoom)
    outer = of(area_of((box_ring(max(west - 2, -LON_MAX), south - 2, min(east + 2, LON_MAX), north + 2),)), zoom)
    assert inner <= theirs <= outer


@settings(max_examples=40)
@given(stars(), stars(), st.integers(0, 6))
def test_tiles_are_those_that_share_ground(star: Ring, other: Ring, zoom: int) -> None:
    """Against the definition, tile by tile, with shapely's intersections. A hair's breadth may go either way."""
    found = of(area_of((star,), (other,)), zoom)
    part = np.maximum(shared_ground(shape_of((star,)), zoom), shared_ground(shape_of((other,)), zoom))
    first = tile_id(Tile(zoom, 0, 0))
    assert found <= {first + i for i in np.flatnonzero(part > 0).tolist()}
    assert {first + i for i in np.flatnonzero(part > 1e-12).tolist()} <= found


@settings(max_examples=40)
@given(stars(), st.integers(2, 9), st.integers(0, 6))
def test_holes_count(star: Ring, scale: int, zoom: int) -> None:
    """The law of holes: with the hole filled again, the area has the tiles of the outer ring."""
    shape = shape_of((star,))
    middle = shape.representative_point()
    lon, lat = round(middle.x), round(middle.y)
    hole = tuple(
        center + round((number - center) / (10 * scale))
        for number, center in zip(star, [lon, lat] * (len(star) // 2), strict=True)
    )
    assume(shape_of((star, hole)).is_valid)
    pierced = of(area_of((star, hole)), zoom)
    part = shared_ground(shape_of((star, hole)), zoom)
    first = tile_id(Tile(zoom, 0, 0))
    assert pierced <= {first + i for i in np.flatnonzero(part > 0).tolist()}
    assert {first + i for i in np.flatnonzero(part > 1e-9).tolist()} <= pierced
    assert pierced | of(area_of((hole,)), zoom) == of(area_of((star,)), zoom)
    assert of(area_of((star, hole), (hole,)), zoom) == of(area_of((star,)), zoom)


def shapely_says(keys: Any, level: int, edges: Any, owner: Any) -> Any:
    """`_is_inside` by shapely: the polygons put together again from their edges are those of `SHAPES`."""
    of, x, y = module._unpack(keys)
    centres = [
        (edge(level, places) + edge(level, places + 1)) / 2
        for edge, places in ((module._longitudes, x), (module._latitudes, y))
    ]
    return shapely.contains_xy(SHAPES[-1][of], *centres)


SHAPES: list[Any] = []


@settings(max_examples=60)
@given(stars(DEGREE // 4), stars(DEGREE // 4), st.integers(2, 9), st.integers(0, 14))
def test_without_shapely_the_tiles_are_the_same(one: Ring, other: Ring, scale: int, zoom: int) -> None:
    """Polygons that overlap, with holes, over the antimeridian: inside is what shapely calls inside, tile by tile."""
    middle = shape_of((one,)).representative_point()
    centre = [round(middle.x), round(middle.y)] * (len(one) // 2)
    hole = tuple(c + round((n - c) / (10 * scale)) for n, c in zip(one, centre, strict=True))
    pierced: Polygon = (one, hole) if shape_of((one, hole)).is_valid else (one,)
    east = LON_MAX - max(other[::2])
    west = -LON_MAX - min(other[::2])
    moved = [tuple(n if i % 2 else n + by for i, n in enumerate(other)) for by in (east, west)]
    for polygons in ([pierced], [pierced, (other,)], [(ring,) for ring in moved]):
        area = area_of(*polygons)
        SHAPES.append(np.array([shape_of(polygon) for polygon in polygons]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_is_inside", shapely_says)
            expected = tiles_of_area(area, zoom)
        assert tiles_of_signed_area(area, zoom).tolist() == expected.tolist()


def test_an_edge_through_the_centres_of_many_tiles_and_a_vertex_on_a_parallel() -> None:
    """Vertices on the parallels of centres, which the half-open rule must count once."""
    eighth = LON_MAX // 8
    ring = (-eighth, 0, 0, -eighth, eighth, 0, 0, eighth)
    for zoom in range(12):
        area = area_of((ring,))
        SHAPES.append(np.array([shape_of((ring,))]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_is_inside", shapely_says)
            expected = tiles_of_area(area, zoom)
        assert tiles_of_signed_area(area, zoom).tolist() == expected.tolist()


@given(stars(), stars(), st.integers(0, 9))
def test_the_tiles_of_two_are_those_of_the_one_and_those_of_the_other(one: Ring, other: Ring, zoom: int) -> None:
    assert of(area_of((one,), (other,)), zoom) == of(area_of((one,)), zoom) | of(area_of((other,)), zoom)


@given(stars(DEGREE), st.integers(0, 13))
def test_the_parents_of_the_tiles_are_the_tiles_above(star: Ring, zoom: int) -> None:
    assert parents(of(area_of((star,)), zoom + 1)) == of(area_of((star,)), zoom)


@given(stars(10 * DEGREE), st.integers(0, 8), st.integers(-3, 3))
def test_an_area_moved_by_whole_tiles_has_the_tiles_moved(star: Ring, zoom: int, by: int) -> None:
    # Zoom 8 is the last at which a column has a whole number of units.
    step = by * (TURN >> zoom)
    moved = tuple(n if i % 2 else n + step for i, n in enumerate(star))
    assume(all(abs(lon) <= LON_MAX for lon in moved[::2]))
    before = [tile_from_id(n) for n in of(area_of((star,)), zoom)]
    assert of(area_of((moved,)), zoom) == {tile_id(Tile(z, x + by, y)) for z, x, y in before}


@given(stars(), st.integers(0, 7))
def test_north_and_south_are_mirrored(star: Ring, zoom: int) -> None:
    mirrored = tuple(-n if i % 2 else n for i, n in enumerate(star))
    before = [tile_from_id(n) for n in of(area_of((star,)), zoom)]
    assert of(area_of((mirrored,)), zoom) == {tile_id(Tile(z, x, (1 << z) - 1 - y)) for z, x, y in before}


@given(stars(), st.integers(0, 9), st.integers(0, 11))
def test_where_a_ring_begins_and_which_way_it_runs_changes_nothing(star: Ring, zoom: int, by: int) -> None:
    points = [star[i : i + 2] for i in range(0, len(star), 2)]
    by %= len(points)
    turned = [n for point in (points[by:] + points[:by])[::-1] for n in point]
    assert of(area_of((tuple(turned),)), zoom) == of(area_of((star,)), zoom)


@given(stars(DEGREE // 50), st.integers(0, 12))
def test_a_small_area_has_the_tile_that_it_is_in(star: Ring, zoom: int) -> None:
    lon, lat = star[0], star[1]
    tile = mercantile.tile(lon / DEGREE, lat / DEGREE, zoom)
    found = of(area_of((star,)), zoom)
    assert found
    w, s, e, n = tile_bounds(Tile(tile.z, tile.x, tile.y))
    if min(lon / DEGREE - w, e - lon / DEGREE, lat / DEGREE - s, n - lat / DEGREE) > 1e-9:
        assert tile_id(Tile(tile.z, tile.x, tile.y)) in found


def test_a_tile_that_a_corner_or_an_edge_only_touches_is_not_part_of_it() -> None:
    # A square on its corner, one corner at the middle of the world; and a triangle whose long edge goes through that.
    diamond = area_of(((0, 0, 100, 100, 200, 0, 100, -100),))
    assert of(diamond, 1) == {tile_id(Tile(1, 1, 0)), tile_id(Tile(1, 1, 1))}
    lon, lat = 1234567891, 712345673
    triangle = area_of(((-lon, -lat, lon, lat, lon, -lat),))
    assert of(triangle, 1) == {tile_id(Tile(1, 0, 1)), tile_id(Tile(1, 1, 0)), tile_id(Tile(1, 1, 1))}


def test_an_area_that_reaches_the_poles_is_clamped() -> None:
    cap = area_of(((-DEGREE, 84 * DEGREE, DEGREE, 84 * DEGREE, 0, LAT_MAX),))
    assert min(tile_from_id(n).y for n in of(cap, 6)) == 0
    for south, north in ((86, 90), (-90, -86)):
        with pytest.raises(Invalid, match="beyond"):
            tiles_of_area(box_area(0, south * DEGREE, DEGREE, north * DEGREE), 3)


def test_an_area_over_the_antimeridian_has_the_tiles_of_its_two_parts() -> None:
    box = (1799 * DEGREE // 10, DEGREE, -1798 * DEGREE // 10, 2 * DEGREE)
    parts = (box_ring(box[0], DEGREE, LON_MAX, 2 * DEGREE),), (box_ring(-LON_MAX, DEGREE, box[2], 2 * DEGREE),)
    assert tiles_of_area(Area(box, parts), 12).tolist() == tiles_of_bbox(box, 12).tolist()


def test_a_polygon_that_leaves_a_box_over_the_antimeridian_is_invalid() -> None:
    area = Area((170 * DEGREE, 0, -170 * DEGREE, DEGREE), ((box_ring(-175 * DEGREE, 0, 175 * DEGREE, DEGREE),),))
    with pytest.raises(Invalid, match="leaves its bbox"):
        tiles_of_area(area, 3)


@pytest.mark.parametrize(
    "polygon",
    [((0, 0, 9, 9, 9, 0, 0, 9),), ((0, 0, 5, 5, 9, 9),), (box_ring(0, 0, 9, 9), box_ring(5, 5, 8, 12))],
)
def test_polygons_that_are_none_are_invalid(polygon: Polygon) -> None:
    with pytest.raises(Invalid, match="not valid"):
        tiles_of_area(area_of(polygon), 3)


def test_a_million_tiles() -> None:
    star = [(1 + 0.1 * math.sin(9 * t), t) for t in np.linspace(0, math.tau, 400, endpoint=False).tolist()]
    points = [
        n
        for r, t in star
        for n in (DEGREE * 10 + round(15500000 * r * math.cos(t)), DEGREE * 48 + round(10385000 * r * math.sin(t)))
    ]
    area = area_of((tuple(points),))
    ids = tiles_of_area(area, 17)
    assert 900_000 < len(ids) < 1_100_000
    assert (ids[1:] > ids[:-1]).all()
    # The children of a tile are four ids in a row.
    up = np.unique(((ids - np.uint64(tile_id(Tile(17, 0, 0)))) >> np.uint64(2)) + np.uint64(tile_id(Tile(16, 0, 0))))
    assert tiles_of_area(area, 16).tolist() == up.tolist()


@pytest.mark.parametrize(("zoom", "lat"), [(24, 85), (20, 20)])
def test_an_area_that_would_fill_the_memory_is_invalid(zoom: int, lat: int) -> None:
    with pytest.raises(Invalid, match="limit is"):
        tiles_of_area(box_area(-170 * DEGREE, -lat * DEGREE, 170 * DEGREE, lat * DEGREE), zoom)


def test_an_outline_that_would_fill_the_memory_is_invalid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_PAIRS", 1000)
    with pytest.raises(Invalid, match="outline"):
        tiles_of_area(area_of(((0, 0, DEGREE, DEGREE, DEGREE, DEGREE + 1),)), 20)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    area = area_of(((0, 0, DEGREE, DEGREE, 3 * DEGREE, -DEGREE),))
    whole = of(area, 12)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert of(area, 12) == whole


@pytest.mark.parametrize("zoom", [-1, MAX_ZOOM + 1])
def test_a_zoom_that_does_not_exist_is_invalid(zoom: int) -> None:
    with pytest.raises(Invalid):
        tiles_of_area(box_area(0, 0, 1, 1), zoom)


@given(st.integers(0, MAX_ZOOM), st.floats(0, 1))
def test_the_edges_of_rows_are_those_of_the_projection(zoom: int, place: float) -> None:
    row = math.floor(place * (1 << zoom))
    expected = math.atan(math.sinh(math.pi * (1 - 2 * row / (1 << zoom)))) / math.pi * LON_MAX
    assert abs(module._latitudes(zoom, np.array([row]))[0] - expected) < 2e-6
    assert module._latitudes(max(zoom, 1), np.array([1 << max(zoom, 1) >> 1])).tolist() == [0.0]
