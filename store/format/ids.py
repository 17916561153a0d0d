"""Digests (FORMAT.md 1): the id of an object, build keys, and hashes under a context.

Law: `ObjectId.parse(str(i)) == i`, and only 64 lower-case hex digits parse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from blake3 import blake3

from store.errors import Corrupt, Invalid, NotFound, instead_of

if TYPE_CHECKING:
    from typing_extensions import Self

DIGEST_SIZE = 32
BUILD_KEY_CONTEXT = "flightbag 2026 build key v1"
LEAST_DIGITS = 6
_HEX = re.compile(r"[0-9a-f]{64}")
_BEGINNING = re.compile(rf"[0-9A-Fa-f]{{{LEAST_DIGITS},64}}")
# The most ids that a message lists.
_OFFERED = 5
D = TypeVar("D", bound=bytes)


def is_hex(text: str) -> bool:
    """Whether `text` is 64 lower-case hex digits, as a digest is printed."""
    return _HEX.fullmatch(text) is not None


class Digest(bytes):
    """32 bytes of BLAKE3, printed as 64 lower-case hex digits. Subclasses name what was hashed.

    Raises Invalid for another number of bytes.
    """

    __slots__ = ()
    NAME = "digest"

    def __new__(cls, raw: bytes) -> Self:
        if len(raw) != DIGEST_SIZE:
            raise Invalid(f"the {cls.NAME} has {len(raw)} bytes, must have {DIGEST_SIZE}")
        return bytes.__new__(cls, raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the digest that is printed as `text`. Raises Invalid unless it is 64 lower-case hex digits."""
        if not is_hex(text):
            raise Invalid(f"{text[:80]!r} is not a full {cls.NAME}", remedy="give all of its 64 lower-case hex digits")
        return cls(bytes.fromhex(text))

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hex()[:12]}…)"


def may_begin(text: str) -> bool:
    """Whether an id may begin with `text`, and nothing shorter than people may write: 6 to 64 hex digits."""
    return _BEGINNING.fullmatch(text) is not None


def begun_by(text: str, ids: Iterable[D], what: str) -> D:
    """Return the one of these ids that begins with `text`, at least 6 hex digits; `what` names their kind in messages.

    Raise Invalid for another text, and where several ids begin so, with those; NotFound for none, with the nearest.
    """
    if not may_begin(text):
        remedy = f"give at least the first {LEAST_DIGITS} hex digits of an id"
        raise Invalid(f"{text[:80]!r} is not the beginning of an id", remedy=remedy)
    known = sorted({id_.hex(): id_ for id_ in ids}.items())
    start = text.lower()
    fit = [(name, id_) for name, id_ in known if name.startswith(start)]
    if len(fit) == 1:
        return fit[0][1]
    if fit:
        names = [name for name, _ in fit]
        digits = next(count for count in range(12, 65) if len({name[:count] for name in names}) == len(names))
        more = f" and {len(names) - _OFFERED} more" if len(names) > _OFFERED else ""
        listed = ", ".join(name[:digits] for name in names[:_OFFERED])
        text = f"{len(names)} ids begin with {text}: {listed}{more}"
        raise Invalid(text, remedy="give more digits", kind="ambiguous")
    near = instead_of(start, sorted({name[: len(start)] for name, _ in known}))
    raise NotFound(f"no {what} has an id that begins with {text}", remedy=near or f"there is no {what}", kind="missing")


class ObjectId(Digest):
    """BLAKE3-256 of an object's bytes."""

    __slots__ = ()
    NAME = "object id"

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview) -> Self:
        """Return the id of the object with exactly these bytes."""
        return cls(blake3(data).digest())


class BuildKey(Digest):
    """Hash of everything that determines the meaning of an artifact (FORMAT.md 6.3, `builders.recipe`)."""

    __slots__ = ()
    NAME = "build key"


def derive(context: str, data: bytes) -> bytes:
    """Return the BLAKE3 `derive_key` hash of `data`, 32 bytes, under one of the contexts that FORMAT.md 1 lists."""
    return blake3(data, derive_key_context=context).digest()


def deriving(context: str) -> Callable[[bytes], bytes]:
    """Return `derive` under one context, of which it derives the key once, for many small data. For one thread."""
    hasher = blake3(derive_key_context=context)
    reset, update, digest = hasher.reset, hasher.update, hasher.digest

    def derive_next(data: bytes) -> bytes:
        reset()
        update(data)
        return digest()

    return derive_next


def sized_object(item: object, field: str, most: int) -> tuple[ObjectId, int]:
    """Return the (object id, size) of a decoded [object id, size], of at most so many bytes. Raises Corrupt (kind
    bad-field) for anything else; `field` says where it stands."""
    match item:
        case [bytes(raw), int(size)] if len(raw) == DIGEST_SIZE and 0 <= size <= most:
            return ObjectId(raw), size
    raise Corrupt(f"{field} is not [object id, size]", kind="bad-field", field=field)
