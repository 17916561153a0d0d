"""The pixels of a tile or picture from its encoded bytes, by Pillow.

Tiles come from outside. Size, format and dimensions are checked before a decoder sees the bytes, and whatever
a decoder says against them is `Undecodable`. An image that is no tile of its source, or shows no place, is a
`BadTile` as well; `reason` is for the list of missing tiles. A JPEG whose middle is damaged may decode to other
pixels without a word from the decoder: that is what the hashes of tiles are for.
"""

from __future__ import annotations

import io
import struct
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from builders.descriptors.preprocess import MAX_SIDE, Preprocess
from builders.grid.tiles import MAX_TILE_BYTES
from store.errors import Corrupt

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Pixels that have a plain reading as RGB. CMYK, 16 bits a channel and floats have none.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")


class BadTile(Corrupt):
    """The bytes of a tile are nothing that can be described: one of the classes below, by `reason`."""

    reason: ClassVar[Literal["undecodable", "wrong-size", "blank"]]


class Undecodable(BadTile):
    """The bytes of a tile are no image that can be described; the message says why."""

    reason = "undecodable"


class WrongSize(BadTile):
    """The image is whole, but not of the size that the tiles of its source have."""

    reason = "wrong-size"


class Blank(BadTile):
    """All pixels have one colour: the tile shows no place, and would be described like any other such tile."""

    reason = "blank"


def decode(data: bytes) -> Image.Image:
    """The tile as an RGB image; transparency is dropped. Raises Undecodable with the reason.

    Taken are JPEG, PNG and WebP of at most 16 MiB and 1 to 4096 pixels a side, complete, and of a mode with a
    plain reading as RGB. No global setting of Pillow is changed.
    """
    if not data:
        raise Undecodable("there are no image bytes: the tile is empty, not a blob, or larger than 16 MiB")
    if len(data) > MAX_TILE_BYTES:
        raise Undecodable(f"the tile has {len(data)} bytes, at most {MAX_TILE_BYTES} are decoded")
    try:
        image = _open(data)
        _check_size(*image.size)
        if image.mode not in _MODES:
            raise Undecodable(f"pixels of mode {image.mode} have no plain reading as RGB")
        image.load()
        if image.mode in ("P", "PA") or "transparency" in image.info:
            return image.convert("RGBA").convert("RGB")
        return image if image.mode == "RGB" else image.convert("RGB")
    except Undecodable:
        raise
    except (
        # What Pillow's plug-ins raise on damaged input; Image.open catches the same.
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        LookupError,
        EOFError,
        struct.error,
        OverflowError,
        RuntimeError,
        Image.DecompressionBombError,
        Warning,
    ) as error:
        raise Undecodable(f"{type(error).__name__}: {error}"[:200]) from None


def tile_image(data: bytes, side: int) -> Image.Image:
    """The tile as an RGB image of `side` x `side` pixels.

    Raises Undecodable as `decode` does, then WrongSize for another size, then Blank where every pixel has the
    same colour.
    """
    image = decode(data)
    width, height = image.size
    if image.size != (side, side):
        raise WrongSize(f"the image has {width} x {height} pixels, coverage.tile_size says {side} x {side}")
    if image.getcolors(1) is not None:  # it looks no further than the second colour
        raise Blank(f"every pixel has the colour {image.getpixel((0, 0))}")
    return image


def resized(image: Image.Image, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Return uint8 [height, width, 3]: the pixels of an RGB image of any size, of the size that the backbone takes.

    The pixels are those of `Preprocess.resized`; Pillow makes them several times faster. One side after the other: from
    version 13 on Pillow itself chooses which side comes first, and then the roundings differ (its pull request 9549).
    """
    height, width = preprocess.resize
    method = _FILTERS[preprocess.filter]
    for size in ((width, image.height), (width, height)):
        if image.size != size:
            image = image.resize(size, method)
    return np.asarray(image)


def _open(data: bytes) -> ImageFile.ImageFile:
    """The plug-in's image, header read and no pixel decoded.

    The plug-ins are named rather than found by `Image.open`: only these three formats are ever parsed, and
    its check against decompression bombs is a warning, which cannot be caught safely in a thread.
    """
    file = io.BytesIO(data)
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile(file)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile(file)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        _check_size(*_webp_size(data))  # this plug-in makes room for the canvas when it opens
        return WebPImageFile(file)
    raise Undecodable("not a JPEG, PNG or WebP image")


def _check_size(width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise Undecodable(f"the image has {width} x {height} pixels, 1 to {MAX_SIDE} a side are decoded")


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) from the first chunk of a WebP file (RFC 9649, sections 2.5 to 2.7)."""
    kind, body = data[12:16], data[20:30]
    if len(body) == 10:
        if kind == b"VP8X":
            return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
        if kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", body, 6)
            return width & 0x3FFF, height & 0x3FFF
        if kind == b"VP8L":
            bits = int.from_bytes(body[1:5], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    raise Undecodable("the WebP header is not complete")
