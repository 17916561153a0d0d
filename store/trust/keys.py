"""Keys: Ed25519 public keys and their kid (RFC 9679), private keys in encrypted PKCS#8 (RFC 5958, RFC 8018), signing.

Pure: PEM bytes come in and go out; the callers read and write files and ask for passphrases.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Protocol, Self

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from store.errors import Invalid, Untrusted
from store.format.cose import Envelope, Signature
from store.trust import ed25519

KEY_FILE_LIMIT = 16 * 2**10
# Bytes. The library has this bound.
MAX_PASSPHRASE = 1023
_ENCRYPTED = b"ENCRYPTED PRIVATE KEY"
# 1.2.840.113549.1.5.13 and .12 (RFC 8018, appendices A.4 and A.2).
_PBES2, _PBKDF2 = bytes.fromhex("2a864886f70d01050d"), bytes.fromhex("2a864886f70d01050c")
# About a second of work. The library writes 2048 rounds; common advice stays below a million.
MAX_ROUNDS = 10_000_000
# The errors of the library for a file that is not a key it knows; InternalError is for odd parameters of an encryption.
_NO_KEY = (ValueError, UnsupportedAlgorithm, InternalError)
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
        return hashlib.sha256(_THUMBPRINT_PREFIX + self.raw).digest()

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
        return Ed25519PublicKey.from_public_bytes(self.raw).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    @classmethod
    def of_pem(cls, data: bytes) -> Self:
        """Return the key of a SubjectPublicKeyInfo in PEM. Raises Invalid for anything but an Ed25519 public key."""
        try:
            key = serialization.load_pem_public_key(data)
        except (*_NO_KEY, TypeError) as error:
            raise Invalid("the data is not a public key in PEM") from error
        if not isinstance(key, Ed25519PublicKey):
            raise Invalid("the public key is not an Ed25519 key")
        return cls(key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


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
        return PublicKey(
            self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        )

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    @classmethod
    def generate(cls) -> Self:
        """Return a new random key."""
        return cls(Ed25519PrivateKey.generate())

    def pem(self, passphrase: bytes | None) -> bytes:
        """Return the PKCS#8 as PEM, encrypted under the passphrase. Only None leaves it unencrypted. Raises Invalid."""
        if passphrase == b"":
            raise Invalid("the passphrase is empty", remedy="give a passphrase, or the option --no-passphrase")
        if passphrase is not None and len(passphrase) > MAX_PASSPHRASE:
            raise Invalid(f"the passphrase has {len(passphrase)} bytes, at most {MAX_PASSPHRASE} are allowed")
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(passphrase)
        return self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    @classmethod
    def of_pem(cls, data: bytes, passphrase: bytes | None) -> Self:
        """Return the key of a PKCS#8 in PEM.

        Raises PassphraseNeeded for an encrypted key without a passphrase, Invalid for a wrong or a needless passphrase
        and for another kind of key.
        """
        if passphrase is not None and _ENCRYPTED in data:
            _check_cost(data)
        try:
            key = serialization.load_pem_private_key(data, passphrase)
        except TypeError as error:  # the library's answer to a missing and to a needless passphrase
            if passphrase is None:
                raise PassphraseNeeded("the private key is encrypted and needs a passphrase") from error
            raise Invalid("the private key is not encrypted, but a passphrase was given") from error
        except _NO_KEY as error:
            raise Invalid("the data is not a private key in PKCS#8 PEM, or the passphrase is wrong") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise Invalid("the private key is not an Ed25519 key")
        return cls(key)


def _check_cost(data: bytes) -> None:
    """Raise Invalid for an encrypted key that demands more work or memory than any honest one.

    The file sets how often the passphrase is hashed (PBES2, RFC 8018, section 6.2), and the library follows it.
    """
    try:
        body = data.partition(b"-----BEGIN " + _ENCRYPTED + b"-----")[2].partition(b"-----END ")[0]
        info, _ = _der(_der(base64.b64decode(b"".join(body.split()), validate=True), 0x30)[0], 0x30)
        scheme, rest = _der(info, 0x06)
        kdf, rest = _der(_der(_der(rest, 0x30)[0], 0x30)[0], 0x06)
        _, rest = _der(_der(rest, 0x30)[0], 0x04)
        rounds = int.from_bytes(_der(rest, 0x02)[0])
        if (scheme, kdf) != (_PBES2, _PBKDF2) or rounds > MAX_ROUNDS:
            raise ValueError
    except ValueError as error:
        raise Invalid(
            f"the private key is not encrypted by PBES2 with PBKDF2 and at most {MAX_ROUNDS} rounds",
            remedy="encrypt the key again: openssl pkcs8 -topk8 -v2 aes-256-cbc -iter 100000",
        ) from error


def _der(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the first item of DER (X.690), which must have this tag, and the rest. Raises ValueError."""
    if len(data) < 2 or data[0] != tag:
        raise ValueError("another tag")
    length, start = data[1], 2
    if length > 127:
        start += length & 127
        length = int.from_bytes(data[2:start])
    if len(data) < start + length:
        raise ValueError("cut")
    return data[start : start + length], data[start + length :]


def sign(envelope: Envelope, signer: Signer, aad: bytes) -> Envelope:
    """Return the envelope with one more signature, by `signer` under `aad`.

    Raises Untrusted (kind bad-signature) unless the signature that the signer returned verifies.
    """
    kid = signer.public.kid
    signature = Signature(kid, signer.sign(envelope.to_be_signed(kid, aad)))
    if not signer.public.verifies(envelope, signature, aad):
        raise Untrusted(
            f"the signer of {kid.hex()[:16]} returned a signature that does not verify", kind="bad-signature"
        )
    return envelope.with_signature(signature)
