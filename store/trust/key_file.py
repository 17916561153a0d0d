"""Key files (FORMAT.md 5.2): one PEM block, or one line of OpenSSH; the encryption of private keys, with bounds.

Pure: bytes come in and go out. The library decrypts, and does whatever a file asks for: so this module reads first how
much work and memory that is. This module encrypts, because the library offers 2048 rounds and no other number.

Laws: `Protection.of(*block(encrypted(der, passphrase))).weaknesses == ()`, and the library decrypts it to `der`;
`block(named(pem, name)) == block(pem)`, and `name_in(named(pem, name)) == name`, for a public key in PEM.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from store.errors import Invalid
from store.values import dataclass

if TYPE_CHECKING:
    from typing_extensions import Self

KEY_FILE_LIMIT = 16 * 2**10
PUBLIC, PRIVATE, ENCRYPTED, OPENSSH = "PUBLIC KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"
# SubjectPublicKeyInfo of Ed25519 (RFC 8410, section 4), before the 32 raw bytes.
PUBLIC_PREFIX = bytes.fromhex("302a300506032b6570032100")
# What is written: half a second of work. OWASP's advice for PBKDF2 with HMAC-SHA-256 since 2023.
ROUNDS = 600_000
# What is read. Ten seconds of PBKDF2, some twenty of bcrypt; a quarter of a gibibyte, and some seconds, of scrypt.
MAX_ROUNDS = 10_000_000
MAX_BCRYPT_ROUNDS = 1024
MAX_SCRYPT_MEMORY = 256 * 2**20
MAX_SCRYPT_WORK = 2**23
# Characters. NIST SP 800-63B-4, section 3.1.1.2, for a password that is the only factor: a file is attacked offline.
LEAST_PASSPHRASE = 15
# Bytes. The library has this bound.
MAX_PASSPHRASE = 1023
# scrypt with less than this much work (N*r*p) is weaker than OWASP's least, which is N = 2^17, r = 8, p = 1.
_LEAST_SCRYPT_WORK = 2**20
# What `ssh-keygen` has always written.
_LEAST_BCRYPT_ROUNDS = 16

# What people call a key, in the file of its public key and in trust roots (FORMAT.md 5).
KEY_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,30}[A-Za-z0-9])?")
_NAME_LINE = re.compile(rb"name: ([^\r\n]*)\r?\n")
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n((?:[A-Za-z0-9+/=]+\r?\n)+)-----END \1-----(?:\r?\n)?")
# RFC 8018, appendix A and B; RFC 7914, section 7; NIST CSOR for SHA-2 and AES.
_PBES2, _PBKDF2 = bytes.fromhex("2a864886f70d01050d"), bytes.fromhex("2a864886f70d01050c")
# PBES1 (RFC 8018, A.3) and PKCS#12 (RFC 7292, appendix C), as far as the library decrypts them: none has AES.
_OLD_SCHEMES = {
    bytes.fromhex("2a864886f70d010503"): "PBKDF1",
    **{bytes.fromhex(f"2a864886f70d010c01{last:02x}"): "PKCS#12" for last in (1, 3, 6)},
}
_SCRYPT = bytes.fromhex("2b06010401da47040b")
_HMAC_SHA1, _HMAC_SHA256 = bytes.fromhex("2a864886f70d0207"), bytes.fromhex("2a864886f70d0209")
# What the library decrypts.
_HMACS = {bytes.fromhex(f"2a864886f70d02{last:02x}") for last in range(7, 12)}
_AES_256_CBC = bytes.fromhex("60864801650304012a")
_AES = {_AES_256_CBC, *(bytes.fromhex(f"6086480165030401{last:02x}") for last in (0x02, 0x16))}
_CIPHERS = {*_AES, bytes.fromhex("2a864886f70d0302"), bytes.fromhex("2a864886f70d0307")}  # RC2, 3DES
_SEQUENCE, _INTEGER, _OCTETS, _NULL, _OID = 0x30, 0x02, 0x04, 0x05, 0x06
# Bytes of key that a derivation may be asked for: more costs more work, and no cipher here has a longer key.
_MAX_DERIVED = 64


def block(data: bytes) -> tuple[str, bytes]:
    """Return the label and the content of the one PEM block (RFC 7468) that the data are; a line of OpenSSH counts as
    the block of the same public key.

    Raise Invalid for other data, which names what they are as far as that shows.
    """
    name = _NAME_LINE.match(data)
    if name is not None:
        check_name(name[1].decode(errors="replace"))
        data = data[name.end() :]
    match = _BLOCK.fullmatch(data)
    if match is None:
        if name is None and data.startswith(_SSH_TYPES):
            return PUBLIC, PUBLIC_PREFIX + _of_ssh_line(data)
        raise _no_block(data)
    text = b"".join(match[2].split())
    try:
        der = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Invalid("the PEM block is not base64", remedy="copy the file of the key again") from error
    if base64.b64encode(der) != text:
        raise Invalid("the PEM block is not canonical base64", remedy="copy the file of the key again")
    label = match[1].decode()
    if label not in (PUBLIC, PRIVATE, ENCRYPTED, OPENSSH):
        raise _no_block(data)
    if kind := _other_algorithm(label, der):
        raise other_kind(kind)
    if name is not None and label != PUBLIC:
        raise Invalid("a private key has no name in its file", remedy="remove the line `name: ` before the PEM block")
    return label, der


def check_name(name: str) -> None:
    """Raise Invalid for a text that is not the name of a key (FORMAT.md 5)."""
    if not KEY_NAME.fullmatch(name):
        remedy = "give 1 to 32 letters, digits, spaces and . _ -, with a letter or digit at both ends"
        raise Invalid(f"{name[:80]!r} is not the name of a key", remedy=remedy)


def named(pem: bytes, name: str) -> bytes:
    """Return the file of a public key that proposes a name for it. Raise as `check_name`."""
    check_name(name)
    return b"name: %b\n%b" % (name.encode(), pem)


def name_in(data: bytes) -> str:
    """Return the name that the file of a public key proposes for it: in the line before the PEM block, or as the
    comment of OpenSSH. Return "" where it proposes none. The caller has read the data by `block`."""
    if (line := _NAME_LINE.match(data)) is not None:
        return line[1].decode()
    comment = data.split(maxsplit=2)[2:] if data.startswith(_SSH_TYPES) else []
    text = comment[0].strip().decode(errors="replace") if comment else ""
    return text if KEY_NAME.fullmatch(text) else ""


def other_kind(kind: str) -> Invalid:
    """Return the error for a key of another algorithm."""
    return Invalid(
        f"this is {kind}; an Ed25519 key is needed",
        remedy="make one with `flightbag keys new` or `ssh-keygen -t ed25519`",
    )


def algorithm_of(public: bytes) -> str:
    """Return what a SubjectPublicKeyInfo is, with the article; "" for Ed25519 and for what cannot be read."""
    return _other_algorithm(PUBLIC, public)


def _other_algorithm(label: str, content: bytes) -> str:
    """Return what a block is the key of, with the article; "" for Ed25519, and for what does not say it."""
    try:
        if label == OPENSSH:
            return _ssh_kind(_ssh_header(content).kind)
        rest = _only(content, _SEQUENCE)
        if label == PRIVATE:
            _, rest = _take(rest, _INTEGER)
        if label == ENCRYPTED:
            return ""
        oid, _ = _take(_take(rest, _SEQUENCE)[0], _OID)
    except ValueError:
        return ""
    return "" if oid == _ED25519 else _ALGORITHMS.get(oid, "a key of an unknown algorithm")


def stated_public(label: str, content: bytes) -> bytes | None:
    """Return the 32 bytes of the public key that a private key's block states in the clear, None where it states none.
    Call `Protection.of` first."""
    return _ssh_header(content).public if label == OPENSSH else None


def _ssh_kind(kind: bytes) -> str:
    """Return what a kind of OpenSSH is a key of, with the article; "" for Ed25519."""
    return "" if kind == b"ssh-ed25519" else _SSH_KINDS.get(kind, "an OpenSSH key of an unknown kind")


def _of_ssh_line(data: bytes) -> bytes:
    """Return the 32 bytes of an Ed25519 key in a line of OpenSSH (sshd(8), AUTHORIZED_KEYS). Raise Invalid for other
    keys, and for more than one line."""
    lines = data.splitlines()
    if len(lines) > 1:
        raise Invalid(f"expected one key and nothing else, found {len(lines)} lines", remedy=_ONE_EACH)
    kind, _, rest = lines[0].partition(b" ")
    if other := _ssh_kind(kind):
        raise other_kind(other)
    text = rest.partition(b" ")[0]
    try:
        content = base64.b64decode(text, validate=True)
        inner, content = _take_ssh(content)
        raw, content = _take_ssh(content)
        if inner != kind or content or len(raw) != 32:
            raise ValueError("another content")
    except ValueError as error:  # binascii.Error is one
        raise Invalid(
            "the line of OpenSSH is torn, or its content is of another kind", remedy="copy the file of the key again"
        ) from error
    return raw


def _no_block(data: bytes) -> Invalid:
    """Return the error for data that are no key that is read here."""
    first = re.match(rb"\s*-----BEGIN ([A-Z0-9 ]+)-----", data)
    if first is not None:
        label = first[1].decode()
        for start, kind in _LABELS.items():
            if label.startswith(start):
                return other_kind(kind)
    for begin, kind, remedy in _OTHER_FORMS:
        if data.startswith(begin):
            return Invalid(f"this is {kind}", remedy=remedy)
    count = data.count(b"-----BEGIN ")
    found = (
        "no PEM block"
        if not count
        else f"{count} PEM blocks"
        if count > 1
        else f"a block {first[1].decode()}"
        if first is not None and _BLOCK.fullmatch(data)
        else "more than a PEM block, or a torn one"
    )
    return Invalid(f"expected one key in PEM and nothing else, found {found}", remedy=_ONE_EACH)


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
        text = f"the passphrase has {len(passphrase)} bytes, at most {MAX_PASSPHRASE} are allowed"
        raise Invalid(text, remedy="take a shorter one; a file gives its first line")


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
    rounds = _item(_INTEGER, ROUNDS.to_bytes(ROUNDS.bit_length() // 8 + 1, "big"))
    derivation = _item(_SEQUENCE, _item(_OID, _PBKDF2), _item(_SEQUENCE, _item(_OCTETS, salt), rounds, prf))
    scheme = _item(_SEQUENCE, _item(_OID, _AES_256_CBC), _item(_OCTETS, vector))
    algorithm = _item(_SEQUENCE, _item(_OID, _PBES2), _item(_SEQUENCE, derivation, scheme))
    return armoured(ENCRYPTED, _item(_SEQUENCE, algorithm, _item(_OCTETS, sealed)))


@dataclass(frozen=True, slots=True)
class Protection:
    """How a private key is encrypted: the derivation and its parameters, the PRF as an OID of DER, whether by AES.

    `function` is PBKDF2, PBKDF1, PKCS#12, bcrypt or scrypt. `scrypt` is its (N, r, p), `rounds` that of the others; one
    of them is None.
    """

    function: str
    rounds: int | None
    scrypt: tuple[int, int, int] | None
    prf: bytes
    aes: bool

    @classmethod
    def of(cls, label: str, content: bytes) -> Self | None:
        """Return the protection of a private key's block, None for one in the clear; the passphrase is not needed.

        Raise Invalid for one that demands more work or memory than any honest one, or is encrypted in a way that is
        not known here: the library would begin with it.
        """
        if label == PRIVATE:
            return None
        remedy = _ENCRYPT_SSH_AGAIN if label == OPENSSH else _ENCRYPT_AGAIN
        try:
            one = cls._parse_ssh(content) if label == OPENSSH else cls._parse(content)
        except ValueError as error:
            raise Invalid(f"the private key is not encrypted in a way that is read: {error}", remedy=remedy) from error
        if one is None:
            return None
        most = MAX_BCRYPT_ROUNDS if one.function == "bcrypt" else MAX_ROUNDS
        if one.rounds is not None and one.rounds > most:
            raise Invalid(
                f"the private key asks for {one.rounds} rounds of {one.function}, at most {most} are done",
                remedy=remedy,
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
        """Return the protection of an EncryptedPrivateKeyInfo. Raise ValueError for another structure."""
        algorithm, _ = _take(_only(der, _SEQUENCE), _SEQUENCE)
        scheme, rest = _take(algorithm, _OID)
        if scheme in _OLD_SCHEMES:
            _, rest = _take(_only(rest, _SEQUENCE), _OCTETS)
            return cls(_OLD_SCHEMES[scheme], int.from_bytes(_only(rest, _INTEGER), "big"), None, b"", aes=False)
        if scheme != _PBES2:
            raise ValueError("another scheme than PBES2, PKCS#12 or PBES1 with MD5 and DES")
        derivation, ciphering = _take(_only(rest, _SEQUENCE), _SEQUENCE)
        cipher, _ = _take(_only(ciphering, _SEQUENCE), _OID)
        if cipher not in _CIPHERS:
            raise ValueError("another cipher than AES, 3DES or RC2 in CBC mode")
        function, rest = _take(derivation, _OID)
        _, rest = _take(_only(rest, _SEQUENCE), _OCTETS)
        if function == _SCRYPT:
            numbers, prf = _integers(rest), b""
            n, r, p = numbers[:3]
            if len(numbers) > 4 or max(numbers[3:], default=0) > _MAX_DERIVED:
                raise ValueError("another length of key")
            return cls("scrypt", None, (n, r, p), prf, aes=cipher in _AES)
        if function != _PBKDF2:
            raise ValueError("another derivation than PBKDF2 or scrypt")
        rounds, rest = _take(rest, _INTEGER)
        if rest[:1] == bytes([_INTEGER]):
            length, rest = _take(rest, _INTEGER)
            if int.from_bytes(length, "big") > _MAX_DERIVED:
                raise ValueError("another length of key")
        prf = _take(_only(rest, _SEQUENCE), _OID)[0] if rest else _HMAC_SHA1
        if prf not in _HMACS:
            raise ValueError("another PRF than HMAC with SHA-1 or SHA-2")
        return cls("PBKDF2", int.from_bytes(rounds, "big"), None, prf, aes=cipher in _AES)

    @classmethod
    def _parse_ssh(cls, content: bytes) -> Self | None:
        """Return the protection of an OpenSSH private key (PROTOCOL.key), None where it has none. Raise ValueError for
        another structure."""
        header = _ssh_header(content)
        if (header.cipher, header.function) == (b"none", b"none"):
            return None
        if header.cipher not in _SSH_CIPHERS or header.function != b"bcrypt":
            raise ValueError(f"the cipher is {header.cipher.decode(errors='replace')!r}")
        _, rounds = _take_ssh(header.options)
        if len(rounds) != 4:
            raise ValueError("other options than a salt and a number of rounds")
        return cls("bcrypt", int.from_bytes(rounds, "big"), None, b"", aes=True)

    @property
    def weaknesses(self) -> tuple[str, ...]:
        """What makes the passphrase cheaper to guess than with a file that is written today, or is out of date."""
        found = []
        least = _LEAST_BCRYPT_ROUNDS if self.function == "bcrypt" else ROUNDS
        if self.rounds is not None and self.rounds < least:
            found.append(
                f"the passphrase is hashed in {self.rounds} rounds of {self.function}, should be {least} or more"
            )
        if self.scrypt is not None and (work := self.scrypt[0] * self.scrypt[1] * self.scrypt[2]) < _LEAST_SCRYPT_WORK:
            found.append(
                f"the passphrase is hashed by scrypt with N*r*p = {work}, should be {_LEAST_SCRYPT_WORK} or more"
            )
        if self.prf == _HMAC_SHA1:
            found.append("PBKDF2 uses HMAC-SHA-1, should use HMAC-SHA-256")
        if not self.aes:
            found.append("the cipher is not AES")
        return tuple(found)


_ONE_EACH = "give each key a file of its own, without comments or text around it"
_ENCRYPT_SSH_AGAIN = "encrypt the key again where it was made: ssh-keygen -p -Z aes256-ctr -a 100 -f FILE"
_ENCRYPT_AGAIN = (
    "encrypt the key again where it was made: openssl pkcs8 -topk8 -v2 aes-256-cbc -iter 600000 -in FILE -out NEW"
)


def _item(tag: int, *parts: bytes) -> bytes:
    """One item of DER (X.690)."""
    content = b"".join(parts)
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 128 | len(length)]) + length + content


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """The content of the first item of DER (X.690), which must have this tag, and the rest. Raises ValueError."""
    if len(data) < 2 or data[0] != tag:
        raise ValueError("another tag")
    length, start = data[1], 2
    if length > 127:
        start += length & 127
        length = int.from_bytes(data[2:start], "big")
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
        numbers.append(int.from_bytes(content, "big"))
    if len(numbers) < 3:
        raise ValueError("too few numbers")
    return numbers


class _SshHeader(NamedTuple):
    """What lies in the clear at the head of an OpenSSH private key: cipher, derivation, its options, kind of key, and
    the public key (of Ed25519: its 32 bytes)."""

    cipher: bytes
    function: bytes
    options: bytes
    kind: bytes
    public: bytes


def _ssh_header(content: bytes) -> _SshHeader:
    """The head of an OpenSSH private key (PROTOCOL.key). Raises ValueError for another structure."""
    if not content.startswith(_SSH_MAGIC):
        raise ValueError("another magic")
    cipher, rest = _take_ssh(content[len(_SSH_MAGIC) :])
    function, rest = _take_ssh(rest)
    options, rest = _take_ssh(rest)
    if rest[:4] != b"\0\0\0\1":
        raise ValueError("another number of keys than one")
    public, _ = _take_ssh(rest[4:])
    kind, public = _take_ssh(public)
    return _SshHeader(cipher, function, options, kind, _take_ssh(public)[0])


def _take_ssh(data: bytes) -> tuple[bytes, bytes]:
    """The first string of OpenSSH (RFC 4251, section 5), and the rest. Raises ValueError."""
    end = 4 + int.from_bytes(data[:4], "big")
    if len(data) < max(4, end):
        raise ValueError("cut")
    return data[4:end], data[end:]


_SSH_MAGIC = b"openssh-key-v1\0"
_SSH_CIPHERS = (b"aes256-ctr", b"aes256-cbc", b"aes256-gcm@openssh.com")
_SSH_TYPES = (b"ssh-", b"ecdsa-", b"sk-")
_TOKEN = "the key of a FIDO token, which never signs just the bytes that it is given"  # noqa: S105 - no secret
_SSH_KINDS = {
    b"ssh-rsa": "an RSA key",
    b"ssh-dss": "a DSA key",
    **{b"ecdsa-sha2-nistp%d" % size: "an ECDSA key" for size in (256, 384, 521)},
    b"sk-ssh-ed25519@openssh.com": _TOKEN,
    b"sk-ecdsa-sha2-nistp256@openssh.com": _TOKEN,
    b"ssh-ed25519-cert-v01@openssh.com": "a certificate",
}
# RFC 8410, section 3; RFC 3279, section 2.3; RFC 4055, section 1; RFC 9881, section 2.
_ED25519 = bytes.fromhex("2b6570")
_ALGORITHMS = {
    bytes.fromhex("2a864886f70d010101"): "an RSA key",
    bytes.fromhex("2a864886f70d01010a"): "an RSA key",
    bytes.fromhex("2a8648ce380401"): "a DSA key",
    bytes.fromhex("2a864886f70d010301"): "a Diffie-Hellman key",
    bytes.fromhex("2a8648ce3d0201"): "an ECDSA key",
    bytes.fromhex("2b656e"): "an X25519 key",
    bytes.fromhex("2b656f"): "an X448 key",
    bytes.fromhex("2b6571"): "an Ed448 key",
    **{bytes.fromhex(f"6086480165030403{last:02x}"): "an ML-DSA key" for last in (17, 18, 19)},
}
# Labels of PEM blocks of other things, by their beginnings.
_LABELS = {
    "RSA ": "an RSA key",
    "EC ": "an ECDSA key",
    "DSA ": "a DSA key",
    "CERTIFICATE": "a certificate",
    "X509 ": "a certificate",
    "PGP ": "an OpenPGP key",
}
_OTHER_FORMS = (
    (b"PuTTY-User-Key-File-", "a key of PuTTY", "convert it: puttygen FILE -O private-openssh-new -o NEW"),
    (b"---- BEGIN SSH2 PUBLIC KEY", "a key in the form of RFC 4716", "convert it: ssh-keygen -i -f FILE > NEW.pub"),
    (b"\x30", "a key in DER, or no key", "convert it: openssl pkey -in FILE -out NEW, for a public key with -pubin"),
)
