"""Releases of a store: which there are, and which of them approve what a mission needs. On the ground alone.

A release is an object; `trust/releases/<name>` has its id, as a ref has a manifest's. Aboard nobody looks there: the
manifest names the releases that it relies on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from store.disk import log
from store.disk.locks import exclusive
from store.disk.objects import inserting
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Unavailable
from store.format.cose import Envelope
from store.format.entries import SEGMENT
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT
from store.format.ref import REF_SIZE, ref_id
from store.format.release import AAD_LABEL, CONTENT_TYPE, PAYLOAD_LIMIT, Approval, Release
from store.ground.repository import Repository
from store.takeoff.verify import parse_release, read_release
from store.trust.keys import Signer, sign
from store.trust.root import TrustRoot, check_signer, count_signatures

FOLDER = "trust/releases"


def parsed(data: bytes) -> tuple[Envelope, Release]:
    """A release and its envelope, whoever has signed it. Raises Corrupt."""
    envelope = Envelope.parse(data, CONTENT_TYPE, PAYLOAD_LIMIT)
    return envelope, Release.parse(envelope.payload)


def drafted(name: str, host: str, approvals: Iterable[Approval], *, now: int) -> bytes:
    """A release that nobody has signed, for a host class. `now` is unix seconds. Raises Invalid."""
    try:
        payload = Release(name, now, host, tuple(sorted(set(approvals)))).render()
    except Corrupt as error:  # nothing was read: it is what was asked for that breaks a rule of the format
        raise Invalid(f"this cannot be a release: {error.message}") from error
    return Envelope(CONTENT_TYPE, payload).render()


def signed(data: bytes, root: TrustRoot, signers: Sequence[Signer]) -> tuple[bytes, int]:
    """A release with these signatures added, and how many it has then.

    Raises Untrusted for a key that may not, before anything is signed, and for a signature there that does not hold.
    """
    envelope, _ = parsed(data)
    for signer in signers:
        check_signer(root, signer.public, "release")
    for signer in signers:
        envelope = sign(envelope, signer, root.aad(AAD_LABEL))
    return envelope.render(), count_signatures(envelope, root, AAD_LABEL, "release")


def add(repository: Repository, data: bytes) -> ObjectId:
    """Makes a release known to a store. Durable when it returns.

    Raises Untrusted unless the release role of the store's newest root has signed it, Conflict where there is another
    release of that name.
    """
    _, made = parsed(data)
    id_ = ObjectId.of(data)
    with repository.locked(), exclusive(repository.media.path, repository.disk, "trust", "the releases", timeout=60):
        parse_release(data, repository.trust_root().root)
        if (there := listed(repository).get(made.name, id_)) != id_ and not _takes_its_place(repository, there, data):
            text = f"another release {made.name} is there, the object {there}"
            raise Conflict(text, remedy="give the release another name", kind="same-name")
        with inserting(repository.media, repository.disk, None) as batch:
            batch.add_bytes(data)
            batch.commit()
        repository.append_log(log.Event(int(time.time()), "signed", {"release": made.name, "object": str(id_)}))
        repository.disk.make_directory(repository.media.absolute(FOLDER))
        repository.disk.sync_directory(repository.media.absolute("trust"))
        repository.replace(f"{FOLDER}/{made.name}", f"{id_}\n".encode())
    return id_


def _takes_its_place(repository: Repository, there: ObjectId, data: bytes) -> bool:
    """Whether a release may replace another of its name: it says the same, or the other holds no more."""
    try:
        known = repository.evidence.object(there, ENVELOPE_LIMIT)
        parse_release(known, repository.trust_root().root)
        return parsed(known)[0].payload == parsed(data)[0].payload
    except Unavailable:
        raise
    except FlightbagError:
        return True


def listed(repository: Repository) -> dict[str, ObjectId]:
    """The releases that a store knows, by name. A file that names none is passed over: fsck tells of it."""
    found = {}
    for name in repository.media.names_if_there(FOLDER):
        with suppress(Corrupt, NotFound):
            if SEGMENT.fullmatch(name):
                found[name] = ref_id(repository.media.read(f"{FOLDER}/{name}", REF_SIZE))
    return found


def approving(
    repository: Repository, root: TrustRoot, approvals: Iterable[Approval]
) -> tuple[tuple[ObjectId, ...], tuple[Approval, ...]]:
    """The releases that approve all of these, as far as there are any; and those that none approves.

    Of several, the one that was issued last. What does not hold under the root approves nothing.
    """
    found: list[tuple[int, ObjectId, frozenset[Approval]]] = []
    for id_ in listed(repository).values():
        try:
            one = read_release(repository.evidence, id_, root)
        except Unavailable:
            raise
        except FlightbagError:
            continue  # lost, or of a key that was revoked: fsck and verify tell
        found.append((one.issued_at, id_, frozenset(one.approvals)))
    found.sort(reverse=True)
    used: set[ObjectId] = set()
    lacking: list[Approval] = []
    for approval in approvals:
        by = [id_ for _, id_, approved in found if approval in approved]
        if by:
            used.add(by[0])
        else:
            lacking.append(approval)
    return tuple(sorted(used)), tuple(lacking)
