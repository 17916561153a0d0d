"""Decoding: what becomes pixels, and what no decoder gets to see."""

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
from PIL import Image

from builders.descriptors import decoding
from builders.descriptors.decoding import (
    BadTile,
    Blank,
    Transparent,
    Undecodable,
    WrongSize,
    decode,
    resized,
    tile_pixels,
)
from builders.descriptors.preprocess import Preprocess
from builders.example.terrain import render
from builders.grid.tiles import MAX_TILE_BYTES, Tile

PIXELS = render(Tile(15, 7357, 11522))


def encoded(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(file, kind, **options)
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it has these dimensions."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + b"\0" * 64


def webp_of(width: int, height: int) -> bytes:
    """A WebP that says it has a canvas of these dimensions."""
    body = b"\0\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + body


def test_the_three_formats_decode() -> None:
    assert (np.asarray(decode(encoded("PNG"))) == PIXELS).all()
    assert (np.asarray(decode(encoded("WEBP", lossless=True))) == PIXELS).all()
    for data in (encoded("JPEG", quality=95), encoded("WEBP", quality=95)):
        image = decode(data)
        assert image.mode == "RGB"
        assert np.abs(np.asarray(image).astype(int) - PIXELS).mean() < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_with_a_reading_as_rgb_decode(mode: str) -> None:
    assert decode(encoded("PNG", Image.fromarray(PIXELS).convert(mode))).mode == "RGB"


def test_a_palette_with_transparency_decodes_without_a_warning() -> None:
    palette = Image.fromarray(PIXELS).quantize(16)
    assert decode(encoded("PNG", palette, transparency=bytes(range(16)))).mode == "RGB"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not an image",
        b"GIF89a" + b"\0" * 64,
        b"\xff\xd8\xff",
        b"RIFF\0\0\0\0WEBPVP8 ",
        encoded("GIF"),
        encoded("TIFF"),
        encoded("JPEG")[:-900],
        encoded("PNG")[:-900],
        encoded("WEBP")[:-900],
        encoded("JPEG", Image.fromarray(PIXELS).convert("CMYK")),
        encoded("PNG", Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 200)),
        encoded("PNG", Image.new("RGB", (4097, 1))),
        png_of(60000, 60000),
        png_of(0, 5),
        webp_of(16384, 16384),
        b"\xff\xd8\xff" + bytes(MAX_TILE_BYTES),
    ],
    ids=lambda data: f"{data[:12]!r}-{len(data)}",
)
def test_what_cannot_be_described_is_undecodable(data: bytes) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(data)
    assert caught.value.message


def test_a_tile_is_an_image_of_the_size_of_its_source() -> None:
    assert (np.asarray(tile_pixels(encoded("PNG"), 256)) == PIXELS).all()
    for image in (Image.fromarray(PIXELS[:, :255]), Image.fromarray(PIXELS[:255]), Image.new("RGB", (512, 512))):
        with pytest.raises(WrongSize) as caught:
            tile_pixels(encoded("PNG", image), 256)
        assert f"{image.width} x {image.height}" in caught.value.message
        assert "256 x 256" in caught.value.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_size_is_judged_by_the_header_before_a_pixel_is_decoded(kind: str) -> None:
    cut_off = encoded(kind, Image.fromarray(PIXELS[:200]))[:-900]
    with pytest.raises(WrongSize, match="256 x 200"):
        tile_pixels(cut_off, 256)
    with pytest.raises(Undecodable):
        decode(cut_off)


def test_bytes_of_too_many_parts_reach_no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded("JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    bomb = data[:last] + data[last:-2] * 200 + data[-2:]
    monkeypatch.setattr(decoding, "JpegImageFile", None)
    with pytest.raises(Undecodable, match="100 scans"):
        tile_pixels(bomb, 256)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (12, 200, 7)])
def test_a_tile_of_one_colour_shows_no_place(colour: tuple[int, int, int]) -> None:
    image = Image.new("RGB", (256, 256), colour)
    with pytest.raises(Blank):
        tile_pixels(encoded("PNG", image), 256)
    with pytest.raises(Blank):
        tile_pixels(encoded("PNG", image.quantize(4)), 256)


@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 255), st.sampled_from(["PNG", "WEBP"]))
def test_one_pixel_that_is_not_opaque_is_enough(x: int, y: int, opacity: int, kind: str) -> None:
    image = Image.fromarray(PIXELS[:16, :16]).convert("RGBA")
    image.putpixel((x, y), (*PIXELS[y, x].tolist(), opacity))
    data = encoded(kind, image, **({} if kind == "PNG" else {"lossless": True}))
    if opacity < 255:
        with pytest.raises(Transparent, match=f"opacity {opacity} of 255"):
            tile_pixels(data, 16)
    else:
        assert (np.asarray(tile_pixels(data, 16)) == PIXELS[:16, :16]).all()


def test_every_kind_of_transparency_is_seen() -> None:
    image = Image.fromarray(PIXELS[:16, :16])
    index = image.quantize(8)
    grey = image.convert("L")
    for transparent in (
        encoded("PNG", index, transparency=index.getpixel((3, 3))),
        encoded("PNG", grey, transparency=grey.getpixel((3, 3))),
        encoded("PNG", image, transparency=tuple(PIXELS[3, 3].tolist())),
        encoded("PNG", Image.merge("LA", (grey, grey))),
    ):
        with pytest.raises(Transparent):
            tile_pixels(transparent, 16)
    opaque = Image.merge("LA", (grey, Image.new("L", (16, 16), 255)))
    assert (np.asarray(tile_pixels(encoded("PNG", opaque), 16))[:, :, 0] == np.asarray(grey)).all()


@given(st.integers(0, 15), st.integers(0, 15), st.integers(0, 2), st.integers(0, 255))
def test_one_pixel_of_another_colour_is_enough(x: int, y: int, channel: int, value: int) -> None:
    pixels = np.full((16, 16, 3), 90, np.uint8)
    pixels[y, x, channel] = value
    data = encoded("PNG", Image.fromarray(pixels))
    if value == 90:
        with pytest.raises(Blank):
            tile_pixels(data, 16)
    else:
        assert (np.asarray(tile_pixels(data, 16)) == pixels).all()


def test_each_bad_tile_tells_its_reason() -> None:
    one_colour = Image.new("RGB", (8, 8))
    for data, side, reason in (
        (b"", 8, "undecodable"),
        (encoded("PNG"), 8, "wrong-size"),
        (encoded("PNG", one_colour), 9, "wrong-size"),
        (encoded("PNG", one_colour), 8, "blank"),
    ):
        with pytest.raises(BadTile) as caught:
            tile_pixels(data, side)
        assert caught.value.reason == reason
        assert caught.value.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_tile_that_exif_data_turn_is_undecodable(kind: str) -> None:
    """Browsers turn it, most other programs do not: nobody knows which of the two the map shows."""
    for orientation in (0, 1, 6, 3):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(kind, exif=exif)
        if orientation < 2:
            assert tile_pixels(data, 256).shape == (256, 256, 3)
            continue
        with pytest.raises(Undecodable, match=f"EXIF orientation {orientation}"):
            tile_pixels(data, 256)


@given(st.sampled_from(["JPEG", "PNG", "WEBP"]), st.data())
def test_damage_never_raises_anything_else(kind: str, data: st.DataObject) -> None:
    image = bytearray(encoded(kind, Image.fromarray(PIXELS[:32, :32])))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Undecodable):
        decode(bytes(image[: data.draw(st.integers(0, len(image)))]))


def outcome(decoder: Any, data: bytes, side: int) -> Any:
    """The pixels, or what is wrong with them."""
    try:
        return np.asarray(decoder(data, side)).tobytes()
    except BadTile as error:
        return type(error), error.message


@given(
    side=st.integers(1, 40),
    place=st.integers(0, 200),
    options=st.fixed_dictionaries(
        {"quality": st.integers(1, 100), "progressive": st.booleans(), "optimize": st.booleans()},
        optional={
            "subsampling": st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
            "restart_marker_blocks": st.integers(1, 5),
            "icc_profile": st.just(bytes(200)),
            "comment": st.just(b"made by hand"),
        },
    ),
)
def test_libjpeg_turbo_gives_the_pixels_of_pillow(side: int, place: int, options: dict[str, Any]) -> None:
    data = encoded("JPEG", Image.fromarray(PIXELS[place : place + side, :side]), **options)
    pixels = decoding._plain_jpeg(data, side)
    if pixels is None:
        assert place + side > 256  # not square
    else:
        assert pixels.shape == (side, side, 3)
        assert pixels.tobytes() == outcome(decoding._tile_image, data, side)


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


@pytest.mark.parametrize(
    "data",
    [
        encoded("PNG"),
        encoded("WEBP"),
        encoded("JPEG", Image.fromarray(PIXELS).convert("L")),
        encoded("JPEG", Image.fromarray(PIXELS).convert("CMYK")),
        encoded("JPEG", keep_rgb=True),
        encoded("JPEG", exif=exif(1)),
        encoded("JPEG", exif=exif(6)),
        encoded("JPEG", xmp=b"<x:xmpmeta tiff:Orientation='6'/>"),
        encoded("JPEG")[:-900],
        encoded("JPEG", Image.fromarray(PIXELS[:200])),
        b"\xff\xd8\xff" + bytes(MAX_TILE_BYTES),
    ],
    ids=lambda data: f"{data[:3]!r}-{len(data)}",
)
def test_pillow_judges_all_other_tiles(data: bytes) -> None:
    assert decoding._plain_jpeg(data, 256) is None
    assert outcome(tile_pixels, data, 256) == outcome(decoding._tile_image, data, 256)


@given(st.sampled_from([{}, {"progressive": True}, {"restart_marker_blocks": 1}]), st.data())
def test_a_damaged_jpeg_is_judged_as_by_pillow(options: dict[str, Any], data: st.DataObject) -> None:
    image = bytearray(encoded("JPEG", Image.fromarray(PIXELS[:32, :32]), **options))
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(image[: data.draw(st.integers(len(image) // 2, len(image)))])
    found, by_pillow = (outcome(decoder, damaged, 32) for decoder in (tile_pixels, decoding._tile_image))
    assert found == by_pillow or (found[0] is Blank and len(set(by_pillow)) <= 3)


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
def test_which_side_is_resized_first_does_not_depend_on_the_version_of_pillow(name: str) -> None:
    """Pillow 13 starts with the columns where they shrink much more than the rows; 11 and 12 never do."""
    image, method = Image.fromarray(PIXELS), Image.Resampling[name.upper()]
    rows_first = image.resize((300, 256), method).resize((300, 16), method)
    assert np.array_equal(resized(PIXELS, Preprocess((16, 300), filter=name)), np.asarray(rows_first))
