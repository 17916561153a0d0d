"""PNG written by hand: what is read from it, and that its bytes stay what they are."""

from __future__ import annotations

import hashlib
import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from builders.descriptors.decoding import tile_pixels
from builders.imagery.png import write_png
from store.errors import Invalid


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def decoded(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        image.load()
        assert image.mode == "RGB"
        return np.asarray(image)


@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_a_decoder_reads_the_pixels_that_were_given(height: int, width: int, seed: int) -> None:
    pixels = noise(height, width, seed)
    np.testing.assert_array_equal(decoded(write_png(pixels)), pixels)


@pytest.mark.parametrize(
    ("height", "width"),
    [(1, 1), (256, 256), (1, 21844), (3, 21845), (2, 21845), (1, 43690), (512, 300)],
    ids=["one pixel", "a tile", "one byte short of a block", "blocks and one byte more", "past a block", "two", "many"],
)
def test_images_of_many_blocks(height: int, width: int) -> None:
    pixels = noise(height, width)
    data = write_png(pixels)
    np.testing.assert_array_equal(decoded(data), pixels)
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start], "big")
    content = zlib.decompress(data[start + 4 : start + 4 + length])
    assert len(content) == height * (1 + 3 * width)
    assert data.endswith(bytes.fromhex("00000000 49454e44 ae426082"))


def test_the_bytes_stay_what_they_are() -> None:
    """They are hashed into build keys: other bytes would be other tiles."""
    pixels = (np.arange(256 * 256 * 3, dtype=np.uint32) * 2654435761 >> 24).astype(np.uint8).reshape(256, 256, 3)
    digest = "32d7477d2f85fc54fcf13c4f0653653836a7e4ecd2d1b246655925b8eb52be6c"
    assert hashlib.sha256(write_png(pixels)).hexdigest() == digest
    assert write_png(np.array([[[1, 2, 3]]], np.uint8)) == bytes.fromhex(
        "89504e470d0a1a0a"
        "0000000d 49484452 00000001 00000001 0802000000 907753de"
        "0000000f 49444154 7801 01 0400 fbff 00010203 000e0007 2da233ec"
        "00000000 49454e44 ae426082"
    )


def test_pixels_that_are_not_contiguous() -> None:
    pixels = noise(30, 20)
    assert write_png(pixels[::-1, :, ::-1]) == write_png(pixels[::-1, :, ::-1].copy())
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    assert write_png(planes.transpose(1, 2, 0)) == write_png(pixels)


def test_a_tile_of_them_is_an_image_to_whoever_describes_it() -> None:
    pixels = noise(256, 256)
    np.testing.assert_array_equal(np.asarray(tile_pixels(write_png(pixels), 256)), pixels)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.uint16),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (30000, 30000, 3)),
    ],
    ids=["grey", "RGBA", "uint16", "no rows", "no columns", "too large"],
)
def test_what_is_no_rgb_image_is_refused(pixels: NDArray[np.uint8]) -> None:
    with pytest.raises(Invalid):
        write_png(pixels)
