"""The history of a store by its log: one fold over the events, for everything on the ground that asks about the past.

Pure: events come in, a value goes out. The value repeats the statements of the lines. A line is not signed, so a reader
that decides by a manifest or a trust root verifies it first, and asks the log only for the order and the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from store.disk.log import MOVES, Event
from store.format.ids import ObjectId, is_hex
from store.values import dataclass


@dataclass(frozen=True, slots=True)
class RefMove:
    """One move of a mission's ref: when (unix seconds), by which event, and to which manifest."""

    at: int
    event: str
    manifest: ObjectId


@dataclass(frozen=True, slots=True)
class Rotation:
    """A trust root that took effect: when (unix seconds), and the digest of its payload in hex, "" without one."""

    at: int
    digest: str


@dataclass(frozen=True, slots=True)
class LogHistory:
    """The statements of a log about missions and trust roots.

    `moves` lists every move of each mission's ref, the oldest first; a repair that restores a ref counts as one.
    `retained` lists the manifests that were current for each mission, the newest first, each once, without those that
    a collection has given up since. `rotations` has the trust roots by version. `newest_root` is the highest version
    that a line names, also the line of a repair that had to begin the log again; 0 without one. `drafts` gives, for a
    (mission, sequence), the event that its draft was signed for. `removed` has the last manifest of each mission that
    was taken out of the store and not published here since; `lines` counts the moves of a mission's ref after that.
    """

    moves: Mapping[str, tuple[RefMove, ...]]
    retained: Mapping[str, tuple[ObjectId, ...]]
    rotations: Mapping[int, Rotation]
    newest_root: int
    drafts: Mapping[tuple[str, int], str]
    removed: Mapping[str, ObjectId]
    lines: Mapping[str, int]

    @classmethod
    def of(cls, events: Iterable[Event]) -> LogHistory:
        """Fold the events of a log, the oldest first."""
        moves: dict[str, list[RefMove]] = {}
        retained: dict[str, dict[ObjectId, None]] = {}
        rotations: dict[int, Rotation] = {}
        drafts: dict[tuple[str, int], str] = {}
        removed: dict[str, ObjectId] = {}
        lines: dict[str, int] = {}
        newest_root = 0
        for event in events:
            for mission, manifest in _refs_moved(event):
                moves.setdefault(mission, []).append(RefMove(event.at, event.event, manifest))
                ids = retained.setdefault(mission, {})
                ids.pop(manifest, None)
                ids[manifest] = None
                lines[mission] = lines.get(mission, 0) + 1
                if event.event in ("published", "rolled-back"):
                    removed.pop(mission, None)  # the new sequence is after that of the manifest that was removed
            for mission, manifest in _removed(event):
                retained.pop(mission, None)
                removed[mission], lines[mission] = manifest, 0
            for manifest in _given_up(event):
                for ids in retained.values():
                    ids.pop(manifest, None)
            version = event.facts.get("version" if event.event == "rotated" else "root")
            if type(version) is int and version > 0:
                newest_root = max(newest_root, version)
                if event.event == "rotated":
                    # A later line without a digest takes nothing back.
                    earlier = rotations[version].digest if version in rotations else ""
                    rotations[version] = Rotation(event.at, str(event.facts.get("digest", earlier)))
            if event.event == "signed" and event.facts.get("for") in MOVES:
                whose, sequence = event.facts.get("mission"), event.facts.get("sequence")
                if type(whose) is str and type(sequence) is int:
                    drafts[whose, sequence] = event.facts["for"]
        return cls(
            {mission: tuple(items) for mission, items in moves.items()},
            {mission: tuple(reversed(ids)) for mission, ids in retained.items()},
            rotations,
            newest_root,
            drafts,
            removed,
            lines,
        )

    def published(self, mission: str) -> tuple[RefMove, ...]:
        """Return the moves of a mission's ref by a publication, a sync or a rollback, the oldest first.

        The moves by a repair are left out: a repair restores what one of the others made current.
        """
        return tuple(move for move in self.moves.get(mission, ()) if move.event in MOVES)

    def missions(self) -> list[str]:
        """Return the missions with at least one such move that were not taken out since, in the order of the log."""
        return [mission for mission in self.moves if self.published(mission) and not self.is_removed(mission)]

    def is_removed(self, mission: str) -> bool:
        """Return whether a mission was taken out of the store, and nothing has brought it back."""
        return self.lines.get(mission) == 0


def _refs_moved(event: Event) -> Iterable[tuple[str, ObjectId]]:
    """The refs that an event moves. The log checks the facts of the events that publish, and of no others."""
    if event.event in MOVES:
        return ((event.facts["mission"], ObjectId.parse(event.facts["manifest"])),)
    # A repair lists the refs that it restores, before it touches them and again at its end.
    refs = event.facts.get("refs") if event.event == "repaired" else None
    pairs = refs.items() if type(refs) is dict else ()
    return tuple((mission, ObjectId.parse(text)) for mission, text in pairs if type(text) is str and is_hex(text))


def _removed(event: Event) -> Iterable[tuple[str, ObjectId]]:
    """The mission that an event takes out, with its manifest."""
    mission, text = event.facts.get("mission"), event.facts.get("manifest")
    taken = event.event == "removed" and type(mission) is str and type(text) is str and is_hex(text)
    return ((str(mission), ObjectId.parse(str(text))),) if taken else ()


def _given_up(event: Event) -> Iterable[ObjectId]:
    """The manifests that a collection gives up."""
    manifests = event.facts.get("manifests") if event.event == "collected" else None
    texts = manifests if type(manifests) is list else ()
    return tuple(ObjectId.parse(text) for text in texts if type(text) is str and is_hex(text))
