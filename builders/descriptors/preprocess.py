"""From the pixels of a tile to the numbers that a backbone takes: resizing, channels, scale, layout, number format.

A `Preprocess` is a value of the mission file. All of it is in the build key (`fields`), because each part changes what
a descriptor means; a key holds integers and text only, so mean and std are parts per million there.

Needs numpy only, aboard too. `decoding` makes pixels of encoded tiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from builders.descriptors.resample import FILTERS as RESAMPLING
from builders.descriptors.resample import resized
from store.errors import Corrupt, Invalid

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_SIDE = 4096
COLOURS = ("RGB", "BGR", "grey")
LAYOUTS = ("NCHW", "NHWC")
FILTERS = ("nearest", *RESAMPLING)
# (factor, summand) for a pixel of 0..255.
SCALES = {"0..1": (1 / 255, 0.0), "0..255": (1.0, 0.0), "-1..1": (2 / 255, -1.0)}
_MILLION = 10**6
# Luma of ITU-R BT.601 in 1/65536, as Pillow has it (libImaging/Convert.c, L24). The sum is 65536: grey stays as it is.
_LUMA = np.array([19595, 38470, 7471], np.uint32)

# One number a channel.
Channels: TypeAlias = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a tile becomes the input of a backbone.

    `resize` is [height, width] in pixels, as in the shape of the input; a tile of another size is resampled with
    `filter` ("nearest", "bilinear", "bicubic", "lanczos": Pillow's filters, which smooth where they shrink). `colour`
    is the order of the channels, "RGB" or "BGR", or "grey" for one channel: the luma of the resized pixel. `scale` is
    the range that 0..255 is mapped to: "0..1", "0..255" or "-1..1". The last step, for each channel in the order of
    `colour`, is (value - mean) / std, both in units of the scaled value, with at most six decimals; without them, 0 and
    1. `layout` is the order of the dimensions of the input, "NCHW" or "NHWC". Raises Invalid for other values, naming
    the key of the mission file.
    """

    resize: tuple[int, int]
    colour: str = "RGB"
    scale: str = "0..1"
    mean: Channels = ()
    std: Channels = ()
    filter: str = "bilinear"
    layout: str = "NCHW"

    def __post_init__(self) -> None:
        if len(self.resize) != 2 or not all(type(n) is int and 1 <= n <= MAX_SIDE for n in self.resize):
            raise _invalid("resize", self.resize, f"give [height, width], each 1 to {MAX_SIDE}")
        for key, value, choices in (
            ("colour", self.colour, COLOURS),
            ("scale", self.scale, tuple(SCALES)),
            ("filter", self.filter, FILTERS),
            ("layout", self.layout, LAYOUTS),
        ):
            if value not in choices:
                raise _invalid(key, value, f"give one of {', '.join(choices)}")
        for key, numbers, usual in (("mean", self.mean, 0.0), ("std", self.std, 1.0)):
            if not numbers:
                object.__setattr__(self, key, (usual,) * self.channels)
            elif len(numbers) != self.channels or not all(_has_six_decimals(value) for value in numbers):
                what = "numbers" if self.channels > 1 else "number"
                right = f"give {self.channels} {what} with at most six decimals, one a channel of {self.colour}"
                raise _invalid(key, numbers, right)
        if min(self.std) <= 0:
            raise _invalid("std", self.std, "give numbers above 0")

    @property
    def channels(self) -> int:
        """The channels of an input: 1 or 3."""
        return 1 if self.colour == "grey" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one input, in the order of `layout`."""
        return (self.channels, *self.resize) if self.layout == "NCHW" else (*self.resize, self.channels)

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
            "layout": self.layout,
        }

    @classmethod
    def of_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Return the preprocessing with these `fields`. Raises Corrupt for fields that this version does not write."""
        try:
            height, width = fields["resize"]
            mean, std = (tuple(value / _MILLION for value in fields[key]) for key in ("mean", "std"))
            names = ("colour", "scale", "filter", "layout")
            colour, scale, filter_, layout = (fields[name] for name in names)
            preprocess = cls((height, width), colour, scale, mean, std, filter_, layout)
        except (KeyError, TypeError, ValueError, Invalid) as error:
            raise Corrupt(f"this version does not know the preprocessing: {error}"[:300]) from None
        if preprocess.fields() != dict(fields):
            raise Corrupt("this version does not know the preprocessing: its fields differ from those written here")
        return preprocess

    def resized(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return uint8 [height, width, 3]: RGB pixels, uint8 [h, w, 3], of the size that the backbone takes."""
        return resized(pixels, *self.resize, self.filter)

    def require_dtype(self, dtype: str) -> None:
        """Raise Invalid unless inputs of this dtype (as NumPy names it) can hold the numbers: every one in floats,
        whole numbers within their range in integers."""
        kind = np.dtype(dtype)
        if kind.kind == "f":
            return
        numbers = np.array([self.numbers_of(value) for value in range(256)])
        bounds = np.iinfo(kind) if kind.kind in "iu" else None
        if bounds is None or (numbers != np.round(numbers)).any() or not _within(numbers, bounds.min, bounds.max):
            raise Invalid(
                f"the model takes {dtype}, and preprocess makes {numbers.min():g} to {numbers.max():g} of 0 to 255",
                key="preprocess.scale",
                value=self.scale,
                remedy='set scale = "0..255" and leave out mean and std'
                if bounds is not None and bounds.max >= 255
                else f"export the network with an input of float32 or uint8, not {dtype}",
            )

    def numbers_of(self, value: int) -> tuple[float, ...]:
        """Return what a pixel of this value becomes in each channel."""
        by, plus = SCALES[self.scale]
        return tuple((value * by + plus - mean) / std for mean, std in zip(self.mean, self.std, strict=True))

    def tensor(self, pixels: NDArray[np.uint8], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return float32 [channels, height, width], or [height, width, channels] as `layout` says, of RGB pixels, uint8
        [h, w, 3] of any size; in `out` where it is given."""
        pixels = self.resized(pixels)
        if self.colour == "grey":
            pixels = ((pixels @ _LUMA + np.uint32(1 << 15)) >> np.uint32(16)).astype(np.uint8)[:, :, None]
        elif self.colour == "BGR":
            pixels = pixels[:, :, ::-1]
        by, plus = SCALES[self.scale]
        mean, std = np.array(self.mean), np.array(self.std)
        factor, shift = (by / std).astype(np.float32), (plus - mean) / std
        if self.layout == "NCHW":
            pixels, factor, shift = pixels.transpose(2, 0, 1), factor[:, None, None], shift[:, None, None]
        numbers: NDArray[np.float32] = np.multiply(pixels, factor, out=out, order="C")
        if shift.any():
            numbers += shift.astype(np.float32)
        return numbers


def _within(numbers: NDArray[np.float64], least: int, most: int) -> bool:
    return bool(numbers.min() >= least and numbers.max() <= most)


def _has_six_decimals(value: float) -> bool:
    """Whether `fields` holds the whole value: the numbers must not depend on digits that the key does not have."""
    return math.isfinite(value) and abs(value) <= _MILLION and round(value, 6) == value


def _invalid(key: str, value: object, remedy: str) -> Invalid:
    return Invalid(f"preprocess.{key} cannot be {value!r}", key=f"preprocess.{key}", value=value, remedy=remedy)
