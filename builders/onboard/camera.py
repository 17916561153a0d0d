"""Frames of a camera, and the part of them that a row of the map shows: cropped, turned north up, and reduced.

A row of the map describes a square of ground, north up. A frame shows another piece of ground, turned with the
aircraft. `view_of` cuts the row's square out of the middle of the frame, from what the caller knows of the camera:

    >>> from builders.onboard.camera import Camera, view_of
    >>> from builders.onboard.retriever import Retriever
    >>> with Retriever(mission, "embedder", zoom=15) as retriever:
    ...     [ground] = retriever.grounds
    ...     round(ground.metres)
    834
    >>> view_of(frame, ground, Camera(metres=1200, heading=37)).shape
    (178, 178, 3)

`metres` is the ground that the longer side of the frame shows, from its one edge to the other; `Camera.at_height` has
it from the height above ground and the angle of view along that side. `heading` is the direction of the top of the
frame, in degrees clockwise from true north. The camera is taken to look straight down, on level ground, without
distortion, at the middle latitude of the mission's area; pixels are square.

What a frame does not show is never filled in: a frame that shows less ground than the row is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from builders.grid.views import EQUATOR, View
from builders.recipe import RowRecipe
from store.errors import Invalid

if TYPE_CHECKING:
    from typing_extensions import Self

# A view may be so much smaller than the row's square: less than the lens and the height are known to.
SLACK = 0.02
LEAST_PIXELS = 16
_STRIPE = 256  # rows that are sampled together
_KIND = "small-frame"


@dataclass(frozen=True, slots=True)
class Ground:
    """What a row of the map shows at one zoom: a square of `metres` a side, of `pixels` a side in the map's tiles."""

    zoom: int
    metres: float
    pixels: int

    @classmethod
    def of(cls, recipe: RowRecipe, zoom: int, latitude: float) -> Self:
        """Return what the rows of this recipe show at a latitude, in degrees."""
        tiles = View(*recipe.view).tiles
        tile = EQUATOR * math.cos(math.radians(latitude)) / (1 << zoom)
        return cls(zoom, tiles * tile, tiles * recipe.tile_size)


@dataclass(frozen=True, slots=True)
class Camera:
    """What is known of a frame: the ground that its longer side shows, and the direction of its top.

    Without `metres`, its shorter side is taken to show as much ground as a row of the map; without `heading`, its top
    is taken to be north. Raises Invalid for metres outside 1 to 1,000,000, a heading outside -360 to 360, and a heading
    without metres: a turned frame shows a whole row only where it shows more ground than that.
    """

    metres: float | None = None
    heading: float | None = None

    def __post_init__(self) -> None:
        if self.metres is not None and not 1 <= self.metres <= 10**6:
            raise Invalid(
                f"a frame cannot show {self.metres!r} metres of ground",
                remedy="give the metres that its longer side shows, from 1 to 1000000",
            )
        if self.heading is not None and not -360 <= self.heading <= 360:
            raise Invalid(
                f"{self.heading!r} is not a heading",
                remedy="give the direction of the frame's top in degrees clockwise from true north, from -360 to 360",
            )
        if self.heading is not None and self.metres is None:
            raise Invalid(
                "a heading alone does not say which part of the frame a row of the map shows",
                remedy="give the metres of ground that the longer side of the frame shows too",
            )

    @classmethod
    def at_height(cls, height: float, fov: float, heading: float | None = None) -> Self:
        """Return the camera `height` metres above ground that sees `fov` degrees along the longer side of the frame.

        Raises Invalid for a height outside 1 to 100,000 and an angle outside 1 to 170.
        """
        if not (1 <= height <= 10**5 and 1 <= fov <= 170):
            raise Invalid(
                f"a camera {height!r} m above ground with an angle of view of {fov!r} degrees does not exist",
                remedy="give metres above ground from 1 to 100000, and the degrees along the longer side of the frame, "
                "from 1 to 170",
            )
        return cls(2 * height * math.tan(math.radians(fov) / 2), heading)

    def assumptions(self, grounds: Sequence[Ground]) -> list[str]:
        """Return what a search among these rows takes for granted of the frame, as sentences for people."""
        assumed = ["the camera looked straight down"]
        if self.metres is None:
            rows = ", ".join(f"{ground.metres:.0f} m at zoom {ground.zoom}" for ground in grounds)
            assumed.append(f"the shorter side of the frame shows as much ground as a row of the map ({rows})")
        if self.heading is None:
            assumed.append("the top of the frame is north")
        return assumed

    def fills(self, size: tuple[int, int], ground: Ground) -> bool:
        """Return whether a frame of this size, (height, width) or (width, height), shows the whole square of such a
        row."""
        side, room = self._sides(size, ground)
        return side <= room * (1 + SLACK)

    def require_filled(self, size: tuple[int, int], ground: Ground) -> None:
        """Raise Invalid, with the kind `small-frame`, where a frame of this size does not show the whole square."""
        if self.fills(size, ground):
            return
        side, room = self._sides(size, ground)
        turned = f", turned by {self.heading:g} degrees," if self.heading else ""
        raise Invalid(
            f"the frame{turned} shows a square of {room * ground.metres / side:.0f} m; a row of the map at zoom "
            f"{ground.zoom} shows {ground.metres:.0f} m",
            remedy="search a finer zoom of the map, build the map with smaller views, or fly higher",
            kind=_KIND,
        )

    def _sides(self, size: tuple[int, int], ground: Ground) -> tuple[float, float]:
        """(the side of the row's square, the side of the largest square with its turn in the frame), in pixels."""
        cosine, sine = self._turn()
        room = min(size) / (abs(cosine) + abs(sine))
        return room if self.metres is None else ground.metres / self.metres * max(size), room

    def _turn(self) -> tuple[float, float]:
        angle = math.radians(self.heading or 0)
        return math.cos(angle), math.sin(angle)


def view_of(frame: NDArray[np.uint8], ground: Ground, camera: Camera = Camera()) -> NDArray[np.uint8]:
    """Return uint8 [s, s, 3]: the middle of a frame, uint8 [height, width, 3], as a row of the map shows ground.

    `s` is about `ground.pixels`, up to twice as many, or fewer where the frame is coarser than the map. A frame with
    more pixels is averaged in squares first. Raises Invalid for another array, and with the kind `small-frame` for a
    frame that shows less ground than the row, or shows it with fewer than 16 pixels.
    """
    check_frame(frame)
    size = frame.shape[0], frame.shape[1]
    camera.require_filled(size, ground)
    side, room = camera._sides(size, ground)
    side = min(side, room)
    if side < LEAST_PIXELS:
        raise Invalid(
            f"the frame shows the {ground.metres:.0f} m of a row of the map at zoom {ground.zoom} with {side:.1f} "
            f"pixels; the least are {LEAST_PIXELS}",
            remedy="fly lower, search a coarser zoom of the map, or give a frame with more pixels",
            kind=_KIND,
        )
    by = max(1, int(side / ground.pixels))
    averaged, x, y = _averaged(frame, side * sum(map(abs, camera._turn())), by)
    return _sampled(averaged, x, y, side / by, camera._turn())


def check_frame(frame: object, what: str = "a frame") -> None:
    """Raise Invalid for anything but uint8 [height, width, 3] with a pixel. Whether the channels are RGB does not
    show."""
    remedy = "give RGB pixels, one byte a channel"
    if not isinstance(frame, np.ndarray):
        raise Invalid(
            f"{what} is uint8 [height, width, 3], RGB; this is {type(frame).__name__}, not a numpy array",
            remedy="give numpy.asarray of a picture in RGB",
        )
    if frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and frame.size:
        return
    if not frame.size:
        remedy = "give a frame with a pixel"
    elif frame.dtype != np.uint8:
        remedy = "scale its values to 0..255, and give them as uint8"
    elif frame.ndim == 2 or frame.shape[2:] == (1,):
        remedy = "repeat a grey picture in three channels"
    elif frame.ndim == 3 and frame.shape[2] == 4:
        remedy = "give its first three channels, without transparency"
    elif frame.ndim == 3 and frame.shape[0] == 3:
        remedy = "put the channels last: frame.transpose(1, 2, 0)"
    elif frame.ndim == 4:
        remedy = "give its frames one by one"
    raise Invalid(f"{what} is uint8 [height, width, 3], RGB; this is {frame.dtype} {list(frame.shape)}", remedy=remedy)


def _averaged(frame: NDArray[np.uint8], side: float, by: int) -> tuple[NDArray[np.float32], float, float]:
    """(float32 [h, w, 3], x, y): the averages of squares of `by` pixels over the middle `side` of the frame and what
    fits of a rim round it, and the middle of the frame among them."""
    middle, spans = [], []
    for size in frame.shape[:2]:
        first = max(0, int((size - side) / 2) - by)
        count = min(size - first, int(side) + 3 * by + 1) // by
        middle.append((size / 2 - first) / by)
        spans.append(slice(first, first + count * by))
    part = frame[spans[0], spans[1]]
    if by == 1:
        return part.astype(np.float32), middle[1], middle[0]
    # Whole rows and columns are added: some times faster than sums along axes. 16 * 16 * 255 fits 16 bits.
    rows: NDArray[np.unsignedinteger] = part[::by].astype(np.uint16 if by <= 16 else np.uint32)
    for step in range(1, by):
        rows += part[step::by]
    sums = rows[:, ::by].copy()
    for step in range(1, by):
        sums += rows[:, step::by]
    return (sums / np.float32(by * by)).astype(np.float32, copy=False), middle[1], middle[0]


def _sampled(
    pixels: NDArray[np.float32], x: float, y: float, side: float, turn: tuple[float, float]
) -> NDArray[np.uint8]:
    """uint8 [s, s, 3], s = side: the square of `side` pixels round (x, y), turned by the angle with this cosine and
    sine, bilinear."""
    cosine, sine = turn
    count = max(1, round(side))
    steps = (np.arange(count) + 0.5 - count / 2) * (side / count)
    out = np.empty((count, count, 3), np.uint8)
    height, width = pixels.shape[:2]
    for start in range(0, count, _STRIPE):
        east, south = steps[None, :], steps[start : start + _STRIPE, None]
        # The top of the frame points `heading` clockwise from north, its right side as much from east.
        across = np.clip(x + east * cosine + south * sine - 0.5, 0, width - 1)
        down = np.clip(y - east * sine + south * cosine - 0.5, 0, height - 1)
        column, row = across.astype(np.intp), down.astype(np.intp)
        right, below = np.minimum(column + 1, width - 1), np.minimum(row + 1, height - 1)
        part = (across - column).astype(np.float32)[..., None]
        upper = pixels[row, column] * (1 - part) + pixels[row, right] * part
        lower = pixels[below, column] * (1 - part) + pixels[below, right] * part
        part = (down - row).astype(np.float32)[..., None]
        out[start : start + _STRIPE] = upper * (1 - part) + lower * part + np.float32(0.5)
    return out
