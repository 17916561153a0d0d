"""The geometry of charts: bars end where their values do, the line never falls."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from builders.atlas import cells, grid
from store.format.manifest import Takeoff
from store.format.missing import MissingList
from tests.builders.test_atlas import opened_of
from tests.support.map_store import AREA, FIJI, map_flight
from tools.report.charts import bar, map_of, steps


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=4), st.integers(0, 10**6))
def test_a_bar_of_parts_ends_at_its_whole(values: list[int], more: int) -> None:
    one = bar(values, sum(values) + more, [sum(values)])
    assert list(one.parts) == sorted(one.parts)
    assert all(0 <= end <= 100 for end in (*one.parts, *one.marks))
    if sum(values) + more:
        assert one.parts[-1] == one.marks[0]


@given(st.lists(st.tuples(st.integers(0, 10**10), st.integers(0, 10**12)), max_size=20))
def test_a_line_of_what_grows_never_falls(pairs: list[tuple[int, int]]) -> None:
    total, points = 0, []
    for at, more in sorted(pairs):
        total += more
        points.append((at, total))
    line = steps(points)
    assert (line is None) == (not total)
    if line is not None:
        heights = [float(part) for part in re.findall(r"V([0-9.]+)", line.path)]
        places = [float(part) for part in re.findall(r"H([0-9.]+)", line.path)]
        assert heights == sorted(heights, reverse=True)
        assert places == sorted(places)
        assert min(heights) == 10
        assert line.area == f"{line.path}V200z"


def test_a_takeoff_far_away_does_not_shrink_the_map() -> None:
    one = map_flight(area=AREA, zooms=(14,))
    squares = grid(AREA, 14, MissingList(()))
    found = cells(opened_of(one), {})
    near = map_of(squares, found, AREA, one.manifest.mission.takeoff)
    assert near.takeoff is not None
    assert near.cells
    assert not near.shared
    far = map_of(squares, found, AREA, Takeoff(0, 0, 0))
    assert far.takeoff is None
    assert far.box[2] < 2 * squares.width
    beside = map_of(squares, found, AREA, Takeoff(470200000, -992000000, 0))
    assert beside.takeoff is not None
    assert beside.takeoff[0] < 0
    assert beside.box[0] < beside.takeoff[0]


def test_a_map_over_the_antimeridian_is_one_picture() -> None:
    squares = grid(FIJI, 10, MissingList(()))
    one = map_of(squares, [], FIJI, Takeoff(-169000000, 1799000000, 0))
    numbers = [float(part) for part in re.findall(r"-?[0-9.]+", one.area)]
    assert all(-1 <= x <= squares.width + 1 for x in numbers[0::2])
    assert one.takeoff is not None
    assert 0 <= one.takeoff[0] <= squares.width
