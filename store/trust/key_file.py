"""Key files (FORMAT.md 5.2): one PEM block and nothing else; the encryption of private keys, with bounds.

Pure: bytes come in and go out. The library decrypts, and does whatever a file asks for: so this module reads first how
much work and memory that is. This module encrypts, because the library offers 2048 rounds and no other number.

Law: `Protection.of(encrypted(der, passphrase)).weaknesses == ()`, and the library decrypts it to `der`.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from dataclasses import dataclass
from typing import Self

from store.errors import Invalid

KEY_FILE_LIMIT = 16 * 2**10
PUBLIC, PRIVATE, ENCRYPTED = "PUBLIC KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"
# What is written: half a second of work. OWASP's advice for PBKDF2 with HMAC-SHA-256 since 2023.
ROUNDS = 600_000
# What is read. Ten seconds of PBKDF2; a quarter of a gibibyte, and some seconds, of scrypt.
MAX_ROUNDS = 10_000_000
MAX_SCRYPT_MEMORY = 256 * 2**20
MAX_SCRYPT_WORK = 2**23
# Characters. NIST SP 800-63B-4, section 3.1.1.2, for a password that is the only factor: a file is attacked offline.
LEAST_PASSPHRASE = 15
# Bytes. The library has this bound.
MAX_PASSPHRASE = 1023
# scrypt with less than this much work (N*r*p) is weaker than OWASP's least, which is N = 2^17, r = 8, p = 1.
_LEAST_SCRYPT_WORK = 2**20

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n((?:[A-Za-z0-9+/=]+\r?\n)+)-----END \1-----(?:\r?\n)?")
# RFC 8018, appendix A and B; RFC 7914, section 7; NIST CSOR for SHA-2 and AES.
_PBES2, _PBKDF2 = bytes.fromhex("2a864886f70d01050d"), bytes.fromhex("2a864886f70d01050c")
_SCRYPT = bytes.fromhex("2b06010401da47040b")
_HMAC_SHA1, _HMAC_SHA256 = bytes.fromhex("2a864886f70d0207"), bytes.fromhex("2a864886f70d0209")
_HMACS = {_HMAC_SHA256, *(bytes.fromhex(f"2a864886f70d02{last:02x}") for last in (8, 10, 11, 12, 13))}
_AES_256_CBC = bytes.fromhex("60864801650304012a")
_AES = {_AES_256_CBC, *(bytes.fromhex(f"6086480165030401{last:02x}") for last in (0x02, 0x16))}
_SEQUENCE, _INTEGER, _OCTETS, _NULL, _OID = 0x30, 0x02, 0x04, 0x05, 0x06
# Bytes of key that a derivation may be asked for: more costs more work, and no cipher here has a longer key.
_MAX_DERIVED = 64


def block(data: bytes) -> tuple[str, bytes]:
    """Return the label and the DER of the one PEM block (RFC 7468) that the data are. Raise Invalid for other data."""
    match = _BLOCK.fullmatch(data)
    if match is None:
        count = data.count(b"-----BEGIN ")
        found = (
            "no PEM block"
            if not count
            else f"{count} PEM blocks"
            if count > 1
            else "more than a PEM block, or a torn one"
        )
        raise Invalid(
            f"expected one key in PEM and nothing else, found {found}",
            remedy="give each key a file of its own, without comments or text around it",
        )
    text = b"".join(match[2].split())
    try:
        der = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Invalid("the PEM block is not base64", remedy="copy the file of the key again") from error
    if base64.b64encode(der) != text:
        raise Invalid("the PEM block is not canonical base64", remedy="copy the file of the key again")
    return match[1].decode(), der


def armoured(label: str, der: bytes) -> bytes:
    """Return the DER as a PEM block, with lines of 64 characters."""
    text = base64.b64encode(der)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join([b"-----BEGIN %b-----" % label.encode(), *lines, b"-----END %b-----\n" % label.encode()])


def check_passphrase(passphrase: bytes) -> None:
    """Raise Invalid for a passphrase that is too short to protect a file, or too long for the library."""
    length = len(passphrase.decode(errors="replace"))
    if length < LEAST_PASSPHRASE:
        raise Invalid(
            f"the passphrase has {length} characters, and must have at least {LEAST_PASSPHRASE}",
            remedy="take four or more random words: who has the file can try passphrases without limit",
        )
    if len(passphrase) > MAX_PASSPHRASE:
        raise Invalid(f"the passphrase has {len(passphrase)} bytes, at most {MAX_PASSPHRASE} are allowed")


def encrypted(der: bytes, passphrase: bytes) -> bytes:
    """Return the PKCS#8 `der` as a PEM block, encrypted by PBES2 (RFC 8018, 6.2). Raise as `check_passphrase`."""
    # At use: what flies verifies, and encrypts no key.
    from cryptography.hazmat.primitives import hashes, padding
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

    check_passphrase(passphrase)
    salt, vector = os.urandom(16), os.urandom(16)
    derived = PBKDF2HMAC(hashes.SHA256(), 32, salt, ROUNDS).derive(passphrase)
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(derived), modes.CBC(vector)).encryptor()
    sealed = encryptor.update(padder.update(der) + padder.finalize()) + encryptor.finalize()
    prf = _item(_SEQUENCE, _item(_OID, _HMAC_SHA256), _item(_NULL))
    rounds = _item(_INTEGER, ROUNDS.to_bytes(ROUNDS.bit_length() // 8 + 1))
    derivation = _item(_SEQUENCE, _item(_OID, _PBKDF2), _item(_SEQUENCE, _item(_OCTETS, salt), rounds, prf))
    scheme = _item(_SEQUENCE, _item(_OID, _AES_256_CBC), _item(_OCTETS, vector))
    algorithm = _item(_SEQUENCE, _item(_OID, _PBES2), _item(_SEQUENCE, derivation, scheme))
    return armoured(ENCRYPTED, _item(_SEQUENCE, algorithm, _item(_OCTETS, sealed)))


@dataclass(frozen=True, slots=True)
class Protection:
    """How a private key is encrypted: the derivation and its parameters, the PRF and the cipher as OIDs of DER.

    `rounds` is that of PBKDF2, `scrypt` is (N, r, p); one of them is None.
    """

    rounds: int | None
    scrypt: tuple[int, int, int] | None
    prf: bytes
    cipher: bytes

    @classmethod
    def of(cls, der: bytes) -> Self:
        """Return the protection of an EncryptedPrivateKeyInfo; the passphrase is not needed.

        Raise Invalid for one that demands more work or memory than any honest one, or is not PBES2 with PBKDF2 or
        scrypt: the library would begin with it.
        """
        try:
            one = cls._parse(der)
        except ValueError as error:
            raise Invalid(
                "the private key is not encrypted by PBES2 with PBKDF2 or scrypt", remedy=_ENCRYPT_AGAIN
            ) from error
        if one.rounds is not None and one.rounds > MAX_ROUNDS:
            raise Invalid(
                f"the private key asks for {one.rounds} rounds of PBKDF2, at most {MAX_ROUNDS} are done",
                remedy=_ENCRYPT_AGAIN,
            )
        if one.scrypt is not None:
            n, r, p = one.scrypt
            if n * r * 128 > MAX_SCRYPT_MEMORY or n * r * p > MAX_SCRYPT_WORK:
                raise Invalid(
                    f"the private key asks for scrypt with N = {n}, r = {r}, p = {p}, which is more than "
                    f"{MAX_SCRYPT_MEMORY // 2**20} MiB of memory or than N*r*p = {MAX_SCRYPT_WORK}",
                    remedy=_ENCRYPT_AGAIN,
                )
        return one

    @classmethod
    def _parse(cls, der: bytes) -> Self:
        """Return the protection. Raise ValueError for another structure."""
        algorithm, _ = _take(_only(der, _SEQUENCE), _SEQUENCE)
        scheme, rest = _take(algorithm, _OID)
        if scheme != _PBES2:
            raise ValueError("another scheme")
        derivation, ciphering = _take(_only(rest, _SEQUENCE), _SEQUENCE)
        cipher, _ = _take(_only(ciphering, _SEQUENCE), _OID)
        function, rest = _take(derivation, _OID)
        _, rest = _take(_only(rest, _SEQUENCE), _OCTETS)
        if function == _SCRYPT:
            numbers, prf = _integers(rest), b""
            n, r, p = numbers[:3]
            if len(numbers) > 4 or max(numbers[3:], default=0) > _MAX_DERIVED:
                raise ValueError("another length of key")
            return cls(None, (n, r, p), prf, cipher)
        if function != _PBKDF2:
            raise ValueError("another derivation")
        rounds, rest = _take(rest, _INTEGER)
        if rest[:1] == bytes([_INTEGER]):
            length, rest = _take(rest, _INTEGER)
            if int.from_bytes(length) > _MAX_DERIVED:
                raise ValueError("another length of key")
        prf = _take(_only(rest, _SEQUENCE), _OID)[0] if rest else _HMAC_SHA1
        return cls(int.from_bytes(rounds), None, prf, cipher)

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """What makes the passphrase cheaper to guess than with a file that is written today, or is out of date."""
        found = []
        if self.rounds is not None and self.rounds < ROUNDS:
            found.append(f"the passphrase is hashed in {self.rounds} rounds of PBKDF2, should be {ROUNDS} or more")
        if self.scrypt is not None and (work := self.scrypt[0] * self.scrypt[1] * self.scrypt[2]) < _LEAST_SCRYPT_WORK:
            found.append(
                f"the passphrase is hashed by scrypt with N*r*p = {work}, should be {_LEAST_SCRYPT_WORK} or more"
            )
        if self.rounds is not None and self.prf not in _HMACS:
            found.append("PBKDF2 uses HMAC-SHA-1, should use HMAC-SHA-256")
        if self.cipher not in _AES:
            found.append("the cipher is not AES")
        return tuple(found)


_ENCRYPT_AGAIN = "encrypt the key again where it was made: openssl pkcs8 -topk8 -v2 aes-256-cbc -iter 600000"


def _item(tag: int, *parts: bytes) -> bytes:
    """One item of DER (X.690)."""
    content = b"".join(parts)
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes([tag, 128 | len(length)]) + length + content


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
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


def _only(data: bytes, tag: int) -> bytes:
    """The content of an item after which nothing follows. Raises ValueError."""
    content, rest = _take(data, tag)
    if rest:
        raise ValueError("more than one item")
    return content


def _integers(data: bytes) -> list[int]:
    """Every item, each a number; at least three. Raises ValueError."""
    numbers = []
    while data:
        content, data = _take(data, _INTEGER)
        numbers.append(int.from_bytes(content))
    if len(numbers) < 3:
        raise ValueError("too few numbers")
    return numbers
