"""The trust chain of a store on the ground: puts a signed trust root into effect.

Three ways lead here: a signed draft (`rotate`), a sync that brings the roots of its source, and a repair that restores
a lost root. All three go through `put_into_effect`, because the order of its steps is a security rule.
"""

from __future__ import annotations

from store.disk import log
from store.disk.locks import exclusive
from store.errors import Corrupt
from store.ground.repository import Repository
from store.trust.draft import RootDraft, complete
from store.trust.root import SignedRoot, advance, check_begun


def rotate(repository: Repository, draft: RootDraft, *, now: int) -> SignedRoot:
    """Put the draft of a trust root into effect: root 1, or the root after the newest one. Return the signed root.

    `now` is unix seconds. The root is durable on return. Raise Untrusted if the draft lacks signatures, Conflict if it
    does not continue the newest root, Refused as `check_begun` does.
    """
    check_begun(draft.root, now=now)
    with (
        repository.locked(),
        exclusive(repository.media.path, repository.disk, "trust", "the trust chain", timeout=60),
    ):
        newest = repository.trust_root() if repository.evidence.root_versions() else None
        signed = complete(draft, newest)
        return put_into_effect(repository, signed.root.version, signed.envelope.render(), at=now)


def put_into_effect(repository: Repository, version: int, data: bytes, *, at: int) -> SignedRoot:
    """Put the root file `data` of trust root `version` into effect, durably; `at` is the time of the log line in unix
    seconds.

    The caller holds the lock `trust` of the store, or holds the whole store alone; it has also dealt with a file that
    lies in the place of this version. Raise as `check_continues_chain` does.
    """
    # The order is a security rule:
    # 1. The checks. Nothing is written for a root that does not continue the chain of the store, and nothing is written
    #    through a `trust/` that is a link to another folder.
    # 2. The log line, durably. An audit takes a root file without a log line for one that somebody planted, or for a
    #    sign that lines were cut from the log. A crash after this step leaves a line without its file, which an audit
    #    notes as a rotation that was cut short.
    # 3. The file, which puts the root into effect: from now on it judges every mission of the store.
    root = check_continues_chain(repository, version, data)
    repository.media.directory("trust")
    facts = {"version": root.root.version, "digest": root.root.digest.hex()}
    repository.append_log(log.Event(at, "rotated", facts))
    repository.replace(f"trust/{root.root.version}.root.cbor", data)
    return root


def check_continues_chain(repository: Repository, version: int, data: bytes) -> SignedRoot:
    """Return the signed root of `data`, if it has this version, and is root 1 or continues the root before it in the
    store.

    Raise Corrupt or Untrusted if it does not hold, NotFound if the store lacks the root before it, Unavailable if that
    root cannot be read.
    """
    root = SignedRoot.parse(data)
    _require_version(root, version)
    if version == 1:
        return root
    before = SignedRoot.parse(repository.evidence.root_file(version - 1))
    _require_version(before, version - 1)
    return advance(before, [data])


def _require_version(root: SignedRoot, version: int) -> None:
    """Raise Corrupt unless the root has the version that the name of its file gives: else another root is replaced."""
    if root.root.version != version:
        raise Corrupt(
            f"trust/{version}.root.cbor holds trust root {root.root.version}",
            remedy="run store-fsck on the store that the file comes from",
            kind="bad-trust-chain",
            expected=version,
            actual=root.root.version,
        )
