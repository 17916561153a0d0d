"""Trust roots (FORMAT.md 5): versioned, threshold-signed statements of who may sign what, and the chain between them.

Verification starts from a pinned root, which the caller got by other means than the store. A chain can only move it
forward, one version at a time, each step signed by the thresholds of the old and of the new root. The trust domain id
is the hash of the payload of root 1 and part of everything that is signed, so no signature counts in two domains
(decision 0004).

Pure: this module reads neither the folder `trust/` nor a clock; `takeoff.evidence` reads the files.

Law: `TrustRoot.parse(r.render()) == r`, and only canonical bytes of a valid root parse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from store.errors import Corrupt, Refused, Untrusted
from store.format.cbor import INT_MAX, Fields, Value, ascending, decode, encode
from store.format.cose import OVERHEAD_LIMIT, Envelope
from store.format.duration import duration_text
from store.format.ids import derive
from store.format.manifest import SKEW, TIME_MAX, utc
from store.trust.key_file import KEY_NAME
from store.trust.keys import PublicKey
from store.values import dataclass, field

CONTENT_TYPE = "application/vnd.flightbag.root+cbor"
AAD_LABEL = "flightbag/root/1"
ROOT_LIMIT = 64 * 2**10
ROOT_FILE_LIMIT = ROOT_LIMIT + OVERHEAD_LIMIT
MAX_STEPS = 32
FORMAT = 1
SALT_SIZE = 16
MAX_KEYS = 64
DOMAIN_CONTEXT = "flightbag 2026 trust root v1"
# As many as there can be keys: of four roles, and revoked ones.
MAX_NAMES = 4 * MAX_KEYS + 1024
DOMAIN_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?")
RoleName = Literal["mission", "release", "builder", "root"]
ROLES: tuple[RoleName, ...] = get_args(RoleName)


@dataclass(frozen=True, slots=True)
class Role:
    """The keys that may sign in a role, ascending, and the number of signatures that the role needs."""

    keys: tuple[PublicKey, ...]
    threshold: int

    def value(self) -> Value:
        """Return the map as it is encoded in the payload."""
        return {"keys": [key.raw for key in self.keys], "threshold": self.threshold}

    @classmethod
    def parse(cls, fields: Fields, where: str) -> Role:
        """Return the role of a decoded map. Raises Corrupt, which names the field `where`, for any other map."""
        keys = _keys(fields.array("keys", 0, MAX_KEYS), where)
        for key in keys:
            if not key.is_enrollable:
                text = f"{where} lists the key {key.raw.hex()}, which is not a canonical point of prime order"
                raise Corrupt(text, kind="bad-field", field=where)
        role = cls(keys, fields.integer("threshold", 1, 8))
        fields.end()
        return role

    @property
    def can_be_met(self) -> bool:
        """Whether the role has at least as many keys as its threshold."""
        return len(self.keys) >= self.threshold


# What a trust root without the role `builder` has in its place.
NOBODY = Role((), 1)


@dataclass(frozen=True, slots=True)
class TrustRoot:
    """The payload of a trust root.

    `parent_domain` (the domain id) and `previous` (the digest of the root before) are None only in version 1. A key in
    `revoked` counts for nothing in any role and stays revoked. `salt` is random in root 1 and the same in later roots:
    it makes two domains different that have the same name and keys and were made in the same second. `releases` is
    `required` where engines and indexes need a release, else `optional`. `builder` are the keys of devices that make
    engines (decision 0024), NOBODY where there are none: such a key is in no other role. Manifests from before
    `issued_after` (unix seconds) do not count. Lifetimes are in seconds: `max_lifetime` is the longest of a manifest,
    from its issue to its expiry, None where it may never expire; a build gives `default_lifetime` to a mission without
    an end.
    """

    version: int
    domain: str
    epoch: int
    issued_at: int
    salt: bytes
    root: Role
    mission: Role
    release: Role
    builder: Role = NOBODY
    releases: str = "optional"
    revoked: tuple[PublicKey, ...] = ()
    issued_after: int | None = None
    default_lifetime: int | None = None
    max_lifetime: int | None = None
    parent_domain: bytes | None = None
    previous: bytes | None = None
    names: tuple[tuple[PublicKey, str], ...] = ()

    def render(self) -> bytes:
        """Return the canonical payload. Raises Corrupt where the value breaks a rule of the format."""
        given = {name: self.role(name) for name in ROLES if name != "builder" or self.builder != NOBODY}
        value: dict[str, Value] = {
            "format": FORMAT,
            "version": self.version,
            "domain": self.domain,
            "epoch": self.epoch,
            "issued_at": self.issued_at,
            "salt": self.salt,
            "roles": {name: role.value() for name, role in given.items()},
            "releases": self.releases,
            "revoked": [key.raw for key in self.revoked],
        }
        if self.issued_after is not None:
            value["issued_after"] = self.issued_after
        if self.default_lifetime is not None:
            value["default_lifetime"] = self.default_lifetime
        if self.max_lifetime is not None:
            value["max_lifetime"] = self.max_lifetime
        if self.parent_domain is not None:
            value["domain_id"] = self.parent_domain
        if self.previous is not None:
            value["previous"] = self.previous
        if self.names:
            value["names"] = [[key.raw, name] for key, name in self.names]
        data = encode(value)
        self.parse(data)
        return data

    @property
    def digest(self) -> bytes:
        """The digest of the payload: 32 bytes."""
        return derive(DOMAIN_CONTEXT, self.render())

    @property
    def domain_id(self) -> bytes:
        """The trust domain id: the digest of the payload of root 1."""
        return self.digest if self.parent_domain is None else self.parent_domain

    def role(self, name: RoleName) -> Role:
        """Return the role of this name."""
        roles = {"mission": self.mission, "release": self.release, "builder": self.builder, "root": self.root}
        return roles[name]

    def name_of(self, kid: bytes) -> str:
        """Return the name of the key with this kid, "" where it has none."""
        return next((name for key, name in self.names if key.kid == kid), "")

    def key_text(self, kid: bytes) -> str:
        """Return what messages call the key with this kid: the first digits, and its name where it has one."""
        name = self.name_of(kid)
        return kid.hex()[:12] + (f" ({name})" if name else "")

    def aad(self, label: str) -> bytes:
        """Return the external_aad of everything that is signed in this domain: CBOR [label, domain id]."""
        return encode([label, self.domain_id])

    @classmethod
    def parse(cls, data: bytes) -> TrustRoot:
        """Return the root of a canonical payload; raises Corrupt for any other bytes."""
        fields = Fields(decode(data, limit=ROOT_LIMIT, what="the trust root"), "root")
        fields.integer("format", FORMAT, FORMAT)
        version = fields.integer("version", 1, INT_MAX)
        roles = fields.fields("roles")
        later, builders = version > 1, "builder" in roles
        root = cls(
            version=version,
            domain=fields.text("domain", DOMAIN_NAME),
            epoch=fields.integer("epoch", 1, INT_MAX),
            issued_at=fields.integer("issued_at", 0, TIME_MAX),
            salt=fields.binary("salt", SALT_SIZE),
            root=Role.parse(roles.fields("root"), "root.roles.root"),
            mission=Role.parse(roles.fields("mission"), "root.roles.mission"),
            release=Role.parse(roles.fields("release"), "root.roles.release"),
            builder=Role.parse(roles.fields("builder"), "root.roles.builder") if builders else NOBODY,
            releases=fields.choice("releases", ("optional", "required")),
            revoked=_keys(fields.array("revoked", 0, 1024), "root.revoked"),
            issued_after=fields.integer("issued_after", 0, TIME_MAX) if "issued_after" in fields else None,
            default_lifetime=_lifetime(fields, "default_lifetime"),
            max_lifetime=_lifetime(fields, "max_lifetime"),
            parent_domain=fields.binary("domain_id", 32) if later else None,
            previous=fields.binary("previous", 32) if later else None,
            names=_names(fields.array("names", 1, MAX_NAMES)) if "names" in fields else (),
        )
        required: list[RoleName] = ["root", "mission"]
        required += ["release"] if root.releases == "required" else []
        required += ["builder"] if builders else []
        roles.end()
        fields.end()
        for name in required:
            role = root.role(name)
            if not role.can_be_met:
                text = f"the role {name} needs {role.threshold} signatures, but has {len(role.keys)} keys"
                raise Corrupt(text, kind="bad-field", field=f"root.roles.{name}")
        if set(root.release.keys) & set(root.mission.keys):
            raise Corrupt("a key is in both of the roles release and mission", kind="bad-field", field="root.roles")
        if set(root.builder.keys) & {*root.root.keys, *root.mission.keys, *root.release.keys}:
            remedy = "make a key of its own for the device"
            text = "a key of the role builder is in another role too"
            raise Corrupt(text, remedy=remedy, kind="bad-field", field="root.roles")
        if root.max_lifetime is not None and (root.default_lifetime or 0) > root.max_lifetime:
            text = (
                f"root.default_lifetime is {duration_text(root.default_lifetime or 0)}, more than root.max_lifetime, "
                f"{duration_text(root.max_lifetime)}"
            )
            remedy = "set the default to less, or to none, before the maximum"
            raise Corrupt(text, remedy=remedy, kind="bad-field", field="root.default_lifetime")
        role_keys = {key for name in ROLES for key in root.role(name).keys}
        if role_keys & set(root.revoked):
            raise Corrupt("a revoked key is in a role", kind="bad-field", field="root.roles")
        if not {key for key, _ in root.names} <= role_keys | set(root.revoked):
            text = "root.names names a key that is in no role and not revoked"
            raise Corrupt(text, kind="bad-field", field="root.names")
        return root


@dataclass(frozen=True, slots=True)
class SignedRoot:
    """A trust root with its envelope, signed by at least its own threshold."""

    root: TrustRoot
    envelope: Envelope = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> SignedRoot:
        """Return the root of a root file: canonical, every known signature good, and its own threshold met.

        That suffices for a *pinned* root. It does not make a root trusted that came with a store: see `advance`. Raises
        Corrupt for other bytes, Untrusted (kind threshold or bad-signature) for its signatures. Signatures of unknown
        keys count for nothing in a root after the first (they may be of keys of the root before), and in root 1 they
        raise Untrusted (kind unknown-signer).
        """
        envelope = Envelope.parse(data, CONTENT_TYPE, ROOT_LIMIT)
        signed = cls(TrustRoot.parse(envelope.payload), envelope)
        later = signed.root.version > 1
        count = count_signers(envelope, signed.root.aad(AAD_LABEL), signed.root.root.keys, ignore_unknown=later)
        _require(count, signed.root.root.threshold, f"trust root {signed.root.version}", "its own root keys")
        return signed


def advance(pinned: SignedRoot, chain: Sequence[bytes]) -> SignedRoot:
    """Return the newest root that `chain` leads to: the root files of the versions after the pinned one, in order.

    Each step moves the version by exactly one, stays in the domain with its label and salt, names the digest of the
    root before, is signed by the thresholds of both roots, takes back no revocation and no epoch. A step that breaks a
    rule raises Untrusted or Corrupt: a chain is never followed in part.
    """
    if len(chain) > MAX_STEPS:
        raise Untrusted(f"the trust chain has more than {MAX_STEPS} steps", kind="bad-trust-chain")
    current = pinned
    for data in chain:
        step = SignedRoot.parse(data)
        check_continues(current.root, step.root)
        counts = signatures_of_step(current.root, step.root, step.envelope)
        for root, (count, threshold) in zip((current.root, step.root), counts, strict=True):
            _require(count, threshold, f"trust root {step.root.version}", f"root keys of trust root {root.version}")
        current = step
    return current


def check_continues(old: TrustRoot, new: TrustRoot) -> None:
    """Raise Untrusted (kind bad-trust-chain) unless `new` may follow `old`. Signatures are not checked."""
    what = f"trust root {new.version}"
    if new.version != old.version + 1:
        raise Untrusted(f"{what} does not follow trust root {old.version}", kind="bad-trust-chain")
    if new.domain != old.domain:
        raise Untrusted(f'{what} calls its domain "{new.domain}" and not "{old.domain}"', kind="bad-trust-chain")
    if new.domain_id != old.domain_id or new.previous != old.digest:
        raise Untrusted(f"{what} does not continue trust root {old.version}", kind="bad-trust-chain")
    if new.salt != old.salt:
        raise Untrusted(f"{what} has another salt than trust root {old.version}", kind="bad-trust-chain")
    if not set(old.revoked) <= set(new.revoked) or new.epoch < old.epoch:
        raise Untrusted(f"{what} takes back a revocation or an epoch", kind="bad-trust-chain")


def signatures_of_step(old: TrustRoot | None, new: TrustRoot, envelope: Envelope) -> list[tuple[int, int]]:
    """Return (number of signers, threshold) of `new`: by the root keys of `old`, if it is not None, then by its own.

    Raises Untrusted for a signature that does not verify, and for one by a key that is a root key of neither.
    """
    roles = [root.root for root in (old, new) if root is not None]
    admitted = [key for role in roles for key in role.keys]
    aad = new.aad(AAD_LABEL)
    return [(count_signers(envelope, aad, role.keys, admitted=admitted), role.threshold) for role in roles]


def count_signers(
    envelope: Envelope,
    aad: bytes,
    keys: Iterable[PublicKey],
    *,
    admitted: Iterable[PublicKey] = (),
    ignore_unknown: bool = False,
) -> int:
    """Return how many of `keys` have signed the envelope.

    Raises Untrusted for a kid that is neither of `keys` nor of `admitted` (kind unknown-signer), and for a signature
    that does not verify (kind bad-signature), anywhere in the envelope: nobody may append to a signed file. With
    `ignore_unknown`, unknown kids pass uncounted: a later root by itself does not name the keys of the root before it.
    """
    by_kid = {key.kid: key for key in (*admitted, *keys)}
    signers: set[bytes] = set()
    for signature in envelope.signatures:
        key = by_kid.get(signature.kid)
        if key is None:
            if ignore_unknown:
                continue
            raise Untrusted(
                f"signed by the key {signature.kid.hex()[:12]}, which may not sign this",
                kind="unknown-signer",
                actual=signature.kid.hex(),
            )
        if not key.verifies(envelope, signature, aad):
            raise Untrusted(
                f"the signature of the key {signature.kid.hex()[:12]} does not verify",
                kind="bad-signature",
                actual=signature.kid.hex(),
            )
        signers.add(key.raw)
    return len(signers & {key.raw for key in keys})


def _require(count: int, threshold: int, what: str, signers: str) -> None:
    if count < threshold:
        raise Untrusted(
            f"{what} has {count} of {threshold} required signatures by {signers}",
            kind="threshold",
            expected=threshold,
            actual=count,
        )


def check_signatures(envelope: Envelope, root: TrustRoot, label: str, role: RoleName, what: str) -> None:
    """Raise Untrusted unless all signatures of the envelope are good, by keys of the role, and meet its threshold."""
    count = count_signatures(envelope, root, label, role)
    names = f" ({', '.join(map(root.key_text, envelope.kids))})" if envelope.kids else ""
    _require(count, root.role(role).threshold, what, f"{role} keys of trust root {root.version}{names}")


def count_signatures(envelope: Envelope, root: TrustRoot, label: str, role: RoleName) -> int:
    """Return how many keys of the role have signed. Raises Untrusted for any other signature."""
    revoked = {key.kid for key in root.revoked}
    for signature in envelope.signatures:
        if signature.kid in revoked:
            raise Untrusted(
                f"signed by the key {root.key_text(signature.kid)}, which is revoked",
                kind="revoked-key",
                actual=signature.kid.hex(),
            )
        roles = [name for name in ROLES if any(signature.kid == key.kid for key in root.role(name).keys)]
        if roles and role not in roles:
            raise Untrusted(
                f"signed by the key {root.key_text(signature.kid)}, which is not in the role {role}",
                kind="wrong-role",
                actual=signature.kid.hex(),
            )
    return count_signers(envelope, root.aad(label), root.role(role).keys)


def check_signer(root: TrustRoot, signer: PublicKey, role: RoleName) -> None:
    """Raise Untrusted for a key that may not sign in a role. Call it before anything is signed or written."""
    name = root.key_text(signer.kid)
    if signer in root.revoked:
        raise Untrusted(f"the key {name} is revoked", remedy="sign with another key", kind="revoked-key")
    if signer not in root.role(role).keys:
        raise Untrusted(
            f"the key {name} is not in the role {role} of trust root {root.version}",
            remedy=f"sign with an enrolled {role} key; `flightbag trust show` lists them",
            kind="unknown-signer",
        )


def check_begun(root: TrustRoot, *, now: int) -> None:
    """Raise Refused for a trust root that was issued in the future of the clock `now`, in unix seconds.

    Without a clock, an aircraft takes its time of issue as one that has passed.
    """
    if root.issued_at > now + SKEW:
        raise Refused(
            f"trust root {root.version} was begun at {utc(root.issued_at)}, in the future of this machine's clock, "
            f"which shows {utc(now)}",
            remedy="set the clock; if it is right, begin a new draft on a machine with a right clock, "
            "with a new epoch if this root is in effect",
            kind="issued-in-future",
        )


def _lifetime(fields: Fields, name: str) -> int | None:
    return fields.integer(name, 1, TIME_MAX) if name in fields else None


def _names(items: Sequence[object]) -> tuple[tuple[PublicKey, str], ...]:
    names = []
    for item in items:
        match item:
            case [bytes(raw), str(name)] if len(raw) == 32 and KEY_NAME.fullmatch(name):
                names.append((PublicKey(raw), name))
            case _:
                text = "root.names holds something else than pairs of a public key and a name"
                raise Corrupt(text, kind="bad-field", field="root.names")
    ascending([key for key, _ in names], "root.names")
    if len({name for _, name in names}) < len(names):
        raise Corrupt("root.names gives one name to two keys", kind="bad-field", field="root.names")
    return tuple(names)


def _keys(items: Sequence[object], where: str) -> tuple[PublicKey, ...]:
    keys = []
    for item in items:
        if type(item) is not bytes or len(item) != 32:
            raise Corrupt(f"{where} holds something else than public keys of 32 bytes", kind="bad-field", field=where)
        keys.append(PublicKey(item))
    ascending(keys, where)
    return tuple(keys)
