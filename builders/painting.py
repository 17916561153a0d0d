"""Pixels for the pictures that the command line writes: squares with patterns, frames, words. PNG bytes come out.

`tools` says what stands where and in which colours. Only pixels that this process has made or decoded are encoded.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.extras import import_extra

# The side of a pattern, in pixels.
SIDE = 8
# Near the beginning of each picture (a chunk tEXt, PNG 11.3.3.2): so a picture of ours is told from a photo.
_SOFTWARE, _NAME = "Software", "flightbag picture"
MARK = f"{_SOFTWARE}\0{_NAME}".encode()


@dataclass(frozen=True, slots=True)
class Look:
    """How the squares of a state look: the colours of ink and paper, (red, green, blue), and where the ink goes: eight
    rows of eight bits, the highest one in the west."""

    ink: tuple[int, int, int]
    paper: tuple[int, int, int]
    bits: tuple[int, ...]

    def tile(self) -> NDArray[np.uint8]:
        """Return uint8[8, 8, 3]: one repetition of the pattern."""
        inked = np.unpackbits(np.array(self.bits, np.uint8)[:, None], axis=1).astype(bool)
        ink, paper = (np.array(colour, np.uint8) for colour in (self.ink, self.paper))
        tile: NDArray[np.uint8] = np.where(inked[:, :, None], ink, paper)
        return tile


def squares(states: NDArray[np.uint8], looks: Mapping[int, Look], scale: int) -> NDArray[np.uint8]:
    """Return uint8[h, w, 3]: the squares of a grid, each `scale` pixels wide. A state without a look is white."""
    tiles = np.full((256, SIDE, SIDE, 3), 255, np.uint8)
    for state, look in looks.items():
        tiles[state] = look.tile()
    height, width = (length * scale for length in states.shape)
    y, x = np.arange(height)[:, None], np.arange(width)[None, :]
    painted: NDArray[np.uint8] = tiles[states[y // scale, x // scale], y % SIDE, x % SIDE]
    return painted


def swatch(look: Look, side: int) -> NDArray[np.uint8]:
    """Return uint8[side, side, 3]: a square of a look, for a legend."""
    return squares(np.zeros((1, 1), np.uint8), {0: look}, side)


class Canvas:
    """A picture in the making: white, of so many pixels."""

    def __init__(self, width: int, height: int) -> None:
        self._image = import_extra("PIL.Image").new("RGB", (width, height), (255, 255, 255))
        self._draw = import_extra("PIL.ImageDraw").Draw(self._image)

    def paste(self, pixels: NDArray[np.uint8], x: int, y: int) -> None:
        """Put uint8[h, w, 3] with its north-western corner at (x, y)."""
        self._image.paste(import_extra("PIL.Image").fromarray(pixels), (x, y))

    def fit(self, pixels: NDArray[np.uint8], box: tuple[int, int, int, int]) -> tuple[int, int]:
        """Put uint8[h, w, 3] into a box (left, top, right, bottom), as large as it fits. Return its width and height
        there."""
        image = import_extra("PIL.Image").fromarray(pixels)
        scale = min((box[2] - box[0]) / image.width, (box[3] - box[1]) / image.height)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        self._image.paste(image.resize(size), box[:2])
        return size

    def write(self, text: str, x: int, y: int, size: int = 14) -> None:
        """Write a line with its upper left corner at (x, y). Letters that the font lacks become question marks."""
        line = text.encode("ascii", "replace").decode()
        self._draw.text((x, y), line, fill=(20, 20, 20), font=import_extra("PIL.ImageFont").load_default(size))

    def frame(self, box: tuple[float, float, float, float], width: int = 2) -> None:
        """Draw the outline of a box (left, top, right, bottom): black beside white, to be seen on every ground."""
        left, top, right, bottom = box
        self._draw.rectangle((left - width, top - width, right + width, bottom + width), outline=(255, 255, 255))
        self._draw.rectangle((left, top, right, bottom), outline=(0, 0, 0), width=width)

    def lines(self, points: Sequence[tuple[float, float]], width: int = 2) -> None:
        """Draw lines from point to point."""
        self._draw.line(list(points), fill=(0, 0, 0), width=width)

    def png(self) -> bytes:
        """Return the picture."""
        return _encoded(self._image)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return uint8[h, w, 3] as PNG."""
    return _encoded(import_extra("PIL.Image").fromarray(pixels))


def png_of_rgb(data: bytes, width: int, height: int) -> bytes:
    """Return `height` rows of `width` pixels, three bytes each, as PNG. No byte of the data is parsed."""
    return png(np.frombuffer(data, np.uint8).reshape(height, width, 3))


def _encoded(image: Any) -> bytes:
    file = io.BytesIO()
    info = import_extra("PIL.PngImagePlugin").PngInfo()
    info.add_text(_SOFTWARE, _NAME)
    image.save(file, "PNG", pnginfo=info)
    return file.getvalue()
