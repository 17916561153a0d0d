"""One object as the difference from another that the receiver has: a Zstandard frame (RFC 8878) with that one as its
prefix.

For where bytes are dear: a radio, a data diode. Whoever applies a difference knows the id of the object, and hashes
what comes out: a wrong base or a wrong frame gives no object.
"""

from __future__ import annotations

import sys
from typing import Any

from store.errors import Corrupt, Unavailable
from store.format.ids import ObjectId
from store.installation import install_remedy

# The most bytes of a base or an object: both are in memory at once.
LARGEST = 2**29
# What a frame says of itself, beside the bytes.
_OVERHEAD = 2**10


def difference(base: bytes, data: bytes) -> bytes:
    """Return the frame that `applied` takes. Raise Unavailable without the library."""
    zstd = _library()
    parameter = zstd.CompressionParameter
    options = {
        parameter.enable_long_distance_matching: 1,
        parameter.window_log: _window_log(len(base) + len(data)),
        parameter.checksum_flag: 0,
    }
    return bytes(zstd.compress(data, options=options, zstd_dict=_prefix(zstd, base)))


def applied(base: bytes, frame: bytes, id_: ObjectId, size: int) -> bytes:
    """Return the object of this id and size. Raise Corrupt (`bad-delta`) unless the frame gives exactly that."""
    zstd = _library()
    window = {zstd.DecompressionParameter.window_log_max: _window_log(len(base) + size)}
    decoder = zstd.ZstdDecompressor(zstd_dict=_prefix(zstd, base), options=window)
    try:
        data = bytes(decoder.decompress(frame, max_length=size + 1))
    except zstd.ZstdError as error:
        raise _wrong(id_, str(error)) from error
    if len(data) != size or not decoder.eof or decoder.unused_data or ObjectId.of(data) != id_:
        raise _wrong(id_, "it gives other bytes")
    return data


def is_worth(frame: bytes, size: int) -> bool:
    """Whether a frame saves a tenth of the object, so that the receiver's work is worth it."""
    return len(frame) + _OVERHEAD < size - size // 10


def _window_log(size: int) -> int:
    """Return the least window that reaches over so many bytes, of those that a frame may have."""
    return max(10, size.bit_length())


def _prefix(zstd: Any, base: bytes) -> Any:
    """Return what the library takes for a base; it takes none of fewer than eight bytes."""
    return zstd.ZstdDict(base, is_raw=True).as_prefix if len(base) >= 8 else None


def _wrong(id_: ObjectId, why: str) -> Corrupt:
    return Corrupt(
        f"the difference for object {id_} does not apply: {why}",
        remedy="carry the bag again; if this stays, run store-fsck on the store, or pack without --delta",
        kind="bad-delta",
        object=id_,
    )


def _library() -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError as error:
        raise Unavailable(
            "differences need the library Zstandard for Python",
            remedy=f"{install_remedy('remotes')}, or pack without --delta",
            library="backports.zstd",
            extra="remotes",
        ) from error
    return zstd
