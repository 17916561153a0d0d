"""Missions that are exactly as signed, at a time that is not theirs: imagery that has aged, times and clocks ahead."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

from store import aircraft, takeoff_check
from store.errors import Invalid
from store.takeoff.mission import Verdict
from tests.conformance.wrong import wrong
from tests.support.missions import COVERAGE, FACTS, ISSUE, NOW, ROOT, Flight, flight, next_root, sign_root
from tests.support.stores import ROOT_FILE, make_store, publish

DAY = 86400
CAPTURED = int(datetime.datetime(2018, 7, 16, tzinfo=datetime.UTC).timestamp())
# 4,262 days after the day of capture.
IN_2030 = CAPTURED + 4261 * DAY + DAY // 2
AGING = {"coverage": replace(COVERAGE, oldest=CAPTURED, newest=CAPTURED, max_age_days=3060)}
NO_END = replace(ISSUE, expires_at=None)


def aging(**changes: object) -> Flight:
    """A mission without expiry that allows imagery of 3,060 days, issued when it was 3,052 days old."""
    return flight(**{"issue": NO_END, **AGING, **changes})


def said(verdict: Verdict) -> str:
    """The verdict, with what it says of the clock."""
    doubts = [text for text in verdict.not_judged if text.startswith("freshness")]
    kinds = ", ".join(finding.kind for finding in verdict.findings)
    return "; not judged: ".join([kinds or "GO", *doubts])


def aboard(folder: Path, mission: Flight, now: int | None, *before: Flight) -> str:
    """The verdict of an aircraft that has accepted other missions, by a trusted clock unless `now` is None."""
    state, store = folder / "state", make_store(folder / "store", mission, *before)
    first = aircraft.AircraftState.initial("uav-07", "cpu-x86_64-avx2", aircraft.pinned_root(ROOT_FILE))
    aircraft.enrol(state, first)
    for one in before:
        assert aircraft.check(state, store, one.id, now=None).go
    return said(aircraft.check(state, store, mission.id, now=now))


def later(at: int) -> Flight:
    """Another mission, issued at a later time."""
    return flight(mission=replace(FACTS, id="later", flight="later"), issue=replace(NO_END, issued_at=at))


@wrong(
    "time",
    "`max_age_days` 3060, imagery of 4,262 days, a trusted clock in 2030",
    before="GO",
    now="stale-imagery",
)
def imagery_that_has_aged(folder: Path) -> str:
    return aboard(folder, aging(), IN_2030)


@wrong(
    "time",
    "the same without an aircraft's state (`takeoff_check`)",
    before="GO",
    now="stale-imagery",
)
def imagery_that_has_aged_without_a_state(folder: Path) -> str:
    store = make_store(folder / "store", aging())
    return said(takeoff_check(store, FACTS.id, trust=ROOT_FILE, now=IN_2030))


@wrong(
    "time",
    "the last second of day 3,060, and the next one",
    before="GO, GO",
    now="GO, stale-imagery",
)
def the_last_second(folder: Path) -> str:
    store = make_store(folder / "store", aging())
    last = CAPTURED + 3060 * DAY
    return ", ".join(said(takeoff_check(store, FACTS.id, trust=ROOT_FILE, now=at)) for at in (last, last + 1))


@wrong(
    "time",
    "no clock, and a mission issued in 2030 was accepted before",
    before="GO; not judged: freshness, for want of a trusted clock",
    now="stale-imagery; not judged: freshness, for want of a trusted clock",
)
def imagery_that_the_floor_proves_old(folder: Path) -> str:
    return aboard(folder, aging(), None, later(IN_2030))


@wrong(
    "time",
    "a clock that begins in 1970",
    before="GO; not judged: freshness: the clock says 1970-01-01 00:00:05Z, before the mission was issued",
    now="issued-in-future, issued-in-future, floor-ahead",
)
def a_clock_without_a_battery(folder: Path) -> str:
    return aboard(folder, aging(), 5)


@wrong(
    "time",
    "a clock one second before the time of issue",
    before="GO; not judged: freshness: the clock says 2026-11-18 11:04:59Z, before the mission was issued",
    now="GO",
)
def a_clock_before_the_issue(folder: Path) -> str:
    return aboard(folder, flight(), ISSUE.issued_at - 1)


@wrong(
    "time",
    "a clock set back behind what the aircraft has seen",
    before="GO; not judged: freshness: the clock says 2026-11-18 11:06:40Z, "
    "before a time that has passed by the aircraft's state",
    now="GO",
)
def a_clock_behind_the_floor(folder: Path) -> str:
    return aboard(folder, flight(), NOW, later(NOW + 500))


@wrong(
    "time",
    "a clock set back, and the mission expired by what the aircraft has seen",
    before="expired; not judged: freshness: the clock says 2026-11-18 11:06:40Z, "
    "before a time that has passed by the aircraft's state",
    now="expired",
)
def a_clock_behind_the_floor_after_the_end(folder: Path) -> str:
    return aboard(folder, flight(), NOW, later(NOW + 5000))


@wrong(
    "time",
    "a clock in 1970, and the trust root was issued after the mission expired",
    before="expired; not judged: freshness: the clock says 1970-01-01 00:00:05Z, before the mission was issued",
    now="issued-in-future, issued-in-future",
)
def expired_by_the_trust_root(folder: Path) -> str:
    store = make_store(folder / "store", flight())
    second = sign_root(next_root(ROOT, issued_at=NOW + 5000), "root-a")
    (store / "trust/2.root.cbor").write_bytes(second)
    return said(takeoff_check(store, FACTS.id, trust=ROOT_FILE, now=5))


@wrong(
    "time",
    "a clock between the mission's issue and that of the newest trust root",
    before="GO; not judged: freshness: the clock says 2026-11-18 11:06:40Z, before trust root 2 was issued",
    now="GO",
)
def a_clock_before_the_trust_root(folder: Path) -> str:
    store = make_store(folder / "store", flight())
    (store / "trust/2.root.cbor").write_bytes(sign_root(next_root(ROOT, issued_at=NOW + 500), "root-a"))
    return said(takeoff_check(store, FACTS.id, trust=ROOT_FILE, now=NOW))


@wrong(
    "time",
    "a trusted clock in 2099 at the GO of a mission without an end, later the right time",
    before="GO, expired",
    now="GO, GO",
)
def a_clock_that_was_years_ahead(folder: Path) -> str:
    ahead = aboard(folder, flight(issue=NO_END, mission=replace(FACTS, id="endless")), 4_070_000_000)
    later_on = aircraft.check(folder / "state", make_store(folder / "next", flight()), FACTS.id, now=NOW)
    return f"{ahead}, {said(later_on)}"


@wrong("time", "a mission that has expired, by a clock that says NaN", before="GO", now="refused")
def no_number(folder: Path) -> str:
    store = make_store(folder / "store", flight())
    try:
        return said(takeoff_check(store, FACTS.id, trust=ROOT_FILE, now=float("nan")))  # type: ignore[arg-type]
    except Invalid:
        return "refused"


@wrong("time", "`now=time.time()` aboard: seconds with a fraction", before="malformed", now="refused")
def fraction_of_a_second(folder: Path) -> str:
    try:
        return aboard(folder, flight(), NOW + 0.5)  # type: ignore[arg-type]
    except Invalid:
        return "refused"


A_YEAR = 365 * DAY


@wrong(
    "time",
    "a mission issued a year ahead, by a trusted clock",
    before="GO; not judged: freshness: the clock says 2026-11-18 11:06:40Z, before the mission was issued",
    now="issued-in-future",
)
def issued_a_year_ahead(folder: Path) -> str:
    store = make_store(folder / "store", later(NOW + A_YEAR))
    return said(takeoff_check(store, "later", trust=ROOT_FILE, now=NOW))


@wrong(
    "time",
    "a trust root of 9999, by a trusted clock",
    before="GO; not judged: freshness: the clock says 2026-11-18 11:06:40Z, before trust root 2 was issued",
    now="issued-in-future",
)
def a_trust_root_of_9999(folder: Path) -> str:
    store = make_store(folder / "store", flight(issue=NO_END))
    (store / "trust/2.root.cbor").write_bytes(sign_root(next_root(ROOT, issued_at=253402300799), "root-a"))
    return said(takeoff_check(store, FACTS.id, trust=ROOT_FILE, now=NOW))


@wrong(
    "time",
    "no clock: a mission issued a year ahead was accepted, then one that expires under a root of a new epoch",
    before="expired; not judged: freshness, for want of a trusted clock",
    now="GO; not judged: freshness, for want of a trusted clock",
)
def a_new_epoch_after_a_year_ahead(folder: Path) -> str:
    aboard(folder, flight(), None, later(NOW + A_YEAR))
    second = next_root(ROOT, epoch=2, issued_at=NOW)
    store = make_store(folder / "next", flight())
    (store / "trust/2.root.cbor").write_bytes(sign_root(second, "root-a"))
    publish(store, flight(root=second, issue=replace(ISSUE, epoch=2)))
    return said(aircraft.check(folder / "state", store, FACTS.id, now=None))


@wrong(
    "time",
    "a floor a year ahead of a trusted clock, and a mission that never expires",
    before="GO; not judged: freshness: the clock says 2026-11-18 11:06:40Z, "
    "before a time that has passed by the aircraft's state",
    now="floor-ahead",
)
def a_floor_a_year_ahead(folder: Path) -> str:
    return aboard(folder, flight(issue=NO_END), NOW, later(NOW + A_YEAR))


@wrong("time", "the same, lowered at the aircraft", before="no such command", now="GO")
def a_floor_that_was_lowered(folder: Path) -> str:
    aboard(folder, flight(issue=NO_END), None, later(NOW + A_YEAR))
    aircraft.lower_floor(folder / "state", NOW)
    return said(aircraft.check(folder / "state", folder / "store", FACTS.id, now=NOW))


@wrong("time", "a mission that is valid from tomorrow, by a trusted clock", before="malformed", now="not-yet-valid")
def too_early(folder: Path) -> str:
    tomorrow = replace(ISSUE, valid_from=NOW + DAY, expires_at=NOW + 2 * DAY)
    return aboard(folder, flight(issue=tomorrow), NOW)


@wrong("time", "a mission for ever, where the trust root allows a day", before="malformed", now="lifetime")
def longer_than_the_root_allows(folder: Path) -> str:
    store = make_store(folder / "store", flight(issue=NO_END))
    (store / "trust/2.root.cbor").write_bytes(sign_root(next_root(ROOT, max_lifetime=DAY), "root-a"))
    return said(takeoff_check(store, FACTS.id, trust=ROOT_FILE, now=NOW))
