"""The takeoff check by the state that an aircraft keeps on its own disk, outside of every store.

>>> from store import aircraft
>>> root = aircraft.pinned_root(root_bytes)
>>> aircraft.enrol(state_folder, aircraft.AircraftState.initial("uav-07", "cpu-x86_64-avx2", root)).state.id
'uav-07'
>>> aircraft.check(state_folder, store_path, "north-ridge", now=now).go
True
>>> aircraft.consume(state_folder, "2026-11-23-01")
True
>>> verdict = aircraft.check(state_folder, store_path, "north-ridge", now=now)
>>> [finding.kind for finding in verdict.findings]
['consumed-flight']

The state has two slots, `a` and `b`, each with a checksum. A change is written to both, one after the other, and is
durable before the check answers GO; a change that cannot be written is NO-GO. After a power cut one whole slot is
enough (decision 0008): if the other slot is torn or one change behind, either no GO rested on what it lacks, or the
whole slot has it. Slots that are further apart, that differ at the same number, or that are both lost make no state:
NO-GO until the aircraft is enrolled again.

Beside the slots lies the key of the aircraft, which signs receipts (FORMAT.md 5.4). No verdict needs it.

Five functions write. `enrol` makes the state, and where there is one keeps what it remembers. `check` writes a newer
trust root as soon as the chain holds, because its revocations count from then on whatever becomes of the mission, and
withdrawals likewise once they hold; it writes the rest after every step has passed. `consume` is called after landing;
it takes only flights that had a GO, because it cannot be undone. `prove` records that an engine, which nobody had run,
agrees with its map on this aircraft (see `fidelity`); it accepts no mission. `lower_floor` is for a person at the
aircraft, after a wrong time drove the floor up. A restore of both slots to an older copy goes unnoticed: only a counter
in hardware could show it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from store.disk.durable import Disk, replace_file
from store.disk.layout import KEY, OF_STATE, SLOTS, TOML, open_store, store_above
from store.disk.locks import exclusive
from store.disk.media import Media
from store.disk.opening import nearest
from store.disk.staging import list_names
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Refused, Unavailable, Untrusted
from store.findings import COPY_AGAIN, Finding
from store.format.cbor import INT_MAX
from store.format.ids import DIGEST_SIZE, derive
from store.takeoff.evidence import StoreEvidence
from store.takeoff.fidelity import claims
from store.takeoff.mission import Binding, Verdict, VerifiedMission
from store.takeoff.verify import newest_root, pinned_root, verify_mission
from store.trust.aircraft_state import STATE_LIMIT, AircraftState
from store.trust.key_file import KEY_FILE_LIMIT
from store.trust.keys import PrivateKey
from store.trust.root import SignedRoot
from store.values import dataclass, replace

__all__ = [
    "SLOTS",
    "AircraftState",
    "Enrolment",
    "Proving",
    "StoredState",
    "check",
    "consume",
    "enrol",
    "lower_floor",
    "pinned_root",
    "prove",
    "read_key",
    "read_state",
]

CONTEXT = "flightbag 2026 aircraft state v1"
_NUMBER_SIZE = 8
_ENROL_AGAIN = (
    "have an operator enrol the aircraft again (flightbag aircraft enrol --again): the aircraft keeps what its whole "
    "slots remember, and forgets everything else that it has accepted and flown"
)
_NEW_KEY = "have an operator enrol the aircraft again (flightbag aircraft enrol --again), which makes a new key"
_ENROL_ONCE = (
    "check the path of the state, and that its disk is mounted; a new aircraft is enrolled once, with "
    "`flightbag aircraft enrol`"
)


@dataclass(frozen=True, slots=True)
class StoredState:
    """The state by its two slots.

    `number` counts the changes. `mend` is true if a slot is lost or behind and has to be written. `order` is the order
    of writing: that slot first, so that the other one stays whole meanwhile.
    """

    state: AircraftState
    number: int
    mend: bool
    order: tuple[str, ...] = SLOTS


def read_state(folder: str | os.PathLike[str]) -> StoredState:
    """Return the state of an aircraft. Write nothing.

    Raise Corrupt if the state is damaged beyond doubt, Unavailable if there is none (`no-state`) or it cannot be read.
    """
    try:
        with Media(folder) as media:
            slots = [_read_slot(media, name) for name in SLOTS]
    except NotFound as error:
        raise _no_state(os.fspath(folder)) from error
    readable = [(slot[0], slot[1], name) for slot, name in zip(slots, SLOTS, strict=True) if isinstance(slot, tuple)]
    whole = sorted(readable, key=lambda slot: slot[0], reverse=True)
    if not whole:
        for slot in slots:
            if isinstance(slot, Unavailable):
                raise slot
        if all(isinstance(slot, NotFound) for slot in slots):
            raise _no_state(media.path)
        raise _bad_state(media.path, "both slots are lost or damaged")
    if len(whole) == 2:
        (number, newer, last), (before, older, first) = whole
        if number - before > 1:
            raise _bad_state(media.path, f"one slot is {number - before} changes behind the other: it was rolled back")
        if number == before and newer != older:
            raise _bad_state(media.path, "the two slots contradict each other")
        return StoredState(_parse(media.path, newer), number, number != before, (first, last))
    ((number, newer, last),) = whole
    return StoredState(_parse(media.path, newer), number, True, (*(name for name in SLOTS if name != last), last))


def read_key(folder: str | os.PathLike[str]) -> PrivateKey:
    """Return the key of an aircraft, which signs its receipts. It never leaves the folder of the state.

    Raise NotFound if there is none, Corrupt if the file is damaged (kind `bad-key`), Unavailable if it cannot be read.
    """
    path = os.path.join(os.fspath(folder), KEY)
    try:
        with Media(folder) as media:
            return PrivateKey.of_pem(media.read(KEY, KEY_FILE_LIMIT), None)
    except NotFound as error:
        text = f"{path} is missing: the aircraft has no key, and signs no receipts"
        raise NotFound(text, remedy=_NEW_KEY, kind="no-key", path=path) from error
    except (Corrupt, Invalid) as error:
        text = f"{path} is not the key of an aircraft: {error.message}"
        raise Corrupt(text, remedy=_NEW_KEY, kind="bad-key", path=path) from error


def _keep_key(folder: str, disk: Disk, *, first: bool) -> None:
    """Make the key of the aircraft, durably, unless it has a whole one. Raise Invalid for the `first` enrolment in a
    folder with another file in its place: that may be somebody's key."""
    try:
        read_key(folder)
    except (NotFound, Corrupt) as error:
        if first and isinstance(error, Corrupt):
            raise _not_a_state(folder) from error
        staging = os.path.join(folder, "tmp")
        disk.make_directory(staging)
        replace_file(disk, os.path.join(folder, KEY), PrivateKey.generate().pem(None), staging, 0o600)


def _read_slot(media: Media, name: str) -> tuple[int, bytes] | FlightbagError:
    """Return the number and the bytes of a slot, or why the slot does not count.

    A bad sector only costs the slot. Raise Unavailable for any other failure to read.
    """
    try:
        data = media.read(name, DIGEST_SIZE + _NUMBER_SIZE + STATE_LIMIT)
    except (NotFound, Corrupt) as error:
        return error
    except Unavailable as error:
        if error.errno != errno.EIO:
            raise
        return error
    body = data[DIGEST_SIZE:]
    number = int.from_bytes(body[:_NUMBER_SIZE], "big")
    if len(body) <= _NUMBER_SIZE or number > INT_MAX or derive(CONTEXT, body) != data[:DIGEST_SIZE]:
        return Corrupt(f"{media.absolute(name)} is torn or damaged", kind="bad-state", path=media.absolute(name))
    return number, body[_NUMBER_SIZE:]


def _parse(path: str, data: bytes) -> AircraftState:
    try:
        return AircraftState.parse(data)
    except (Corrupt, Untrusted) as error:
        raise _bad_state(path, error.message) from error


def _parsed(data: bytes) -> AircraftState | None:
    """Return the state of a slot's bytes; None if they are no state."""
    try:
        return AircraftState.parse(data)
    except (Corrupt, Untrusted):
        return None


def _no_state(path: str) -> Unavailable:
    # Nobody can tell a state that was deleted from one on a disk that is not mounted.
    remedy = _ENROL_ONCE
    if os.path.lexists(os.path.join(path, TOML)):
        remedy = "it is a store: give the folder of the aircraft's state, and the store before it"
    elif (near := nearest(path)) and not os.path.lexists(path):
        remedy = f"give {near}, or {remedy}"
    return Unavailable(f"{path} has no aircraft state", remedy=remedy, kind="no-state", path=path)


def _bad_state(path: str, why: str) -> Corrupt:
    text = f"the aircraft's state in {path} cannot be used: {why}"
    return Corrupt(text, remedy=_ENROL_AGAIN, kind="bad-state", path=path)


def _write(folder: str, disk: Disk, stored: StoredState) -> StoredState:
    """Write a state to both slots, durably. If it raises Unavailable, either the state before or this one counts."""
    number = stored.number + 1
    if number > INT_MAX:
        raise _bad_state(folder, "it was changed too often")
    body = number.to_bytes(_NUMBER_SIZE, "big") + stored.state.render()
    data = derive(CONTEXT, body) + body
    staging = os.path.join(folder, "tmp")
    disk.make_directory(staging)
    for name in stored.order:
        replace_file(disk, os.path.join(folder, name), data, staging)
    return StoredState(stored.state, number, mend=False)


@contextmanager
def _locked(folder: str, disk: Disk) -> Iterator[None]:
    with exclusive(folder, disk, "state", "the aircraft's state", timeout=60):
        yield


@dataclass(frozen=True, slots=True)
class Enrolment:
    """An aircraft that was enrolled, with the state that it has now.

    `forgot` is true if the folder had a state of which no slot could be read: what it remembered is lost. `left` has
    the states before that are of another trust domain: their missions and trust roots are lost.
    """

    state: AircraftState
    forgot: bool
    left: tuple[AircraftState, ...] = ()


def enrol(
    folder: str | os.PathLike[str], state: AircraftState, *, again: bool = False, disk: Disk | None = None
) -> Enrolment:
    """Make the state of an aircraft; it is durable on return.

    Raise Conflict if the folder has a state already, whole or not. With `again` the new state continues it: id, host
    class and trust root are those of `state`, and what the slots that can be read remember stays, as
    `AircraftState.continuing` says. The aircraft gets a key, or keeps the one that it has (see `read_key`).

    Raise Conflict for the state of another aircraft, Invalid for a folder that holds other things or lies in a store,
    Unavailable if a slot or the key cannot be read now.
    """
    disk = disk or Disk()
    folder = os.path.realpath(folder)
    if (above := store_above(os.path.join(folder, SLOTS[0]))) is not None:
        raise Invalid(f"{folder} lies in the store {above}", remedy="give a folder outside of every store")
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise Invalid(
            f"{folder}: expected a folder, found a file",
            remedy="give an empty folder, or one that does not exist yet",
            path=folder,
        )
    disk.make_directory(folder)
    names = set(list_names(folder))
    if names - OF_STATE:
        raise _not_a_state(folder)
    with _locked(folder, disk):
        number, forgot, earlier = 0, False, list[AircraftState]()
        if names & set(SLOTS):
            if not again:
                raise Conflict(
                    f"{folder} already has the state of an aircraft",
                    remedy="enrol with --again for another host class or trust root: what the aircraft remembers stays",
                    kind="enrolled",
                    path=folder,
                )
            with Media(folder) as media:
                slots = [slot for name in SLOTS if isinstance(slot := _read_slot(media, name), tuple)]
            # The number goes above both slots, so that an old slot that comes back is noticed.
            number = max((number + 1 for number, _ in slots), default=0)
            earlier = [one for _, data in slots if (one := _parsed(data)) is not None]
            state, forgot = state.continuing(earlier), not earlier
        _keep_key(folder, disk, first=not names & set(SLOTS))
        _write(folder, disk, StoredState(state, number, mend=True))
        disk.sync_directory(os.path.dirname(folder))
    domain = state.root.root.domain_id
    return Enrolment(state, forgot, tuple(one for one in earlier if one.root.root.domain_id != domain))


def _not_a_state(folder: str) -> Invalid:
    text = f"{folder} holds files that are not of an aircraft's state"
    return Invalid(text, remedy="give an empty folder, or one that does not exist yet", path=folder)


def consume(folder: str | os.PathLike[str], flight: str, *, disk: Disk | None = None) -> bool:
    """Record that a flight was flown, so that the check refuses it from now on. The record is durable on return.

    Return False if it was consumed before. Raise NotFound (kind unknown-flight) for a flight of which this aircraft has
    accepted no mission, with the nearest that it has; further as `AircraftState.consuming` and `read_state` do.
    """
    before, after = _change(folder, disk, lambda state: state.consuming(flight))
    return after != before


def lower_floor(folder: str | os.PathLike[str], at: int, *, disk: Disk | None = None) -> AircraftState:
    """Lower the time that the aircraft remembers as passed to `at`, in unix seconds: the time now, for which a person
    vouches. Return the state, which is durable on return; accepted missions and flights stay as they were.

    Raise as `AircraftState.lowering` and `read_state` do.
    """
    return _change(folder, disk, lambda state: state.lowering(at))[1]


def _change(
    folder: str | os.PathLike[str], disk: Disk | None, change: Callable[[AircraftState], AircraftState]
) -> tuple[AircraftState, AircraftState]:
    """Put what `change` makes of the state in its place, durably. Return the state before and after."""
    disk = disk or Disk()
    folder = os.path.realpath(folder)
    read_state(folder)  # without a state nothing is made, not even a lock
    with _locked(folder, disk):
        stored = read_state(folder)
        state = change(stored.state)
        if state != stored.state or stored.mend:
            _write(folder, disk, replace(stored, state=state))
        return stored.state, state


def check(
    folder: str | os.PathLike[str],
    store: StoreEvidence | str | os.PathLike[str],
    mission: str,
    *,
    now: int | None = None,
    flight: str | None = None,
    disk: Disk | None = None,
) -> Verdict:
    """Return the verdict of the takeoff check for one mission, by the aircraft's state in `folder`; record the outcome.

    `store` is the folder of the store, or evidence over one. `now` is whole unix seconds by a trusted clock, None
    without a trusted clock. The verdict is GO only once the state is durable; a state that cannot be read or written is
    a finding, and NO-GO. Raise NoStore or Unavailable if the store cannot be opened, Invalid for another `now`.
    """
    given = Binding(now, flight=flight)
    evidence = store if isinstance(store, StoreEvidence) else StoreEvidence(open_store(store, drop_cache=None))
    disk = disk or Disk()
    folder = os.path.realpath(folder)
    try:
        read_state(folder)  # without a state nothing is made, not even a lock
        with _locked(folder, disk):
            stored, verdict = _judged(folder, evidence, mission, given, disk)
            if verdict.mission is not None:
                clock = 0 if now is None or verdict.judged_at is None else now
                state = stored.state.accepting(verdict.mission.manifest, now=clock)
                if state != stored.state or stored.mend:
                    _write(folder, disk, replace(stored, state=state))
            return verdict
    except FlightbagError as error:
        return _no_go(mission, error)


class Measured(Protocol):
    """A figure that was measured aboard: `value` in parts per million, None where it could not be, and how (6.7)."""

    @property
    def name(self) -> str: ...

    @property
    def value(self) -> int | None: ...

    @property
    def recipe(self) -> bytes: ...


MeasuredT = TypeVar("MeasuredT", bound=Measured)


@dataclass(frozen=True, slots=True)
class Proving(Generic[MeasuredT]):
    """The outcome of `prove`. `refused` is the verdict that kept the mission from being probed, None where it was.

    `figures` are all that was measured. `held` and `failed` name the unproven figures of the mission that were: the
    state remembers the proofs of the first, and no proof of the second.
    """

    refused: Verdict | None
    figures: Sequence[MeasuredT] = ()
    held: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


def prove(
    folder: str | os.PathLike[str],
    store: StoreEvidence | str | os.PathLike[str],
    mission: str,
    measure: Callable[[VerifiedMission], Sequence[MeasuredT]],
    *,
    now: int | None = None,
    disk: Disk | None = None,
) -> Proving[MeasuredT]:
    """Measure the engines of a mission aboard, and record which of its unproven figures hold (FORMAT.md 10.5).

    `measure` is `builders.onboard.probe_sets`. It gets the mission that passed every step but for what is unproven, and
    the mission is not for flying: `check` is. A newer trust root is recorded as by `check`, and nothing else is
    accepted. What is recorded is durable on return. Raise as `measure`, and then nothing is recorded; Conflict if the
    aircraft was enrolled otherwise meanwhile, and as `read_state` and `AircraftState.proving` do; else as `check`.
    """
    given = Binding(now, proof=False)
    evidence = store if isinstance(store, StoreEvidence) else StoreEvidence(open_store(store, drop_cache=None))
    disk = disk or Disk()
    folder = os.path.realpath(folder)
    try:
        read_state(folder)  # without a state nothing is made, not even a lock
        with _locked(folder, disk):
            stored, verdict = _judged(folder, evidence, mission, given, disk)
    except FlightbagError as error:
        return Proving(_no_go(mission, error))
    if verdict.mission is None:
        return Proving(verdict)
    # Without the lock: an engine may take minutes to load, and a check must not wait for it.
    figures = measure(verdict.mission)
    values = {(one.name, one.recipe): one.value for one in figures}
    held, failed = dict[bytes, str](), dict[bytes, str]()
    for claim in claims(verdict.mission, verdict.mission.host):
        value = values.get((claim.figure.name, claim.figure.recipe))
        if claim.proof is not None and value is not None:
            (held if value >= claim.figure.least else failed)[claim.proof] = claim.figure.name

    def proven(state: AircraftState) -> AircraftState:
        if (state.id, state.host) != (stored.state.id, stored.state.host):
            raise Conflict(
                f"the aircraft was enrolled as {state.id} ({state.host}) while its engines were measured",
                remedy="probe the mission again",
                kind="enrolled",
            )
        return state.proving(held, failed)

    _change(folder, disk, proven)
    return Proving(None, figures, tuple(held.values()), tuple(failed.values()))


def _judged(
    folder: str, evidence: StoreEvidence, mission: str, given: Binding, disk: Disk
) -> tuple[StoredState, Verdict]:
    """Return the state, with the newest trust root of the evidence, and the verdict by it. The caller has the lock."""
    stored = read_state(folder)
    newest = _newest_root(stored.state.root, evidence)
    if newest.root.version > stored.state.root.root.version:
        stored = _write(folder, disk, replace(stored, state=stored.state.with_root(newest, now=given.now)))
    binding = replace(given, aircraft=stored.state.id, host=stored.state.host, state=stored.state)
    verdict = verify_mission(evidence, mission, stored.state.root, binding)
    try:
        seen = stored.state.with_withdrawals(verdict.withdrawals)
    except Refused as error:  # beside what is found already, which says more
        full = Finding.of(error, step="E")
        return stored, replace(verdict, findings=(*verdict.findings, full), mission=None)
    if seen != stored.state:
        stored = _write(folder, disk, replace(stored, state=seen))
    if verdict.mission is not None and verdict.mission.trust_root.digest != stored.state.root.root.digest:
        text = "a second read of the trust chain gave another trust root than the first"
        raise Unavailable(text, remedy="check again; the medium is failing", kind="unreadable")
    return stored, verdict


def _no_go(mission: str, error: FlightbagError) -> Verdict:
    """Return the verdict for a state that cannot be used: that is the only finding."""
    finding = Finding.of(error, step="E", remedy="let this user read and write the folder of the aircraft's state")
    return Verdict(mission, (finding,), None)


def _newest_root(pinned: SignedRoot, evidence: StoreEvidence) -> SignedRoot:
    """Step B. A chain that does not hold leaves the pinned root, and the check reports why. Raise Unavailable."""
    try:
        return newest_root(evidence, pinned)
    except Unavailable as error:
        # The store cannot be read, not the state: the remedy for the state would send the crew to the wrong place.
        raise error.restated(error.message, remedy=error.remedy or COPY_AGAIN) from error
    except FlightbagError:
        return pinned
