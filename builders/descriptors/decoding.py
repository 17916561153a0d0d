"""From the encoded bytes of a tile or picture to its pixels, by Pillow, and for common tiles by libjpeg-turbo directly.

Tiles come from outside. Their size, format, dimensions, and the number of their parts (`structure`) are checked before
a decoder gets the bytes, and every error of a decoder becomes `Undecodable`. An image of another size than its source's
tiles, with a pixel that is not opaque, or of one colour, is a `BadTile` too; `reason` is its reason in the list of
missing tiles. A decoder may accept a JPEG with a damaged middle and give other pixels: the hashes of tiles detect that.
Law: what libjpeg-turbo decodes without a warning are the pixels of Pillow, which decodes with it too, in less time
(decision 0033); all else Pillow judges.
A tile that EXIF data turn is undecodable, because some programs for maps follow them and others do not. The order of
the passes of a resize is fixed (decision 0014).

Pictures of a camera have other limits; `photo` reads them, with the same decoders.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from builders.descriptors.preprocess import MAX_SIDE, Preprocess
from builders.grid.tiles import MAX_TILE_BYTES
from builders.imagery.signature import FAULTS, JPEG, PNG, fault_of
from builders.imagery.structure import objection, objection_to_exif
from store.errors import Corrupt

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# The segment of EXIF and XMP data.
_APP1 = b"\xff\xe1"
# Modes that convert to RGB in one defined way. CMYK, 16 bits a channel and floats do not.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")


class BadTile(Corrupt):
    """The tile cannot be described. Always one of the classes below, each with its `reason`."""

    reason: ClassVar[Literal["undecodable", "wrong-size", "transparent", "blank"]]


class Undecodable(BadTile):
    """The bytes of the tile do not decode to an image in RGB; the message gives the cause."""

    reason = "undecodable"


class WrongSize(BadTile):
    """The image decodes, and has another size than the tiles of its source."""

    reason = "wrong-size"


class Transparent(BadTile):
    """Some pixel is not opaque: whatever colour lies beneath is no imagery, as where a raster ends within a tile."""

    reason = "transparent"


class Blank(BadTile):
    """All pixels have one colour: the tile shows no place, and all such tiles would have one descriptor."""

    reason = "blank"


# The reasons of bad tiles.
BAD_TILES = frozenset(one.reason for one in (Undecodable, WrongSize, Transparent, Blank))


def decode(data: bytes) -> Image.Image:
    """Return the tile as an RGB image, whatever its transparency.

    Raises Undecodable, with the cause, unless the bytes are a complete JPEG, PNG or WebP image of at most 16 MiB and 1
    to 4096 pixels a side, in a mode that converts to RGB. Changes no global setting of Pillow.
    """
    return _rgb(_loaded(data, _check_size))


def _loaded(data: bytes, check_size: Callable[[int, int], None]) -> Image.Image:
    """Return the tile with its pixels loaded, in RGBA where it has transparency. Raises as `open_image` does."""
    if len(data) > MAX_TILE_BYTES:
        raise Undecodable(f"the tile has {len(data)} bytes, more than the {MAX_TILE_BYTES} that are decoded")
    with decoder_errors():
        image = open_image(data, check_size)
        if image.mode not in _MODES:
            raise Undecodable(f"pixels of mode {image.mode} do not convert to RGB in one defined way")
        image.load()
        if (turned := orientation_of(image)) is not None and turned > 1:
            raise Undecodable(
                f"the tile has the EXIF orientation {turned}, which programs that show maps treat otherwise"
            )
        if image.mode in ("P", "PA", "LA") or "transparency" in image.info:
            return image.convert("RGBA")
        return image


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Raise Undecodable for every error by which Pillow refuses bytes. Its plug-ins raise these on damaged input;
    `Image.open` catches the same."""
    try:
        yield
    except BadTile:
        raise
    except (
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


def orientation_of(image: Image.Image) -> int | None:
    """Return how EXIF data turn and mirror a loaded image: their orientation, 2 to 8, or 1 where it stays as it is or
    they give none. Returns None where they cannot be read."""
    try:
        with decoder_errors():
            data: bytes = image.info.get("exif", b"")
            if not data and (profile := image.info.get("Raw profile type exif")):  # in hex, as ImageMagick writes it
                data = bytes.fromhex("".join(profile.split("\n")[3:]))
            if objection_to_exif(data):
                return None
            exif = Image.Exif()  # `getexif` is empty at the second call where the first one failed
            exif.load(data)
            key = ExifTags.Base.Orientation
            value = exif[key] if key in exif else image.getexif().get(key, 1)  # XMP has it too
    except Undecodable:
        return None
    if type(value) is not int or not 0 <= value <= 8:
        return None
    return value or 1  # 0 stands for "unknown" in files of many cameras


def tile_pixels(data: bytes, side: int) -> NDArray[np.uint8]:
    """Return the tile as RGB pixels, uint8 [side, side, 3].

    Raises WrongSize where the header gives another size, before anything is decoded; Undecodable as `decode` does;
    Transparent where a pixel is not opaque; Blank where every pixel has the same colour.
    """
    pixels = _plain_jpeg(data, side)
    if pixels is None:
        pixels = np.asarray(_tile_image(data, side))
    first = pixels[0, 0]
    if (pixels[0] == first).all() and (pixels == first).all():  # one row tells it of most
        raise Blank(f"every pixel has the colour {tuple(first.tolist())}")
    return pixels


def _plain_jpeg(data: bytes, side: int) -> NDArray[np.uint8] | None:
    """Return the pixels of a JPEG tile of this size in YCbCr, without the segments that may turn it; None for all else,
    and where libjpeg-turbo has anything to say."""
    if not data.startswith(JPEG) or len(data) > MAX_TILE_BYTES or _APP1 in data or objection(data):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height, colours) != (side, side, "YCbCr"):
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data)
    except ValueError:  # its only error, of warnings too
        return None
    return pixels


def _tile_image(data: bytes, side: int) -> Image.Image:
    """Return the tile as an RGB image, by Pillow. Raises as `tile_pixels` does, but for Blank."""

    def check_size(width: int, height: int) -> None:
        _check_size(width, height)
        if (width, height) != (side, side):
            raise WrongSize(f"the image has {width} x {height} pixels, coverage.tile_size gives {side} x {side}")

    image = _loaded(data, check_size)
    if image.mode == "RGBA" and (least := int(np.asarray(image.getchannel("A")).min())) < 255:
        raise Transparent(f"a pixel has the opacity {least} of 255")
    return _rgb(image)


def resized(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """Return uint8 [height, width, 3], RGB pixels [h, w, 3] of any size in the size that the backbone takes; the same
    array where they have it.

    The pixels are those of `Preprocess.resized`; Pillow makes them several times faster. One side after the other: from
    version 13 on Pillow itself chooses which side comes first, and then the roundings differ (its pull request 9549).
    """
    height, width = preprocess.resize
    if pixels.shape[:2] == (height, width):
        return pixels
    image, method = Image.fromarray(pixels), _FILTERS[preprocess.filter]
    for size in ((width, image.height), (width, height)):
        if image.size != size:
            image = image.resize(size, method)
    return np.asarray(image)


def open_image(data: bytes, check_size: Callable[[int, int], None]) -> ImageFile.ImageFile:
    """Return the plug-in's image of a JPEG, PNG or WebP file, with its header read and no pixel decoded.

    `check_size` gets width and height before a plug-in allocates anything. Raises Undecodable for other formats and for
    too many parts, and what Pillow raises (`decoder_errors`).

    The plug-ins are named here instead of chosen by `Image.open`: so only these three formats are parsed, and its check
    against decompression bombs is a warning, which a thread cannot catch safely.
    """
    if why := FAULTS[fault_of(data)] or objection(data):
        raise Undecodable(why)
    file = io.BytesIO(data)
    image: ImageFile.ImageFile
    if data.startswith(JPEG):
        image = JpegImageFile(file)
    elif data.startswith(PNG):
        image = PngImageFile(file)
    else:
        check_size(*_webp_size(data))  # this plug-in allocates the canvas when it opens
        image = WebPImageFile(file)
    check_size(*image.size)
    return image


def _check_size(width: int, height: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise Undecodable(f"the image has {width} x {height} pixels; images of 1 to {MAX_SIDE} a side are decoded")


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
    raise Undecodable("the WebP header is incomplete")
