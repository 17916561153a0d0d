"""Perturbed pictures: shifted, turned, scaled or lit otherwise than the tile, as a camera sees a place. Pure.

The perturbation follows from (way, seed) in integers, so it is the same on every machine; the pixels of Pillow's
bilinear filter may differ by a grey level between machines. The true picture is the middle of a mosaic that shows its
surroundings, so no edge comes into view.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from store.errors import Invalid
from store.format.cbor import Value
from store.format.ids import derive
from store.format.manifest import PPM

SCHEMA = "flightbag/perturbations/1"
CONTEXT = "flightbag 2026 perturbation v1"
# The numbers that define each way. `least` and `most` are distances from the unchanged picture, in either direction.
PERTURBATIONS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "shift": {"side_ppm": 20 * PPM // 256, "directions": 8},
        "rotation": {"least_mdeg": 3000, "most_mdeg": 10000},
        "scale": {"least_ppm": 30000, "most_ppm": 100000},
        "brightness": {"gain_ppm": 300000, "offset_grey": 20},
    }
)
# Every way needs a rim round the true picture: the MARGIN-th part of its side.
MARGIN = 6
_SEEDS = 2**64


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a picture about its middle: it is turned, in thousandths of a degree, and scaled, then moved right
    and down, in ppm of its side; each grey level g becomes g * gain + offset."""

    turn_mdeg: int = 0
    scale_ppm: int = PPM
    move_ppm: tuple[int, int] = (0, 0)
    gain_ppm: int = PPM
    offset: int = 0


def fields() -> dict[str, Value]:
    """Return everything that determines the result of `perturb_picture`, for the digest of a recipe."""
    return {
        "schema": SCHEMA,
        "context": CONTEXT,
        "filter": "bilinear",
        "ways": [[way, *(item for pair in sorted(PERTURBATIONS[way].items()) for item in pair)] for way in _ways()],
    }


def perturb_picture(mosaic: NDArray[np.uint8], side: int, way: str, seed: int) -> NDArray[np.uint8]:
    """Return uint8 [side, side, 3]: the middle `side` x `side` of the mosaic, uint8 [m, m, 3], perturbed.

    Raises Invalid for an unknown way, a seed outside 0..2**64 - 1, a mosaic of another shape or type, without a middle
    (m - side is odd) or with less than a sixth of the side round it.
    """
    plan = change(way, seed)
    size = mosaic.shape[0] if mosaic.ndim else 0
    if mosaic.dtype != np.uint8 or mosaic.shape != (size, size, 3):
        raise Invalid(f"a mosaic is uint8 [m, m, 3], this is {mosaic.dtype} {list(mosaic.shape)}")
    if side < 1 or (size - side) % 2 or MARGIN * (size - side) < 2 * side:
        raise Invalid(
            f"a mosaic of {size} x {size} does not have a picture of {side} x {side} in its middle, with a {MARGIN}th "
            "of its side round it",
            remedy="give a mosaic with whole tiles round the picture",
        )
    picture = Image.fromarray(np.ascontiguousarray(mosaic)).transform(
        (side, side), Image.Transform.AFFINE, _affine(plan, side, size), Image.Resampling.BILINEAR
    )
    return _lit(np.asarray(picture), plan)


def change(way: str, seed: int) -> Change:
    """Return the change that a way makes with this seed, 0..2**64 - 1. Raises Invalid as `perturb_picture` does."""
    if way not in PERTURBATIONS:
        raise Invalid(f"{way!r} is not a perturbation", remedy=f"give one of {', '.join(_ways())}", way=way)
    if not 0 <= seed < _SEEDS:
        raise Invalid(f"the seed {seed} is outside 0..2**64 - 1", seed=seed)
    numbers = PERTURBATIONS[way]
    key = derive(CONTEXT, seed.to_bytes(8, "little") + way.encode())
    # 64 bits for some hundred thousand values: the remainders are even to one part in 10**13.
    first, second = (int.from_bytes(key[at : at + 8], "little") for at in (0, 8))
    if way == "shift":
        eighth = 2 * math.pi / numbers["directions"] * (first % numbers["directions"])
        return Change(
            move_ppm=(round(numbers["side_ppm"] * math.cos(eighth)), round(numbers["side_ppm"] * math.sin(eighth)))
        )
    sign = 1 if second % 2 else -1
    if way == "rotation":
        return Change(turn_mdeg=sign * _between(first, numbers["least_mdeg"], numbers["most_mdeg"]))
    if way == "scale":
        return Change(scale_ppm=PPM + sign * _between(first, numbers["least_ppm"], numbers["most_ppm"]))
    gain, offset = numbers["gain_ppm"], numbers["offset_grey"]
    return Change(gain_ppm=PPM + _between(first, -gain, gain), offset=_between(second, -offset, offset))


def _ways() -> list[str]:
    return sorted(PERTURBATIONS)


def _between(number: int, least: int, most: int) -> int:
    return least + number % (most - least + 1)


def _affine(plan: Change, side: int, size: int) -> tuple[float, float, float, float, float, float]:
    """The place in the mosaic of a pixel of the picture: (a, b, c, d, e, f) of x' = a x + b y + c, y' = d x + e y + f.

    Sine and cosine are rounded to ppm, because their last bits differ between machines.
    """
    angle = math.radians(plan.turn_mdeg / 1000)
    cosine = round(PPM * math.cos(angle)) / plan.scale_ppm
    sine = round(PPM * math.sin(angle)) / plan.scale_ppm
    right, down = (side * move / PPM for move in plan.move_ppm)
    # From the middle of the picture, less the move, to the middle of the mosaic.
    x, y = side / 2 + right, side / 2 + down
    return cosine, sine, size / 2 - cosine * x - sine * y, -sine, cosine, size / 2 + sine * x - cosine * y


def _lit(picture: NDArray[np.uint8], plan: Change) -> NDArray[np.uint8]:
    levels = np.arange(256, dtype=np.int64) * plan.gain_ppm + plan.offset * PPM
    table = np.clip((levels + PPM // 2) // PPM, 0, 255).astype(np.uint8)
    lit: NDArray[np.uint8] = table[picture]
    return lit
