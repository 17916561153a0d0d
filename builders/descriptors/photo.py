"""Pictures of a camera: from the bytes of a JPEG, PNG or WebP file to pixels that stand upright.

A camera's picture is larger than a tile of a map, and its EXIF data may turn it. It is read as a person sees it in a
viewer, or refused by name: a picture that is read in another way than it was taken names the wrong place. Not read are
the EXIF data on place, height and heading: the caller gives those, or the search assumes and says so. A colour profile
is not applied.

Laws: no decoder gets more than MAX_BYTES bytes, or a picture of more than MAX_PIXELS pixels; every error is an Invalid
with a remedy.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.descriptors.decoding import Undecodable, decoder_errors, open_image, orientation_of
from store.errors import Invalid

MAX_BYTES = 128 << 20
MAX_PIXELS = 1 << 27  # the largest sensors of survey cameras have 100 to 150 million
# Of a side. A larger picture is reduced by a whole number: an engine takes some hundred pixels of it.
REDUCED_SIDE = 8192
# What makes a picture of an EXIF orientation upright (EXIF 2.3, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXPORT = "export it as a JPEG, or as a PNG with 8 bits a channel"
_KIND = "unsupported-picture"
_RAW = "a TIFF picture or a raw picture of a camera (DNG, NEF, CR2, ARW)"
# (offset, bytes there, name) of formats that are not read.
_OTHERS = (
    (0, b"II*\0", _RAW),
    (0, b"MM\0*", _RAW),
    (0, b"II+\0", _RAW),
    (0, b"MM\0+", _RAW),
    (0, b"IIU\0", "a raw picture of a camera (RW2)"),
    (0, b"IIRO", "a raw picture of a camera (ORF)"),
    (0, b"IIRS", "a raw picture of a camera (ORF)"),
    (0, b"FUJIFILMCCD-RAW", "a raw picture of a camera (RAF)"),
    (4, b"ftypcrx ", "a raw picture of a camera (CR3)"),
    (4, b"ftyphei", "a HEIC picture"),
    (4, b"ftyphev", "a HEIC picture"),
    (4, b"ftypmif1", "a HEIF picture"),
    (4, b"ftypmsf1", "a HEIF picture"),
    (4, b"ftypavi", "an AVIF picture"),
    (4, b"ftyp", "a video (MP4 or MOV)"),
    (8, b"AVI ", "a video (AVI)"),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"GIF8", "a GIF picture"),
    (0, b"BM", "a BMP picture"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"v/1\x01", "an OpenEXR picture"),
    (0, b"%PDF", "a PDF file"),
)


def decode_photo(data: bytes) -> NDArray[np.uint8]:
    """Return uint8 [height, width, 3], RGB: the pixels of a JPEG, PNG or WebP picture, upright by its EXIF orientation.

    Of a JPEG with several pictures, this is the first one. A picture of more than 8192 pixels a side is reduced by a
    whole number. Raises Invalid, with the kind `unsupported-picture` for another format, 16 bits a channel, CMYK, an
    animation, transparent pixels, one colour, EXIF data that cannot be read, more than 128 MiB or 2**27 pixels, and
    with `bad-picture` for bytes that do not decode.
    """
    with _refusals():
        image = _opened(data)
        image.load()
        turned = orientation_of(image)
        if turned is None:
            raise _unsupported(
                "has EXIF data that cannot be read, so nobody knows how it is turned",
                "turn it upright, and remove its EXIF data",
            )
        picture = _reduced(_opaque(image))
        return np.asarray(picture.transpose(_UPRIGHT[turned]) if turned > 1 else picture)


def size_of_photo(data: bytes) -> tuple[int, int]:
    """Return the sides of a picture, in the order of the file, without decoding a pixel. Raises what of the errors of
    `decode_photo` the header shows."""
    with _refusals():
        return _opened(data).size


@contextmanager
def _refusals() -> Iterator[None]:
    """Raise Invalid for what Pillow refuses. EXIF data that are cut off are a warning of Pillow."""
    try:
        with decoder_errors(), warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except Undecodable as error:
        raise Invalid(
            f"the picture cannot be decoded: {error.message}",
            remedy="give a whole JPEG, PNG or WebP file",
            kind="bad-picture",
        ) from error


def _opened(data: bytes) -> Image.Image:
    if len(data) > MAX_BYTES:
        raise _unsupported(
            f"has {len(data)} bytes, more than the {MAX_BYTES} that are decoded", "export it as a JPEG, or smaller"
        )
    for offset, magic, name in _OTHERS:
        if data.startswith(magic, offset):
            raise _unsupported(f"is {name}", "extract a frame as a JPEG" if "video" in name else _EXPORT)
    image = open_image(data, _check_size)
    _check_mode(data, image)
    return image


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _unsupported(
            f"has {width} x {height} pixels, more than the {MAX_PIXELS} that are decoded", "export it smaller"
        )
    if not width * height:
        raise Undecodable(f"it has {width} x {height} pixels")


def _check_mode(data: bytes, image: Image.Image) -> None:
    if image.format == "PNG" and data[24] == 16:  # the bit depth of IHDR (PNG, section 11.2.1)
        raise _unsupported(
            "has 16 bits a channel, of which a sensor may fill any part",
            "scale its values to 8 bits a channel, as the map has them",
        )
    if image.mode == "CMYK":
        raise _unsupported("has the colours CMYK, which are not those of a camera", "convert it to RGB")
    if image.format != "JPEG" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise _unsupported(f"is an animation of {frames} frames", "give one of its frames")
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        raise _unsupported(f"has pixels of mode {image.mode}, which do not convert to RGB in one defined way", _EXPORT)


def _opaque(image: Image.Image) -> Image.Image:
    """The picture in RGB. What is transparent shows no ground, whatever its pixels are."""
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise _unsupported("has transparent pixels, which show no ground", "crop it to what the camera saw")
    colours = image if image.mode == "RGB" else image.convert("RGB")
    if colours.getcolors(1) is not None:  # stops at the second colour
        raise _unsupported(f"has one colour, {colours.getpixel((0, 0))}, and shows no place", "give another picture")
    return colours


def _reduced(image: Image.Image) -> Image.Image:
    factor = -(-max(image.size) // REDUCED_SIDE)
    return image.reduce(factor) if factor > 1 else image


def _unsupported(what: str, remedy: str) -> Invalid:
    return Invalid(f"the picture {what}", remedy=remedy, kind=_KIND)
