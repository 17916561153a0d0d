"""Time in the takeoff check (FORMAT.md 7.1): which time judges a mission, and what is too early or over by then. Pure.

Two sources give a time. Known times (the time of issue of the manifest and of the newest trust root, and the floor of
the aircraft's state) are said to have passed: they can prove that a mission has expired or that its imagery is too old,
and never that it is fresh. A trusted clock proves both, and it judges the known times: one that is ahead of it by more
than the skew is refused. A clock that reads a time after the year 9999 is no clock.

Laws: a later time that judges takes neither `expired` nor `stale-imagery` away; a later clock adds none of
`issued-in-future`, `floor-ahead` and `not-yet-valid`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, TypeAlias

from store.findings import Finding
from store.format.manifest import SKEW, TIME_MAX, Manifest, age_in_days, utc
from store.takeoff.mission import Binding, Opened
from store.values import dataclass

if TYPE_CHECKING:
    from typing_extensions import Self

NO_CLOCK = "freshness, for want of a trusted clock"
NEVER_EXPIRES = "expiry: the mission never expires"
_LOWER_FLOOR = "lower the time that the aircraft remembers: `flightbag aircraft lower-floor`"
_NEW_EPOCH = "have a new epoch begun by a machine with a right clock, `flightbag trust new-epoch`, and sync the store"
_CHECK_CLOCK = "check the clock; if it is right, "

Source: TypeAlias = Literal["clock", "trust root", "issue", "floor"]
# What may be wrong about the time that judged, and what mends it; the rest of the remedy follows.
_DOUBTS: dict[Source, str] = {
    "clock": _CHECK_CLOCK,
    "trust root": f"if the trust root was issued by a wrong clock, {_NEW_EPOCH}; if it is right, ",
    "issue": "",
    "floor": f"if the time that judged it is wrong, {_LOWER_FLOOR}; if it is right, ",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """The time of a takeoff check.

    `at` is the time that judges, in unix seconds. `clock` is what a trusted clock says, None without one, and for a
    clock that cannot be right; `doubt` is what the verdict then lists as not judged. `source` is what gave the time
    that judges ("floor": the aircraft's state). `ahead` are the findings about known times that the clock refuses.
    """

    at: int
    clock: int | None = None
    doubt: str = ""
    source: Source = "clock"
    ahead: tuple[Finding, ...] = ()

    @classmethod
    def of_issue(cls, manifest: Manifest) -> Self:
        """Return the moment at which a mission was issued: what is over by then is over for every aircraft."""
        return cls(manifest.issue.issued_at, source="issue")


def moment_of(opened: Opened, binding: Binding) -> Moment:
    """Return the time by which a mission is judged."""
    clock, doubt = binding.now, ""
    if clock is None:
        doubt = NO_CLOCK
    elif clock > TIME_MAX:
        clock, doubt = None, "freshness: the clock says a time after the year 9999"
    latest = TIME_MAX if clock is None else clock + SKEW
    root, state = opened.trust_root, binding.state
    signed = (
        (
            "the mission was issued",
            "manifest",
            opened.manifest.issue.issued_at,
            "build and sign the mission again by a machine with a right clock",
        ),
        (
            f"trust root {root.version} was issued",
            "trust root",
            root.issued_at,
            _NEW_EPOCH,
        ),
    )
    floor = () if state is None else (state.issued, state.clock)
    ahead = [
        _ahead("issued-in-future", f"{what} at {utc(at)}", entry, at, remedy, clock)
        for what, entry, at, remedy in signed
        if at > latest
    ]
    if floor and max(floor) > latest:
        text = f"the aircraft remembers that {utc(max(floor))} has passed"
        # Under a trust root from the future the floor cannot be lowered.
        remedy = _NEW_EPOCH if root.issued_at > latest else _LOWER_FLOOR
        ahead.append(_ahead("floor-ahead", text, "aircraft's state", max(floor), remedy, clock))
    # Of equal times the first one is the source: the floor rests on the others.
    times: list[tuple[Source, int]] = [("clock", clock)] if clock is not None else []
    times += [("trust root", root.issued_at), ("issue", opened.manifest.issue.issued_at)]
    times += [("floor", at) for at in floor]
    source, judging = max((one for one in times if one[1] <= latest), key=lambda one: one[1])
    return Moment(judging, clock, doubt, source, tuple(ahead))


def _ahead(kind: str, text: str, entry: str, at: int, remedy: str, clock: int | None) -> Finding:
    shown = utc(clock or 0)
    return Finding(
        kind,
        f"{text}, in the future of the trusted clock, which shows {shown}",
        step="E",
        entry=entry,
        expected=shown,
        actual=utc(at),
        remedy=f"{_CHECK_CLOCK}{remedy}",
    )


def check_time(manifest: Manifest, moment: Moment) -> Iterator[Finding]:
    """Yield the findings of step E about time: times that are ahead of the clock, and a mission that is too early, has
    expired, or has imagery that is too old."""
    yield from moment.ahead
    start, end, coverage = manifest.issue.valid_from, manifest.issue.expires_at, manifest.coverage
    right = _DOUBTS[moment.source]
    if moment.clock is not None and start is not None and moment.at < start:
        yield Finding(
            "not-yet-valid",
            f"the mission is valid from {utc(start)}, and it is {utc(moment.at)}",
            step="E",
            entry="manifest",
            expected=str(start),
            actual=str(moment.at),
            remedy=f"{_CHECK_CLOCK}wait until then, or build and sign the mission again with an earlier valid_from",
        )
    if end is not None and moment.at > end:
        yield Finding(
            "expired",
            f"the mission expired at {utc(end)}, and it is {'at least ' * (moment.clock is None)}{utc(moment.at)}",
            step="E",
            entry="manifest",
            expected=str(end),
            actual=str(moment.at),
            remedy=f"{right}build and sign the mission again, with an expiry after the flight",
        )
    if coverage.too_old_at(moment.at):
        age = age_in_days(coverage.oldest, moment.at)
        yield Finding(
            "stale-imagery",
            f"the oldest imagery is {age} days old, and the mission allows {coverage.max_age_days}",
            step="E",
            entry="manifest",
            expected=str(coverage.max_age_days),
            actual=str(age),
            remedy=f"{right}build and sign the mission again from newer imagery",
        )


def unjudged_time(manifest: Manifest, moment: Moment) -> Iterator[str]:
    """Yield what the verdict lists of time as not judged."""
    if manifest.issue.expires_at is None:
        yield NEVER_EXPIRES
    if moment.doubt:
        yield moment.doubt
    start = manifest.issue.valid_from
    if moment.clock is None and start is not None and moment.at < start:
        yield f"valid_from: whether it is {utc(start)} yet, for want of a trusted clock"
