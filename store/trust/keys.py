"""Keys: Ed25519 public keys and their kid (RFC 9679), private keys in PKCS#8 (RFC 5958) or of OpenSSH, signing.

Pure: PEM bytes come in and go out; the callers read and write files and ask for passphrases. `key_file` knows the form
of the files. What reads and writes private keys is imported by the methods that do: it loads slower than all that a
takeoff check needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from cryptography.exceptions import InternalError, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from store.errors import Invalid, Unavailable, Untrusted
from store.format.cose import Envelope, Signature
from store.installation import install_remedy
from store.trust import ed25519
from store.trust.key_file import (
    OPENSSH,
    PRIVATE,
    PUBLIC,
    PUBLIC_PREFIX,
    Protection,
    algorithm_of,
    armoured,
    block,
    encrypted,
    other_kind,
    stated_public,
)
from store.values import dataclass

if TYPE_CHECKING:
    from typing_extensions import Self

# The errors of the library for a file that is not a key it knows; InternalError is for odd parameters of an encryption.
_NO_KEY = (ValueError, UnsupportedAlgorithm, InternalError, InvalidTag)
# {1: 1, -1: 6, -2: h'…'}: kty OKP, crv Ed25519, x; the members of the thumbprint (RFC 9679, section 3).
_THUMBPRINT_PREFIX = bytes.fromhex("a301012006215820")


class PassphraseNeeded(Invalid):
    """A private key is encrypted, and no passphrase was given for it."""


@dataclass(frozen=True, slots=True, order=True)
class PublicKey:
    """An Ed25519 public key: its 32 raw bytes. Two keys are equal if these are, whatever a kid claims.

    Raises Invalid for another number of bytes.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise Invalid(f"the Ed25519 public key has {len(self.raw)} bytes, must have 32")

    @property
    def kid(self) -> bytes:
        """The COSE key thumbprint (RFC 9679, section 3): SHA-256, 32 bytes."""
        hasher = hashes.Hash(hashes.SHA256())  # not hashlib, which would load a second OpenSSL
        hasher.update(_THUMBPRINT_PREFIX + self.raw)
        return hasher.finalize()

    def verifies(self, envelope: Envelope, signature: Signature, aad: bytes) -> bool:
        """Whether `signature` is the strict signature (see `ed25519`) of the envelope by this key under `aad`."""
        return signature.kid == self.kid and ed25519.verify(
            self.raw, signature.signature, envelope.to_be_signed(self.kid, aad)
        )

    @property
    def is_enrollable(self) -> bool:
        """Whether a trust root may name this key in a role (see `ed25519`)."""
        return ed25519.is_enrollable(self.raw)

    def require_enrollable(self) -> Self:
        """Return this key. Raises Untrusted (kind weak-key) unless a trust root may name it in a role."""
        if not self.is_enrollable:
            raise Untrusted(
                f"the public key {self.raw.hex()} is not a canonical point of prime order",
                remedy="make a new key with `flightbag keys new`",
                kind="weak-key",
            )
        return self

    def pem(self) -> bytes:
        """Return the SubjectPublicKeyInfo (RFC 8410) as PEM."""
        return armoured(PUBLIC, PUBLIC_PREFIX + self.raw)

    @classmethod
    def of_pem(cls, data: bytes) -> Self:
        """Return the key of a SubjectPublicKeyInfo in PEM, or of a line of OpenSSH.

        Raises Invalid for anything but one Ed25519 public key.
        """
        label, der = block(data)
        if label != PUBLIC:
            raise Invalid(f"expected a public key, found a block {label}", remedy=_GIVE_PUBLIC)
        if not der.startswith(PUBLIC_PREFIX) or len(der) != len(PUBLIC_PREFIX) + 32:
            raise Invalid("the PEM block is not an Ed25519 public key", remedy=_GIVE_PUBLIC)
        return cls(der[len(PUBLIC_PREFIX) :])


_GIVE_PRIVATE = "give a private key that `flightbag keys new` made"
_TRY_AGAIN = "try the passphrase again; if it is right, give another copy of the file"
_COPY_AGAIN = "the file is damaged or was changed: give another copy of it"
_GIVE_PUBLIC = "give the .pub file that `flightbag keys new` wrote"


class Signer(Protocol):
    """Holder of a private key: the key of a file, or a token behind a command."""

    @property
    def public(self) -> PublicKey:
        """The public key of the private key that signs."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature of `message`, 64 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key in memory. It is never printed: `repr` shows the kid."""

    _key: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"PrivateKey(kid={self.public.kid.hex()})"

    @property
    def public(self) -> PublicKey:
        return PublicKey(self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    @classmethod
    def generate(cls) -> Self:
        """Return a new random key."""
        return cls(Ed25519PrivateKey.generate())

    def pem(self, passphrase: bytes | None) -> bytes:
        """Return the PKCS#8 as PEM, encrypted under the passphrase. Only None leaves it unencrypted.

        Raises Invalid for a passphrase that is too short or too long (see `check_passphrase`).
        """
        from cryptography.hazmat.primitives import serialization

        der = self._key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return armoured(PRIVATE, der) if passphrase is None else encrypted(der, passphrase)

    @classmethod
    def of_pem(cls, data: bytes, passphrase: bytes | None) -> Self:
        """Return the key of a PKCS#8 or an OpenSSH private key in PEM.

        Raises PassphraseNeeded for an encrypted key without a passphrase, Invalid for a wrong or a needless passphrase,
        for another kind of key, for more than one key, and for an encryption that demands too much (see `Protection`),
        Unavailable (extra `ssh`) where the library that OpenSSH's encryption needs is not installed.
        """
        from cryptography.hazmat.primitives import serialization

        label, content = block(data)
        if label == PUBLIC:
            raise Invalid("expected a private key, found a public key", remedy="give the file of the private key")
        protected = Protection.of(label, content) is not None
        if protected and passphrase is None:
            raise PassphraseNeeded("the private key is encrypted and needs a passphrase")
        if not protected and passphrase is not None:
            raise Invalid("the private key is not encrypted, but a passphrase was given", remedy="leave it out")
        try:
            if label == OPENSSH:
                key: object = serialization.load_ssh_private_key(data, passphrase)
            else:
                key = serialization.load_der_private_key(content, passphrase)
        except (*_NO_KEY, TypeError) as error:  # TypeError: the label says otherwise than the content
            if label == OPENSSH and protected and isinstance(error, UnsupportedAlgorithm):
                # Cipher and derivation are ones that the library knows.
                raise Unavailable(
                    "an encrypted OpenSSH key needs bcrypt, which is not installed",
                    remedy=install_remedy("ssh"),
                    extra="ssh",
                ) from error
            text = "the data is not a private key" + (", or the passphrase is wrong" if passphrase else "")
            raise Invalid(text, remedy=_TRY_AGAIN if passphrase else _GIVE_PRIVATE) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise other_kind(_kind_of(key))
        private = cls(key)
        # The library does not compare them: a bit that flipped in the private half would make another key.
        if stated_public(label, content) not in (None, private.public.raw):
            raise Invalid("the private key is not that of the public key in its file", remedy=_COPY_AGAIN)
        return private


def _kind_of(key: Any) -> str:
    """Return what a private key of the library is, with the article. An encrypted file does not tell before."""
    from cryptography.hazmat.primitives import serialization

    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return algorithm_of(public)


def sign(envelope: Envelope, signer: Signer, aad: bytes) -> Envelope:
    """Return the envelope with one more signature, by `signer` under `aad`.

    Raises Untrusted (kind bad-signature) unless the signature that the signer returned verifies.
    """
    kid = signer.public.kid
    signature = Signature(kid, signer.sign(envelope.to_be_signed(kid, aad)))
    if not signer.public.verifies(envelope, signature, aad):
        raise Untrusted(
            f"the signer of {kid.hex()[:12]} returned a signature that does not verify",
            remedy="check that the command signs with this key, and the bytes as they are",
            kind="bad-signature",
        )
    return envelope.with_signature(signature)
