"""Releases of a store: which there are, and which of them approve what a mission needs. On the ground alone.

A release is an object; `trust/releases/<name>` has its id, as a ref has a manifest's. Aboard nobody looks there: the
manifest names the releases that it relies on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from store import log
from store.errors import Conflict, Corrupt, FlightbagError, Invalid
from store.format.cose import Envelope
from store.format.entries import SEGMENT
from store.format.ids import ObjectId
from store.format.release import AAD_LABEL, CONTENT_TYPE, PAYLOAD_LIMIT, Approval, Release
from store.locks import exclusive
from store.objects import inserting
from store.repository import Repository
from store.trust.keys import Signer, sign
from store.trust.root import TrustRoot, check_signatures, check_signer, count_signatures
from store.verify import REF_SIZE, read_release, ref_id

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
        check_release(repository.root().root, data)
        if (there := listed(repository).get(made.name, id_)) != id_:
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


def check_release(root: TrustRoot, data: bytes) -> None:
    """Raises Untrusted unless the release role of this root has signed the release."""
    check_signatures(parsed(data)[0], root, AAD_LABEL, "release", "the release")


def listed(repository: Repository) -> dict[str, ObjectId]:
    """The releases that a store knows, by name. Raises Corrupt for a file that names none."""
    media = repository.media
    return {
        name: ref_id(media.read(f"{FOLDER}/{name}", REF_SIZE))
        for name in media.names_if_there(FOLDER)
        if SEGMENT.fullmatch(name)
    }


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
