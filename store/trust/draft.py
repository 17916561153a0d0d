"""Drafts of trust roots (FORMAT.md 5): the next root is edited, signed by one operator after the other, and completed.

A draft is a file that is carried between machines that never meet. It holds the root that it follows, so each signer
sees the changes and may refuse them, and needs no store (decision 0009). A draft vouches for nothing: the root that it
becomes is verified like any other root, from a pinned root.

Pure: bytes come in and go out. `store.ground` puts a finished root into effect.

Law: `RootDraft.parse(d.render()) == d`, and only canonical bytes parse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from store.errors import Conflict, Corrupt, Invalid, Untrusted
from store.format.cbor import INT_MAX, decode, encode
from store.format.cose import MAX_SIGNATURES, Envelope
from store.trust.key_file import check_name
from store.trust.keys import PublicKey, Signer, sign
from store.trust.review import require_code, signing_code
from store.trust.root import (
    AAD_LABEL,
    CONTENT_TYPE,
    DOMAIN_NAME,
    ROLES,
    ROOT_FILE_LIMIT,
    ROOT_LIMIT,
    Role,
    RoleName,
    SignedRoot,
    TrustRoot,
    check_continues,
    signatures_of_step,
)
from store.values import dataclass, replace

if TYPE_CHECKING:
    from typing_extensions import Self

MAGIC = "flightbag/root-draft/1"
DRAFT_LIMIT = 2 * ROOT_FILE_LIMIT + 64
# The fields that no edit changes: they give the place of the root in its chain.
_FIXED = ("version", "domain", "salt", "parent_domain", "previous")


@dataclass(frozen=True, slots=True)
class SignatureCount:
    """The number of signatures by the root keys of root `version`, and the number that this root needs."""

    version: int
    have: int
    threshold: int

    @property
    def enough(self) -> bool:
        """Whether the threshold is met."""
        return self.have >= self.threshold


@dataclass(frozen=True, slots=True)
class RootDraft:
    """A root that may lack signatures, its envelope, and the root `before` that it follows (None for root 1)."""

    before: SignedRoot | None
    root: TrustRoot
    envelope: Envelope

    @classmethod
    def of(cls, before: SignedRoot | None, root: TrustRoot) -> Self:
        """Return a draft without signatures.

        Raises Invalid for a root that breaks a rule or may not follow `before`.
        """
        try:
            payload = root.render()
            if before is not None:
                check_continues(before.root, root)
                _check_signable(before.root, root)
        except (Corrupt, Untrusted) as error:  # nothing was read: the input of the caller breaks a rule
            text = f"the draft cannot become a trust root: {error.message}"
            raise Invalid(text, remedy=error.remedy, kind=error.kind) from error
        return cls(before, root, Envelope(CONTENT_TYPE, payload))

    @classmethod
    def after(cls, before: SignedRoot, *, now: int) -> Self:
        """Return the draft of the root that follows `before`, without changes. `now` is unix seconds."""
        old = before.root
        follows = replace(old, version=old.version + 1, parent_domain=old.domain_id, previous=old.digest)
        return cls.of(before, replace(follows, issued_at=now))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the draft of canonical bytes, all of whose signatures are good. Raises Corrupt or Untrusted."""
        value = decode(data, limit=DRAFT_LIMIT, what="the draft of a root")
        if type(value) is not list or [type(part) for part in value] != [str, bytes, bytes] or value[0] != MAGIC:
            raise Corrupt("the data is not the draft of a trust root", kind="bad-draft")
        _, old, new = value
        before = SignedRoot.parse(old) if old else None
        envelope = Envelope.parse(new, CONTENT_TYPE, ROOT_LIMIT)
        root = TrustRoot.parse(envelope.payload)
        if before is not None:
            check_continues(before.root, root)
        elif root.version != 1:
            raise Corrupt(f"the draft of root {root.version} lacks the root before it", kind="bad-draft")
        draft = cls(before, root, envelope)
        draft.signatures()
        return draft

    def render(self) -> bytes:
        """Return the canonical bytes."""
        before = b"" if self.before is None else self.before.envelope.render()
        return encode([MAGIC, before, self.envelope.render()])

    def with_fields(self, **fields: Any) -> Self:
        """Return the draft with other fields and without signatures, which were for the old fields. Raises Invalid.

        Where a root has no room for the names of revoked keys, these names go: none stands in the way of a key.
        """
        assert not set(fields) & set(_FIXED)
        root = replace(self.root, **fields)
        if root == self.root:
            return self
        try:
            return self.of(self.before, root)
        except Invalid as error:
            names = tuple(item for item in root.names if item[0] not in root.revoked)
            if error.kind != "too-large" or names == root.names:
                raise
            return self.of(self.before, replace(root, names=names))

    def signatures(self) -> tuple[SignatureCount, ...]:
        """Return the counts by the root before, if there is one, and by the draft itself. Raises Untrusted."""
        old = None if self.before is None else self.before.root
        counts = signatures_of_step(old, self.root, self.envelope)
        versions = ([] if old is None else [old.version]) + [self.root.version]
        return tuple(SignatureCount(version, *count) for version, count in zip(versions, counts, strict=True))

    @property
    def code(self) -> str:
        """The code of the root (FORMAT.md 10.3), by which people name what they review and sign."""
        return signing_code(self.envelope)

    def require(self, code: str) -> None:
        """Raise Refused (kind other-code) unless this is the code of the draft, Invalid for what is not a code."""
        require_code(self.code, code, f"the draft of trust root {self.root.version}")

    def with_signature(self, signer: Signer) -> Self:
        """Return the draft with one more signature. Raises Untrusted unless the key is a root key, old or new."""
        roots = [self.root] if self.before is None else [self.before.root, self.root]
        name = self.root.key_text(signer.public.kid)
        if any(signer.public in root.revoked for root in roots):
            # Also a key that this draft revokes: nobody may depend on a key that is lost.
            raise Untrusted(f"the key {name} is revoked", remedy="sign with another key", kind="revoked-key")
        if not any(signer.public in root.root.keys for root in roots):
            raise Untrusted(
                f"the key {name} is a root key of neither the old nor the new trust root",
                remedy="sign with a root key; `flightbag trust show` lists them",
                kind="unknown-signer",
            )
        return replace(self, envelope=sign(self.envelope, signer, self.root.aad(AAD_LABEL)))

    def joined(self, other: RootDraft) -> Self:
        """Return the draft with the signatures that another copy of it got. Raises Conflict for another draft."""
        if (self.before, self.envelope.payload) != (other.before, other.envelope.payload):
            raise Conflict(
                f"they are two drafts: of trust root {self.root.version} with the code {self.code}, and of trust root "
                f"{other.root.version} with the code {other.code}",
                remedy="decide for one of them, and have that one signed by everybody",
                kind="other-draft",
            )
        return replace(self, envelope=self.envelope.joined(other.envelope))

    def signed_root(self) -> SignedRoot:
        """Return the signed root. Raises Untrusted (kind threshold) unless both thresholds are met."""
        lacking = [one for one in self.signatures() if not one.enough]
        if lacking:
            raise Untrusted(
                "the draft lacks signatures: "
                + ", ".join(
                    f"{one.have} of {one.threshold} by root keys of trust root {one.version}" for one in lacking
                ),
                remedy="carry the draft to another holder of a root key: `flightbag trust sign FILE --key KEY`",
                kind="threshold",
                expected=lacking[0].threshold,
                actual=lacking[0].have,
            )
        return SignedRoot.parse(self.envelope.render())


def _check_signable(old: TrustRoot, new: TrustRoot) -> None:
    """Raise Invalid for a draft that can never have the signatures that it needs."""
    remaining = set(old.root.keys) - set(new.revoked)
    if len(remaining) < old.root.threshold:
        raise Invalid(
            f"trust root {old.version} needs {old.root.threshold} signatures, but {len(remaining)} of its keys remain",
            remedy="take the key out of the role with remove-key now, and revoke it in the root after this one",
        )
    both = len(remaining & set(new.root.keys))
    least = old.root.threshold + new.root.threshold - min(both, old.root.threshold, new.root.threshold)
    if least > MAX_SIGNATURES:
        raise Invalid(
            f"the draft needs {least} signatures, but an envelope has room for {MAX_SIGNATURES}",
            remedy="change fewer root keys at once, or lower the threshold first",
        )


def founding(
    domain: str,
    *,
    keys: Mapping[RoleName, Iterable[PublicKey]],
    thresholds: Mapping[RoleName, int],
    issued_at: int,
    salt: bytes,
    names: Mapping[PublicKey, str] | None = None,
) -> RootDraft:
    """Return the draft of root 1 of a new trust domain. A role without a threshold needs one signature.

    `salt` is 16 random bytes, which make the domain different from every other one (decision 0004); `issued_at` is unix
    seconds. Raises Invalid for a root that breaks a rule, Untrusted for a weak key.
    """
    if not DOMAIN_NAME.fullmatch(domain):
        raise Invalid(f"{domain!r} is not a domain name", remedy="give 1 to 64 letters, digits, spaces and . _ -")
    roles = {
        name: Role(tuple(sorted({key.require_enrollable() for key in keys.get(name, ())})), thresholds.get(name, 1))
        for name in ROLES
    }
    for name, role in roles.items():
        if not role.can_be_met and (name in ("root", "mission") or name in thresholds):
            text = f"the role {name} needs {role.threshold} signatures, but has {len(role.keys)} keys"
            raise Invalid(text, remedy="give more keys of this role, or a lower threshold")
    root, mission, release, builder = roles["root"], roles["mission"], roles["release"], roles["builder"]
    draft = RootDraft.of(None, TrustRoot(1, domain, 1, issued_at, salt, root, mission, release, builder))
    for key, called in (names or {}).items():
        draft = with_name(draft, key, called)
    return draft


def with_key(draft: RootDraft, role_name: RoleName, key: PublicKey, name: str = "") -> RootDraft:
    """Return the draft with one more key in a role, and with a name for it unless that is "".

    Raises Untrusted for a weak or revoked key, Invalid for one in it that is to have no other name.
    """
    text = draft.root.key_text(key.kid)
    if key in draft.root.revoked:
        raise Untrusted(f"the key {text} is revoked, and stays so", remedy="make a new key", kind="revoked-key")
    role = draft.root.role(role_name)
    if key in role.keys and name in ("", draft.root.name_of(key.kid)):
        remedy = "give another key, or another name with --name"
        raise Invalid(f"the key {text} is already in the role {role_name}", remedy=remedy)
    keys = tuple(sorted({*role.keys, key.require_enrollable()}))
    draft = draft.with_fields(**{role_name: replace(role, keys=keys)})
    return with_name(draft, key, name) if name else draft


def with_name(draft: RootDraft, key: PublicKey, name: str) -> RootDraft:
    """Return the draft with a name for a key. Raises Invalid for what is no name, and for the name of another key."""
    check_name(name)
    names = {**dict(draft.root.names), key: name}
    for other, taken in names.items():
        if taken == name and other != key:
            text = f"{name} is already the name of the key {other.kid.hex()[:12]}"
            raise Invalid(text, remedy="give this key another one with --name: a name is of one key, revoked ones too")
    return draft.with_fields(names=tuple(sorted(names.items())))


def without_key(draft: RootDraft, name: RoleName, key: PublicKey) -> RootDraft:
    """Return the draft with one key less in a role.

    Its name goes with the last role that it is in. Raises Invalid where the key is not in it, or too few would remain.
    """
    role = draft.root.role(name)
    if key not in role.keys:
        text = f"the key {draft.root.key_text(key.kid)} is not in the role {name}"
        raise Invalid(text, remedy="`flightbag trust show` lists the keys of each role")
    elsewhere = any(key in draft.root.role(other).keys for other in ROLES if other != name)
    names = draft.root.names if elsewhere else tuple(item for item in draft.root.names if item[0] != key)
    return _fewer(draft, names=names, **{name: replace(role, keys=tuple(one for one in role.keys if one != key))})


def with_revoked(draft: RootDraft, key: PublicKey) -> RootDraft:
    """Return the draft with one more revoked key, which leaves every role and never counts again. Raises Invalid."""
    if key in draft.root.revoked:
        raise Invalid(f"the key {draft.root.key_text(key.kid)} is already revoked", remedy="nothing is to be done")
    roles = {
        name: replace(role, keys=tuple(one for one in role.keys if one != key))
        for name in ROLES
        if key in (role := draft.root.role(name)).keys
    }
    return _fewer(draft, revoked=tuple(sorted((*draft.root.revoked, key))), **roles)


def _fewer(draft: RootDraft, **fields: Any) -> RootDraft:
    try:
        return draft.with_fields(**fields)
    except Invalid as error:
        remedy = error.remedy or "add the key that replaces it first, or lower the threshold"
        raise error.restated(error.message, remedy=remedy) from error


def with_threshold(draft: RootDraft, name: RoleName, number: int) -> RootDraft:
    """Return the draft with another threshold of a role. Raises Invalid for more than the role has keys."""
    return draft.with_fields(**{name: replace(draft.root.role(name), threshold=number)})


def with_new_epoch(draft: RootDraft) -> RootDraft:
    """Return the draft with a new epoch, which ends every mission of the epochs before.

    Raises Invalid where the draft begins an epoch already, or follows no root.
    """
    old = None if draft.before is None else draft.before.root.epoch
    if old is None or draft.root.epoch > old or old == INT_MAX:
        text = f"the draft is of epoch {draft.root.epoch}; a root begins at most one epoch"
        raise Invalid(text, remedy="sign the draft as it is, and put it into effect first")
    return draft.with_fields(epoch=old + 1)


def complete(draft: RootDraft, newest: SignedRoot | None) -> SignedRoot:
    """Return the signed root of a draft that follows `newest`, the newest root of the store (None: it has none).

    Raises Conflict (kind stale-draft) where the draft follows another root, Untrusted where signatures are missing.
    """
    require_follows(draft, newest)
    return draft.signed_root()


def require_follows(draft: RootDraft, newest: SignedRoot | None) -> None:
    """Raise Conflict (kind stale-draft) unless the draft follows `newest`, the newest root of the store."""
    expected = None if draft.before is None else draft.before.root.digest
    actual = None if newest is None else newest.root.digest
    if expected != actual:
        state = "has none" if newest is None else f"has trust root {newest.root.version}"
        what = "is root 1 of its domain" if draft.before is None else f"follows trust root {draft.before.root.version}"
        raise Conflict(
            f"the draft {what}, but the store {state}, or another root of that version",
            remedy="make the change again in a new draft",
            kind="stale-draft",
        )
