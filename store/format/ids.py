"""Digests: the id of an object, and the keys derived with a context.

Law: `ObjectId.parse(str(i)) == i`, and only 64 lower-case hex digits parse.
"""

from __future__ import annotations

import re
from typing import Self

from blake3 import blake3

from store.errors import Invalid

DIGEST_SIZE = 32
_HEX = re.compile(r"[0-9a-f]{64}")


def is_hex(text: str) -> bool:
    """Whether `text` is a digest as it is printed."""
    return _HEX.fullmatch(text) is not None


class Digest(bytes):
    """32 bytes of BLAKE3, printed as 64 lower-case hex digits. Subclasses say what was hashed."""

    __slots__ = ()
    WHAT = "digest"

    def __new__(cls, raw: bytes) -> Self:
        if len(raw) != DIGEST_SIZE:
            raise Invalid(f"a {cls.__name__} has {DIGEST_SIZE} bytes, this has {len(raw)}")
        return super().__new__(cls, raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The digest printed as `text`. Raises Invalid for anything but 64 lower-case hex digits."""
        if not is_hex(text):
            raise Invalid(f"{text[:80]!r} is no {cls.WHAT}", remedy="give all of its 64 lower-case hex digits")
        return cls(bytes.fromhex(text))

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()[:12]}…)"


class ObjectId(Digest):
    """BLAKE3-256 of an object's bytes."""

    __slots__ = ()
    WHAT = "object id"

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """The id of an object with exactly these bytes."""
        return cls(blake3(data).digest())


class BuildKey(Digest):
    """Hash of everything that determines an artifact's meaning (see `builders.recipe`)."""

    __slots__ = ()
    WHAT = "build key"


def derive(context: str, data: bytes) -> bytes:
    """BLAKE3 `derive_key` of `data` under a context string that FORMAT.md lists. 32 bytes."""
    return blake3(data, derive_key_context=context).digest()
