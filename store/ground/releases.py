"""The releases of a store on the ground: makes them, lists them, and finds those that approve a mission's entries.

A release is an object, and `trust/releases/<name>` has its id, as a ref has a manifest's. The takeoff check does not
read that folder: the manifest names the releases that it relies on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from store.disk import log
from store.disk.droppings import is_dropping
from store.disk.locks import exclusive
from store.disk.objects import inserting
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Refused, Unavailable
from store.format.cose import Envelope
from store.format.entries import SEGMENT
from store.format.host import require_host_class
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT
from store.format.ref import REF_SIZE, ref_id
from store.format.release import AAD_LABEL, CONTENT_TYPE, PAYLOAD_LIMIT, Approval, Release
from store.format.withdrawal import of_release
from store.ground.repository import Repository
from store.takeoff.verify import parse_release, read_release
from store.trust.keys import Signer, sign
from store.trust.review import digest_of_payload, require_code, signing_code
from store.trust.root import TrustRoot, check_signer, count_signatures

FOLDER = "trust/releases"


def parsed(data: bytes) -> tuple[Envelope, Release]:
    """Return the envelope and the release of these bytes, whoever has signed it. Raise Corrupt."""
    envelope = Envelope.parse(data, CONTENT_TYPE, PAYLOAD_LIMIT)
    return envelope, Release.parse(envelope.payload)


def code_of(data: bytes) -> str:
    """Return the code of a release (FORMAT.md 10.3), by which people name what they review and sign."""
    return signing_code(parsed(data)[0])


def require(data: bytes, code: str) -> None:
    """Raise Refused (kind other-code) unless this is the code of the release, Invalid for what is not a code."""
    require_code(code_of(data), code, f"the release {parsed(data)[1].name}")


def drafted(name: str, host: str, approvals: Iterable[Approval], *, now: int) -> bytes:
    """Return the bytes of an unsigned release for a host class. `now` is unix seconds. Raise Invalid."""
    require_host_class(host)
    try:
        payload = Release(name, now, host, tuple(sorted(set(approvals)))).render()
    except Corrupt as error:  # nothing was read, so the arguments break a rule of the format
        raise Invalid(f"a release with these facts breaks the format: {error.message}") from error
    return Envelope(CONTENT_TYPE, payload).render()


def signed(
    data: bytes, root: TrustRoot, approve: Callable[[Release], Sequence[Signer]], *, expect: str | None = None
) -> tuple[bytes, int]:
    """Return the release with signatures added, and its number of signatures.

    `approve` gives the signers of the release that it is shown, or raises; it is called after everything was read and
    checked. `expect` is the code of the release that was reviewed (`code_of`): another one raises Refused (kind
    other-code). Raise Untrusted for a key outside of the role release, before anything is signed, and for a signature
    in the release that does not verify.
    """
    envelope, release = parsed(data)
    count_signatures(envelope, root, AAD_LABEL, "release")
    if expect is not None:
        require(data, expect)
    signers = approve(release)
    for signer in signers:
        check_signer(root, signer.public, "release")
    for signer in signers:
        envelope = sign(envelope, signer, root.aad(AAD_LABEL))
    return envelope.render(), count_signatures(envelope, root, AAD_LABEL, "release")


def add(repository: Repository, data: bytes) -> ObjectId:
    """Add a release to a store, durably. Return its object id.

    Raise Untrusted unless the role release of the store's newest trust root has signed it, Conflict if the store has
    another valid release of that name, Refused for one that was withdrawn.
    """
    _, release = parsed(data)
    if is_dropping(release.name):  # the file would be passed over
        raise Invalid(f"{release.name} cannot be the name of a release", remedy="make the release with another name")
    id_ = ObjectId.of(data)
    with repository.locked(), exclusive(repository.media.path, repository.disk, "trust", "the releases", timeout=60):
        require_standing(repository, parse_release(data, repository.trust_root().root))
        present = listed(repository).get(release.name, id_)
        if present != id_ and not _may_replace(repository, present, data):
            text = f"the store has another release {release.name}, the object {present}"
            raise Conflict(text, remedy="give the release another name", kind="same-name")
        with inserting(repository.media, repository.disk, None) as batch:
            batch.add_bytes(data)
            batch.commit()
        repository.append_log(log.Event(int(time.time()), "signed", {"release": release.name, "object": str(id_)}))
        repository.disk.make_directory(repository.media.absolute(FOLDER))
        repository.disk.sync_directory(repository.media.absolute("trust"))
        repository.replace(f"{FOLDER}/{release.name}", f"{id_}\n".encode())
    return id_


def require_standing(repository: Repository, one: Release) -> None:
    """Raise Refused (kind withdrawn) for a release in whose place under withdrawn/ anything lies, whoever signed it: no
    mission that names it flies."""
    digest = digest_of_payload(Envelope(CONTENT_TYPE, one.render()))
    with suppress(NotFound):
        repository.evidence.withdrawal(of_release(digest))
        raise Refused(
            f"the release {one.name} was withdrawn",
            remedy="make it again with `flightbag release new`, and have it signed",
            kind="withdrawn",
        )


def _may_replace(repository: Repository, present: ObjectId, data: bytes) -> bool:
    """Return whether a release may replace the present one: it has the same payload, or the present one is invalid."""
    try:
        present_data = repository.evidence.object(present, ENVELOPE_LIMIT)
        require_standing(repository, parse_release(present_data, repository.trust_root().root))
        return parsed(present_data)[0].payload == parsed(data)[0].payload
    except Unavailable:
        raise
    except FlightbagError:
        return True


def listed(repository: Repository) -> dict[str, ObjectId]:
    """Return the object ids of a store's releases by name. A file without an id is passed over: an audit reports it."""
    id_by_name = {}
    for name in repository.media.names_if_there(FOLDER):
        with suppress(Corrupt, NotFound):
            if SEGMENT.fullmatch(name):
                id_by_name[name] = ref_id(repository.media.read(f"{FOLDER}/{name}", REF_SIZE))
    return id_by_name


def approving(
    repository: Repository, root: TrustRoot, approvals: Iterable[Approval]
) -> tuple[tuple[ObjectId, ...], tuple[Approval, ...]]:
    """Return the releases that give these approvals, and the approvals that no release gives.

    Of several releases with an approval, the last issued one is returned. A release that does not verify under `root`,
    or that was withdrawn, approves nothing. Raise Unavailable if a release cannot be read.
    """
    valid: list[tuple[int, ObjectId, frozenset[Approval]]] = []
    for id_ in listed(repository).values():
        try:
            one = read_release(repository.evidence, id_, root)
            require_standing(repository, one)
        except Unavailable:
            raise
        except FlightbagError:
            continue  # lost, withdrawn, or signed by a revoked key: an audit and the takeoff check report it
        valid.append((one.issued_at, id_, frozenset(one.approvals)))
    valid.sort(reverse=True)
    used: set[ObjectId] = set()
    lacking: list[Approval] = []
    for approval in approvals:
        ids = [id_ for _, id_, approved in valid if approval in approved]
        if ids:
            used.add(ids[0])
        else:
            lacking.append(approval)
    return tuple(sorted(used)), tuple(lacking)
