"""Perturbations: a picture of a view as a camera might see it, not quite where and how the map has it. Pure.

Each is seeded, and the same everywhere: its amounts come from BLAKE3, its pixels from Pillow's affine transform. What
they are is a closed list that `fields` describes for the digest of a recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from PIL import Image

from store.errors import Invalid
from store.format.cbor import Value

# Of the side of the picture: how much has to lie round it, so that none of these brings in what is not there.
_RIM = 6
_SHIFT_PIXELS, _OF = 20, 256
_TURN_LEAST, _TURN_MOST = 3, 10  # degrees
_SCALE_LEAST, _SCALE_MOST = 30, 100  # per mille away from 1
_GAIN_MOST = 300  # per mille away from 1
_OFFSET_MOST = 20  # grey levels

# (a, b, c, d): an output pixel at (x, y) from the middle shows the input at (a x + b y, -b x + a y) + (c, d).
_Move: TypeAlias = tuple[float, float, float, float]


class _Dice:
    """Whole numbers that follow from a way and a seed."""

    def __init__(self, way: str, seed: int) -> None:
        self._stream = blake3(f"flightbag perturbation {way} {seed}".encode())
        self._at = 0

    def between(self, least: int, most: int) -> int:
        """A whole number from `least` to `most`; the bias of 64 bits over so few is nothing."""
        number = int.from_bytes(self._stream.digest(length=8, seek=self._at), "little")
        self._at += 8
        return least + number % (most - least + 1)

    def sign(self) -> int:
        return 2 * self.between(0, 1) - 1


def _shift(dice: _Dice, side: int) -> _Move:
    """A twelfth of a side, in one of eight directions."""
    angle = math.radians(45 * dice.between(0, 7))
    length = side * _SHIFT_PIXELS / _OF
    return 1.0, 0.0, length * math.cos(angle), length * math.sin(angle)


def _rotation(dice: _Dice, side: int) -> _Move:  # noqa: ARG001 - one shape for all
    angle = math.radians(dice.sign() * dice.between(_TURN_LEAST * 1000, _TURN_MOST * 1000) / 1000)
    return math.cos(angle), math.sin(angle), 0.0, 0.0


def _scale(dice: _Dice, side: int) -> _Move:  # noqa: ARG001
    return 1 + dice.sign() * dice.between(_SCALE_LEAST, _SCALE_MOST) / 1000, 0.0, 0.0, 0.0


def _still(dice: _Dice, side: int) -> _Move:  # noqa: ARG001
    return 1.0, 0.0, 0.0, 0.0


PERTURBATIONS: Mapping[str, Callable[[_Dice, int], _Move]] = {
    "brightness": _still,
    "rotation": _rotation,
    "scale": _scale,
    "shift": _shift,
}


def perturbed(mosaic: NDArray[np.uint8], side: int, way: str, seed: int) -> NDArray[np.uint8]:
    """uint8 [side, side, 3]: the middle of a mosaic, uint8 [m, m, 3], perturbed in a way of PERTURBATIONS.

    The mosaic has at least a sixth of `side` round it. Raises Invalid for one that has not, and for another way.
    """
    if way not in PERTURBATIONS:
        raise Invalid(f"{way!r} is no perturbation", remedy=f"one of {', '.join(PERTURBATIONS)}")
    size = mosaic.shape[0]
    if mosaic.shape != (size, size, 3) or mosaic.dtype != np.uint8 or (size - side) * _RIM < 2 * side or side < 1:
        raise Invalid(
            f"a mosaic of {mosaic.shape} {mosaic.dtype} has no picture of {side} pixels with a sixth round it"
        )
    dice = _Dice(way, seed)
    a, b, dx, dy = PERTURBATIONS[way](dice, side)
    # Pillow maps the middles of pixels; both middles of the pictures fall on one point.
    half, middle = side / 2, size / 2
    matrix = (a, b, middle + dx - a * half - b * half, -b, a, middle + dy + b * half - a * half)
    image = Image.fromarray(mosaic).transform(
        (side, side), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR
    )
    pixels = np.asarray(image)
    if way != "brightness":
        return pixels
    gain = 1000 + dice.between(-_GAIN_MOST, _GAIN_MOST)
    offset = dice.between(-_OFFSET_MOST, _OFFSET_MOST)
    lit = (pixels.astype(np.int32) * gain + 500) // 1000 + offset
    return np.clip(lit, 0, 255).astype(np.uint8)


def fields() -> dict[str, Value]:
    """All that determines the pictures, for the digest of a recipe."""
    return {
        "version": 1,
        "ways": sorted(PERTURBATIONS),
        "shift": [_SHIFT_PIXELS, _OF],
        "rotation": [_TURN_LEAST, _TURN_MOST],
        "scale": [_SCALE_LEAST, _SCALE_MOST],
        "brightness": [_GAIN_MOST, _OFFSET_MOST],
    }
