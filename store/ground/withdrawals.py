"""Withdrawals on the ground (FORMAT.md 5.5): made, signed by one key after the other, put into effect, carried.

A withdrawal that lacks signatures is a draft, `drafts/<name>`: the envelope that takes effect as `withdrawn/<name>`
once it has them. In effect it grounds what it names wherever it comes; nothing but a later publication, or another
release, flies again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TypeAlias

from store.disk import log
from store.disk.layout import DRAFTS, WITHDRAWN
from store.disk.locks import exclusive
from store.disk.quarantine import present
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Refused, Unavailable, instead_of
from store.format.cose import Envelope
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT, SKEW
from store.format.withdrawal import AAD_LABEL, CONTENT_TYPE, FILE_LIMIT, NAME, Withdrawal, of_release
from store.ground import releases
from store.ground.issuing import highest_issued
from store.ground.repository import Repository, SmallFile
from store.takeoff.withdrawn import check_withdrawal, parsed
from store.trust.keys import Signer, sign
from store.trust.review import digest_of_payload, require_code, signing_code
from store.trust.root import TrustRoot, check_begun, check_signer, count_signatures
from store.values import dataclass


@dataclass(frozen=True, slots=True)
class Pending:
    """A withdrawal with the signatures that it has so far."""

    value: Withdrawal
    envelope: Envelope

    @property
    def signing_code(self) -> str:
        """The code of the payload, by which people name what they review and sign."""
        return signing_code(self.envelope)

    @property
    def what(self) -> str:
        """What is withdrawn, for a message."""
        return f"mission {self.value.mission}" if self.value.mission else f"release {self.value.release.hex()[:12]}"

    def require(self, code: str) -> None:
        """Raise Refused (kind other-code) unless this is its code, Invalid for a text that is not a code."""
        require_code(self.signing_code, code, f"the withdrawal of {self.what}")

    def signatures(self, root: TrustRoot) -> int:
        """Return how many keys of its role have signed. Raise Untrusted for any other signature."""
        return count_signatures(self.envelope, root, AAD_LABEL, self.value.role)

    def check(self, root: TrustRoot) -> None:
        """Raise Untrusted unless it has all signatures that it needs under a trust root."""
        check_withdrawal(self.envelope, self.value, root)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A withdrawal that was signed: in effect, or a draft with `signatures` of the `threshold` required ones.

    `replaced` counts the signatures of an earlier draft that this one took the place of.
    """

    pending: Pending
    in_effect: bool
    signatures: int
    threshold: int
    replaced: int = 0


# Gives the signers of what it is shown, or raises. It is called after everything was read and checked.
Approve: TypeAlias = Callable[[Pending], Sequence[Signer]]


def name_of_release(repository: Repository, name: str) -> str:
    """Return the name of the withdrawal of the release that a store knows by `name`. Raise NotFound, Corrupt."""
    ids = releases.listed(repository)
    if name not in ids:
        text = f"{repository.media.path} has no release {name[:80]}"
        remedy = instead_of(name, sorted(ids)) or "check that this is the right store: it has no release"
        raise NotFound(text, remedy=remedy, kind="missing")
    return of_release(_digest(repository, ids[name]))


def subject_of(name: str) -> str:
    """Return what a withdrawal of this name withdraws, for people."""
    subject, _, kind = name.rpartition(".")
    return f"{kind} {subject[:12] if kind == 'release' else subject[:80]}"


def _digest(repository: Repository, id_: ObjectId) -> bytes:
    return digest_of_payload(releases.parsed(repository.evidence.object(id_, ENVELOPE_LIMIT))[0])


def draft_of(repository: Repository, name: str) -> Pending:
    """Return the draft of a withdrawal. Raise NotFound without one, Corrupt for a damaged one."""
    try:
        data = repository.media.read(f"{DRAFTS}/{name}", FILE_LIMIT)
    except NotFound as error:
        text = f"{repository.media.path} has no draft of a withdrawal of {subject_of(name)}"
        raise NotFound(text, remedy="give --reason, to begin one", kind="missing") from error
    return _stored(repository, DRAFTS, name, data, "discard it with --discard")


def _stored(repository: Repository, folder: str, name: str, data: bytes, remedy: str) -> Pending:
    try:
        return _pending(data, name)
    except Corrupt as error:
        path = repository.media.absolute(f"{folder}/{name}")
        raise error.restated(f"{path}: {error.message}", remedy=remedy) from error


def _pending(data: bytes, name: str) -> Pending:
    envelope, value = parsed(data, name)
    return Pending(value, envelope)


def begin(
    repository: Repository, name: str, approve: Approve, *, reason: str, now: int, expect: str | None = None
) -> Outcome:
    """Withdraw a mission or a release: sign its withdrawal, and put it into effect with enough signatures; else keep it
    as a draft. `name` is that of the withdrawal, `now` unix seconds. The result is durable on return.

    A mission is withdrawn up to the highest sequence that is known here, or that another station can have given by now.
    Raise NotFound for a mission or release that the store does not have, Invalid for a reason that breaks a rule,
    Untrusted for a key outside of the role.
    """
    root = repository.trust_root().root
    check_begun(root, now=now)
    with _locked(repository, name):
        value = _proposed(repository, name, root, reason, now)
        pending = Pending(value, Envelope(CONTENT_TYPE, value.render()))
        replaced = 0
        with suppress(NotFound, Corrupt):
            replaced = len(draft_of(repository, name).envelope.signatures)
        return _signed(repository, pending, approve, root, expect, now=now, replaced=replaced)


def _proposed(repository: Repository, name: str, root: TrustRoot, reason: str, now: int) -> Withdrawal:
    subject, _, kind = name.rpartition(".")
    try:
        if kind == "release":
            value = Withdrawal(reason, now, release=bytes.fromhex(subject))
        else:
            repository.evidence.ref(subject)  # a typing error withdraws nothing
            epoch, sequence = highest_issued(repository, subject)
            upto = max(now, sequence if epoch == root.epoch else 0)
            value = Withdrawal(reason, now, mission=subject, epoch=root.epoch, sequence=upto)
        value.render()
    except (Corrupt, Invalid) as error:  # nothing but the reason was given
        remedy = "give 1 to 200 printable ASCII characters as the reason, without a space at either end"
        raise Invalid(f"the withdrawal breaks the format: {error.message}", remedy=remedy) from error
    return value


def sign_draft(repository: Repository, name: str, approve: Approve, *, now: int, expect: str | None = None) -> Outcome:
    """Add signatures to the draft of a withdrawal, and put it into effect once it has enough.

    Before anything is written, raise NotFound without a draft, Refused for one that is stale, that is not what the code
    `expect` names, or that reaches beyond what is known here and the time `now`, Untrusted for a key outside of the
    role and for a signature that does not verify.
    """
    root = repository.trust_root().root
    check_begun(root, now=now)
    with _locked(repository, name):
        pending = draft_of(repository, name)
        if stale := _stale(repository, pending.value, root, now):
            raise Refused(
                f"the draft of the withdrawal of {pending.what} is stale: {stale}",
                remedy="withdraw it again with --reason, and have that draft signed",
                kind="stale-draft",
            )
        pending.signatures(root)
        return _signed(repository, pending, approve, root, expect, now=now)


def _stale(repository: Repository, value: Withdrawal, root: TrustRoot, now: int) -> str:
    """Return why a draft cannot take effect, "" where it can."""
    if value.issued_at > now + SKEW:
        return "it was begun in the future of this machine's clock"
    if value.release:
        return ""
    highest = highest_issued(repository, value.mission)
    if value.epoch != root.epoch:
        return f"it is of epoch {value.epoch}, and the trust root of epoch {root.epoch}"
    if highest > value.order:
        return f"sequence {highest[1]} was published since, and it reaches up to {value.sequence}"
    if value.sequence > max(now + SKEW, highest[1]):
        return f"it reaches up to sequence {value.sequence}, which nobody has given yet"
    return ""


def _signed(
    repository: Repository,
    pending: Pending,
    approve: Approve,
    root: TrustRoot,
    expect: str | None,
    *,
    now: int,
    replaced: int = 0,
) -> Outcome:
    if expect is not None:
        pending.require(expect)
    signers = approve(pending)
    role, envelope = pending.value.role, pending.envelope
    for signer in signers:
        check_signer(root, signer.public, role)
    for signer in signers:
        envelope = sign(envelope, signer, root.aad(AAD_LABEL))
    signed = Pending(pending.value, envelope)
    count, threshold = signed.signatures(root), root.role(role).threshold
    file = SmallFile(f"{DRAFTS}/{signed.value.name}", envelope.render())
    if count >= threshold:
        _put_into_effect(repository, signed, at=now)
        _drop_draft(repository, signed.value.name)
    elif signers or not present(repository.media, file.name) or replaced:
        kids = [signature.kid.hex() for signature in envelope.signatures]
        repository.append_log(log.Event(now, "signed", {"withdrawal": signed.value.name, "kids": kids}))
        repository.place([file])
    return Outcome(signed, count >= threshold, count, threshold, replaced)


def _put_into_effect(repository: Repository, signed: Pending, *, at: int) -> None:
    """Write the log line, then the file: a line may be ahead of its file, as with refs. The caller has the lock."""
    value = signed.value
    facts = (
        {"mission": value.mission, "epoch": value.epoch, "sequence": value.sequence}
        if value.mission
        else {"release": value.release.hex()}
    )
    repository.append_log(log.Event(at, "withdrawn", facts))
    repository.place([SmallFile(f"{WITHDRAWN}/{value.name}", signed.envelope.render())])


def as_far_as_signed(file: SmallFile, root: TrustRoot) -> SmallFile:
    """Return the file of a draft as that of the withdrawal, if it has all signatures: also a target on which nothing of
    this program runs then has it in effect."""
    name = file.name.removeprefix(f"{DRAFTS}/")
    pending = _pending(file.data, name)
    enough = pending.signatures(root) >= root.role(pending.value.role).threshold
    return SmallFile(f"{WITHDRAWN}/{name}", file.data) if enough else file


def keep_or_put_into_effect(repository: Repository, name: str, data: bytes, root: TrustRoot, *, at: int) -> None:
    """Keep a draft that a sync has brought or joined; with all its signatures it takes effect, unless it is stale. The
    caller has the lock."""
    pending = _pending(data, name)
    enough = pending.signatures(root) >= root.role(pending.value.role).threshold
    if enough and not _stale(repository, pending.value, root, at):
        _put_into_effect(repository, pending, at=at)
        _drop_draft(repository, name)
    else:
        repository.place([SmallFile(f"{DRAFTS}/{name}", data)])


def discard(repository: Repository, name: str) -> int:
    """Discard the draft of a withdrawal, also a damaged one. Return how many signatures it had. Raise NotFound."""
    with _locked(repository, name):
        signatures = 0
        with suppress(Corrupt):
            signatures = len(draft_of(repository, name).envelope.signatures)
        _drop_draft(repository, name)
    return signatures


def _drop_draft(repository: Repository, name: str) -> None:
    if present(repository.media, f"{DRAFTS}/{name}"):
        repository.disk.remove(repository.media.absolute(f"{DRAFTS}/{name}"))
        repository.disk.sync_directory(repository.media.absolute(DRAFTS))


@contextmanager
def _locked(repository: Repository, name: str) -> Iterator[None]:
    """Hold the store's lock, shared, and that of what the name withdraws: nobody publishes the mission meanwhile."""
    if not NAME.fullmatch(name):
        raise Invalid(f"{name[:80]!r} is not the name of a withdrawal", remedy="give the id of a mission")
    with repository.locked(), alone(repository, name):
        yield


def alone(repository: Repository, name: str) -> AbstractContextManager[None]:
    """Hold the lock of what the name withdraws: nobody else signs or publishes it meanwhile."""
    subject, _, kind = name.rpartition(".")
    lock = f"mission-{subject}" if kind == "mission" else "trust"
    return exclusive(repository.media.path, repository.disk, lock, f"the withdrawal {name}", timeout=60)


def names(repository: Repository, folder: str = WITHDRAWN) -> list[str]:
    """Return the names of the withdrawals in a folder of the store, ascending. An audit reports any other name."""
    return [name for name in repository.media.names_if_there(folder) if NAME.fullmatch(name)]


def in_effect(repository: Repository, name: str) -> Pending:
    """Return the withdrawal of this name, whoever signed it. Raise NotFound without one, Corrupt, Unavailable."""
    data = repository.evidence.withdrawal(name)
    return _stored(repository, WITHDRAWN, name, data, "withdraw it again with --reason")


def standing(repository: Repository, name: str, root: TrustRoot) -> Withdrawal | None:
    """Return the withdrawal of this name, None where the store has none. Raise Corrupt, Untrusted or Unavailable for
    one that does not hold under a trust root."""
    try:
        pending = in_effect(repository, name)
    except NotFound:
        return None
    pending.check(root)
    return pending.value


def to_bring(
    source: Repository, target: Repository | None, missions: Sequence[str], root: TrustRoot
) -> tuple[SmallFile, ...]:
    """Return the withdrawals that a sync brings to the target: those that hold under `root`, of releases, of `missions`
    and of what the target has, and that are later than what holds there. Raise Unavailable for one that cannot be read:
    nobody knows what it grounds."""
    theirs = set(missions) | (set() if target is None else set(target.missions()))
    files = []
    for name in names(source):
        if name.endswith(".mission") and name.removesuffix(".mission") not in theirs:
            continue
        try:
            value = standing(source, name, root)
            if value is not None and _is_later(value, target, name, root):
                files.append(SmallFile(f"{WITHDRAWN}/{name}", source.evidence.withdrawal(name)))
        except Unavailable:
            raise
        except FlightbagError:
            continue  # an audit reports it, and it grounds no other store
    return tuple(files)


def _is_later(value: Withdrawal, target: Repository | None, name: str, root: TrustRoot) -> bool:
    """Whether a withdrawal that holds goes into the place of what the target has by now."""
    if target is None:
        return True
    try:
        there = standing(target, name, root)
    except FlightbagError:
        return True
    return there is None or there.order < value.order


def receive(repository: Repository, file: SmallFile, *, at: int) -> None:
    """Put a withdrawal that a sync brings into effect, unless the store has got a later one since it was planned. A
    draft goes that would withdraw no more than that."""
    name = file.name.removeprefix(f"{WITHDRAWN}/")
    with alone(repository, name):
        pending = _pending(file.data, name)
        if _is_later(pending.value, repository, name, repository.trust_root().root):
            _put_into_effect(repository, pending, at=at)
        with suppress(NotFound, Corrupt):
            if draft_of(repository, name).value.order <= pending.value.order:
                _drop_draft(repository, name)
