"""Corridors from GeoJSON, against geodesics of WGS 84; refusals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.areas.corridor import EARTH_RADIUS_M
from builders.areas.covering import tiles_of_area
from store.errors import Invalid
from store.format.area import LON_MAX, Area
from store.format.cbor import Fields
from tests.builders.areas.shapes import (
    DEGREE,
    SQUARE,
    TURN,
    Write,
    box,
    collection,
    feature,
    polygon,
)
from tests.support.drawings import corridor_in


def line(*points: Sequence[float]) -> dict[str, Any]:
    return {"type": "LineString", "coordinates": list(points)}


def wgs84_direct(lat: float, lon: float, course: float, metres: float) -> tuple[float, float]:
    """Vincenty's direct formula on WGS 84 (Survey Review 176, 1975); radians."""
    a, f = 6378137.0, 1 / 298.257223563
    b = a * (1 - f)
    reduced = math.atan((1 - f) * math.tan(lat))
    sigma1 = math.atan2(math.tan(reduced), math.cos(course))
    sine = math.cos(reduced) * math.sin(course)
    u2 = (1 - sine**2) * (a**2 - b**2) / b**2
    big_a = 1 + u2 / 16384 * (4096 + u2 * (-768 + u2 * (320 - 175 * u2)))
    big_b = u2 / 1024 * (256 + u2 * (-128 + u2 * (74 - 47 * u2)))
    sigma = metres / b / big_a
    for _ in range(20):
        m = math.cos(2 * sigma1 + sigma)
        cubic = big_b / 6 * m * (4 * math.sin(sigma) ** 2 - 3) * (4 * m * m - 3)
        delta = big_b * math.sin(sigma) * (m + big_b / 4 * (math.cos(sigma) * (2 * m * m - 1) - cubic))
        sigma = metres / b / big_a + delta
    su, cu, ss, cs = math.sin(reduced), math.cos(reduced), math.sin(sigma), math.cos(sigma)
    end = math.atan2(
        su * cs + cu * ss * math.cos(course), (1 - f) * math.hypot(sine, su * ss - cu * cs * math.cos(course))
    )
    turned = math.atan2(ss * math.sin(course), cu * cs - su * ss * math.cos(course))
    c = f / 16 * (1 - sine**2) * (4 + f * (4 - 3 * (1 - sine**2)))
    turned -= (1 - c) * f * sine * (sigma + c * ss * (m + c * cs * (2 * m * m - 1)))
    return end, lon + turned


def vector(lat: float, lon: float) -> NDArray[np.float64]:
    return np.array([math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)])


def between(a: tuple[float, float], b: tuple[float, float], part: float) -> tuple[float, float]:
    """The point of the great circle from a to b (lat, lon in radians): halved again and again, as a check of slerp."""
    low, high = vector(*a), vector(*b)
    place, step = 0.0, 1.0
    for _ in range(50):
        middle = low + high
        middle /= np.linalg.norm(middle)
        step /= 2
        if part >= place + step:
            low, place = middle, place + step
        else:
            high = middle
    return math.asin(low[2]), math.atan2(low[1], low[0])


def distance_to_leg(point: tuple[float, float], a: tuple[float, float], b: tuple[float, float]) -> float:
    """From a point to the great circle between a and b on the sphere, in metres."""
    p, x, y = vector(*point), vector(*a), vector(*b)
    pole = np.cross(x, y)
    pole /= np.linalg.norm(pole)
    if np.cross(pole, x) @ p >= 0 and np.cross(y, pole) @ p >= 0:
        return EARTH_RADIUS_M * abs(math.asin(float(pole @ p)))
    return EARTH_RADIUS_M * min(2 * math.asin(float(np.linalg.norm(p - end)) / 2) for end in (x, y))


def holds(area: Area, point: tuple[float, float]) -> bool:
    lat, lon = (math.degrees(value) * DEGREE for value in point)
    return area.contains(round(lat), round((lon + LON_MAX) % TURN - LON_MAX))


LEGS = st.tuples(
    st.floats(-80, 80), st.floats(-180, 180), st.floats(0, math.tau), st.floats(1000, 2_000_000), st.floats(1, 200_000)
)


@settings(max_examples=60)
@given(LEGS, st.lists(st.tuples(st.floats(0, 1), st.floats(0, math.tau), st.floats(0, 1)), min_size=20, max_size=20))
@example((80, 0, math.pi / 2, 300_000, 200_000), [(i / 40, s, 1.0) for i in range(40) for s in (0, 0.5, 3.14)])
@example((-60, 179.9, 1.0, 1_500_000, 100), [(i / 99, s, 1.0) for i in range(99) for s in (2.5, 5.6, 0, 3.14)])
@example((0, 0, math.radians(55), 2_000_000, 5000), [(i / 99, s, 1.0) for i in range(99) for s in (2.5, 5.6)])
@example((70, 10, math.radians(55), 900_000, 30), [(i / 99, s, 1.0) for i in range(99) for s in (2.5, 5.6)])
def test_a_corridor_is_never_narrower_than_asked_and_hardly_wider(
    write: Write, leg: tuple[float, ...], samples: list[tuple[float, float, float]]
) -> None:
    lat, lon, course, length, width = leg
    a = (math.radians(lat), math.radians(lon))
    b = wgs84_direct(*a, course, length)
    coordinates = [[math.degrees(lon), math.degrees(lat)] for lat, lon in (a, b)]
    path = write(line(*([(lon + 180) % 360 - 180, lat] for lon, lat in coordinates)))
    try:
        area = corridor_in(path, width)
    except Invalid:  # near a pole, or too long for its width: which, the refusals below test
        assume(False)
        return
    for part, side, share in samples:
        at = between(a, b, part)
        # A centimetre for the roundings of both ends of the line and of the point.
        assert holds(area, wgs84_direct(*at, side, max(0.0, share * width / 2 - 0.01)))
        far = width / 2 * 1.04 + 0.2
        beyond = wgs84_direct(*at, side, far * 1.006)
        assert distance_to_leg(beyond, a, b) <= far or not holds(area, beyond)


def test_a_corridor_has_no_gap_at_its_vertices_and_takes_all_lines(write: Write) -> None:
    zigzag: list[list[float]] = [[0, 50], [0.1, 50.05], [0, 50.1], [0.1, 50.15], [0.1, 50.15]]
    several = {"type": "MultiLineString", "coordinates": [zigzag, [[1, 50], [1.1, 50]]]}
    area = corridor_in(write(collection(feature(several), feature(line([3, 50], [3, 51])))), Decimal(1000))
    assert len(area.polygons) == 3
    for lon, lat in (*zigzag, [1.0, 50.0], [1.1, 50.0], [3.0, 50.5]):
        for side in np.linspace(0, math.tau, 37).tolist():
            assert holds(area, wgs84_direct(math.radians(lat), math.radians(lon), side, 499.98))
    assert Area.parse(Fields(area.value(), "area")) == area
    assert len(tiles_of_area(area, 14)) > 10


def test_a_closed_line_leaves_what_it_goes_round(write: Write) -> None:
    area = corridor_in(write(line(*box(10, 40, 10.1, 40.1))), 500)
    assert [len(rings) for rings in area.polygons] == [2]
    assert not area.contains(400500000, 100500000)


@pytest.mark.parametrize("ends", [(179, -179), (179, 181), (-181, -179), (-179, -181), (181, 179)])
def test_a_leg_goes_the_short_way_round(write: Write, ends: tuple[float, float]) -> None:
    area = corridor_in(write(line([ends[0], 10], [ends[1], 10])), 20_000)
    west, _, east, _ = area.bbox
    assert (west > 0, east < 0) == (True, True)
    assert len(area.polygons) == 2
    assert area.contains(10 * DEGREE, LON_MAX)
    assert area.contains(10 * DEGREE, -LON_MAX)
    assert not area.contains(10 * DEGREE, 0)


def test_a_corridor_round_the_world(write: Write) -> None:
    area = corridor_in(write(line(*([lon, 0] for lon in range(-180, 181, 60)))), 200_000)
    assert area.bbox[0] == -LON_MAX
    assert area.bbox[2] == LON_MAX
    assert len(tiles_of_area(area, 4)) == 32


LINE = line([0, 50], [1, 50])
BAD_CORRIDORS: dict[str, tuple[object, float, str]] = {
    "polygon": (polygon(SQUARE), 100, "has no line; the geometry is a Polygon: passed over"),
    "curve": (collection(feature(LINE), feature({"type": "Curve"})), 100, r"features\[1\]\.geometry is"),
    "one_position": (line([0, 50]), 100, "no length"),
    "no_length": (line([0, 50], [0, 50], [1e-9, 50]), 100, "no length"),
    "part_of_no_length": ({"type": "MultiLineString", "coordinates": [[[0, 0], [1, 1]], [[0, 0]]]}, 9, r"\[1\] has"),
    "antipodes": (line([0, 50], [180, -50]), 100, r"coordinates\[1\] is antipodal"),
    "over_the_pole": (line([0, 80], [180, 80]), 100, "pole"),
    "near_the_pole": (line([0, 84.5], [1, 84.5]), 150_000, "pole"),
    "the_great_circle_is_near_the_pole": (line([0, 70], [170, 70]), 100, "pole"),
    "no_width": (LINE, 0, "width of the corridor"),
    "below_nothing": (LINE, -100, "width of the corridor"),
    "width_is_no_number": (LINE, math.nan, "width of the corridor"),
    "width_without_end": (LINE, math.inf, "width of the corridor"),
    "wide": (LINE, 200_001, "width of the corridor"),
    "long_and_narrow": (line([0, 0], [100, 50]), 1, "too long|vertices|pieces"),
    "many_pieces": (line(*([i % 100, 60] for i in range(3000))), 1, "pieces"),
    "many_vertices": (line(*([i / 1000, 50 + i % 2 / 1000] for i in range(3000))), 10, "vertices"),
}


@pytest.mark.parametrize("name", BAD_CORRIDORS)
def test_refuses_a_corridor(write: Write, name: str) -> None:
    value, width, told = BAD_CORRIDORS[name]
    with pytest.raises(Invalid, match=told) as caught:
        corridor_in(write(value), width)
    assert caught.value.remedy
