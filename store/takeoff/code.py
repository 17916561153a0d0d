"""A short code that two people compare over the radio: ten characters in place of the sixty-four of a digest.

The code has fifty bits of BLAKE3 in Crockford's base 32, which lacks I, L, O and U. It distinguishes two honest
missions, and costs somebody who can sign much work to make a second mission with the same code. It replaces no
signature.
"""

from __future__ import annotations

from store.format.ids import derive

CONTEXT = "flightbag 2026 short code v1"
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 10


def short_code(*digests: bytes) -> str:
    """Return the code of some digests, in two groups of five characters: `4X7QK-09DZM`."""
    number = int.from_bytes(derive(CONTEXT, b"".join(digests))[:7]) >> 6
    text = "".join(_ALPHABET[number >> (5 * place) & 31] for place in reversed(range(_LENGTH)))
    return f"{text[:5]}-{text[5:]}"
