"""Loading the artifacts of a verified mission: what is handed out is what was hashed.

The bytes are read and hashed in one pass into memory of their own. Whatever a bad stick returns the second time, or
somebody swaps in after the check, is never used.
"""

from __future__ import annotations

from store.errors import Invalid, NotFound
from store.takeoff.mission import VerifiedMission


def load(mission: VerifiedMission, name: str, *, kind: str) -> memoryview:
    """The bytes of the entry `name`, read-only.

    `kind` is what the caller will use them as; an entry of another kind raises Invalid, so that nothing filed under
    `files/` is ever run as an engine. Raises NotFound for no such entry, Corrupt or Unavailable if the medium no
    longer gives the verified bytes.
    """
    entry = mission.table.find(name)
    if entry is None:
        raise NotFound(f"mission {mission.facts.id} has no entry {name}", entry=name)
    if entry.kind != kind:
        raise Invalid(f"{name} is of kind {entry.kind}, not {kind}", entry=name, expected=kind, actual=entry.kind)
    return memoryview(mission.evidence.bytes_of(entry.id, entry.size)).toreadonly()
