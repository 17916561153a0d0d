"""The time that judges a mission: what has passed for sure proves that it is over, only a clock that it is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Invalid
from store.format.manifest import SECONDS_A_DAY, TIME_MAX, age_in_days, earliest_capture
from store.takeoff.clock import NO_CLOCK, Moment, check_time, moment_of
from store.takeoff.mission import Binding, Opened
from store.trust.aircraft_state import AircraftState
from tests.support.missions import CONTENTS, COVERAGE, ISSUE, NOW, ROOT, manifest_of, pinned, table_of

TABLE = table_of(CONTENTS)
ISSUED = ISSUE.issued_at
STATE = AircraftState.initial("uav-07", "cpu", pinned())
AGING = replace(COVERAGE, oldest=ISSUED - 3 * SECONDS_A_DAY, newest=ISSUED, max_age_days=3)
times = st.integers(0, 253402300799)


def opened(*, root_issued_at: int = ROOT.issued_at) -> Opened:
    manifest = manifest_of(TABLE, coverage=AGING)
    root = replace(ROOT, issued_at=root_issued_at)
    return Opened(manifest, manifest.table, 1, TABLE, root)


@pytest.mark.parametrize("now", [ISSUED, NOW, 2**33, TIME_MAX])
def test_a_clock_after_all_that_has_passed_counts(now: int) -> None:
    assert moment_of(opened(), Binding(now)) == Moment(now, now, "")


@pytest.mark.parametrize("now", [float("nan"), float("inf"), NOW + 0.5, "2026", True])
def test_a_time_is_a_whole_number(now: Any) -> None:
    """NaN is neither before nor after an expiry: every mission would pass, as judged."""
    with pytest.raises(Invalid, match="whole number of seconds"):
        Binding(now)


@pytest.mark.parametrize(
    ("now", "floor", "root", "before"),
    [
        (ISSUED - 1, 0, 0, "before the mission was issued"),
        (NOW, 0, NOW + 1, "before trust root 1 was issued"),
        (NOW, NOW + 1, 0, "before a time that has passed by the aircraft's state"),
        (0, NOW + 1, NOW + 2, "1970-01-01 00:00:00Z, before the mission was issued"),
        (-(2**62), 0, 0, "s after 1970, before the mission was issued"),
        (2**62, 0, 0, "a time after the year 9999"),
    ],
)
def test_a_clock_before_what_has_passed_is_none(now: int, floor: int, root: int, before: str) -> None:
    moment = moment_of(opened(root_issued_at=root), Binding(now, state=replace(STATE, floor=floor)))
    assert (moment.passed, moment.reading) == (max(ISSUED, floor, root), None)
    assert moment.doubt.startswith("freshness: the clock says ")
    assert moment.doubt.endswith(before)


def test_without_a_clock() -> None:
    assert moment_of(opened(), Binding()) == Moment(ISSUED, None, NO_CLOCK)
    assert moment_of(opened(), Binding(state=replace(STATE, floor=NOW))) == Moment(NOW, None, NO_CLOCK)


def kinds(at: int, **coverage: int | None) -> list[str]:
    manifest = manifest_of(TABLE, coverage=replace(AGING, **coverage))
    findings = list(check_time(manifest, Moment(at, at, "")))
    assert all(finding.remedy and finding.step == "E" for finding in findings)
    return [finding.kind for finding in findings]


def test_what_runs_out() -> None:
    end = ISSUE.expires_at
    assert end is not None
    assert kinds(ISSUED) == []
    assert kinds(ISSUED + 1) == ["stale-imagery"]
    assert kinds(end, max_age_days=4) == []
    assert kinds(end + 1) == ["expired", "stale-imagery"]
    assert kinds(2**33, max_age_days=None) == ["expired"], "no limit, no age"
    assert kinds(2**33, tiles=1, missing=1, required_ppm=0) == ["expired"], "no tile, no age"


def test_the_finding_names_the_age_and_the_limit() -> None:
    (finding,) = check_time(manifest_of(TABLE, coverage=AGING), Moment(ISSUED + 1, None, ""))
    assert (finding.expected, finding.actual) == ("3", "4")
    assert finding.message == "the oldest imagery is 4 days old, and the mission allows 3"


@given(st.integers(-(2**40), 2**40), st.integers(0, 10**6), st.integers(0, 2**40))
def test_the_age_in_days_and_the_limit_agree(captured: int, most: int, at: int) -> None:
    assert (age_in_days(captured, at) > most) == (captured < earliest_capture(most, at))


@given(times, times, st.none() | times, times)
def test_a_later_time_takes_no_finding_away(one: int, other: int, now: int | None, floor: int) -> None:
    first, second = sorted((one, other))
    assert {*kinds(first)} <= {*kinds(second)}
    manifest = opened().manifest
    without = check_time(manifest, moment_of(opened(), Binding(None, state=replace(STATE, floor=floor))))
    with_clock = check_time(manifest, moment_of(opened(), Binding(now, state=replace(STATE, floor=floor))))
    assert {finding.kind for finding in without} <= {finding.kind for finding in with_clock}
