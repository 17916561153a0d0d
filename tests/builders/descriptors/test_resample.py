"""Resizing without Pillow: the same bytes as with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from builders.descriptors import decoding
from builders.descriptors.preprocess import FILTERS, Preprocess
from builders.descriptors.resample import resized

SIZES = st.integers(1, 80) | st.sampled_from([224, 256, 257, 512])


def by_pillow(pixels: NDArray[np.uint8], height: int, width: int, name: str) -> NDArray[np.uint8]:
    return decoding.resized(pixels, Preprocess((height, width), filter=name))


@settings(max_examples=300)
@given(SIZES, SIZES, SIZES, SIZES, st.sampled_from(FILTERS), st.integers(0, 2**32 - 1), st.booleans())
def test_the_bytes_are_those_of_pillow(
    height: int, width: int, to_height: int, to_width: int, name: str, seed: int, extremes: bool
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    # Black and white: there the filters with negative lobes go beyond 0 and 255.
    pixels = np.where(noise < 128, np.uint8(0), np.uint8(255)) if extremes else noise
    assert np.array_equal(resized(pixels, to_height, to_width, name), by_pillow(pixels, to_height, to_width, name))


@pytest.mark.parametrize("name", FILTERS)
def test_a_camera_frame_and_a_mirrored_one(name: str) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (1080, 1920, 3), np.uint8)
    for pixels, height, width in ((frame, 224, 320), (frame[:, ::-1], 37, 2000)):
        assert np.array_equal(resized(pixels, height, width, name), by_pillow(pixels, height, width, name))


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("side", [16, 224, 300])
def test_a_square_tile_is_resized_in_one_call_of_pillow(name: str, side: int) -> None:
    tile = np.random.default_rng(2).integers(0, 256, (256, 256, 3), np.uint8)
    once = Image.fromarray(tile).resize((side, side), Image.Resampling[name.upper()])
    assert np.array_equal(resized(tile, side, side, name), np.asarray(once))


def test_pixels_of_the_size_asked_for_are_not_copied() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    assert resized(pixels, 4, 6, "bilinear") is pixels
