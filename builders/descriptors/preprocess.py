"""From the pixels of a tile to the numbers that a backbone takes: resizing, order of the channels, scale.

A `Preprocess` is a value of the mission file. All of it is in the build key (`fields`), because each part changes what
a descriptor means; a key holds integers and text only, so mean and std are parts per million there.

Needs numpy only, aboard too. `decoding` makes pixels of encoded tiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.resample import FILTERS as RESAMPLING
from builders.descriptors.resample import resized
from store.errors import Corrupt, Invalid

MAX_SIDE = 4096
COLOURS = ("RGB", "BGR")
FILTERS = ("nearest", *RESAMPLING)
# (factor, summand) for a pixel of 0..255.
SCALES = {"0..1": (1 / 255, 0.0), "0..255": (1.0, 0.0), "-1..1": (2 / 255, -1.0)}
_MILLION = 10**6

Triple: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a tile becomes the input of a backbone.

    `resize` is [height, width] in pixels, as in the shape of the input; a tile of another size is resampled with
    `filter` ("nearest", "bilinear", "bicubic", "lanczos": Pillow's filters, which smooth where they shrink). `colour`
    is the order of the channels, "RGB" or "BGR". `scale` is the range that 0..255 is mapped to: "0..1", "0..255" or
    "-1..1". The last step, for each channel in the order of `colour`, is (value - mean) / std, both in units of the
    scaled value, with at most six decimals. Raises Invalid for other values, naming the key of the mission file.
    """

    resize: tuple[int, int]
    colour: str = "RGB"
    scale: str = "0..1"
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    filter: str = "bilinear"

    def __post_init__(self) -> None:
        if len(self.resize) != 2 or not all(type(n) is int and 1 <= n <= MAX_SIDE for n in self.resize):
            raise _invalid("resize", self.resize, f"give [height, width], each 1 to {MAX_SIDE}")
        for key, value, choices in (
            ("colour", self.colour, COLOURS),
            ("scale", self.scale, tuple(SCALES)),
            ("filter", self.filter, FILTERS),
        ):
            if value not in choices:
                raise _invalid(key, value, f"give one of {', '.join(choices)}")
        for key, triple in (("mean", self.mean), ("std", self.std)):
            if len(triple) != 3 or not all(_has_six_decimals(value) for value in triple):
                raise _invalid(key, triple, "give three numbers with at most six decimals, one a channel")
        if min(self.std) <= 0:
            raise _invalid("std", self.std, "give three numbers above 0")

    def fields(self) -> dict[str, str | int | list[int]]:
        """Return everything that determines the numbers, for a build key: text and integers only."""
        return {
            "decoder": "pillow",
            "resize": list(self.resize),
            "colour": self.colour,
            "scale": self.scale,
            "mean": [round(value * _MILLION) for value in self.mean],
            "std": [round(value * _MILLION) for value in self.std],
            "filter": self.filter,
        }

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return the preprocessing with these `fields`. Raises Corrupt for fields that this version does not write."""
        try:
            height, width = fields["resize"]
            mean, std = (tuple(value / _MILLION for value in fields[key]) for key in ("mean", "std"))
            preprocess = cls((height, width), fields["colour"], fields["scale"], mean, std, fields["filter"])
        except (KeyError, TypeError, ValueError, Invalid) as error:
            raise Corrupt(f"this version does not know the preprocessing: {error}"[:300]) from None
        if preprocess.fields() != dict(fields):
            raise Corrupt("this version does not know the preprocessing: its fields differ from those written here")
        return preprocess

    def resized(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return uint8 [height, width, 3]: RGB pixels, uint8 [h, w, 3], of the size that the backbone takes."""
        return resized(pixels, *self.resize, self.filter)

    def tensor(self, pixels: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return float32 [3, height, width] of RGB pixels, uint8 [h, w, 3] of any size; in `out` where it is given."""
        pixels = self.resized(pixels).transpose(2, 0, 1)
        if self.colour == "BGR":
            pixels = pixels[::-1]
        by, plus = SCALES[self.scale]
        mean, std = np.array(self.mean), np.array(self.std)
        numbers: NDArray[np.float32] = np.multiply(
            pixels, (by / std).astype(np.float32)[:, None, None], out=out, order="C"
        )
        if (shift := (plus - mean) / std).any():
            numbers += shift.astype(np.float32)[:, None, None]
        return numbers


def _has_six_decimals(value: float) -> bool:
    """Whether `fields` holds the whole value: the numbers must not depend on digits that the key does not have."""
    return math.isfinite(value) and abs(value) <= _MILLION and round(value, 6) == value


def _invalid(key: str, value: object, remedy: str) -> Invalid:
    return Invalid(f"preprocess.{key} cannot be {value!r}", key=f"preprocess.{key}", value=value, remedy=remedy)
