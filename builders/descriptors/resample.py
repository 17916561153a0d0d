"""Resizing of pictures with numpy, for a flight computer without Pillow (decision 0014): pixel for pixel what
`decoding.resized` gives.

Follows Pillow's src/libImaging/Resample.c for 8 bits a channel, and Geometry.c for "nearest". A filter is as much wider
as the picture shrinks. Weights are rounded to 22 bits after the point and sums are integers: first along the rows, with
the result rounded to 8 bits, then along the columns.

Law: `resized(pixels, height, width, name)` equals Pillow's result byte for byte, for every size and filter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

_BITS = 22


def resized(pixels: NDArray[np.uint8], height: int, width: int, name: str) -> NDArray[np.uint8]:
    """Return uint8 [height, width, 3]: `pixels`, uint8 [h, w, 3], resampled with the filter `name`, one of "nearest",
    "bilinear", "bicubic" and "lanczos". Pixels of that size already are returned as they are."""
    if pixels.shape[1] != width:
        pixels = _columns_resized(pixels.swapaxes(0, 1), width, name).swapaxes(0, 1)
    if pixels.shape[0] != height:
        pixels = _columns_resized(pixels, height, name)
    return pixels


def _columns_resized(pixels: NDArray[np.uint8], height: int, name: str) -> NDArray[np.uint8]:
    """uint8 [height, w, 3] of uint8 [h, w, 3]."""
    if name == "nearest":
        return pixels[_nearest(len(pixels), height)]
    first, weights = _weights(len(pixels), height, name)
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    sums = np.full((height, rows.shape[1]), 1 << (_BITS - 1), np.int32)
    products = np.empty_like(sums)
    for tap in range(weights.shape[1]):
        # A tap beyond the last pixel has the weight 0.
        sums += np.multiply(rows[np.minimum(first + tap, len(rows) - 1)], weights[:, tap, None], out=products)
    sums >>= _BITS
    resampled: NDArray[np.uint8] = np.clip(sums, 0, 255).astype(np.uint8)
    return resampled.reshape(height, *pixels.shape[1:])


def _nearest(size: int, wanted: int) -> NDArray[np.int64]:
    """int64[wanted]: the index of the pixel that each new one copies. Pillow adds steps up, with their roundings."""
    step = size / wanted
    places = np.cumsum(np.concatenate([[step * 0.5], np.full(wanted - 1, step)]))
    return places.astype(np.int64)


def _weights(size: int, wanted: int, name: str) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(int64[wanted], int32 [wanted, taps]): the index of the first pixel of each sum, and the weights from it on."""
    function, reach = FILTERS[name]
    scale = size / wanted
    widened = max(scale, 1.0)
    support = reach * widened
    taps = math.ceil(support) * 2 + 1
    centre = (np.arange(wanted) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    count = np.minimum((centre + support + 0.5).astype(np.int64), size) - first
    steps = np.arange(taps)
    exact = function((steps + first[:, None] - centre[:, None] + 0.5) * (1.0 / widened))
    exact[steps >= count[:, None]] = 0.0
    # Added one after the other, like Pillow's loop; np.sum adds in pairs and rounds differently.
    total = np.cumsum(exact, axis=1)[:, -1:]
    exact = np.divide(exact, total, out=exact, where=total != 0)
    scaled = exact * (1 << _BITS)
    return first, np.where(scaled < 0, scaled - 0.5, scaled + 0.5).astype(np.int32)


def _bilinear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = np.abs(x)
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x, a = np.abs(x), -0.5
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # math.sin is the C library's, like Pillow's; np.sin may differ in the last bit.
    return np.array([math.sin(v * math.pi) / (v * math.pi) if v else 1.0 for v in x.ravel().tolist()]).reshape(x.shape)


# Filter -> its function, and the distance from 0 beyond which the function is 0.
FILTERS: Mapping[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float]] = {
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}
