"""What the first bytes of a tile say about it: whether they are those of an image, and if not, what they are. Pure.

So a plan knows the tiles that no decoder accepts without decoding one. An image may be damaged behind its first bytes;
only a decoder finds that. What a container states of its tiles decides nothing, and a contradiction is reported.
"""

from __future__ import annotations

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
_RIFF, _WEBP = b"RIFF", b"WEBP"
_TEXT = (b"<", b"{", b"[")
# By the code of a fault; the stat cache keeps the codes.
FAULTS = (
    "",
    "the tile has no bytes: it is empty, not a blob, larger than 16 MiB, or damaged gzip",
    "the bytes are compressed with gzip: unpack the tiles",
    "the bytes are compressed with zlib: unpack the tiles",
    "the bytes are compressed with zstd: unpack the tiles",
    "the bytes are text, such as the answer of a server",
    "the bytes are a vector tile, not an image",
    "the bytes are not a JPEG, PNG or WebP image",
    "the image has another size than coverage.tile_size gives",
)
_EMPTY, _GZIP, _ZLIB, _ZSTD, _IS_TEXT, _VECTOR, _OTHER, WRONG_SIZE = range(1, len(FAULTS))
_STARTS = (
    (b"\x1f\x8b", _GZIP),
    (b"\x78\x01", _ZLIB),
    (b"\x78\x5e", _ZLIB),
    (b"\x78\x9c", _ZLIB),
    (b"\x78\xda", _ZLIB),
    (b"\x28\xb5\x2f\xfd", _ZSTD),
    (b"\x1a", _VECTOR),  # a Mapbox vector tile begins with its first layer: field 3, of a length
)
# What containers call formats of which no tile is an image here.
FOREIGN = frozenset(("avif", "mlt", "mvt", "pbf", "vnd.mapbox-vector-tile", "x-protobuf"))
_NAMES = {"jpg": "JPEG", "jpeg": "JPEG", "jfif": "JPEG", "png": "PNG", "webp": "WebP"}
_MIXED = frozenset(("", "hybrid", "mixed"))


def is_webp(data: bytes) -> bool:
    return data.startswith(_RIFF) and data[8:12] == _WEBP


def fault_of(data: bytes) -> int:
    """0 for bytes that begin like a JPEG, PNG or WebP image; otherwise the index in FAULTS of what they are."""
    if data.startswith((JPEG, PNG)) or is_webp(data):
        return 0
    if not data:
        return _EMPTY
    for start, fault in _STARTS:
        if data.startswith(start):
            return fault
    return _IS_TEXT if data[:64].lstrip().startswith(_TEXT) else _OTHER


def format_of(data: bytes) -> str:
    """JPEG, PNG or WebP, by the first bytes; "" for anything else."""
    if data.startswith(JPEG):
        return "JPEG"
    return "PNG" if data.startswith(PNG) else "WebP" if is_webp(data) else ""


def plain_name(stated: str) -> str:
    """The name of a format as a container states it, without its spelling: "jpg" of "image/JPG", "png" of ".png8"."""
    name = stated.strip().lower().rpartition("/")[2].lstrip(".")
    return "png" if name in ("png8", "png24", "png32") else name


def contradiction(stated: str, data: bytes) -> str:
    """What a container states against one of its tiles; "" if they agree, and where it states none or a mixture."""
    name, real = plain_name(stated), format_of(data)
    if name in _MIXED or not real or _NAMES.get(name) == real:
        return ""
    return f"the format that it states is {stated.strip()[:40]!r}, and its tiles are {real}, as which they are read"
