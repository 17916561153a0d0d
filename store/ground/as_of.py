"""A store as it was at an earlier time: for the auditor who asks whether a mission would have been GO then.

The trust roots that had taken effect in this store by then judge, and the mission is the manifest that was current by
the log. Signatures hold as they did then. The log itself is not signed: which of two genuine manifests was current
rests on the log, and on an anchor that somebody kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from store.disk import log
from store.disk.media import Media
from store.errors import Corrupt, Invalid, NotFound, Unavailable
from store.format.withdrawal import of_mission
from store.ground.log_history import LogHistory, RefMove
from store.takeoff.evidence import StoreEvidence
from store.takeoff.withdrawn import parsed
from store.trust.root import SignedRoot


class EvidenceAsOf(StoreEvidence):
    """The evidence of a store as it was at the time `at`, in unix seconds. The log is read once, at the first use."""

    def __init__(self, media: Media, at: int, progress: Callable[[int], None] | None = None) -> None:
        super().__init__(media, progress)
        self._at = at

    @cached_property
    def _events(self) -> list[log.Event]:
        return log.events(self.media)

    @cached_property
    def _history(self) -> LogHistory:
        return LogHistory.of(self._events)

    def _moves(self, mission: str) -> tuple[RefMove, ...]:
        return tuple(move for move in self._history.published(mission) if move.at <= self._at)

    def missions(self) -> list[str]:
        """Return the ids of the missions that had been published by then, ascending."""
        return sorted(mission for mission in self._history.moves if self._moves(mission))

    def ref(self, mission: str) -> bytes:
        """Return the ref that the mission had then. Raise NotFound if it had none."""
        moves = self._moves(mission)
        if not moves:
            raise NotFound(
                f"by the log, no mission {mission} was published by then",
                remedy="ask about a later time; `flightbag log` lists the times of publication",
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

    def chain(self, after: int) -> Sequence[bytes]:
        """Return the root files that had taken effect by then, of version `after` + 1 and up."""
        files = []
        for data in super().chain(after):
            root = SignedRoot.parse(data).root
            # A trust root is begun before it takes effect; the log has the time at which it did here.
            rotation = self._history.rotations.get(root.version)
            if (root.issued_at if rotation is None else rotation.at) > self._at:
                break
            files.append(data)
        return files


def _named(event: log.Event) -> str:
    """Return the name of the withdrawal that an event tells of."""
    mission, release = event.facts.get("mission"), event.facts.get("release")
    return of_mission(str(mission)) if mission is not None else f"{release}.release"


def check_pinned(pinned: SignedRoot, at: int) -> None:
    """Raise Invalid for a pinned root that was issued after `at`: it judges by facts of a later time."""
    if pinned.root.issued_at > at:
        raise Invalid(
            f"the pinned trust root {pinned.root.version} was issued after the time that is asked about",
            remedy="pin an earlier root of the domain; before its first root, the domain had approved nothing",
        )
