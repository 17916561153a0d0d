"""Issuing a manifest: its signers, its lock and its sequence. Builds, rollbacks and the signing of drafts share this.

A manifest that lacks signatures is a draft, `drafts/<mission id>`: the envelope that is published once it has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeAlias

from store.disk.layout import DRAFTS
from store.disk.locks import exclusive
from store.disk.log import claims, events
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Refused, Unavailable, instead_of
from store.format.cbor import INT_MAX
from store.format.cose import KID_SIZE, SIGNATURE_SIZE, Envelope, Signature
from store.format.entries import EntryTable
from store.format.ids import ObjectId
from store.format.manifest import (
    AAD_LABEL,
    CONTENT_TYPE,
    ENVELOPE_LIMIT,
    MISSION_ID,
    MISSION_ID_REMEDY,
    PAYLOAD_LIMIT,
    SKEW,
    Issue,
    Manifest,
    utc,
)
from store.format.ref import ref_id
from store.format.withdrawal import AAD_LABEL as WITHDRAWAL_LABEL
from store.format.withdrawal import of_mission
from store.ground.log_history import LogHistory
from store.ground.repository import Repository
from store.ground.writer import Writer, check_fit, writing
from store.takeoff.mission import Evidence, Opened
from store.takeoff.verify import read_table
from store.takeoff.withdrawn import parsed
from store.trust.keys import PublicKey, Signer, sign
from store.trust.review import require_code, signing_code
from store.trust.root import SignedRoot, TrustRoot, check_begun, check_signer, count_signatures, count_signers
from store.values import dataclass

# Sequences only rise, so the highest is among the latest manifests: so many are read.
_LATEST_READ = 16


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys that will sign once the work is done: how many, those that are known without opening a private key, and the
    function that opens all of them."""

    count: int
    known: Sequence[PublicKey]
    open: Callable[[], Sequence[Signer]]

    @classmethod
    def of(cls, signers: Sequence[Signer]) -> Keys:
        """Return keys that are open already."""
        return cls(len(signers), [signer.public for signer in signers], lambda: signers)

    def check(self, root: TrustRoot, *, now: int) -> None:
        """Raise Untrusted unless each key that is known may sign a mission, Refused for a trust root from the future of
        `now`, under which nothing can fly. Called before anything is written."""
        check_begun(root, now=now)
        for public in self.known:
            check_signer(root, public, "mission")


@contextmanager
def issuing(repository: Repository, mission: str, what: str) -> Iterator[Writer]:
    """Open the store for writing, with the lock of the mission. Raise Locked, naming `what`, if another has it."""
    with mission_lock(repository, mission, what), writing(repository) as writer:
        yield writer


@contextmanager
def mission_lock(repository: Repository, mission: str, what: str) -> Iterator[None]:
    """Hold the lock of the mission, without writing: nobody issues another manifest of it meanwhile. Raise Locked."""
    if not MISSION_ID.fullmatch(mission):
        raise Invalid(f"{mission[:80]!r} is not a valid mission id", remedy=MISSION_ID_REMEDY)
    with exclusive(repository.media.path, repository.disk, f"mission-{mission}", what):
        yield


@dataclass(frozen=True, slots=True)
class Review:
    """What is about to be signed, for the person who signs it.

    `opened` is the manifest as if it were signed. `before` is the last one of the mission that verifies, None without
    any. `named` is the manifest that the person names by its code: the draft, or the one that a rollback goes back to.
    """

    opened: Opened
    before: Opened | None
    named: Opened

    def require(self, code: str) -> None:
        """Raise Refused (kind other-code) unless `code` is that of `named`, Invalid for a text that is not a code."""
        require_code(self.named.signing_code, code, f"the manifest of mission {self.named.manifest.mission.id}")


# Gives the signers of what it is shown, or raises. It is called last, after everything was read and checked: so no key
# is open before, and a person may be asked. What is signed then is what it was shown, whatever the medium says by now.
Approve: TypeAlias = Callable[[Review], Sequence[Signer]]


def last_issued(repository: Repository, mission: str) -> Opened | None:
    """Return the current manifest of a mission, or if it is damaged the last one of the log that verifies; else None.

    Only signed manifests count: a log line could claim any sequence. Raise Unavailable if a manifest cannot be read.
    """

    def valid(open_manifest: Callable[[], Opened]) -> Opened | None:
        try:
            opened = open_manifest()
            return opened if opened.manifest.mission.id == mission else None
        except Unavailable:
            raise
        except FlightbagError:
            return None

    last = valid(lambda: repository.current(mission))
    if last is None:
        history = LogHistory.of(events(repository.media))
        # A mission that was taken out begins anew, whether its objects are still there or not.
        for move in () if history.is_removed(mission) else reversed(history.published(mission)):
            last = valid(partial(repository.opened, move.manifest, "a manifest of the log"))
            if last is not None:
                break
    return last


def highest_issued(repository: Repository, mission: str) -> tuple[int, int]:
    """Return the highest (epoch, sequence) among the genuine manifests of a mission in the store, and the one up to
    which it was withdrawn; (0, 0) without any.

    What signers that were revoked or removed since have signed counts too: aircraft have seen it.
    """
    chain = [repository.first_trust_root().root]
    chain += [SignedRoot.parse(repository.evidence.root_file(version)).root for version in _later(repository)]
    keys = {key for root in chain for key in root.mission.keys}
    history = LogHistory.of(claims(repository.media))
    ids = [move.manifest for move in history.published(mission)]
    with suppress(FlightbagError):
        current = ref_id(repository.evidence.ref(mission))
        # A line after that of the ref is from a publication that was cut short: no aircraft has seen its manifest.
        ids = [*ids[: len(ids) - ids[::-1].index(current)], current] if current in ids else [*ids, current]
    highest = (0, 0)
    removed = (history.removed[mission],) if mission in history.removed else ()
    for id_ in {*ids[-_LATEST_READ:], *removed}:
        with suppress(FlightbagError):
            envelope = Envelope.parse(repository.evidence.object(id_, ENVELOPE_LIMIT), CONTENT_TYPE, PAYLOAD_LIMIT)
            if count_signers(envelope, chain[0].aad(AAD_LABEL), keys):
                highest = max(highest, Manifest.parse(envelope.payload).issue.order)
    with suppress(FlightbagError):
        name = of_mission(mission)
        envelope, value = parsed(repository.evidence.withdrawal(name), name)
        if count_signers(envelope, chain[0].aad(WITHDRAWAL_LABEL), keys):
            highest = max(highest, value.order)
    return highest


def _later(repository: Repository) -> range:
    return range(2, max(repository.evidence.root_versions(), default=1) + 1)


def next_issue(
    root: TrustRoot,
    last: Opened | None,
    highest: tuple[int, int],
    *,
    now: int,
    valid_from: int | None = None,
    expires_at: int | None = None,
) -> Issue:
    """Return the issue that follows the last one: its sequence is max(highest + 1, now), in unix seconds.

    Each epoch counts from the start, so that a new epoch frees a mission whose sequence was driven up to the highest
    number. Raise Refused if this epoch has reached that number.
    """
    before = highest[1] if highest[0] == root.epoch else 0
    if before == INT_MAX:
        raise Refused(
            f"the mission was issued with the highest possible sequence, {before}",
            remedy="a key was misused: revoke it, and begin a new epoch with `flightbag trust new-epoch`",
            kind="no-sequence",
        )
    return Issue(
        epoch=root.epoch,
        sequence=max(before + 1, now),
        issued_at=now,
        min_root_version=root.version,
        valid_from=valid_from,
        expires_at=expires_at,
        previous=None if last is None else last.manifest_id,
    )


def size_of(manifest: Manifest, signatures: int) -> int:
    """Return the size in bytes of the manifest as an object, with so many signatures."""
    kids = (number.to_bytes(KID_SIZE, "big") for number in range(signatures))
    blanks = tuple(Signature(kid, bytes(SIGNATURE_SIZE)) for kid in kids)
    return len(Envelope(CONTENT_TYPE, manifest.render(), blanks).render())


@dataclass(frozen=True, slots=True)
class Issued:
    """A manifest that was issued, as `issue` says: published as `manifest`, or a draft (None).

    It has `signatures` of the `threshold` required ones, and the code of its payload. `replaced` counts the signatures
    of a draft that this one took the place of.
    """

    manifest: ObjectId | None
    issue: Issue
    signatures: int
    threshold: int
    signing_code: str
    replaced: int = 0


@dataclass(frozen=True, slots=True)
class Draft:
    """A manifest that lacks signatures."""

    manifest: Manifest
    envelope: Envelope

    def opened(self, evidence: Evidence, root: TrustRoot) -> Opened:
        """Return the draft as if it were signed, to be shown and judged, never to be flown. Raise as `read_table`."""
        return self.opened_with(read_table(evidence, self.manifest), root)

    def opened_with(self, table: EntryTable, root: TrustRoot) -> Opened:
        """Return the same with a table that is at hand."""
        data = self.envelope.render()
        return Opened(self.manifest, ObjectId.of(data), len(data), table, root, self.envelope.kids)

    def signatures(self, root: TrustRoot) -> int:
        """Return how many keys of the role mission have signed. Raise Untrusted for any other signature."""
        return count_signatures(self.envelope, root, AAD_LABEL, "mission")


def draft_of(repository: Repository, mission: str) -> Draft:
    """Return the draft of a mission. Raise NotFound if it has none, Corrupt for a damaged draft."""
    try:
        data = repository.media.read(f"{DRAFTS}/{mission}", ENVELOPE_LIMIT)
    except NotFound as error:
        text = f"{repository.media.path} has no draft of mission {mission}"
        other = instead_of(mission, repository.evidence.drafts())
        remedy = f"{other}, or make a draft with `flightbag build`" if other else "`flightbag build` makes a draft"
        raise NotFound(text, remedy=remedy, kind="missing", mission=mission) from error
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
    """Sign a manifest, and publish it if it has enough signatures then; else keep it as a draft.

    With `draft`, its signatures are kept. With `hold` the manifest stays a draft, however many signatures it has, and
    even if it could not fly. `event` is the kind of the log line. The caller holds the lock of the mission (see
    `issuing`). The result is durable on return. Raise Untrusted for a key outside of the role mission, and as
    `Writer.publish` does.
    """
    for signer in signers:
        check_signer(root, signer.public, "mission")
    envelope = Envelope(CONTENT_TYPE, manifest.render()) if draft is None else draft.envelope
    for signer in signers:
        envelope = sign(envelope, signer, root.aad(AAD_LABEL))
    signed = Draft(manifest, envelope)
    replaced = 0
    with suppress(NotFound, Corrupt):
        replaced = 0 if draft else len(draft_of(writer.repository, manifest.mission.id).envelope.signatures)
    count, threshold = signed.signatures(root), root.mission.threshold
    mission, issued, code = manifest.mission.id, manifest.issue, signing_code(envelope)
    if count >= threshold and not hold:
        id_ = writer.publish(mission, envelope.render(), table.render(), event=event)
        writer.drop_draft(mission)
        return Issued(id_, issued, count, threshold, code, replaced)
    if not hold:
        check_fit(writer.repository.evidence, signed.opened_with(table, root), mission)
    if draft is None or envelope != draft.envelope:
        facts = {
            "sequence": issued.sequence,
            "kids": [signature.kid.hex() for signature in envelope.signatures],
            "for": event,
        }
        writer.keep_draft(mission, envelope.render(), table.render(), facts)
    return Issued(None, issued, count, threshold, code, replaced)


def sign_draft(
    repository: Repository, mission: str, approve: Approve, *, now: int, expect: str | None = None
) -> Issued:
    """Add signatures to a mission's draft, and publish it once it has enough. `now` is unix seconds.

    `expect` is the code of the draft that was reviewed (`Opened.signing_code`): another draft raises Refused (kind
    other-code). Before anything is written, raise Untrusted for a key outside of the role mission and for a signature
    in the draft that does not verify, Refused for a draft that was overtaken or could not fly.
    """
    root = repository.trust_root().root
    check_begun(root, now=now)
    with mission_lock(repository, mission, f"the signing of mission {mission}"):
        draft = draft_of(repository, mission)
        if draft.manifest.mission.id != mission:
            text = f"the draft of mission {mission} holds a manifest of mission {draft.manifest.mission.id}"
            raise Corrupt(text, remedy="build the mission again", kind="bad-draft")
        stale = overtaken(repository, draft.manifest, root, now=now)
        if stale:
            raise Refused(
                f"the draft of mission {mission} was overtaken: {stale}",
                remedy="build the mission again, and have the new draft signed",
                kind="stale-draft",
            )
        draft.signatures(root)
        opened = draft.opened(repository.evidence, root)
        check_fit(repository.evidence, opened, mission)
        event = _purpose(repository, draft.manifest)
        review = Review(opened, last_issued(repository, mission), opened)
        signers = reviewed(review, approve, root, expect)
        with writing(repository) as writer:
            return issue(writer, draft.manifest, opened.table, signers, root, draft=draft, event=event)


def reviewed(review: Review, approve: Approve, root: TrustRoot, expect: str | None) -> Sequence[Signer]:
    """Return the signers that `approve` gives. Raise as `Review.require` does for `expect`, and Untrusted for a key
    outside of the role mission."""
    if expect is not None:
        review.require(expect)
    signers = approve(review)
    for signer in signers:
        check_signer(root, signer.public, "mission")
    return signers


def _purpose(repository: Repository, manifest: Manifest) -> str:
    """Return the event that a draft was begun for, by the log: a publication unless it was begun as a rollback."""
    history = LogHistory.of(events(repository.media))
    return history.drafts.get((manifest.mission.id, manifest.issue.sequence), "published")


def discard_draft(repository: Repository, mission: str) -> int:
    """Discard the draft of a mission, also a damaged one. Return how many signatures it had.

    Raise NotFound if the mission has no draft.
    """
    with issuing(repository, mission, f"the draft of mission {mission}") as writer:
        signatures = 0
        with suppress(Corrupt):
            signatures = len(draft_of(repository, mission).envelope.signatures)
        writer.drop_draft(mission)
    return signatures


def overtaken(repository: Repository, manifest: Manifest, root: TrustRoot, *, now: int) -> str:
    """Return why a draft cannot be published: it is not the issue that follows now. Return "" if it is."""
    issued, mission = manifest.issue, manifest.mission.id
    if (issued.epoch, issued.min_root_version) != (root.epoch, root.version):
        return f"it was made under trust root {issued.min_root_version}, and the newest one is {root.version}"
    last = last_issued(repository, mission)
    if issued.previous != (None if last is None else last.manifest_id):
        return "another manifest was published since"
    # A new draft has no signature: one with a sequence far ahead would leave no numbers for later manifests.
    highest = highest_issued(repository, mission)
    following = next_issue(
        root, last, highest, now=issued.issued_at, valid_from=issued.valid_from, expires_at=issued.expires_at
    )
    if issued != following or issued.issued_at > now + SKEW:
        return f"its sequence {issued.sequence} or its time of issue is not the one that follows"
    if issued.expires_at is not None and now > issued.expires_at:
        return f"it expired at {utc(issued.expires_at)}"
    return ""
