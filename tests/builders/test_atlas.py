"""The map as facts: every square once and with the right state, across the antimeridian, in blocks, and coarser."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.areas.covering import tiles_of_signed_area
from builders.atlas import (
    DESCRIBED,
    MISSING,
    blocks,
    cells,
    described,
    footprints,
    grid,
    outlines,
    state_of,
)
from builders.grid.tiles import Tile, cell_range, tile_from_id, tile_xy
from store.errors import Corrupt
from store.format.area import Area
from store.format.missing import REASONS, MissingList
from store.takeoff.mission import Opened
from tests.support.map_store import AREA, ELL, FIJI, map_flight, runs_of
from tests.support.memory import MemoryEvidence
from tests.support.missions import ROOT, Flight

WORLD = Area((-1800000000, -850000000, 1800000000, 850000000))
_longitudes, _latitudes = st.integers(-1800000000, 1800000000), st.integers(-850000000, 850000000)


@st.composite
def boxes(draw: st.DrawFn) -> Area:
    """A small box anywhere, also over the antimeridian."""
    west, south = draw(_longitudes), draw(_latitudes)
    east = west + draw(st.integers(1, 300000000))
    east -= 3600000000 if east > 1800000000 else 0
    if east in (west, -1800000000):
        east += 1
    return Area((west, south, east, min(south + draw(st.integers(1, 200000000)), 890000000)))


def listing(area: Area, zoom: int, every: int) -> tuple[MissingList, dict[int, str]]:
    ids = tiles_of_signed_area(area, zoom).tolist()
    missing = {number: REASONS[place % len(REASONS)] for place, number in enumerate(ids[::every])}
    return runs_of(missing), missing


def opened_of(one: Flight) -> Opened:
    return Opened(one.manifest, one.manifest_id, len(one.signed), one.table, ROOT)


@given(boxes() | st.just(ELL) | st.just(FIJI), st.integers(0, 9), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_every_tile_of_the_area_is_one_square_with_its_state(area: Area, zoom: int, every: int) -> None:
    listed, missing = listing(area, zoom, every)
    one = grid(area, zoom, listed)
    ids = tiles_of_signed_area(area, zoom)
    assert one.side == 1
    assert (one.tiles, one.missing) == (len(ids), len(missing))
    assert np.count_nonzero(one.states) == len(ids)
    x, y = tile_xy(zoom, ids)
    for number, column, row in zip(ids.tolist(), x.tolist(), y.tolist(), strict=True):
        place = one.states[row - one.top, (column - one.left) % (1 << zoom)]
        assert place == (state_of(missing[number]) if number in missing else DESCRIBED)
    painted = np.zeros_like(one.states)
    for state, left, top, width, height in one.rectangles():
        assert not painted[top : top + height, left : left + width].any(), "a square belongs to one rectangle"
        painted[top : top + height, left : left + width] = state
    assert (painted == one.states).all()


@given(boxes() | st.just(ELL), st.integers(4, 10), st.integers(1, 50), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_a_coarse_square_with_a_missing_tile_never_looks_described(
    area: Area, zoom: int, every: int, longest: int
) -> None:
    listed, missing = listing(area, zoom, every)
    one = grid(area, zoom, listed, most=200, longest=longest)
    assert max(one.states.shape) <= longest
    assert np.count_nonzero(one.states) <= 200
    assert (one.tiles, one.missing) == (len(tiles_of_signed_area(area, zoom)), len(missing))
    world = (1 << zoom) // one.side or 1
    for number, reason in missing.items():
        tile = tile_from_id(number)
        state = one.states[tile.y // one.side - one.top, (tile.x // one.side - one.left) % world]
        assert MISSING <= state <= state_of(reason), "the first reason of its tiles"
    rows = one.rows(2)
    assert len(rows) == -(-one.height // 2)
    assert any(state >= MISSING for row in rows for state in row) == bool(missing)


@given(st.sets(st.integers(0, 4**5 - 1)), st.integers(5, 9))
def test_blocks_are_the_same_tiles_and_as_few_as_can_be(places: set[int], zoom: int) -> None:
    first = cell_range(Tile(0, 0, 0), zoom)[0]
    ids = np.array(sorted(first + place for place in places), np.uint64)
    found = blocks(zoom, ids)
    covered = [number for tile, _ in found for number in range(*cell_range(tile, zoom))]
    assert sorted(covered) == ids.tolist()
    assert all(count == 4 ** (zoom - tile.z) for tile, count in found)
    parents = Counter(Tile(tile.z - 1, tile.x // 2, tile.y // 2) for tile, _ in found if tile.z)
    assert max(parents.values(), default=0) < 4, "four brothers would be one block"


def test_a_whole_world_is_one_block() -> None:
    ids = np.arange(*cell_range(Tile(0, 0, 0), 3), dtype=np.uint64)
    assert blocks(3, ids) == [(Tile(0, 0, 0), 64)]
    assert grid(WORLD, 3, MissingList(())).width == 8


def test_places_lie_where_their_tiles_are_also_beyond_the_antimeridian() -> None:
    for area in (AREA, FIJI, WORLD):
        zoom = 5 if area is WORLD else 12
        one = grid(area, zoom, MissingList(()))
        west, south, east, north = (edge / 10**7 for edge in area.bbox)
        x, y = one.place(north, west)
        assert 0 <= x < 1
        assert 0 <= y < 1
        right, down = one.place(south, east)
        assert one.width - 1 <= right <= one.width
        assert one.height - 1 <= down <= one.height
        for row, column in zip(*np.nonzero(one.states), strict=True):
            tile = Tile(zoom, (one.left + int(column)) % (1 << zoom), one.top + int(row))
            assert one.place_of(tile) == (column, row, 1)


def test_outlines_run_as_rfc_7946_has_them_and_never_cross_the_antimeridian() -> None:
    for area, polygons in ((AREA, 1), (FIJI, 2), (ELL, 1)):
        found = outlines(area)
        assert len(found) == polygons
        for outer, *holes in found:
            assert outer[0] == outer[-1]
            assert _twice_area(outer) > 0
            assert all(_twice_area(hole) < 0 for hole in holes)
            assert max(x for x, _ in outer) - min(x for x, _ in outer) < 1800000000
    assert len(outlines(ELL)[0]) == 2


def _twice_area(ring: list[tuple[int, int]]) -> int:
    return sum(a * d - b * c for (a, b), (c, d) in itertools.pairwise(ring))


def test_cells_name_the_missions_that_have_the_same_shard() -> None:
    left = map_flight("left", Area((-994500000, 470080000, -991650000, 470330000)))
    right = map_flight("right", Area((-991650000, 470080000, -991350000, 470330000)))
    found = cells(opened_of(left), {"right": opened_of(right)})
    mine = {entry.id for entry in right.table.of_kind("descriptors")}
    assert [bool(one.shared) for one in found] == [left.entry(one.entry).id in mine for one in found]
    assert {one.shared for one in found} == {(), ("right",)}
    assert all(one.tile.z == 12 and one.zoom == 16 and one.rows == 256 for one in found)


def test_shards_with_other_names_are_no_cells() -> None:
    """Another writer may name its shards as it likes: FORMAT.md 6.1 gives the names no meaning."""
    one = map_flight()
    for name in ("descriptors/net/16/other.safetensors", "descriptors/net/16/12-9999-1.safetensors"):
        entry = replace(one.table.of_kind("descriptors")[0], name=name)
        assert cells(opened_of(replace(one, table=replace(one.table, entries=(entry,)))), {}) == []


@pytest.mark.parametrize("area", [AREA, FIJI])
def test_footprints_are_those_of_the_rows_that_a_search_may_return(area: Area) -> None:
    zoom = 14 if area is AREA else 10
    missing = tiles_of_signed_area(area, zoom).tolist()[0]
    listed = runs_of({missing: "absent"})
    one = map_flight(area=area, zooms=(zoom,), listed=listed, view=(2, 1))
    evidence = one.place(MemoryEvidence())
    found = list(footprints(opened_of(one), evidence, listed))
    assert found
    shown = {(f.origin.x + dx) % (1 << zoom) * 10**6 + f.origin.y + dy for f in found for dx in (0, 1) for dy in (0, 1)}
    tile = tile_from_id(missing)
    assert tile.x * 10**6 + tile.y not in shown
    assert {tile.x * 10**6 + tile.y for tile in map(tile_from_id, described(area, zoom, listed).tolist())} & shown
    shard = one.table.of_kind("descriptors")[0]
    evidence.objects[shard.id] = bytes(shard.size)
    with pytest.raises(Corrupt):
        list(footprints(opened_of(one), evidence, listed))
