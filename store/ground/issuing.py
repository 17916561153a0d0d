"""Issuing a manifest: who may sign, behind which lock, with which sequence. Shared by builds, rollbacks and signing.

What lacks signatures is a draft, `drafts/<mission id>`: the same envelope that is published once it has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from store.disk.layout import DRAFTS
from store.disk.locks import exclusive
from store.disk.log import claims, events
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Refused, Unavailable
from store.format.cbor import INT_MAX
from store.format.cose import KID_SIZE, SIGNATURE_SIZE, Envelope, Signature
from store.format.entries import EntryTable
from store.format.ids import ObjectId
from store.format.manifest import AAD_LABEL, CONTENT_TYPE, ENVELOPE_LIMIT, MISSION_ID, PAYLOAD_LIMIT, Issue, Manifest
from store.format.ref import ref_id
from store.ground.log_history import LogHistory
from store.ground.repository import CLOCKS_DIFFER, Repository
from store.ground.writer import Writer, check_fit, writing
from store.takeoff.mission import Evidence, Opened
from store.takeoff.verify import read_table
from store.trust.keys import Signer, sign
from store.trust.root import SignedRoot, TrustRoot, check_signer, count_signatures, count_signers

# Sequences go up, so the highest is among the latest.
_LOOKED_AT = 16


def check_signers(root: TrustRoot, signers: Sequence[Signer]) -> None:
    """Raises Untrusted unless each of these keys may sign a mission. Asked before anything is built or written."""
    for signer in signers:
        check_signer(root, signer.public, "mission")


@contextmanager
def issuing(repository: Repository, mission: str, what: str) -> Iterator[Writer]:
    """The store open for writing, for the only one who issues this mission now. Raises Locked, naming `what`."""
    if not MISSION_ID.fullmatch(mission):
        raise Invalid(f"{mission[:80]!r} is no mission id")
    with (
        exclusive(repository.media.path, repository.disk, f"mission-{mission}", what),
        writing(repository) as writer,
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
        for move in reversed(LogHistory.of(events(repository.media)).published(mission)):
            found = holds(partial(repository.opened, move.manifest, "a manifest of the log"))
            if found is not None:
                break
    return found


def highest_issued(repository: Repository, mission: str) -> tuple[int, int]:
    """The highest (epoch, sequence) that a mission was genuinely issued with here, as far as its manifests are there.

    Also those whose signer was revoked or removed since: aircraft have seen them.
    """
    chain = [repository.first_trust_root().root]
    chain += [SignedRoot.parse(repository.evidence.root_file(version)).root for version in _later(repository)]
    keys = {key for root in chain for key in root.mission.keys}
    ids = [move.manifest for move in LogHistory.of(claims(repository.media)).published(mission)]
    with suppress(FlightbagError):
        current = ref_id(repository.evidence.ref(mission))
        # A line behind that of the ref is of a publication that was cut short: nobody has seen it.
        ids = [*ids[: len(ids) - ids[::-1].index(current)], current] if current in ids else [*ids, current]
    highest = (0, 0)
    for id_ in set(ids[-_LOOKED_AT:]):
        with suppress(FlightbagError):
            envelope = Envelope.parse(repository.evidence.object(id_, ENVELOPE_LIMIT), CONTENT_TYPE, PAYLOAD_LIMIT)
            if count_signers(envelope, chain[0].aad(AAD_LABEL), keys):
                highest = max(highest, Manifest.parse(envelope.payload).issue.order)
    return highest


def _later(repository: Repository) -> range:
    return range(2, max(repository.evidence.root_versions(), default=1) + 1)


def next_issue(
    root: TrustRoot, last: Opened | None, highest: tuple[int, int], *, now: int, expires_at: int | None = None
) -> Issue:
    """The issue that follows the last one: sequence = max(highest + 1, now), in unix seconds.

    A new epoch begins anew, so that a sequence that was driven up to the end of all numbers is no end. Raises Refused
    where that end was reached in this one.
    """
    before = highest[1] if highest[0] == root.epoch else 0
    if before == INT_MAX:
        raise Refused(
            f"the mission was issued with the last of all sequences, {before}",
            remedy="somebody has misused a key: revoke it, and begin a new epoch with `flightbag trust new-epoch`",
            kind="no-sequence",
        )
    return Issue(
        epoch=root.epoch,
        sequence=max(before + 1, now),
        issued_at=now,
        min_root_version=root.version,
        expires_at=expires_at,
        previous=None if last is None else last.manifest_id,
    )


def size_of(manifest: Manifest, signatures: int) -> int:
    """The bytes that the manifest will take as an object, with so many signatures."""
    kids = (number.to_bytes(KID_SIZE) for number in range(signatures))
    made = tuple(Signature(kid, bytes(SIGNATURE_SIZE)) for kid in kids)
    return len(Envelope(CONTENT_TYPE, manifest.render(), made).render())


@dataclass(frozen=True, slots=True)
class Issued:
    """What became of a manifest: published as `manifest`, or a draft (None) with so many of the signatures it takes."""

    manifest: ObjectId | None
    sequence: int
    signatures: int
    threshold: int
    # How many signatures a draft had that this one took the place of.
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class Draft:
    """A manifest that lacks signatures."""

    manifest: Manifest
    envelope: Envelope

    def opened(self, evidence: Evidence, root: TrustRoot) -> Opened:
        """The draft as if it were signed: to be shown and judged, never to be flown. Raises as `read_table` does."""
        return self.opened_with(read_table(evidence, self.manifest), root)

    def opened_with(self, table: EntryTable, root: TrustRoot) -> Opened:
        data = self.envelope.render()
        return Opened(self.manifest, ObjectId.of(data), len(data), table, root)

    def signatures(self, root: TrustRoot) -> int:
        """How many of the mission keys have signed. Raises Untrusted for any other signature."""
        return count_signatures(self.envelope, root, AAD_LABEL, "mission")


def draft_of(repository: Repository, mission: str) -> Draft:
    """The draft of a mission. Raises NotFound where there is none, Corrupt for one that is damaged."""
    try:
        data = repository.media.read(f"{DRAFTS}/{mission}", ENVELOPE_LIMIT)
    except NotFound as error:
        text = f"{repository.media.path} has no draft of mission {mission}"
        raise NotFound(text, remedy="flightbag build makes one", kind="missing", mission=mission) from error
    envelope = Envelope.parse(data, CONTENT_TYPE, PAYLOAD_LIMIT)
    return Draft(Manifest.parse(envelope.payload), envelope)


def issue(
    writer: Writer,
    manifest: Manifest,
    table: EntryTable,
    signers: Sequence[Signer],
    root: TrustRoot,
    *,
    draft: Draft | None = None,
    hold: bool = False,
    event: str = "published",
) -> Issued:
    """Signs a manifest, and publishes it if that makes enough signatures; else it is, or stays, a draft.

    With `draft` the signatures there are kept. With `hold` it stays a draft whatever it has, though it could not fly
    so. The caller is the only one who issues this mission now (see `issuing`). Durable when it returns. Raises as
    `Writer.publish` does.
    """
    check_signers(root, signers)
    envelope = Envelope(CONTENT_TYPE, manifest.render()) if draft is None else draft.envelope
    for signer in signers:
        envelope = sign(envelope, signer, root.aad(AAD_LABEL))
    made = Draft(manifest, envelope)
    replaced = 0
    with suppress(NotFound, Corrupt):
        replaced = 0 if draft else len(draft_of(writer.repository, manifest.mission.id).envelope.signatures)
    count, threshold = made.signatures(root), root.mission.threshold
    mission, sequence = manifest.mission.id, manifest.issue.sequence
    if count >= threshold and not hold:
        id_ = writer.publish(mission, envelope.render(), table.render(), event=event)
        writer.drop_draft(mission)
        return Issued(id_, sequence, count, threshold, replaced)
    if not hold:
        check_fit(writer.repository.evidence, made.opened_with(table, root), mission)
    if draft is None or envelope != draft.envelope:
        facts = {"sequence": sequence, "kids": [signature.kid.hex() for signature in envelope.signatures], "for": event}
        writer.keep_draft(mission, envelope.render(), table.render(), facts)
    return Issued(None, sequence, count, threshold, replaced)


def sign_draft(repository: Repository, mission: str, signers: Sequence[Signer], *, now: int) -> Issued:
    """Adds signatures to a mission's draft, and publishes it when they are enough. `now` is unix seconds.

    Raises Untrusted for a key that may not sign and for a signature in the draft that does not hold; Refused for a
    draft that was overtaken or could not fly; before anything is written.
    """
    root = repository.trust_root().root
    check_signers(root, signers)
    with issuing(repository, mission, f"the signing of mission {mission}") as writer:
        draft = draft_of(repository, mission)
        if draft.manifest.mission.id != mission:
            raise Corrupt(f"the draft of {mission} is of mission {draft.manifest.mission.id}", kind="bad-draft")
        stale = overtaken(repository, draft.manifest, root, now=now)
        if stale:
            raise Refused(
                f"the draft of {mission} was overtaken: {stale}",
                remedy="build the mission again, and have the new draft signed",
                kind="stale-draft",
            )
        draft.signatures(root)
        opened = draft.opened(repository.evidence, root)
        check_fit(repository.evidence, opened, mission)
        event = _begun_as(repository, draft.manifest)
        return issue(writer, draft.manifest, opened.table, signers, root, draft=draft, event=event)


def _begun_as(repository: Repository, manifest: Manifest) -> str:
    """What the log says that a draft is for: a publication, unless it was begun as a rollback."""
    history = LogHistory.of(events(repository.media))
    return history.drafts.get((manifest.mission.id, manifest.issue.sequence), "published")


def discard_draft(repository: Repository, mission: str) -> int:
    """Throws the draft of a mission away; how many signatures it had. Raises NotFound where there is none."""
    with issuing(repository, mission, f"the draft of mission {mission}") as writer:
        signatures = 0
        with suppress(Corrupt):  # a damaged one goes too
            signatures = len(draft_of(repository, mission).envelope.signatures)
        writer.drop_draft(mission)
    return signatures


def overtaken(repository: Repository, manifest: Manifest, root: TrustRoot, *, now: int) -> str:
    """Why a draft cannot be published, or no more: it is not what would be issued next. Empty where it is."""
    issued, mission = manifest.issue, manifest.mission.id
    if (issued.epoch, issued.min_root_version) != (root.epoch, root.version):
        return f"it was made under trust root {issued.min_root_version}, the newest is {root.version}"
    last = last_issued(repository, mission)
    if issued.previous != (None if last is None else last.manifest_id):
        return "another manifest was published since"
    # Nobody has signed a draft at first: one with a sequence far ahead would leave no room for those to come.
    highest = highest_issued(repository, mission)
    following = next_issue(root, last, highest, now=issued.issued_at, expires_at=issued.expires_at)
    if issued != following or issued.issued_at > now + CLOCKS_DIFFER:
        return f"its sequence {issued.sequence} or its time of issue is not that of the next one"
    return ""
