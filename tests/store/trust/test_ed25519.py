"""Strict Ed25519 against public vectors, and against a second, affine arithmetic of the curve."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from store.trust import ed25519
from store.trust.ed25519 import is_enrollable, is_strict_point, verify
from tests.support.missions import key

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P

Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    """The affine addition law of -x^2 + y^2 = 1 + d x^2 y^2."""
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, P - 2, P) % P
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, P - 2, P) % P
    return x, y


def times(scalar: int, point: Point) -> Point:
    result = (0, 1)
    for bit in f"{scalar:b}":
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def with_y(y: int) -> Point | None:
    """The point of this y with an even x, if there is one."""
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return None
    return (x if x % 2 == 0 else P - x), y


def encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decoded(raw: bytes) -> Point:
    number = int.from_bytes(raw, "little")
    point = with_y(number & (2**255 - 1))
    assert point is not None
    return point if number >> 255 == 0 else ((P - point[0]) % P, point[1])


def torsion() -> list[Point]:
    """The eight points of order 1, 2, 4 and 8."""
    for y in range(2, 100):
        point = with_y(y)
        generator = times(ORDER, point) if point else (0, 1)
        if times(4, generator) != (0, 1):
            return [times(n, generator) for n in range(8)]
    raise AssertionError("no point of order 8 was found")


RFC_8032 = [  # section 7.1, tests 1 and 2: secret key, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe"
        "24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302a"
        "eeb00d291612bb0c00",
    ),
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_vectors_of_rfc_8032(secret: str, public: str, message: str, signature: str) -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    raw, text, signed = bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature)
    assert private.public_key().public_bytes_raw() == raw
    assert private.sign(text) == signed
    assert verify(raw, signed, text)
    assert is_enrollable(raw)
    assert not verify(raw, signed, text + b"x")
    assert not verify(raw, signed[:-1] + bytes([signed[-1] ^ 1]), text)
    assert not verify(raw, signed[:-1], text)
    assert not verify(raw, signed + b"\x00", text)
    assert not verify(raw[:-1], signed, text)


def test_wycheproof(shared: Path) -> None:
    suite: dict[str, Any] = json.loads((shared / "vectors" / "wycheproof-ed25519.json").read_text())
    seen = 0
    for group in suite["testGroups"]:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for case in group["tests"]:
            holds = verify(public, bytes.fromhex(case["sig"]), bytes.fromhex(case["msg"]))
            assert holds is (case["result"] == "valid"), case["tcId"]
            seen += 1
    assert seen == suite["numberOfTests"] == 151


def test_speccheck_accepts_none(shared: Path) -> None:
    cases: list[dict[str, str]] = json.loads((shared / "vectors" / "ed25519-speccheck.json").read_text())
    assert len(cases) == 12
    lenient = 0
    for case in cases:
        public, signature, message = (bytes.fromhex(case[name]) for name in ("pub_key", "signature", "message"))
        assert not verify(public, signature, message)
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
            lenient += 1
        except Exception:
            continue
    # If the library were as strict, the gate here would prove nothing.
    assert lenient


def test_the_y_of_every_small_order_point_is_refused() -> None:
    points = torsion()
    assert len(set(points)) == 8
    assert {y for _, y in points} == ed25519._SMALL_ORDER_Y
    for x, y in points:
        for sign in (0, 1):
            raw = (y | sign << 255).to_bytes(32, "little")
            assert not is_strict_point(raw)
            assert not is_enrollable(raw)
        assert (x, y) == (0, 1) or times(8, (x, y)) == (0, 1)


@pytest.mark.parametrize("y", [P, P + 1, 2**255 - 1])
def test_a_y_above_the_field_is_refused(y: int) -> None:
    for sign in (0, 1):
        assert not is_strict_point((y | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_point_has_32_bytes(size: int) -> None:
    assert not is_strict_point(b"\x05" * size)
    assert not is_enrollable(b"\x05" * size)


def test_keys_of_the_prime_order_subgroup_may_be_enrolled() -> None:
    for name in ("a", "b", "c"):
        raw = key(name).public.raw
        assert times(ORDER, decoded(raw)) == (0, 1)
        assert is_enrollable(raw)


def test_a_point_of_mixed_order_may_not_be_enrolled() -> None:
    good = decoded(key("a").public.raw)
    for small in torsion():
        raw = encoded(add(good, small))
        assert is_strict_point(raw)
        assert is_enrollable(raw) is (small == (0, 1))


def test_what_is_on_no_curve_may_not_be_enrolled() -> None:
    off = next(y for y in range(2, 100) if with_y(y) is None)
    raw = off.to_bytes(32, "little")
    assert is_strict_point(raw)
    assert not is_enrollable(raw)
    assert not verify(raw, bytes(32) + bytes(32), b"")


def test_a_key_of_small_order_verifies_nothing_although_the_library_would() -> None:
    # A = R = the point of order 2, S = 0 and an even challenge: R = S*B - k*A holds for messages nobody signed.
    weak = encoded((0, P - 1))
    accepted = 0
    for message in (bytes([i]) for i in range(16)):
        signature = encoded((0, 1)) + bytes(32)
        assert not verify(weak, signature, message)
        try:
            Ed25519PublicKey.from_public_bytes(weak).verify(signature, message)
            accepted += 1
        except Exception:
            continue
    assert accepted


def test_a_commitment_of_small_order_is_refused_even_from_the_key_itself() -> None:
    # R = O and S = k*a, with a the secret scalar of RFC 8032, section 5.1.5: such a signature gives the key away.
    seed, public = bytes.fromhex(RFC_8032[0][0]), bytes.fromhex(RFC_8032[0][1])
    low = bytearray(hashlib.sha512(seed).digest()[:32])
    low[0] &= 248
    low[31] = low[31] & 63 | 64
    commitment = encoded((0, 1))
    challenge = int.from_bytes(hashlib.sha512(commitment + public + b"x").digest(), "little")
    scalar = challenge * int.from_bytes(low, "little") % ORDER
    signature = commitment + scalar.to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(public).verify(signature, b"x")
    assert not verify(public, signature, b"x")
