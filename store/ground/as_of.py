"""A store as it was at a time: for the auditor who asks whether it would have been GO then.

The roots that had taken effect here by then judge, and the mission is the manifest that the log says was current. What
is signed is as good as ever; the log is not signed, so that which of two genuine manifests was current rests on it, and
on an anchor that somebody kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from store.disk import log
from store.disk.media import Media
from store.errors import Invalid, NotFound
from store.takeoff.evidence import StoreEvidence
from store.trust.root import SignedRoot


class EvidenceAsOf(StoreEvidence):
    """The evidence of a store as it was at `at`, unix seconds."""

    def __init__(self, media: Media, at: int, progress: Callable[[int], None] | None = None) -> None:
        super().__init__(media, progress)
        self._at = at

    def missions(self) -> list[str]:
        """Those that the log tells of by then."""
        return sorted({e.facts["mission"] for e in log.events(self.media) if e.event in log.MOVES and e.at <= self._at})

    def ref(self, mission: str) -> bytes:
        for event in reversed(log.events(self.media)):
            if event.event in log.MOVES and event.at <= self._at and event.facts["mission"] == mission:
                return f"{event.facts['manifest']}\n".encode()
        raise NotFound(f"the log tells of no mission {mission} by then", kind="missing", mission=mission)

    def chain(self, after: int) -> Sequence[bytes]:
        rotated = {e.facts.get("version"): e.at for e in log.events(self.media) if e.event == "rotated"}
        found = []
        for data in super().chain(after):
            root = SignedRoot.parse(data).root
            # A root is begun before it takes effect: the log says when it did here.
            if rotated.get(root.version, root.issued_at) > self._at:
                break
            found.append(data)
        return found


def check_pinned(pinned: SignedRoot, at: int) -> None:
    """Raises Invalid for a pinned root that was not there yet: it would judge by what was known only later."""
    if pinned.root.issued_at > at:
        raise Invalid(
            f"the pinned root {pinned.root.version} was issued after that time",
            remedy="pin an earlier root of the domain; before the first, nothing was approved at all",
        )
