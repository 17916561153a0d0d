"""Time in the takeoff check: which time judges a mission, and what has run out by then. Pure.

Two sources give a time. Signed times (of issue, of the trust root) and the floor of the aircraft's state have passed
for sure: they can prove that a mission has expired or that its imagery is too old, and never that it is fresh. A
trusted clock proves both. A clock that reads less than what has passed for sure, or a time after the year 9999, is no
clock: it judges nothing, and the verdict says so.

Law: a later time never takes a finding away.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from store.findings import Finding
from store.format.manifest import TIME_MAX, Manifest, age_in_days
from store.takeoff.mission import Binding, Opened

NO_CLOCK = "freshness, for want of a trusted clock"


@dataclass(frozen=True, slots=True)
class Moment:
    """The time of a takeoff check.

    `passed` is unix seconds that have passed for sure. `reading` is what a trusted clock says, None without one, and
    for a clock that cannot be right. `doubt` is what the verdict lists as not judged, "" with a reading.
    """

    passed: int
    reading: int | None
    doubt: str

    @classmethod
    def of_issue(cls, manifest: Manifest) -> Self:
        """Return the moment at which a mission was issued: what is over by then is over for every aircraft."""
        return cls(manifest.issue.issued_at, None, "")


def moment_of(opened: Opened, binding: Binding) -> Moment:
    """Return the time by which a mission is judged."""
    root = opened.trust_root
    passed = [
        (opened.manifest.issue.issued_at, "the mission was issued"),
        (root.issued_at, f"trust root {root.version} was issued"),
    ]
    if binding.state is not None:
        passed.append((binding.state.floor, "a time that has passed by the aircraft's state"))
    least = max(at for at, _ in passed)
    if binding.now is None:
        return Moment(least, None, NO_CLOCK)
    if binding.now > TIME_MAX:
        return Moment(least, None, "freshness: the clock says a time after the year 9999")
    for at, what in passed:
        if binding.now < at:
            return Moment(least, None, f"freshness: the clock says {_text(binding.now)}, before {what}")
    return Moment(binding.now, binding.now, "")


def check_time(manifest: Manifest, moment: Moment) -> Iterator[Finding]:
    """Yield the findings of step E about a mission whose time is over: it has expired, or its imagery is too old."""
    end, coverage = manifest.issue.expires_at, manifest.coverage
    if end is not None and moment.passed > end:
        yield Finding(
            "expired",
            "the mission has expired",
            step="E",
            entry="manifest",
            expected=str(end),
            actual=str(moment.passed),
            remedy="check the clock; if it is right, build and sign the mission again, with an expiry after the flight",
        )
    if coverage.too_old_at(moment.passed):
        age = age_in_days(coverage.oldest, moment.passed)
        yield Finding(
            "stale-imagery",
            f"the oldest imagery is {age} days old, and the mission allows {coverage.max_age_days}",
            step="E",
            entry="manifest",
            expected=str(coverage.max_age_days),
            actual=str(age),
            remedy="check the clock; if it is right, build and sign the mission again from newer imagery",
        )


def _text(seconds: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"
