"""Loading the artifacts of a verified mission: the caller gets the bytes that were hashed.

>>> from store import load, takeoff_check
>>> mission = takeoff_check(store_path, "north-ridge", trust=root_bytes, now=now).mission
>>> bytes(load(mission, "files/calibration/camera.yaml", kind="file"))
b'fx: 1.0\\n'
>>> load(mission, "files/calibration/camera.yaml", kind="engine")
Traceback (most recent call last):
    ...
store.errors.Invalid: files/calibration/camera.yaml is an entry of kind file, not engine; ...

The bytes are read and hashed in one pass, into memory of their own. Bytes that a bad medium returns on a second read,
or that somebody swaps in after the check, are never used.
"""

from __future__ import annotations

from store.errors import Invalid, NotFound, instead_of
from store.takeoff.mission import VerifiedMission


def load(mission: VerifiedMission, name: str, *, kind: str) -> memoryview:
    """Return the bytes of the entry `name`, read-only.

    `kind` is the kind of entry that the caller expects: an entry of another kind raises Invalid, so that nothing filed
    under `files/` is ever run as an engine. Raise NotFound if the mission has no such entry, Corrupt or Unavailable if
    the medium no longer returns the verified bytes.
    """
    entry = mission.table.find(name)
    if entry is None:
        remedy = instead_of(name, [entry.name for entry in mission.table.entries])
        raise NotFound(f"mission {mission.facts.id} has no entry {name}", remedy=remedy, entry=name)
    if entry.kind != kind:
        text = f"{name} is an entry of kind {entry.kind}, not {kind}"
        remedy = f"give the name of an entry of kind {kind}, or the kind {entry.kind}"
        raise Invalid(text, remedy=remedy, entry=name, expected=kind, actual=entry.kind)
    return memoryview(mission.evidence.bytes_of(entry.id, entry.size)).toreadonly()
