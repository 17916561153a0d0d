"""Deterministic CBOR (RFC 8949, section 4.2.1), narrowed to the types of Flightbag's files (FORMAT.md 3).

Allowed types: signed 64-bit integers, text, byte strings, arrays, and maps whose keys are text of at most 23 bytes.
Floats, tags, null, booleans and indefinite lengths are refused. For keys below 24 bytes the orders of RFC 7049 and
RFC 8949 agree, so one encoding is canonical under both.

Law: `decode(b)` succeeds only if `encode(decode(b)) == b`, and takes time linear in `b`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, TypeAlias

import cbor2

from store.errors import Corrupt, Invalid

Value: TypeAlias = "int | str | bytes | Sequence[Value] | Mapping[str, Value]"

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
MAX_KEY_BYTES = 23
MAX_DEPTH = 12
# By far the most items have these types; a test in the loop saves a call for each item.
_ALWAYS_FIT = (str, bytes)


class _NoTags(Mapping[int, Callable[[Any, bool], Any]]):
    """Decoders for every tag, each of which refuses the tag.

    A tag is refused before its content is decoded: shared references (tags 28 and 29) let some kilobytes unfold to more
    items than any walk can visit, and other tags compile regular expressions or compute powers.
    """

    def __getitem__(self, tag: int) -> Callable[[Any, bool], Any]:
        raise Invalid(f"the tag {tag} is not allowed in this format")

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


_NO_TAGS = _NoTags()


def _check_types(value: object, depth: int) -> None:
    """Raise Invalid unless `value` is made of the allowed types only. Exact types: for Python a bool is an int."""
    kind = type(value)
    if kind is int:
        if not INT_MIN <= value <= INT_MAX:  # type: ignore[operator]
            raise Invalid(f"the integer {value} does not fit 64 bits")
    elif kind is str or isinstance(value, bytes):
        return
    elif depth == 0:
        raise Invalid(f"nested deeper than {MAX_DEPTH}")
    elif kind is list or kind is tuple:
        for item in value:  # type: ignore[attr-defined]
            if type(item) not in _ALWAYS_FIT:
                _check_types(item, depth - 1)
    elif kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or len(key.encode()) > MAX_KEY_BYTES:
                raise Invalid(f"the map key {key!r} is not text of at most {MAX_KEY_BYTES} bytes")
            if type(item) not in _ALWAYS_FIT:
                _check_types(item, depth - 1)
    else:
        raise Invalid(f"the type {kind.__name__} is not allowed in this format")


def encode(value: Value) -> bytes:
    """Return the canonical encoding. Raises Invalid for a value outside the allowed types."""
    try:
        _check_types(value, MAX_DEPTH)
        return encode_checked(value)
    except UnicodeEncodeError as error:
        raise Invalid("a text holds half of a surrogate pair, which UTF-8 cannot encode") from error


def encode_checked(value: Value) -> bytes:
    """Return the canonical encoding of a value whose types the caller has checked. Saves a walk over many values."""
    return cbor2.dumps(value, canonical=True)


def encode_array(items: Sequence[bytes]) -> bytes:
    """Return the canonical array of items that are already encoded."""
    # The head of an array is the head of the integer of its length with another major type (RFC 8949, section 3.1).
    head = encode(len(items))
    return bytes([0x80 | head[0]]) + head[1:] + b"".join(items)


def _heads(major: int) -> tuple[bytes, ...]:
    """Return the heads of this major type for the arguments 0 to 255 (RFC 8949, section 3)."""
    return tuple(bytes([major << 5 | n] if n < 24 else [major << 5 | 24, n]) for n in range(256))


_INTEGERS, _BYTES, _TEXT = (_heads(major) for major in (0, 2, 3))


def encode_integer(value: int) -> bytes:
    """Return the canonical encoding of an integer that fits 64 bits."""
    if 0 <= value < 256:
        return _INTEGERS[value]
    # The head of two bytes: most objects of a map are smaller than 64 KiB, or a few are larger.
    return b"\x19" + value.to_bytes(2, "big") if 256 <= value < 2**16 else encode_checked(value)


def encode_bytes(value: bytes) -> bytes:
    """Return the canonical encoding of bytes."""
    return _BYTES[len(value)] + value if len(value) < 256 else encode_checked(value)


def encode_text(value: str) -> bytes:
    """Return the canonical encoding of a text."""
    data = value.encode()
    return _TEXT[len(data)] + data if len(data) < 256 else encode_checked(value)


_STRICT: dict[str, Any] = {
    "semantic_decoders": _NO_TAGS,
    "max_depth": MAX_DEPTH + 1,
    "allow_indefinite": False,
    "allow_duplicate_keys": False,
    "strict_hashable_types": True,
}
_REFUSED = (cbor2.CBORError, Invalid, ValueError, TypeError, OverflowError, RecursionError)


def load(data: bytes, *, limit: int, what: str) -> Any:
    """Return the value of CBOR that may not be canonical: the caller must render its result and call `check_canonical`.

    `limit` is in bytes and is checked before anything is parsed. Raises Corrupt, with `what` as the name of the data,
    for data that are too large (kind too-large), malformed, of indefinite length, tagged, or too deep (not-canonical).
    """
    _check_size(data, limit, what)
    try:
        return cbor2.loads(data, **_STRICT)
    except _REFUSED as error:
        raise Corrupt(f"{what} is not canonical CBOR: {error}", kind="not-canonical") from error


def load_items(data: bytes, *, limit: int, most: int, what: str) -> Iterator[Any]:
    """Yield the items of an array of at most `most`, one after another: a list of all takes twice the time to make.

    As `load`, of which it raises the errors too: the caller must encode the items and compare. What follows the last of
    them is not looked at. Raises Corrupt (kind not-canonical) for anything else than such an array.
    """
    _check_size(data, limit, what)
    # The head of the array (RFC 8949, section 3): its number in the low bits, or in so many bytes after it.
    width = {0x98: 1, 0x99: 2, 0x9A: 4}.get(data[0], 0) if data else 0
    count = int.from_bytes(data[1 : 1 + width], "big") if width else int.from_bytes(data[:1], "big") - 0x80
    if not 0 <= count <= most or (not width and count > 23):
        raise Corrupt(f"{what} is not an array of at most {most} items", kind="not-canonical")
    stream = BytesIO(data)
    stream.seek(1 + width)
    decoder = cbor2.CBORDecoder(stream, **_STRICT)
    try:
        for _ in range(count):
            yield decoder.decode()
    except _REFUSED as error:
        raise Corrupt(f"{what} is not canonical CBOR: {error}", kind="not-canonical") from error


def _check_size(data: bytes, limit: int, what: str) -> None:
    if len(data) > limit:
        raise Corrupt(f"{what} has {len(data)} bytes, at most {limit} are allowed", kind="too-large", actual=len(data))


def check_canonical(canonical: bytes, data: bytes, what: str) -> None:
    """Raise Corrupt (kind not-canonical) unless `data` is the canonical encoding."""
    if canonical != data:
        raise Corrupt(f"{what} is CBOR, but not in the canonical form", kind="not-canonical")


def decode(data: bytes, *, limit: int, what: str) -> Any:
    """Return the value of canonical bytes, of which there are at most `limit`.

    Raises Corrupt, with `what` as the name of the data, for data that are too large (kind too-large), malformed, not
    canonical, or of a type that is not allowed (kind not-canonical).
    """
    value = load(data, limit=limit, what=what)
    try:
        canonical = encode(value)
    except Invalid as error:
        raise Corrupt(f"{what} is not canonical CBOR: {error}", kind="not-canonical") from error
    check_canonical(canonical, data, what)
    return value


class Fields:
    """A decoded map of a closed schema. Each method takes one key out of the map; `end` refuses the keys that remain.

    Every method raises Corrupt (kind bad-field), which names the field by its path, for a missing key, a wrong type or
    a value out of bounds. `where` is the path of the map itself.
    """

    def __init__(self, value: object, where: str) -> None:
        self._where = where
        if type(value) is not dict:
            raise self._bad("", "must be a map")
        self._remaining: dict[str, Any] = dict(value)

    def _bad(self, key: str, why: str) -> Corrupt:
        path = f"{self._where}.{key}" if key else self._where
        return Corrupt(f"{path} {why}", kind="bad-field", field=path)

    def __contains__(self, key: str) -> bool:
        return key in self._remaining

    def _take(self, key: str, kind: type) -> Any:
        value = self._remaining.pop(key, None)
        if value is None:
            raise self._bad(key, "is missing")
        if type(value) is not kind:
            raise self._bad(key, f"must be {kind.__name__}, not {type(value).__name__}")
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """Take an integer from `low` to `high`, both included."""
        value: int = self._take(key, int)
        if not low <= value <= high:
            raise self._bad(key, f"is {value}, must be from {low} to {high}")
        return value

    def text(self, key: str, pattern: re.Pattern[str]) -> str:
        """Take a text that matches the pattern from end to end."""
        value: str = self._take(key, str)
        if not pattern.fullmatch(value):
            raise self._bad(key, f"is {value[:80]!r}, which does not match {pattern.pattern}")
        return value

    def choice(self, key: str, allowed: Sequence[str]) -> str:
        """Take one of the allowed texts."""
        value: str = self._take(key, str)
        if value not in allowed:
            raise self._bad(key, f"is {value[:80]!r}, must be one of {', '.join(allowed)}")
        return value

    def binary(self, key: str, size: int) -> bytes:
        """Take exactly `size` bytes."""
        value: bytes = self._take(key, bytes)
        if len(value) != size:
            raise self._bad(key, f"has {len(value)} bytes, must have {size}")
        return value

    def blob(self, key: str, most: int) -> bytes:
        """Take at most `most` bytes."""
        value: bytes = self._take(key, bytes)
        if len(value) > most:
            raise self._bad(key, f"has {len(value)} bytes, must have at most {most}")
        return value

    def array(self, key: str, least: int, most: int) -> list[Any]:
        """Take an array of `least` to `most` items, which are not checked."""
        value: list[Any] = self._take(key, list)
        if not least <= len(value) <= most:
            raise self._bad(key, f"has {len(value)} items, must have {least} to {most}")
        return value

    def fields(self, key: str) -> Fields:
        """Take a map."""
        return Fields(self._take(key, dict), f"{self._where}.{key}")

    def end(self) -> None:
        """Raise Corrupt if a key remains: the schema does not have it."""
        if self._remaining:
            raise self._bad(min(map(str, self._remaining))[:40], "is not a field of this format")


def integers(values: Sequence[object], low: int, high: int, where: str) -> tuple[int, ...]:
    """Return `values` as a tuple.

    Raises Corrupt (kind bad-field, of `where`) unless all are integers within the bounds.
    """
    for value in values:
        if type(value) is not int or not low <= value <= high:
            raise Corrupt(f"{where} must hold integers from {low} to {high}", kind="bad-field", field=where)
    return tuple(values)  # type: ignore[arg-type]


def ascending(values: Sequence[Any], where: str) -> None:
    """Raise Corrupt (kind bad-order) unless the values ascend strictly: order and uniqueness are one rule."""
    if any(a >= b for a, b in itertools.pairwise(values)):
        raise Corrupt(f"{where} is not strictly ascending", kind="bad-order", field=where)
