"""Live rows, against their definition row by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import builders.grid.live as module
from builders.grid.live import find, is_live, live, missing_at
from builders.grid.tiles import tiles_of_bbox
from builders.grid.views import View
from store.format.missing import MissingList, Run

ZOOM = 14
AREA = tiles_of_bbox((-991800000, 470080000, -990800000, 470700000), ZOOM)
VIEWS = [View(), View(2, 1), View(2, 2), View(3, 2)]


def test_find_gives_the_place_of_each_id() -> None:
    present, places = find(np.array([3, 5, 9], np.uint64), np.array([1, 3, 9, 10], np.uint64))
    assert present.tolist() == [False, True, True, False]
    assert places[present].tolist() == [0, 2]
    assert not find(np.empty(0, np.uint64), np.array([1], np.uint64))[0].any()


@given(st.sampled_from(VIEWS), st.sets(st.sampled_from(AREA.tolist()), max_size=9), st.integers(1, 1 << 9))
def test_a_row_is_live_that_shows_a_tile_of_the_area_and_no_missing_one(
    view: View, lost: set[int], footprint: int
) -> None:
    inside = AREA[: len(AREA) // 2]
    missing = np.array(sorted(lost & set(inside.tolist())), np.uint64)
    origins = view.origins_over(ZOOM, AREA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FOOTPRINT_IDS", footprint)
        kept = is_live(ZOOM, view, origins, inside, missing)
    for shown, alive in zip(view.footprint(ZOOM, origins).reshape(len(origins), -1).tolist(), kept, strict=True):
        assert alive == (bool(set(shown) & set(inside.tolist())) and not set(shown) & set(missing.tolist()))
    assert live(ZOOM, view, origins, inside, missing).tolist() == origins[kept].tolist()


def test_no_row_at_all() -> None:
    nothing = np.empty(0, np.uint64)
    assert is_live(ZOOM, View(2, 2), nothing, AREA, nothing).tolist() == []


@given(st.sets(st.integers(0, len(AREA) - 1), max_size=20))
def test_the_missing_tiles_of_a_zoom_are_those_on_the_list(lost: set[int]) -> None:
    """Runs of other zooms, and tiles of a run that the area does not have, name nothing here."""
    here = sorted(int(AREA[i]) for i in lost)
    listed = MissingList(
        (Run(0, 3, "blank"), *(Run(number, 1, "absent" if i % 2 else "blank") for i, number in enumerate(here)))
    )
    assert missing_at(listed, AREA).tolist() == here
    whole = MissingList((Run(int(AREA[0]) - 5, int(AREA[-1] - AREA[0]) + 10, "absent"),))
    assert missing_at(whole, AREA).tolist() == AREA.tolist()
