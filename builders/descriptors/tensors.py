"""Canonical safetensors: named arrays and text as bytes, and back. Bytes to value; opens no file.

The stock safetensors reader opens these bytes. The stock writer gives its header no fixed order, so this module has a
writer of its own: 8 bytes little-endian length; a JSON header in UTF-8 with sorted keys and no spaces, padded with
spaces so that the data begins at a multiple of 4096; the tensors by descending item size, then by name. All numbers are
little-endian, and no byte is between or behind the tensors.

Law: only bytes of `write_tensors` are read: `write_tensors(*read_tensors(b)) == b`, and any other bytes are Corrupt.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.errors import Corrupt, Invalid

MAX_HEADER = 64 << 10
ALIGNMENT = 4096
_LENGTH = 8
_DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "U8": np.dtype("u1"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MAX_DIMS = 8
# Keeps every product far from the limits of an index.
_MAX_SIZE = 1 << 48


class Tensors(NamedTuple):
    """Arrays of float16, float32, uint64 or uint8 by name, and text by text. The arrays of `read_tensors` are views of
    its bytes, read-only where the bytes are."""

    arrays: Mapping[str, NDArray[Any]]
    metadata: Mapping[str, str]


def write_tensors(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of these tensors: equal values give equal bytes on every machine.

    Raises Invalid for arrays of another dtype, and for a header of more than 64 KiB.
    """
    if not all(type(key) is str and type(value) is str for key, value in metadata.items()):
        raise Invalid("the metadata must be text")
    kinds = {}
    for name, array in arrays.items():
        kind = _NAMES.get(array.dtype.newbyteorder("<"))
        if kind is None:
            raise Invalid(f"{name} is an array of {array.dtype}, not one of {', '.join(_DTYPES)}")
        kinds[name] = (kind, array.shape)
    header = _header(kinds, metadata)
    data = (np.ascontiguousarray(arrays[name], _DTYPES[kinds[name][0]]).tobytes() for name in _ordered(kinds))
    return b"".join([header, *data])


def read_tensors(data: bytes | bytearray | memoryview) -> Tensors:
    """Return the tensors in `data`, without copying it. Raises Corrupt for bytes not written by `write_tensors`."""
    view = memoryview(data).cast("B")
    length = int.from_bytes(view[:_LENGTH], "little")
    start = _LENGTH + length
    if len(view) < ALIGNMENT or length > MAX_HEADER or start > len(view) or start % ALIGNMENT:
        raise Corrupt(
            f"expected canonical safetensors, found {len(view)} bytes that give their header {length} bytes",
            actual=len(view),
            header=length,
        )
    header = bytes(view[_LENGTH:start])
    try:
        kinds, metadata = _fields(json.loads(header.decode("utf-8")))
        canonical = _header(kinds, metadata)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, Invalid) as error:
        raise Corrupt(f"the header of the tensors is not valid: {error}"[:300]) from None
    if canonical[_LENGTH:] != header:
        raise Corrupt("the header of the tensors is not in canonical form")
    expected = start + sum(_bytes(kind) for kind in kinds.values())
    if len(view) != expected:
        raise Corrupt(
            f"the tensors have {len(view)} bytes, their header gives {expected}", expected=expected, actual=len(view)
        )
    arrays: dict[str, NDArray[Any]] = {}
    for name in _ordered(kinds):
        kind, shape = kinds[name]
        arrays[name] = np.frombuffer(view, _DTYPES[kind], math.prod(shape), start).reshape(shape)
        start += arrays[name].nbytes
    return Tensors(arrays, metadata)


_Kind = tuple[str, tuple[int, ...]]


def _fields(header: Any) -> tuple[dict[str, _Kind], dict[str, str]]:
    """(dtype and shape by name, metadata) of a parsed header. The comparison of bytes checks all other fields."""
    metadata = header.pop("__metadata__")
    if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
        raise ValueError("the metadata is not text")
    kinds: dict[str, _Kind] = {}
    for name, entry in header.items():
        kind, shape = entry["dtype"], entry["shape"]
        if not (type(kind) is str and kind in _DTYPES):
            raise ValueError(f"{name} has an unknown dtype")
        if not (type(shape) is list and len(shape) <= _MAX_DIMS and all(type(n) is int and n >= 0 for n in shape)):
            raise ValueError(f"{name} has no valid shape")
        if math.prod(max(n, 1) for n in shape) > _MAX_SIZE:
            raise ValueError(f"{name} is too large")
        kinds[name] = (kind, tuple(shape))
    return kinds, metadata


def _ordered(kinds: Mapping[str, _Kind]) -> list[str]:
    return sorted(kinds, key=lambda name: (-_DTYPES[kinds[name][0]].itemsize, name))


def _bytes(kind: _Kind) -> int:
    return _DTYPES[kind[0]].itemsize * math.prod(kind[1])


def _header(kinds: Mapping[str, _Kind], metadata: Mapping[str, str]) -> bytes:
    """Length and padded JSON: the one canonical form."""
    fields: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name in _ordered(kinds):
        kind, shape = kinds[name]
        end = at + _bytes(kinds[name])
        fields[name] = {"data_offsets": [at, end], "dtype": kind, "shape": list(shape)}
        at = end
    try:
        text = json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        raise Invalid("the metadata holds text that UTF-8 cannot encode") from None
    size = -(-(_LENGTH + len(text)) // ALIGNMENT) * ALIGNMENT - _LENGTH
    if size > MAX_HEADER:
        raise Invalid(f"the header of the tensors would have {size} bytes, at most {MAX_HEADER} are allowed")
    return size.to_bytes(_LENGTH, "little") + text.ljust(size)
