"""Which tiles are missing and why, over made-up inventories: the order of reasons, views, the list and its way back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from builders.grid.live import live, missing_at
from builders.grid.tiles import tile_ids
from builders.grid.views import View
from builders.imagery.coverage import FAULTS, Gates, of_list, resolution_mm, shortfall, with_views
from builders.imagery.inventory import LACKS, Inventory, Level
from builders.imagery.signature import WRONG_SIZE
from store.format.missing import REASONS, Run

ZOOM, SIDE = 10, 6
DAY = 86400
NOW = 20_000 * DAY
COLUMNS, ROWS = (part.ravel() for part in np.meshgrid(np.arange(SIDE) + 300, np.arange(SIDE) + 400))
IDS = np.sort(tile_ids(ZOOM, COLUMNS, ROWS))


def level(
    absent: set[int] = frozenset(),  # type: ignore[assignment]
    old: set[int] = frozenset(),  # type: ignore[assignment]
    coarse: set[int] = frozenset(),  # type: ignore[assignment]
    *,
    has_zoom: bool = True,
) -> Level:
    """A square of tiles, of which those with these places are absent, 100 days old, or of 500 m a pixel."""
    there = np.array([i not in absent for i in range(len(IDS))])
    captured = np.array([NOW - (100 if i in old else 1) * DAY for i in range(len(IDS))]) * there
    native = np.array([500.0 if i in coarse else 0.0 for i in range(len(IDS))])
    hashes = np.random.default_rng(1).integers(0, 256, (int(there.sum()), 32), np.uint8)
    nothing, lacks = np.zeros(len(hashes), np.uint8), np.zeros(len(IDS), np.uint8)
    pictures = np.arange(len(hashes), dtype=np.uint64) + 1
    return Level(ZOOM, IDS, IDS[there], hashes, has_zoom, captured.astype(np.int64), native, nothing, pictures, lacks)


def gates(*, days: int | None = None, mm: int | None = None, required: int = 10**6, repeated: bool = False) -> Gates:
    return Gates(256, required, repeated, days, mm, NOW)


def inventory(one: Level) -> Inventory:
    return Inventory((one,), fresh=True)


def test_the_first_reason_that_holds_counts() -> None:
    one = level(absent={0, 1}, old={0, 2, 3, 4}, coarse={0, 2, 4, 5})
    faults = {int(IDS[1]): "blank", int(IDS[3]): "wrong-size", int(IDS[6]): "undecodable", 1: "blank"}
    found = shortfall(inventory(one), gates(days=50, mm=400_000), faults)
    assert found.reasons() == {
        int(IDS[0]): "absent",
        int(IDS[1]): "absent",
        int(IDS[2]): "too-old",
        int(IDS[3]): "wrong-size",
        int(IDS[4]): "too-old",
        int(IDS[5]): "too-coarse",
        int(IDS[6]): "undecodable",
    }
    nowhere = shortfall(inventory(level(absent={0}, has_zoom=False)), gates(), {})
    assert set(nowhere.reasons().values()) == {"outside-zooms"}


@given(
    st.lists(st.integers(0, 30), min_size=len(IDS), max_size=len(IDS)),
    st.sets(st.integers(0, len(IDS) - 1), max_size=6),
    st.booleans(),
)
def test_a_repeated_tile_is_missing_unless_that_is_allowed(pictures: list[int], blank: set[int], allowed: bool) -> None:
    """Allowed or not, the manifest's number is that of the repeated tiles that are described."""
    one = level()
    numbers = np.array(pictures, np.uint64) + 1
    faults = {int(IDS[i]): "blank" for i in blank}
    found = shortfall(inventory(replace(one, pictures=numbers)), gates(required=0, repeated=allowed), faults)
    again = {int(number) for number, picture in zip(IDS, pictures, strict=True) if pictures.count(picture) > 1}
    refused = {} if allowed else dict.fromkeys(again, "repeated")
    assert found.reasons() == faults | refused
    coverage = found.coverage(gates(required=0, repeated=allowed))
    assert (coverage.repeated or 0) == (len(again - faults.keys()) if allowed else 0)
    listed = found.as_list()
    assert of_list(found.inventory, gates(required=0, repeated=allowed), listed) is not None
    if again:
        assert of_list(found.inventory, gates(required=0, repeated=not allowed), listed) is None


@pytest.mark.parametrize(("age", "missing"), [(99, 1), (100, 0)])
def test_as_old_as_is_allowed_is_not_too_old(age: int, missing: int) -> None:
    assert shortfall(inventory(level(old={3})), gates(days=age), {}).missing == missing


@pytest.mark.parametrize(("over", "missing"), [(-1, 0), (0, 0), (1, 1), (DAY, 1)])
def test_one_second_over_the_age_is_too_old(over: int, missing: int) -> None:
    one = level()
    captured = one.captured.copy()
    captured[3] = NOW - 50 * DAY - over
    assert shortfall(inventory(replace(one, captured=captured)), gates(days=50), {}).missing == missing


@pytest.mark.parametrize(("mm", "missing"), [(499_999, 1), (500_000, 0), (500_001, 0)])
def test_exactly_the_resolution_that_is_asked_for_counts(mm: int, missing: int) -> None:
    assert shortfall(inventory(level(coarse={3})), gates(mm=mm), {}).missing == missing


def test_the_resolution_is_that_of_the_middle_of_a_tile() -> None:
    """2 pi r cos(latitude) / 2^zoom / pixels; the equator has half a tile on each side of it."""
    equator = np.sort(tile_ids(1, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])))
    one = replace(level(), zoom=1, required=equator, native_m=np.zeros(4))
    middle = np.cos(np.arctan(np.sinh(np.pi / 2)))
    for side in (256, 512):
        expected = 40_075_016.68557849 * middle / 2 / side * 1000
        assert resolution_mm(one, side) == pytest.approx(np.full(4, expected), rel=1e-9)


@pytest.mark.parametrize(
    ("required", "missing", "allowed"), [(980_000, 2, True), (980_001, 2, False), (979_999, 2, True), (0, 100, True)]
)
def test_exactly_the_share_that_is_asked_for_is_enough(required: int, missing: int, allowed: bool) -> None:
    assert gates(required=required).allows(missing, 100) is allowed


def test_runs_of_missing_tiles_end_at_a_gap_and_at_another_reason() -> None:
    one = inventory(level(absent={0, 1, 5}, old={2, 3, 5}))
    runs = shortfall(one, gates(days=50), {}).as_list().runs
    expected: list[tuple[int, int, str]] = []
    for place, reason in ((0, "absent"), (1, "absent"), (2, "too-old"), (3, "too-old"), (5, "absent")):
        number = int(IDS[place])
        if expected and (expected[-1][0] + expected[-1][1], expected[-1][2]) == (number, reason):
            expected[-1] = (expected[-1][0], expected[-1][1] + 1, reason)
        else:
            expected.append((number, 1, reason))
    assert [(run.first, run.tiles, run.reason) for run in runs] == expected


def test_a_run_may_go_on_in_the_next_zoom() -> None:
    """The last tile of a zoom and the first of the next have neighbouring numbers: a list has one run for both."""
    world = [np.sort(tile_ids(zoom, *(p.ravel() for p in np.meshgrid(*[np.arange(1 << zoom)] * 2)))) for zoom in (1, 2)]
    levels = []
    for zoom, required in zip((1, 2), world, strict=True):
        none = np.zeros((0, 32), np.uint8)
        captured, native = np.zeros(len(required), np.int64), np.zeros(len(required))
        lacks, nothing = np.zeros(len(required), np.uint8), np.zeros(0, np.uint8)
        empty = np.zeros(0, np.uint64)
        levels.append(Level(zoom, required, empty, none, True, captured, native, nothing, empty, lacks))
    for reason, has_zoom in (("absent", True), ("outside-zooms", False)):
        both = [replace(one, has_zoom=has_zoom) for one in levels]
        found = shortfall(Inventory(tuple(both), fresh=True), gates(required=0), {})
        assert found.as_list().runs == (Run(1, 20, reason),)
        mixed = Inventory((levels[0], replace(levels[1], has_zoom=False)), fresh=True)
        assert [run.tiles for run in shortfall(mixed, gates(required=0), {}).as_list().runs] == [4, 16]


@pytest.mark.parametrize("lack", range(len(LACKS)))
def test_what_a_source_lacks_keeps_its_reason(lack: int) -> None:
    one = level(absent={2}, old={2}, coarse={2})
    lacks = np.zeros(len(IDS), np.uint8)
    lacks[2] = lack
    found = shortfall(inventory(replace(one, lacks=lacks)), gates(days=50, mm=1), {int(IDS[2]): "blank"})
    assert found.reasons()[int(IDS[2])] == LACKS[lack]


def test_a_tile_that_is_no_image_is_missing_before_it_is_decoded() -> None:
    faults = np.zeros(len(IDS), np.uint8)
    faults[[2, -1]] = 1
    found = shortfall(inventory(replace(level(), faults=faults)), gates(), {})
    assert found.reasons() == {int(IDS[2]): "undecodable", int(IDS[-1]): "undecodable"}


def test_a_tile_of_another_size_is_missing_before_it_is_decoded() -> None:
    """What decoding finds in one is told rather."""
    faults = np.zeros(len(IDS), np.uint8)
    faults[[2, 3]] = WRONG_SIZE
    one = inventory(replace(level(old={2}), faults=faults))
    assert one.no_image == {}
    found = shortfall(one, gates(days=50), {int(IDS[3]): "undecodable"})
    assert found.reasons() == {int(IDS[2]): "wrong-size", int(IDS[3]): "undecodable"}


def test_the_dates_are_those_of_what_is_described() -> None:
    found = shortfall(inventory(level(absent={0}, old={3})), gates(days=50), {}).coverage(gates(days=50))
    assert (found.oldest, found.newest) == (NOW - DAY, NOW - DAY)
    assert (found.tiles, found.missing) == (36, 2)
    everything = shortfall(inventory(level(absent=set(range(36)))), gates(required=0), {}).coverage(gates(required=0))
    assert (everything.oldest, everything.newest) == (0, 0)


@given(
    st.integers(1, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_the_policy_is_that_of_the_manifest(tiles: int, missing: int, required: int) -> None:
    missing = min(missing, tiles)
    assert gates(required=required).allows(missing, tiles) == ((tiles - missing) / tiles * 10**6 >= required - 1e-6)


def brute_live(view: View, origins: NDArray[np.uint64], missing: set[int]) -> set[int]:
    area = set(IDS.tolist())
    kept = set()
    for origin, shown in zip(origins.tolist(), view.footprint(ZOOM, origins).reshape(len(origins), -1), strict=True):
        tiles = set(shown.tolist())
        if tiles & area and not tiles & missing:
            kept.add(origin)
    return kept


@given(
    view=st.sampled_from([View(), View(2, 1), View(2, 2), View(3, 2)]),
    bad=st.sets(st.integers(0, len(IDS) - 1), max_size=8),
    lost=st.sets(st.integers(0, 30), max_size=5),
)
def test_a_tile_is_described_where_a_row_that_counts_shows_it(view: View, bad: set[int], lost: set[int]) -> None:
    one = inventory(level())
    faults = {int(IDS[i]): FAULTS[i % 3] for i in bad}
    origins = view.origins_over(ZOOM, IDS)
    rows = np.array([o for i, o in enumerate(origins.tolist()) if i not in lost], np.uint64)
    found = with_views(shortfall(one, gates(required=0), faults), [{ZOOM: (view, rows)}])
    expected = brute_live(view, rows, set(faults))
    shown = set(view.footprint(ZOOM, np.array(sorted(expected), np.uint64)).ravel().tolist())
    for number in IDS.tolist():
        assert found.reasons().get(number) == (faults.get(number) or (None if number in shown else "no-view"))
    # What is masked at load is masked here, and a tile without a view masks nothing more.
    assert set(live(ZOOM, view, rows, IDS, found.ids(ZOOM)).tolist()) == expected
    # The list says it all, and leads back.
    listed = found.as_list()
    assert listed.total == found.missing
    assert missing_at(listed, IDS).tolist() == found.ids(ZOOM).tolist()
    again = of_list(one, gates(required=0), listed)
    assert again is not None
    assert again.reasons() == found.reasons()


def test_what_one_set_does_not_show_masks_the_rows_of_another() -> None:
    """And what those alone showed is missing, too: until nothing more is."""
    one = inventory(level(absent={14}))
    views = (View(2, 2), View(3, 3))
    sets = []
    for view in views:
        origins = view.origins_over(ZOOM, IDS)
        whole = np.isin(view.footprint(ZOOM, origins), one.levels[0].ids).all(axis=(1, 2))
        sets.append({ZOOM: (view, origins[whole])})
    found = with_views(shortfall(one, gates(required=0), {}), sets)
    missing = found.ids(ZOOM)
    for view, rows in (each[ZOOM] for each in sets):
        shown = set(view.footprint(ZOOM, live(ZOOM, view, rows, IDS, missing)).ravel().tolist())
        assert set(IDS.tolist()) - set(missing.tolist()) <= shown


def test_a_set_without_rows_at_a_zoom_describes_nothing_there() -> None:
    found = with_views(shortfall(inventory(level()), gates(required=0), {}), [{ZOOM: (View(), IDS)}, {}])
    assert set(found.reasons().values()) == {"no-view"}
    assert found.missing == len(IDS)


def test_a_list_of_another_day_is_not_believed() -> None:
    """What was fresh enough when it was published and is not now makes another list."""
    one = inventory(level(absent={3}, old={4}))
    listed = shortfall(one, gates(days=100), {}).as_list()
    assert of_list(one, gates(days=100), listed) is not None
    assert of_list(one, gates(days=99), listed) is None
    # A tile that is there now is not believed to be absent.
    assert of_list(inventory(level(old={4})), gates(days=100), listed) is None


def test_a_tile_that_no_view_shows_is_not_believed_to_be_so_where_it_has_another_reason() -> None:
    """The list says that no view shows it; by now it is too old, which comes first."""
    found = with_views(shortfall(inventory(level()), gates(required=0), {}), [{ZOOM: (View(), IDS[1:])}])
    listed = found.as_list()
    assert [(run.first, run.tiles, run.reason) for run in listed.runs] == [(int(IDS[0]), 1, "no-view")]
    assert of_list(inventory(level()), gates(required=0), listed) is not None
    for changed in (level(old={0}), level(absent={0}), level(coarse={0})):
        assert of_list(inventory(changed), gates(days=50, mm=400_000, required=0), listed) is None


def test_a_bad_tile_outside_of_the_area_is_not_missing() -> None:
    for outside in (1, int(IDS[0]) - 1, int(IDS[-1]) + 1, 2**62):
        assert shortfall(inventory(level()), gates(), {outside: "blank"}).missing == 0


def test_every_reason_can_come_about() -> None:
    raster = {"outside-raster", "partly-outside", "masked"}
    assert set(REASONS) == {"absent", "outside-zooms", *raster, "repeated", "too-old", "too-coarse", "no-view", *FAULTS}
