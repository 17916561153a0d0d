"""The views that a map is asked for: spread evenly, each once, and only where the sources have what they show."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.grid.tiles import tile_ids
from builders.grid.views import View
from builders.imagery.inventory import Level
from builders.retrieval.pictures import sample, shown

ZOOM = 12


def level(side: int, shows: Mapping[tuple[int, int], int] | None = None, absent: frozenset[int] = frozenset()) -> Level:
    """A square of side x side tiles with a ring of one tile. Tiles of equal numbers in `shows` have equal bytes."""
    x, y = np.meshgrid(np.arange(side + 2) + 1000, np.arange(side + 2) + 1000)
    ids = tile_ids(ZOOM, x.ravel(), y.ravel())
    numbers = [
        (shows or {}).get((int(a) - 1001, int(b) - 1001), int(i)) for a, b, i in zip(x.flat, y.flat, ids, strict=True)
    ]
    hashes = np.array([np.frombuffer(number.to_bytes(32, "little"), np.uint8) for number in numbers])
    order = np.argsort(ids)
    order = order[~np.isin(ids[order], list(absent))]
    inner = (x.ravel() > 1000) & (y.ravel() > 1000) & (x.ravel() <= 1000 + side) & (y.ravel() <= 1000 + side)
    required = np.sort(ids[inner])
    dates, metres = np.zeros(len(required), np.int64), np.zeros(len(required), np.float64)
    good, nothing = np.zeros(len(order), np.uint8), np.zeros(len(required), np.uint8)
    pictures = np.arange(len(order), dtype=np.uint64) + 1
    return Level(ZOOM, required, ids[order], hashes[order], True, dates, metres, good, pictures, nothing)


@given(st.integers(1, 12), st.integers(1, 40))
def test_each_view_once_up_to_the_number(side: int, count: int) -> None:
    whole = level(side)
    origins = sample(whole, View(), 1, count)
    assert len(origins) == min(count, side * side)
    assert (np.diff(origins.astype(np.int64)) > 0).all()
    assert np.isin(origins, whole.required).all()
    # A larger sample asks for the same views and more.
    assert np.isin(origins, sample(whole, View(), 1, count + 1)).all()


def test_a_sample_is_spread_evenly() -> None:
    whole = level(32)
    places = np.searchsorted(whole.required, sample(whole, View(), 1, 32))
    assert np.diff(places).max() <= 2 * len(whole.required) / 32


@pytest.mark.parametrize("view", [View(), View(2, 1)])
def test_views_that_show_the_same_bytes_are_one(view: View) -> None:
    sea = {(x, y): 7 for x in range(8) for y in range(8) if x < 4}
    some = level(8, sea)
    origins = sample(some, view, 0, 1000)
    keys = shown(some, view, origins)
    assert len(set(keys)) == len(keys)
    # Everything else is asked for: the views of nothing but sea are one.
    assert len(origins) == len(set(shown(some, view, sample_of_all(some, view))))


def sample_of_all(level: Level, view: View) -> NDArray[np.uint64]:
    footprints = view.footprint(level.zoom, view.origins_over(level.zoom, level.required))
    whole: NDArray[np.uint64] = footprints[level.find(footprints.ravel())[0].reshape(footprints.shape).all(axis=(1, 2))]
    return whole[:, 0, 0]


def test_a_view_without_its_ring_is_not_asked_for() -> None:
    whole = level(5)
    corner = int(tile_ids(ZOOM, np.array([1000]), np.array([1000]))[0])
    fewer = sample(level(5, absent=frozenset([corner])), View(), 1, 100)
    assert set(sample(whole, View(), 1, 100).tolist()) - set(fewer.tolist()) == {
        int(tile_ids(ZOOM, np.array([1001]), np.array([1001]))[0])
    }
    assert len(sample(level(5, absent=frozenset([corner])), View(), 0, 100)) == 25


def test_an_area_without_a_tile_is_asked_for_nothing() -> None:
    whole = level(3)
    empty = level(3, absent=frozenset(whole.ids.tolist()))
    assert sample(empty, View(), 1, 8).tolist() == []
