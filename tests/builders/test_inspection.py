"""What tile sources and models say of themselves, in each container."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from builders.grid.tiles import MAX_AREA_TILES, Bounds, Tile, bounds_of_tiles, rows_and_columns
from builders.imagery.roworder import SourcePath
from builders.inspection import _box, _imagery, _whole_tiles, ends_of
from builders.mission.template import Tensor
from store.errors import FlightbagError, Invalid
from tests.builders.imagery.containers import CONTAINERS, HIGH, HOLE, SIDE, WIDE, X0, Y0, ZOOM, Container, tile_pixels

WITHOUT_RASTERS = [one for one in CONTAINERS if one.name != "geotiff"]  # which has tiles of any size
FILLED_LATER = [one for one in WITHOUT_RASTERS if one.name != "pmtiles"]  # whose writer writes none without a tile
SCHEMES = {"mbtiles": "tms:", "xyz": "xyz:"}


@pytest.mark.parametrize("container", WITHOUT_RASTERS, ids=lambda one: one.name)
def test_the_area_of_a_source_is_that_of_its_tiles(container: Container, tmp_path: Path) -> None:
    path = tmp_path / container.name
    container.write(path, {**tile_pixels(), HOLE: np.zeros((SIDE, SIDE, 3), np.uint8)})
    seen = _imagery(SourcePath.parse(f"{SCHEMES.get(container.name, '')}{path}"))
    assert (seen.zooms, seen.tile_size, seen.format) == ((ZOOM,), SIDE, "PNG")
    rows, columns = rows_and_columns(seen.bbox, ZOOM)
    assert (rows, columns) == (range(Y0, Y0 + HIGH), [range(X0, X0 + WIDE)])
    assert seen.scheme == (SCHEMES[container.name][:-1] if container.name in SCHEMES else None)


@pytest.mark.parametrize("container", FILLED_LATER, ids=lambda one: one.name)
def test_a_source_without_a_tile_is_refused(container: Container, tmp_path: Path) -> None:
    path = tmp_path / container.name
    if container.name == "xyz":
        (path / "15").mkdir(parents=True)
    else:
        container.write(path, {})
    with pytest.raises(FlightbagError, match=str(path)) as caught:
        _imagery(SourcePath.parse(f"{SCHEMES.get(container.name, '')}{path}"))
    assert caught.value.remedy


class Bounded:
    """A source of which the bounds at each zoom are known, and nothing else."""

    def __init__(self, bounds: dict[int, Bounds]) -> None:
        self.bounds = bounds.get

    def reach(self, _zoom: int, _ids: Any) -> None:
        return None


@given(
    zoom=st.integers(1, 20),
    place=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_whole_tiles_of_the_box_of_tiles_are_these_tiles(
    zoom: int, place: tuple[float, float], size: tuple[int, int]
) -> None:
    """Law: no rounding adds a tile, and none takes one away."""
    side = 1 << zoom
    left, top = int(place[0] * side), int(place[1] * side)
    right, bottom = min(side - 1, left + size[0]), min(side - 1, top + size[1])
    bounds = bounds_of_tiles(zoom, (left, right), (top, bottom))
    assert _whole_tiles(zoom, bounds) == ((left, right), (top, bottom))


def test_two_zooms_have_the_area_that_both_cover() -> None:
    fine, coarse = bounds_of_tiles(17, (101, 110), (201, 207)), bounds_of_tiles(16, (51, 55), (100, 110))
    box = _box(Bounded({16: coarse, 17: fine}), (16, 17))  # type: ignore[arg-type] # what a box asks for
    assert box is not None
    assert rows_and_columns(box, 16) == (range(101, 104), [range(51, 55)])
    assert rows_and_columns(box, 17) == (range(202, 208), [range(102, 110)])


def test_no_area_has_more_tiles_than_a_mission_may() -> None:
    side = int(MAX_AREA_TILES**0.5)
    for more, refused in ((0, False), (1, True)):
        bounds = bounds_of_tiles(18, (1000, 999 + side + more), (1000, 999 + side))
        assert (_box(Bounded({18: bounds}), (18,)) is None) == refused  # type: ignore[arg-type]


# -- models


def write(path: Path, inputs: Sequence[Any], outputs: Sequence[Any]) -> Path:
    graph = helper.make_graph([], "g", list(inputs), list(outputs))
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def test_the_ends_of_a_model_are_those_that_it_declares(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    path = write(
        tmp_path / "net.onnx",
        [info("x", TensorProto.FLOAT, ["N", 3, None, 0]), info("w", TensorProto.FLOAT, [2]), info("s", 7, [])],
        [info("y", TensorProto.FLOAT16, None), info("z", TensorProto.BFLOAT16, ["N", 8])],
    )
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.FLOAT, [2], [1, 2]))
    onnx.save(model, path)
    inputs, outputs = ends_of(path)
    assert inputs == (Tensor("x", "float32", ("N", 3, "", ""), 4), Tensor("s", "int64", (), 0))
    assert [(one.name, one.shape, one.rank) for one in outputs] == [("y", (), -1), ("z", ("N", 8), 2)]


def test_a_model_of_very_many_outputs_is_refused(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    path = write(tmp_path / "net.onnx", [info("x", 1, [1])], [info(f"y{n}", 1, [1]) for n in range(65)])
    with pytest.raises(Invalid, match=r"65 outputs"):
        ends_of(path)


def test_a_tile_of_the_source_is_enough_for_its_size(tmp_path: Path) -> None:
    """Most of the box may be empty."""
    container = next(one for one in CONTAINERS if one.name == "xyz")
    corners = {Tile(ZOOM, X0, Y0), Tile(ZOOM, X0 + 40, Y0 + 40)}
    pixels = next(iter(tile_pixels().values()))
    container.write(tmp_path / "xyz", dict.fromkeys(corners, pixels))
    seen = _imagery(SourcePath.parse(f"xyz:{tmp_path / 'xyz'}"))
    assert (seen.tile_size, rows_and_columns(seen.bbox, ZOOM)[0]) == (SIDE, range(Y0, Y0 + 41))
