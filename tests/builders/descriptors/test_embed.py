"""Embedding: the numbers are those of the bare session, in order, and nothing that is no descriptor passes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException
from PIL import Image

from builders.descriptors import embed as module
from builders.descriptors.decoding import decode, tile_pixels
from builders.descriptors.embed import (
    BATCHES_AHEAD,
    CELLS_AHEAD,
    CellPipeline,
    CellRequest,
    CellResult,
    Description,
    Embedder,
)
from builders.descriptors.network import MAX_WORKERS
from builders.descriptors.preprocess import Preprocess
from builders.example.backbone import write_backbone
from builders.example.terrain import render_jpeg
from builders.grid.tiles import Tile, cell_of, tile_from_id, tile_id, tiles_of_bbox
from builders.grid.views import View
from store.errors import Invalid, Refused, Unavailable
from tests.builders.imagery.containers import open_mbtiles

SHARED = os.environ.get("FLIGHTBAG_SHARED")
needs_shared = pytest.mark.skipif(SHARED is None, reason="FLIGHTBAG_SHARED does not name the shared data")
PREPROCESS = Preprocess((64, 64))
FIRST = tile_id(Tile(16, 14712, 23040))
CELL = Tile(12, 919, 1440)

Encoded = Sequence[tuple[int, bytes]]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("backbone") / "backbone.onnx"
    write_backbone(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def tiles() -> list[tuple[int, bytes]]:
    return [(number, render_jpeg(tile_from_id(number))) for number in range(FIRST, FIRST + 21)]


def png(*colours: tuple[int, int, int], side: int = 8) -> bytes:
    """A tile of `side` pixels that is the first colour, with one column of each other."""
    image = Image.new("RGB", (side, side), colours[0])
    for column, colour in enumerate(colours[1:]):
        image.paste(colour, (column, 0, column + 1, side))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def embedder_of(model: bytes, output: str, preprocess: Preprocess, batch: int, **more: Any) -> Embedder:
    return Embedder(Description(model, output, preprocess, batch, **more))


def job_of(tiles: Encoded) -> CellRequest:
    """A job of views that are these tiles."""
    return CellRequest(tile_from_id(tiles[0][0]).z if tiles else 16, tuple(number for number, _ in tiles), tuple(tiles))


def described(embedder: Embedder, tiles: Encoded, dtype: Any = "float32") -> CellResult:
    """These tiles, each for itself, as one cell."""
    (result,) = embedder.embed([job_of(tiles)], dtype)
    return result


def no_worker_is_left() -> bool:
    return not any(thread.name.startswith("embed") for thread in threading.enumerate())


def reference(model: bytes, tiles: list[tuple[int, bytes]], preprocess: Preprocess = PREPROCESS) -> NDArray[np.float32]:
    """The bare session, one tile after another."""
    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    rows = [session.run(None, {"image": preprocess.tensor(np.asarray(decode(data)))[None]})[0][0] for _, data in tiles]
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
    result = described(embedder_of(backbone, "descriptor", PREPROCESS, batch), tiles)
    assert result.tile_ids.tolist() == [number for number, _ in tiles]
    assert result.tile_ids.dtype == np.uint64
    assert result.descriptors.dtype == np.float32
    assert result.faults == ()
    assert np.allclose(result.descriptors, reference(backbone, tiles), atol=1e-5)


@pytest.mark.parametrize("fixed", [1, 4])
def test_a_fixed_batch_is_filled_up_and_cut_again(
    tmp_path: Path, backbone: bytes, tiles: list[tuple[int, bytes]], fixed: int
) -> None:
    write_backbone(tmp_path / "fixed.onnx", batch=fixed)
    for batch in (1, 5, 8):
        embedder = embedder_of((tmp_path / "fixed.onnx").read_bytes(), "descriptor", PREPROCESS, batch)
        assert embedder.network.batch % fixed == 0
        result = described(embedder, tiles)
        assert result.descriptors.shape == (len(tiles), 32)
        assert np.allclose(result.descriptors, reference(backbone, tiles), atol=1e-5)


def test_a_batch_that_only_the_output_fixes_is_kept() -> None:
    """Some exports declare a symbolic input round a graph that takes one image."""
    embedder = embedder_of(model_of(*MEAN, out=(1, 3)), "descriptor", Preprocess((2, 2)), 8)
    result = described(embedder, [(FIRST + n, render_jpeg(Tile(16, 1, n))) for n in range(3)])
    assert result.descriptors.shape == (3, 3)


def test_two_runs_give_the_same_bytes(backbone: bytes, tiles: list[tuple[int, bytes]]) -> None:
    embedder = embedder_of(backbone, "descriptor", PREPROCESS, 4)
    first, second = (described(embedder, tiles, "float16") for _ in range(2))
    assert first.descriptors.dtype == np.float16
    assert first.descriptors.tobytes() == second.descriptors.tobytes()


def test_different_tiles_have_different_descriptors(backbone: bytes, tiles: list[tuple[int, bytes]]) -> None:
    rows = described(embedder_of(backbone, "descriptor", PREPROCESS, 8), tiles).descriptors
    likeness = rows @ rows.T - np.eye(len(rows))
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert likeness.max() < 0.999
    assert np.median(likeness) < 0.8


# -- what is left out


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_bad_tile_is_left_out_with_its_reason(backbone: bytes, tiles: Encoded, batch: int) -> None:
    wrong = {0: b"", 5: png((1, 2, 3), side=256), 6: png((1, 2, 3), (3, 2, 1), side=255), 7: tiles[7][1][:100]}
    holes = [(number, wrong.get(place, data)) for place, (number, data) in enumerate(tiles)]
    result = described(embedder_of(backbone, "descriptor", PREPROCESS, batch), holes)
    assert [(number, reason) for number, reason, _ in result.faults] == [
        (tiles[0][0], "undecodable"),
        (tiles[5][0], "blank"),
        (tiles[6][0], "wrong-size"),
        (tiles[7][0], "undecodable"),
    ]
    assert all(detail for _, _, detail in result.faults)
    whole = [tile for place, tile in enumerate(tiles) if place not in wrong]
    assert result.tile_ids.tolist() == [number for number, _ in whole]
    assert np.allclose(result.descriptors, reference(backbone, whole), atol=1e-5)


def test_an_absent_tile_is_left_out_and_one_of_no_view_is_passed_over(backbone: bytes, tiles: Encoded) -> None:
    job = CellRequest(16, tuple(number for number, _ in tiles[:10]), (*tiles[4:], (FIRST + 50, b"")))
    (result,) = embedder_of(backbone, "descriptor", PREPROCESS, 4).embed([job], "float32")
    assert result.tile_ids.tolist() == [number for number, _ in tiles[4:10]]
    assert result.faults == ()
    assert np.allclose(result.descriptors, reference(backbone, list(tiles[4:10])), atol=1e-5)


def test_a_cell_without_a_tile_that_decodes_is_empty(backbone: bytes) -> None:
    embedder = embedder_of(backbone, "descriptor", PREPROCESS, 2)
    for bad in ([], [(FIRST + n, b"") for n in range(5)]):
        result = described(embedder, bad, "float16")
        assert result.tile_ids.shape == (0,)
        assert result.tile_ids.dtype == np.uint64
        assert result.descriptors.shape == (0, 32)
        assert result.descriptors.dtype == np.float16
        assert len(result.faults) == len(bad)


def test_the_origins_of_a_job_are_ascending_and_have_a_view(backbone: bytes) -> None:
    for origins in ((2, 1), (1, 1)):
        with pytest.raises(Invalid):
            CellRequest(16, origins, ())
    embedder = embedder_of(backbone, "descriptor", PREPROCESS, 2, view=View(2, 2))
    with pytest.raises(Invalid):
        list(embedder.embed([CellRequest(16, (tile_id(Tile(16, 14713, 23040)),), ())], "float32"))


# -- views of many tiles


def colour_of(tile: Tile) -> tuple[int, int, int]:
    return tile.x % 16 * 16, tile.y % 16 * 16, 255


def coloured(origins: Sequence[int], view: View, zoom: int = 16) -> dict[int, bytes]:
    """The tiles of these views, of 8 pixels, each of a colour that tells its column and row but for one column."""
    prints = view.footprint(zoom, np.array(origins, np.uint64))
    return {int(n): png(colour_of(tile_from_id(int(n))), (0, 0, 0)) for n in np.unique(prints)}


PIXELS_OUT = helper.make_node("Flatten", ["image"], ["descriptor"], axis=1)


@pytest.mark.parametrize("batch", [1, 5, 64])
@pytest.mark.parametrize("view", [View(1, 1), View(2, 1), View(3, 2), View(4, 4)], ids=str)
def test_a_view_shows_each_of_its_tiles_in_its_place(view: View, batch: int) -> None:
    """A model that gives its input back: what a descriptor holds is the mosaic itself."""
    side = 8 * view.tiles
    model = model_of(PIXELS_OUT, shape=("N", 3, side, side), out=("N", 3 * side * side))
    origins = tuple(view.origins_in_cell(CELL, 16).tolist())
    embedder = embedder_of(model, "descriptor", Preprocess((side, side), scale="0..255"), batch, view=view, tile_size=8)
    (result,) = embedder.embed([CellRequest(16, origins, tuple(coloured(origins, view).items()))], "float32")
    assert result.tile_ids.tolist() == list(origins)
    assert result.faults == ()
    for origin, row in zip(origins, result.descriptors, strict=True):
        z, x, y = tile_from_id(origin)
        image = row.reshape(3, view.tiles, 8, view.tiles, 8)
        for down in range(view.tiles):
            for right in range(view.tiles):
                shown = image[:, down, :, right, :]
                assert (shown[..., 0] == 0).all()
                expected = colour_of(Tile(z, (x + right) % (1 << z), y + down))
                assert (shown[..., 1:] == np.array(expected)[:, None, None]).all()


def test_a_mosaic_is_resized_as_a_whole() -> None:
    view = View(2, 2)
    origins = tuple(view.origins_in_cell(CELL, 16).tolist())[:3]
    tiles = coloured(origins, view)
    embedder = embedder_of(model_of(*MEAN), "descriptor", Preprocess((2, 2)), 2, view=view, tile_size=8)
    (result,) = embedder.embed([CellRequest(16, origins, tuple(tiles.items()))], "float32")
    for origin, row in zip(origins, result.descriptors, strict=True):
        mosaic = Image.new("RGB", (16, 16))
        for place, number in enumerate(view.footprint(16, np.array([origin], np.uint64)).ravel().tolist()):
            mosaic.paste(decode(tiles[number]), (place % 2 * 8, place // 2 * 8))
        assert np.allclose(row, Preprocess((2, 2)).tensor(np.asarray(mosaic)).mean(axis=(1, 2)), atol=1e-5)


def test_views_over_the_antimeridian_are_described() -> None:
    view = View(3, 1)
    origins = (tile_id(Tile(16, 65535, 100)),)
    embedder = embedder_of(model_of(*MEAN), "descriptor", Preprocess((2, 2)), 2, view=view, tile_size=8)
    (result,) = embedder.embed([CellRequest(16, origins, tuple(coloured(origins, view).items()))], "float32")
    assert result.tile_ids.tolist() == list(origins)


def test_each_tile_is_decoded_once_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with workers side by side; and of the decoded tiles a band of the cell is held, not the cell."""
    view = View(4, 1)
    seen: Counter[bytes] = Counter()
    held = most = 0
    count = threading.Lock()
    real, release = tile_pixels, module._Tiles.release

    def counting(data: bytes, side: int) -> NDArray[np.uint8]:
        nonlocal held, most
        with count:
            seen[data] += 1
            held += 1
            most = max(most, held)
        return real(data, side)

    def releasing(self: Any, number: int) -> None:
        nonlocal held
        slot = self._tiles[number]
        with count:
            before = slot.uses
            release(self, number)
            held -= before == 1

    monkeypatch.setattr(module, "tile_pixels", counting)
    monkeypatch.setattr(module._Tiles, "release", releasing)
    origins = tuple(view.origins_in_cell(CELL, 16).tolist())
    tiles = coloured(origins, view)
    embedder = embedder_of(model_of(*MEAN), "descriptor", Preprocess((2, 2)), 4, view=view, tile_size=8)
    (result,) = embedder.embed([CellRequest(16, origins, tuple(tiles.items()))], "float32")
    assert result.tile_ids.tolist() == list(origins)
    assert len(tiles) == 19 * 19
    # Colours repeat across the border of the cell, and PNGs with them.
    assert seen == Counter(tiles.values())
    assert held == 0
    # Four rows of 19, and what the batches under way reach into the fifth and the rows of views beyond.
    assert most <= 19 * (view.tiles + 1) + MAX_WORKERS * 4


def test_a_bad_tile_takes_its_views_with_it_and_is_told_once() -> None:
    view = View(2, 1)
    origins = tuple(view.origins_in_cell(CELL, 16).tolist())
    tiles = coloured(origins, view)
    bad, absent, beside = (tile_id(Tile(16, CELL.x * 16 + x, CELL.y * 16 + y)) for x, y in ((5, 5), (9, 9), (10, 10)))
    tiles[bad] = b"damaged"
    tiles[beside] = b"damaged too"
    del tiles[absent]
    embedder = embedder_of(model_of(*MEAN), "descriptor", Preprocess((2, 2)), 8, view=view, tile_size=8)
    counted: list[int] = []
    (result,) = embedder.embed([CellRequest(16, origins, tuple(tiles.items()))], "float32", counted.append)
    hit = set(view.origins_over(16, np.array([bad, absent, beside], np.uint64)).tolist())
    assert result.tile_ids.tolist() == [number for number in origins if number not in hit]
    assert len(hit) == 11
    assert [(number, reason) for number, reason, _ in result.faults] == sorted(
        [(bad, "undecodable"), (beside, "undecodable")]
    )
    assert sum(counted) == len(origins)


def test_a_view_that_would_fill_the_memory_is_invalid(backbone: bytes) -> None:
    for view, side in ((View(16, 16), 1024), (View(), 0), (View(), 4097)):
        with pytest.raises(Invalid):
            embedder_of(backbone, "descriptor", PREPROCESS, 2, view=view, tile_size=side)


# -- many cells


def cells(tiles: Encoded, count: int) -> list[list[tuple[int, bytes]]]:
    """Cells beside each other, of different sizes, the third empty."""
    return [
        [(FIRST + 256 * cell + n, data) for n, (_, data) in enumerate(tiles[: 0 if cell == 2 else 3 + 5 * cell])]
        for cell in range(count)
    ]


@pytest.mark.parametrize("batch", [1, 4, 64])
def test_the_results_are_in_the_order_of_the_jobs(backbone: bytes, tiles: Encoded, batch: int) -> None:
    given = cells(tiles, 4)
    results = list(embedder_of(backbone, "descriptor", PREPROCESS, batch).embed(map(job_of, given), "float32"))
    assert [result.tile_ids.tolist() for result in results] == [[number for number, _ in cell] for cell in given]
    for cell, result in zip(given, results, strict=True):
        if cell:
            assert np.allclose(result.descriptors, reference(backbone, cell), atol=1e-5)
    assert no_worker_is_left()


def test_the_bytes_of_a_cell_do_not_depend_on_the_others(backbone: bytes, tiles: Encoded) -> None:
    embedder = embedder_of(backbone, "descriptor", PREPROCESS, 8)
    given = cells(tiles, 4)
    together = list(embedder.embed(map(job_of, given), "float16"))
    for cell, result in zip(given, together, strict=True):
        assert described(embedder, cell, "float16").descriptors.tobytes() == result.descriptors.tobytes()


def test_no_job_gives_no_result(backbone: bytes) -> None:
    assert list(embedder_of(backbone, "descriptor", PREPROCESS, 8).embed([], "float32")) == []


def test_progress_counts_every_view_in_this_thread(backbone: bytes, tiles: Encoded) -> None:
    seen: list[tuple[int, int]] = []
    embedder = embedder_of(backbone, "descriptor", PREPROCESS, 4)
    job = job_of([*tiles, (FIRST + 30, b"")])
    list(embedder.embed([job], "float32", lambda n: seen.append((n, threading.get_ident()))))
    assert [count for count, _ in seen] == [4, 4, 4, 4, 4, 2]
    assert {thread for _, thread in seen} == {threading.get_ident()}


def test_sources_are_read_a_bounded_way_ahead_in_this_thread(backbone: bytes, tiles: Encoded) -> None:
    read: list[int] = []

    def job(cell: int) -> CellRequest:
        assert threading.current_thread() is threading.main_thread()
        read.append(cell)
        return job_of([(FIRST + 256 * cell + n, data) for n, (_, data) in enumerate(tiles[:2])])

    results = embedder_of(backbone, "descriptor", PREPROCESS, 2).embed(map(job, range(12)), "float32")
    assert read == []
    for done, _ in enumerate(results, 1):
        assert read == list(range(len(read)))
        # Of one cell more than is read ahead: the one to be finished next.
        assert len(read) <= done + CELLS_AHEAD + 1
    assert len(read) == 12


def test_workers_go_on_while_the_caller_has_the_result(backbone: bytes, tiles: Encoded) -> None:
    ran = threading.Semaphore(0)
    embedder = embedder_of(backbone, "descriptor", PREPROCESS, 2)
    session = embedder.network.session

    class Counting:
        def run(self, *arguments: Any) -> Any:
            result = session.run(*arguments)
            ran.release()
            return result

    embedder.network.session = Counting()
    given = [[(FIRST + 256 * cell + n, data) for n, (_, data) in enumerate(tiles[:2])] for cell in range(3)]
    results = embedder.embed(map(job_of, given), "float32")
    next(results)
    for _ in given:  # all three cells are run although only the first was asked for
        assert ran.acquire(timeout=60)
    results.close()


def test_no_more_batches_are_begun_than_the_bound(
    backbone: bytes, tiles: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = 0
    done = 0
    ahead: list[int] = []
    embedder = embedder_of(backbone, "descriptor", PREPROCESS, 1)
    describe = CellPipeline._describe

    def counting(*arguments: Any) -> None:
        nonlocal started
        started += 1
        describe(*arguments)

    def progress(count: int) -> None:
        nonlocal done
        done += count
        ahead.append(started - done)

    monkeypatch.setattr(CellPipeline, "_describe", counting)
    list(embedder.embed([job_of(tiles)], "float32", progress))
    assert max(ahead) <= MAX_WORKERS + BATCHES_AHEAD


# -- the end of it


def test_a_generator_that_is_closed_early_leaves_no_worker(backbone: bytes, tiles: Encoded) -> None:
    embedder = embedder_of(backbone, "descriptor", PREPROCESS, 1)
    for taken in (0, 1, 2):
        results = embedder.embed((job_of(tiles) for _ in range(100)), "float32")
        for _ in range(taken):
            next(results)
        results.close()
        assert no_worker_is_left()


def test_an_early_end_stops_a_run_that_is_under_way() -> None:
    """The model never ends of its own accord: a loop of 2**62 steps."""
    begun = threading.Event()
    embedder = embedder_of(endless(), "descriptor", Preprocess((2, 2), scale="0..255"), 1)
    session = embedder.network.session

    class Telling:
        def run(self, *arguments: Any) -> Any:
            begun.set()
            return session.run(*arguments)

    embedder.network.session = Telling()
    given = [(tile_id(Tile(16, 1, 1)), render_jpeg(Tile(16, 1, 1)))]

    def jobs() -> Iterator[CellRequest]:
        yield job_of(given)
        assert begun.wait(60)
        raise OSError("the stick was pulled")

    with pytest.raises(OSError, match="stick"):
        list(embedder.embed(jobs(), "float32"))
    assert no_worker_is_left()


def endless() -> bytes:
    """A model that is done at once for an image of 0..1, which it is tried with, and never for a brighter one."""
    scalar = TensorProto.INT64
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Identity", ["last"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", scalar, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("last", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    return model_of(
        MEAN[0],
        helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Greater", ["most", "one"], ["lit"]),
        helper.make_node("Constant", [], ["steps"], value=helper.make_tensor("s", scalar, [], [1 << 62])),
        helper.make_node("Loop", ["steps", "lit", "mean"], ["descriptor"], body=body),
    )


def test_an_error_of_the_source_comes_through(backbone: bytes, tiles: Encoded) -> None:
    def jobs() -> Iterator[CellRequest]:
        yield job_of(tiles)
        raise OSError("the stick was pulled")

    with pytest.raises(OSError, match="stick"):
        list(embedder_of(backbone, "descriptor", PREPROCESS, 4).embed(jobs(), "float32"))
    assert no_worker_is_left()


# -- what is refused


@pytest.mark.parametrize(
    ("nodes", "dtype", "why"),
    [
        ((helper.make_node("Div", ["mean", "zero"], ["descriptor"]),), "float32", "not finite"),
        (
            (helper.make_node("Mul", ["mean", "zero"], ["m"]), helper.make_node("Div", ["m", "m"], ["descriptor"])),
            "float32",
            "not finite",
        ),
        ((helper.make_node("Mul", ["mean", "zero"], ["descriptor"]),), "float32", "all zero"),
        ((helper.make_node("Mul", ["mean", "large"], ["descriptor"]),), "float16", "beyond float16"),
        (
            (helper.make_node("Mul", ["mean", "zero"], ["m"]), helper.make_node("Exp", ["m"], ["descriptor"])),
            "float16",
            "constant",
        ),
    ],
    ids=["infinite", "nan", "zero", "overflow", "constant"],
)
@pytest.mark.parametrize("normalise", ["none", "l2"])
def test_what_cannot_be_a_descriptor_is_refused_with_its_tile(
    nodes: tuple[onnx.NodeProto, ...], dtype: Any, why: str, normalise: Any
) -> None:
    model, preprocess = model_of(MEAN[0], *nodes), Preprocess((2, 2), scale="0..255")
    embedder = embedder_of(model, "descriptor", preprocess, 4, normalise=normalise)
    given = [(FIRST, render_jpeg(tile_from_id(FIRST)))]
    if (normalise, why) == ("l2", "beyond float16"):  # not after it was divided by its length
        assert np.linalg.norm(described(embedder, given, dtype).descriptors) == pytest.approx(1, abs=1e-3)
        return
    with pytest.raises(Refused, match=why) as caught:
        described(embedder, given, dtype)
    assert caught.value.fields["tile"] == "16/14712/23040"
    assert no_worker_is_left()


def test_only_the_wrong_tile_of_a_batch_is_named() -> None:
    embedder = embedder_of(model_of(*MEAN), "descriptor", Preprocess((2, 2), filter="nearest"), 8, tile_size=8)
    # Black wherever "nearest" looks.
    good, dark = png((90, 9, 0), (9, 90, 0)), png((0, 0, 0), (9, 9, 9))
    numbers = sorted(tile_id(Tile(16, x, 1)) for x in (1, 2, 3))
    with pytest.raises(Refused) as caught:
        described(embedder, list(zip(numbers, (good, dark, good), strict=True)))
    assert caught.value.fields["tile"] == str(tile_from_id(numbers[1]))


def test_one_number_is_never_constant() -> None:
    model = model_of(helper.make_node("ReduceMean", ["image"], ["descriptor"], axes=[1, 2, 3], keepdims=0), out=("N",))
    with pytest.raises(Invalid):
        embedder_of(model, "descriptor", Preprocess((2, 2)), 8)
    model = model_of(
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
        helper.make_node("ReduceMean", ["mean"], ["descriptor"], axes=[1], keepdims=1),
        out=("N", 1),
    )
    assert described(
        embedder_of(model, "descriptor", Preprocess((2, 2)), 8), [(FIRST, render_jpeg(tile_from_id(FIRST)))]
    ).descriptors.shape == (1, 1)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_normalised_rows_have_length_1(tiles: Encoded, dtype: Any) -> None:
    model = model_of(MEAN[0], helper.make_node("Mul", ["mean", "large"], ["descriptor"]))
    plain = described(embedder_of(model, "descriptor", Preprocess((2, 2)), 4), tiles).descriptors
    unit = described(embedder_of(model, "descriptor", Preprocess((2, 2)), 4, normalise="l2"), tiles, dtype).descriptors
    assert unit.dtype == dtype
    assert np.allclose(unit, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-3)


def test_a_row_that_the_cast_makes_too_long_is_refused(
    tiles: Encoded, backbone: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LENGTH_TOLERANCE", 1e-9)  # far below what a float16 can keep
    with pytest.raises(Refused, match="length"):
        described(embedder_of(backbone, "descriptor", PREPROCESS, 8, normalise="l2"), tiles, "float16")


# -- memory


class Narrow:
    """A session that has the memory for so many images, and says so in ONNX Runtime's words."""

    def __init__(self, session: Any, most: int, error: Callable[[], Exception]) -> None:
        self._session, self._most, self._error = session, most, error
        self.sizes: list[int] = []

    def run(self, outputs: Any, feeds: dict[str, NDArray[np.float32]], *more: Any) -> Any:
        (images,) = feeds.values()
        self.sizes.append(len(images))
        if len(images) > self._most:
            raise self._error()
        return self._session.run(outputs, feeds, *more)


def ort_says() -> Exception:
    error: Exception = RuntimeException(
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. "
        "Name:'c1' Status Message: Failed to allocate memory for requested buffer of size 67108864"
    )
    return error


@pytest.mark.parametrize("error", [ort_says, MemoryError])
def test_where_memory_runs_out_the_batch_is_halved_and_stays_so(
    backbone: bytes, tiles: Encoded, error: Callable[[], Exception]
) -> None:
    whole = described(embedder_of(backbone, "descriptor", PREPROCESS, 2), tiles)
    embedder = embedder_of(backbone, "descriptor", PREPROCESS, 16)
    embedder.network.session = narrow = Narrow(embedder.network.session, 3, error)
    result = described(embedder, tiles)
    assert embedder.network.batch == 2
    assert result.tile_ids.tolist() == whole.tile_ids.tolist()
    assert result.descriptors.tobytes() == whole.descriptors.tobytes()
    narrow.sizes.clear()
    described(embedder, tiles)
    assert max(narrow.sizes) == 2


def test_where_memory_is_short_for_one_view_it_is_unavailable(backbone: bytes, tiles: Encoded) -> None:
    embedder = embedder_of(backbone, "descriptor", PREPROCESS, 16)
    embedder.network.session = Narrow(embedder.network.session, 0, ort_says)
    with pytest.raises(Unavailable, match="memory") as caught:
        described(embedder, tiles)
    assert caught.value.remedy
    assert embedder.network.batch == 1
    assert no_worker_is_left()


def test_a_model_that_has_the_memory_for_one_image_only_is_tried_with_one(
    backbone: bytes, tiles: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow: list[Narrow] = []

    def opened(*arguments: Any, **options: Any) -> Any:
        class Both(Narrow):
            def __getattr__(self, name: str) -> Any:
                return getattr(self._session, name)

        narrow.append(Both(InferenceSession(*arguments, **options), 1, ort_says))
        return narrow[-1]

    monkeypatch.setattr("onnxruntime.InferenceSession", opened)
    embedder = embedder_of(backbone, "descriptor", PREPROCESS, 16)
    assert embedder.network.batch == 1
    assert max(narrow[0].sizes) == 2
    assert len(described(embedder, tiles).tile_ids) == len(tiles)


def test_a_fixed_batch_is_not_halved_below_its_size(tmp_path: Path, tiles: Encoded) -> None:
    write_backbone(tmp_path / "fixed.onnx", batch=4)
    embedder = embedder_of((tmp_path / "fixed.onnx").read_bytes(), "descriptor", PREPROCESS, 16)
    embedder.network.session = narrow = Narrow(embedder.network.session, 3, ort_says)
    with pytest.raises(Unavailable, match="memory"):
        described(embedder, tiles)
    assert set(narrow.sizes) == {4}


def test_another_failure_of_the_session_is_no_matter_of_memory(backbone: bytes, tiles: Encoded) -> None:
    embedder = embedder_of(backbone, "descriptor", PREPROCESS, 16)
    embedder.network.session = Narrow(embedder.network.session, 0, lambda: RuntimeException("a node failed"))
    with pytest.raises(Unavailable, match="a node failed"):
        described(embedder, tiles)
    assert embedder.network.batch == 16


SHORT = """
import os, resource, sys

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # two workers, whatever the machine

import numpy as np
from builders.descriptors.embed import CellRequest, Description, Embedder
from builders.descriptors.preprocess import Preprocess
from builders.grid.tiles import tile_from_id
from store.errors import Unavailable
from builders.example.terrain import render_jpeg

first, room = int(sys.argv[2]), int(sys.argv[3])
embedder = Embedder(Description(open(sys.argv[1], "rb").read(), "descriptor", Preprocess((512, 512)), 256))
tiles = [(n, render_jpeg(tile_from_id(n))) for n in range(first, first + 24)]
job = CellRequest(16, tuple(n for n, _ in tiles), tuple(tiles))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (room << 20), resource.RLIM_INFINITY))
try:
    (result,) = embedder.embed([job], "float32")
    print(embedder.network.batch, len(result.tile_ids), np.isfinite(result.descriptors).all())
except Unavailable as error:
    print("unavailable", error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space and asks /proc for its size")
@pytest.mark.parametrize("room", [512, 2])
def test_real_want_of_memory(tmp_path: Path, room: int) -> None:
    """256 views of 3 x 512 x 512 would take 768 MiB for the input alone, in each worker."""
    write_backbone(tmp_path / "large.onnx", size=512)
    done = subprocess.run(
        [sys.executable, "-c", SHORT, str(tmp_path / "large.onnx"), str(FIRST), str(room)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.split()
    if room == 512:
        assert told[1:] == ["24", "True"]
        assert int(told[0]) <= 128
    else:
        assert told[0] == "unavailable"


# -- what a model must be


def test_the_size_of_the_model_is_the_size_of_preprocess(backbone: bytes) -> None:
    for resize in ((256, 256), (64, 65)):
        with pytest.raises(Invalid) as caught:
            embedder_of(backbone, "descriptor", Preprocess(resize), 8)
        assert caught.value.fields["key"] == "preprocess.resize"
        assert "[64, 64]" in caught.value.remedy


def test_an_output_that_is_not_there_is_invalid_and_the_outputs_are_listed(backbone: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        embedder_of(backbone, "embedding", PREPROCESS, 8)
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
        embedder_of(model, "descriptor", Preprocess((2, 2)), 8)


def test_a_model_whose_descriptors_have_another_length_for_more_images_is_invalid() -> None:
    """Three numbers for one image, and six for each of two."""
    model = model_of(
        MEAN[0],
        helper.make_node("Shape", ["mean"], ["shape"], end=1),
        helper.make_node("Constant", [], ["one"], value=helper.make_tensor("o", TensorProto.INT64, [1], [1])),
        helper.make_node("Concat", ["one", "shape"], ["repeats"], axis=0),
        helper.make_node("Tile", ["mean", "repeats"], ["descriptor"]),
        out=("N", "D"),
    )
    with pytest.raises(Invalid, match="has 6 numbers for each of 2 images and 3 for another number"):
        embedder_of(model, "descriptor", Preprocess((2, 2)), 2)
    assert embedder_of(model, "descriptor", Preprocess((2, 2)), 1).network.dimension == 3


def constant(name: str, value: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(value)))


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        # Of 192 numbers, so that no two runs drop the same ones.
        ([constant("half", np.float32(0.5)), constant("on", True), helper.make_node("Flatten", ["image"], ["flat"]),
          helper.make_node("Dropout", ["flat", "half", "on"], ["descriptor"], name="drop")],
         r"two runs on the same image: output descriptor differs by .*; it has Dropout drop;"),
        # Of the images of a run, mean and variance: what a network does while it is trained.
        ([MEAN[0], helper.make_node("ReduceMean", ["mean"], ["all"], axes=[0]),
          helper.make_node("Sub", ["mean", "all"], ["descriptor"])],
         r"one image by itself and beside others: output descriptor differs by"),
        # One scale for all images of a run: an image beside a brighter one loses its shades.
        ([MEAN[0], helper.make_node("DynamicQuantizeLinear", ["mean"], ["q", "scale", "zp"]),
          helper.make_node("DequantizeLinear", ["q", "scale", "zp"], ["descriptor"])],
         r"one image by itself and beside others: output descriptor differs by"),
    ],
    ids=["dropout", "statistics of a batch", "dynamic quantisation"],
)  # fmt: skip
@pytest.mark.parametrize("batch", ["N", 4])
def test_a_model_that_is_no_function_of_one_image_is_invalid(
    nodes: list[onnx.NodeProto], says: str, batch: str | int
) -> None:
    model = model_of(*nodes, shape=(batch, 3, 8, 8), out=(batch, "D"))
    with pytest.raises(Invalid, match=says) as caught:
        embedder_of(model, "descriptor", Preprocess((8, 8)), 4)
    assert caught.value.kind == "not-repeatable"
    assert caught.value.remedy


def test_an_operator_that_cannot_run_has_its_kind() -> None:
    with pytest.raises(Invalid) as caught:
        embedder_of(model_of(helper.make_node("Warp", ["image"], ["descriptor"])), "descriptor", Preprocess((2, 2)), 1)
    assert caught.value.kind == "unsupported-op"


def test_a_pooled_map_of_one_pixel_is_a_descriptor() -> None:
    model = model_of(helper.make_node("GlobalAveragePool", ["image"], ["descriptor"]), out=("N", 3, 1, 1))
    assert embedder_of(model, "descriptor", Preprocess((2, 2)), 8).network.dimension == 3


def test_sizes_that_the_model_leaves_open_are_those_of_preprocess() -> None:
    model = model_of(*MEAN, shape=("N", 3, "H", "W"))
    result = described(
        embedder_of(model, "descriptor", Preprocess((48, 96)), 8), [(FIRST, render_jpeg(tile_from_id(FIRST)))]
    )
    assert result.descriptors.shape == (1, 3)


def test_the_backbone_of_the_tests_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_backbone(tmp_path / name, size=96, dim=48)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert embedder_of((tmp_path / "a").read_bytes(), "descriptor", Preprocess((96, 96)), 8).network.dimension == 48


def real_cell() -> list[tuple[int, bytes]]:
    """16 tiles of aerial imagery."""
    area = (-991750000, 470080000, -991350000, 470330000)
    cell = cell_of(tile_from_id(int(tiles_of_bbox(area, 17)[100])))
    with open_mbtiles(Path(SHARED or "") / "data/imagery/naip-20180716.mbtiles") as source:
        return list(source.cell(cell, 17))[:16]


@needs_shared
def test_a_real_backbone_on_real_imagery() -> None:
    model = (Path(SHARED or "") / "data/models/place-embedder.onnx").read_bytes()
    preprocess = Preprocess((256, 256))
    cell = real_cell()
    result = described(embedder_of(model, "descriptor", preprocess, 8), cell)
    assert result.descriptors.shape == (16, 288)
    assert np.allclose(result.descriptors, reference(model, cell, preprocess), atol=1e-5)


@needs_shared
def test_a_real_backbone_of_fixed_batch_and_another_size() -> None:
    """The graph of this file is made for 1 x 3 x 352 x 352 inside, and declares N x 3 x 256 x 256."""
    path = Path(SHARED or "") / "data/models/place-embedder-batch1-352.onnx"
    with pytest.raises(Invalid):  # as it is it takes neither size: found before the first tile
        embedder_of(path.read_bytes(), "descriptor", Preprocess((256, 256)), 8)
    with pytest.raises(Invalid):
        embedder_of(path.read_bytes(), "descriptor", Preprocess((352, 352)), 8)
    model = onnx.load(path)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 352, 352), strict=True):
        dim.dim_value = size
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    fixed = model.SerializeToString()
    cell = real_cell()[:5]
    result = described(embedder_of(fixed, "descriptor", Preprocess((352, 352)), 8), cell, "float16")
    assert result.descriptors.shape == (5, 288)
    assert np.allclose(result.descriptors, reference(fixed, cell, Preprocess((352, 352))), atol=2e-3)
