"""Attacks on time: missions and trust roots that are dated ahead, clocks that stand anywhere, lives that are too long.

The groups are those of `attacks`. What somebody gains by them is a flight at a time that nobody signed for, or an
aircraft that refuses everything: each way back from there has its row too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from store.disk.media import Media
from store.errors import FlightbagError
from store.format.manifest import SKEW, TIME_MAX
from store.ground.issuing import sign_draft
from store.ground.repository import Repository
from store.ground.trust_chain import rotate
from store.takeoff.aircraft import check, consume, enrol, lower_floor, read_state
from store.takeoff.evidence import StoreEvidence
from store.trust.aircraft_state import AircraftState
from store.trust.draft import RootDraft
from store.trust.root import SignedRoot, TrustRoot
from tests.conformance.attacks import GO, Groups, Row, Scene, issued, scene, takeoff, with_fields
from tests.support.missions import BINDING, FACTS, ISSUE, NOW, ROOT, by, flight, key, next_root, pinned, role, sign_root
from tests.support.stores import make_store

HOUR, DAY = 3600, 86400
FAR = NOW + 365 * DAY
FLOWN = "flown"


# one check


def lives() -> Iterator[Row]:
    """When a mission may fly, by itself and by the newest trust root."""

    def at(now: int, **issue: Any) -> Scene:
        return replace(issued(**issue), binding=replace(BINDING, now=now))

    def under(most: int, **issue: Any) -> Scene:
        """Issued before the root that sets a maximum, which counts all the same."""
        return issued(chain=[sign_root(next_root(ROOT, max_lifetime=most), "root-a")], **issue)

    life = 1100  # of the original
    yield "the-original", GO, scene()
    yield "at-its-first-second", GO, at(NOW, valid_from=NOW)
    yield "a-second-early", "E not-yet-valid", at(NOW, valid_from=NOW + 1)
    yield "a-year-early", "E not-yet-valid", at(NOW, valid_from=FAR, expires_at=FAR)
    yield "early-and-never-expiring", "E not-yet-valid", at(NOW, valid_from=TIME_MAX, expires_at=None)
    yield "early-without-a-clock", GO, replace(
        issued(valid_from=FAR, expires_at=FAR), binding=replace(BINDING, now=None))  # fmt: skip
    yield "of-one-second", GO, at(NOW, valid_from=NOW, expires_at=NOW)
    yield "that-ends-before-it-begins", "D bad-field", with_fields("issue", valid_from=NOW + 2, expires_at=NOW + 1)
    yield "that-ends-before-its-issue", "D bad-field", with_fields("issue", expires_at=ISSUE.issued_at - 1)
    yield "valid-from-before-all-calendars", "D bad-field", with_fields("issue", valid_from=-1)
    yield "valid-from-after-all-calendars", "D bad-field", with_fields("issue", valid_from=TIME_MAX + 1)
    yield "valid-from-now-in-text", "D bad-field", with_fields("issue", valid_from="now")
    yield "as-long-as-the-root-allows", GO, under(life)
    yield "a-second-longer", "E lifetime", under(life - 1)
    yield "never-expiring-under-a-maximum", "E lifetime", under(TIME_MAX, expires_at=None)
    # The maximum counts from the issue: a start in the future buys no time.
    yield "long-by-a-late-start", "E lifetime", under(life, valid_from=NOW, expires_at=ISSUE.issued_at + life + 1)
    yield "expired-and-too-long", "E expired, E lifetime", under(1, issued_at=NOW - 9, expires_at=NOW - 1)
    value = replace(ROOT, max_lifetime=5)
    yield "a-maximum-of-the-pinned-root", "E lifetime", scene(flight(root=value), root=value)
    yield "a-default-binds-no-reader", GO, issued(
        chain=[sign_root(next_root(ROOT, default_lifetime=1), "root-a")])  # fmt: skip


def dates() -> Iterator[Row]:
    """Times of issue against a trusted clock."""

    def rooted(*roots: TrustRoot, now: int | None = NOW) -> Scene:
        return replace(scene(chain=[sign_root(one, "root-a") for one in roots]), binding=replace(BINDING, now=now))

    ahead = {"expires_at": None}
    yield "the-original", GO, scene()
    yield "issued-a-day-ahead", GO, issued(issued_at=NOW + SKEW, **ahead)
    yield "issued-a-second-more-ahead", "E issued-in-future", issued(issued_at=NOW + SKEW + 1, **ahead)
    yield "issued-a-year-ahead", "E issued-in-future", issued(issued_at=FAR, **ahead)
    yield "issued-in-9999", "E issued-in-future", issued(issued_at=TIME_MAX, **ahead)
    yield "issued-a-year-ahead-for-a-day", "E issued-in-future", issued(issued_at=FAR, expires_at=FAR + DAY)
    yield "issued-a-year-ahead-without-a-clock", GO, replace(
        issued(issued_at=FAR, **ahead), binding=replace(BINDING, now=None))  # fmt: skip
    yield "a-day-ahead-and-over-by-then", "E expired", rooted(next_root(ROOT, issued_at=NOW + SKEW))
    yield "root-a-year-ahead", "E issued-in-future", rooted(next_root(ROOT, issued_at=FAR))
    yield "root-a-year-ahead-without-a-clock", "E expired", rooted(next_root(ROOT, issued_at=FAR), now=None)
    early = next_root(ROOT, issued_at=FAR)
    yield "root-that-mends-one-of-the-future", GO, rooted(early, next_root(early, issued_at=NOW))
    of_future = replace(ROOT, issued_at=FAR)
    yield "pinned-root-of-the-future", "E issued-in-future", scene(flight(root=of_future), root=of_future)
    yield "clock-of-1970", "E issued-in-future", replace(scene(), binding=replace(BINDING, now=0))
    yield "clock-before-all-calendars", "E issued-in-future", replace(scene(), binding=replace(BINDING, now=-(2**62)))
    yield "clock-after-all-calendars", GO, replace(scene(), binding=replace(BINDING, now=TIME_MAX + 1))


# an aircraft through the weeks


@dataclass(frozen=True, slots=True)
class Shown:
    """A mission that an aircraft is shown, by a trusted clock unless `now` is None."""

    scene: Scene
    now: int | None = None


@dataclass(frozen=True, slots=True)
class Lowered:
    """A person at the aircraft lowers its floor."""

    at: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The aircraft is enrolled again with this trust root."""

    root: TrustRoot


Step: TypeAlias = Shown | Lowered | Enrolled | str


def through(steps: Sequence[Step], folder: Path) -> str:
    """What the last step comes to: the findings of a check, or the kind of an error. A text is a flight that was flown.

    No step may forget a flown flight.
    """
    state, outcome = folder / "state", GO
    enrol(state, AircraftState.initial("uav-07", "cpu-x86_64-avx2", pinned()))
    for number, step in enumerate(steps):
        consumed = read_state(state).state.consumed
        outcome = GO
        try:
            if isinstance(step, Shown):
                store = folder / f"store-{number}"
                step.scene.evidence.write_to(store)
                with Media(store) as media:
                    verdict = check(state, StoreEvidence(media), step.scene.mission, now=step.now)
                outcome = ", ".join(sorted({f"{one.step} {one.kind}" for one in verdict.findings})) or GO
            elif isinstance(step, Lowered):
                lower_floor(state, step.at)
            elif isinstance(step, Enrolled):
                root = SignedRoot.parse(sign_root(step.root, "root-a"))
                enrol(state, AircraftState.initial("uav-07", "cpu-x86_64-avx2", root), again=True)
            else:
                consume(state, step)
        except FlightbagError as error:
            outcome = f"state {error.kind or 'invalid'}"
        assert set(consumed) <= set(read_state(state).state.consumed)
    return outcome


def weeks() -> Iterator[Row]:
    """Time driven forward, and brought back."""

    def named(id_: str, flight_: str, **changes: Any) -> Scene:
        return replace(issued(mission=replace(FACTS, id=id_, flight=flight_), **changes), mission=id_)

    second = next_root(ROOT, epoch=2, issued_at=NOW)
    of_root_2 = {"chain": [sign_root(second, "root-a")], "root": second, "epoch": 2, "min_root_version": 2}
    expiring = named("today", "today")
    endless = named("endless", "endless", expires_at=None)
    ahead = Shown(named("ahead", FLOWN, issued_at=FAR, expires_at=None))
    flown_again = named("again", FLOWN)
    yield "the-original", GO, [Shown(expiring)]
    yield "ahead-without-a-clock", GO, [ahead]
    yield "then-what-expires", "E expired", [ahead, Shown(expiring)]
    yield "then-what-never-expires", GO, [ahead, Shown(endless)]
    yield "then-what-never-expires-by-a-clock", "E floor-ahead", [ahead, Shown(endless, NOW)]
    yield "then-what-expires-by-a-clock", "E floor-ahead", [ahead, Shown(expiring, NOW)]
    yield "then-by-a-clock-a-day-before-that", "E expired", [ahead, Shown(expiring, FAR - SKEW)]
    yield "ahead-by-a-clock", "E issued-in-future", [replace(ahead, now=NOW)]
    yield "then-what-expires-after-a-refusal", GO, [replace(ahead, now=NOW), Shown(expiring)]
    yield "lowered", GO, [ahead, Lowered(NOW), Shown(expiring)]
    yield "lowered-by-a-clock", GO, [ahead, Lowered(NOW), Shown(expiring, NOW)]
    yield "lowered-and-flown", "E consumed-flight", [ahead, FLOWN, Lowered(NOW), Shown(flown_again)]
    yield "lowered-and-rolled-back", "E rolled-back", [
        Shown(expiring), Lowered(0), Shown(named("today", "today", sequence=ISSUE.sequence - 1))]  # fmt: skip
    yield "lowered-below-all", GO, [ahead, Lowered(ROOT.issued_at - SKEW), Shown(expiring)]
    yield "lowered-below-the-root", "state issued-in-future", [Lowered(ROOT.issued_at - SKEW - 1)]
    yield "lowered-to-no-time", "state invalid", [Lowered(-1)]
    yield "lowered-upwards", GO, [Lowered(FAR), Shown(expiring)]
    yield "ended-with-its-epoch", GO, [ahead, Shown(named("today", "today", **of_root_2))]
    yield "ended-and-flown", "E consumed-flight", [ahead, FLOWN, Shown(named("again", FLOWN, **of_root_2))]
    yield "old-stick-after-its-epoch", "E wrong-epoch", [
        ahead, Shown(named("today", "today", **of_root_2)), ahead]  # fmt: skip
    yield "enrolled-with-the-root-of-its-epoch", "E expired", [ahead, Enrolled(ROOT), Shown(expiring)]
    yield "enrolled-with-the-next-epoch", GO, [ahead, Enrolled(second), Shown(named("today", "today", **of_root_2))]
    yield "enrolled-with-an-older-root", GO, [
        Enrolled(second), ahead, Enrolled(ROOT), Shown(named("today", "today", **of_root_2))]  # fmt: skip
    yield "enrolled-and-flown", "E consumed-flight", [
        ahead, FLOWN, Enrolled(second), Shown(named("again", FLOWN, **of_root_2))]  # fmt: skip
    same = next_root(ROOT, issued_at=NOW)
    yield "root-of-the-same-epoch", "E expired", [
        ahead, Shown(named("today", "today", chain=[sign_root(same, "root-a")], root=same))]  # fmt: skip
    future = next_root(ROOT, issued_at=FAR)
    by_future = {"chain": [sign_root(future, "root-a")], "root": future}
    yield "root-of-the-future", "E expired", [Shown(named("today", "today", **by_future))]
    yield "root-of-the-future-by-a-clock", "E issued-in-future", [Shown(named("today", "today", **by_future), NOW)]
    yield "root-of-the-future-lowered", "state issued-in-future", [
        Shown(named("today", "today", **by_future)), Lowered(NOW)]  # fmt: skip
    third = next_root(future, epoch=2, issued_at=NOW)
    chain = [sign_root(future, "root-a"), sign_root(third, "root-a")]
    mended = named("today", "today", chain=chain, root=third, epoch=2)
    yield "root-of-the-future-mended", GO, [Shown(named("today", "today", **by_future)), Shown(mended)]
    yield "root-of-the-future-mended-by-a-clock", GO, [
        Shown(named("today", "today", **by_future), NOW), Shown(mended, NOW)]  # fmt: skip
    # A clock that was ahead is bounded by the end of what it said GO to, and no key ends what it added.
    late = Shown(named("late", "late", expires_at=FAR), FAR)
    yield "clock-ahead", "E expired", [late, Shown(expiring)]
    yield "clock-ahead-and-right-again", "E floor-ahead", [late, Shown(expiring, NOW)]
    yield "clock-ahead-under-a-new-epoch", "E floor-ahead", [late, Shown(named("today", "today", **of_root_2), NOW)]
    yield "clock-ahead-lowered", GO, [late, Lowered(NOW), Shown(expiring, NOW)]
    yield "clock-beyond-the-end", GO, [replace(late, now=FAR + 1), Shown(expiring, NOW)]
    yield "clock-ahead-at-what-never-expires", GO, [Shown(endless, FAR), Shown(expiring, NOW)]


# the ground


def beginning(draft: RootDraft, folder: Path) -> str:
    """The trust root of a draft put into effect by a station whose clock is right."""
    store = make_store(folder / "store")
    try:
        with Repository.open(store) as repository:
            rotate(repository, draft, now=NOW)
    except FlightbagError as error:
        return f"ground {error.kind}"
    return GO


def drafts() -> Iterator[Row]:
    """Nobody puts a root of the future into effect, nor a signature under one."""

    def begun(at: int) -> RootDraft:
        signed = SignedRoot.parse(sign_root(next_root(ROOT, issued_at=at, mission=role("pilot", "relief")), "root-a"))
        return RootDraft(pinned(), signed.root, signed.envelope)

    yield "the-original", GO, begun(NOW)
    yield "a-day-ahead", GO, begun(NOW + SKEW)
    yield "a-second-more-ahead", "ground issued-in-future", begun(NOW + SKEW + 1)
    yield "in-9999", "ground issued-in-future", begun(TIME_MAX)


def signing(draft: tuple[TrustRoot, dict[str, Any]], folder: Path) -> str:
    """A draft under this newest root, its issue with these changes, signed by a station whose clock is right."""
    root, changes = draft
    store = make_store(folder / "store")
    with Repository.open(store) as repository:
        last = repository.current(FACTS.id)
        issue = replace(ISSUE, previous=last.manifest_id, min_root_version=root.version, **changes)
        sequence = max(last.manifest.issue.sequence + 1, issue.issued_at)
        if root != ROOT:
            repository.replace(f"trust/{root.version}.root.cbor", sign_root(root, "root-a"))
        (store / "drafts").mkdir(exist_ok=True)
        unsigned = flight(root=root, by=(), issue=replace(issue, sequence=sequence))
        repository.replace(f"drafts/{FACTS.id}", unsigned.signed)
        try:
            sign_draft(repository, FACTS.id, by(key("pilot")), now=NOW)
        except FlightbagError as error:
            return f"ground {error.kind}"
    return GO


def signatures() -> Iterator[Row]:
    """What a draft says of time is judged before a key signs it."""
    endless = {"expires_at": None}
    most = next_root(ROOT, max_lifetime=1099)
    yield "the-original", GO, (ROOT, {})
    yield "issued-a-day-ahead", GO, (ROOT, {**endless, "issued_at": NOW + SKEW})
    yield "issued-a-second-more-ahead", "ground stale-draft", (ROOT, {**endless, "issued_at": NOW + SKEW + 1})
    yield "expired-meanwhile", "ground stale-draft", (ROOT, {"expires_at": NOW - 1})
    yield "not-valid-yet", GO, (ROOT, {"valid_from": NOW + 500})
    yield "longer-than-allowed", "ground lifetime", (most, {})
    yield "never-expiring-where-that-is-not-allowed", "ground lifetime", (most, endless)
    yield "under-a-root-of-the-future", "ground issued-in-future", (next_root(ROOT, issued_at=FAR), {})


GROUPS: Groups = {
    "lives": (takeoff, lives),
    "dates": (takeoff, dates),
    "weeks": (through, weeks),
    "root-drafts-in-time": (beginning, drafts),
    "signing-in-time": (signing, signatures),
}
