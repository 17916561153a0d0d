"""Frames of a camera: the part that a row of the map shows, whatever the frame's scale and heading."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import store
from builders.example.terrain import SIDE, render
from builders.grid.tiles import Tile
from builders.onboard.camera import SLACK, Camera, Ground, check_frame, view_of
from builders.onboard.flying import flying_engine
from builders.onboard.retriever import Retriever
from store.errors import Invalid
from tests.support.field import Desk
from tests.support.frames import frame_over, metres_of_tile

TILE = Tile(15, 7357, 11522)
METRES = metres_of_tile(TILE)
GROUND = Ground(15, METRES, SIDE)


def difference(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    """The mean difference in grey levels of two pictures, both reduced to 64 x 64."""
    small = [np.asarray(Image.fromarray(picture).resize((64, 64)), float) for picture in (one, other)]
    return float(np.abs(small[0] - small[1]).mean())


def test_a_frame_that_is_the_row_stays_as_it_is() -> None:
    frame = render(TILE)
    assert np.array_equal(view_of(frame, GROUND), frame)
    assert np.array_equal(view_of(frame, GROUND, Camera(metres=METRES, heading=0)), frame)
    assert np.array_equal(view_of(np.rot90(frame), GROUND, Camera(metres=METRES, heading=90)), frame)
    assert np.array_equal(view_of(np.rot90(frame, 2), GROUND, Camera(metres=METRES, heading=-180)), frame)


@pytest.mark.parametrize(
    ("scale", "heading", "size"),
    [
        (1.4, 0, (640, 640)),
        (1.7, 37, (640, 600)),
        (2.5, 212.5, (480, 640)),
        (2.0, 275, (150, 130)),
        (3.0, 5, (2400, 1800)),
    ],
)
def test_the_view_of_a_turned_frame_is_the_tile(scale: float, heading: float, size: tuple[int, int]) -> None:
    """Also upright frames, whose longer side is the height, frames coarser than the map, and much finer ones."""
    frame = frame_over(TILE, scale=scale, heading=heading, size=size)
    view = view_of(frame, GROUND, Camera(metres=scale * METRES, heading=heading))
    assert view.shape[0] == view.shape[1] <= 2 * SIDE
    tile = render(TILE)
    assert difference(view, tile) < 6
    wrong = view_of(frame, GROUND, Camera(metres=scale * METRES, heading=heading - 180))
    assert difference(wrong, tile) > 12


@settings(deadline=None)
@given(st.floats(-360, 360), st.floats(0.5, 4), st.integers(16, 90), st.integers(16, 90))
def test_a_view_has_no_pixel_from_beyond_the_frame(heading: float, scale: float, height: int, width: int) -> None:
    """A frame is refused exactly if the turned square does not fit it; inside, every value is one of the frame's."""
    frame = np.random.default_rng(height).integers(90, 120, (height, width, 3), np.uint8)
    camera, ground = Camera(metres=scale * 100, heading=heading), Ground(15, 100, 32)
    side = max(height, width) / scale
    angle = math.radians(heading)
    reach = side * (abs(math.cos(angle)) + abs(math.sin(angle)))
    if side < 16 or reach > min(height, width) * (1 + SLACK):
        with pytest.raises(Invalid) as caught:
            view_of(frame, ground, camera)
        assert caught.value.kind == "small-frame"
    elif reach < min(height, width) * (1 + SLACK) - 1e-6:
        view = view_of(frame, ground, camera)
        assert view.shape[0] <= max(height, width)
        assert 90 <= view.min() <= view.max() < 120


def test_height_and_angle_give_the_ground() -> None:
    assert Camera.at_height(100, 90).metres == pytest.approx(200)
    # A common drone: 84 degrees over the diagonal of 4:3 is 71.5 over the longer side.
    drone = Camera.at_height(120, 71.5, 30)
    assert (drone.metres, drone.heading) == (pytest.approx(172.9, abs=0.2), 30)


@pytest.mark.parametrize("by", [2, 3, 16, 17, 40])
def test_a_fine_frame_is_averaged_to_the_pixels_of_the_map(by: int) -> None:
    """Also where it is white: no sum runs over."""
    row = np.random.default_rng(by).integers(0, 256, (16, 16, 3), np.uint8)
    row[0] = 255
    frame = np.repeat(np.repeat(row, by, axis=0), by, axis=1)
    assert np.array_equal(view_of(frame, Ground(15, 100, 16), Camera(metres=100, heading=0)), row)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Camera(metres=0),
        lambda: Camera(metres=-5),
        lambda: Camera(metres=math.nan),
        lambda: Camera(metres=math.inf),
        lambda: Camera(metres=100, heading=361),
        lambda: Camera(metres=100, heading=math.nan),
        lambda: Camera(heading=90),
        lambda: Camera.at_height(0, 90),
        lambda: Camera.at_height(100, 180),
        lambda: Camera.at_height(100, math.nan),
    ],
)
def test_a_camera_that_cannot_be_is_invalid(make: Any) -> None:
    with pytest.raises(Invalid) as caught:
        make()
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ([[1, 2], [3, 4]], "numpy.asarray"),
        (Image.new("RGB", (8, 8)), "numpy.asarray"),
        (np.zeros((8, 8), np.uint8), "grey"),
        (np.zeros((8, 8, 1), np.uint8), "grey"),
        (np.zeros((8, 8, 4), np.uint8), "first three"),
        (np.zeros((3, 8, 8), np.uint8), "transpose"),
        (np.zeros((2, 8, 8, 3), np.uint8), "one by one"),
        (np.zeros((8, 8, 3), np.float32), "0..255"),
        (np.zeros((8, 8, 3), np.uint16), "0..255"),
        (np.zeros((0, 8, 3), np.uint8), "a pixel"),
    ],
)
def test_another_array_is_refused_with_what_to_do(frame: object, words: str) -> None:
    with pytest.raises(Invalid, match=r"uint8 \[height, width, 3\]") as caught:
        check_frame(frame)
    assert words in caught.value.remedy


def test_pixels_in_any_layout_of_memory_are_taken() -> None:
    frame = render(TILE)
    for other in (frame.copy(order="F"), frame[::-1][::-1], np.repeat(frame, 2, axis=0)[::2]):
        assert np.array_equal(view_of(other, GROUND), frame)


def test_a_turned_and_scaled_frame_is_found_with_what_is_known_and_not_without(built: Desk) -> None:
    mission = store.takeoff_check(built.store, "left", trust=built.root.read_bytes(), now=int(time.time())).mission
    assert mission is not None
    engine = flying_engine(mission, "embedder")
    frame = frame_over(TILE, scale=1.7, heading=37, size=(640, 600))
    with Retriever(mission, "embedder") as retriever:
        known = retriever.locate(engine, frame, Camera(metres=1.7 * METRES, heading=37))
        assert str(known.matches[0].tile) == str(TILE)
        assert [ground.zoom for ground in known.searched] == [15]
        assert [ground.zoom for ground in known.left_out] == [14]
        assert known.assumed == ("the camera looked straight down",)
        unknown = retriever.locate(engine, frame)
        assert str(TILE) != str(unknown.matches[0].tile)
        assert len(unknown.assumed) == 3
        assert len(unknown.searched) == 2
        grey = np.repeat(frame[..., :1], 3, axis=2)
        assert "grey" in retriever.locate(engine, grey).assumed[-1]
        with pytest.raises(Invalid) as caught:
            retriever.locate(engine, frame, Camera(metres=0.5 * METRES))
        assert caught.value.kind == "small-frame"
        assert "at zoom 15" in caught.value.message
