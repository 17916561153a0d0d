"""How long a mission is valid: by the mission file, by the trust root, and for how long a build leaves it so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.mission.schema import Mission
from builders.mission.validity import Validity
from store.errors import Invalid
from store.format.manifest import TIME_MAX, Issue
from tests.support.missions import NOW, ROOT

HOUR, DAY = 3600, 86400
FILE = Path("ridge.toml")


def mission(**keys: object) -> Mission:
    facts = {
        "id": "ridge",
        "flight": "f",
        "aircraft": ["a"],
        "takeoff": {"lat": 47, "lon": 7, "alt_m": 0},
        "area": {"bbox": [7, 47, 8, 48]},
        "sector": "stable_rear",
    }
    return Mission.model_validate({**facts, **keys})


def validity(keys: dict[str, object], **root: int) -> Validity:
    return Validity.of(mission(**keys), replace(ROOT, **root))  # type: ignore[arg-type]


def refused(asked: Validity, now: int = NOW) -> str:
    with pytest.raises(Invalid) as caught:
        asked.require(FILE, now=now)
    assert caught.value.remedy
    assert caught.value.message.startswith(f"{FILE}: mission.")
    return caught.value.message


@pytest.mark.parametrize(
    ("keys", "root", "window"),
    [
        ({}, {}, (None, None)),
        ({"valid_for": "72h"}, {}, (None, NOW + 72 * HOUR)),
        ({"valid_for": "90m"}, {"default_lifetime": DAY, "max_lifetime": DAY}, (None, NOW + 90 * 60)),
        ({}, {"default_lifetime": DAY}, (None, NOW + DAY)),
        ({}, {"default_lifetime": DAY, "max_lifetime": 2 * DAY}, (None, NOW + DAY)),
        ({"valid_for": "2d"}, {"max_lifetime": 2 * DAY}, (None, NOW + 2 * DAY)),
    ],
)
def test_what_is_asked_for(
    keys: dict[str, object], root: dict[str, int], window: tuple[int | None, int | None]
) -> None:
    asked = validity(keys, **root)
    asked.require(FILE, now=NOW)
    assert asked.window(NOW) == window


def test_fixed_times() -> None:
    asked = Validity(start=NOW + 5, end=NOW + 50, most=50)
    asked.require(FILE, now=NOW)
    assert asked.window(NOW) == asked.window(NOW + 30) == (NOW + 5, NOW + 50)


def test_a_length_counts_from_the_start_where_that_is_to_come() -> None:
    asked = Validity(start=NOW + DAY, length=HOUR)
    assert asked.window(NOW) == (NOW + DAY, NOW + DAY + HOUR)
    assert asked.window(NOW + 2 * DAY) == (NOW + DAY, NOW + 2 * DAY + HOUR)


def test_without_a_trust_root_nothing_bounds_it() -> None:
    asked = Validity.of(mission(valid_for="9999d"), None)
    asked.require(FILE, now=NOW)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (Validity(most=DAY, root=3), "mission.valid_for is missing: trust root 3 allows at most 1d"),
        (Validity(length=DAY + 1, most=DAY, root=3), "mission.valid_for: the mission would expire at "),
        (Validity(end=NOW + DAY + 1, most=DAY, root=3), "mission.valid_until: the mission would expire at "),
        (
            Validity(start=NOW + 1, length=DAY, most=DAY, root=3, given=False),
            "mission.valid_from: the mission would expire at ",
        ),
        (Validity(end=NOW - 1), "mission.valid_until is 2026-11-18 00:01:39Z, and it is 2026-11-18 00:01:40Z"),
        (Validity(length=TIME_MAX), "mission.valid_for is 253402300799s: the mission would expire after the year 9999"),
    ],
)
def test_what_cannot_be_had(asked: Validity, words: str) -> None:
    assert words in refused(asked)


def test_the_borders_of_what_can_be_had() -> None:
    for asked in (Validity(length=DAY, most=DAY), Validity(end=NOW), Validity(end=NOW + DAY, most=DAY)):
        asked.require(FILE, now=NOW)


def issue(window: tuple[int | None, int | None], at: int = NOW) -> Issue:
    return Issue(1, 1, at, 1, *window)


def test_a_length_holds_until_half_of_it_is_left() -> None:
    asked = Validity(length=72 * HOUR)
    issued = issue(asked.window(NOW))
    assert asked.kept_by(issued, now=NOW)
    assert asked.kept_by(issued, now=NOW + 36 * HOUR)
    assert not asked.kept_by(issued, now=NOW + 36 * HOUR + 1)
    for other in (72 * HOUR - 1, 72 * HOUR + 1, 2 * HOUR, None):
        assert not replace(asked, length=other).kept_by(issued, now=NOW)


def test_a_length_that_has_not_begun_is_whole() -> None:
    asked = Validity(start=NOW + 10 * DAY, length=HOUR)
    assert asked.kept_by(issue(asked.window(NOW)), now=NOW + 10 * DAY)
    assert not asked.kept_by(issue(asked.window(NOW)), now=NOW + 10 * DAY + 1801)


def test_a_fixed_end_holds_until_it_changes() -> None:
    asked = Validity(start=NOW, end=NOW + DAY)
    issued = issue(asked.window(NOW))
    assert asked.kept_by(issued, now=NOW + DAY)
    for other in (Validity(), Validity(NOW + 1, NOW + DAY), Validity(NOW, NOW + DAY - 1), Validity(None, NOW + DAY)):
        assert not other.kept_by(issued, now=NOW)


def test_what_never_expires_holds_for_ever() -> None:
    assert Validity().kept_by(issue((None, None)), now=TIME_MAX)
    assert not Validity().kept_by(issue((None, NOW + 1)), now=NOW)


times = st.none() | st.integers(0, TIME_MAX)


@given(times, times, st.none() | st.integers(1, 10**10), st.none() | st.integers(1, 10**10), st.integers(0, TIME_MAX))
def test_what_is_issued_now_is_what_is_asked_for_now(
    start: int | None, end: int | None, length: int | None, most: int | None, now: int
) -> None:
    if start is not None and end is not None:
        start, end = sorted((start, end))
    asked = Validity(start, end, length, most)
    try:
        asked.require(FILE, now=now)
    except Invalid:
        return
    issued = issue(asked.window(now), now)
    assert asked.kept_by(issued, now=now)
    if issued.expires_at is not None:
        assert max(now, start or 0) <= issued.expires_at <= TIME_MAX
    assert most is None or (issued.expires_at is not None and issued.expires_at - now <= most)
