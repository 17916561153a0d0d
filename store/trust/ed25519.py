"""Ed25519 (RFC 8032), stricter than the library: a key has one encoding, and a signature fits one message (FORMAT.md
4.1).

The library accepts public keys A and commitments R of small and of mixed order, and non-canonical encodings of A. Such
signatures can verify under keys or for messages that nobody signed. Here the y coordinate of R decides: every point of
order 1, 2, 4 or 8 has one of five values. A must lie in the prime-order subgroup; that check takes some milliseconds,
and its result is cached. With such an A, the equation that the library checks admits no R outside of the subgroup.

This module signs nothing and knows no envelopes; see `keys`.
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, P) % P
_SQRT_M1 = pow(2, (P - 1) // 4, P)
# The y of the eight torsion points: order 1 is y = 1, order 2 is y = -1, order 4 is y = 0, and the four points of
# order 8 share two, y = +-y8 (tests derive them from the curve equation).
_Y8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER_Y = frozenset({0, 1, P - 1, _Y8, P - _Y8})

_Point = tuple[int, int, int, int]


def is_strict_point(encoded: bytes) -> bool:
    """Whether `encoded` is 32 bytes that encode a y canonically, and no point of small order has that y."""
    if len(encoded) != 32:
        return False
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    return y < P and y not in _SMALL_ORDER_Y


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` (64 bytes) is the strict signature of `message` by the public key `public` (32 bytes)."""
    if len(signature) != 64 or not is_strict_point(signature[:32]) or not is_enrollable(public):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(maxsize=1024)
def is_enrollable(public: bytes) -> bool:
    """Whether 32 bytes may be enrolled as a key: a canonical point of the prime-order subgroup, not the identity."""
    if not is_strict_point(public):
        return False
    point = _decompress(public)
    return point is not None and _is_identity(_multiply(L, point))


def _decompress(encoded: bytes) -> _Point | None:
    """The point of an encoding in extended coordinates (X, Y, Z, T), None for no point (RFC 8032, section 5.1.3)."""
    number = int.from_bytes(encoded, "little")
    y, sign = number & (2**255 - 1), number >> 255
    u, v = (y * y - 1) % P, (_D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if (v * x * x - u) % P:
        x = x * _SQRT_M1 % P
        if (v * x * x - u) % P:
            return None
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def _add(p: _Point, q: _Point) -> _Point:
    """The sum of two points (RFC 8032, section 5.1.4). The addition is complete: it also doubles."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]), (p[1] + p[0]) * (q[1] + q[0])
    c, d = 2 * p[3] * q[3] * _D, 2 * p[2] * q[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _multiply(scalar: int, point: _Point) -> _Point:
    result: _Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _is_identity(p: _Point) -> bool:
    return p[0] % P == 0 and (p[1] - p[2]) % P == 0
