"""Pictures: patterns of two colours, at any scale, as PNG that another reader reads."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from builders.painting import MARK, SIDE, Canvas, Look, png, png_of_rgb, squares, swatch

STRIPES = Look((0, 0, 0), (250, 250, 250), (255, 0, 0, 0, 255, 0, 0, 0))
PLAIN = Look((0, 158, 115), (143, 208, 185), (0,) * 8)


def read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_squares_have_the_pattern_of_their_state_and_nothing_else() -> None:
    pixels = squares(np.array([[0, 1], [2, 1]], np.uint8), {1: PLAIN, 2: STRIPES}, 16)
    assert pixels.shape == (32, 32, 3)
    assert (pixels[:16, :16] == 255).all(), "a state without a look is white"
    assert (pixels[:, 16:] == PLAIN.paper).all()
    striped = pixels[16:, :16]
    assert {tuple(pixel) for pixel in striped.reshape(-1, 3).tolist()} == {STRIPES.ink, STRIPES.paper}
    assert (striped[::4] == STRIPES.ink).all()
    assert (swatch(STRIPES, SIDE) == STRIPES.tile()).all()


def test_png_is_read_back_as_it_was_and_says_that_it_is_ours() -> None:
    pixels = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
    for data in (png(pixels), png_of_rgb(pixels.tobytes(), 4, 6)):
        assert (read(data) == pixels).all()
        assert MARK in data[:200]


def test_a_canvas_takes_pixels_words_and_frames() -> None:
    canvas = Canvas(200, 100)
    assert canvas.fit(np.zeros((50, 100, 3), np.uint8), (0, 0, 60, 60)) == (60, 30)
    canvas.write("ridge \u202e\u2603", 70, 10)
    canvas.frame((80, 50, 100, 70))
    pixels = read(canvas.png())
    assert pixels.shape == (100, 200, 3)
    assert (pixels[:30, :60] == 0).all()
    assert (pixels[10:30, 70:] < 100).any(), "words"
    assert (pixels[50, 80:101] == 0).all()
    assert (pixels[90:, 110:] == 255).all()
