"""The time that judges a mission: known times prove that it is over, only a clock that it is not, or that they err."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Invalid
from store.format.ids import ObjectId
from store.format.manifest import SECONDS_A_DAY, SKEW, TIME_MAX, Issue, age_in_days, earliest_capture
from store.takeoff.clock import NEVER_EXPIRES, NO_CLOCK, Moment, check_time, moment_of, unjudged_time
from store.takeoff.mission import Binding, Opened
from store.trust.aircraft_state import AircraftState
from tests.support.missions import CONTENTS, COVERAGE, ISSUE, NOW, ROOT, manifest_of, pinned, table_of

TABLE = table_of(CONTENTS)
ISSUED = ISSUE.issued_at
ISSUE_ID = ObjectId.of(b"")
STATE = AircraftState.initial("uav-07", "cpu", pinned())
AGING = replace(COVERAGE, oldest=ISSUED - 3 * SECONDS_A_DAY, newest=ISSUED, max_age_days=3)
times = st.integers(0, 253402300799)


def opened(*, root_issued_at: int = ROOT.issued_at) -> Opened:
    manifest = manifest_of(TABLE, coverage=AGING)
    root = replace(ROOT, issued_at=root_issued_at)
    return Opened(manifest, manifest.table, 1, TABLE, root)


@pytest.mark.parametrize("now", [ISSUED, NOW, 2**33, TIME_MAX])
def test_a_clock_after_all_that_has_passed_counts(now: int) -> None:
    assert moment_of(opened(), Binding(now)) == Moment(now, now)


@pytest.mark.parametrize("now", [float("nan"), float("inf"), NOW + 0.5, "2026", True])
def test_a_time_is_a_whole_number(now: Any) -> None:
    """NaN is neither before nor after an expiry: every mission would pass, as judged."""
    with pytest.raises(Invalid, match="whole number of seconds"):
        Binding(now)


def remembering(issued: int = 0, clock: int = 0) -> AircraftState:
    return replace(STATE, issued=issued, clock=clock)


@pytest.mark.parametrize("part", ["issued", "clock"])
@pytest.mark.parametrize(
    ("now", "floor", "root", "at", "source", "ahead"),
    [
        (ISSUED - 1, 0, 0, ISSUED, "issue", []),
        (ISSUED - SKEW, 0, 0, ISSUED, "issue", []),
        (ISSUED - SKEW - 1, 0, 0, ISSUED - SKEW - 1, "clock", ["issued-in-future"]),
        (NOW, 0, NOW + 1, NOW + 1, "trust root", []),
        (NOW, 0, NOW + SKEW + 1, NOW, "clock", ["issued-in-future"]),
        (NOW, NOW + 1, 0, NOW + 1, "floor", []),
        (NOW, NOW + SKEW, 0, NOW + SKEW, "floor", []),
        (NOW, NOW + SKEW + 1, 0, NOW, "clock", ["floor-ahead"]),
        (0, NOW + 1, NOW + 2, 0, "clock", ["issued-in-future", "issued-in-future", "floor-ahead"]),
        (-(2**62), 0, 0, -(2**62), "clock", ["issued-in-future", "issued-in-future", "floor-ahead"]),
    ],
)
def test_a_clock_before_known_times(
    now: int, floor: int, root: int, at: int, source: str, ahead: list[str], part: str
) -> None:
    """Within the skew the later one counts, beyond it the known time is refused."""
    moment = moment_of(opened(root_issued_at=root), Binding(now, state=remembering(**{part: floor})))
    assert (moment.at, moment.clock, moment.doubt, moment.source) == (at, now, "", source)
    assert [finding.kind for finding in moment.ahead] == ahead
    assert all(finding.remedy.startswith("check the clock") for finding in moment.ahead)
    if "floor-ahead" in ahead:  # `lower-floor` refuses under a trust root from the future
        assert ("new-epoch" in moment.ahead[-1].remedy) is (root > now + SKEW)
        assert ("lower-floor" in moment.ahead[-1].remedy) is (root <= now + SKEW)


def test_a_clock_after_the_year_9999_is_none() -> None:
    moment = moment_of(opened(), Binding(2**62, state=remembering(NOW)))
    assert (moment.at, moment.clock, moment.ahead) == (NOW, None, ())
    assert moment.doubt == "freshness: the clock says a time after the year 9999"


def test_without_a_clock() -> None:
    assert moment_of(opened(), Binding()) == Moment(ISSUED, None, NO_CLOCK, "issue")
    for state in (remembering(issued=NOW), remembering(clock=NOW)):
        assert moment_of(opened(), Binding(state=state)) == Moment(NOW, None, NO_CLOCK, "floor")


def test_one_part_of_the_floor_that_is_ahead_takes_the_other_with_it_into_one_finding() -> None:
    state = remembering(issued=NOW + 10, clock=NOW + SKEW + 10)
    moment = moment_of(opened(), Binding(NOW, state=state))
    assert (moment.at, [finding.kind for finding in moment.ahead]) == (NOW + 10, ["floor-ahead"])


def early(at: int, clock: int | None, **issue: int | None) -> tuple[list[str], list[str]]:
    """The findings about the issue, and what is not judged."""
    manifest = manifest_of(TABLE, issue=replace(ISSUE, **issue))  # type: ignore[arg-type]
    moment = Moment(at, clock, NO_CLOCK if clock is None else "")
    return [finding.kind for finding in check_time(manifest, moment)], list(unjudged_time(manifest, moment))


def test_what_is_too_early() -> None:
    start = ISSUED + 500
    assert early(start - 1, start - 1, valid_from=start) == (["not-yet-valid"], [])
    assert early(start, start, valid_from=start) == ([], [])
    assert early(start, start - 100, valid_from=start) == ([], []), "the known times are within the skew"
    kinds_, unjudged = early(start - 1, None, valid_from=start)
    assert (kinds_, unjudged[0]) == ([], NO_CLOCK)
    assert unjudged[1].startswith("valid_from: whether it is 2026-11-18 ")
    assert early(start, None, valid_from=start) == ([], [NO_CLOCK]), "a known time proves that it has passed"


def test_what_never_expires_is_not_judged() -> None:
    assert early(NOW, NOW, expires_at=None) == ([], [NEVER_EXPIRES])
    assert early(NOW, None, expires_at=None) == ([], [NEVER_EXPIRES, NO_CLOCK])


def test_where_the_floor_judged_the_remedy_names_the_command() -> None:
    late = manifest_of(TABLE, issue=replace(ISSUE, expires_at=NOW - 1))
    (by_floor,) = check_time(late, Moment(NOW, None, NO_CLOCK, "floor"))
    assert "flightbag aircraft lower-floor" in by_floor.remedy
    assert by_floor.message == "the mission expired at 2026-11-18 00:01:39Z, and it is at least 2026-11-18 00:01:40Z"
    (by_clock,) = check_time(late, Moment(NOW, NOW))
    assert by_clock.remedy.startswith("check the clock")


def test_where_the_trust_root_judged_the_remedy_is_a_new_epoch() -> None:
    """No aircraft lowers its floor below its trust root, and a build under a trust root from the future is refused."""
    mission = opened(root_issued_at=NOW + 1)
    for state in (None, remembering(NOW + 1)):
        moment = moment_of(mission, Binding(state=state))
        (finding,) = check_time(manifest_of(TABLE, issue=replace(ISSUE, expires_at=NOW)), moment)
        assert "flightbag trust new-epoch" in finding.remedy
        assert "lower-floor" not in finding.remedy
        assert "check the clock" not in finding.remedy


def test_a_mission_that_is_too_early_by_the_clock_is_not_mended_by_a_lower_floor() -> None:
    moment = moment_of(opened(), Binding(NOW, state=remembering(NOW + 10)))
    (finding,) = check_time(manifest_of(TABLE, issue=replace(ISSUE, valid_from=NOW + 20)), moment)
    assert finding.kind == "not-yet-valid"
    assert "lower-floor" not in finding.remedy


def kinds(at: int, **coverage: int | None) -> list[str]:
    manifest = manifest_of(TABLE, coverage=replace(AGING, **coverage))
    findings = list(check_time(manifest, Moment(at, at)))
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
    (finding,) = check_time(manifest_of(TABLE, coverage=AGING), Moment(ISSUED + 1))
    assert (finding.expected, finding.actual) == ("3", "4")
    assert finding.message == "the oldest imagery is 4 days old, and the mission allows 3"


@given(st.integers(-(2**40), 2**40), st.integers(0, 10**6), st.integers(0, 2**40))
def test_the_age_in_days_and_the_limit_agree(captured: int, most: int, at: int) -> None:
    assert (age_in_days(captured, at) > most) == (captured < earliest_capture(most, at))


@given(times, times)
def test_a_later_time_takes_no_end_away(one: int, other: int) -> None:
    first, second = sorted((one, other))
    assert {*kinds(first)} <= {*kinds(second)}


@given(times, times, times, times, times, st.none() | times)
def test_laws_of_a_later_clock(one: int, other: int, issued: int, root: int, floor: int, start: int | None) -> None:
    """It judges at a later time, refuses fewer known times, and is less early. Without one no known time is refused."""
    issue = Issue(1, 1, issued, 1, start)
    mission = Opened(manifest_of(TABLE, issue=issue), ISSUE_ID, 1, TABLE, replace(ROOT, issued_at=root))

    def judged(now: int | None) -> tuple[Moment, set[str]]:
        moment = moment_of(mission, Binding(now, state=remembering(floor)))
        return moment, {finding.kind for finding in check_time(mission.manifest, moment)}

    first, second = (judged(now) for now in sorted((one, other)))
    assert first[0].at <= second[0].at
    assert first[1] >= second[1]
    without, found = judged(None)
    assert (without.at, found) == (max(issued, root, floor), set())
