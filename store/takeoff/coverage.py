"""The list of the missing tiles of a mission (FORMAT.md 6.5), compared with the number that its manifest signs."""

from __future__ import annotations

from store.errors import Corrupt
from store.format.missing import ENTRY, MissingList
from store.takeoff.mission import Evidence, Opened, VerifiedMission


def read_missing(mission: Opened | VerifiedMission, evidence: Evidence) -> MissingList:
    """Return the tiles of the area that the mission does not describe; an empty list if it describes all of them.

    Raise Corrupt if the list does not parse or has another number of tiles than the manifest signs, and as
    `Evidence.bytes_of` does.
    """
    entry = mission.table.find(ENTRY)
    if entry is None:
        return MissingList(())
    listed = MissingList.parse(bytes(evidence.bytes_of(entry.id, entry.size)))
    signed = mission.manifest.coverage.missing
    if listed.total != signed:
        raise Corrupt(
            f"{ENTRY} lists {listed.total} missing tiles, the manifest signs {signed}",
            kind="bad-coverage",
            remedy="do not fly this mission; build it again",
            object=entry.id,
            entry=ENTRY,
            expected=signed,
            actual=listed.total,
        )
    return listed
