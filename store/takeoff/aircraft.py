"""The aircraft's memory on its own disk, and the takeoff check with it. The state lies outside of every store.

Two slots, `a` and `b`, each with a checksum. A change is written to both, one after the other, and durable before GO is
said; a change that cannot be written is NO-GO. So of two slots that a power cut may leave, one whole is enough: if the
other is torn or one change behind, no GO was ever said on what it lacks, or the whole one has it. Two that are further
apart, that differ at the same number, or that are both lost are no state: NO-GO until the aircraft is enrolled again.

Who writes what when: `enrol` makes the state; `check` writes a newer trust root as soon as the chain holds, because its
revocations count from then on whatever becomes of the mission, and the rest when every step has passed; `consume` is
called after landing. Nothing else writes. What was restored to an older copy, both slots together, cannot be noticed
without a counter in hardware.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from store.disk.durable import Disk, replace_file
from store.disk.layout import TOML
from store.disk.locks import exclusive
from store.disk.media import Media
from store.disk.staging import listed
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Unavailable, Untrusted
from store.findings import Finding
from store.format.cbor import INT_MAX
from store.format.ids import DIGEST_SIZE, derive
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding, Verdict
from store.takeoff.verify import newest_root, verify_mission
from store.trust.aircraft_state import STATE_LIMIT, AircraftState
from store.trust.root import SignedRoot

SLOTS = ("a", "b")
CONTEXT = "flightbag 2026 aircraft state v1"
_NUMBER = 8
_ENROL = "have an operator enrol the aircraft again (--again): it forgets what it has seen and which flights were flown"
_PATH = "is that the path of the state? an aircraft is enrolled once: flightbag aircraft enrol"


@dataclass(frozen=True, slots=True)
class StoredState:
    """What the slots hold: the number of the last change, whether a slot has to be written anew, and in which order:
    first the one that is behind or lost, so that the other is whole meanwhile."""

    state: AircraftState
    number: int
    mend: bool
    order: tuple[str, ...] = SLOTS


def read_state(folder: str | os.PathLike[str]) -> StoredState:
    """The state of an aircraft. Writes nothing.

    Raises NotFound where there is none, Corrupt where it is damaged beyond doubt, Unavailable where it cannot be read.
    """
    try:
        with Media(folder) as media:
            slots = [_slot(media, name) for name in SLOTS]
    except NotFound as error:
        raise _none(os.fspath(folder)) from error
    found = [(slot[0], slot[1], name) for slot, name in zip(slots, SLOTS, strict=True) if isinstance(slot, tuple)]
    whole = sorted(found, key=lambda slot: slot[0], reverse=True)
    if not whole:
        for slot in slots:
            if isinstance(slot, Unavailable):
                raise slot
        if all(isinstance(slot, NotFound) for slot in slots):
            raise _none(media.path)
        raise _bad(media.path, "both slots are lost or damaged")
    if len(whole) == 2:
        (number, newer, last), (before, older, first) = whole
        if number - before > 1:
            raise _bad(media.path, f"one slot is {number - before} changes behind the other: it was rolled back")
        if number == before and newer != older:
            raise _bad(media.path, "the two slots contradict each other")
        return StoredState(_state(media.path, newer), number, number != before, (first, last))
    ((number, newer, last),) = whole
    return StoredState(_state(media.path, newer), number, True, (*(name for name in SLOTS if name != last), last))


def _slot(media: Media, name: str) -> tuple[int, bytes] | FlightbagError:
    """The number and the bytes of a slot; or why it counts for nothing. Raises Unavailable, not for a bad sector."""
    try:
        data = media.read(name, DIGEST_SIZE + _NUMBER + STATE_LIMIT)
    except (NotFound, Corrupt) as error:
        return error
    except Unavailable as error:
        if error.fields.get("errno") != errno.EIO:
            raise
        return error
    if len(data) <= DIGEST_SIZE + _NUMBER or derive(CONTEXT, data[DIGEST_SIZE:]) != data[:DIGEST_SIZE]:
        return Corrupt(f"{media.absolute(name)} is torn or damaged", kind="bad-state", path=media.absolute(name))
    body = data[DIGEST_SIZE:]
    return int.from_bytes(body[:_NUMBER]), body[_NUMBER:]


def _state(path: str, data: bytes) -> AircraftState:
    try:
        return AircraftState.parse(data)
    except (Corrupt, Untrusted) as error:
        raise _bad(path, error.message) from error


def _none(path: str) -> NotFound:
    return NotFound(f"{path} has no aircraft state", remedy=_PATH, kind="no-state", path=path)


def _bad(path: str, why: str) -> Corrupt:
    return Corrupt(f"the aircraft's state in {path} cannot be used: {why}", remedy=_ENROL, kind="bad-state", path=path)


def _write(folder: str, disk: Disk, memory: StoredState) -> StoredState:
    """Writes a state to both slots, durably. Raises Unavailable; then what was there counts, or this."""
    number = memory.number + 1
    if number > INT_MAX:
        raise _bad(folder, "it was changed too often")
    body = number.to_bytes(_NUMBER) + memory.state.render()
    data = derive(CONTEXT, body) + body
    staging = os.path.join(folder, "tmp")
    disk.make_directory(staging)
    for name in memory.order:
        replace_file(disk, os.path.join(folder, name), data, staging)
    return StoredState(memory.state, number, mend=False)


@contextmanager
def _alone(folder: str, disk: Disk) -> Iterator[None]:
    with exclusive(folder, disk, "state", "the aircraft's state", timeout=60):
        yield


def enrol(
    folder: str | os.PathLike[str], state: AircraftState, *, again: bool = False, disk: Disk | None = None
) -> None:
    """Makes the state of an aircraft. Durable when it returns.

    Raises Conflict where there is one, whole or not, unless `again`: then the new one takes its place, and what the
    aircraft had seen is forgotten. Raises Invalid for a folder with other things in it.
    """
    disk = disk or Disk()
    folder = os.path.realpath(folder)
    above = folder
    while above != os.path.dirname(above):
        if os.path.lexists(os.path.join(above, TOML)):
            raise Invalid(f"{folder} lies in the store {above}", remedy="give a folder outside of every store")
        above = os.path.dirname(above)
    disk.make_directory(folder)
    names = set(listed(folder))
    if names - {*SLOTS, "tmp", "lock"}:
        raise Invalid(f"{folder} holds something else", remedy="give a folder of its own", path=folder)
    with _alone(folder, disk):
        number = 0
        if names & set(SLOTS):
            if not again:
                raise Conflict(
                    f"{folder} is the state of an aircraft already",
                    remedy="enrolling with --again forgets what it has seen",
                    kind="enrolled",
                    path=folder,
                )
            # Above whatever is there, so that an old slot that comes back is noticed.
            with Media(folder) as media:
                number = max(
                    (slot[0] + 1 for slot in (_slot(media, n) for n in SLOTS) if isinstance(slot, tuple)), default=0
                )
        _write(folder, disk, StoredState(state, number, mend=True))
        disk.sync_directory(os.path.dirname(folder))


def consume(folder: str | os.PathLike[str], flight: str, *, disk: Disk | None = None) -> None:
    """Says that a flight was flown: it does not fly again. Durable when it returns. Raises Invalid if it was before."""
    disk = disk or Disk()
    folder = os.path.realpath(folder)
    read_state(folder)  # where there is none, nothing is made, not even a lock
    with _alone(folder, disk):
        memory = read_state(folder)
        _write(folder, disk, replace(memory, state=memory.state.consuming(flight)))


def check(
    folder: str | os.PathLike[str],
    evidence: StoreEvidence,
    mission: str,
    *,
    now: int | None = None,
    flight: str | None = None,
    disk: Disk | None = None,
) -> Verdict:
    """The takeoff check of one mission by what the aircraft remembers; it remembers the outcome.

    `now` is unix seconds by a trusted clock, None where there is none. GO is said only when the state is durable; a
    state that cannot be read or written is NO-GO, told as a finding.
    """
    disk = disk or Disk()
    folder = os.path.realpath(folder)
    try:
        read_state(folder)  # where there is none, nothing is made, not even a lock
        with _alone(folder, disk):
            memory = read_state(folder)
            newest = _newest(memory.state.root, evidence)
            if newest.root.version > memory.state.root.root.version:
                memory = _write(folder, disk, replace(memory, state=memory.state.with_root(newest)))
            binding = Binding.of_aircraft(memory.state, now=now, flight=flight)
            verdict = verify_mission(evidence, mission, memory.state.root, binding)
            if verdict.mission is not None:
                if verdict.mission.trust_root.digest != memory.state.root.root.digest:
                    text = "the trust chain was another one when it was read again"
                    raise Unavailable(text, remedy="check again; the medium is failing", kind="unreadable")
                state = memory.state.accepting(verdict.mission.manifest, now=now or 0)
                if state != memory.state or memory.mend:
                    _write(folder, disk, replace(memory, state=state))
            return verdict
    except FlightbagError as error:
        finding = Finding.of(error, step="E", remedy="the state must be readable and writable for this user")
        return Verdict(mission, (finding,), None)


def _newest(pinned: SignedRoot, evidence: StoreEvidence) -> SignedRoot:
    """Step B; a chain that does not hold moves nothing, and the check says why. Raises Unavailable."""
    try:
        return newest_root(evidence, pinned)
    except Unavailable:
        raise
    except FlightbagError:
        return pinned
