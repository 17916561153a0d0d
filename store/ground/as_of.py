"""A store as it was at an earlier time: for the auditor who asks whether a mission would have been GO then.

The trust roots that had taken effect in this store by then judge, and the mission is the manifest that was current by
the log. Signatures hold as they did then. The log itself is not signed: which of two genuine manifests was current
rests on the log, and on an anchor that somebody kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import takewhile

from store.disk import log
from store.disk.media import Media
from store.errors import Corrupt, Invalid, NotFound, Unavailable, instead_of
from store.format.manifest import utc
from store.format.ref import ref_id
from store.format.withdrawal import of_mission
from store.ground.log_history import LogHistory, RefMove
from store.ground.repository import Repository
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Opened
from store.takeoff.withdrawn import parsed
from store.trust.root import SignedRoot


class EvidenceAsOf(StoreEvidence):
    """The evidence of a store as it was at the time `at`, in unix seconds. The log is read once, at the first use."""

    def __init__(self, media: Media, at: int, progress: Callable[[int, int], None] | None = None) -> None:
        super().__init__(media, progress)
        self._at = at

    @cached_property
    def _events(self) -> list[log.Event]:
        return log.events(self.media)

    @cached_property
    def _history(self) -> LogHistory:
        return LogHistory.of(self._events)

    @cached_property
    def _then(self) -> LogHistory:
        return LogHistory.of(event for event in self._events if event.at <= self._at)

    def _moves(self, mission: str) -> tuple[RefMove, ...]:
        return () if self._then.is_removed(mission) else self._then.published(mission)

    def missions(self) -> list[str]:
        """Return the ids of the missions that had been published by then, ascending."""
        return sorted(self._then.missions())

    def ref(self, mission: str) -> bytes:
        """Return the ref that the mission had then. Raise NotFound if it had none."""
        moves = self._moves(mission)
        if not moves:
            other, gone = instead_of(mission, self.missions()), self._then.is_removed(mission)
            raise NotFound(
                f"by the log, mission {mission} {'had been removed' if gone else 'was not published'} by then",
                remedy=(f"{other}, or " if other else "")
                + "ask about a later time; `flightbag log` lists the times of publication",
                kind="missing",
                mission=mission,
            )
        return f"{moves[-1].manifest}\n".encode()

    def withdrawal(self, name: str) -> bytes:
        """Return the file of a withdrawal, if by the log it was in effect then, and was about the manifest of then.

        A later withdrawal may lie in its place, which is about that manifest too. Where no line tells of it, as in a
        plain copy, its time of issue counts; of one that is damaged nobody knows the time. Raise NotFound where none
        was, and Unavailable where its file is gone.
        """
        told = [event for event in self._events if event.event == "withdrawn" and _named(event) == name]
        if not told and self._in_effect_without_a_line(name):
            return super().withdrawal(name)
        then = [event for event in self._events if event.at <= self._at]
        last = next((event for event in reversed(told) if event.at <= self._at), None)
        if last is None:
            raise NotFound(f"by the log, {name} was not withdrawn by then", kind="missing")
        mission = last.facts.get("mission")
        moves = [e.facts["sequence"] for e in then if e.event in log.MOVES and e.facts["mission"] == mission]
        if moves and type(upto := last.facts.get("sequence")) is int and moves[-1] > upto:
            raise NotFound(f"by the log, {name} was published again by then", kind="missing")
        try:
            return super().withdrawal(name)
        except NotFound as error:
            text = f"by the log, {name} was withdrawn by then, and its file is gone"
            raise Unavailable(text, remedy="take it from a copy of the store", kind="unreadable") from error

    def _in_effect_without_a_line(self, name: str) -> bool:
        data = super().withdrawal(name)
        try:
            return parsed(data, name)[1].issued_at <= self._at
        except Corrupt:
            return True

    def _roots_after(self, after: int) -> list[int]:
        """Return which of the next versions had taken effect by then."""
        return list(takewhile(self._was_in_effect, super()._roots_after(after)))

    def _was_in_effect(self, version: int) -> bool:
        # A trust root is begun before it takes effect; the log has the time at which it did here.
        if (rotation := self._history.rotations.get(version)) is not None:
            return rotation.at <= self._at
        return SignedRoot.parse(self.root_file(version)).root.issued_at <= self._at


def _named(event: log.Event) -> str:
    """Return the name of the withdrawal that an event tells of."""
    mission, release = event.facts.get("mission"), event.facts.get("release")
    return of_mission(str(mission)) if mission is not None else f"{release}.release"


def opened_then(store: Repository, mission: str, at: int) -> tuple[Opened, EvidenceAsOf]:
    """Return the manifest of a mission that was current at the time `at`, with its table, verified under the store's
    chain of then, and the evidence of then. What was revoked or ended since does not count.

    Raise NotFound if no manifest was current then, and as `Repository.opened` does.
    """
    evidence = EvidenceAsOf(store.media, at)
    manifest, pinned = ref_id(evidence.ref(mission)), evidence.newest(store.first_trust_root())
    return store.opened(manifest, f"the manifest of {mission} at {utc(at)}", evidence, pinned), evidence


def check_pinned(pinned: SignedRoot, at: int) -> None:
    """Raise Invalid for a pinned root that was issued after `at`: it judges by facts of a later time."""
    if pinned.root.issued_at > at:
        raise Invalid(
            f"the pinned trust root {pinned.root.version} was issued after the time that is asked about",
            remedy="pin an earlier root of the domain; before its first root, the domain had approved nothing",
        )
