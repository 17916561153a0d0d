"""Issuing a manifest: who may sign, behind which lock, with which sequence. Shared by builds and rollbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from store.errors import FlightbagError, Unavailable, Untrusted
from store.format.cose import Envelope
from store.format.ids import ObjectId
from store.format.manifest import AAD_LABEL, CONTENT_TYPE, Issue, Manifest
from store.locks import exclusive
from store.log import MOVES, events
from store.repository import Repository, Writer
from store.trust.keys import Signer, sign
from store.trust.root import TrustRoot
from store.verify import Opened


def check_signers(root: TrustRoot, signers: Sequence[Signer]) -> None:
    """Raises unless these keys may sign a mission and are enough. Asked before anything is built or written."""
    for signer in signers:
        if signer.public not in root.mission.keys:
            raise Untrusted(
                f"the key {signer.public.kid.hex()[:16]} is not in the role mission of the trust root",
                remedy="sign with an enrolled mission key",
                kind="unknown-signer",
            )
    have = len({signer.public for signer in signers})
    if have < root.mission.threshold:
        raise Untrusted(
            f"a mission takes {root.mission.threshold} signatures, {have} keys are given",
            remedy="give --key once for each signer",
            kind="threshold",
            expected=root.mission.threshold,
            actual=have,
        )


@contextmanager
def issuing(repository: Repository, mission: str, what: str) -> Iterator[Writer]:
    """The store open for writing, for the only one who issues this mission now. Raises Locked, naming `what`."""
    with (
        exclusive(repository.media.path, repository.disk, f"mission-{mission}", what),
        repository.writing() as writer,
    ):
        yield writer


def last_issued(repository: Repository, mission: str) -> Opened | None:
    """The current manifest, or where that is damaged the last one of the log that holds.

    Only what is signed counts: a log line could claim any sequence.
    """

    def holds(opened: Callable[[], Opened]) -> Opened | None:
        try:
            return found if (found := opened()).manifest.mission.id == mission else None
        except Unavailable:
            raise
        except FlightbagError:
            return None

    found = holds(lambda: repository.current(mission))
    if found is None:
        for event in reversed(events(repository.media)):
            if event.event in MOVES and event.facts["mission"] == mission:
                id_ = ObjectId.parse(event.facts["manifest"])
                found = holds(partial(repository.opened, id_, "a manifest of the log"))
                if found is not None:
                    break
    return found


def next_issue(root: TrustRoot, last: Opened | None, *, now: int, expires_at: int | None = None) -> Issue:
    """The issue that follows the last one: sequence = max(last + 1, now), in unix seconds."""
    return Issue(
        epoch=root.epoch,
        sequence=now if last is None else max(last.manifest.issue.sequence + 1, now),
        issued_at=now,
        min_root_version=root.version,
        expires_at=expires_at,
        previous=None if last is None else last.manifest_id,
    )


def signed(manifest: Manifest, root: TrustRoot, signers: Sequence[Signer]) -> bytes:
    """The manifest's envelope with the signature of each signer."""
    envelope = Envelope(CONTENT_TYPE, manifest.render())
    for signer in signers:
        envelope = sign(envelope, signer, root.aad(AAD_LABEL))
    return envelope.render()
