"""From the bytes of a tile to the numbers that a backbone takes: decode, look at, resize, order of colours, scale.

A `Preprocess` is a value that the mission file gives; all of it is in the build key (`fields`), because each
part changes what a descriptor means. Integers and text only there: mean and std are parts per million.

Tiles come from outside. Size, format and dimensions are checked before a decoder sees the bytes, and whatever
a decoder says against them is `Undecodable`. An image that is no tile of its source, or shows no place, is a
`BadTile` as well; `reason` is for the list of missing tiles. A JPEG whose middle is damaged may decode to other
pixels without a word from the decoder: that is what the hashes of tiles are for.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from builders.grid.tiles import MAX_TILE_BYTES
from store.errors import Corrupt, Invalid

MAX_SIDE = 4096
COLOURS = ("RGB", "BGR")
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# What a pixel of 0..255 is multiplied with, and what is added.
SCALES = {"0..1": (1 / 255, 0.0), "0..255": (1.0, 0.0), "-1..1": (2 / 255, -1.0)}
_MILLION = 10**6
# Pixels that have a plain reading as RGB. CMYK, 16 bits a channel and floats have none.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")

Triple: TypeAlias = tuple[float, float, float]


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


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a tile becomes the input of a backbone.

    `resize` is [height, width] in pixels, as in the shape of the input; a tile of another size is resampled
    with `filter` ("nearest", "bilinear", "bicubic", "lanczos"; Pillow's, which smooth when they shrink).
    `colour` is the order of the channels, "RGB" or "BGR". `scale` is what a pixel's 0..255 becomes: "0..1",
    "0..255" or "-1..1". Then, for each channel in the order of `colour`: (value - mean) / std, both in units
    of the scaled value, with at most six decimals. Raises Invalid.
    """

    resize: tuple[int, int]
    colour: str = "RGB"
    scale: str = "0..1"
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    filter: str = "bilinear"

    def __post_init__(self) -> None:
        if len(self.resize) != 2 or not all(type(n) is int and 1 <= n <= MAX_SIDE for n in self.resize):
            raise _invalid("resize", self.resize, f"give [height, width], each 1 to {MAX_SIDE}")
        for key, value, choices in (
            ("colour", self.colour, COLOURS),
            ("scale", self.scale, tuple(SCALES)),
            ("filter", self.filter, tuple(FILTERS)),
        ):
            if value not in choices:
                raise _invalid(key, value, f"give one of {', '.join(choices)}")
        for key, triple in (("mean", self.mean), ("std", self.std)):
            if len(triple) != 3 or not all(_has_six_decimals(value) for value in triple):
                raise _invalid(key, triple, "give three numbers with at most six decimals, one a channel")
        if min(self.std) <= 0:
            raise _invalid("std", self.std, "give three numbers above 0")

    def fields(self) -> dict[str, str | int | list[int]]:
        """Everything that determines the numbers, for a build key: text and integers only."""
        return {
            "decoder": "pillow",
            "resize": list(self.resize),
            "colour": self.colour,
            "scale": self.scale,
            "mean": [round(value * _MILLION) for value in self.mean],
            "std": [round(value * _MILLION) for value in self.std],
            "filter": self.filter,
        }

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Self:
        """The preprocessing with these `fields`. Raises Corrupt for fields that are none of this version's."""
        try:
            height, width = fields["resize"]
            mean, std = (tuple(value / _MILLION for value in fields[key]) for key in ("mean", "std"))
            made = cls((height, width), fields["colour"], fields["scale"], mean, std, fields["filter"])
        except (KeyError, TypeError, ValueError, Invalid) as error:
            raise Corrupt(f"no preprocessing that is known: {error}"[:300]) from None
        if made.fields() != dict(fields):
            raise Corrupt("the preprocessing is another than this version knows")
        return made

    def resized(self, image: Image.Image) -> Image.Image:
        """The image of the size that the backbone takes."""
        height, width = self.resize
        return image if image.size == (width, height) else image.resize((width, height), FILTERS[self.filter])

    def tensor(self, image: Image.Image, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """float32 [3, height, width] of an RGB image of any size, as the class describes; in `out` if given."""
        pixels = np.asarray(self.resized(image)).transpose(2, 0, 1)
        if self.colour == "BGR":
            pixels = pixels[::-1]
        by, plus = SCALES[self.scale]
        mean, std = np.array(self.mean), np.array(self.std)
        numbers: NDArray[np.float32] = np.multiply(
            pixels, (by / std).astype(np.float32)[:, None, None], out=out, order="C"
        )
        if (shift := (plus - mean) / std).any():
            numbers += shift.astype(np.float32)[:, None, None]
        return numbers


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


def _has_six_decimals(value: float) -> bool:
    """Whether `fields` tells the whole value: what is not in the key must not be in the numbers."""
    return math.isfinite(value) and abs(value) <= _MILLION and round(value, 6) == value


def _invalid(key: str, value: object, remedy: str) -> Invalid:
    return Invalid(f"preprocess.{key} cannot be {value!r}", key=f"preprocess.{key}", value=value, remedy=remedy)
