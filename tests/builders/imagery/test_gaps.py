"""The edges of an area that the imagery does not reach: how far, and the box that would be whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.grid.tiles import tile_xy, tiles_of_bbox
from builders.imagery.gaps import Box, elsewhere, gaps

AREA = (-991800000, 470080000, -991550000, 470300000)


@dataclass(frozen=True)
class Tiles:
    zoom: int
    required: NDArray[np.uint64]
    present: NDArray[np.bool_]


def tiles(bbox: Box, zoom: int, covered: Box) -> Tiles:
    """The tiles of an area, of which those present are the tiles that a second box covers."""
    required = tiles_of_bbox(bbox, zoom)
    return Tiles(zoom, required, np.isin(required, tiles_of_bbox(covered, zoom)))


def named_box(text: str, bbox: Box) -> Box:
    edges = dict(re.findall(r"(west|south|east|north) = (-?\d+\.\d{5})", text))
    assert edges
    return tuple(  # type: ignore[return-value]
        round(float(edges[side]) * 10**7) if side in edges else bbox[place]
        for place, side in enumerate(("west", "south", "east", "north"))
    )


def require_whole(text: str, bbox: Box, levels: list[Tiles]) -> None:
    """The remedy is followed, and works."""
    box = named_box(text, bbox)
    assert box[1] < box[3]
    for one in levels:
        assert np.isin(tiles_of_bbox(box, one.zoom), one.required[one.present]).all()


@pytest.mark.parametrize("side", range(4))
def test_an_edge_that_is_short_and_the_box_that_would_be_whole(side: int) -> None:
    covered = list(AREA)
    covered[side] += (90_000, 70_000, -90_000, -70_000)[side]
    levels = [tiles(AREA, zoom, tuple(covered)) for zoom in (14, 15, 16)]  # type: ignore[arg-type]
    first, second = gaps(levels, AREA)
    name = ("west", "south", "east", "north")[side]
    assert first.startswith("the imagery ends short of the area: ")
    assert re.search(rf"\d+ m in the {name} \(.*\d+ (row|column)s? of tiles at zoom 16\)", first)
    assert second.startswith(f"with {name} = ")
    assert second.endswith(" as the edge of the area no tile would be absent")
    require_whole(second, AREA, levels)


def test_nothing_is_said_where_all_or_nothing_is_there() -> None:
    assert gaps([tiles(AREA, 15, AREA)], AREA) == ()
    assert gaps([tiles(AREA, 15, (0, 0, 10**7, 10**7))], AREA) == ()


def test_a_hole_is_no_edge() -> None:
    whole = tiles(AREA, 16, AREA)
    x, y = tile_xy(16, whole.required)
    hole = (x == x.min() + 2) & (y == y.min() + 2)
    assert gaps([Tiles(16, whole.required, ~hole)], AREA) == (
        "1 absent tile lies inside of what the imagery covers: a hole, not an edge",
    )


@given(
    st.tuples(*[st.integers(0, 90_000)] * 4),
    st.sampled_from([AREA, (1799900000, -10_000_00, -1799900000, 150_000), (-100000, -100000, 100000, 100000)]),
    st.lists(st.integers(12, 17), min_size=1, max_size=3, unique=True),
)
def test_the_box_that_is_named_is_whole(cuts: tuple[int, int, int, int], area: Box, zooms: list[int]) -> None:
    west, south, east, north = area
    covered = (west + cuts[0], south + cuts[1], east - cuts[2], north - cuts[3])
    levels = [tiles(area, zoom, covered) for zoom in zooms]
    for text in gaps(levels, area):
        if text.startswith("with "):
            require_whole(text, area, levels)


BOUNDS = (-99.18, 47.008, -99.155, 47.03)


@pytest.mark.parametrize(
    ("area", "words"),
    [
        (AREA, ""),
        ((-991800000, -470300000, -991550000, -470080000), "other hemisphere: check the signs of the latitudes"),
        ((991550000, 470080000, 991800000, 470300000), "other hemisphere: check the signs of the longitudes"),
        ((470080000, -991800000, 470300000, -991550000), "latitudes and longitudes of the area look exchanged"),
        ((100000000, 470080000, 101000000, 470300000), ""),
    ],
)
def test_a_source_that_lies_elsewhere_is_named_with_its_bounds(area: Box, words: str) -> None:
    text = elsewhere(Path("a.mbtiles"), BOUNDS, area)
    west, south, east, north = (edge / 10**7 for edge in area)
    assert text.startswith(
        "a.mbtiles has imagery at lat 47.0080 to 47.0300, lon -99.1800 to -99.1550; the area lies at "
        f"lat {south:.4f} to {north:.4f}, lon {west:.4f} to {east:.4f}"
    )
    assert text.endswith(words or f"{east:.4f}")
