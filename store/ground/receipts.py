"""Receipts (FORMAT.md 5.4): signs and keeps them, takes them to a store, and says whose they are.

An aircraft keeps a receipt in its state first, durably; `deliver` takes it to the store on the next stick that can be
written, and only then removes it. This module lies on the ground's floor though aircraft use it: the takeoff check
writes nothing but the state of its aircraft, and no verdict waits for a receipt (decision 27).

A receipt is a claim of its key. Whose key that is says the reader's own list (`read_fleet`), or the newest trust root
for the keys of its roles; a store cannot introduce a key. Every other receipt is one of an unknown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache

from store.disk.durable import Disk, replace_file
from store.disk.layout import RECEIPTS, TMP
from store.disk.media import FOLDER_LIMIT, Media
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Refused, Untrusted
from store.format.cose import Envelope
from store.format.ids import ObjectId, is_hex
from store.format.manifest import AIRCRAFT_ID
from store.format.receipt import (
    AAD_LABEL,
    CONTENT_TYPE,
    MAX_PROOFS,
    PAYLOAD_LIMIT,
    RECEIPT_LIMIT,
    Receipt,
    Verified,
)
from store.format.ref import ref_id
from store.ground.repository import Repository, SmallFile
from store.takeoff.fidelity import claims
from store.takeoff.mission import Verdict, VerifiedMission
from store.takeoff.withdrawn import withdrawn
from store.trust.aircraft_state import AircraftState
from store.trust.keys import PublicKey, Signer, sign
from store.trust.root import ROLES, TrustRoot
from store.values import dataclass

MAX_RECEIPTS = FOLDER_LIMIT
# The most receipts that a state keeps while no store takes them.
MAX_KEPT = 1_000
# The most bytes of a list of keys: some 10,000 lines.
FLEET_LIMIT = 2**20
_LINE = re.compile(r"([0-9a-f]{64})[ \t]+(\S+)")


def of_check(verdict: Verdict, key: PublicKey, state: AircraftState | None = None) -> Receipt:
    """Return the receipt of a takeoff check that said GO, to be signed by `key`: with the state that judged, the one of
    an aircraft. Raise Refused for any other verdict."""
    mission = verdict.mission
    if mission is None:
        raise Refused(f"the verdict of {verdict.mission_id} is NO-GO: there is no receipt of it", kind="no-go")
    manifest = mission.manifest
    verified = Verified(
        mission=manifest.mission.id,
        manifest=mission.manifest_id,
        epoch=manifest.issue.epoch,
        sequence=manifest.issue.sequence,
        root=mission.trust_root.version,
        objects=verdict.objects,
        bytes_read=verdict.bytes,
        from_medium=verdict.from_medium,
        host=mission.host,
        proofs=_proofs_of(mission, state),
    )
    known = max(manifest.issue.issued_at, mission.trust_root.issued_at, 0 if state is None else state.floor)
    return Receipt(
        key.raw,
        None if state is None else state.id,
        manifest.mission.flight,
        known if verdict.judged_at is None else verdict.judged_at,
        "known" if verdict.judged_at is None else "trusted",
        verified,
    )


def _proofs_of(mission: VerifiedMission, state: AircraftState | None) -> tuple[bytes, ...]:
    """Return the proofs of a state on which the GO of a mission rests, at most MAX_PROOFS."""
    needed = {claim.proof for claim in claims(mission, mission.host)}
    return () if state is None else tuple(proof for proof in state.proofs if proof in needed)[:MAX_PROOFS]


def of_flight(state: AircraftState, flight: str, key: PublicKey) -> Receipt:
    """Return the receipt of a flight that an aircraft has consumed, to be signed by its key."""
    return Receipt(key.raw, state.id, flight, state.floor, "known", None)


def signed(receipt: Receipt, signer: Signer, root: TrustRoot) -> SmallFile:
    """Return the file of a receipt, signed in the domain of a trust root."""
    data = sign(Envelope(CONTENT_TYPE, receipt.render()), signer, root.aad(AAD_LABEL)).render()
    return SmallFile(f"{RECEIPTS}/{ObjectId.of(data)}", data)


def parsed(data: bytes, root: TrustRoot) -> Receipt:
    """Return the receipt in these bytes, if its signature holds in the domain of a trust root. It is a claim of its
    key: see `whose`. Raise Corrupt for other bytes, Untrusted (kind `bad-signature`)."""
    if len(data) > RECEIPT_LIMIT:
        raise Corrupt(f"the receipt has more than {RECEIPT_LIMIT} bytes", kind="too-large")
    envelope = Envelope.parse(data, CONTENT_TYPE, PAYLOAD_LIMIT)
    receipt = Receipt.parse(envelope.payload)
    signatures, key = envelope.signatures, PublicKey(receipt.key)
    if len(signatures) != 1 or not key.verifies(envelope, signatures[0], root.aad(AAD_LABEL)):
        text = f"the receipt is not signed by the key {receipt.key.hex()}, which it names, in this trust domain"
        raise Untrusted(text, kind="bad-signature")
    return receipt


def names(media: Media) -> list[str]:
    """Return the names of the receipts of a store or a state, ascending. Other names are passed over: an audit reports
    them. Raise Corrupt (kind `too-many`)."""
    return [name for name in media.names_if_there(RECEIPTS) if is_hex(name)]


def read(media: Media, name: str, root: TrustRoot) -> tuple[SmallFile, Receipt]:
    """Return the file and the receipt of a name. Raise as `parsed` does, and Corrupt for bytes of another name."""
    path = f"{RECEIPTS}/{name}"
    data = media.read(path, RECEIPT_LIMIT)
    try:
        if str(ObjectId.of(data)) != name:
            raise Corrupt("its bytes do not hash to its name", kind="bit-flip")
        return SmallFile(path, data), parsed(data, root)
    except (Corrupt, Untrusted) as error:
        raise error.restated(f"{media.absolute(path)}: {error.message}") from error


def keep(state: str | os.PathLike[str], file: SmallFile, disk: Disk | None = None) -> None:
    """Put a receipt into the folder of an aircraft's state, durably, until a store takes it.

    Raise Refused (kind `too-many`) if the state keeps as many as it may, Unavailable if it cannot be written.
    """
    disk, folder = disk or Disk(), os.path.realpath(state)
    with Media(folder) as media:
        for name in (RECEIPTS, TMP):
            disk.make_directory(media.absolute(name))
        disk.sync_directory(folder)
        if len(names(media)) >= MAX_KEPT:
            raise Refused(
                f"{media.absolute(RECEIPTS)} holds {MAX_KEPT} receipts that no store has taken",
                remedy="verify a store on a medium that can be written with this state: that takes them",
                kind="too-many",
            )
        replace_file(disk, media.absolute(file.name), file.data, media.absolute(TMP))


def deliver(state: str | os.PathLike[str], store: Repository, root: TrustRoot) -> int:
    """Take the receipts that an aircraft's state keeps to a store, durably, then out of the state. Return their number.

    `root` is a trust root of the state's domain: receipts of another domain stay. Raise Conflict for a store of another
    domain, and as `leave` does; what the store did not take stays in the state.
    """
    with Media(os.path.realpath(state)) as media:
        files: list[SmallFile] = []
        for name in names(media):
            with suppress(NotFound, Corrupt, Untrusted):
                files.append(read(media, name, root)[0])
        if files:
            leave(store, files, root)
            for file in files:
                store.disk.remove(media.absolute(file.name))
            store.disk.sync_directory(media.absolute(RECEIPTS))
    return len(files)


def leave(store: Repository, files: Sequence[SmallFile], root: TrustRoot) -> None:
    """Put signed receipts, one or more, into a store of their domain, durably.

    Raise Refused for a store of another domain (kind `bad-trust-chain`) or with as many receipts as it may have
    (`too-many`), Locked while a collection or repair has the store, Unavailable if it cannot be written.
    """
    if store.first_trust_root().root.domain_id != root.domain_id:
        text = f"{store.media.path} is of another trust domain than the receipt"
        raise Refused(text, remedy="give a store of the same trust domain", kind="bad-trust-chain")
    new = [file for file in files if not _has(store, file)]
    if new and len(names(store.media)) + len(new) > MAX_RECEIPTS:
        folder = store.media.absolute(RECEIPTS)
        text = f"{folder} would hold more than {MAX_RECEIPTS} receipts"
        raise Refused(text, remedy=f"sync the store to the ground, and remove {folder}", kind="too-many")
    if new:
        with store.locked():
            store.place(new)
    else:
        # Who placed them may have died before their names were durable.
        store.disk.sync_directory(store.media.absolute(RECEIPTS))


def _has(store: Repository, file: SmallFile) -> bool:
    try:
        return store.media.read(file.name, RECEIPT_LIMIT) == file.data
    except (NotFound, Corrupt):
        return False


def to_bring(source: Repository, target: Repository | None, root: TrustRoot) -> tuple[SmallFile, ...]:
    """Return the receipts that a sync brings to the target: those that it lacks and that hold in the domain of a trust
    root, as many as it may still have. What cannot be read stays: an audit reports it."""
    try:
        present = set() if target is None else set(names(target.media))
        lacking = [name for name in names(source.media) if name not in present]
    except FlightbagError:
        return ()
    files: list[SmallFile] = []
    for name in lacking:
        if len(present) + len(files) == MAX_RECEIPTS:
            break
        with suppress(FlightbagError):
            files.append(read(source.media, name, root)[0])
    return tuple(files)


def read_fleet(data: bytes) -> dict[bytes, str]:
    """Return whose the keys of a list are, by kid: a line each, the kid in hex and the id, as `flightbag aircraft
    show` prints it. Empty lines and lines that begin with # count for nothing. Raise Invalid, which names the line."""
    fleet: dict[bytes, str] = {}
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None or not AIRCRAFT_ID.fullmatch(match[2]):
            raise Invalid(
                f"line {number} is not a kid of 64 hex digits and an id: {text[:80]!r}",
                remedy="give the line of `flightbag aircraft show`, or a kid of `flightbag keys show` and a name",
            )
        if fleet.setdefault(bytes.fromhex(match[1]), match[2]) != match[2]:
            text = f"line {number} gives the key {match[1][:16]} a second id, {match[2]}"
            raise Invalid(text, remedy="keep one of the two lines: a key is of one aircraft")
    return fleet


def whose(receipt: Receipt, root: TrustRoot, fleet: Mapping[bytes, str]) -> str:
    """Return who a receipt is of: an id of the fleet, or what people call a key of a role of the newest trust root; ""
    for an unknown, also where a known key claims to be of another aircraft."""
    key = PublicKey(receipt.key)
    name = fleet.get(key.kid, "")
    if name or receipt.aircraft is not None:
        return name if receipt.aircraft in (None, name) else ""
    return root.key_text(key.kid) if any(key in root.role(role).keys for role in ROLES) else ""


@dataclass(frozen=True, slots=True)
class Shown:
    """A receipt of a store: its name, whose it is ("" for an unknown), what it says, whether it is of the manifest that
    is current in this store, and whether that one was withdrawn."""

    name: str
    whose: str
    receipt: Receipt
    current: bool
    withdrawn: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """What the receipts of a store say: of each aircraft or person and mission the newest that verified it, and the
    flights that were flown. `refused` has the names of those that do not hold, each with the reason."""

    verified: tuple[Shown, ...]
    flown: tuple[Shown, ...]
    refused: tuple[tuple[str, str], ...]


def overview(store: Repository, fleet: Mapping[bytes, str]) -> Overview:
    """Return what the receipts of a store say, under its newest trust root. Those of unknowns come last.

    Raise as `Repository.trust_root` does, and Corrupt (kind `too-many`) for a folder with more than it may have.
    """
    root = store.trust_root().root
    missions = set(store.missions())
    newest: dict[tuple[str, ...], Shown] = {}
    refused: list[tuple[str, str]] = []

    @cache
    def is_withdrawn(mission: str) -> bool:
        try:
            return bool(withdrawn(store.evidence, store.current(mission)).findings)
        except FlightbagError:
            return False  # an audit reports what does not verify

    for name in names(store.media):
        try:
            receipt = read(store.media, name, root)[1]
        except FlightbagError as error:
            refused.append((name, error.message))
            continue
        verified = receipt.verified
        current = verified is not None and verified.mission in missions and _is_current(store, verified)
        gone = current and verified is not None and is_withdrawn(verified.mission)
        one = Shown(name, whose(receipt, root, fleet), receipt, current, gone)
        # Of unknowns, each key speaks for itself.
        by = (one.whose,) if one.whose else ("", receipt.key.hex(), receipt.aircraft or "")
        key = ("" if verified is None else "verified", _about(receipt), *by)
        newest[key] = max(newest.get(key, one), one, key=_order)
    rows = sorted(
        newest.values(), key=lambda one: (not one.whose, one.whose, one.receipt.key, _about(one.receipt), _order(one))
    )
    return Overview(
        tuple(one for one in rows if one.receipt.verified is not None),
        tuple(one for one in rows if one.receipt.verified is None),
        tuple(refused),
    )


def _is_current(store: Repository, verified: Verified) -> bool:
    try:
        return ref_id(store.evidence.ref(verified.mission)) == verified.manifest
    except (NotFound, Corrupt):
        return False


def _about(receipt: Receipt) -> str:
    return receipt.flight if receipt.verified is None else receipt.verified.mission


def _order(one: Shown) -> tuple[int, int, int, str]:
    """The order of receipts: by issue, which an aircraft never goes back behind, then by time."""
    verified = one.receipt.verified
    issue = (0, 0) if verified is None else (verified.epoch, verified.sequence)
    return (*issue, one.receipt.at, one.name)
