"""Footprints from GeoJSON and the dates that they give to tiles: laws, an oracle tile by tile, refusals."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.grid.tiles import Tile, tile_id, tiles_of_bbox
from builders.imagery import footprints as footprints_module
from builders.imagery.footprints import MAX_FOOTPRINTS, Footprint, Footprints, read_footprints
from store.errors import Invalid
from store.format.area import LON_MAX, Ring
from tests.builders.areas.shapes import (
    DEGREE,
    SQUARE,
    SQUARE_E7,
    TURN,
    Write,
    box_ring,
    collection,
    feature,
    polygon,
    shape_of,
    shapely,
    shared_ground,
    stars,
)

DAY = 86400


def unix(year: int, month: int, day: int) -> int:
    return int(np.datetime64(f"{year:04}-{month:02}-{day:02}", "s").astype(np.int64))


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2018-07-16", unix(2018, 7, 16)),
        ("2018-07-16T10:30:00Z", unix(2018, 7, 16)),
        ("2018-07-16t10:30:60.123456789z", unix(2018, 7, 16)),
        ("2018-07-16 23:30:00-05:00", unix(2018, 7, 17)),
        ("2018-07-16T01:30:00+05:30", unix(2018, 7, 15)),
        ("1900-01-01", unix(1900, 1, 1)),
        ("9999-12-31T23:59:59Z", unix(9999, 12, 31)),
    ],
)
def test_the_day_of_a_footprint(write: Write, text: str, day: int) -> None:
    for value in (feature(polygon(SQUARE), datetime=text), collection(feature(polygon(SQUARE), datetime=text))):
        assert read_footprints(write(value)) == Footprints((Footprint(day, (SQUARE_E7,)),))


@pytest.mark.parametrize(
    "text",
    [
        None,
        20180716,
        "",
        "2018",
        "2018-07",
        "20180716",
        "2018-02-30",
        "2018-13-01",
        "1899-12-31",
        "1900-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "2018-07-16T10:30:00",
        "2018-07-16T10:30Z",
        "2018-07-16T24:00:00Z",
        "2018-07-16T10:30:61Z",
        "2018-07-16T10:30:00+24:00",
        "2018-07-16T10:30:00+05:60",
        "٢٠١٨-07-16",
        "2018-07-16\n",
    ],
)
def test_refuses_a_day(write: Write, text: object) -> None:
    with pytest.raises(Invalid, match=r"features\[0\]\.properties\.datetime") as caught:
        read_footprints(write(collection(feature(polygon(SQUARE), datetime=text))))
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("value", "words", "remedy"),
    [
        (polygon(SQUARE), "is not part of a Feature", "a property datetime"),
        ({"type": "Feature", "geometry": polygon(SQUARE)}, "", ""),
        ({"type": "Feature", "geometry": polygon(SQUARE), "properties": []}, "", ""),
        (collection(feature({"type": "Point", "coordinates": [0, 0]}, datetime="2018-07-16")), "", ""),
        (collection(), "", ""),
        (
            collection(*[feature(polygon(SQUARE), datetime="2018-07-16")] * (MAX_FOOTPRINTS + 1)),
            "features[4096] exceeds the limit of 4096 footprints and 16384 polygons",
            "divide the mosaic",
        ),
    ],
)
def test_refuses_footprints(write: Write, value: object, words: str, remedy: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_footprints(write(value))
    assert caught.value.message.endswith(words)
    assert remedy in caught.value.remedy != ""


@pytest.mark.parametrize(("count", "taken"), [(5, True), (6, False)])
def test_as_many_polygons_as_the_limit(write: Write, monkeypatch: pytest.MonkeyPatch, count: int, taken: bool) -> None:
    monkeypatch.setattr(footprints_module, "MAX_FOOTPRINT_POLYGONS", 5)
    squares = [polygon(SQUARE)["coordinates"]] * (count - 2)
    many = feature({"type": "MultiPolygon", "coordinates": squares}, datetime="2018-07-16")
    more = [feature(polygon(SQUARE), datetime="2018-07-16")] * 2
    with nullcontext() if taken else pytest.raises(Invalid, match="exceeds the limit"):
        read = read_footprints(write(collection(many, *more)))
        assert [len(one.polygons) for one in read.footprints] == [count - 2, 1, 1]


def test_as_many_footprints_as_the_limit(write: Write) -> None:
    every = [feature(polygon(SQUARE), datetime="2018-07-16")] * MAX_FOOTPRINTS
    assert len(read_footprints(write(collection(*every))).footprints) == MAX_FOOTPRINTS == 4096


OLD, NEW, DEFAULT = unix(2010, 1, 1), unix(2020, 1, 1), unix(2015, 1, 1)
# Zoom 5, the row north of the equator: a tile is 11.25 degrees wide.
STEP = TURN >> 5
ROW = [tile_id(Tile(5, 16 + i, 15)) for i in range(6)]


def strip(start: float, stop: float, date: int) -> Footprint:
    return Footprint(date, ((box_ring(round(start * STEP), -DEGREE, round(stop * STEP), 20 * DEGREE),),))


def dates(*footprints: Footprint, default: int = DEFAULT) -> list[int]:
    captured: list[int] = Footprints(footprints).captured(5, np.array(ROW, np.uint64), default).tolist()
    return captured


def test_a_tile_is_as_old_as_the_oldest_that_it_meets() -> None:
    assert dates(strip(0, 2, NEW), strip(1, 6, OLD)) == [NEW, OLD, OLD, OLD, OLD, OLD]
    assert dates(strip(1, 6, OLD), strip(0, 2, NEW)) == [NEW, OLD, OLD, OLD, OLD, OLD]


def test_what_no_footprint_meets_has_the_default() -> None:
    assert dates(strip(2, 4, NEW)) == [DEFAULT, DEFAULT, NEW, NEW, DEFAULT, DEFAULT]


def test_a_tile_that_is_partly_covered_is_no_newer_than_the_default() -> None:
    assert dates(strip(0, 1.5, NEW)) == [NEW, DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT]
    assert dates(strip(0, 1.5, OLD)) == [OLD, OLD, DEFAULT, DEFAULT, DEFAULT, DEFAULT]
    hole = box_ring(STEP // 4, DEGREE, STEP // 2, 2 * DEGREE)
    pierced = Footprint(NEW, ((box_ring(0, -DEGREE, 6 * STEP, 20 * DEGREE), hole),))
    assert dates(pierced) == [DEFAULT, NEW, NEW, NEW, NEW, NEW]


def test_footprints_that_cover_a_tile_together_cover_it() -> None:
    assert dates(strip(0, 1.5, NEW), strip(1.5, 3, NEW + DAY)) == [NEW, NEW, NEW + DAY, DEFAULT, DEFAULT, DEFAULT]
    # A slanting seam whose far side has a vertex that cannot lie exactly on it.
    s, n = -DEGREE, 20 * DEGREE
    left: Ring = (0, s, STEP + 1, s, 2 * STEP, n, 0, n)
    seam = round(STEP + 1 + (STEP - 1) * (DEGREE + 7777777) / (21 * DEGREE))
    right: Ring = (STEP + 1, s, 6 * STEP, s, 6 * STEP, n, 2 * STEP, n, seam, 7777777)
    assert dates(Footprint(NEW, ((left,),)), Footprint(NEW, ((right,),))) == [NEW] * 6


def test_dates_come_in_the_order_of_the_ids() -> None:
    footprints = Footprints((strip(0, 2, NEW), strip(1, 6, OLD)))
    ids = np.array([ROW[1], ROW[0], ROW[1], tile_id(Tile(5, 0, 0))], np.uint64)
    captured = footprints.captured(5, ids, DEFAULT)
    assert captured.dtype == np.int64
    assert captured.tolist() == [OLD, NEW, OLD, DEFAULT]
    assert footprints.captured(5, np.array([], np.uint64), DEFAULT).tolist() == []


@pytest.mark.parametrize("number", [0, tile_id(Tile(5, 0, 0)) - 1, tile_id(Tile(6, 0, 0)), 2**64 - 1])
def test_ids_of_another_zoom_are_invalid(number: int) -> None:
    with pytest.raises(Invalid):
        Footprints((strip(0, 1, OLD),)).captured(5, np.array([number], np.uint64), DEFAULT)


@settings(max_examples=50)
@given(st.lists(st.tuples(stars(30 * DEGREE), st.integers(0, 5)), min_size=1, max_size=5), st.integers(0, 5), st.data())
def test_dates_against_the_definition(scenes: list[tuple[Ring, int]], zoom: int, data: st.DataObject) -> None:
    """Tile by tile with shapely; tiles that a footprint barely meets or barely leaves uncovered are passed over."""
    first = tile_id(Tile(zoom, 0, 0))
    places = data.draw(st.lists(st.integers(0, 4**zoom - 1), min_size=1, max_size=50))
    footprints = Footprints(tuple(Footprint(date, ((ring,),)) for ring, date in scenes))
    captured = footprints.captured(zoom, np.array(places, np.uint64) + np.uint64(first), 2).tolist()
    parts = [shared_ground(shape_of((ring,)), zoom) for ring, _ in scenes]
    together = shared_ground(shapely.union_all([shape_of((ring,)) for ring, _ in scenes]), zoom)
    for place, date in zip(places, captured, strict=True):
        shares = [part[place] for part in parts]
        if any(0 < share < 1e-9 for share in shares) or 1e-9 > 1 - together[place] > 1e-13:
            continue
        met = [day for (_, day), share in zip(scenes, shares, strict=True) if share > 0]
        assert date == min(met + [2] * (not met or int(together[place] < 1 - 1e-9)))


def test_a_mosaic_over_a_large_area_costs_what_the_ids_cost() -> None:
    world = Footprint(OLD, ((box_ring(-LON_MAX, -85 * DEGREE, LON_MAX, 85 * DEGREE),),))
    ids = tiles_of_bbox((-991750000, 470080000, -991740000, 470090000), 24)
    assert set(Footprints((world, world)).captured(24, ids, DEFAULT).tolist()) == {OLD}
