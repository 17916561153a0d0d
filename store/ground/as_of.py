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
from store.errors import Invalid, NotFound
from store.ground.log_history import LogHistory, RefMove
from store.takeoff.evidence import StoreEvidence
from store.trust.root import SignedRoot


class EvidenceAsOf(StoreEvidence):
    """The evidence of a store as it was at the time `at`, in unix seconds. The log is read once, at the first use."""

    def __init__(self, media: Media, at: int, progress: Callable[[int], None] | None = None) -> None:
        super().__init__(media, progress)
        self._at = at

    @cached_property
    def _history(self) -> LogHistory:
        return LogHistory.of(log.events(self.media))

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


def check_pinned(pinned: SignedRoot, at: int) -> None:
    """Raise Invalid for a pinned root that was issued after `at`: it judges by facts of a later time."""
    if pinned.root.issued_at > at:
        raise Invalid(
            f"the pinned trust root {pinned.root.version} was issued after the time that is asked about",
            remedy="pin an earlier root of the domain; before its first root, the domain had approved nothing",
        )
