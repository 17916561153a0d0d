"""Keys: the kid, PEM and its errors, signing."""

from __future__ import annotations

import base64
import hashlib

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from store.errors import Invalid, Untrusted
from store.format.cose import Envelope, Signature
from store.trust.key_file import LEAST_PASSPHRASE, MAX_PASSPHRASE, armoured, block
from store.trust.keys import PassphraseNeeded, PrivateKey, PublicKey, sign
from tests.support.missions import key

KEY = key("pilot")


def pem(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n".encode() + base64.b64encode(der) + f"\n-----END {label}-----\n".encode()


def test_the_kid_is_the_cose_thumbprint_of_rfc_9679() -> None:
    # kty OKP (1), crv Ed25519 (6), x; SHA-256 of the deterministic encoding.
    members = cbor2.dumps({1: 1, -1: 6, -2: KEY.public.raw}, canonical=True)
    assert KEY.public.kid == hashlib.sha256(members).digest()


def test_keys_are_equal_by_their_bytes() -> None:
    assert key("pilot").public == KEY.public
    assert key("other").public != KEY.public
    assert PrivateKey.generate().public != PrivateKey.generate().public
    with pytest.raises(Invalid):
        PublicKey(bytes(31))


def test_a_public_pem_reads_back() -> None:
    assert PublicKey.of_pem(KEY.public.pem()) == KEY.public


@pytest.mark.parametrize(
    "passphrase", [None, b"p" * LEAST_PASSPHRASE, "viele liebe grüße".encode(), b"p" * MAX_PASSPHRASE]
)
def test_a_private_pem_reads_back(passphrase: bytes | None) -> None:
    data = KEY.pem(passphrase)
    assert PrivateKey.of_pem(data, passphrase).public == KEY.public
    assert (b"ENCRYPTED" in data) is (passphrase is not None)


def test_a_private_half_of_another_key_is_refused() -> None:
    mine, other = (
        Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        for n in (1, 2)
    )
    (label, content), public = block(mine), PrivateKey.of_pem(other, None).public
    assert PrivateKey.of_pem(armoured(label, content), None).public != public
    # In the place of the seed, before its own public half.
    changed = content.replace(bytes([1]) * 32, bytes([2]) * 32)
    with pytest.raises(Invalid, match="is not that of the public key in its file") as caught:
        PrivateKey.of_pem(armoured(label, changed), None)
    assert "another copy" in caught.value.remedy


@pytest.mark.parametrize(
    "passphrase",
    [b"", b"p" * (LEAST_PASSPHRASE - 1), "ü".encode() * (LEAST_PASSPHRASE - 1), b"p" * (MAX_PASSPHRASE + 1)],
)
def test_no_passphrase_that_protects_little_or_cannot_be_used(passphrase: bytes) -> None:
    with pytest.raises(Invalid):
        KEY.pem(passphrase)


def test_a_wrong_or_a_needless_passphrase() -> None:
    locked, clear = KEY.pem(b"right horse staple"), KEY.pem(None)
    for data, passphrase in ((locked, b"wrong"), (locked, None), (clear, b"right horse staple")):
        with pytest.raises(Invalid) as caught:
            PrivateKey.of_pem(data, passphrase)
        assert isinstance(caught.value, PassphraseNeeded) == (passphrase is None)
    with pytest.raises(Invalid, match="key, or the passphrase is wrong; try the passphrase"):
        PrivateKey.of_pem(locked, b"wrong")
    with pytest.raises(Invalid, match="is not encrypted, but a passphrase was given"):
        PrivateKey.of_pem(clear, b"right horse staple")
    for passphrase in (None, b"x"):
        with pytest.raises(Invalid, match="expected a private key, found a public key"):
            PrivateKey.of_pem(KEY.public.pem(), passphrase)
    with pytest.raises(Invalid, match="this is a key of an unknown algorithm; an Ed25519 key is needed"):
        PrivateKey.of_pem(pem("PRIVATE KEY", UNKNOWN_PRIVATE), None)


PUBLIC_PREFIX = bytes.fromhex("302a300506032b6570032100")
# SubjectPublicKeyInfo and PKCS#8 with algorithms that nobody knows (OID 1.3.101.120).
UNKNOWN_PUBLIC = bytes.fromhex("302a300506032b6578032100") + bytes(32)
PRIVATE_DER = base64.b64decode(b"".join(KEY.pem(None).splitlines()[1:-1]))
UNKNOWN_PRIVATE = bytes.fromhex("302e020100300506032b657804220420") + bytes(32)


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"not a key", b"\x00" * 64, pem("PUBLIC KEY", b""), pem("PUBLIC KEY", UNKNOWN_PUBLIC), KEY.pem(None)),
        KEY.public.pem() + key("other").public.pem(),
        KEY.public.pem() + b"x",
        KEY.public.pem() + b"\n",
        b"# the pilot\n" + KEY.public.pem(),
        b"\xef\xbb\xbf" + KEY.public.pem(),
        KEY.public.pem().replace(b"-\n", b"-\nComment: pilot\n", 1),
        KEY.public.pem() + KEY.pem(None),
        pem("PUBLIC KEY", PUBLIC_PREFIX + KEY.public.raw + b"x"),
        pem("PUBLIC KEY", PUBLIC_PREFIX + KEY.public.raw[:31]),
        pem("PRIVATE KEY", PUBLIC_PREFIX + KEY.public.raw),
        KEY.public.pem().replace(b"=", b""),
        KEY.public.pem().replace(b"END PUBLIC", b"END PRIVATE"),
    ],
    ids=[
        *("empty", "text", "zeroes", "no_der", "unknown_algorithm", "private", "two_keys", "text_after", "line_after"),
        *("comment_before", "byte_order_mark", "header", "its_private_key_too", "long_der", "short_der", "label"),
        *("unpadded", "torn"),
    ],
)
def test_no_public_pem(data: bytes) -> None:
    with pytest.raises(Invalid):
        PublicKey.of_pem(data)


@pytest.mark.parametrize("passphrase", [None, b"x"])
@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"not a key", pem("PRIVATE KEY", b""), pem("PRIVATE KEY", UNKNOWN_PRIVATE), KEY.public.pem()),
        KEY.pem(None) + key("other").pem(None),
        KEY.pem(None) + KEY.public.pem(),
        KEY.pem(None) + b"#",
        pem("PRIVATE KEY", PRIVATE_DER + b"x"),
        pem("ENCRYPTED PRIVATE KEY", PRIVATE_DER),
    ],
    ids=[
        *("empty", "text", "no_der", "unknown_algorithm", "public", "two_keys", "its_public_key_too", "text_after"),
        *("long_der", "label"),
    ],
)
def test_no_private_pem(data: bytes, passphrase: bytes | None) -> None:
    with pytest.raises(Invalid):
        PrivateKey.of_pem(data, passphrase)


@pytest.mark.parametrize("kind", ["ecdsa", "rsa", "x25519"])
def test_keys_of_another_kind(kind: str) -> None:
    other: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | x25519.X25519PrivateKey
    if kind == "ecdsa":
        other = ec.generate_private_key(ec.SECP256R1())
    elif kind == "rsa":
        other = rsa.generate_private_key(65537, 2048)
    else:
        other = x25519.X25519PrivateKey.generate()
    private = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = other.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(Invalid, match="an Ed25519 key is needed"):
        PrivateKey.of_pem(private, None)
    with pytest.raises(Invalid, match="an Ed25519 key is needed"):
        PublicKey.of_pem(public)


def test_enrolment_refuses_weak_points() -> None:
    assert KEY.public.require_enrollable() == KEY.public
    for raw in (bytes(32), (1).to_bytes(32, "little"), b"\xff" * 32):
        with pytest.raises(Untrusted) as caught:
            PublicKey(raw).require_enrollable()
        assert caught.value.fields["kind"] == "weak-key"


def test_a_private_key_does_not_print_itself() -> None:
    assert repr(KEY) == f"PrivateKey(kid={KEY.public.kid.hex()})"


ENVELOPE = Envelope("application/test", b"payload")


def test_a_signature_is_of_the_payload_the_type_the_kid_and_the_domain() -> None:
    (signature,) = sign(ENVELOPE, KEY, b"domain").signatures
    public = KEY.public
    assert public.verifies(ENVELOPE, signature, b"domain")
    assert not public.verifies(ENVELOPE, signature, b"other domain")
    assert not public.verifies(Envelope("application/test", b"other"), signature, b"domain")
    assert not public.verifies(Envelope("application/other", b"payload"), signature, b"domain")
    assert not public.verifies(ENVELOPE, Signature(key("other").public.kid, signature.signature), b"domain")
    assert not key("other").public.verifies(ENVELOPE, signature, b"domain")


def test_signing_twice_keeps_one_signature() -> None:
    once = sign(ENVELOPE, KEY, b"")
    assert sign(once, KEY, b"") == once
    assert len(sign(once, key("other"), b"").signatures) == 2


class Liar:
    """A token that answers with what is no signature of the message."""

    public = KEY.public

    def sign(self, message: bytes) -> bytes:
        return KEY.sign(message + b"x")


def test_a_signer_that_returns_something_else_is_found_out() -> None:
    with pytest.raises(Untrusted) as caught:
        sign(ENVELOPE, Liar(), b"")
    assert caught.value.fields["kind"] == "bad-signature"
