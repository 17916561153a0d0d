"""Frames of a camera over the procedural land of `terrain`: a piece of it, turned and scaled."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from builders.example.terrain import SIDE, render
from builders.grid.tiles import Tile
from builders.grid.views import EQUATOR


def metres_of_tile(tile: Tile) -> float:
    """The side of a tile on the ground, at the latitude of its middle."""
    row = (tile.y + 0.5) / (1 << tile.z)
    latitude = math.atan(math.sinh(math.pi * (1 - 2 * row)))
    return EQUATOR * math.cos(latitude) / (1 << tile.z)


def frame_over(
    tile: Tile, *, scale: float = 1.0, heading: float = 0.0, size: tuple[int, int] = (640, 480), seed: int = 1
) -> NDArray[np.uint8]:
    """uint8 [height, width, 3] of `size` (width, height): what a camera over the middle of `tile` sees if its longer
    side shows `scale` times the tile, and its top points to `heading`. Drawn by Pillow out of finer tiles."""
    finer, around = 1, 3  # zooms finer than the tile; tiles of the tile's zoom on each side
    parts, first = 1 << finer, (tile.x - around, tile.y - around)
    count = (2 * around + 1) * parts
    need = scale * math.hypot(*size) / max(size) / 2
    assert need <= around + 0.5
    low, high = int((around + 0.5 - need) * parts), math.ceil((around + 0.5 + need) * parts)
    mosaic = np.zeros((count * SIDE, count * SIDE, 3), np.uint8)
    for row in range(low, high):
        for column in range(low, high):
            place = Tile(tile.z + finer, first[0] * parts + column, first[1] * parts + row)
            mosaic[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = render(place, seed)
    middle = (around + 0.5) * parts * SIDE
    return cut(mosaic, (middle, middle), scale * parts * SIDE, heading, size)


def cut(
    mosaic: NDArray[np.uint8], middle: tuple[float, float], longer: float, heading: float, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """uint8 [height, width, 3] of `size` (width, height): the frame over the place `middle` (x, y) of a picture that is
    north up, whose longer side shows `longer` pixels of it."""
    step = longer / max(size)
    # The frame's right side points to heading + 90 degrees, its lower side to heading + 180.
    cosine, sine = math.cos(math.radians(heading)) * step, math.sin(math.radians(heading)) * step
    (x, y), across, down = middle, size[0] / 2, size[1] / 2
    affine = (cosine, -sine, x - cosine * across + sine * down, sine, cosine, y - sine * across - cosine * down)
    frame = Image.fromarray(mosaic).transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(frame)
