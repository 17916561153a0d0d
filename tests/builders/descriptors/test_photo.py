"""Pictures of a camera: read as a person sees them, or refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from builders.descriptors import photo
from builders.descriptors.photo import decode_photo
from builders.example.terrain import render
from builders.grid.tiles import Tile
from store.errors import Invalid

PIXELS = render(Tile(15, 7357, 11522))[:200]
UPRIGHT = Image.fromarray(PIXELS)
FORMATS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}}


def encoded(kind: str, image: Image.Image = UPRIGHT, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **{**FORMATS.get(kind, {}), **options})
    return file.getvalue()


def exif_of(orientation: object) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, channels: int) -> bytes:
    row = b"\0" + bytes(range(1, 1 + width * channels * depth // 8))
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * height)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


BOMB = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"")


def refusal(data: bytes) -> Invalid:
    with pytest.raises(Invalid) as caught:
        decode_photo(data)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(9))
def test_every_orientation_is_applied_in_every_format(kind: str, orientation: int) -> None:
    """As Pillow's own function applies it; a picture that a camera turns comes back as it was."""
    data = encoded(kind, exif=exif_of(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode_photo(data), expected)
    assert (expected.shape == (256, 200, 3)) == (orientation > 4)


def test_the_orientation_of_xmp_counts_where_there_is_no_other() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert decode_photo(encoded("JPEG", xmp=xmp)).shape == (256, 200, 3)
    assert decode_photo(encoded("JPEG", xmp=xmp, exif=exif_of(1))).shape == (200, 256, 3)


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01", b"Exif\0\0nonsense", exif_of(9)])
def test_an_orientation_that_cannot_be_read_is_refused(exif: Any) -> None:
    assert "EXIF" in refusal(encoded("JPEG", exif=exif)).message


def test_place_height_and_heading_in_the_exif_data_change_nothing() -> None:
    exif = exif_of(1)
    exif[0x8825] = {1: "N", 2: (47.0, 1.0, 12.0), 3: "W", 4: (99.0, 9.0, 30.0), 6: 480.0, 17: 123.0}
    assert np.array_equal(decode_photo(encoded("PNG", exif=exif)), PIXELS)


def test_the_first_picture_of_a_jpeg_with_several_is_read() -> None:
    other = UPRIGHT.transpose(Image.Transpose.ROTATE_180)
    data = encoded("MPO", save_all=True, append_images=[other], quality=95)
    assert np.array_equal(decode_photo(data), decode_photo(encoded("JPEG")))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_other_modes_with_a_reading_as_rgb_are_read(mode: str) -> None:
    image = UPRIGHT.convert(mode)
    assert np.array_equal(decode_photo(encoded("PNG", image)), np.asarray(image.convert("RGB")))


def test_a_picture_of_a_common_drone_is_read_whole_and_a_larger_one_is_reduced() -> None:
    image = UPRIGHT.resize((5280, 3956), Image.Resampling.BICUBIC)
    assert decode_photo(encoded("JPEG", image)).shape == (3956, 5280, 3)
    image = UPRIGHT.resize((9504, 6336), Image.Resampling.BICUBIC)
    reduced = decode_photo(encoded("JPEG", image, exif=exif_of(6)))
    assert reduced.shape == (4752, 3168, 3)
    small = np.asarray(UPRIGHT.rotate(-90, expand=True).resize((198, 297))).astype(int)
    assert np.abs(np.asarray(Image.fromarray(reduced).resize((198, 297))).astype(int) - small).mean() < 6


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (png(8, 8, 16, 0, 1), "16 bits"),
        (png(8, 8, 16, 2, 3), "16 bits"),
        (png(8, 8, 16, 6, 4), "16 bits"),
        (encoded("JPEG", UPRIGHT.convert("CMYK")), "CMYK"),
        (encoded("PNG", save_all=True, append_images=[UPRIGHT.rotate(9)]), "animation of 2 frames"),
        (encoded("WEBP", save_all=True, append_images=[UPRIGHT.rotate(9)]), "animation of 2 frames"),
        (encoded("PNG", UPRIGHT.convert("RGBA").rotate(9, expand=True)), "transparent"),
        (encoded("PNG", UPRIGHT.quantize(8), transparency=3), "transparent"),
        (encoded("PNG", Image.new("RGB", (64, 64), (3, 4, 5))), "one colour"),
        (encoded("TIFF"), "TIFF"),
        (encoded("GIF"), "GIF"),
        (encoded("BMP"), "BMP"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"\0\0\0\x18ftypisom", "video"),
        (b"MM\0*" + bytes(64), "DNG"),
        (BOMB, "60000 x 60000"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_one_reading_is_refused_by_name(data: bytes, words: str) -> None:
    error = refusal(data)
    assert words in error.message
    assert error.kind == "unsupported-picture"


@pytest.mark.parametrize("data", [b"", b"text", b"\xff\xd8\xff", *(encoded(kind)[:-900] for kind in FORMATS)])
def test_bytes_that_are_cut_off_or_no_picture_are_bad(data: bytes) -> None:
    assert refusal(data).kind == "bad-picture"


def test_bytes_and_pixels_are_bounded_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo, "MAX_PIXELS", 200 * 256 - 1)
    assert "256 x 200 pixels" in refusal(encoded("PNG")).message
    assert "256 x 200 pixels" in refusal(encoded("WEBP")).message
    monkeypatch.setattr(photo, "MAX_BYTES", 999)
    assert "bytes" in refusal(encoded("PNG")).message


@given(st.sampled_from(sorted(FORMATS)), st.data())
def test_damage_never_raises_anything_else(kind: str, data: st.DataObject) -> None:
    image = bytearray(encoded(kind, UPRIGHT.crop((0, 0, 32, 32)), exif=exif_of(6)))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Invalid):
        decode_photo(bytes(image[: data.draw(st.integers(0, len(image)))]))
