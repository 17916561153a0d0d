"""The search in a mission's map: from memory or from the medium, at one zoom or all."""

from __future__ import annotations

import time

import numpy as np
import pytest

import store
from builders.example.terrain import render
from builders.grid.tiles import Tile, tile_id
from builders.grid.views import View
from builders.onboard.flying import flying_engine
from builders.onboard.retriever import Retriever, located
from store.errors import NotFound
from tests.support.field import Desk

TILES = (Tile(15, 7357, 11522), Tile(15, 7358, 11522), Tile(14, 3679, 5761))


def test_searches_find_the_tile_that_a_frame_shows(built: Desk) -> None:
    mission = store.takeoff_check(built.store, "left", trust=built.root.read_bytes(), now=int(time.time())).mission
    assert mission is not None
    queries = flying_engine(mission, "embedder").describe([render(tile) for tile in TILES])
    with Retriever(mission, "embedder") as retriever:
        matches = retriever.search(queries, 3)
        ids, cosines = retriever.nearest(queries, 3)
    assert [row[0].tile for row in matches] == list(TILES)
    assert ids[:, 0].tolist() == [tile_id(tile) for tile in TILES]
    assert (np.diff(cosines, axis=1) <= 0).all()
    with Retriever(mission, "embedder", in_memory=False) as retriever:
        again = retriever.nearest(queries, 3)
    assert np.array_equal(again[0], ids)
    assert np.array_equal(again[1], cosines)
    with Retriever(mission, "embedder", zoom=15) as retriever:
        assert {match.tile.z for row in retriever.search(queries, 5) for match in row} == {15}
    for options, has in (({"zoom": 9}, "14, 15"), ({"index": "fast"}, "none")):
        with pytest.raises(NotFound) as caught:
            Retriever(mission, "embedder", **options)
        assert has in caught.value.remedy


def test_the_middle_of_a_view_over_the_antimeridian() -> None:
    last = Tile(3, 7, 3)
    assert located(last, View(2, 1), 1.0).centre == (0.0, -180.0)
    assert located(last, View(2, 1), 1.0).corner == pytest.approx((40.9798981, 135.0))
