"""A short code that two people compare over the radio: ten characters in place of the sixty-four of a digest.

The code has fifty bits of BLAKE3 in Crockford's base 32, which lacks I, L, O and U. Another mission with the code of a
given one takes some 2^50 tries. Whoever composes both makes two with one code in some 2^26, which are minutes
(FORMAT.md 11). It replaces no signature.
"""

from __future__ import annotations

from store.errors import Invalid
from store.format.ids import derive

CONTEXT = "flightbag 2026 short code v1"
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 10
# What people write for the letters that the alphabet lacks (Crockford); hyphens are theirs to set.
_CONFUSED = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None})


def short_code(*digests: bytes) -> str:
    """Return the code of some digests, in two groups of five characters: `4X7QK-09DZM`."""
    number = int.from_bytes(derive(CONTEXT, b"".join(digests))[:7], "big") >> 6
    text = "".join(_ALPHABET[number >> (5 * place) & 31] for place in reversed(range(_LENGTH)))
    return f"{text[:5]}-{text[5:]}"


def read_code(text: str) -> str:
    """Return the code that a person means: in either case, with or without the hyphen, O for 0, I and L for 1.

    Law: `read_code(short_code(digest)) == short_code(digest)`. Raise Invalid for any other text.
    """
    code = text.strip().upper().translate(_CONFUSED)
    if len(code) != _LENGTH or not set(code) <= set(_ALPHABET):
        raise Invalid(
            f"{text[:80]!r} is not a code", remedy="give the ten characters that were shown to you, like 4X7QK-09DZM"
        )
    return f"{code[:5]}-{code[5:]}"
