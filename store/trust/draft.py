"""The next trust root while it is being agreed on: edited, signed one operator at a time, and complete in the end.

A draft is a file to carry between machines that never meet. It holds the root that it follows, so that whoever signs
sees what changes and may refuse, and nobody needs a store for it. Pure: bytes come in and go out.

A draft vouches for nothing: what it becomes is judged like any root, from what the judge has pinned.

Law: `RootDraft.parse(d.render()) == d`, and only canonical bytes parse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from store.errors import Conflict, Corrupt, Invalid, Untrusted
from store.format.cbor import INT_MAX, decode, encode
from store.format.cose import MAX_SIGNATURES, Envelope
from store.trust.keys import PublicKey, Signer, sign
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

MAGIC = "flightbag/root-draft/1"
DRAFT_LIMIT = 2 * ROOT_FILE_LIMIT + 64
# What an edit cannot touch: it says where the root stands in its chain.
_FIXED = ("version", "domain", "salt", "parent_domain", "previous")


@dataclass(frozen=True, slots=True)
class Signatures:
    """How many have signed for a root (`before` the draft's, or its own), and how many it takes."""

    version: int
    have: int
    threshold: int

    @property
    def enough(self) -> bool:
        return self.have >= self.threshold


@dataclass(frozen=True, slots=True)
class RootDraft:
    """A root that may lack signatures, and the root that it follows (None for root 1)."""

    before: SignedRoot | None
    root: TrustRoot
    envelope: Envelope

    @classmethod
    def of(cls, before: SignedRoot | None, root: TrustRoot) -> Self:
        """A draft that nobody has signed. Raises Invalid for what can be no root, or cannot follow."""
        try:
            payload = root.render()
            if before is not None:
                check_continues(before.root, root)
                _check_signable(before.root, root)
        except (Corrupt, Untrusted) as error:  # nothing was read: it is what was asked for that breaks a rule
            raise Invalid(f"this cannot be a trust root: {error.message}") from error
        return cls(before, root, Envelope(CONTENT_TYPE, payload))

    @classmethod
    def after(cls, before: SignedRoot, *, now: int) -> Self:
        """The root that follows, with nothing changed yet. `now` is unix seconds."""
        old = before.root
        follows = replace(old, version=old.version + 1, parent_domain=old.domain_id, previous=old.digest)
        return cls.of(before, replace(follows, issued_at=now))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The draft of canonical bytes, all of whose signatures are good. Raises Corrupt or Untrusted."""
        value = decode(data, limit=DRAFT_LIMIT, what="the draft of a root")
        if type(value) is not list or [type(part) for part in value] != [str, bytes, bytes] or value[0] != MAGIC:
            raise Corrupt("this is no draft of a trust root", kind="bad-draft")
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
        before = b"" if self.before is None else self.before.envelope.render()
        return encode([MAGIC, before, self.envelope.render()])

    def with_fields(self, **fields: Any) -> Self:
        """The draft with other fields; the signatures are gone, as they were for something else. Raises Invalid."""
        assert not set(fields) & set(_FIXED)
        if replace(self.root, **fields) == self.root:
            return self
        return self.of(self.before, replace(self.root, **fields))

    def signatures(self) -> tuple[Signatures, ...]:
        """By the root before, if there is one, and by the draft itself. Raises Untrusted for a bad signature."""
        old = None if self.before is None else self.before.root
        counts = signatures_of_step(old, self.root, self.envelope)
        versions = ([] if old is None else [old.version]) + [self.root.version]
        return tuple(Signatures(version, *count) for version, count in zip(versions, counts, strict=True))

    def with_signature(self, signer: Signer) -> Self:
        """The draft with one more signature. Raises Untrusted for a key that is no root key, old or new."""
        roots = [self.root] if self.before is None else [self.before.root, self.root]
        name = signer.public.kid.hex()[:16]
        if any(signer.public in root.revoked for root in roots):
            # Also one that is being revoked right now: who has lost it must not need it.
            raise Untrusted(f"the key {name} is revoked", remedy="sign with another key", kind="revoked-key")
        if not any(signer.public in root.root.keys for root in roots):
            raise Untrusted(
                f"the key {name} is in the role root of neither the old nor the new trust root",
                remedy="sign with a root key; `flightbag trust show` lists them",
                kind="unknown-signer",
            )
        return replace(self, envelope=sign(self.envelope, signer, self.root.aad(AAD_LABEL)))

    def signed_root(self) -> SignedRoot:
        """The root, once both thresholds are met. Raises Untrusted with how many signatures are missing."""
        lacking = [one for one in self.signatures() if not one.enough]
        if lacking:
            raise Untrusted(
                "the draft lacks signatures: "
                + ", ".join(f"{one.have} of {one.threshold} by the keys of root {one.version}" for one in lacking),
                remedy="carry the file to another root holder: flightbag trust sign FILE --key KEY",
                kind="threshold",
                expected=lacking[0].threshold,
                actual=lacking[0].have,
            )
        return SignedRoot.parse(self.envelope.render())


def _check_signable(old: TrustRoot, new: TrustRoot) -> None:
    """Raises Invalid for a draft that can never have its signatures."""
    left = set(old.root.keys) - set(new.revoked)
    if len(left) < old.root.threshold:
        raise Invalid(
            f"root {old.version} takes {old.root.threshold} signatures, and {len(left)} of its keys would be left",
            remedy="take the key out of the role with remove-key now, and revoke it in the root after this",
        )
    both = len(left & set(new.root.keys))
    least = old.root.threshold + new.root.threshold - min(both, old.root.threshold, new.root.threshold)
    if least > MAX_SIGNATURES:
        raise Invalid(
            f"the draft takes {least} signatures, an envelope has room for {MAX_SIGNATURES}",
            remedy="change fewer root keys at once, or lower the threshold first",
        )


def founding(
    domain: str,
    *,
    keys: Mapping[RoleName, Iterable[PublicKey]],
    thresholds: Mapping[RoleName, int],
    issued_at: int,
    salt: bytes,
) -> RootDraft:
    """The draft of root 1 of a new trust domain. A role without a threshold takes one signature.

    `salt` is 16 random bytes, which make this domain another one than any that was ever made. Raises Invalid for what
    can be no root, Untrusted for a weak key.
    """
    if not DOMAIN_NAME.fullmatch(domain):
        raise Invalid(f"{domain!r} is no domain name", remedy="1 to 64 letters, digits, spaces and . _ -")
    roles = {
        name: Role(tuple(sorted({key.require_enrollable() for key in keys.get(name, ())})), thresholds.get(name, 1))
        for name in ROLES
    }
    for name, role in roles.items():
        if not role.can_be_met and (name != "release" or name in thresholds):
            raise Invalid(f"the threshold of {name} is {role.threshold}, but it has {len(role.keys)} keys")
    root, mission, release = roles["root"], roles["mission"], roles["release"]
    return RootDraft.of(None, TrustRoot(1, domain, 1, issued_at, salt, root, mission, release))


def with_key(draft: RootDraft, name: RoleName, key: PublicKey) -> RootDraft:
    """Adds a key to a role. Raises Untrusted for a weak or revoked key, Invalid for one that is there."""
    if key in draft.root.revoked:
        raise Untrusted("a revoked key stays revoked", remedy="make a new key", kind="revoked-key")
    role = draft.root.role(name)
    if key in role.keys:
        raise Invalid(f"the key {key.kid.hex()[:16]} is in the role {name} already")
    return draft.with_fields(**{name: replace(role, keys=tuple(sorted((*role.keys, key.require_enrollable()))))})


def without_key(draft: RootDraft, name: RoleName, key: PublicKey) -> RootDraft:
    """Takes a key out of a role. Raises Invalid where it is not in it, or where too few would be left."""
    role = draft.root.role(name)
    if key not in role.keys:
        raise Invalid(f"the key {key.kid.hex()[:16]} is not in the role {name}")
    return _fewer(draft, **{name: replace(role, keys=tuple(one for one in role.keys if one != key))})


def with_revoked(draft: RootDraft, key: PublicKey) -> RootDraft:
    """Revokes a key: it leaves every role, and never counts again."""
    if key in draft.root.revoked:
        raise Invalid(f"the key {key.kid.hex()[:16]} is revoked already")
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
        raise Invalid(error.message, remedy=remedy) from error


def with_threshold(draft: RootDraft, name: RoleName, number: int) -> RootDraft:
    """Sets how many keys of a role it takes. Raises Invalid for more than it has."""
    return draft.with_fields(**{name: replace(draft.root.role(name), threshold=number)})


def with_new_epoch(draft: RootDraft) -> RootDraft:
    """Ends everything that was signed in the epoch of the root before. Raises Invalid where that is done already."""
    old = None if draft.before is None else draft.before.root.epoch
    if old is None or draft.root.epoch > old or old == INT_MAX:
        raise Invalid(f"the draft is of epoch {draft.root.epoch}; one root begins one epoch")
    return draft.with_fields(epoch=old + 1)


def complete(draft: RootDraft, newest: SignedRoot | None) -> SignedRoot:
    """The finished root, which follows the newest of the store at hand. Raises Conflict where it follows another."""
    mine = None if draft.before is None else draft.before.root.digest
    theirs = None if newest is None else newest.root.digest
    if mine != theirs:
        is_ = "has none" if newest is None else f"has root {newest.root.version}"
        what = "is the first of its domain" if draft.before is None else f"follows root {draft.before.root.version}"
        raise Conflict(
            f"the draft {what}, and the store {is_}, or another one of that version",
            remedy="make the change anew, in a new draft",
            kind="stale-draft",
        )
    return draft.signed_root()
