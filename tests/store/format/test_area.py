"""`Area.contains` against an oracle that reasons otherwise: spans modulo the globe, a ray to the north in fractions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from store.errors import Corrupt
from store.format.area import LAT_MAX, LON_MAX, MAX_NUMBERS, Area, Polygon, Ring
from store.format.cbor import Fields

FULL = 2 * LON_MAX
LONS = st.sampled_from([-LON_MAX, -LON_MAX + 1, -5, 0, 5, LON_MAX - 1, LON_MAX]) | st.integers(-LON_MAX, LON_MAX)
LATS = st.sampled_from([-LAT_MAX, -5, 0, 5, LAT_MAX]) | st.integers(-LAT_MAX, LAT_MAX)


def parse(value: dict[str, Any]) -> Area:
    return Area.parse(Fields(value, "area"))


@given(LONS, LATS, LONS, LATS, LATS, LONS)
@example(170 * 10**7, 0, -170 * 10**7, 10, 5, LON_MAX)
@example(-LON_MAX, -5, LON_MAX, 5, 0, 12)
@example(LON_MAX, -5, -LON_MAX, 5, 0, LON_MAX)
@example(0, 0, LON_MAX, 10, 5, -LON_MAX)
@example(0, 80, 1, LAT_MAX, LAT_MAX, -77)
def test_a_box_is_a_span_of_longitudes(west: int, south: int, east: int, north: int, lat: int, lon: int) -> None:
    if south >= north or ((east - west) % FULL == 0 and west >= east):
        with pytest.raises(Corrupt):
            Area((west, south, east, north))
        return
    span = (east - west) if west < east else (east - west + FULL)
    # A pole is one point, whatever its longitude.
    expected = south <= lat <= north and (abs(lat) == LAT_MAX or (lon - west) % FULL <= span)
    assert Area((west, south, east, north)).contains(lat, lon) is expected


def sits(ring: Ring, lat: int, lon: int) -> str:
    """Where the point is: on the ring's line, inside or outside, by counting the edges to the north of it."""
    above = 0
    points = list(zip(ring[::2], ring[1::2], strict=True))
    for i, (x1, y1) in enumerate(points):
        x2, y2 = points[i - 1]
        if x1 == x2:
            if lon == x1 and min(y1, y2) <= lat <= max(y1, y2):
                return "on"
            continue
        if min(x1, x2) <= lon <= max(x1, x2):
            crossing = y1 + Fraction((y2 - y1) * (lon - x1), x2 - x1)
            if crossing == lat:
                return "on"
            if lon < max(x1, x2) and crossing > lat:
                above += 1
    return "inside" if above % 2 else "outside"


RINGS = st.lists(st.integers(-6, 6), min_size=6, max_size=12).filter(lambda n: len(n) % 2 == 0).map(tuple)


@given(st.lists(st.lists(RINGS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=2).map(tuple))
def test_polygons_with_holes(polygons: tuple[Polygon, ...]) -> None:
    area = Area((-7, -7, 7, 7), polygons)
    for lat in range(-7, 8):
        for lon in range(-7, 8):
            expected = any(
                sits(outer, lat, lon) != "outside" and all(sits(hole, lat, lon) != "inside" for hole in holes)
                for outer, *holes in polygons
            )
            assert area.contains(lat, lon) is expected, (lat, lon)


SQUARE: Ring = (-4, -4, 4, -4, 4, 4, -4, 4)
HOLE: Ring = (-2, -2, 2, -2, 2, 2, -2, 2)


@pytest.mark.parametrize(
    ("lat", "lon", "inside"),
    [
        (3, 3, True),
        (0, 0, False),
        (2, 0, True),
        (2, 2, True),
        (4, 4, True),
        (4, 0, True),
        (5, 0, False),
        (0, -5, False),
    ],
)
def test_a_square_with_a_hole(lat: int, lon: int, inside: bool) -> None:
    assert Area((-6, -6, 6, 6), ((SQUARE, HOLE),)).contains(lat, lon) is inside


def test_an_area_cut_at_the_antimeridian() -> None:
    west_part: Ring = (LON_MAX - 9, 0, LON_MAX, 0, LON_MAX, 9, LON_MAX - 9, 9)
    east_part: Ring = (-LON_MAX, 0, -LON_MAX + 9, 0, -LON_MAX + 9, 9, -LON_MAX, 9)
    area = Area((LON_MAX - 9, 0, -LON_MAX + 9, 9), ((west_part,), (east_part,)))
    for lon in (LON_MAX - 9, LON_MAX, -LON_MAX, -LON_MAX + 9):
        assert area.contains(5, lon)
    for lon in (LON_MAX - 10, -LON_MAX + 10, 0):
        assert not area.contains(5, lon)
    # One of the two parts alone ends on the line that both names mean.
    assert Area((LON_MAX - 9, 0, LON_MAX, 9), ((west_part,),)).contains(5, -LON_MAX)


def test_a_polygon_that_reaches_the_pole_has_it_at_every_longitude() -> None:
    cap: Ring = (0, 80, 90, 80, 90, LAT_MAX, 0, LAT_MAX)
    area = Area((0, 0, 90, LAT_MAX), ((cap,),))
    assert area.contains(LAT_MAX, 12345)
    assert not area.contains(-LAT_MAX, 12345)
    assert not area.contains(LAT_MAX - 1, 12345)


@pytest.mark.parametrize(("lat", "lon"), [(LAT_MAX + 1, 0), (-LAT_MAX - 1, 0), (0, LON_MAX + 1), (0, -LON_MAX - 1)])
def test_no_place_on_earth_is_in_no_area(lat: int, lon: int) -> None:
    assert not Area((-LON_MAX, -LAT_MAX, LON_MAX, LAT_MAX)).contains(lat, lon)


BOX = [-6, -6, 6, 6]
BAD: dict[str, dict[str, Any]] = {
    "box_of_three": {"bbox": [-6, -6, 6], "polygons": []},
    "box_outside_the_world": {"bbox": [-6, -6, 6, LAT_MAX + 1], "polygons": []},
    "box_of_no_height": {"bbox": [-6, 6, 6, 6], "polygons": []},
    "box_upside_down": {"bbox": [-6, 6, 6, -6], "polygons": []},
    "box_of_no_width": {"bbox": [6, -6, 6, 6], "polygons": []},
    "box_of_the_antimeridian_alone": {"bbox": [LON_MAX, -6, -LON_MAX, 6], "polygons": []},
    "polygon_without_a_ring": {"bbox": BOX, "polygons": [[]]},
    "ring_of_two_vertices": {"bbox": BOX, "polygons": [[[0, 0, 1, 1]]]},
    "ring_of_half_a_vertex": {"bbox": BOX, "polygons": [[[0, 0, 1, 1, 2, 0, 3]]]},
    "ring_outside_the_box": {"bbox": BOX, "polygons": [[[0, 0, 1, 1, 7, 0]]]},
    "hole_outside_the_box": {"bbox": BOX, "polygons": [[list(SQUARE), [0, 0, 1, 1, 0, 7]]]},
    "ring_of_text": {"bbox": BOX, "polygons": [[["0", 0, 1, 1, 2, 0]]]},
    "ring_that_is_no_array": {"bbox": BOX, "polygons": [[5]]},
    "polygon_that_is_no_array": {"bbox": BOX, "polygons": [5]},
    "polygons_missing": {"bbox": BOX},
    "unknown_key": {"bbox": BOX, "polygons": [], "more": 1},
    "too_many_vertices": {"bbox": BOX, "polygons": [[[0, 0] * (MAX_NUMBERS // 2)], [[0, 0] * 3]]},
    "too_many_polygons": {"bbox": BOX, "polygons": [[[0, 0, 1, 1, 2, 0]]] * 257},
}


@pytest.mark.parametrize("name", BAD)
def test_refuses(name: str) -> None:
    with pytest.raises(Corrupt) as caught:
        parse(BAD[name])
    assert caught.value.fields["kind"] == "bad-field"


def test_the_value_parses_to_itself() -> None:
    area = Area((-6, -6, 6, 6), ((SQUARE, HOLE), ((0, 0, 1, 1, 2, 0),)))
    assert parse(area.value()) == area  # type: ignore[arg-type]


def test_a_polygon_has_a_pole_only_by_a_vertex_there() -> None:
    box = (0, 0, 100, LAT_MAX)
    to_the_pole: Ring = (0, 0, 100, 0, 50, LAT_MAX)
    below_it: Ring = (0, 0, 100, 0, 50, LAT_MAX - 1)
    assert Area(box, ((to_the_pole,),)).contains(LAT_MAX, 77)
    assert Area(box, ((below_it,), (to_the_pole,))).contains(LAT_MAX, 77)
    assert not Area(box, ((below_it,),)).contains(LAT_MAX, 77)
    assert not Area(box, ((to_the_pole,),)).contains(-LAT_MAX, 77)
    to_the_south_pole: Ring = (0, 0, 100, 0, 50, -LAT_MAX)
    assert Area((0, -LAT_MAX, 100, 0), ((to_the_south_pole,),)).contains(-LAT_MAX, 77)
    assert not Area((0, -LAT_MAX, 100, 0), (((0, 0, 100, 0, 50, -5),),)).contains(-LAT_MAX, 77)


@pytest.mark.parametrize(
    ("lat", "lon"), [(0, LON_MAX + 1), (0, -LON_MAX - 1), (LAT_MAX + 1, LON_MAX), (-LAT_MAX - 1, 0)]
)
def test_what_is_not_on_the_globe_is_in_no_area(lat: int, lon: int) -> None:
    assert not Area((0, -LAT_MAX, -1, LAT_MAX)).contains(lat, lon)


@pytest.mark.parametrize(
    ("lat", "lon", "metres"),
    [(49, 10, 111_195), (47, 11, 75_836), (48, 11, 74_403), (48.5, 10.5, 66_750), (47.5, 10.25, 18_780)],
)
def test_the_way_to_the_border(lat: float, lon: float, metres: float) -> None:
    box = Area((9 * 10**7, 47 * 10**7, 10 * 10**7, 48 * 10**7))
    ring = (90000000, 470000000, 100000000, 470000000, 100000000, 480000000, 90000000, 480000000)
    for area in (box, Area(box.bbox, ((ring,),))):
        assert area.distance_m(round(lat * 10**7), round(lon * 10**7)) == pytest.approx(metres, rel=0.01)


def test_the_way_to_the_border_over_the_antimeridian() -> None:
    assert Area((1795 * 10**6, 0, -1795 * 10**6, 10**7)).distance_m(0, -179 * 10**7) == pytest.approx(55_597, rel=0.01)
    assert Area((1795 * 10**6, 0, -1795 * 10**6, 10**7)).distance_m(0, 179 * 10**7) == pytest.approx(55_597, rel=0.01)


@given(LATS, LATS)
def test_the_middle_of_the_box_is_in_degrees(south: int, north: int) -> None:
    if south < north:
        assert Area((0, south, 1, north)).middle_latitude == pytest.approx((south * 1e-7 + north * 1e-7) / 2)
