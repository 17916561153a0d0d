"""Embedding: the numbers are those of the bare session, in order, and nothing that is no descriptor passes."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime import InferenceSession
from PIL import Image

from builders.descriptors.embed import MAX_WORKERS, Embedder
from builders.descriptors.mbtiles import MBTilesSource
from builders.descriptors.preprocess import Preprocess, decode
from builders.descriptors.tiles import Tile, cell_of, tile_from_id, tile_id, tiles_of_bbox
from store.errors import Invalid, Refused
from tests.support.backbone import write_backbone
from tests.support.terrain import render_jpeg

SHARED = os.environ.get("FLIGHTBAG_SHARED")
needs_shared = pytest.mark.skipif(SHARED is None, reason="FLIGHTBAG_SHARED does not name the shared data")
PREPROCESS = Preprocess((64, 64))
FIRST = tile_id(Tile(16, 14712, 23040))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("backbone") / "backbone.onnx"
    write_backbone(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def tiles() -> list[tuple[int, bytes]]:
    return [(number, render_jpeg(tile_from_id(number))) for number in range(FIRST, FIRST + 21)]


def reference(model: bytes, tiles: list[tuple[int, bytes]], preprocess: Preprocess = PREPROCESS) -> NDArray[np.float32]:
    """The bare session, one tile after another."""
    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    rows = [session.run(None, {"image": preprocess.tensor(decode(data))[None]})[0][0] for _, data in tiles]
    return np.stack(rows)


def model_of(
    *nodes: onnx.NodeProto, shape: tuple[str | int, ...] = ("N", 3, 2, 2), out: tuple[str | int, ...] = ("N", 3)
) -> bytes:
    """A model of a few nodes from `image` to `descriptor`."""
    graph = helper.make_graph(
        nodes,
        "few",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, out)],
        [
            helper.make_tensor("large", TensorProto.FLOAT, [], [1e5]),
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


MEAN = (
    helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
    helper.make_node("Identity", ["mean"], ["descriptor"]),
)


@pytest.mark.parametrize("batch", [1, 4, 8, 64])
def test_the_numbers_are_those_of_the_bare_session(backbone: bytes, tiles: list[tuple[int, bytes]], batch: int) -> None:
    result = Embedder(backbone, "descriptor", PREPROCESS, batch).embed_cell(tiles, "float32")
    assert result.tile_ids.tolist() == [number for number, _ in tiles]
    assert result.tile_ids.dtype == np.uint64
    assert result.descriptors.dtype == np.float32
    assert result.undecodable == ()
    assert np.allclose(result.descriptors, reference(backbone, tiles), atol=1e-5)


@pytest.mark.parametrize("fixed", [1, 4])
def test_a_fixed_batch_is_filled_up_and_cut_again(
    tmp_path: Path, backbone: bytes, tiles: list[tuple[int, bytes]], fixed: int
) -> None:
    write_backbone(tmp_path / "fixed.onnx", batch=fixed)
    for batch in (1, 5, 8):
        embedder = Embedder((tmp_path / "fixed.onnx").read_bytes(), "descriptor", PREPROCESS, batch)
        result = embedder.embed_cell(tiles, "float32")
        assert result.descriptors.shape == (len(tiles), 32)
        assert np.allclose(result.descriptors, reference(backbone, tiles), atol=1e-5)


def test_a_batch_that_only_the_output_fixes_is_kept() -> None:
    """Some exports declare a symbolic input round a graph that takes one image."""
    embedder = Embedder(model_of(*MEAN, out=(1, 3)), "descriptor", Preprocess((2, 2)), 8)
    result = embedder.embed_cell([(FIRST + n, render_jpeg(Tile(16, 1, n))) for n in range(3)], "float32")
    assert result.descriptors.shape == (3, 3)


def test_two_runs_give_the_same_bytes(backbone: bytes, tiles: list[tuple[int, bytes]]) -> None:
    embedder = Embedder(backbone, "descriptor", PREPROCESS, 4)
    first, second = (embedder.embed_cell(iter(tiles), "float16") for _ in range(2))
    assert first.descriptors.dtype == np.float16
    assert first.descriptors.tobytes() == second.descriptors.tobytes()


def test_different_tiles_have_different_descriptors(backbone: bytes, tiles: list[tuple[int, bytes]]) -> None:
    rows = Embedder(backbone, "descriptor", PREPROCESS, 8).embed_cell(tiles, "float32").descriptors
    likeness = rows @ rows.T - np.eye(len(rows))
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert likeness.max() < 0.999
    assert np.median(likeness) < 0.8


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_an_undecodable_tile_is_left_out_with_its_reason(
    backbone: bytes, tiles: list[tuple[int, bytes]], batch: int
) -> None:
    holes = [(number, data[:100] if place in (0, 5, 6, 7) else data) for place, (number, data) in enumerate(tiles)]
    result = Embedder(backbone, "descriptor", PREPROCESS, batch).embed_cell(holes, "float32")
    bad = [tiles[place][0] for place in (0, 5, 6, 7)]
    assert [number for number, _ in result.undecodable] == bad
    assert all(reason for _, reason in result.undecodable)
    whole = [tile for tile in tiles if tile[0] not in bad]
    assert result.tile_ids.tolist() == [number for number, _ in whole]
    assert np.allclose(result.descriptors, reference(backbone, whole), atol=1e-5)


def test_a_cell_without_a_tile_that_decodes_is_empty(backbone: bytes) -> None:
    embedder = Embedder(backbone, "descriptor", PREPROCESS, 2)
    for cell in ([], [(FIRST + n, b"") for n in range(5)]):
        result = embedder.embed_cell(cell, "float16")
        assert result.tile_ids.shape == (0,)
        assert result.descriptors.shape == (0, 32)
        assert result.descriptors.dtype == np.float16
        assert len(result.undecodable) == len(cell)


def test_progress_counts_every_tile_in_this_thread(backbone: bytes, tiles: list[tuple[int, bytes]]) -> None:
    seen: list[tuple[int, int]] = []
    embedder = Embedder(backbone, "descriptor", PREPROCESS, 4)
    embedder.embed_cell([*tiles, (FIRST + 30, b"")], "float32", lambda n: seen.append((n, threading.get_ident())))
    assert [count for count, _ in seen] == [4, 4, 4, 4, 4, 2]
    assert {thread for _, thread in seen} == {threading.get_ident()}


def test_the_source_is_read_a_bounded_way_ahead(backbone: bytes, tiles: list[tuple[int, bytes]]) -> None:
    taken = 0
    ahead = []
    done = 0

    def source() -> Iterator[tuple[int, bytes]]:
        nonlocal taken
        for n in range(100):
            taken += 1
            yield FIRST + n, tiles[n % len(tiles)][1]

    def progress(count: int) -> None:
        nonlocal done
        ahead.append(taken - done)
        done += count

    Embedder(backbone, "descriptor", PREPROCESS, 2).embed_cell(source(), "float32", progress)
    assert max(ahead) <= 2 * (MAX_WORKERS + 2)


@pytest.mark.parametrize(
    ("nodes", "dtype"),
    [
        ((helper.make_node("Div", ["mean", "zero"], ["descriptor"]),), "float32"),  # infinite
        (
            (helper.make_node("Mul", ["mean", "zero"], ["m"]), helper.make_node("Div", ["m", "m"], ["descriptor"])),
            "float32",
        ),
        ((helper.make_node("Mul", ["mean", "zero"], ["descriptor"]),), "float32"),
        ((helper.make_node("Mul", ["mean", "large"], ["descriptor"]),), "float16"),
    ],
    ids=["infinite", "nan", "zero", "overflow"],
)
def test_what_cannot_be_a_descriptor_is_refused_with_its_tile(nodes: tuple[onnx.NodeProto, ...], dtype: str) -> None:
    embedder = Embedder(model_of(MEAN[0], *nodes), "descriptor", Preprocess((2, 2), scale="0..255"), 4)
    with pytest.raises(Refused) as caught:
        embedder.embed_cell([(FIRST, render_jpeg(Tile(16, 14712, 23040)))], dtype)  # type: ignore[arg-type]
    assert caught.value.fields["tile"] == "16/14712/23040"


def test_only_the_wrong_tile_of_a_batch_is_named() -> None:
    black = Embedder(model_of(*MEAN), "descriptor", Preprocess((2, 2)), 8)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    good = render_jpeg(Tile(16, 1, 1))
    cell = [
        (tile_id(Tile(16, 1, 1)), good),
        (tile_id(Tile(16, 2, 1)), file.getvalue()),
        (tile_id(Tile(16, 3, 1)), good),
    ]
    with pytest.raises(Refused) as caught:
        black.embed_cell(cell, "float32")
    assert caught.value.fields["tile"] == "16/2/1"


def test_an_error_of_the_source_comes_through(backbone: bytes, tiles: list[tuple[int, bytes]]) -> None:
    def source() -> Iterator[tuple[int, bytes]]:
        yield from tiles
        raise OSError("the stick was pulled")

    with pytest.raises(OSError, match="stick"):
        Embedder(backbone, "descriptor", PREPROCESS, 4).embed_cell(source(), "float32")


def test_the_size_of_the_model_is_the_size_of_preprocess(backbone: bytes) -> None:
    for resize in ((256, 256), (64, 65)):
        with pytest.raises(Invalid) as caught:
            Embedder(backbone, "descriptor", Preprocess(resize), 8)
        assert caught.value.fields["key"] == "preprocess.resize"
        assert "[64, 64]" in caught.value.remedy


def test_an_output_that_is_not_there_is_invalid_and_the_outputs_are_listed(backbone: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        Embedder(backbone, "embedding", PREPROCESS, 8)
    assert "descriptor" in caught.value.remedy


@pytest.mark.parametrize(
    "model",
    [
        b"",
        b"not a model",
        model_of(*MEAN, shape=("N", 1, 2, 2), out=("N", 1)),
        model_of(helper.make_node("Identity", ["image"], ["descriptor"]), out=("N", 3, 2, 2)),
        model_of(helper.make_node("ReduceMean", ["image"], ["descriptor"], keepdims=0), out=()),
        model_of(
            helper.make_node("Shape", ["image"], ["s"]), helper.make_node("Cast", ["s"], ["descriptor"], to=1), out=(4,)
        ),
    ],
    ids=["empty", "noise", "one channel", "a map", "a number", "no batch"],
)
def test_a_model_that_gives_no_descriptors_is_invalid(model: bytes) -> None:
    with pytest.raises(Invalid):
        Embedder(model, "descriptor", Preprocess((2, 2)), 8)


def test_a_pooled_map_of_one_pixel_is_a_descriptor() -> None:
    model = model_of(helper.make_node("GlobalAveragePool", ["image"], ["descriptor"]), out=("N", 3, 1, 1))
    assert Embedder(model, "descriptor", Preprocess((2, 2)), 8).dimension == 3


def test_sizes_that_the_model_leaves_open_are_those_of_preprocess() -> None:
    model = model_of(*MEAN, shape=("N", 3, "H", "W"))
    result = Embedder(model, "descriptor", Preprocess((48, 96)), 8).embed_cell(
        [(FIRST, render_jpeg(tile_from_id(FIRST)))], "float32"
    )
    assert result.descriptors.shape == (1, 3)


def test_the_backbone_of_the_tests_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_backbone(tmp_path / name, size=96, dim=48)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert Embedder((tmp_path / "a").read_bytes(), "descriptor", Preprocess((96, 96)), 8).dimension == 48


def real_cell() -> list[tuple[int, bytes]]:
    """16 tiles of aerial imagery."""
    area = (-991750000, 470080000, -991350000, 470330000)
    cell = cell_of(tile_from_id(int(tiles_of_bbox(area, 17)[100])))
    with MBTilesSource(Path(SHARED or "") / "data/imagery/naip-20180716.mbtiles") as source:
        return list(source.cell(cell, 17))[:16]


@needs_shared
def test_a_real_backbone_on_real_imagery() -> None:
    model = (Path(SHARED or "") / "data/models/place-embedder.onnx").read_bytes()
    preprocess = Preprocess((256, 256))
    cell = real_cell()
    result = Embedder(model, "descriptor", preprocess, 8).embed_cell(cell, "float32")
    assert result.descriptors.shape == (16, 288)
    assert np.allclose(result.descriptors, reference(model, cell, preprocess), atol=1e-5)


@needs_shared
def test_a_real_backbone_of_fixed_batch_and_another_size() -> None:
    """The graph of this file is made for 1 x 3 x 352 x 352 inside, and declares N x 3 x 256 x 256."""
    path = Path(SHARED or "") / "data/models/place-embedder-batch1-352.onnx"
    with pytest.raises(Invalid):  # as it is it takes neither size: found before the first tile
        Embedder(path.read_bytes(), "descriptor", Preprocess((256, 256)), 8)
    with pytest.raises(Invalid):
        Embedder(path.read_bytes(), "descriptor", Preprocess((352, 352)), 8)
    model = onnx.load(path)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 352, 352), strict=True):
        dim.dim_value = size
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    fixed = model.SerializeToString()
    cell = real_cell()[:5]
    result = Embedder(fixed, "descriptor", Preprocess((352, 352)), 8).embed_cell(cell, "float16")
    assert result.descriptors.shape == (5, 288)
    assert np.allclose(result.descriptors, reference(fixed, cell, Preprocess((352, 352))), atol=2e-3)
